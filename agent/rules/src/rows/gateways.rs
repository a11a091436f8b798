//! `weft get gateways`.

use weft_api::admin::GatewayRow;

use super::shorten;
use crate::route::gateway::{GatewayPort, Serves};
use crate::snapshot::Snapshot;

/// One row for each port that a gateway pod of this node serves, sorted by pod and port.
pub fn gateways(snapshot: &Snapshot) -> Vec<GatewayRow> {
    let mut rows: Vec<GatewayRow> =
        snapshot.gateways.iter().flat_map(|(pod, ports)| ports.iter().map(|port| row(pod, port))).collect();
    rows.sort_unstable_by(|a, b| (&a.namespace, &a.pod, a.port).cmp(&(&b.namespace, &b.pod, b.port)));
    rows
}

fn row(pod: &str, port: &GatewayPort) -> GatewayRow {
    let (namespace, name) = pod.split_once('/').unwrap_or(("", pod));
    let mut hosts = match &port.serves {
        Serves::Http(hosts) => hosts.hosts().collect(),
        Serves::Bytes(_) => vec!["*".to_owned()],
        Serves::Tls(servers) => servers.names.hosts().collect(),
    };
    let mut virtual_services: Vec<String> = port.rules().iter().map(|rules| rules.key.to_string()).collect();
    let mut notes: Vec<String> = port.unserved.iter().map(ToString::to_string).collect();
    for (list, what) in [(&mut hosts, "hosts"), (&mut virtual_services, "VirtualServices")] {
        list.sort_unstable();
        list.dedup();
        notes.extend(shorten(list, what));
    }
    if virtual_services.is_empty() {
        notes.push("no VirtualService is bound to it".to_owned());
    }
    GatewayRow {
        namespace: namespace.to_owned(),
        pod: name.to_owned(),
        port: port.server_port,
        pod_port: port.pod_port,
        protocol: port.protocol().to_string(),
        gateways: port.gateways.iter().map(ToString::to_string).collect(),
        hosts,
        virtual_services,
        notes,
    }
}
