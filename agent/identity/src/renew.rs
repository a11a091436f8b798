//! Keeps each account's certificate fresh: one task per account, and one look at the CA each second.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use weft_api::identity::Identity;

use super::account::Account;
use super::ca::{Ca, Health};
use super::certificate::Facts;
use super::request::Request;
use super::revocation::RevocationFile;
use super::rotation;
use super::tls::{Handshakes, Tls};
use super::trust::Trust;

/// How often the CA's files are looked at, and roots whose time has come are dropped.
const LOOK: Duration = Duration::from_secs(1);
/// The longest sleep: after it the clock is read anew, which may have been set.
const NAP: Duration = Duration::from_secs(30);

/// What the tasks share.
pub struct Renewer {
    ca: Ca,
    trust: Arc<Trust>,
    handshakes: Handshakes,
    health: Arc<Health>,
    life: Duration,
    report: Box<dyn Fn()>,
    revocations: Option<RefCell<RevocationFile>>,
    /// Rings when all certificates are to be renewed.
    all: watch::Sender<()>,
}

impl Renewer {
    /// Fetches from `ca`; `report` is called when an attempt has ended.
    pub fn new(
        ca: Ca,
        trust: Arc<Trust>,
        health: Arc<Health>,
        life: Duration,
        revocations: Option<RevocationFile>,
        report: Box<dyn Fn()>,
    ) -> Rc<Self> {
        let handshakes = Handshakes::new(trust.clone());
        Rc::new(Self {
            ca,
            trust,
            handshakes,
            health,
            life,
            report,
            revocations: revocations.map(RefCell::new),
            all: watch::Sender::new(()),
        })
    }

    /// Runs until nobody can want anything more.
    pub async fn run(self: Rc<Self>, mut wants: mpsc::UnboundedReceiver<Vec<Arc<Account>>>) {
        let mut tasks: HashMap<Identity, AbortHandle> = HashMap::new();
        // Before there is a certificate, nobody is believed.
        self.look_at_revocations();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wanted = wants.recv() => {
                    let Some(wanted) = wanted else { return };
                    self.reconcile(&mut tasks, wanted);
                }
                _ = look.tick() => {
                    self.trust.prune(SystemTime::now());
                    if self.ca.look(&self.trust, &self.health) | self.look_at_revocations() {
                        self.all.send_replace(());
                    }
                }
            }
        }
    }

    fn reconcile(self: &Rc<Self>, tasks: &mut HashMap<Identity, AbortHandle>, wanted: Vec<Arc<Account>>) {
        let mut before = std::mem::take(tasks);
        for account in wanted {
            let identity = account.identity().clone();
            let task = before
                .remove(&identity)
                .unwrap_or_else(|| tokio::task::spawn_local(self.clone().keep(account)).abort_handle());
            tasks.insert(identity, task);
        }
        for (identity, task) in before {
            task.abort();
            tracing::debug!(%identity, "its certificate is forgotten");
        }
    }

    /// Keeps one account's certificate fresh, until it is aborted.
    async fn keep(self: Rc<Self>, account: Arc<Account>) {
        let mut all = self.all.subscribe();
        let mut failures = 0;
        loop {
            let outcome = self.attempt(account.identity()).await;
            let now = SystemTime::now();
            let due = match outcome {
                Ok((tls, facts)) => {
                    failures = 0;
                    let due = rotation::renewal(now, facts.not_before, facts.not_after, fastrand::f64());
                    tracing::debug!(identity = %facts.identity, serial = facts.serial, "has a new certificate");
                    if account.succeed(tls, facts, due) {
                        tracing::info!(identity = %account.identity(), "has a certificate again");
                    }
                    due
                }
                Err(error) => {
                    failures += 1;
                    let why = error.to_string();
                    let not_after = account.tls(now).map(|tls| tls.not_after);
                    let due = now + rotation::retry(failures, now, not_after, fastrand::f64());
                    if account.fail(why.clone(), now, due) {
                        tracing::warn!(identity = %account.identity(), "gets no certificate: {why}");
                    }
                    due
                }
            };
            (self.report)();
            tokio::select! {
                () = until(due) => {}
                _ = all.changed() => {}
            }
        }
    }

    async fn attempt(&self, identity: &Identity) -> anyhow::Result<(Tls, Facts)> {
        let request = Request::new(identity.clone())?;
        let issued = self.ca.issue(&request, self.life, &self.health).await?;
        let now = SystemTime::now();
        self.trust.name(&issued.roots, now)?;
        Ok(self.handshakes.tls(&request, issued.chain, now)?)
    }

    /// Takes in other revocation lists than before. True: there were; certificates of our own may be among the revoked.
    fn look_at_revocations(&self) -> bool {
        let Some(file) = &self.revocations else { return false };
        let mut file = file.borrow_mut();
        match file.look() {
            Ok(None) => false,
            Ok(Some(lists)) => {
                tracing::info!(file = %file.path().display(), lists = lists.len(), "revocation lists are in force");
                self.health.revokes(lists.len());
                self.trust.revoke(lists);
                (self.report)();
                true
            }
            Err(error) => {
                tracing::warn!("{error}; what was read last stays in force");
                self.health.revokes_not(error.to_string());
                false
            }
        }
    }
}

/// Sleeps until a time of the wall clock.
async fn until(due: SystemTime) {
    while let Ok(left) = due.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP)).await;
    }
}
