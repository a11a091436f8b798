//! What is told of the newest state: to those who wait until it is in force, to `weft status`, and to scrapes.

use std::sync::Arc;

use tokio::time::Instant;
use weft_api::admin::{Applied, SecretState};
use weft_telemetry::Secrets;

use super::Control;
use crate::agent::{View, view};

impl Control {
    /// What the newest state waits for.
    fn waiting_for(&self) -> Vec<String> {
        let generation = self.shared.snapshot.load().generation;
        let objects = self.source.waiting_for().into_iter();
        let pods = self.coming().map(|(key, why)| format!("pod {key}: {why}"));
        let leaving =
            self.leaving.iter().map(|key| format!("pod {key}: leaves when the other nodes know of it"));
        let workers = (self.confirmed.iter().enumerate())
            .filter(|(_, confirmed)| self.unconfirmed && **confirmed < generation)
            .map(|(index, _)| format!("worker-{index}"));
        let patterns = self.intake.waiting_for();
        let certificates = self.shared.identities.iter().flat_map(|identities| identities.on_their_way());
        let certificates = certificates.map(|account| format!("certificate of {account}"));
        let secrets = self.shared.credentials.on_their_way().into_iter().map(|name| format!("Secret {name}"));
        objects
            .chain(patterns)
            .chain(pods)
            .chain(leaving)
            .chain(workers)
            .chain(certificates)
            .chain(secrets)
            .collect()
    }

    pub(super) fn answer(&mut self) {
        let waiting_for = self.waiting_for();
        let applied = waiting_for.is_empty() && !self.unconfirmed;
        if applied && let Some(guard) = self.first_sync.take() {
            drop(guard);
            let pods = self.enrolled.len();
            tracing::info!(
                pods,
                generation = self.generation(),
                "ready: everything that was there at start is in force"
            );
        }
        let now = Instant::now();
        let generation = self.generation();
        for waiter in std::mem::take(&mut self.waiters) {
            if applied || waiter.until <= now {
                let waiting_for = if applied { Vec::new() } else { waiting_for.clone() };
                let _ = waiter.reply.send(Applied { applied, generation, waiting_for });
            } else if !waiter.reply.is_closed() {
                self.waiters.push(waiter);
            }
        }
    }

    fn secrets(&self) -> Secrets {
        let rows = self.shared.credentials.serving();
        let closed =
            self.shared.credentials.rows().iter().filter(|row| row.state == SecretState::Closed).count();
        Secrets { ends: rows, closed }
    }

    fn generation(&self) -> u64 {
        self.confirmed.iter().copied().min().unwrap_or(0)
    }

    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.rows_stale) {
            self.rows = self.pod_rows().into();
        }
        let mut refused = self.source.refused();
        refused.extend(self.intake.findings());
        self.shared.telemetry.state(self.generation(), self.enrolled.len(), refused.len());
        self.shared.telemetry.kept(self.source.kept());
        self.shared.limits.take_objects(self.intake.sums());
        if let Some(identities) = &self.shared.identities {
            self.shared.telemetry.certificates(identities.ends());
        }
        self.shared.telemetry.secrets(self.secrets());
        self.shared.view.store(Arc::new(View {
            generation: self.generation(),
            workers: self.confirmed.clone(),
            waiting_for: self.waiting_for(),
            pods: self.rows.clone(),
            objects: self.source.counts(),
            troubles: self.source.troubles(),
            refused,
            not_in_force: view::not_in_force(self.source.not_in_force(), &self.rows),
        }));
    }
}
