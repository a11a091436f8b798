//! `weft get`: what the agent knows.

mod gateways;
mod secrets;
mod security;

use clap::{Args, Subcommand};
use weft_api::admin::{
    Backend, CertificateRow, EndpointRow, GatewayRow, PolicyRow, RouteRow, SecretRow, WorkloadRow, paths,
};

use crate::client::{AgentAt, block_on};
use crate::gather::gather;
use crate::list::{self, ListFormat, Row};
use crate::output::{Outcome, Table, Tone, plain};

/// Lists what is in force on the agent, or on all agents of a cluster: NODES says where a line holds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft get routes
  weft get endpoints -n bookinfo
  weft get workloads -A -o name
  weft get policies -n bookinfo
  weft get gateways
  weft get secrets
  weft get certificates -o json")]
pub struct GetArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Rules of VirtualServices, in the order in which they are tried
    #[command(aliases = ["route", "virtualservices", "virtualservice", "vs"])]
    Routes(Selection),
    /// Endpoints of services, with health and subsets
    #[command(aliases = ["endpoint", "ep"])]
    Endpoints(Selection),
    /// Pods as parties on the network
    #[command(aliases = ["workload", "pods", "pod", "po"])]
    Workloads(Selection),
    /// PeerAuthentications, AuthorizationPolicies and RequestAuthentications, and whom they are for
    #[command(aliases = ["policy", "pol"])]
    Policies(Selection),
    /// Ports of gateway pods: what is spoken there, for which hosts, by which rules
    #[command(aliases = ["gateway", "gw", "listeners"])]
    Gateways(Selection),
    /// Secrets by which gateways end TLS: for which names, until when, and what is wrong
    #[command(alias = "secret")]
    Secrets(Selection),
    /// Certificates of this node's service accounts: until when, and what is wrong
    #[command(aliases = ["certificate", "certs", "cert"])]
    Certificates(Selection),
}

#[derive(Debug, Args)]
struct Selection {
    /// Only this namespace
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// All namespaces (the default)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print data or names instead of a table
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<ListFormat>,
    #[command(flatten)]
    agent: AgentAt,
}

impl GetArgs {
    /// Asks and prints.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        match &self.what {
            What::Routes(selection) => selection.list::<RouteRow>(),
            What::Endpoints(selection) => selection.list::<EndpointRow>(),
            What::Workloads(selection) => selection.list::<WorkloadRow>(),
            What::Policies(selection) => selection.list::<PolicyRow>(),
            What::Gateways(selection) => selection.list::<GatewayRow>(),
            What::Secrets(selection) => selection.list::<SecretRow>(),
            What::Certificates(selection) => selection.list::<CertificateRow>(),
        }
    }
}

impl Selection {
    fn list<R: Row>(&self) -> anyhow::Result<Outcome> {
        let mut rows = block_on(gather::<R>(&self.agent))?;
        let mut place = String::new();
        if let Some(namespace) = &self.namespace {
            rows.lines.retain(|line| line.row.namespace() == namespace);
            place = format!(" in namespace {namespace}");
        }
        list::show(rows, self.output, &format!("{}{place}", R::NOTHING))
    }
}

impl Row for RouteRow {
    const PATH: &'static str = paths::ROUTES;
    const NOTHING: &'static str = "No routes: every service has its default routing";

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> String {
        match (&*self.virtual_service, self.hosts.first()) {
            ("", Some(host)) => format!("service/{host}"),
            (name, _) => format!("virtualservice/{name}.{}", self.namespace),
        }
    }

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&[
            "NAMESPACE",
            "VIRTUALSERVICE",
            "HOSTS",
            "GATEWAYS",
            "RULE",
            "MATCH",
            "ACTION",
            "BACKENDS",
            "NOTES",
        ]);
        for row in rows {
            let rule = row.name.clone().unwrap_or_else(|| format!("{}[{}]", row.protocol, row.index));
            table.row([
                plain(&row.namespace),
                plain(&row.virtual_service),
                plain(row.hosts.join(",")),
                plain(row.gateways.join(",")),
                plain(rule),
                plain(&row.r#match),
                plain(&row.action),
                plain(row.backends.iter().map(backend).collect::<Vec<_>>().join(", ")),
                (row.notes.join("; "), Some(Tone::Warn)),
            ]);
        }
        table
    }
}

