//! `sk_lookup`, one instance in each enrolled pod's namespace: gives the agent what arrives for the pod's programs.
//!
//! In this order, because each rule would swallow the next one's connections: what was redirected to the outbound
//! listener; the agent's own connections; loopback and the pod talking to itself; everything else from outside.
//!
//! The agent's own connections are known by their announcement and by their way: they are bound to the loopback device,
//! over which nothing comes from outside of the namespace. Who merely has the same addresses and ports comes over
//! another device, and is from outside.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup, sk_action::SK_DROP, sk_action::SK_PASS,
};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use weft_common::{
    EXPECTED_FOR_NS, Expected, INBOUND_PORT, LOOPBACK_DEVICE, Listener, LookupConfig, OUTBOUND_PORT, Probed,
    Words, asks, listener, v4_mapped, v4_of,
};

use crate::maps::{self, EXPECTED, LISTENERS, LOOKUP_CONFIG, Stats, field};
use crate::read;

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const LOCALHOST: u32 = u32::from_ne_bytes([127, 0, 0, 1]);

#[sk_lookup]
pub fn lookup(ctx: SkLookupContext) -> u32 {
    let over_loopback = read!(ctx.lookup, ingress_ifindex) == LOOPBACK_DEVICE;
    look_up(&ctx, Some(over_loopback))
}

/// As [`lookup`], for kernels older than 5.17, which do not say over which device a packet came.
#[sk_lookup]
pub fn lookup_unproven(ctx: SkLookupContext) -> u32 {
    look_up(&ctx, None)
}

#[inline(always)]
fn look_up(ctx: &SkLookupContext, over_loopback: Option<bool>) -> u32 {
    let packet = ctx.lookup;
    if read!(packet, protocol) != IPPROTO_TCP {
        return SK_PASS;
    }
    let Some(config) = LOOKUP_CONFIG.get(0) else { return SK_DROP };
    let (local, remote, is_v4) = addresses(packet);
    let port = read!(packet, local_port);
    let remote_port = u32::from(u16::from_be(read!(packet, remote_port)));
    // `connect` redirects here; who has this very port himself, to the other one.
    let is_captured = port == u32::from(OUTBOUND_PORT)
        || (port == u32::from(INBOUND_PORT) && remote_port == u32::from(OUTBOUND_PORT));
    if is_captured && is_localhost(local) {
        return assign(ctx, config, Direction::Outbound, is_v4);
    }
    let expected =
        Expected { cookie: config.cookie, local_be: local, remote_be: remote, local_port: port, remote_port };
    // What comes over another device is not the agent's, whatever its addresses and ports are.
    if over_loopback != Some(false)
        // SAFETY: a number that another program may be replacing by another one.
        && let Some(announced) = unsafe { EXPECTED.get(expected) }
    {
        let is_due = maps::now().wrapping_sub(*announced) < EXPECTED_FOR_NS;
        return if is_due { SK_PASS } else { SK_DROP };
    }
    if is_loopback(local) {
        // The listeners are bound here, but nobody is to dial them: the agent would connect to itself for ever.
        let own = port == u32::from(config.outbound_port) || port == u32::from(config.inbound_port);
        return if own && is_localhost(local) { SK_DROP } else { SK_PASS };
    }
    if local == remote {
        return SK_PASS;
    }
    // The agent's own, which found no room to be announced: it must not serve itself.
    if over_loopback == Some(true) {
        return SK_DROP;
    }
    // Whether somebody is there, only the program can say.
    if maps::asked(Probed { addr_be: local, port }) == Some(asks::CONNECTION)
        && maps::is_node_itself(Expected { cookie: 0, ..expected })
    {
        return SK_PASS;
    }
    assign(ctx, config, Direction::Inbound, is_v4)
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Outbound,
    Inbound,
}

/// Gives the connection to the next worker's listener. Refuses it if there is none: an agent that is dead must not
/// leave the pod open.
#[inline(always)]
fn assign(ctx: &SkLookupContext, config: &LookupConfig, direction: Direction, is_v4: bool) -> u32 {
    let Some(stats) = Stats::of(config.cookie) else { return SK_DROP };
    let kind = match (direction, is_v4) {
        (Direction::Outbound, true) => listener::OUTBOUND_V4,
        (Direction::Outbound, false) => listener::OUTBOUND_V6,
        (Direction::Inbound, true) => listener::INBOUND_V4,
        (Direction::Inbound, false) => listener::INBOUND_V6,
    };
    let turn = match direction {
        Direction::Outbound => stats.add(field!(next_outbound), 1),
        Direction::Inbound => stats.add(field!(next_inbound), 1),
    };
    let worker = turn as u32 % config.workers.max(1);
    if assign_to(ctx, Listener { cookie: config.cookie, kind, worker })
        // While a new agent takes over, not every worker has its listeners yet.
        || assign_to(ctx, Listener { cookie: config.cookie, kind, worker: 0 })
    {
        if direction == Direction::Inbound {
            stats.add(field!(assigned), 1);
        }
        return SK_PASS;
    }
    stats.add(field!(refused_no_agent), 1);
    SK_DROP
}

#[inline(always)]
fn assign_to(ctx: &SkLookupContext, key: Listener) -> bool {
    // Exactly this socket, whatever else has joined its port's group.
    let flags = u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT);
    LISTENERS.redirect_sk_lookup(SkLookupContext::new(ctx.as_ptr().cast()), key, flags).is_ok()
}

/// Local and remote address of the packet, and whether they are IPv4.
#[inline(always)]
fn addresses(packet: *mut bpf_sk_lookup) -> (Words, Words, bool) {
    if read!(packet, family) == AF_INET {
        return (v4_mapped(read!(packet, local_ip4)), v4_mapped(read!(packet, remote_ip4)), true);
    }
    let local = [
        read!(packet, local_ip6[0]),
        read!(packet, local_ip6[1]),
        read!(packet, local_ip6[2]),
        read!(packet, local_ip6[3]),
    ];
    let remote = [
        read!(packet, remote_ip6[0]),
        read!(packet, remote_ip6[1]),
        read!(packet, remote_ip6[2]),
        read!(packet, remote_ip6[3]),
    ];
    (local, remote, false)
}

/// 127.0.0.1 or ::1, where the listeners are.
#[inline(always)]
fn is_localhost(words: Words) -> bool {
    v4_of(words) == Some(LOCALHOST) || words == [0, 0, 0, 1_u32.to_be()]
}

/// All of 127.0.0.0/8, or ::1.
#[inline(always)]
fn is_loopback(words: Words) -> bool {
    match v4_of(words) {
        Some(v4) => v4.to_ne_bytes()[0] == 127,
        None => is_localhost(words),
    }
}
