//! What can go wrong at the kernel edge.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the datapath did not start, or a pod was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The agent was compiled before its kernel programs were.
    #[error("this binary holds no eBPF programs: build it with `cargo xtask build`")]
    NoPrograms,
    /// The kernel, or what this process may do, is not enough. Names all that is missing.
    #[error("{missing}: {cure}")]
    Unsupported {
        /// What is missing.
        missing: String,
        /// What to do about it.
        cure: String,
    },
    /// The kernel refused the programs, and probing does not show why.
    #[error("cannot load the eBPF programs")]
    Load(#[source] Box<aya::EbpfError>),
    /// The kernel refused one program, and probing does not show why.
    #[error("cannot load or attach eBPF program {program}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A file or a kernel object could not be used.
    #[error("{what}")]
    Io {
        /// What was tried, with names.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Releasing or enrolling names a pod that is enrolled already.
    #[error("pod {key} is enrolled already")]
    AlreadyEnrolled {
        /// The pod.
        key: Arc<str>,
    },
    /// Two pods cannot share one network namespace: their connections could not be told apart.
    #[error("pod {key} has the network namespace of pod {other}, which is enrolled")]
    NetnsTaken {
        /// The refused pod.
        key: Arc<str>,
        /// The enrolled pod.
        other: Arc<str>,
    },
    /// A pod of the host's network: its connections are the node's.
    #[error("pod {key} has the agent's own network namespace (hostNetwork), which cannot be in the mesh")]
    HostNetwork {
        /// The refused pod.
        key: Arc<str>,
    },
    /// Without an address nothing can be captured.
    #[error("pod {key} has no address")]
    NoAddress {
        /// The refused pod.
        key: Arc<str>,
    },
    /// The pod's namespace does not open; usually the pod has just ended.
    #[error("pod {key}: network namespace {}", path.display())]
    Netns {
        /// The refused pod.
        key: Arc<str>,
        /// Its namespace.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Names what was tried.
pub(super) trait Context<T> {
    /// Wraps the error with what was tried.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, DatapathError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, DatapathError> {
        self.map_err(|source| DatapathError::Io { what: what(), source })
    }
}
