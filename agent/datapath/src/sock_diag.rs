//! Questions to the kernel about the TCP sockets of the calling thread's network namespace (`linux/sock_diag.h`).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `SOCK_DIAG_BY_FAMILY`: a question, and each socket in an answer.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub(super) const DONE: u16 = 3;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ROOT | NLM_F_MATCH`: all that there are.
pub(super) const DUMP: u16 = 0x300;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `TCP_LISTEN`.
pub(super) const LISTEN: u8 = 10;
/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Where `struct inet_diag_sockid` begins in a request: behind the header and eight bytes of its own.
pub(super) const ID: usize = HEADER + 8;
/// Length of `struct inet_diag_sockid`.
pub(super) const ID_LENGTH: usize = 48;
/// Where `struct inet_diag_sockid` begins in an answer: behind the header, family, state, timer and retransmissions.
pub(super) const ANSWER_ID: usize = HEADER + 4;

/// A socket that questions go through.
#[derive(Debug)]
pub(super) struct SockDiag(OwnedFd);

impl SockDiag {
    pub(super) fn open() -> io::Result<Self> {
        let (family, kind) = (net::AddressFamily::NETLINK, SocketType::DGRAM);
        Ok(Self(net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?))
    }

    pub(super) fn ask(&self, request: &[u8]) -> io::Result<()> {
        net::send(&self.0, request, SendFlags::empty())?;
        Ok(())
    }

    /// A part of the answer.
    pub(super) fn hear<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let (length, _) = net::recv(&self.0, &mut *buffer, RecvFlags::empty())?;
        Ok(&buffer[..length])
    }
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2` of `linux/inet_diag.h`: asks for sockets in these states, a bit for each.
pub(super) fn request(flags: u16, family: u8, states: u32, id: [u8; ID_LENGTH]) -> Vec<u8> {
    let length = (ID + ID_LENGTH) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    // Sequence number and port id.
    bytes.extend([0; 8]);
    // No extensions, padding.
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// The messages in a part of an answer, each with its kind and header.
pub(super) fn messages(mut answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = answer.get(..HEADER)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let message = answer.get(..length).filter(|message| message.len() >= HEADER)?;
        // Messages begin at multiples of four.
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_to_the_first_that_is_cut_off() {
        let message = |length: u32, kind: u16, rest: &[u8]| {
            let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], rest].concat();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let answer = [message(17, 20, &[7]), message(16, DONE, &[]), message(99, 20, &[1])].concat();
        let read: Vec<_> = messages(&answer).map(|(kind, message)| (kind, &message[HEADER..])).collect();
        assert_eq!(read, [(20, &[7][..]), (DONE, &[][..])]);
        assert_eq!(messages(&message(0, 20, &[])).count(), 0);
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
    }
}