fn backend(backend: &Backend) -> String {
    let subset = backend.subset.as_ref().map_or_else(String::new, |subset| format!("/{subset}"));
    let port = backend.port.map_or_else(String::new, |port| format!(":{port}"));
    format!("{}{subset}{port}={}", backend.host, backend.weight)
}

impl Row for EndpointRow {
    const PATH: &'static str = paths::ENDPOINTS;
    const NOTHING: &'static str = "No endpoints";

    /// The second part of `reviews.bookinfo.svc.cluster.local`.
    fn namespace(&self) -> &str {
        self.service.split('.').nth(1).unwrap_or_default()
    }

    fn name(&self) -> String {
        format!("endpoint/{}", self.address)
    }

    fn identity(&self) -> String {
        // Near for one agent, far for the others.
        serde_json::to_string(&Self { local: false, ..self.clone() }).unwrap_or_default()
    }

    fn absorb(&mut self, _: Self, _: &str) {
        self.local = false;
    }

    fn table(rows: &[Self]) -> Table {
        let mut table =
            Table::new(&["SERVICE", "PORT", "PROTOCOL", "ADDRESS", "WORKLOAD", "NODE", "HEALTH", "SUBSETS"]);
        for row in rows {
            let port = match &*row.port_name {
                "" => row.port.to_string(),
                name => format!("{} ({name})", row.port),
            };
            let tone = if row.health == "healthy" { Tone::Good } else { Tone::Warn };
            let node = row.node.clone().unwrap_or_default();
            table.row([
                plain(&row.service),
                plain(port),
                plain(&row.protocol),
                plain(&row.address),
                plain(row.workload.clone().unwrap_or_default()),
                plain(if row.local { format!("{node} (here)").trim().to_owned() } else { node }),
                (row.health.clone(), Some(tone)),
                plain(row.subsets.join(",")),
            ]);
        }
        table
    }
}

impl Row for WorkloadRow {
    const PATH: &'static str = paths::WORKLOADS;
    const NOTHING: &'static str = "No workloads";

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> String {
        format!("pod/{}.{}", self.name, self.namespace)
    }

    fn identity(&self) -> String {
        Row::name(self)
    }

    fn absorb(&mut self, other: Self, node: &str) {
        // A pod's own node knows best.
        if other.node.as_deref() == Some(node) {
            *self = other;
        }
    }

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&[
            "NAMESPACE",
            "NAME",
            "OWNER",
            "ADDRESSES",
            "NODE",
            "SERVICES",
            "IN MESH",
            "WHY NOT",
        ]);
        for row in rows {
            let tone = if row.enrolled { Tone::Good } else { Tone::Faint };
            table.row([
                plain(&row.namespace),
                plain(&row.name),
                plain(row.owner.clone().unwrap_or_default()),
                plain(row.addresses.join(",")),
                plain(row.node.clone().unwrap_or_default()),
                plain(row.services.join(",")),
                (if row.enrolled { "yes" } else { "no" }.to_owned(), Some(tone)),
                plain(row.reason.clone().unwrap_or_default()),
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
    fn an_endpoint_is_of_its_services_namespace() {
        let row =
            EndpointRow { service: "reviews.bookinfo.svc.cluster.local".into(), ..EndpointRow::default() };
        assert_eq!(row.namespace(), "bookinfo");
    }

    #[test]
    fn routes_as_a_table() {
        let backend =
            Backend { host: "reviews".into(), subset: Some("v1".into()), weight: 95, ..Backend::default() };
        let row = RouteRow {
            namespace: "bookinfo".into(),
            virtual_service: "reviews".into(),
            hosts: vec!["reviews".into()],
            gateways: vec!["mesh".into()],
            protocol: "http".into(),
            index: 1,
            r#match: "*".into(),
            action: "route".into(),
            backends: vec![backend],
            ..RouteRow::default()
        };
        let table = RouteRow::table(&[row]).render(Paint::plain());
        assert_eq!(
            table.lines().nth(1).unwrap(),
            "bookinfo   reviews         reviews  mesh      http[1]  *      route   reviews/v1=95  -"
        );
    }
}
