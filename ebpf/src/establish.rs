//! `sockops`: while a connection is being opened, tells the agent where a captured one wanted to go, and
//! [`crate::lookup`] which ones are the agent's own.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_FIN_WAIT2, BPF_TCP_SYN_SENT, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sock_ops_cb_flags_set};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use weft_common::{Expected, Opener, OrigDst, Socket, Source, Words, owner, v4_mapped, v4_of};

use crate::maps::{self, EXPECTED, NODE_CONNECTS, ORIG_DST, Stats, field};
use crate::read;

const AF_INET: u32 = 2;
const IGNORED: u32 = 1;

// The name `sockops` is the linker's own.
#[sock_ops]
pub fn establish(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    match read!(ops, op) {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            if let Some(socket) = known(ops) {
                on_connect(ops, socket);
            }
        }
        // The SYN is about to be sent again.
        BPF_SOCK_OPS_RTO_CB if read!(ops, state) == BPF_TCP_SYN_SENT => {
            if known(ops).is_some_and(|socket| socket.owner == owner::AGENT_INSIDE) {
                announce(ops);
            }
        }
        BPF_SOCK_OPS_STATE_CB => {
            let from = read!(ops, __bindgen_anon_1.args[0]);
            let to = read!(ops, __bindgen_anon_1.args[1]);
            let opened = from == BPF_TCP_SYN_SENT;
            // Out of FIN_WAIT2, only this side is done: the other one has acknowledged that, so the agent has the
            // connection, or has yet to accept it, with all that the program sent before it closed.
            let ended = to == BPF_TCP_CLOSE && from != BPF_TCP_FIN_WAIT2;
            if (opened || ended)
                && let Some(socket) = known(ops)
            {
                on_state(ops, socket, opened, ended);
            }
        }
        _ => {}
    }
    IGNORED
}

/// The handshake is about to begin: addresses and ports are fixed, no packet has been sent.
#[inline(always)]
fn on_connect(ops: *mut bpf_sock_ops, socket: &Socket) {
    let mut wanted = BPF_SOCK_OPS_STATE_CB_FLAG;
    match socket.owner {
        owner::CAPTURED => {
            let source = source(ops);
            let destination = OrigDst { addr_be: socket.addr_be, port: socket.port, reserved: 0 };
            let published = ORIG_DST.insert(source, destination, 0).is_ok();
            if let Some(stats) = Stats::of(source.cookie) {
                stats.add(field!(captured), 1);
                stats.add(field!(opening), 1);
                if !published {
                    stats.add(field!(unpublished), 1);
                }
            }
        }
        owner::AGENT_INSIDE => {
            announce(ops);
            wanted |= BPF_SOCK_OPS_RTO_CB_FLAG;
        }
        // It is looked for when the SYN comes: how it ends does not matter.
        owner::NODE => return opens(ops, socket),
        _ => return,
    }
    // Other programs may have asked for callbacks of their own.
    let flags = read!(ops, bpf_sock_ops_cb_flags) | wanted;
    // SAFETY: the helper takes the hook's own context.
    unsafe { bpf_sock_ops_cb_flags_set(ops, flags as i32) };
}

/// Tells [`crate::lookup`] that the agent's SYN is about to come. If there is no room for that, it is refused there.
#[inline(always)]
fn announce(ops: *mut bpf_sock_ops) {
    let _ = EXPECTED.insert(expected(ops), maps::now(), 0);
}

/// The handshake has ended one way or the other (`opened`), or the connection has (`ended`), or both.
#[inline(always)]
fn on_state(ops: *mut bpf_sock_ops, socket: &Socket, opened: bool, ended: bool) {
    match socket.owner {
        owner::CAPTURED => {
            let source = source(ops);
            if opened && let Some(stats) = Stats::of(source.cookie) {
                stats.add(field!(opening), u64::MAX);
            }
            // The agent takes the entry when it accepts. If it never did, nobody else would.
            if ended {
                let _ = ORIG_DST.remove(source);
            }
        }
        owner::AGENT_INSIDE if opened => {
            let _ = EXPECTED.remove(expected(ops));
        }
        _ => {}
    }
}

#[inline(always)]
fn known(ops: *mut bpf_sock_ops) -> Option<&'static Socket> {
    let socket = read!(ops, __bindgen_anon_2.sk);
    if socket.is_null() { None } else { maps::known(socket) }
}

#[inline(always)]
fn cookie(ops: *mut bpf_sock_ops) -> u64 {
    // SAFETY: the helper takes the hook's own context.
    unsafe { bpf_get_netns_cookie(ops.cast()) }
}

#[inline(always)]
fn source(ops: *mut bpf_sock_ops) -> Source {
    let (addr_be, _) = addresses(ops);
    Source { cookie: cookie(ops), addr_be, port: read!(ops, local_port), reserved: 0 }
}

/// The receiver's view of this connection: its local side is this side's remote one.
#[inline(always)]
fn expected(ops: *mut bpf_sock_ops) -> Expected {
    let (own, peer) = addresses(ops);
    // The context has this port in network order, in the upper half on big-endian machines and the lower on others.
    let peer_port = u32::from_be(read!(ops, remote_port));
    let peer_port = if peer_port > 0xffff { peer_port >> 16 } else { peer_port };
    Expected {
        cookie: cookie(ops),
        local_be: peer,
        remote_be: own,
        local_port: peer_port,
        remote_port: read!(ops, local_port),
    }
}

/// Tells who opens a connection from the node to a port that a pod's probes name.
#[inline(always)]
fn opens(ops: *mut bpf_sock_ops, socket: &Socket) {
    let [low, high, process, _] = socket.addr_be;
    let group = u64::from(low) | u64::from(high) << 32;
    let opener = Opener { group, process: u64::from(process), at: maps::now() };
    let _ = NODE_CONNECTS.insert(from_node(ops), opener, 0);
}

/// The same of a connection that comes from another namespace.
#[inline(always)]
fn from_node(ops: *mut bpf_sock_ops) -> Expected {
    Expected { cookie: 0, ..expected(ops) }
}

/// Local and remote address; those of an IPv6 socket's v4-mapped connection are IPv4.
#[inline(always)]
fn addresses(ops: *mut bpf_sock_ops) -> (Words, Words) {
    let v4 = |ops: *mut bpf_sock_ops| (v4_mapped(read!(ops, local_ip4)), v4_mapped(read!(ops, remote_ip4)));
    if read!(ops, family) == AF_INET {
        return v4(ops);
    }
    let remote = [
        read!(ops, remote_ip6[0]),
        read!(ops, remote_ip6[1]),
        read!(ops, remote_ip6[2]),
        read!(ops, remote_ip6[3]),
    ];
    if v4_of(remote).is_some() {
        return v4(ops);
    }
    let local = [
        read!(ops, local_ip6[0]),
        read!(ops, local_ip6[1]),
        read!(ops, local_ip6[2]),
        read!(ops, local_ip6[3]),
    ];
    (local, remote)
}
