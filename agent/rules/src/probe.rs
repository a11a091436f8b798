//! What a pod's node asks of it: the probes and hooks of its containers, as the kubelet connects for them.
//!
//! Such a connection passes mutual TLS and all policies, as in Istio; whoever is not the node itself is not let in by
//! these, and the node is let in to nothing else.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::Method;
use weft_api::kubernetes::{Container, IntOrString, Pod, ProbeTarget};

/// What the kubelet's client of gRPC asks for.
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// All that a node asks of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes(Box<[Probe]>);

/// A port of a pod that its node connects to, and what for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Probe {
    port: u16,
    ask: Ask,
}

/// What a node wants from a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    /// That somebody is there: `tcpSocket`.
    Connection,
    /// The health service of gRPC: `grpc`.
    Health,
    /// A page, by its path and query as they are sent: `httpGet`.
    Page(Box<str>),
    /// A page through TLS that nobody between can read: `httpGet` with scheme HTTPS.
    Tls,
}

impl Probes {
    fn at(&self, port: u16) -> impl Iterator<Item = &Ask> {
        self.0.iter().filter(move |probe| probe.port == port).map(|probe| &probe.ask)
    }

    /// Whether something is asked of a port.
    pub fn are_at(&self, port: u16) -> bool {
        self.at(port).next().is_some()
    }

    /// Whether a port is asked whether somebody is there, and no more.
    pub fn connect_to(&self, port: u16) -> bool {
        self.at(port).any(|ask| *ask == Ask::Connection)
    }

    /// All ports of which something is asked.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|probe| probe.port)
    }

    /// Whether these are the first bytes of what a port is asked in TLS.
    pub fn begin_tls(&self, port: u16, first: &[u8]) -> bool {
        // A record of a handshake.
        self.at(port).any(|ask| *ask == Ask::Tls) && first.starts_with(&[22, 3])
    }

    /// Whether a port is asked for this.
    pub fn ask_for(&self, port: u16, method: &Method, path: &str) -> bool {
        self.at(port).any(|ask| match ask {
            Ask::Page(wanted) => method == Method::GET && path == &**wanted,
            Ask::Health => method == Method::POST && path == HEALTH,
            Ask::Connection | Ask::Tls => false,
        })
    }
}

