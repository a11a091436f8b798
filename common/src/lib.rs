//! What weft's kernel programs and its agent both read: map keys, map values and constants.
//!
//! Every type is `repr(C)` without holes, because the kernel compares map keys as bytes. Addresses are 16 bytes in
//! network order, IPv4 as v4-mapped IPv6; ports are in host order. **A change of any layout here bumps
//! [`LAYOUT_VERSION`]**, so that an agent never adopts what another version has pinned.
#![no_std]

use core::mem::{align_of, offset_of, size_of};

/// Part of the path of everything that is pinned.
pub const LAYOUT_VERSION: u32 = 2;

/// Where captured outbound connections are sent, on the pod's loopback.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where the agent's inbound listener is bound, on the pod's loopback, if the pod does not use that port.
pub const INBOUND_PORT: u16 = 15006;

/// Pods that one agent can enrol.
pub const MAX_PODS: usize = 4096;
/// Listeners of all pods: two directions, two families, once for each worker.
pub const MAX_LISTENERS: usize = 65_536;
/// Captured connections whose original destination the agent has not read yet.
pub const MAX_ORIG_DST: usize = 131_072;
/// Connections of the agent to programs in its pods that are being opened.
pub const MAX_EXPECTED: usize = 65_536;
/// How long the announcement of such a connection is good: longer than the first SYN may wait, and no longer than that,
/// because a program that is slow keeps it open. Whatever sends the SYN again announces it again.
pub const EXPECTED_FOR_NS: u64 = 2_000_000_000;

/// Ports of pods that their nodes ask something of.
pub const MAX_PROBED: usize = 65_536;
/// Connections of nodes to such ports that are remembered; the oldest go first.
pub const MAX_NODE_CONNECTS: usize = 8_192;
/// Who is known to be the node itself.
pub const MAX_NODE_ITSELF: usize = 1_024;

/// The loopback device is the first one of every network namespace.
pub const LOOPBACK_DEVICE: u32 = 1;
/// Captured connections that one pod may be opening at a time; more are refused with `EPERM`.
/// Keeps one pod from filling [`MAX_ORIG_DST`] for all.
pub const MAX_OPENING: u64 = 16_384;

/// An address in network order, as the kernel's contexts have it: four 32-bit words whose bytes are the address's.
pub type Words = [u32; 4];

/// The third word of a v4-mapped IPv6 address.
pub const V4_MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// IPv4 as v4-mapped IPv6.
#[must_use]
pub const fn v4_mapped(addr_be: u32) -> Words {
    [0, 0, V4_MAPPED, addr_be]
}

/// The IPv4 address (in network order) in a v4-mapped one.
#[must_use]
pub const fn v4_of(words: Words) -> Option<u32> {
    if words[0] == 0 && words[1] == 0 && words[2] == V4_MAPPED { Some(words[3]) } else { None }
}

/// An enrolled pod: the value of map `PODS`, by network namespace cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's IPv6 address; zero if it has none.
    pub addr6_be: Words,
    /// The pod's IPv4 address; zero if it has none.
    pub addr4_be: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the kernel programs count for a pod, and where round robin stands: the value of map `POD_STATS`,
/// by network namespace cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodStats {
    /// Outbound connections redirected to the agent.
    pub captured: u64,
    /// Inbound connections given to the agent.
    pub assigned: u64,
    /// Connections refused because no agent was listening.
    pub refused_no_agent: u64,
    /// Connections refused because the pod was opening too many at once.
    pub refused_limit: u64,
    /// Captured connections whose original destination found no room.
    pub unpublished: u64,
    /// Captured connections that are being opened now.
    pub opening: u64,
    /// Round robin among outbound listeners.
    pub next_outbound: u64,
    /// Round robin among inbound listeners.
    pub next_inbound: u64,
}

/// Whose socket it is: [`Socket::owner`].
pub mod owner {
    /// A pod's socket whose connection was redirected; the address is its original destination.
    pub const CAPTURED: u32 = 1;
    /// The agent's, towards a program in the pod.
    pub const AGENT_INSIDE: u32 = 2;
    /// The agent's, from the pod's namespace to somewhere else.
    pub const AGENT_OUTSIDE: u32 = 3;
    /// Somebody's in the agent's own network namespace, towards a port that a pod's probes name.
    pub const NODE: u32 = 4;
}

/// What is known of a socket: the value of the socket storage `SOCKETS`. User space can only write it with the
/// map's file descriptor, so a pod cannot pass for the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// One of [`owner`]'s.
    pub owner: u32,
    /// Original destination: port.
    pub port: u32,
    /// Original destination: address.
    pub addr_be: Words,
}

