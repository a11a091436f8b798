//! Accepting: takes connections off a pod's listeners and says what each is for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use weft_datapath::{Direction, LocalPod};
use weft_rules::registry::protocol::Protocol;

use super::connection::Downstream;
use super::core::Core;
use super::ends::Place;
use super::stream::Stream;
use super::{client_hello, detect, gateway, http, inbound, limits, tcp, tunnels};

/// What the tunnels of one listener share.
struct Gate {
    handshakes: Semaphore,
    /// The pod's end.
    whole: Rc<Place>,
    /// Ends with the pod's time in the mesh.
    stop: watch::Receiver<()>,
}

/// Accepts until told to stop; then for a moment what is still on its way, so that nobody is reset by a pod leaving the mesh.
pub(super) async fn run(
    core: Rc<Core>,
    pod: Arc<LocalPod>,
    (direction, socket): (Direction, Rc<TcpListener>),
    mut stop: watch::Receiver<()>,
) {
    let handshakes = Semaphore::new(limits::HANDSHAKES);
    let gate = Rc::new(Gate { handshakes, whole: core.ends.of_pod(&pod), stop: stop.clone() });
    let take = async || match accept_if_room(&core, &pod, direction, &socket).await {
        Ok((stream, peer)) => start(&core, &pod, (direction, &gate), stream, peer),
        Err(error) => {
            // Out of file descriptors or memory: the queue holds them meanwhile.
            tracing::warn!(pod = %pod.network.key, ?direction, %error, "accept failed");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    loop {
        tokio::select! {
            () = take() => {}
            _ = stop.changed() => break,
        }
    }
    // What is queued is for the agent that has the listeners now.
    if core.is_retiring() {
        return;
    }
    let last = tokio::time::sleep(limits::LAST_ARRIVALS);
    tokio::pin!(last);
    loop {
        tokio::select! {
            () = take() => {}
            () = core.retired() => break,
            () = &mut last => break,
        }
    }
    while let Some(Ok((stream, peer))) = poll_once(socket.accept()).await {
        start(&core, &pod, (direction, &gate), stream, peer);
    }
}

/// Accepts once the pod has room for a connection more; those beyond wait in the kernel's queue. Cancel-safe.
async fn accept_if_room(
    core: &Core,
    pod: &LocalPod,
    direction: Direction,
    socket: &TcpListener,
) -> io::Result<(TcpStream, SocketAddr)> {
    let account = core.account(pod, direction == Direction::Inbound, None);
    while !account.has_room(limits::CONNECTION) {
        core.pool.close_idle_of(pod);
        tokio::time::sleep(limits::ACCEPT_AGAIN).await;
    }
    socket.accept().await
}

/// Polls once: `None` if it would wait.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

fn start(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    (direction, gate): (Direction, &Rc<Gate>),
    stream: TcpStream,
    peer: SocketAddr,
) {
    let account = core.account(pod, direction == Direction::Inbound, caller(direction, peer));
    let charge = match direction {
        Direction::Outbound => Some(account.charge_anyway(limits::CONNECTION)),
        // That the pod has room does not mean that this caller has.
        Direction::Inbound => account.charge(limits::CONNECTION),
    };
    let Some(charge) = charge else { return Stream::from(stream).reset() };
    let held = (core.enter(), charge);
    let (gate, whole) = (Rc::clone(gate), Arc::clone(pod));
    let (core, pod) = (Rc::clone(core), Arc::clone(pod));
    // Each in a box of its own size: a task is moved several times before it runs, and would be as large as the largest.
    let served: Pin<Box<dyn Future<Output = ()>>> = match direction {
        Direction::Outbound => Box::pin(outbound(core, pod, stream.into(), peer)),
        Direction::Inbound => {
            let gate = Rc::clone(&gate);
            Box::pin(async move { arrived(&core, &pod, &gate, stream, peer).await })
        }
    };
    account.serve(async move {
        tokio::select! {
            biased;
            // What is dropped is closed.
            () = gate.whole.gone(&whole) => {}
            () = served => {}
        }
        drop(held);
    });
}

/// Who pays beside the pod.
fn caller(direction: Direction, peer: SocketAddr) -> Option<IpAddr> {
    (direction == Direction::Inbound).then(|| peer.ip())
}

/// A connection that a program in the pod opened.
async fn outbound(core: Rc<Core>, pod: Arc<LocalPod>, mut stream: Stream, peer: SocketAddr) {
    let dialled = match pod.take_orig_dst(peer) {
        Ok(Some(dialled)) => dialled,
        // Somebody dialled the listener itself: not captured, not served.
        Ok(None) => return stream.reset(),
        Err(error) => {
            tracing::warn!(pod = %pod.network.key, %peer, %error, "original destination is unreadable");
            return stream.reset();
        }
    };
    let down = Downstream::new(core, pod, peer, dialled);
    let rules = down.outbound();
    match rules.protocol {
        Protocol::Tcp if rules.reads_server_name => {
            if let Some(hello) = client_hello::read(&mut stream).await {
                down.name_server(hello.name);
                tcp::serve(&down, stream, hello.bytes).await;
            }
        }
        Protocol::Tcp => tcp::serve(&down, stream, Bytes::new()).await,
        Protocol::Http | Protocol::Http2 => {
            if let Some(first) = detect::http_version(&mut stream).await {
                http::serve(down, stream, first).await;
            }
        }
        Protocol::Detect => match detect::race(&down, &mut stream, detect::Server::Silent).await {
            detect::Spoke::Http(first) => http::serve(down, stream, first).await,
            detect::Spoke::Bytes { first, line, upstream } => {
                tcp::serve_detected(&down, stream, first, line, upstream).await;
            }
            detect::Spoke::Gone => {}
        },
    }
}

/// A connection from outside to a program in the pod.
async fn arrived(core: &Rc<Core>, pod: &Arc<LocalPod>, gate: &Gate, stream: TcpStream, peer: SocketAddr) {
    match stream.local_addr() {
        // The kernel delivers what was sent to an address of the pod; on loopback somebody dialled the listener itself.
        Ok(dialled) if dialled.port() == tunnels::PORT && !is_loopback(dialled) => {
            tunnels::serve(core, pod, stream, peer, &gate.handshakes, gate.stop.clone()).await;
        }
        Ok(dialled) if !is_loopback(dialled) && gateway::is_asked_how_it_is(core, pod, dialled.port()) => {
            gateway::tell_how_it_is(core, pod, stream.into()).await;
        }
        Ok(dialled) if !is_loopback(dialled) && gateway::serves(core, pod, dialled.port()) => {
            gateway::arrive(core, pod, stream.into(), peer, dialled).await;
        }
        Ok(dialled) if !is_loopback(dialled) => {
            inbound::arrive(core, pod, stream.into(), peer, dialled).await;
        }
        Ok(_) | Err(_) => Stream::from(stream).reset(),
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
