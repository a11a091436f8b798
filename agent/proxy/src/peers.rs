//! The peers of a worker's TLS connections, which end when their certificates are revoked.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use weft_identity::Identities;

use super::limits;

thread_local! {
    /// Those of this worker.
    static PEERS: RefCell<Vec<Weak<Peer>>> = const { RefCell::new(Vec::new()) };
}

/// The other end of a TLS connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its certificate, and what that chains through.
    chain: Vec<CertificateDer<'static>>,
    revoked: Cell<bool>,
    /// Who waits to read from it.
    reader: RefCell<Option<Waker>>,
}

impl Peer {
    /// The peer of a finished handshake.
    pub(super) fn of(connection: &CommonState) -> Rc<Self> {
        let chain = connection.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let peer = Rc::new(Self { chain, revoked: Cell::default(), reader: RefCell::default() });
        PEERS.with_borrow_mut(|peers| {
            // As often as the list would grow: what is gone costs no more than what is there.
            if peers.len() == peers.capacity() {
                peers.retain(|peer| peer.strong_count() > 0);
            }
            peers.push(Rc::downgrade(&peer));
        });
        peer
    }

    /// Fails once the certificate is revoked.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.revoked.get() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the peer's certificate is revoked",
            ));
        }
        Ok(())
    }

    /// Nothing is there to be read: whoever waits for it hears of the end, too.
    pub(super) fn wait(&self, context: &Context<'_>) {
        match &mut *self.reader.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    fn end(&self) {
        self.revoked.set(true);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// Ends this worker's connections with peers whose certificates have been revoked: now, and once more when the handshakes
/// have ended that are under way.
pub(super) async fn end_revoked(identities: &Identities) {
    end_now(identities);
    tokio::time::sleep(limits::HANDSHAKE).await;
    end_now(identities);
}

fn end_now(identities: &Identities) {
    let peers: Vec<Rc<Peer>> = PEERS.with_borrow(|peers| peers.iter().filter_map(Weak::upgrade).collect());
    let revoked = peers.iter().filter(|peer| !peer.revoked.get() && identities.is_revoked(&peer.chain));
    let ended = revoked.map(|peer| peer.end()).count();
    if ended > 0 {
        tracing::warn!(ended, "connections with peers whose certificates are revoked have been ended");
    }
}
