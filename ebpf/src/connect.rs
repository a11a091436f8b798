//! `connect4`, `connect6`: redirects the TCP connections of enrolled pods to the agent's listener on their loopback.

use core::ptr;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{
    bpf_bind, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use weft_common::{
    INBOUND_PORT, MAX_OPENING, OUTBOUND_PORT, Pod, Probed, Socket, Words, owner, v4_mapped, v4_of,
};

use crate::maps::{self, HOME, Stats, field};
use crate::{read, write};

const ALLOW: i32 = 1;
/// `connect` fails with `EPERM`.
const REFUSE: i32 = 0;

const IPPROTO_TCP: u32 = 6;
const LOCALHOST_V4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
const LOCALHOST_V6: Words = [0, 0, 0, 1_u32.to_be()];
const UNSPECIFIED: Words = [0; 4];

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let name = ctx.sock_addr;
    let ip = read!(name, user_ip4);
    let Some(caller) = Caller::of(&ctx, v4_mapped(ip)) else { return ALLOW };
    if stays_v4(ip, caller.pod) {
        return caller.leave_alone();
    }
    if !caller.capture(v4_mapped(ip), dialled_port(name)) {
        return REFUSE;
    }
    if read!(caller.socket, src_ip4) == 0 && caller.pod.addr4_be != 0 {
        bind(name, SockAddrV4 { family: 2, port_be: 0, addr_be: caller.pod.addr4_be, zero: [0; 2] });
    }
    write!(name, user_ip4, LOCALHOST_V4);
    write!(name, user_port, caller.listener_port_be());
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let name = ctx.sock_addr;
    let ip = [
        read!(name, user_ip6[0]),
        read!(name, user_ip6[1]),
        read!(name, user_ip6[2]),
        read!(name, user_ip6[3]),
    ];
    let Some(caller) = Caller::of(&ctx, ip) else { return ALLOW };
    // A v4-mapped destination is an IPv4 connection of an IPv6 socket, and must stay one.
    let (stays, own, listener) = match v4_of(ip) {
        Some(v4) => {
            let own = if caller.pod.addr4_be == 0 { UNSPECIFIED } else { v4_mapped(caller.pod.addr4_be) };
            (stays_v4(v4, caller.pod), own, v4_mapped(LOCALHOST_V4))
        }
        None => (stays_v6(ip, caller.pod), caller.pod.addr6_be, LOCALHOST_V6),
    };
    if stays {
        return caller.leave_alone();
    }
    if !caller.capture(ip, dialled_port(name)) {
        return REFUSE;
    }
    if own != UNSPECIFIED && is_unbound_v6(caller.socket) {
        bind(name, SockAddrV6 { family: 10, port_be: 0, flow: 0, addr_be: own, scope: 0 });
    }
    write!(name, user_ip6[0], listener[0]);
    write!(name, user_ip6[1], listener[1]);
    write!(name, user_ip6[2], listener[2]);
    write!(name, user_ip6[3], listener[3]);
    write!(name, user_port, caller.listener_port_be());
    ALLOW
}

/// A program in an enrolled pod that opens a TCP connection.
struct Caller {
    cookie: u64,
    pod: &'static Pod,
    socket: *mut bpf_sock,
}

impl Caller {
    /// `None`: none of weft's business, or the agent itself.
    #[inline(always)]
    fn of(ctx: &SockAddrContext, dialled: Words) -> Option<Self> {
        let name = ctx.sock_addr;
        // SAFETY: the helper takes the hook's own context.
        let cookie = unsafe { bpf_get_netns_cookie(name.cast()) };
        let Some(pod) = maps::pod(cookie) else {
            note_node(name, cookie, dialled);
            return None;
        };
        if read!(name, protocol) != IPPROTO_TCP {
            return None;
        }
        let socket = read!(name, __bindgen_anon_1.sk);
        if socket.is_null() {
            return None;
        }
        match maps::known(socket) {
            Some(known) if known.owner != owner::CAPTURED => None,
            _ => Some(Self { cookie, pod, socket }),
        }
    }

