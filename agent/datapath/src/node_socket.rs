//! Asks the kernel for the socket that a connection has in this network namespace, where there is one.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::sock_diag::{
    self, AF_INET, AF_INET6, ANSWER_ID, HEADER, ID_LENGTH, LISTEN, SOCK_DIAG_BY_FAMILY, SockDiag,
};

/// The part of `struct inet_diag_sockid` that names both ends: ports and addresses.
const ENDS: usize = 36;
/// Where `struct inet_diag_msg` has the socket's inode.
const INODE: usize = ANSWER_ID + ID_LENGTH + 16;

/// The inode, by which processes have it, of the TCP socket with these ends in the calling thread's network namespace.
pub fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    let socket = SockDiag::open()?;
    let (local_ip, remote_ip) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let family = if local_ip.is_ipv4() { AF_INET } else { AF_INET6 };
    let id = id((local_ip, local.port()), (remote_ip, remote.port()));
    socket.ask(&sock_diag::request(0, family, u32::MAX, id))?;
    let mut answer = [0_u8; 1024];
    let mut messages = sock_diag::messages(socket.hear(&mut answer)?);
    Ok(messages.next().and_then(|(kind, message)| inode(kind, message, &id[..ENDS])))
}

/// `struct inet_diag_sockid`: of any interface, with `INET_DIAG_NOCOOKIE`.
fn id(local: (IpAddr, u16), remote: (IpAddr, u16)) -> [u8; ID_LENGTH] {
    let mut id = [0; ID_LENGTH];
    id[..2].copy_from_slice(&local.1.to_be_bytes());
    id[2..4].copy_from_slice(&remote.1.to_be_bytes());
    id[4..20].copy_from_slice(&words(local.0));
    id[20..ENDS].copy_from_slice(&words(remote.0));
    id[ENDS + 4..].fill(0xff);
    id
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
fn inode(kind: u16, message: &[u8], ends: &[u8]) -> Option<u32> {
    let is_connection = kind == SOCK_DIAG_BY_FAMILY
        && message.get(HEADER + 1).is_some_and(|&state| state != LISTEN)
        && message.get(ANSWER_ID..ANSWER_ID + ENDS) == Some(ends);
    let inode = message.get(INODE..INODE + 4)?.try_into().ok()?;
    is_connection.then_some(u32::from_ne_bytes(inode))
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
