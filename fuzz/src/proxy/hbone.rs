//! CONNECT requests, as HTTP/2 carries them.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use tokio::io::AsyncWriteExt as _;

use super::{ADDRESSES, check};

#[path = "../../../agent/proxy/src/hbone/head.rs"]
mod head;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame (RFC 9113, 6.5).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// More than is ever sent.
const ROOM: usize = 1 << 20;

/// Whatever frames follow HTTP/2's preface: what is taken for a tunnel is a CONNECT, and leads to the pod.
pub fn tunnels(frames: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (peer, io) = tokio::io::duplex(ROOM);
        let (mut answers, mut asks) = tokio::io::split(peer);
        asks.write_all(&[PREFACE, SETTINGS, frames].concat()).await.expect("room");
        asks.shutdown().await.expect("an end");
        let mut nowhere = tokio::io::sink();
        tokio::join!(serve(io), async { drop(tokio::io::copy(&mut answers, &mut nowhere).await) });
    });
}

async fn serve(io: tokio::io::DuplexStream) {
    let Ok(mut connection) = head::builder().handshake::<_, Bytes>(io).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if let Some(to) = head::destination(&request, &*ADDRESSES) {
            assert_eq!(request.method(), Method::CONNECT);
            check(to);
        }
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let _ = respond.send_response(response, true);
    }
}
