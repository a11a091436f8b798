//! Asks the kernel for the socket that a connection has in this network namespace, where there is one.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `SOCK_DIAG_BY_FAMILY`, of `linux/sock_diag.h`.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 1;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
pub(super) const IPPROTO_TCP: u8 = 6;
/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Where `struct inet_diag_sockid` begins in a request: behind the header and eight bytes of its own.
pub(super) const ID: usize = HEADER + 8;
/// Length of `struct inet_diag_sockid`.
pub(super) const ID_LENGTH: usize = 48;
/// Where `struct inet_diag_sockid` begins in an answer: behind the header and four bytes.
const ANSWER_ID: usize = HEADER + 4;
/// The part of it that names both ends: ports and addresses.
const ENDS: usize = 36;
/// Where `struct inet_diag_msg` has the socket's inode.
const INODE: usize = ANSWER_ID + ID_LENGTH + 16;
/// `TCP_LISTEN`: a listener of that port is no connection.
pub(super) const LISTEN: u8 = 10;

/// The inode, by which processes have it, of the TCP socket with these ends in the calling thread's network namespace.
pub fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    let socket = net::socket_with(
        net::AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    let request = request(local, remote);
    net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0_u8; 1024];
    let (length, _) = net::recv(&socket, &mut answer, RecvFlags::empty())?;
    let answer = &answer[..length];
    Ok(is_connection(answer, &request[ID..ID + ENDS]).then(|| read(answer)).flatten())
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2` of `linux/inet_diag.h`.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let (local_ip, remote_ip) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let family = if local_ip.is_ipv4() { AF_INET } else { AF_INET6 };
    let length = (ID + ID_LENGTH) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    // Sequence number and port id.
    bytes.extend([0; 8]);
    // Family, protocol, no extensions, padding, every state.
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(words(local_ip));
    bytes.extend(words(remote_ip));
    // Any interface; `INET_DIAG_NOCOOKIE`.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([0xff; 8]);
    bytes
}

fn words(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut words = [0; 16];
            words[..4].copy_from_slice(&ip.octets());
            words
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Reads `struct inet_diag_msg`: the kernel falls back to listeners, which are not what was asked for.
fn is_connection(answer: &[u8], ends: &[u8]) -> bool {
    let kind = answer.get(4..6).and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    kind == Some(SOCK_DIAG_BY_FAMILY)
        && answer.get(HEADER + 1).is_some_and(|&state| state != LISTEN)
        && answer.get(ANSWER_ID..ANSWER_ID + ENDS) == Some(ends)
}

fn read(answer: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(answer.get(INODE..INODE + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_connection_is_found_by_both_its_ends() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let found = find(local, remote).unwrap().unwrap();
            let name = format!("/proc/self/fd/{}", client.as_raw_fd());
            let name = std::fs::read_link(name).unwrap();
            assert_eq!(name.to_str(), Some(&*format!("socket:[{found}]")));
            let mut other = local;
            other.set_port(local.port() ^ 1);
            assert_eq!(find(other, remote).unwrap(), None);
            // A listener of that address and port is none.
            assert_eq!(find(remote, other).unwrap(), None);
        }
    }
}
