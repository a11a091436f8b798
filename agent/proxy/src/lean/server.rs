//! The destination's side: one connection after another is decided upon, opened and served.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::frames::{Kind, hear, say};
use super::leg::{Leg, Next};
use super::words;
use crate::tunnels::{Carrier, NotOpened, Opened};
use crate::wire::Wire;

/// Serves a TLS connection until its peer closes it, or the pod leaves the mesh and nothing is under way.
pub(crate) async fn serve(carrier: &Rc<Carrier>, mut io: Wire, mut stop: watch::Receiver<()>) {
    let ended: io::Result<()> = async {
        loop {
            let asked = tokio::select! {
                asked = hear(&mut io, Kind::Open) => asked?,
                () = carrier.left(&mut stop) => None,
            };
            let Some(asked) = asked else { return io.shutdown().await };
            let opened = match words::read(&asked, &carrier.pod.network.addresses) {
                None => Err("400"),
                Some((to, read)) => {
                    let mut early = [0];
                    tokio::select! {
                        opened = carrier.open(to, read) => opened.map_err(status),
                        // The caller waits no longer; it says nothing before it has its answer.
                        _ = io.read(&mut early) => return Ok(()),
                    }
                }
            };
            match opened {
                Ok(opened) => match carry(carrier, io, opened).await? {
                    Some(free) => io = free,
                    None => return Ok(()),
                },
                Err(status) => say(&mut io, Kind::Answer, status.as_bytes()).await?,
            }
        }
    }
    .await;
    if let Err(error) = ended {
        tracing::debug!(pod = %carrier.pod.network.key, peer = %carrier.peer, %error, "tunnel broke off");
    }
}

fn status(why: NotOpened) -> &'static str {
    match why {
        NotOpened::Denied => "401",
        NotOpened::Unavailable => "503",
    }
}

/// Carries a connection to its end. `None`: that was the end of the TLS connection, too.
async fn carry(carrier: &Carrier, mut io: Wire, opened: Opened) -> io::Result<Option<Wire>> {
    say(&mut io, Kind::Answer, b"200").await?;
    let slot = Rc::new(RefCell::new(None));
    let next = Next::Served { slot: Rc::clone(&slot), core: Rc::clone(&carrier.core) };
    let leg = Leg::new(io, carrier.local_address, next);
    opened.serve(leg.into()).await;
    let free = slot.borrow_mut().take();
    Ok(free)
}