/// The probes and hooks of a pod's containers.
pub(crate) fn of(pod: &Pod, addresses: &[IpAddr]) -> Probes {
    let mut all = Vec::new();
    for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
        let hooks = container.lifecycle.iter().flat_map(|life| [&life.post_start, &life.pre_stop]);
        let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
        for probe in probes.into_iter().chain(hooks).flatten() {
            let asked = [
                (&probe.http_get, page as fn(&ProbeTarget) -> Ask),
                (&probe.tcp_socket, |_| Ask::Connection),
                (&probe.grpc, |_| Ask::Health),
            ];
            for (target, ask) in asked {
                if let Some(target) = target
                    && let Some(port) = port_of(container, target, addresses)
                {
                    all.push(Probe { port, ask: ask(target) });
                }
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    Probes(all.into())
}

/// `None`: the probe goes to no port of this pod.
fn port_of(container: &Container, target: &ProbeTarget, addresses: &[IpAddr]) -> Option<u16> {
    let is_own = || target.host.parse().is_ok_and(|host: IpAddr| addresses.contains(&host));
    if !target.host.is_empty() && !is_own() {
        return None;
    }
    let named = |name: &str| {
        let port = container.ports.iter().find(|port| port.name == name)?;
        Some(port.container_port)
    };
    match target.port.as_ref()? {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => text.parse().ok().or_else(|| named(text)),
    }
}

fn page(target: &ProbeTarget) -> Ask {
    if target.scheme.eq_ignore_ascii_case("HTTPS") { Ask::Tls } else { Ask::Page(as_sent(&target.path)) }
}

/// A path as Go sends it, in which the kubelet is written: from the root, without a fragment, and with what no path or query
/// may hold escaped.
fn as_sent(path: &str) -> Box<str> {
    let path = path.split('#').next().unwrap_or_default();
    let mut sent = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        sent.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@/?%[]".contains(&byte) {
            sent.push(byte.into());
        } else {
            let _ = write!(sent, "%{byte:02X}");
        }
    }
    sent.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn probes(spec: &serde_json::Value) -> Probes {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
        of(&serde_json::from_value(pod).unwrap(), &["10.0.0.1".parse().unwrap()])
    }

    fn page_at(port: u16, path: &str) -> Probe {
        Probe { port, ask: Ask::Page(path.into()) }
    }

    #[test]
    fn probes_and_hooks_name_ports_of_the_pod_and_what_is_asked_there() {
        let found = probes(&json!({
            "initContainers": [{"name": "log", "startupProbe": {"grpc": {"port": 9000}}}],
            "containers": [
                {"name": "web", "ports": [{"name": "http", "containerPort": 8080}],
                 "livenessProbe": {"httpGet": {"path": "/healthz?full=1", "port": "http"}},
                 "readinessProbe": {"httpGet": {"path": "/ready", "port": "8081", "host": "10.0.0.1"}},
                 "startupProbe": {"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}},
                 "lifecycle": {"preStop": {"httpGet": {"port": 8083}}, "postStart": {"exec": {"command": ["x"]}}}},
                {"name": "db", "livenessProbe": {"tcpSocket": {"port": 8082}},
                 "readinessProbe": {"exec": {"command": ["x"]}},
                 "startupProbe": {"httpGet": {"port": 1, "host": "example.com"}}},
                {"name": "bad", "livenessProbe": {"httpGet": {"port": "http"}}},
            ]
        }));
        let expected = [
            page_at(8080, "/healthz?full=1"),
            page_at(8081, "/ready"),
            Probe { port: 8082, ask: Ask::Connection },
            page_at(8083, "/"),
            Probe { port: 8443, ask: Ask::Tls },
            Probe { port: 9000, ask: Ask::Health },
        ];
        assert_eq!(*found.0, expected);
    }

    #[test]
    fn a_path_is_known_as_the_kubelet_sends_it() {
        for (written, sent) in [
            ("", "/"),
            ("healthz", "/healthz"),
            ("/a b?c=d e", "/a%20b?c=d%20e"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a#b", "/a"),
            ("/é", "/%C3%A9"),
        ] {
            assert_eq!(&*as_sent(written), sent);
        }
    }

    #[test]
    fn what_is_asked_for_is_that_and_no_more() {
        let probes = probes(&json!({
            "containers": [{"name": "web",
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
                "readinessProbe": {"grpc": {"port": 9000}},
                "startupProbe": {"tcpSocket": {"port": 7000}}}]
        }));
        let asked =
            |port, method: &str, path: &str| probes.ask_for(port, &method.parse::<Method>().unwrap(), path);
        assert_eq!(probes.ports().collect::<Vec<_>>(), [7000, 8080, 9000]);
        assert!(asked(8080, "GET", "/healthz"));
        assert!(asked(9000, "POST", "/grpc.health.v1.Health/Check"));
        for (port, method, path) in [
            (8080, "POST", "/healthz"),
            (8080, "GET", "/healthz/"),
            (8080, "GET", "/healthz?x"),
            (8080, "GET", "/admin"),
            (8080, "POST", "/grpc.health.v1.Health/Check"),
            (9000, "GET", "/healthz"),
            (7000, "GET", "/healthz"),
            (7000, "GET", "/"),
            (1, "GET", "/healthz"),
        ] {
            assert!(!asked(port, method, path), "{method} {path} at {port}");
        }
        assert!(probes.connect_to(7000) && !probes.connect_to(8080));
        assert!(probes.are_at(8080) && !probes.are_at(1));
        assert!(!probes.begin_tls(7000, &[22, 3, 1]), "no probe of that port speaks TLS");
    }
}
