//! The `bpf(2)` calls that aya does not offer: taking an element, replacing a pinned link's program, asking a link
//! for its namespace. And typed maps over them, because aya's take no types of another crate.
#![allow(unsafe_code, reason = "system calls on structures shared with the kernel")]

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// Whether an element may, must or must not be there before.
#[derive(Clone, Copy)]
#[repr(u64)]
pub enum Insert {
    /// Replaces it if it is.
    Any = 0,
    /// Leaves it if it is.
    IfAbsent = 1,
}

/// A type whose bytes are the kernel's.
///
/// # Safety
/// `repr(C)` or an integer, without padding, and every bit pattern is a value.
pub unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: an integer.
unsafe impl Plain for RawFd {}
macro_rules! plain {
    ($($name:ident)+) => {
        $(
            // SAFETY: `weft-common` asserts size and offsets of these `repr(C)` structures of integers.
            unsafe impl Plain for weft_common::$name {}
        )+
    };
}
plain!(Expected Listener LookupConfig Opener OrigDst Pod PodStats Probed Socket Source);

/// A pinned map with keys `K` and values `V`.
#[derive(Debug)]
pub struct Map<K, V> {
    fd: OwnedFd,
    _types: PhantomData<fn(K) -> V>,
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl<K: Plain, V: Plain> Map<K, V> {
    /// Opens the map that is pinned at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: open_pinned(path)?, _types: PhantomData })
    }

    fn element(&self, command: libc::c_int, key: Option<&K>, value: u64, flags: u64) -> io::Result<()> {
        let map_fd = self.fd.as_raw_fd().cast_unsigned();
        let key = key.map_or(0, |key| std::ptr::from_ref(key) as u64);
        let mut attr = ElementAttr { map_fd, reserved: 0, key, value, flags };
        // SAFETY: key and value point to as many bytes as the map has been created with: both sides take them
        // from `weft-common`, whose layout version is part of the path that the map was opened by.
        unsafe { bpf(command, &mut attr) }.map(drop)
    }

    fn read(&self, command: libc::c_int, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        match self.element(command, Some(key), value.as_mut_ptr() as u64, 0) {
            // SAFETY: the kernel has written the whole value.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads an element.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.read(BPF_MAP_LOOKUP_ELEM, key)
    }

    /// Reads an element and removes it, in one step.
    pub fn take(&self, key: &K) -> io::Result<Option<V>> {
        self.read(BPF_MAP_LOOKUP_AND_DELETE_ELEM, key)
    }

    /// Writes an element.
    pub fn insert(&self, key: &K, value: &V, how: Insert) -> io::Result<()> {
        let result =
            self.element(BPF_MAP_UPDATE_ELEM, Some(key), std::ptr::from_ref(value) as u64, how as u64);
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes an element, if it is there.
    pub fn remove(&self, key: &K) -> io::Result<()> {
        match self.element(BPF_MAP_DELETE_ELEM, Some(key), 0, 0) {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// All keys. While others write, some may be missed or told twice.
    pub fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys: Vec<K> = Vec::new();
        loop {
            let mut next = MaybeUninit::<K>::uninit();
            match self.element(BPF_MAP_GET_NEXT_KEY, keys.last(), next.as_mut_ptr() as u64, 0) {
                // SAFETY: the kernel has written the whole key.
                Ok(()) => keys.push(unsafe { next.assume_init() }),
                Err(error) if is_absent(&error) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// Opens what is pinned at `path`.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Attr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: `path` is a C string that outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link at once: no connection sees neither.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_program_fd: u32,
        flags: u32,
        old_program_fd: u32,
    }
    let mut attr = Attr {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_program_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program_fd: 0,
    };
    // SAFETY: the structure holds no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Takes a link's program out of force before this returns. Dropping the link would do so, too, but some time later, on
/// a kernel thread.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut link_fd = link.as_raw_fd().cast_unsigned();
    // SAFETY: the structure is one number.
    unsafe { bpf(BPF_LINK_DETACH, &mut link_fd) }.map(drop)
}

/// Whether a link to a network namespace, or a cgroup, still has one: the kernel cuts it when that ends.
pub fn link_is_alive(link: BorrowedFd<'_>) -> io::Result<bool> {
    /// The beginning of `struct bpf_link_info`, as a link to a namespace fills it. One to a cgroup has its number there, whose
    /// lower half is never zero.
    #[repr(C)]
    #[derive(Default)]
    struct NetnsLink {
        kind: u32,
        id: u32,
        program_id: u32,
        reserved: u32,
        netns_inode: u32,
        attach_type: u32,
    }
    #[repr(C)]
    struct Attr {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = NetnsLink::default();
    let mut attr = Attr {
        fd: link.as_raw_fd().cast_unsigned(),
        length: size_of::<NetnsLink>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` has the length that is told, and outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.netns_inode != 0)
}

/// # Safety
/// `attr` is what `command` takes; pointers in it are valid for what the command reads and writes.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: by contract. The kernel takes a shorter structure than its own as one that ends in zeros.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of_val(attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
