//! A world made of YAML, and questions to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_api::kinds::Kind;
use weft_api::meta::ObjectKey;
use weft_rules::compile::{Change, Compiler, CompilerOptions};
use weft_rules::route::http_route::{HttpAction, MatchedHttpRoute};
use weft_rules::snapshot::{HttpDecision, Snapshot};
use weft_rules::upstream::cluster::Cluster;
use weft_rules::workload::Workload;

pub fn options() -> CompilerOptions {
    CompilerOptions {
        node: "n1".into(),
        cluster_domain: "cluster.local".into(),
        root_namespace: "istio-system".into(),
        trust_domain: "cluster.local".into(),
        cluster: false,
    }
}

/// The changes that a text of YAML makes. Panics where weft refuses an object.
pub fn puts(yaml: &str) -> Vec<Change> {
    let loaded = weft_api::load::load("story.yaml", yaml);
    assert!(loaded.refused.is_empty(), "refused: {:#?}", loaded.refused);
    assert!(loaded.unreadable.is_empty(), "unreadable: {:#?}", loaded.unreadable);
    loaded.objects.into_iter().map(|object| Change::Put(object.object)).collect()
}

pub struct World {
    pub compiler: Compiler,
    pub snapshot: Arc<Snapshot>,
}

impl World {
    pub fn of(yaml: &str) -> Self {
        let mut compiler = Compiler::new(options());
        let snapshot = compiler.apply(puts(yaml));
        Self { compiler, snapshot }
    }

    pub fn apply(&mut self, yaml: &str) {
        self.snapshot = self.compiler.apply(puts(yaml));
    }

    pub fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).expect("a kind that is read");
        let key = ObjectKey::new(kind, namespace, name);
        self.snapshot = self.compiler.apply(vec![Change::Delete(key)]);
    }

    pub fn pod(&self, key: &str) -> Arc<Workload> {
        self.snapshot.workload(key).unwrap_or_else(|| panic!("no pod {key}")).clone()
    }

    /// A request from a pod to an address; its URL's host is the Host header.
    pub fn call<'a>(&'a self, from: &str, dst: &str, url: &str) -> Call<'a> {
        let (host, path) =
            url.split_once('/').map_or((url, String::from("/")), |(h, p)| (h, format!("/{p}")));
        let mut request = http::Request::get(path);
        if !host.is_empty() {
            request = request.header("host", host);
        }
        let caller = self.pod(from);
        Call { snapshot: &self.snapshot, caller, dst: dst.parse().expect("an address"), request }
    }
}

/// A request in the making.
pub struct Call<'a> {
    snapshot: &'a Snapshot,
    caller: Arc<Workload>,
    dst: SocketAddr,
    request: http::request::Builder,
}

impl Call<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn method(mut self, method: &str) -> Self {
        self.request = self.request.method(method);
        self
    }

    pub fn parts(self) -> http::request::Parts {
        self.request.body(()).expect("a request").into_parts().0
    }

    pub fn decide(self) -> HttpDecision {
        let (snapshot, caller, dst) = (self.snapshot, self.caller.clone(), self.dst);
        snapshot.route_http(&caller, dst, &self.parts())
    }

    pub fn route(self) -> MatchedHttpRoute {
        match self.decide() {
            HttpDecision::Route(route) => route,
            other => panic!("no route but {other:?}"),
        }
    }

    /// The decision in one line: `NR`, `passthrough`, `blackhole`, `301`, or backends by weight such as
    /// `reviews/v1=95 reviews/v3=5`, each with the names of its endpoints' pods where asked for.
    pub fn outcome(self) -> String {
        let (snapshot, caller, dst) = (self.snapshot, self.caller.clone(), self.dst);
        let route = match self.decide() {
            HttpDecision::NoRoute => return "NR".into(),
            HttpDecision::Misdirected => return "misdirected".into(),
            HttpDecision::Passthrough => return "passthrough".into(),
            HttpDecision::BlackHole => return "blackhole".into(),
            HttpDecision::Route(matched) => matched.route,
        };
        match &route.action {
            HttpAction::Redirect(_) => "redirect".into(),
            HttpAction::Respond(response) => format!("respond {}", response.status.as_u16()),
            HttpAction::Forward(backends) => {
                let backends: Vec<String> = backends
                    .iter()
                    .map(|backend| {
                        let cluster = snapshot.cluster(&caller, &backend.destination, dst.port());
                        let name = cluster.map_or_else(|error| error.to_string(), |cluster| short(&cluster));
                        if backends.len() == 1 { name } else { format!("{name}={}", backend.weight) }
                    })
                    .collect();
                backends.join(" ")
            }
        }
    }
}

/// `service[/subset][:port] -> pods`.
pub fn short(cluster: &Cluster) -> String {
    let subset = cluster.subset.as_ref().map(|subset| format!("/{subset}")).unwrap_or_default();
    let pods: Vec<&str> = cluster
        .endpoints
        .iter()
        .map(|endpoint| endpoint.workload.as_ref().map_or("?", |workload| &*workload.name))
        .collect();
    format!("{}{subset}[{}]", cluster.service.name, pods.join(","))
}

/// How often each destination is chosen, by subset or host.
pub fn shares(route: &MatchedHttpRoute, draws: u64) -> BTreeMap<String, u64> {
    let mut shares = BTreeMap::new();
    for seed in 0..draws {
        let chosen = route.route.pick(seed).expect("a destination");
        let name = chosen.destination.subset.as_ref().unwrap_or(&chosen.destination.host);
        *shares.entry(name.to_string()).or_default() += 1;
    }
    shares
}
