//! Finding the two file systems that the kernel programs hang on, wherever this process was started: bpffs for the
//! pins, cgroup2 for the hooks. `ip netns exec`, for one, gives its child a `/sys` without either.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::{Context, DatapathError};

/// `BPF_FS_MAGIC`
const BPFFS: rustix::fs::FsWord = 0xcafe_4a11;
/// Where bpffs belongs.
const BPFFS_HOME: &str = "/sys/fs/bpf";
/// The root directory of the machine's first process, seen from here.
const INIT_ROOT: &str = "/proc/1/root";

/// Where `wanted` is, on a bpffs. Pins must outlive this process, and so must the mount that they are in: if it is
/// not in this process's mount namespace, then in that of the machine's first process, where it is mounted if need be.
pub fn bpf_dir(wanted: &Path) -> Result<PathBuf, DatapathError> {
    let path = existing_bpf_dir(wanted).map_or_else(|| mount_bpffs(wanted), Ok)?;
    fs::create_dir_all(&path).context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// Where `wanted` is, if there is a bpffs for it.
pub fn existing_bpf_dir(wanted: &Path) -> Option<PathBuf> {
    [wanted.to_owned(), below(INIT_ROOT, wanted)].into_iter().find(|path| is_on_bpffs(path))
}

fn mount_bpffs(wanted: &Path) -> Result<PathBuf, DatapathError> {
    let point = if wanted.starts_with(BPFFS_HOME) { Path::new(BPFFS_HOME) } else { wanted };
    let elsewhere = mount_namespace("1").is_some_and(|init| Some(init) != mount_namespace("thread-self"));
    if elsewhere && in_init_namespace(|| mount_at(point)).is_ok() {
        tracing::info!(path = %point.display(), "mounted bpffs in the machine's mount namespace");
        return Ok(below(INIT_ROOT, wanted));
    }
    mount_at(point).context(|| format!("cannot mount bpffs at {}", point.display()))?;
    tracing::info!(path = %point.display(), "mounted bpffs");
    Ok(wanted.to_owned())
}

fn mount_at(point: &Path) -> io::Result<()> {
    fs::create_dir_all(point)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount::mount("bpf", point, "bpf", flags, c"mode=0700")?)
}

fn mount_namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/mnt")).ok()
}

/// Runs `work` on a thread in the mount namespace of the machine's first process.
fn in_init_namespace(work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    let namespace: OwnedFd = File::open("/proc/1/ns/mnt")?.into();
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

/// Is the nearest directory at or above `path` that exists on a bpffs?
fn is_on_bpffs(path: &Path) -> bool {
    let nearest = path.ancestors().find(|dir| dir.is_dir());
    nearest.and_then(|dir| rustix::fs::statfs(dir).ok()).is_some_and(|found| found.f_type == BPFFS)
}

fn below(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

/// Opens the root of the machine's cgroup2 hierarchy.
pub fn cgroup_root() -> Result<File, DatapathError> {
    let here = mounted_cgroups("/proc/thread-self/mounts", "/");
    let init = mounted_cgroups("/proc/1/mounts", INIT_ROOT);
    let mut found_part = None;
    for path in here.into_iter().chain(init) {
        match File::open(&path) {
            Ok(dir) if is_root(&path) => return Ok(dir),
            Ok(_) => found_part = Some(path),
            Err(_) => {}
        }
    }
    if let Ok(dir) = unattached_cgroup2() {
        let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
        if is_root(Path::new(&own)) {
            return Ok(dir);
        }
    }
    Err(DatapathError::Unsupported {
        missing: found_part.map_or_else(
            || "no cgroup2 hierarchy is mounted, and none can be".to_owned(),
            |path| format!("{} is a part of the cgroup2 hierarchy, not its root", path.display()),
        ),
        cure: "enable cgroup v2, and give the agent the host's /sys/fs/cgroup (a hostPath volume) \
               or run it as root"
            .to_owned(),
    })
}

fn mounted_cgroups(mounts: &str, root: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string(mounts).unwrap_or_default();
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

/// A mount of cgroup2 that no path leads to, gone with its descriptor.
fn unattached_cgroup2() -> io::Result<File> {
    let context = mount::fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_create(&context)?;
    let dir = mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    // Attaching wants a descriptor that was opened for reading.
    File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir)))
}

#[cfg(test)]
mod tests {
    use super::{below, cgroup2_mounts};
    use std::path::Path;

    #[test]
    fn cgroup2_is_found_beside_version_1() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\nbroken\n";
        assert_eq!(cgroup2_mounts(mounts).collect::<Vec<_>>(), ["/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn absolute_paths_go_below_another_root() {
        assert_eq!(below("/proc/1/root", Path::new("/sys/fs/bpf/x")), Path::new("/proc/1/root/sys/fs/bpf/x"));
    }
}
