//! Who signs: the embedded CA or an external one, and how it is doing.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::authority::AuthorityError;
use super::folder::{Folder, FolderError};
use super::request::Request;
use super::service::{Service, ServiceError};
use super::trust::Trust;
use super::{CaOptions, IdentityError, Issued};

/// Why a CA gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The embedded one.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// An external one.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// Who signs.
#[derive(Debug)]
pub enum Ca {
    /// The embedded one.
    Folder(RefCell<Folder>),
    /// An external one.
    Service(Service),
}

/// How a CA is doing.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// When it last answered.
    pub answered: Option<SystemTime>,
    /// Since when it has failed, and the last reason.
    pub failure: Option<(SystemTime, String)>,
}

/// What became of the CA's revocation lists.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    /// How many are in force.
    pub lists: usize,
    /// Why what the file holds now is not.
    pub error: Option<String>,
}

/// How the CA is doing, for status.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
    revocations: Mutex<Revocations>,
}

impl Health {
    /// It answered.
    pub fn good(&self, now: SystemTime) {
        *self.lock() = State { answered: Some(now), failure: None };
    }

    /// It did not, or answered with an error. True: another reason than before.
    pub fn bad(&self, why: String, now: SystemTime) -> bool {
        let mut state = self.lock();
        let (since, before) = state.failure.take().unwrap_or((now, String::new()));
        let other = before != why;
        state.failure = Some((since, why));
        other
    }

    /// As of now.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// So many lists are in force.
    pub fn revokes(&self, lists: usize) {
        *self.revocations.lock().unwrap_or_else(PoisonError::into_inner) = Revocations { lists, error: None };
    }

    /// What the file of lists holds now does not count.
    pub fn revokes_not(&self, why: String) {
        self.revocations.lock().unwrap_or_else(PoisonError::into_inner).error = Some(why);
    }

    /// As of now.
    pub fn revocations(&self) -> Revocations {
        self.revocations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ca {
    /// Opens it; `trust` knows the roots of an embedded one from then on.
    pub fn open(options: &CaOptions, trust: &Trust, health: &Health) -> Result<Self, IdentityError> {
        let now = SystemTime::now();
        match options {
            CaOptions::Folder(dir) => {
                let folder = Folder::open(dir, trust.domain().clone(), now)?;
                trust.name(folder.roots(), now).map_err(|why| FolderError::Broken {
                    dir: dir.clone(),
                    why: Box::new(AuthorityError::Other { file: "root-cert.pem", why }),
                })?;
                health.good(now);
                Ok(Self::Folder(RefCell::new(folder)))
            }
            CaOptions::Service(options) => Ok(Self::Service(Service::new(options.clone())?)),
        }
    }

    /// Asks for a certificate.
    pub async fn issue(&self, request: &Request, life: Duration, health: &Health) -> Result<Issued, CaError> {
        match self {
            Self::Folder(folder) => Ok(folder.borrow().issue(request, life, SystemTime::now())?),
            Self::Service(service) => {
                let issued = service.issue(request, life).await;
                match &issued {
                    Ok(_) => health.good(SystemTime::now()),
                    Err(error) => _ = health.bad(error.to_string(), SystemTime::now()),
                }
                Ok(issued?)
            }
        }
    }

    /// Takes in changes of the CA's files. True: every certificate is to be asked for again.
    pub fn look(&self, trust: &Trust, health: &Health) -> bool {
        let folder = match self {
            Self::Folder(folder) => folder,
            Self::Service(service) => {
                let again = service.look(Instant::now());
                if again {
                    tracing::info!("the CA's roots have changed; all certificates are renewed");
                }
                return again;
            }
        };
        let mut folder = folder.borrow_mut();
        let now = SystemTime::now();
        match folder.look(now) {
            Ok(true) => {
                health.good(now);
                match trust.name(folder.roots(), now) {
                    Ok(changed) => tracing::info!(roots_changed = changed, "the CA's files are read again"),
                    Err(refusal) => tracing::warn!(%refusal, "the CA's roots cannot be read"),
                }
            }
            Ok(false) => health.good(now),
            Err(error) => {
                if health.bad(error.to_string(), now) {
                    tracing::warn!("{error}; what was read last stays in force");
                }
            }
        }
        let signs = folder.settle(Instant::now());
        if signs {
            tracing::info!("the CA signs with its new key; all certificates are renewed");
        }
        signs
    }
}
