//! The words of OPEN: an address, and whether the requests have been read.

use std::net::{IpAddr, SocketAddr};

use crate::authority;

/// Follows the address where the client's agent has read the requests, and taken out of their headers what callers may not
/// claim.
const READ: &str = " read";

/// What a client says.
pub(crate) fn write(to: SocketAddr, read: bool) -> String {
    format!("{to}{}", if read { READ } else { "" })
}

/// Where to, and whether the requests have been read at their source; `None`: a connection that arrived at a pod with these
/// addresses may not lead there.
pub(crate) fn read(words: &[u8], addresses: &[IpAddr]) -> Option<(SocketAddr, bool)> {
    let words = std::str::from_utf8(words).ok()?;
    let (authority, read) = words.strip_suffix(READ).map_or((words, false), |authority| (authority, true));
    Some((authority::destination(authority, addresses)?, read))
}
