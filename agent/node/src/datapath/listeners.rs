//! Asks the kernel at which ports programs listen.

use std::collections::BTreeSet;
use std::io;

use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::node_socket::{
    AF_INET, AF_INET6, HEADER, ID, ID_LENGTH, IPPROTO_TCP, LISTEN, REQUEST, SOCK_DIAG_BY_FAMILY,
};

/// `NLM_F_ROOT | NLM_F_MATCH`: all that there are.
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Where `struct inet_diag_msg` has the port: behind the header, family, state, timer and retransmissions.
const PORT: usize = HEADER + 4;

/// The TCP ports at which programs in the calling thread's network namespace listen, at whatever address.
pub fn ports() -> io::Result<BTreeSet<u16>> {
    let socket = net::socket_with(
        net::AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    let mut ports = BTreeSet::new();
    let mut answer = vec![0_u8; 32 * 1024];
    for family in [AF_INET, AF_INET6] {
        net::send(&socket, &request(family), SendFlags::empty())?;
        loop {
            let (length, _) = net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
            if read(&answer[..length], &mut ports)? {
                break;
            }
        }
    }
    Ok(ports)
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2` of `linux/inet_diag.h`.
fn request(family: u8) -> Vec<u8> {
    let length = (ID + ID_LENGTH) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((REQUEST | DUMP).to_ne_bytes());
    // Sequence number and port id.
    bytes.extend([0; 8]);
    // Family, protocol, no extensions, padding, one state.
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend((1_u32 << LISTEN).to_ne_bytes());
    bytes.extend([0; ID_LENGTH]);
    bytes
}

/// Reads a part of the answer. True: it was the last.
fn read(mut answer: &[u8], ports: &mut BTreeSet<u16>) -> io::Result<bool> {
    while let Some(header) = answer.get(..HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(message) = answer.get(..length).filter(|message| message.len() >= HEADER) else { break };
        match kind {
            DONE => return Ok(true),
            ERROR => return Err(io::Error::other("the kernel does not list sockets")),
            SOCK_DIAG_BY_FAMILY => {
                if let Some(&[high, low]) = message.get(PORT..PORT + 2) {
                    ports.insert(u16::from_be_bytes([high, low]));
                }
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_listed_for_as_long_as_it_is_there() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(ports().unwrap().contains(&port), "{address}");
            drop(listener);
            assert!(!ports().unwrap().contains(&port), "{address}");
        }
    }
}
