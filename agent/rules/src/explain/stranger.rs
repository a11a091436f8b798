//! What somebody outside the mesh would get, who proves nothing and whom no rule routes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_api::admin::{ExplainRequest, Explanation};

use super::entry::{Caller, Entries, Place};
use super::target::{self, Meaning, Target};
use super::{ExplainError, request, row, told_otherwise};
use crate::registry::host::Host;
use crate::registry::protocol::Protocol;
use crate::route::http_route;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// Where a name without a namespace is looked for.
const NAMESPACE: &str = "default";

pub(super) fn answer(
    snapshot: &Snapshot,
    (address, is_node): (&str, bool),
    question: &ExplainRequest,
) -> Result<Explanation, ExplainError> {
    let address: IpAddr = address.parse().map_err(|_| ExplainError::NotAnAddress(address.to_owned()))?;
    let from =
        Caller { snapshot, workload: None, address: address.to_canonical(), is_node, certificates: false };
    let target = Target::parse(&question.to)?;
    let mut explanation = Explanation { action: "passthrough".to_owned(), ..Explanation::default() };
    let in_words = question.method.is_some() || question.path.is_some() || !question.headers.is_empty();
    let in_words = in_words || target.path.is_some();
    let path = question.path.as_deref().or(target.path.as_deref()).unwrap_or("/");
    let headers: Vec<(&str, &str)> =
        question.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let method = question.method.as_deref().unwrap_or("GET");
    let head = request(snapshot, (&target.host, target.port), method, path, &headers)?;
    explanation.notes.extend(told_otherwise(path, &head));
    let mut entries = Entries::default();
    match find(snapshot, &target)? {
        Found::Pod(workload, to) => {
            explanation.notes.push(format!("{} is pod {}", to.ip(), workload.key));
            let protocol = snapshot.inbound_protocol(workload, to.port());
            let http = protocol != Protocol::Tcp && (in_words || protocol != Protocol::Detect);
            // What the node sends to a probed port is read, whatever the port is declared as.
            let head = Some(&head).filter(|_| http || (is_node && in_words));
            entries.meet(&from, &Place { workload, address: to, protocol, tls: None }, head);
        }
        Found::Service(entry, port) => {
            if port != target.port {
                let note = format!(
                    "port {} of each node leads to port {port} of {}",
                    target.port, entry.service.host
                );
                explanation.notes.push(note);
            }
            let Some(clusters) = entry.policies.others.port(port) else {
                "unavailable".clone_into(&mut explanation.action);
                explanation.notes.push(format!("{} has no port {port}", entry.service.host));
                return Ok(explanation);
            };
            let cluster = &clusters.whole;
            let destination =
                http_route::Destination { host: entry.service.host.clone(), subset: None, port: None };
            explanation.backends.push(row(&destination, 1, &cluster.endpoints));
            if cluster.endpoints.is_empty() {
                "unavailable".clone_into(&mut explanation.action);
            }
            // The kubelet asks pods, not services: from the node, that is a caller as any other.
            let from = Caller { is_node: false, ..from };
            let http =
                cluster.protocol != Protocol::Tcp && (in_words || cluster.protocol != Protocol::Detect);
            entries.add(&from, (cluster, None), &[], Some(&head).filter(|_| http));
        }
        Found::Nothing => {
            let note = format!("{} is no pod and no service: weft has no say there", target.host);
            explanation.notes.push(note);
        }
    }
    entries.tell(&mut explanation);
    Ok(explanation)
}

enum Found<'a> {
    Pod(&'a Arc<Workload>, SocketAddr),
    /// A service, and its port.
    Service(&'a Arc<Host>, u16),
    Nothing,
}

fn find<'a>(snapshot: &'a Snapshot, target: &Target) -> Result<Found<'a>, ExplainError> {
    let service = |entry| Found::Service(entry, target.port);
    Ok(match target.meaning(snapshot, NAMESPACE)? {
        Meaning::Address(address) => {
            let address = address.to_canonical();
            let mut owners =
                snapshot.registry.owners.get(&address).into_iter().flat_map(|owners| owners.iter());
            if let Some(workload) = snapshot.workload_at(address) {
                Found::Pod(workload, (address, target.port).into())
            } else if let Some(entry) = owners.find_map(|host| snapshot.registry.host(host)) {
                service(entry)
            } else {
                target::node_port(snapshot, target.port)
                    .map_or(Found::Nothing, |(entry, port)| Found::Service(entry, port))
            }
        }
        Meaning::Service(entry) => service(entry),
        Meaning::Pod(workload, address) => Found::Pod(workload, (address, target.port).into()),
        Meaning::Outside => Found::Nothing,
    })
}
