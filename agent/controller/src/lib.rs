//! What a mesh has once: the certificate authority and the validating webhook, in one Deployment of two replicas.
//!
//! ```text
//! Secret ── root ──▶ ca ── publish ──▶ ConfigMap weft-ca-root, caBundle of the webhook
//!                    │ └── serving ──▶ certificates of its own doors
//! agents ── grpc ──▶ tokens (TokenReview: which node?) ──▶ issue (does the account run there? pods) ──▶ ca signs
//!               └▶ gateway_secrets (does a gateway pod there need it? pods, gateways) ──▶ the Secret, read for the answer
//! API server ── webhook ──▶ admission: what `weft analyze` says ◀── statuses, in the replica that leader chose
//! ```
//!
//! Every replica does all of it by what the API server has, but for the statuses, and for what `away` takes back of pods whose
//! agents are not ready; none keeps anything of its own.

mod admission;
mod away;
mod ca;
mod caller;
mod condition;
mod gateway_secrets;
mod gateways;
mod grpc;
mod health;
mod issue;
mod leader;
mod listener;
mod metrics;
mod pods;
mod publish;
mod root;
mod run;
mod secret;
mod serving;
mod statuses;
mod tokens;
mod watching;
mod webhook;

pub use run::{ControllerOptions, run};
