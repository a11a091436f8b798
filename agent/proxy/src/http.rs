//! HTTP: the way of a request, in the order of the files.
//!
//! 1. [`server`]: hyper reads the request; the answer's body is counted and recorded on its way out. [`target`]: what hyper
//!    would not read.
//! 2. [`framing`], [`headers`]: what a sidecar does to a request before it is routed and to a response before it is sent.
//! 3. [`route`]: the rules decide: forward, redirect, answer, refuse; CORS and faults.
//! 4. [`forward`]: tries, time limits, retries; [`attempt`]: one try on one endpoint.
//! 5. [`admit`]: at the destination's node, before a try is sent: [`authenticate`] (tokens), [`ext_authz`], policies.
//! 6. On the way: [`interim`] responses, [`upgrade`] to another protocol, [`mirror`]ed copies.
//! 7. [`body`]: bodies of both directions; [`exchange`]: what it all came to; [`local_reply`]: answers of weft's own.

mod admit;
mod attempt;
mod authenticate;
mod body;
mod client;
mod exchange;
mod ext_authz;
mod forward;
mod framing;
mod half_close;
mod headers;
mod interim;
mod local_reply;
mod mirror;
mod route;
mod server;
mod target;
mod upgrade;

use body::{Metered, RequestBody};
pub(super) use ext_authz::{Parties, admits_connection};
pub(super) use half_close::HalfClose;
pub(super) use interim::Interim;
pub(super) use server::serve;
pub(super) use target::{Heads, restore};

/// A request's body on its way to an endpoint, as it is paid for.
pub(super) type MeteredRequestBody = Metered<RequestBody>;

/// Runs hyper's tasks on the worker that started them.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}