/// The source of a captured connection: the key of map `ORIG_DST`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The pod's network namespace.
    pub cookie: u64,
    /// Source address.
    pub addr_be: Words,
    /// Source port.
    pub port: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where a captured connection wanted to go: the value of map `ORIG_DST`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrigDst {
    /// Address.
    pub addr_be: Words,
    /// Port.
    pub port: u32,
    /// Zero.
    pub reserved: u32,
}

/// A connection of the agent to a program in a pod, as the pod's side sees it: the key of map `EXPECTED`, whose value
/// is when its SYN was last about to be sent, in nanoseconds since boot (`bpf_ktime_get_ns`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The pod's network namespace.
    pub cookie: u64,
    /// The program's address.
    pub local_be: Words,
    /// The address that the agent shows to the program.
    pub remote_be: Words,
    /// The program's port.
    pub local_port: u32,
    /// The agent's port.
    pub remote_port: u32,
}

/// A port of a pod that its node asks something of: the key of map `PROBED`, whose value is one of [`asks`]'s.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probed {
    /// One of the pod's addresses.
    pub addr_be: Words,
    /// The port.
    pub port: u32,
}

/// What a node asks of a port: the value of map `PROBED`.
pub mod asks {
    /// Something that the agent has to read.
    pub const REQUEST: u32 = 0;
    /// Whether somebody is there, which only the program itself can answer.
    pub const CONNECTION: u32 = 1;
}

/// Who opened a connection to a port that probes name: the value of map `NODE_CONNECTS`, by both ends as the pod sees them
/// (an [`Expected`] without a namespace).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opener {
    /// Id of its cgroup2 group.
    pub group: u64,
    /// Its process id, as the kernel counts.
    pub process: u64,
    /// When its SYN was about to be sent, in nanoseconds since boot (`bpf_ktime_get_ns`).
    pub at: u64,
}

/// Keys of map `NODE_ITSELF`, the openers that are known to be the node itself: a control group's id, or a process's with
/// this bit.
pub const PROCESS: u64 = 1 << 63;

/// Which listeners: [`Listener::kind`].
pub mod listener {
    /// Outbound connections over IPv4.
    pub const OUTBOUND_V4: u32 = 0;
    /// Outbound connections over IPv6.
    pub const OUTBOUND_V6: u32 = 1;
    /// Inbound connections over IPv4.
    pub const INBOUND_V4: u32 = 2;
    /// Inbound connections over IPv6.
    pub const INBOUND_V6: u32 = 3;
}

/// A listening socket of the agent: the key of map `LISTENERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The pod's network namespace.
    pub cookie: u64,
    /// One of [`listener`]'s.
    pub kind: u32,
    /// Index of the worker that accepts from it.
    pub worker: u32,
}

/// What one pod's `sk_lookup` program is for: the value of its own map `LOOKUP_CONFIG`, written before it runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupConfig {
    /// The pod's network namespace; the hook cannot ask for it.
    pub cookie: u64,
    /// How many workers have listeners; not zero.
    pub workers: u32,
    /// The port that the outbound listeners are bound to.
    pub outbound_port: u16,
    /// The port that the inbound listeners are bound to.
    pub inbound_port: u16,
}

macro_rules! layout {
    ($type:ty, $size:literal, $align:literal, $last:ident at $offset:literal) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == $align);
            assert!(offset_of!($type, $last) == $offset);
        };
    };
}
layout!(Pod, 24, 4, reserved at 20);
layout!(PodStats, 64, 8, next_inbound at 56);
layout!(Socket, 24, 4, addr_be at 8);
layout!(Source, 32, 8, reserved at 28);
layout!(OrigDst, 24, 4, reserved at 20);
layout!(Expected, 48, 8, remote_port at 44);
layout!(Probed, 20, 4, port at 16);
layout!(Opener, 24, 8, at at 16);
layout!(Listener, 16, 8, worker at 12);
layout!(LookupConfig, 16, 8, inbound_port at 14);

#[cfg(test)]
mod tests {
    use super::{v4_mapped, v4_of};

    #[test]
    fn v4_goes_into_v6_and_back() {
        let localhost = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(v4_of(v4_mapped(localhost)), Some(localhost));
        assert_eq!(v4_mapped(localhost)[2].to_ne_bytes(), [0, 0, 0xff, 0xff]);
        assert_eq!(v4_of([0, 0, 0, 1_u32.to_be()]), None, "::1 is not IPv4");
    }
}
