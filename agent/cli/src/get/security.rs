//! Lists about who is who.

use weft_api::admin::{CertificateRow, CertificateState, Certificates, PolicyRow, paths};

use crate::client::Agent;
use crate::list::Row;
use crate::output::{Table, Tone, plain};

impl Row for CertificateRow {
    const PATH: &'static str = paths::CERTIFICATES;
    const NOTHING: &'static str = "No certificates: no certificate authority, or no pods in the mesh";

    async fn fetch(agent: &Agent) -> anyhow::Result<Vec<Self>> {
        Ok(agent.get::<Certificates>(Self::PATH).await?.certificates)
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> String {
        format!("serviceaccount/{}.{}", self.service_account, self.namespace)
    }

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&[
            "NAMESPACE",
            "SERVICE ACCOUNT",
            "IDENTITY",
            "STATE",
            "SERIAL",
            "NOT BEFORE",
            "NOT AFTER",
            "NEXT",
            "PROBLEM",
        ]);
        for row in rows {
            let (state, tone) = match row.state {
                CertificateState::Requested => ("requested", Tone::Warn),
                CertificateState::Valid => ("valid", Tone::Good),
                CertificateState::RenewalFailing => ("renewal failing", Tone::Warn),
                CertificateState::Missing => ("missing", Tone::Bad),
            };
            let or_dash = |text: &Option<String>| plain(text.clone().unwrap_or_default());
            let problem = match (&row.error, &row.failing_since) {
                (Some(error), Some(since)) => format!("{error} (since {since})"),
                (Some(error), None) => error.clone(),
                (None, _) => String::new(),
            };
            table.row([
                plain(&row.namespace),
                plain(&row.service_account),
                plain(&row.identity),
                (state.to_owned(), Some(tone)),
                or_dash(&row.serial),
                or_dash(&row.not_before),
                or_dash(&row.not_after),
                or_dash(&row.next_attempt),
                (problem, Some(Tone::Bad)),
            ]);
        }
        table
    }
}

impl Row for PolicyRow {
    const PATH: &'static str = paths::POLICIES;
    const NOTHING: &'static str = "No policies: everybody may call everybody";

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> String {
        format!("{}/{}.{}", self.kind.to_ascii_lowercase(), self.name, self.namespace)
    }

    fn identity(&self) -> String {
        serde_json::to_string(&Self { workloads: Vec::new(), more_workloads: 0, ..self.clone() })
            .unwrap_or_default()
    }

    fn absorb(&mut self, other: Self, _: &str) {
        // Each agent tells of its own pods.
        self.workloads.extend(other.workloads);
        self.workloads.sort();
        self.workloads.dedup();
        self.more_workloads += other.more_workloads;
    }

    fn table(rows: &[Self]) -> Table {
        let mut table =
            Table::new(&["NAMESPACE", "KIND", "NAME", "ACTION", "SCOPE", "RULES", "WORKLOADS HERE", "NOTES"]);
        for row in rows {
            let rules = if row.kind == "PeerAuthentication" { String::new() } else { row.rules.to_string() };
            // Those of its own namespace by name alone.
            let own = |workload: &String| {
                let name = workload.strip_prefix(&row.namespace).and_then(|name| name.strip_prefix('/'));
                name.unwrap_or(workload).to_owned()
            };
            let workloads = match &row.workloads[..] {
                few if few.len() <= 3 => few.iter().map(own).collect::<Vec<_>>().join(","),
                many => format!("{}, … ({})", own(&many[0]), many.len() + row.more_workloads),
            };
            table.row([
                plain(&row.namespace),
                plain(&row.kind),
                plain(&row.name),
                plain(&row.action),
                plain(&row.scope),
                plain(rules),
                plain(workloads),
                (row.notes.join("; "), Some(Tone::Warn)),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Paint;

    #[test]
    fn policies_as_a_table() {
        let row = PolicyRow {
            kind: "AuthorizationPolicy".into(),
            namespace: "shop".into(),
            name: "viewers".into(),
            action: "ALLOW".into(),
            scope: "app=reviews".into(),
            rules: 2,
            workloads: vec!["shop/reviews-1".into(), "other/reviews-2".into()],
            more_workloads: 0,
            notes: vec!["a dry run: it decides nothing".into()],
        };
        assert_eq!(row.name(), "authorizationpolicy/viewers.shop");
        let table = PolicyRow::table(&[row]).render(Paint::plain());
        assert_eq!(
            table.lines().nth(1).unwrap(),
            "shop       AuthorizationPolicy  viewers  ALLOW   app=reviews  2      reviews-1,other/reviews-2  a dry run: it \
             decides nothing"
        );
    }

    #[test]
    fn certificates_as_a_table() {
        let row = CertificateRow {
            namespace: "shop".into(),
            service_account: "web".into(),
            identity: "spiffe://cluster.local/ns/shop/sa/web".into(),
            state: CertificateState::RenewalFailing,
            serial: Some("0a".into()),
            not_before: Some("2026-11-21T08:00:00Z".into()),
            not_after: Some("2026-11-22T08:00:00Z".into()),
            next_attempt: Some("2026-11-21T09:00:00Z".into()),
            failing_since: Some("2026-11-21T08:30:00Z".into()),
            error: Some("connection refused".into()),
        };
        assert_eq!(row.name(), "serviceaccount/web.shop");
        let table = CertificateRow::table(&[row]).render(Paint::plain());
        assert_eq!(
            table.lines().nth(1).unwrap(),
            "shop       web              spiffe://cluster.local/ns/shop/sa/web  renewal failing  0a      \
             2026-11-21T08:00:00Z  2026-11-22T08:00:00Z  2026-11-21T09:00:00Z  connection refused (since \
             2026-11-21T08:30:00Z)"
        );
    }
}
