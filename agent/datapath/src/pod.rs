//! An enrolled pod, as the workers use it: on the way of every connection, so each call here is counted in system calls.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::Sender;

use weft_common::{OrigDst, Socket, Source, Words, owner, v4_of};

use super::PodNetwork;
use super::bpf::Insert;
use super::error::{Context, DatapathError};
use super::netns::Netns;
use super::node_process::NodeProcesses;
use super::object::Maps;
use super::ports::Ports;
use super::{listeners, sockets};

/// How many source ports are tried before the kernel is asked for one: one may be a program's, or was used to the same
/// end less than a second ago.
const PORT_TRIES: usize = 16;

/// What every pod's connections need.
#[derive(Debug)]
pub struct Kernel {
    /// The maps.
    pub maps: Maps,
    /// The agent's own namespace.
    pub home: Netns,
    /// Who is in it.
    pub node: Arc<NodeProcesses>,
}

impl Kernel {
    /// Forgets a pod whose listeners are closed: its counters, and the destinations of connections that nobody accepted.
    pub fn forget(&self, cookie: u64) -> Result<(), DatapathError> {
        let what = || format!("cannot remove the pod with network namespace {cookie} from the maps");
        let orig_dst = &self.maps.orig_dst;
        for source in orig_dst.keys().context(what)?.iter().filter(|source| source.cookie == cookie) {
            orig_dst.remove(source).context(what)?;
        }
        self.maps.stats.remove(&cookie).context(what)
    }
}

/// A pod's namespace with the agent's rules and routes in it. Connections borrow client addresses through these, so
/// they stay until the last one lets go.
#[derive(Debug)]
pub struct Prepared {
    /// The namespace.
    pub netns: Arc<Netns>,
    /// Its cookie.
    pub cookie: u64,
    /// The ports that connections borrow together with addresses.
    pub ports: Ports,
    /// Who takes the rules back.
    pub unused: Sender<Unused>,
}

/// A namespace that no connection needs any more.
#[derive(Debug)]
pub struct Unused {
    /// The namespace.
    pub netns: Arc<Netns>,
    /// Its cookie.
    pub cookie: u64,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // After shutdown nobody listens, and nothing is left to do.
        self.unused.send(Unused { netns: Arc::clone(&self.netns), cookie: self.cookie }).ok();
    }
}

/// How far a pod's life is, as its connections have to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// It serves.
    Serving,
    /// Its deletion was asked for: it still serves, and callers should not come back.
    Ending,
    /// Its programs serve no more.
    Ended,
    /// Its network goes.
    Gone,
}

/// An enrolled pod, shared with the workers that serve it.
#[derive(Debug)]
pub struct LocalPod {
    /// What was enrolled.
    pub network: PodNetwork,
    /// `SO_NETNS_COOKIE` of its namespace.
    pub cookie: u64,
    pub(super) prepared: Arc<Prepared>,
    pub(super) kernel: Arc<Kernel>,
    pub(super) between: AtomicBool,
    pub(super) life: AtomicU8,
}

impl LocalPod {
    /// Whether it is joining the mesh or leaving it, and the other nodes may not know yet on which side it is. Their
    /// callers, who then come in plain text, are let in as if it were outside: it was a moment ago, or is in a moment.
    pub fn is_between(&self) -> bool {
        self.between.load(Ordering::Relaxed)
    }

    /// Says whether it is.
    pub fn set_between(&self, between: bool) {
        self.between.store(between, Ordering::Relaxed);
    }

    /// Who tells the node's own processes from others.
    pub fn node(&self) -> &Arc<NodeProcesses> {
        &self.kernel.node
    }

