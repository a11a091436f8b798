//! Where the agent itself is reached, and its hold on the run directory: opened at start, or taken over from another agent.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use super::run_dir::RunDir;
use super::{AgentError, AgentOptions};
use crate::channel;

const LOCK: &str = "lock";
const ADMIN: &str = "admin";
const HANDOVER: &str = "handover";
const CNI: &str = "cni";

/// The sockets of an agent, beside those in pods.
#[derive(Debug)]
pub struct Doors {
    run_dir: RunDir,
    admin: UnixListener,
    handover: OwnedFd,
    cni: OwnedFd,
    public: Public,
}

/// Those that are reached over the network.
#[derive(Debug)]
pub struct Public {
    metrics: Option<TcpListener>,
    readiness: Option<TcpListener>,
    /// Absent where it is not wanted, too.
    registry: Option<TcpListener>,
}

fn metrics_name(options: &AgentOptions) -> String {
    format!("metrics {}", options.metrics_addr)
}

fn readiness_name(options: &AgentOptions) -> String {
    format!("readiness {}", options.readiness_addr)
}

/// `None`: it is not wanted.
fn registry_name(options: &AgentOptions) -> Option<String> {
    options.registry_addr.map(|address| format!("registry {address}"))
}

impl Public {
    /// Opens those that nobody is going to hand over.
    pub fn open(options: &AgentOptions, offered: &[String]) -> Result<Self, AgentError> {
        let open = |what, address, name: &String| {
            (!offered.contains(name)).then(|| listen(what, address)).transpose()
        };
        let registry = options.registry_addr.zip(registry_name(options));
        Ok(Self {
            metrics: open("metrics", options.metrics_addr, &metrics_name(options))?,
            readiness: open("readiness", options.readiness_addr, &readiness_name(options))?,
            registry: match registry {
                Some((address, name)) => open("the registry", address, &name)?,
                None => None,
            },
        })
    }
}

impl Doors {
    /// Opens all.
    pub fn open(options: &AgentOptions, run_dir: RunDir) -> Result<Self, AgentError> {
        let at = |what, path: std::path::PathBuf| {
            move |source| AgentError::Listen { what, address: path.display().to_string(), source }
        };
        let admin = run_dir.bind_socket().map_err(at("the admin API", run_dir.socket()))?;
        let handover =
            channel::listen(&run_dir.handover()).map_err(at("its successor", run_dir.handover()))?;
        let cni = listen_to_plugins(&run_dir)?;
        Ok(Self { run_dir, admin, handover, cni, public: Public::open(options, &[])? })
    }

    /// Takes over those of another agent, beside `public` ones that are open.
    pub fn take_over(
        options: &AgentOptions,
        mut public: Public,
        mut all: BTreeMap<String, OwnedFd>,
    ) -> Result<Self, AgentError> {
        let mut take = |name: &str| {
            let missing = || AgentError::Listen {
                what: "the agent",
                address: name.to_owned(),
                source: io::Error::other("the agent before did not hand it over"),
            };
            all.remove(name).ok_or_else(missing)
        };
        let lock = take(LOCK)?;
        let (admin, handover) = (take(ADMIN)?, take(HANDOVER)?);
        if public.metrics.is_none() {
            public.metrics = Some(take(&metrics_name(options))?.into());
        }
        if public.readiness.is_none() {
            public.readiness = Some(take(&readiness_name(options))?.into());
        }
        if let (None, Some(name)) = (&public.registry, registry_name(options)) {
            public.registry = Some(take(&name)?.into());
        }
        let run_dir = RunDir::take_over(&options.run_dir, lock.into())?;
        let cni = take(CNI)?;
        Ok(Self { run_dir, admin: admin.into(), handover, cni, public })
    }

    /// Duplicates of all, for a successor, and their names.
    pub fn lend(&self, options: &AgentOptions) -> io::Result<(Vec<String>, Vec<OwnedFd>)> {
        let Public { metrics, readiness, registry } = &self.public;
        let all = [
            (LOCK.to_owned(), Some(self.run_dir.lock())),
            (ADMIN.to_owned(), Some(self.admin.as_fd())),
            (HANDOVER.to_owned(), Some(self.handover.as_fd())),
            (CNI.to_owned(), Some(self.cni.as_fd())),
            (metrics_name(options), metrics.as_ref().map(AsFd::as_fd)),
            (readiness_name(options), readiness.as_ref().map(AsFd::as_fd)),
            (registry_name(options).unwrap_or_default(), registry.as_ref().map(AsFd::as_fd)),
        ];
        let all = all.into_iter().filter_map(|(name, file)| Some((name, file?)));
        all.map(|(name, file)| Ok((name, file.try_clone_to_owned()?)))
            .collect::<io::Result<Vec<_>>>()
            .map(|all| all.into_iter().unzip())
    }

    /// Everything is a successor's: nothing is removed at the end.
    pub fn leave(&self) {
        self.run_dir.leave();
    }

    /// The admin API's, as the runtime wants it.
    pub fn admin(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.admin.try_clone()?)
    }

    /// Where successors come.
    pub fn handover(&self) -> io::Result<OwnedFd> {
        self.handover.try_clone()
    }

    /// Where CNI plugins come. Does not block.
    pub fn cni(&self) -> io::Result<OwnedFd> {
        self.cni.try_clone()
    }

    /// The one of metrics.
    pub fn metrics(&self) -> io::Result<tokio::net::TcpListener> {
        in_runtime(self.public.metrics.as_ref().ok_or(io::ErrorKind::NotConnected)?)
    }

    /// The one of readiness.
    pub fn readiness(&self) -> io::Result<tokio::net::TcpListener> {
        in_runtime(self.public.readiness.as_ref().ok_or(io::ErrorKind::NotConnected)?)
    }

    /// The one of the registry, where it is wanted.
    pub fn registry(&self) -> io::Result<Option<tokio::net::TcpListener>> {
        self.public.registry.as_ref().map(in_runtime).transpose()
    }
}

fn listen_to_plugins(run_dir: &RunDir) -> Result<OwnedFd, AgentError> {
    let path = run_dir.cni();
    let listen = || {
        let listener = channel::listen(&path)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(listener)
    };
    listen().map_err(|source| AgentError::Listen {
        what: "CNI plugins",
        address: path.display().to_string(),
        source,
    })
}

fn in_runtime(listener: &TcpListener) -> io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener.try_clone()?)
}

fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, AgentError> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| AgentError::Listen { what, address: address.to_string(), source })
}
