//! Interim responses (1xx). hyper tells a client's side of them by a callback on the endpoint's connection; towards the
//! client it can only send 100 itself. So:
//!
//! - 100 opens the [`Gate`] that holds back the body of a request with `Expect: 100-continue`. The first read of that body
//!   makes hyper send its own 100 to the client.
//! - 102 and 103 are queued in [`Interim`] and written by the client's socket wrapper when hyper is between messages.
//!
//! Towards HTTP/2 clients interim responses are left out: hyper offers no way to send them.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::{Request, StatusCode};

use super::headers;
use crate::limits;

/// Interim responses on their way to one HTTP/1.1 client. Its lock is taken only when there is one: hyper asks for a
/// callback that could be called from anywhere.
#[derive(Debug, Default)]
pub(crate) struct Interim {
    waiting: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    waker: Option<Waker>,
}

impl Interim {
    /// Takes what waits. Empty: nothing does.
    pub(crate) fn take(&self) -> Vec<u8> {
        if self.waiting.swap(false, Ordering::Relaxed) {
            std::mem::take(&mut lock(&self.queue).bytes)
        } else {
            Vec::new()
        }
    }

    /// Whom to wake when there is something.
    pub(crate) fn register(&self, waker: &Waker) {
        lock(&self.queue).waker = Some(waker.clone());
    }

    /// Queues one, unless the client is far behind.
    pub(crate) fn push(&self, status: StatusCode, headers: &http::HeaderMap) {
        let mut queue = lock(&self.queue);
        if queue.bytes.len() > limits::INTERIM_BYTES {
            return;
        }
        write_head(&mut queue.bytes, status, headers);
        self.waiting.store(true, Ordering::Relaxed);
        if let Some(waker) = &queue.waker {
            waker.wake_by_ref();
        }
    }
}

fn write_head(bytes: &mut Vec<u8>, status: StatusCode, headers: &http::HeaderMap) {
    let mut line = String::new();
    // Writing to a string does not fail.
    write!(line, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default())
        .unwrap_or_default();
    bytes.extend_from_slice(line.as_bytes());
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
}

/// Holds a body back until the endpoint asks for it.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Passage>);

#[derive(Debug, Default)]
struct Passage {
    state: Passing,
    waker: Option<Waker>,
}

/// Whether a body may pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Passing {
    #[default]
    NotYet,
    Open,
    /// The endpoint has answered without it.
    Never,
}

impl Gate {
    /// Lets the body pass.
    pub(in crate::http) fn open(&self) {
        self.settle(Passing::Open);
    }

    /// The exchange is over: a body that has not passed never will.
    pub(in crate::http) fn close(&self) {
        self.settle(Passing::Never);
    }

    /// Ready: whether it may pass.
    pub(in crate::http) fn poll(&self, context: &mut Context<'_>) -> Poll<bool> {
        let mut passage = lock(&self.0);
        match passage.state {
            Passing::Open => Poll::Ready(true),
            Passing::Never => Poll::Ready(false),
            Passing::NotYet => {
                passage.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn settle(&self, state: Passing) {
        let mut passage = lock(&self.0);
        if passage.state == Passing::NotYet {
            passage.state = state;
            if let Some(waker) = passage.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Asks hyper to tell of the interim responses to this request.
pub(super) fn listen<B>(request: &mut Request<B>, client: Option<&Arc<Interim>>, gate: Option<&Arc<Gate>>) {
    if client.is_none() && gate.is_none() {
        return;
    }
    let (client, gate) = (client.cloned(), gate.cloned());
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            if let Some(gate) = &gate {
                gate.open();
            }
        } else if let Some(client) = &client {
            let mut passed = response.headers().clone();
            headers::strip_hop_by_hop(&mut passed, false);
            client.push(response.status(), &passed);
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
