//! Finding the two file systems that the kernel programs hang on, wherever this process was started: bpffs for the
//! pins, cgroup2 for the hooks. `ip netns exec`, for one, gives its child a `/sys` without either.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::{Context, DatapathError};

/// `BPF_FS_MAGIC`
const BPFFS: rustix::fs::FsWord = 0xcafe_4a11;
/// Where bpffs belongs.
const BPFFS_HOME: &str = "/sys/fs/bpf";
/// Held while looking for a bpffs and mounting one: a second one on top would hide the first one's pins.
const MOUNT_LOCK: &str = "/run/weft.mount.lock";
/// The root directory of this process.
const HERE: &str = "/";

/// A directory on a bpffs, reached through an open descriptor: it may be in another mount namespace, whose processes
/// come and go.
#[derive(Debug)]
pub struct BpfDir {
    _mount: OwnedFd,
    path: PathBuf,
    name: PathBuf,
}

impl BpfDir {
    /// A path that works for as long as this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as people write it.
    pub fn name(&self) -> &Path {
        &self.name
    }
}

/// The directory `wanted` on a bpffs. Pins must outlive this process, and so must the mount that they are in: if it
/// is not in this process's mount namespace, it is looked for in those of the machine's first process and of this
/// one's parents, and mounted there if need be.
pub fn bpf_dir(wanted: &Path) -> Result<BpfDir, DatapathError> {
    let lock = File::create(MOUNT_LOCK);
    if let Ok(lock) = &lock {
        lock.lock().ok();
    }
    if let Some(dir) = existing_bpf_dir(wanted) {
        return Ok(dir);
    }
    mount_bpffs(wanted)?;
    existing_bpf_dir(wanted).ok_or_else(|| DatapathError::Unsupported {
        missing: format!("no bpffs for {}", wanted.display()),
        cure: format!("mount one: mount -t bpf bpf {BPFFS_HOME}"),
    })
}

/// The directory `wanted`, if there is a bpffs for it; the directory itself may be missing.
pub fn existing_bpf_dir(wanted: &Path) -> Option<BpfDir> {
    roots().iter().find_map(|root| {
        let path = below(root, wanted);
        let mount = path.ancestors().filter(|dir| is_on_bpffs(dir)).last()?;
        let handle = File::open(mount).ok()?;
        let within = path.strip_prefix(mount).ok()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd())).join(within);
        Some(BpfDir { _mount: handle.into(), path, name: wanted.to_owned() })
    })
}

fn is_on_bpffs(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == BPFFS)
}

/// Root directories of this process and of others whose mount namespaces outlive it: the node's is among them.
pub fn roots() -> Vec<PathBuf> {
    let others = other_mount_namespaces().into_iter().map(|process| format!("/proc/{process}/root"));
    std::iter::once(HERE.to_owned()).chain(others).map(PathBuf::from).collect()
}

/// Processes with another mount namespace than this one, the likeliest host of it first. The machine's first process
/// may be closed even to root; the second one is the kernel's own.
fn other_mount_namespaces() -> Vec<u32> {
    let own = mount_namespace("thread-self");
    let mut parents: Vec<u32> =
        std::iter::successors(parent_of("self"), |parent| parent_of(&parent.to_string())).collect();
    parents.reverse();
    let differs =
        |process: &u32| mount_namespace(&process.to_string()).is_some_and(|namespace| Some(namespace) != own);
    [1].into_iter().chain(parents).chain([2]).filter(differs).collect()
}

fn mount_namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/mnt")).ok()
}

