//! The agent's own directory: private, and one agent's at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, flock};

use crate::cni;

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another agent lives there.
    #[error(
        "another agent{holder} uses the run directory {dir} (take over from it with --take-over, stop it first, or give this one \
         another --run-dir)"
    )]
    Taken {
        /// The directory.
        dir: PathBuf,
        /// ` (pid N)`, if known.
        holder: String,
    },
    /// It cannot be made or written.
    #[error("cannot use the run directory {dir}")]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the agent that uses `dir` lets successors in.
pub fn handover_socket(dir: &Path) -> PathBuf {
    dir.join("handover.sock")
}

/// Whether an agent has the run directory. Changes nothing there.
pub fn is_taken(dir: &Path) -> bool {
    let lock = File::open(dir.join("agent.lock"));
    // Shared, and for a moment: what an agent would have to do that comes just now, it does again when it is refused.
    lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

/// A run directory that is ours until this drops; the kernel gives it back even after SIGKILL.
#[derive(Debug)]
pub struct RunDir {
    dir: PathBuf,
    lock: File,
    /// It is a successor's.
    left: AtomicBool,
}

impl RunDir {
    /// Makes the directory if need be, and takes it.
    pub fn take(dir: &Path) -> Result<Self, RunDirError> {
        let unusable = |source| RunDirError::Unusable { dir: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(unusable)?;
        let path = dir.join("agent.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        if !lock_soon(&lock) {
            let mut pid = String::new();
            let _ = lock.read_to_string(&mut pid);
            let pid = pid.trim();
            let holder = if pid.is_empty() { String::new() } else { format!(" (pid {pid})") };
            return Err(RunDirError::Taken { dir: dir.to_owned(), holder });
        }
        // An agent that ends removes the file: what was locked here may have lost its name in between.
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        if lock.metadata().map(inode).ok() != fs::metadata(&path).map(inode).ok() {
            return Self::take(dir);
        }
        Self::of(dir, lock)
    }

    /// Takes over a directory that is locked already, by a lock of another agent's.
    pub fn take_over(dir: &Path, lock: File) -> Result<Self, RunDirError> {
        Self::of(dir, lock)
    }

    fn of(dir: &Path, mut lock: File) -> Result<Self, RunDirError> {
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|source| RunDirError::Unusable { dir: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned(), lock, left: AtomicBool::new(false) })
    }

    /// The lock, which holds for as long as anybody has it open.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The directory is a successor's: nothing of it is removed at the end.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Where CNI plugins tell of pods.
    pub fn cni(&self) -> PathBuf {
        self.dir.join(cni::SOCKET)
    }

    /// Where successors come.
    pub fn handover(&self) -> PathBuf {
        handover_socket(&self.dir)
    }

    /// Where the admin API answers.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// Binds the admin API's socket in place of one that a dead agent left. The directory keeps others out while the
    /// socket's own mode is set.
    pub fn bind_socket(&self) -> io::Result<UnixListener> {
        let path = self.socket();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

/// Takes a lock that nobody has; one who only looks whether it is taken has it for a moment.
fn lock_soon(lock: &File) -> bool {
    const TRIES: u32 = 3;
    (0..TRIES).any(|turn| {
        if turn > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.handover());
        let _ = fs::remove_file(self.cni());
        // Still locked: whoever opened the file before sees in `take` that it has lost its name.
        let _ = fs::remove_file(self.dir.join("agent.lock"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_until_the_first_has_gone() {
        let temp = tempfile::TempDir::new().unwrap();
        let dir = temp.path().join("run");
        let first = RunDir::take(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let _socket = first.bind_socket().unwrap();
        assert_eq!(fs::metadata(first.socket()).unwrap().permissions().mode() & 0o777, 0o600);

        let message = RunDir::take(&dir).unwrap_err().to_string();
        assert!(message.contains(&format!("another agent (pid {})", std::process::id())), "{message}");

        drop(first);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing stays behind");
        let second = RunDir::take(&dir).unwrap();
        assert!(!second.socket().exists());
    }
}
