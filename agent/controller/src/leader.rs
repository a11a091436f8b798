//! Which replica writes statuses: the holder of a Lease, as Kubernetes' own controllers do it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_api::causes;
use weft_api::names::CONTROLLER;

/// A holder that is not heard of for so long has lost the Lease.
const TERM: Duration = Duration::from_secs(15);
/// A holder that cannot renew steps down before others take over.
const DOUBT: Duration = Duration::from_secs(10);
/// Between looks at the Lease.
const LOOK: Duration = Duration::from_secs(3);

/// What is known of the Lease.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    /// Its holder and the time of its renewal, as it says: clocks may differ, so they are compared only with each other.
    says: (Option<String>, Option<MicroTime>),
    /// When this was first seen here.
    at: Instant,
}

/// What to do about a Lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is ours, or nobody's.
    Take,
    /// Somebody else holds it.
    Wait,
}

fn step(seen: &Seen, me: &str, now: Instant) -> Step {
    match seen.says.0.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == me => Step::Take,
        Some(_) if now.duration_since(seen.at) > TERM => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// Runs for the Lease of one namespace.
pub struct Election {
    leases: Api<Lease>,
    me: String,
    leads: watch::Sender<bool>,
}

impl Election {
    /// A candidate by the name of `me`, which is unique.
    pub fn new(leases: Api<Lease>, me: String) -> Self {
        Self { leases, me, leads: watch::Sender::new(false) }
    }

    /// True while this replica holds the Lease.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Runs for it, for as long as the process lives.
    pub async fn run(&self) {
        let mut seen = None;
        let mut renewed = None;
        loop {
            match self.attempt(&mut seen).await {
                Ok(true) => {
                    renewed = Some(Instant::now());
                    self.set(true);
                }
                Ok(false) => {
                    renewed = None;
                    self.set(false);
                }
                Err(error) => {
                    tracing::debug!("the Lease cannot be had: {}", causes::all(&error));
                    if renewed.is_none_or(|at: Instant| at.elapsed() > DOUBT) {
                        self.set(false);
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Gives the Lease up, so that another replica need not wait.
    pub async fn resign(&self) {
        if !*self.leads.borrow() {
            return;
        }
        self.set(false);
        let given_up = async {
            let mut lease = self.leases.get(CONTROLLER).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.me) {
                spec.holder_identity = Some(String::new());
                self.leases.replace(CONTROLLER, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = given_up.await {
            tracing::debug!("the Lease cannot be given up: {}", causes::all(&error));
        }
    }

    fn set(&self, leads: bool) {
        let changed = self.leads.send_if_modified(|before| std::mem::replace(before, leads) != leads);
        if changed {
            let what = if leads { "this replica writes statuses" } else { "another replica writes statuses" };
            tracing::info!("{what}");
        }
    }

    /// Looks, and takes or renews the Lease if it may. True: it is held.
    async fn attempt(&self, seen: &mut Option<Seen>) -> kube::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(CONTROLLER).await? else {
            let metadata = ObjectMeta { name: Some(CONTROLLER.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return held(self.leases.create(&PostParams::default(), &lease).await);
        };
        let before = lease.spec.take().unwrap_or_default();
        let now = Instant::now();
        let says = (before.holder_identity.clone(), before.renew_time.clone());
        if seen.as_ref().is_none_or(|seen| seen.says != says) {
            *seen = Some(Seen { says, at: now });
        }
        if seen.as_ref().is_none_or(|seen| step(seen, &self.me, now) == Step::Wait) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(Some(before)));
        held(self.leases.replace(CONTROLLER, &PostParams::default(), &lease).await)
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let again = before.holder_identity.as_deref() == Some(&*self.me);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(TERM.as_secs()).ok(),
            acquire_time: if again { before.acquire_time } else { Some(now.clone()) },
            lease_transitions: Some(if again { transitions } else { transitions.saturating_add(1) }),
            renew_time: Some(now),
            ..before
        }
    }
}

/// Somebody who was quicker holds it.
fn held(outcome: kube::Result<Lease>) -> kube::Result<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_from_nobody_from_oneself_and_from_the_silent() {
        let at = Instant::now();
        let seen = |holder: Option<&str>| Seen { says: (holder.map(str::to_owned), None), at };
        let step_at = |holder, secs| step(&seen(holder), "me", at + Duration::from_secs(secs));
        assert_eq!(step_at(None, 0), Step::Take);
        assert_eq!(step_at(Some(""), 0), Step::Take);
        assert_eq!(step_at(Some("me"), 0), Step::Take);
        assert_eq!(step_at(Some("you"), 0), Step::Wait);
        assert_eq!(step_at(Some("you"), 15), Step::Wait);
        assert_eq!(step_at(Some("you"), 16), Step::Take);
    }
}