fn parent_of(process: &str) -> Option<u32> {
    parent_in_status(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

fn parent_in_status(status: &str) -> Option<u32> {
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    (parent > 1).then_some(parent)
}

fn mount_bpffs(wanted: &Path) -> Result<(), DatapathError> {
    let point = if wanted.starts_with(BPFFS_HOME) { Path::new(BPFFS_HOME) } else { wanted };
    let others = other_mount_namespaces();
    for process in &others {
        if in_mount_namespace_of(*process, || mount_at(point)).is_ok() {
            tracing::info!(path = %point.display(), process, "mounted bpffs in the mount namespace of another process");
            return Ok(());
        }
    }
    mount_at(point).context(|| format!("cannot mount bpffs at {}", point.display()))?;
    tracing::info!(path = %point.display(), "mounted bpffs");
    if !others.is_empty() {
        tracing::warn!("bpffs is mounted for this process alone: if the agent dies, its pods leave the mesh");
    }
    Ok(())
}

fn mount_at(point: &Path) -> io::Result<()> {
    fs::create_dir_all(point)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount::mount("bpf", point, "bpf", flags, c"mode=0700")?)
}

/// Runs `work` on a thread in the mount namespace of `process`.
fn in_mount_namespace_of(process: u32, work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    let namespace: OwnedFd = File::open(format!("/proc/{process}/ns/mnt"))?.into();
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare_fs()?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A thread that shares root and working directory with others may not change its mount namespace.
#[allow(unsafe_code, reason = "leaving what threads share")]
fn unshare_fs() -> io::Result<()> {
    // SAFETY: file descriptors stay shared; only this thread, which ends soon, gets a root and a working directory
    // of its own.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)? };
    Ok(())
}

/// An absolute path as it is below another root directory.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Where this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Perhaps in a container of its own on the node.
    Anywhere,
    /// In the node's own namespaces, beside its first process.
    Node,
}

/// Opens the root of the machine's cgroup2 hierarchy; on a node that is itself a container (kind and its like), the root
/// of what that node has of it: all its pods are below.
pub fn cgroup_root(seat: Seat) -> Result<File, DatapathError> {
    let own = mounted_cgroups("thread-self", Path::new(HERE));
    let others = other_mount_namespaces().into_iter().flat_map(|process| {
        mounted_cgroups(&process.to_string(), Path::new(&format!("/proc/{process}/root")))
    });
    let mut found_part = None;
    for path in own.into_iter().chain(others) {
        match File::open(&path) {
            Ok(dir) if is_root(&path) => return Ok(dir),
            Ok(_) => found_part = Some(path),
            Err(_) => {}
        }
    }
    if let Ok(dir) = unattached_cgroup2() {
        let own = format!("/proc/self/fd/{}", dir.as_raw_fd());
        if is_root(Path::new(&own)) {
            return Ok(dir);
        }
    }
    if let Some(dir) = cgroup_root_of_first_process(seat) {
        return Ok(dir);
    }
    Err(DatapathError::Unsupported {
        missing: found_part.map_or_else(
            || "no cgroup2 hierarchy is mounted, and none can be".to_owned(),
            |path| format!("{} is a part of the cgroup2 hierarchy, not its root", path.display()),
        ),
        cure: "enable cgroup v2, and give the agent the host's /sys/fs/cgroup (a hostPath volume) \
               and the node's processes (hostPID), or run it as root"
            .to_owned(),
    })
}

/// The root of the cgroup namespace of the node's first process. That says nothing where the agent is in the container
/// that it would be found in: it would capture itself and nobody else.
fn cgroup_root_of_first_process(seat: Seat) -> Option<File> {
    if seat == Seat::Anywhere && mount_namespace("1") == mount_namespace("self") {
        return None;
    }
    let namespace: OwnedFd = File::open("/proc/1/ns/cgroup").ok()?.into();
    let mount = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        unattached_cgroup2()
    };
    let dir = thread::scope(|scope| {
        scope.spawn(mount).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    match dir {
        Ok(dir) => {
            tracing::info!("this node is a container: its own part of the cgroup2 hierarchy is captured");
            Some(dir)
        }
        Err(error) => {
            tracing::warn!(%error, "cannot open the root of the node's cgroup namespace");
            None
        }
    }
}

fn mounted_cgroups(process: &str, root: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{process}/mounts")).unwrap_or_default();
    cgroup2_mounts(&text).map(|path| below(root, Path::new(path))).collect()
}

fn cgroup2_mounts(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(path)
    })
}

/// Every cgroup but the root has a type.
fn is_root(path: &Path) -> bool {
    path.join("cgroup.controllers").exists() && !path.join("cgroup.type").exists()
}

/// Where sysctls can be written: those of the network namespace that the calling thread is in, whichever mount is used. A
/// container that is not privileged has `/proc/sys` read-only; a procfs of the agent's own is not.
pub fn sysctls() -> &'static Path {
    const USUAL: &str = "/proc/sys";
    static FOUND: OnceLock<(Option<OwnedFd>, PathBuf)> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let read_only = rustix::fs::statvfs(USUAL)
            .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        match read_only.then(|| unattached("proc")) {
            Some(Ok(proc)) => {
                let path = format!("/proc/self/fd/{}/sys", proc.as_raw_fd());
                (Some(proc), path.into())
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "{USUAL} is read-only, and another procfs cannot be mounted");
                (None, USUAL.into())
            }
            None => (None, USUAL.into()),
        }
    });
    &found.1
}

/// A mount of cgroup2 that no path leads to, gone with its descriptor.
fn unattached_cgroup2() -> io::Result<File> {
    let dir = unattached("cgroup2")?;
    // Attaching wants a descriptor that was opened for reading.
    File::open(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

/// A mount of its own, gone with its descriptor.
fn unattached(kind: &str) -> io::Result<OwnedFd> {
    let context = mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_create(&context)?;
    Ok(mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::{below, cgroup2_mounts, parent_in_status};
    use std::path::Path;

    #[test]
    fn cgroup2_is_found_beside_version_1() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\nbroken\n";
        assert_eq!(cgroup2_mounts(mounts).collect::<Vec<_>>(), ["/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn absolute_paths_go_below_another_root() {
        let (root, path) = (Path::new("/proc/1/root"), Path::new("/sys/fs/bpf/x"));
        assert_eq!(below(root, path), Path::new("/proc/1/root/sys/fs/bpf/x"));
        assert_eq!(below(Path::new("/"), path), path);
    }

    #[test]
    fn parents_end_at_the_first_process() {
        assert_eq!(parent_in_status("Name:\tweft\nPPid:\t812\n"), Some(812));
        assert_eq!(parent_in_status("Name:\tsh\nPPid:\t1\n"), None);
    }
}
