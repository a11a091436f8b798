//! Takes objects in within their bounds, and has regular expressions that take long compiled on another thread.

use weft_rules::compile::{Change, Done};

use super::{Control, Message};

impl Control {
    /// Takes in what the source brings; answers what is to be put in force now.
    pub(super) fn take_in(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let (admitted, refused) = self.intake.admit(changes);
        for finding in refused {
            tracing::warn!(resource = %finding.resource, path = finding.path, code = %finding.code, "{}", finding.message);
        }
        // At the start there is nothing that could wait, and half of the rules are no rules.
        if !self.begun {
            return admitted;
        }
        let (go_on, job) = self.intake.hold_back(admitted, &self.compiler);
        if let Some(job) = job {
            let control = self.shared.control.clone();
            tokio::task::spawn_blocking(move || {
                let _ = control.send(Message::Prepared(job.run()));
            });
        }
        // What was held back is older.
        let mut changes = std::mem::take(&mut self.released);
        changes.extend(go_on);
        changes
    }

    /// A job is done.
    pub(super) fn prepared(&mut self, done: Done) {
        let released = self.intake.release(done, &mut self.compiler);
        self.released.extend(released);
    }
}
