//! Where an issuer's keys may be fetched from. Users write the URL, and the agent of a node goes there, from the node's own
//! network: not to the node itself, nor to what only nodes reach.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::reserved;
use weft_rules::snapshot::Snapshot;
use weft_rules::upstream::cluster::Service;

/// Why keys are not fetched from an address; `None`: they may be. `by`: the service whose endpoint it is said to be; what an
/// EndpointSlice says, its namespace's owner says. `allowed`: what the agent was started with.
pub fn refusal(
    snapshot: &Snapshot,
    address: IpAddr,
    by: Option<&Service>,
    allowed: &[IpNet],
) -> Option<&'static str> {
    let plain = reserved::plain(address);
    if allowed.iter().any(|net| net.contains(&plain) || net.contains(&address)) {
        return None;
    }
    if let Some(kind) = reserved::kind(plain) {
        return Some(kind);
    }
    // What cannot be asked is not known to be elsewhere.
    if weft_datapath::leads_here(plain).unwrap_or(true) {
        return Some("the node's own address");
    }
    match snapshot.workload_at(plain) {
        Some(pod) if by.is_some_and(|service| service.namespace == pod.namespace) => None,
        Some(_) => Some("a pod's address, and no endpoint of a service of the pod's namespace"),
        None if snapshot.is_service_address(plain) => Some("a service's address, which its name stands for"),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_rules::compile::{Change, Compiler, CompilerOptions};

    use super::*;

    const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: keycloak, namespace: auth}
spec: {clusterIP: 10.96.0.1, selector: {app: keycloak}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: keycloak, namespace: auth, labels: {app: keycloak}}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: vault, namespace: secrets}
status: {podIP: 10.1.0.2}
";

    fn snapshot() -> Arc<Snapshot> {
        let mut compiler = Compiler::new(CompilerOptions {
            node: "n1".into(),
            cluster_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            cluster: false,
        });
        let objects = weft_api::load::load("world.yaml", WORLD).objects;
        compiler.apply(objects.into_iter().map(|object| Change::Put(object.object)).collect())
    }

    #[test]
    fn a_node_is_sent_to_no_place_that_only_nodes_reach() {
        let snapshot = snapshot();
        let service =
            |namespace: &str| Service { host: "any".into(), name: "any".into(), namespace: namespace.into() };
        let (auth, hostile) = (service("auth"), service("hostile"));
        for (address, by, allowed, refused) in [
            ("203.0.113.7", None, "", false),
            ("10.1.0.1", Some(&auth), "", false),
            ("10.1.0.1", None, "", true),
            ("10.1.0.2", Some(&hostile), "", true),
            ("::ffff:10.1.0.2", Some(&hostile), "", true),
            ("10.1.0.2", None, "10.1.0.0/24", false),
            ("10.96.0.1", None, "", true),
            ("203.0.113.7", Some(&hostile), "", false),
            ("169.254.169.254", Some(&hostile), "", true),
            ("169.254.169.254", None, "169.254.169.254/32", false),
            ("64:ff9b::a9fe:a9fe", None, "", true),
            ("127.0.0.1", Some(&auth), "", true),
            ("127.0.0.1", None, "10.0.0.0/8", true),
        ] {
            let allowed: Vec<IpNet> = allowed.parse().into_iter().collect();
            let answer = refusal(&snapshot, address.parse().unwrap(), by, &allowed);
            assert_eq!(answer.is_some(), refused, "{address} by {by:?}: {answer:?}");
        }
    }

    #[test]
    fn a_nodes_own_address_is_known_by_its_routes() {
        // The address that this machine would use to reach another one, where it has any.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            let answer = refusal(&Snapshot::default(), own, None, &[]);
            assert_eq!(answer, Some("the node's own address"), "{own}");
        }
    }
}