    /// How far its life is.
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::Relaxed) {
            0 => Life::Serving,
            1 => Life::Ending,
            2 => Life::Ended,
            _ => Life::Gone,
        }
    }

    /// Says how far its life is; it never goes back. True: that is news.
    pub fn set_life(&self, life: Life) -> bool {
        self.life.fetch_max(life as u8, Ordering::Relaxed) < life as u8
    }

    /// The TCP ports that its programs listen at.
    pub fn listening(&self) -> io::Result<BTreeSet<u16>> {
        let _inside = self.prepared.netns.enter(&self.kernel.home)?;
        listeners::ports()
    }

    /// Takes the address that the pod's program dialled, for an outbound connection accepted from `peer`.
    /// Consumes the kernel's entry. `None`: the connection was not captured (somebody dialled the listener itself).
    pub fn take_orig_dst(&self, peer: SocketAddr) -> io::Result<Option<SocketAddr>> {
        let source = Source {
            cookie: self.cookie,
            addr_be: to_words(peer.ip()),
            port: u32::from(peer.port()),
            reserved: 0,
        };
        Ok(self.kernel.maps.orig_dst.take(&source)?.map(to_socket_addr))
    }

    /// Starts a connection to a program *in this pod* at `to`, shown to it as coming from `from`
    /// (transparent; the port is another). The returned socket is non-blocking and connecting:
    /// await writability, then read `SO_ERROR`. It has `TCP_NODELAY`, as accepted ones have.
    ///
    /// # Errors
    /// `InvalidInput` if `from` and `to` are of different families.
    pub fn dial_inside(&self, from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
        let (from, to) = (from.to_canonical(), SocketAddr::new(to.ip().to_canonical(), to.port()));
        if from.is_ipv4() != to.is_ipv4() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "addresses of different families"));
        }
        // A link-local address means nothing without its link, which is not this one.
        if matches!(from, IpAddr::V6(from) if from.is_unicast_link_local()) {
            return sockets::connect(self.socket(to.ip(), owner::AGENT_INSIDE)?, to);
        }
        for _ in 0..PORT_TRIES {
            match self.dial_as(from, Some(self.prepared.ports.draw()), to) {
                Err(error) if is_taken(&error) => {}
                other => return other,
            }
        }
        self.dial_as(from, None, to)
    }

    fn dial_as(&self, from: IpAddr, port: Option<u16>, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(to.ip(), owner::AGENT_INSIDE)?;
        // What a pod says to itself needs no proof, and its answers take its own device's route.
        if from != to.ip() {
            sockets::go_over_loopback(socket.as_fd())?;
        }
        sockets::borrow_address(socket.as_fd(), from, port)?;
        sockets::connect(socket, to)
    }

    /// Starts a connection *from this pod's network namespace* to `to`, exempt from capture. As [`Self::dial_inside`].
    pub fn dial_outside(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let socket = self.socket(to.ip(), owner::AGENT_OUTSIDE)?;
        sockets::connect(socket, to)
    }

    /// A socket in the pod's namespace that weft's hooks know for the agent's.
    fn socket(&self, family_of: IpAddr, owner: u32) -> io::Result<OwnedFd> {
        let socket = {
            let _inside = self.prepared.netns.enter(&self.kernel.home)?;
            sockets::tcp_socket(family_of)?
        };
        let value = Socket { owner, ..Socket::default() };
        self.kernel.maps.sockets.insert(&socket.as_raw_fd(), &value, Insert::Any)?;
        Ok(socket)
    }
}

/// Somebody has this port, or this port to this end.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// An address as the kernel programs have it.
pub fn to_words(ip: IpAddr) -> Words {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let (words, _) = octets.as_chunks::<4>();
    std::array::from_fn(|index| u32::from_ne_bytes(words[index]))
}

/// An address as Rust has it; IPv4 comes out as IPv4.
fn to_ip(words: Words) -> IpAddr {
    if let Some(v4) = v4_of(words) {
        return IpAddr::from(v4.to_ne_bytes());
    }
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}

fn to_socket_addr(orig_dst: OrigDst) -> SocketAddr {
    SocketAddr::new(to_ip(orig_dst.addr_be), orig_dst.port as u16)
}

#[cfg(test)]
mod tests {
    use super::{to_ip, to_words};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    proptest! {
        #[test]
        fn addresses_go_to_the_kernel_and_back(v4: u32, v6: u128) {
            for ip in [IpAddr::from(Ipv4Addr::from(v4)), IpAddr::from(Ipv6Addr::from(v6))] {
                prop_assert_eq!(to_ip(to_words(ip)), ip.to_canonical());
            }
        }
    }

    #[test]
    fn words_hold_the_address_in_network_order() {
        let words = to_words(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(words[3].to_ne_bytes(), [10, 0, 0, 1]);
    }
}