    /// The port to redirect to, in network order. A socket that has the listener's own port would reach itself there, for
    /// TCP lets one connect to itself; [`crate::lookup`] knows the other one for the same listener.
    #[inline(always)]
    fn listener_port_be(&self) -> u32 {
        let own = read!(self.socket, src_port);
        let port = if own == u32::from(OUTBOUND_PORT) { INBOUND_PORT } else { OUTBOUND_PORT };
        u32::from(port.to_be())
    }

    /// Lets the connection go where it wants. A socket that is used again may carry an older destination.
    #[inline(always)]
    fn leave_alone(&self) -> i32 {
        maps::forget(self.socket);
        ALLOW
    }

    /// Remembers the original destination. False: the connection must be refused.
    #[inline(always)]
    fn capture(&self, addr_be: Words, port: u32) -> bool {
        let Some(stats) = Stats::of(self.cookie) else { return false };
        // Below zero for a moment, when one is counted off that began before the counters did.
        if stats.get(field!(opening)).cast_signed() >= MAX_OPENING.cast_signed() {
            stats.add(field!(refused_limit), 1);
            return false;
        }
        maps::remember(self.socket, Socket { owner: owner::CAPTURED, port, addr_be })
    }
}

/// Takes note of who opens a connection from the agent's own namespace to a port that a pod's probes name: a socket does not
/// tell that later.
#[inline(always)]
fn note_node(name: *mut bpf_sock_addr, cookie: u64, dialled: Words) {
    if HOME.get(0) != Some(&cookie) || read!(name, protocol) != IPPROTO_TCP {
        return;
    }
    let socket = read!(name, __bindgen_anon_1.sk);
    if socket.is_null() {
        return;
    }
    if maps::asked(Probed { addr_be: dialled, port: dialled_port(name) }).is_none() {
        return maps::forget(socket);
    }
    // SAFETY: the helpers take nothing.
    let (group, process) = unsafe { (bpf_get_current_cgroup_id(), bpf_get_current_pid_tgid() >> 32) };
    let opener = [group as u32, (group >> 32) as u32, process as u32, 0];
    maps::remember(socket, Socket { owner: owner::NODE, port: 0, addr_be: opener });
}

/// Loopback, "this host", and the pod's own address.
#[inline(always)]
fn stays_v4(ip: u32, pod: &Pod) -> bool {
    ip.to_ne_bytes()[0] == 127 || ip == 0 || ip == pod.addr4_be
}

/// Loopback, "this host", the pod's own address, and link-local (whose scope the hook cannot see).
#[inline(always)]
fn stays_v6(ip: Words, pod: &Pod) -> bool {
    let link_local = u32::from_be(ip[0]) >> 22 == 0xfe80 >> 6;
    let unspecified_or_loopback = ip[0] == 0 && ip[1] == 0 && ip[2] == 0 && u32::from_be(ip[3]) <= 1;
    link_local || unspecified_or_loopback || ip == pod.addr6_be
}

#[inline(always)]
fn dialled_port(name: *mut bpf_sock_addr) -> u32 {
    u32::from(u16::from_be(read!(name, user_port) as u16))
}

#[inline(always)]
fn is_unbound_v6(socket: *mut bpf_sock) -> bool {
    let words = read!(socket, src_ip6[0])
        | read!(socket, src_ip6[1])
        | read!(socket, src_ip6[2])
        | read!(socket, src_ip6[3]);
    words == 0
}

/// `struct sockaddr_in`.
#[repr(C)]
struct SockAddrV4 {
    family: u16,
    port_be: u16,
    addr_be: u32,
    zero: [u32; 2],
}

/// `struct sockaddr_in6`.
#[repr(C)]
struct SockAddrV6 {
    family: u16,
    port_be: u16,
    flow: u32,
    addr_be: Words,
    scope: u32,
}

/// Gives the socket the pod's own address, as routing would have done. Fails on a socket with a port of its own:
/// the program then sees loopback as its address, and is redirected all the same.
#[inline(always)]
fn bind<T>(context: *mut bpf_sock_addr, mut name: T) {
    // SAFETY: the helper takes the hook's own context, and reads as many bytes as it is told.
    unsafe { bpf_bind(context, ptr::from_mut(&mut name).cast(), size_of::<T>() as i32) };
}
