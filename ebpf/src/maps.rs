//! The maps, shared by all programs and pinned by name but for one, and how programs reach them. `weft-common` says what they hold.

use core::arch::asm;
use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, SkStorage, SockHash};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::macros::btf_map;
use weft_common::{
    EXPECTED_FOR_NS, Expected, Listener, LookupConfig, MAX_EXPECTED, MAX_LISTENERS, MAX_NODE_CONNECTS,
    MAX_NODE_ITSELF, MAX_ORIG_DST, MAX_PODS, MAX_PROBED, Opener, OrigDst, PROCESS, Pod, PodStats, Probed,
    Socket, Source,
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Enrolled pods, by network namespace cookie.
#[btf_map]
pub static PODS: HashMap<u64, Pod, MAX_PODS, NO_PREALLOC> = HashMap::new();

/// Counters of enrolled pods, by network namespace cookie.
#[btf_map]
pub static POD_STATS: HashMap<u64, PodStats, MAX_PODS, NO_PREALLOC> = HashMap::new();

/// What is known of a socket; ends with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// Original destinations that the agent has still to read.
#[btf_map]
pub static ORIG_DST: HashMap<Source, OrigDst, MAX_ORIG_DST, NO_PREALLOC> = HashMap::new();

/// The agent's own connections into pods, until they are established; and when their SYN was last sent.
#[btf_map]
pub static EXPECTED: HashMap<Expected, u64, MAX_EXPECTED, NO_PREALLOC> = HashMap::new();

/// The network namespace of the agent, which is the node's, by its cookie.
#[btf_map]
pub static HOME: Array<u64, 1> = Array::new();

/// What nodes ask of ports of pods.
#[btf_map]
pub static PROBED: HashMap<Probed, u32, MAX_PROBED, NO_PREALLOC> = HashMap::new();

/// Connections from the agent's namespace to such ports; the oldest make room.
#[btf_map]
pub static NODE_CONNECTS: LruHashMap<Expected, Opener, MAX_NODE_CONNECTS> = LruHashMap::new();

/// Openers of these that the agent has found to be outside of every pod.
#[btf_map]
pub static NODE_ITSELF: HashMap<u64, u32, MAX_NODE_ITSELF, NO_PREALLOC> = HashMap::new();

/// The agent's listeners. A socket leaves the map by itself when it is closed.
#[btf_map]
pub static LISTENERS: SockHash<Listener, MAX_LISTENERS> = SockHash::new();

/// What one pod's `sk_lookup` program is for. Not shared: each instance of the program has its own.
#[btf_map]
pub static LOOKUP_CONFIG: Array<LookupConfig, 1> = Array::new();

/// Nanoseconds since boot.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// An enrolled pod.
#[inline(always)]
pub fn pod(cookie: u64) -> Option<&'static Pod> {
    // SAFETY: only the agent writes this map, and it replaces values whole: the kernel frees the old one when no
    // program runs any more that may have seen it.
    unsafe { PODS.get(cookie) }
}

/// What its node asks of a port, if anything.
#[inline(always)]
pub fn asked(probed: Probed) -> Option<u32> {
    // SAFETY: a number, which only the agent writes.
    unsafe { PROBED.get(probed) }.copied()
}

/// Whether the opener of a connection is known to be the node itself.
#[inline(always)]
pub fn is_node_itself(connection: Expected) -> bool {
    // SAFETY: `sockops` may replace it by the opener of a later connection with the same ends, which is then the one asked for.
    let Some(opener) = (unsafe { NODE_CONNECTS.get(connection) }) else { return false };
    // Somebody else may have these numbers later.
    if now().wrapping_sub(opener.at) >= EXPECTED_FOR_NS {
        return false;
    }
    // SAFETY: the values are not looked at.
    unsafe { NODE_ITSELF.get(opener.group).is_some() || NODE_ITSELF.get(opener.process | PROCESS).is_some() }
}

/// A pod's counters, which programs on other CPUs may be writing.
#[derive(Clone, Copy)]
pub struct Stats(*mut PodStats);

impl Stats {
    /// `None`: the pod was never enrolled, or is gone.
    #[inline(always)]
    pub fn of(cookie: u64) -> Option<Self> {
        POD_STATS.get_ptr_mut(cookie).map(Self)
    }

    /// Reads a counter.
    #[inline(always)]
    pub fn get(self, field: impl FnOnce(*mut PodStats) -> *mut u64) -> u64 {
        // SAFETY: the pointer is into a map value, which outlives the program and is aligned to 8 bytes.
        unsafe { field(self.0).read_volatile() }
    }

    /// Adds to a counter (to subtract, in two's complement); returns what it was.
    #[inline(always)]
    pub fn add(self, field: impl FnOnce(*mut PodStats) -> *mut u64, amount: u64) -> u64 {
        let counter = field(self.0);
        let before: u64;
        // SAFETY: as for `get`. In assembly because `core` has no read-modify-write atomics for this target, whose
        // first instruction set had none.
        unsafe {
            asm!(
                "{amount} = atomic_fetch_add((u64 *)({counter} + 0), {amount})",
                counter = in(reg) counter,
                amount = inout(reg) amount => before,
            );
        }
        before
    }
}

/// Names a field of [`PodStats`] for [`Stats`].
macro_rules! field {
    ($name:ident) => {
        // SAFETY: only computes an address within the value.
        |stats: *mut weft_common::PodStats| unsafe { core::ptr::addr_of_mut!((*stats).$name) }
    };
}
pub(crate) use field;

fn sockets() -> *mut c_void {
    ptr::from_ref(&SOCKETS).cast_mut().cast()
}

/// What is known of `socket`.
#[inline(always)]
pub fn known(socket: *mut bpf_sock) -> Option<&'static Socket> {
    // SAFETY: the verifier sees to it that `socket` is a hook's own, not null; the value lives as long as it does.
    unsafe { bpf_sk_storage_get(sockets(), socket.cast(), ptr::null_mut(), 0).cast::<Socket>().as_ref() }
}

/// Remembers `value` of `socket`; false if memory is short.
#[inline(always)]
pub fn remember(socket: *mut bpf_sock, mut value: Socket) -> bool {
    let initial = ptr::from_mut(&mut value).cast();
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as for `known`; the kernel copies the initial value.
    let stored = unsafe { bpf_sk_storage_get(sockets(), socket.cast(), initial, create) }.cast::<Socket>();
    if stored.is_null() {
        return false;
    }
    // SAFETY: not null, and the hook holds the socket's lock. A socket that is used again had a value already,
    // which the call above returned as it was.
    unsafe { stored.write(value) };
    true
}

/// Forgets what was known of `socket`.
#[inline(always)]
pub fn forget(socket: *mut bpf_sock) {
    if known(socket).is_some() {
        // SAFETY: as for `known`.
        unsafe { bpf_sk_storage_delete(sockets(), socket.cast()) };
    }
}
