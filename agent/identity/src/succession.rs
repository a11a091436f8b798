//! The key that signs, and the one that takes over from it: not before whoever has to believe it knows its root.

use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

use super::authority::Authority;

/// A new signing key waits so long: the other agents trust its root by then.
pub const SETTLE: Duration = Duration::from_secs(5);

/// The key that signs, and the next one.
#[derive(Debug)]
pub struct Succession {
    authority: Authority,
    /// Takes over at its time.
    next: Option<(Authority, Instant)>,
}

impl Succession {
    /// Signs by `authority`.
    pub fn new(authority: Authority) -> Self {
        Self { authority, next: None }
    }

    /// Takes in what there is now: at once where only the roots are others, after [`SETTLE`] where the key is.
    pub fn take(&mut self, authority: Authority, now: Instant) {
        if authority.certificate() == self.authority.certificate() {
            self.authority = authority;
            self.next = None;
        } else {
            self.next = Some((authority, now + SETTLE));
        }
    }

    /// Lets a new signing key take over when it is time. True: it has.
    pub fn settle(&mut self, now: Instant) -> bool {
        match self.next.take_if(|(_, due)| *due <= now) {
            Some((authority, _)) => {
                self.authority = authority;
                true
            }
            None => false,
        }
    }

    /// When a new signing key takes over, if there is one.
    pub fn due(&self) -> Option<Instant> {
        self.next.as_ref().map(|(_, due)| *due)
    }

    /// What signs now.
    pub fn signer(&self) -> &Authority {
        &self.authority
    }

    /// What was taken in last.
    pub fn newest(&self) -> &Authority {
        self.next.as_ref().map_or(&self.authority, |(next, _)| next)
    }

    /// What is to be trusted: the new key's roots as soon as there is one.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        self.newest().roots()
    }
}
