//! Asks the kernel at which ports programs listen.

use std::collections::BTreeSet;
use std::io;

use super::sock_diag::{
    self, AF_INET, AF_INET6, ANSWER_ID, DONE, DUMP, ERROR, ID_LENGTH, LISTEN, SOCK_DIAG_BY_FAMILY, SockDiag,
};

/// The TCP ports at which programs in the calling thread's network namespace listen, at whatever address.
pub fn ports() -> io::Result<BTreeSet<u16>> {
    let socket = SockDiag::open()?;
    let mut ports = BTreeSet::new();
    let mut answer = vec![0_u8; 32 * 1024];
    for family in [AF_INET, AF_INET6] {
        socket.ask(&sock_diag::request(DUMP, family, 1 << LISTEN, [0; ID_LENGTH]))?;
        while !read(socket.hear(&mut answer)?, &mut ports)? {}
    }
    Ok(ports)
}

/// Reads a part of the answer. True: it was the last.
fn read(answer: &[u8], ports: &mut BTreeSet<u16>) -> io::Result<bool> {
    for (kind, message) in sock_diag::messages(answer) {
        match kind {
            DONE => return Ok(true),
            ERROR => return Err(io::Error::other("the kernel does not list sockets")),
            SOCK_DIAG_BY_FAMILY => {
                // The socket's own port is what its ends begin with.
                if let Some(&[high, low]) = message.get(ANSWER_ID..ANSWER_ID + 2) {
                    ports.insert(u16::from_be_bytes([high, low]));
                }
            }
            _ => {}
        }
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
