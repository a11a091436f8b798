//! The agent's sockets in a pod's namespace: listeners, and connections that pass weft's own hooks.
#![allow(unsafe_code, reason = "socket options that no library offers")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use weft_common::{INBOUND_PORT, LOOPBACK_DEVICE, OUTBOUND_PORT, listener};

use super::Direction;
use super::routing::INBOUND_MARK;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// `IP_BIND_ADDRESS_NO_PORT`: the port is chosen when the other end is known, so that ports are shared.
const BIND_ADDRESS_NO_PORT: libc::c_int = 24;

/// A port that is free for IPv4 may be taken for IPv6.
const ANY_PORT_TRIES: usize = 8;

/// A worker's listener and where it belongs.
#[derive(Debug)]
pub struct Bound {
    /// What `LISTENERS` calls it.
    pub kind: u32,
    /// Index of the worker, or of one that another agent had.
    pub worker: usize,
    /// The socket.
    pub socket: TcpListener,
}

impl Bound {
    /// Why it exists.
    pub fn direction(&self) -> Direction {
        match self.kind {
            listener::OUTBOUND_V4 | listener::OUTBOUND_V6 => Direction::Outbound,
            _ => Direction::Inbound,
        }
    }
}

/// All listeners of a pod, and the ports that they got.
#[derive(Debug)]
pub struct Listeners {
    /// Every socket.
    pub bound: Vec<Bound>,
    /// The port of outbound ones.
    pub outbound_port: u16,
    /// The port of inbound ones.
    pub inbound_port: u16,
}

/// Opens every listener for `workers` in the calling thread's namespace. A namespace without IPv6 gets those of
/// IPv4 only.
pub fn listen(workers: usize) -> io::Result<Listeners> {
    let (mut bound, outbound_port) = listen_for(Direction::Outbound, workers, OUTBOUND_PORT)?;
    let (inbound, inbound_port) = listen_for(Direction::Inbound, workers, INBOUND_PORT)?;
    bound.extend(inbound);
    Ok(Listeners { bound, outbound_port, inbound_port })
}

/// Listens at `wanted`, or anywhere if the pod has a program there: what is ours comes by the map, whatever the port.
fn listen_for(direction: Direction, workers: usize, wanted: u16) -> io::Result<(Vec<Bound>, u16)> {
    let mut result = listen_on(direction, workers, wanted);
    for _ in 0..ANY_PORT_TRIES {
        match result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                result = listen_on(direction, workers, 0);
            }
            _ => break,
        }
    }
    result
}

fn listen_on(direction: Direction, workers: usize, port: u16) -> io::Result<(Vec<Bound>, u16)> {
    let (v4, v6) = match direction {
        Direction::Outbound => (listener::OUTBOUND_V4, listener::OUTBOUND_V6),
        Direction::Inbound => (listener::INBOUND_V4, listener::INBOUND_V6),
    };
    let bound = |kind, worker, socket| Bound { kind, worker, socket };
    let first = listen_at(Ipv4Addr::LOCALHOST.into(), port)?;
    let port = first.local_addr()?.port();
    let mut all = vec![bound(v4, 0, first)];
    for worker in 1..workers {
        all.push(bound(v4, worker, listen_at(Ipv4Addr::LOCALHOST.into(), port)?));
    }
    for worker in 0..workers {
        match listen_at(Ipv6Addr::LOCALHOST.into(), port) {
            Ok(socket) => all.push(bound(v6, worker, socket)),
            Err(error) if has_no_v6(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok((all, port))
}

/// Opens, for further workers, listeners at the ports of those that stand, in the calling thread's namespace.
pub fn listen_beside(standing: &[Bound], workers: std::ops::Range<usize>) -> io::Result<Vec<Bound>> {
    let mut all = Vec::new();
    for first in standing.iter().filter(|bound| bound.worker == 0) {
        let at = first.socket.local_addr()?;
        for worker in workers.clone() {
            all.push(Bound { kind: first.kind, worker, socket: listen_at(at.ip(), at.port())? });
        }
    }
    Ok(all)
}

fn has_no_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn listen_at(ip: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = tcp_socket(ip)?;
    let fd = socket.as_fd();
    if ip.is_ipv6() {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    // Connections of a dead agent may linger on the port.
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    // Accepted sockets inherit it.
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    rustix::net::bind(fd, &SocketAddr::new(ip, port))?;
    rustix::net::listen(fd, BACKLOG)?;
    Ok(socket.into())
}

/// A TCP socket in the calling thread's namespace, non-blocking.
pub fn tcp_socket(family_of: IpAddr) -> io::Result<OwnedFd> {
    let family = if family_of.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

/// Makes `socket` come from `from`, an address of another machine: only for connections into the pod.
/// Without a `port` the kernel picks one when the other end is known.
pub fn borrow_address(socket: BorrowedFd<'_>, from: IpAddr, port: Option<u16>) -> io::Result<()> {
    let (level, transparent) = match from {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    };
    set_option(socket, level, transparent, 1)?;
    match port {
        Some(_) => set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?,
        None => set_option(socket, libc::IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)?,
    }
    set_option(socket, libc::SOL_SOCKET, libc::SO_MARK, INBOUND_MARK.cast_signed())?;
    Ok(rustix::net::bind(socket, &SocketAddr::new(from, port.unwrap_or(0)))?)
}

/// Makes `socket` go over the loopback device: the route of its mark leads there. Without this it would take the route of
/// the destination's own device, and `sk_lookup`, which is told of the route's device, could not tell it from what
/// comes from outside, where nobody can send over this one.
pub fn go_over_loopback(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, LOOPBACK_DEVICE.cast_signed())
}

/// Starts to connect.
pub fn connect(socket: OwnedFd, to: SocketAddr) -> io::Result<TcpStream> {
    set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// `SO_NETNS_COOKIE` of the calling thread's namespace: what the kernel programs know it by.
pub fn netns_cookie() -> io::Result<u64> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` is as long as told, and outlives the call.
    let result = unsafe {
        let value = std::ptr::from_mut(&mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, &raw mut length)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let value = std::ptr::from_ref(&value).cast();
    // SAFETY: the value is an integer that outlives the call, as long as told.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
