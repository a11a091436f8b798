//! Network namespaces: opening them, working in them, and always coming back.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{routing, sockets};

/// A network namespace, kept alive.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// Opens the namespace at `path` (`/var/run/netns/NAME`, `/proc/PID/ns/net`).
    pub fn open(path: &Path) -> io::Result<Self> {
        let netns = Self(File::open(path)?.into());
        // Any file opens; only a namespace can be entered.
        netns.run(|| ())?;
        Ok(netns)
    }

    /// A namespace that another process has opened.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let netns = Self(fd);
        netns.run(|| ())?;
        Ok(netns)
    }

    /// The open file, which keeps it alive.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// The calling thread's namespace.
    pub fn current() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// Runs `work` in the namespace, on a thread of its own that ends there: nothing has to be undone.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = thread::Builder::new().name("weft-netns".into()).spawn_scoped(scope, || {
                self.set()?;
                Ok(work())
            })?;
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace until the guard drops, then to `home`.
    pub fn enter<'a>(&self, home: &'a Self) -> io::Result<Entered<'a>> {
        self.set()?;
        Ok(Entered { home })
    }

    fn set(&self) -> io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }
}

/// The addresses of all devices in the network namespace at `path`.
pub fn addresses_in(path: &Path) -> io::Result<Vec<IpAddr>> {
    Netns::open(path)?.run(routing::addresses).flatten()
}

/// The namespaces that processes are in, by their cookies.
pub fn of_processes() -> HashMap<u64, Netns> {
    let mut seen = HashSet::new();
    let mut found = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path().join("ns/net");
        // What is no process, or has ended, has none.
        let Ok(meta) = fs::metadata(&path) else { continue };
        if seen.insert((meta.dev(), meta.ino()))
            && let Ok(netns) = Netns::open(&path)
            && let Ok(cookie) = netns.run(sockets::netns_cookie).flatten()
        {
            found.insert(cookie, netns);
        }
    }
    found
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The calling thread is in another namespace.
pub struct Entered<'a> {
    home: &'a Netns,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.home.set() {
            // Whatever this thread opened next would be in a pod's namespace, with the agent's privileges.
            tracing::error!(%error, "cannot return to the node's network namespace");
            std::process::abort();
        }
    }
}
