//! What gateways serve.

use weft_api::admin::{GatewayRow, paths};

use crate::list::Row;
use crate::output::{Table, Tone, plain};

impl Row for GatewayRow {
    const PATH: &'static str = paths::GATEWAYS;
    const NOTHING: &'static str = "No gateway pods that a Gateway selects";

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> String {
        format!("gateway/{}.{}:{}", self.pod, self.namespace, self.port)
    }

    fn table(rows: &[Self]) -> Table {
        let headings = [
            "NAMESPACE",
            "POD",
            "PORT",
            "POD'S PORT",
            "PROTOCOL",
            "GATEWAYS",
            "HOSTS",
            "VIRTUALSERVICES",
            "NOTES",
        ];
        let mut table = Table::new(&headings);
        for row in rows {
            table.row([
                plain(&row.namespace),
                plain(&row.pod),
                plain(row.port.to_string()),
                plain(row.pod_port.to_string()),
                plain(&row.protocol),
                plain(row.gateways.join(",")),
                plain(row.hosts.join(",")),
                plain(row.virtual_services.join(",")),
                (row.notes.join("; "), Some(Tone::Warn)),
            ]);
        }
        table
    }
}
