//! Secrets by which gateways end TLS. Of what they hold, only what everybody sees in a handshake is told.

use weft_api::admin::{SecretRow, SecretState, paths};

use crate::list::Row;
use crate::output::{Table, Tone, plain};

impl Row for SecretRow {
    const PATH: &'static str = paths::SECRETS;
    const NOTHING: &'static str = "No Secrets that a gateway's server names";

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> String {
        format!("secret/{}.{}", self.name, self.namespace)
    }

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&["NAMESPACE", "NAME", "STATE", "NAMES", "UNTIL", "MESSAGE"]);
        for row in rows {
            let state = match row.state {
                SecretState::Serves => ("serves".to_owned(), Some(Tone::Good)),
                SecretState::Expired => ("expired".to_owned(), Some(Tone::Bad)),
                SecretState::Closed => ("closed".to_owned(), Some(Tone::Bad)),
            };
            table.row([
                plain(&row.namespace),
                plain(&row.name),
                state,
                plain(row.names.join(",")),
                plain(row.not_after.as_deref().unwrap_or_default()),
                (row.message.clone().unwrap_or_default(), Some(Tone::Warn)),
            ]);
        }
        table
    }
}
