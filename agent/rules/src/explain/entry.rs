//! Whether a destination lets a caller in, and which of its policies said what. The verdict comes from the functions
//! that give it to real connections; here it is retold.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use weft_api::admin::{Decision, Explanation};
use weft_api::istio::TlsMode;

use crate::guard::condition::{Truth, View};
use crate::guard::policy::{Action, Policy};
use crate::guard::{
    ConnectionVerdict, Consult, Denial, DryRuns, Guard, Inbound, InboundRequest, Mtls, RequestVerdict,
};
use crate::registry::protocol::Protocol;
use crate::snapshot::Snapshot;
use crate::snapshot::reach::{Plaintext, Reach, Towards};
use crate::upstream::cluster::Cluster;
use crate::workload::{Enrolment, Workload};

/// More endpoints than these tell nothing new.
const MOST_ENDPOINTS: usize = 64;

/// Who calls.
pub(super) struct Caller<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// `None`: somebody outside the mesh.
    pub(super) workload: Option<&'a Workload>,
    pub(super) address: IpAddr,
    /// It is a process of the node itself that calls a pod of it.
    pub(super) is_node: bool,
    /// Whether this agent has certificates.
    pub(super) certificates: bool,
}

/// A port of a pod.
pub(super) struct Place<'a> {
    pub(super) workload: &'a Workload,
    /// One of its addresses, and its own port.
    pub(super) address: SocketAddr,
    /// What the port speaks by the service that leads there; the pod's own node may know better.
    pub(super) protocol: Protocol,
    /// What a DestinationRule says, and which.
    pub(super) tls: Option<(TlsMode, String)>,
}

/// What becomes of a caller at one destination.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    tls: String,
    policies: Vec<Decision>,
    /// Why it is turned away; `None`: it is let in.
    refused: Option<String>,
}

/// What became of a caller at all destinations.
#[derive(Default)]
pub(super) struct Entries {
    all: Vec<(String, Entry)>,
    /// A destination that is a gateway pod.
    gateway: Option<String>,
}

impl Entries {
    /// Looks at each endpoint of a cluster that may answer who dialled an address.
    pub(super) fn add(
        &mut self,
        caller: &Caller<'_>,
        (cluster, dialled): (&Cluster, Option<SocketAddr>),
        rules: &[Arc<str>],
        head: Option<&Parts>,
    ) {
        let names = || rules.iter().map(|rule| format!("DestinationRule/{rule}")).collect::<Vec<_>>();
        let mode = cluster.tls.as_ref().and_then(|tls| tls.mode);
        let tls = mode.map(|mode| (mode, names().join(" and ")));
        for endpoint in cluster.answering(dialled).iter().take(MOST_ENDPOINTS) {
            let Some(workload) = &endpoint.workload else {
                let (tls, refused) =
                    caller.travel(None, endpoint.address.port(), tls.as_ref(), head).in_words();
                self.all.push((endpoint.address.to_string(), Entry { tls, policies: Vec::new(), refused }));
                continue;
            };
            self.meet(
                caller,
                &Place { workload, address: endpoint.address, protocol: cluster.protocol, tls: tls.clone() },
                head,
            );
        }
    }

    /// Looks at one destination.
    pub(super) fn meet(&mut self, caller: &Caller<'_>, to: &Place<'_>, head: Option<&Parts>) {
        self.all.push((format!("pod {}", to.workload.key), caller.enter(to, head)));
        if is_gateway(caller.snapshot, to) {
            let Workload { name, namespace, .. } = to.workload;
            self.gateway.get_or_insert_with(|| format!("pod/{name}.{namespace}"));
        }
    }

    /// Writes down what became of it all.
    pub(super) fn tell(self, explanation: &mut Explanation) {
        let mut ways: Vec<&str> = Vec::new();
        for (_, entry) in &self.all {
            if !ways.contains(&&*entry.tls) {
                ways.push(&entry.tls);
            }
            for decision in &entry.policies {
                if !explanation.policies.contains(decision) {
                    explanation.policies.push(decision.clone());
                }
            }
        }
        if !ways.is_empty() {
            explanation.tls = ways.join(" or ");
        }
        let refusals = || self.all.iter().filter_map(|(name, entry)| Some((name, entry.refused.as_ref()?)));
        if !self.all.is_empty() && refusals().count() == self.all.len() {
            "deny".clone_into(&mut explanation.action);
            let mut reasons: Vec<&String> = refusals().map(|(_, reason)| reason).collect();
            reasons.dedup();
            explanation.notes.extend(reasons.into_iter().cloned());
        } else {
            explanation.notes.extend(refusals().map(|(name, reason)| format!("{name}: {reason}")));
        }
        if let Some(pod) = &self.gateway {
            let note = format!("{pod} is a gateway; `weft explain {pod} URL` tells where it sends requests");
            explanation.notes.push(note);
        }
    }
}

/// How a caller reaches a destination.
struct Travel<'a> {
    /// `None`: no agent of the mesh has a hand in it.
    reach: Option<Reach>,
    /// The DestinationRule that has a say in it.
    tls: Option<&'a (TlsMode, String)>,
    /// Whether the caller's agent has certificates.
    certificates: bool,
    /// Whether it asks in HTTP.
    http: bool,
}

impl Travel<'_> {
    /// How the bytes travel, and why they do not; `None`: they do.
    fn in_words(&self) -> (String, Option<String>) {
        let rule = self.tls.map_or("", |(_, rule)| rule);
        let travels = match self.reach {
            Some(Reach::Local(None)) => "none (same node)".to_owned(),
            Some(Reach::Tunnel) => "mtls (hbone)".to_owned(),
            Some(Reach::Plain(Plaintext::PeerAuthentication)) => {
                "plaintext (PeerAuthentication DISABLE)".to_owned()
            }
            Some(Reach::Plain(Plaintext::NoAuthority)) => {
                "plaintext (this agent has no certificates)".to_owned()
            }
            Some(Reach::NoPeer) => format!("none (ISTIO_MUTUAL by {rule})"),
            Some(Reach::Local(Some(_)) | Reach::Plain(_)) => match self.tls.map(|(mode, _)| mode) {
                Some(TlsMode::Disable) => format!("disabled by {rule}"),
                Some(TlsMode::Simple) => format!("tls by {rule}"),
                Some(TlsMode::Mutual) => format!("mutual tls by {rule}"),
                Some(TlsMode::IstioMutual) | None => "plaintext".to_owned(),
            },
            None => "plaintext".to_owned(),
        };
        let why = match self.reach {
            Some(Reach::NoPeer) => Some("it is no pod in the mesh"),
            Some(Reach::Tunnel) if !self.certificates => Some("this agent has no certificates"),
            _ => None,
        };
        let how = if self.http { "503" } else { "closed" };
        (travels, why.map(|why| format!("{how}: {rule} wants ISTIO_MUTUAL, and {why}")))
    }

    /// Whether the destination learns who the caller is.
    fn proves_caller(&self) -> bool {
        matches!(self.reach, Some(Reach::Local(None) | Reach::Tunnel))
    }
}

/// Whether a Gateway has the port. Of another node's pods, only those there can know.
fn is_gateway(snapshot: &Snapshot, to: &Place<'_>) -> bool {
    to.workload.is_gateway()
        && (to.workload.node != snapshot.node
            || snapshot.gateway_port(&to.workload.key, to.address.port()).is_some())
}

impl Caller<'_> {
    fn enter(&self, to: &Place<'_>, head: Option<&Parts>) -> Entry {
        let travel = self.travel(Some(to.workload), to.address.port(), to.tls.as_ref(), head);
        let (mut tls, refused) = travel.in_words();
        let mut policies = Vec::new();
        if refused.is_some() || to.workload.enrolment != Enrolment::Enrolled {
            return Entry { tls, policies, refused };
        }
        if is_gateway(self.snapshot, to) {
            let refused = self.ask_gateway(to, head, None, &mut policies);
            return Entry { tls, policies, refused };
        }
        if let Some(entry) = self.as_probe(to, head) {
            return entry;
        }
        let (mode, peer) = self.snapshot.peer_policy(to.workload, to.address.port());
        let own = self.snapshot.trust_domains().first();
        let identity = own.filter(|_| mode != Mtls::Disable && travel.proves_caller());
        let identity = identity.zip(self.workload).map(|(own, caller)| caller.identity(own));
        let refused = mode == Mtls::Strict && identity.is_none();
        if let Some(peer) = peer {
            let decided = match (mode, &identity) {
                (Mtls::Disable, _) => "no caller has an identity".to_owned(),
                (_, Some(identity)) => format!("the caller is {identity}"),
                (Mtls::Strict, None) => "denied: the caller has no identity".to_owned(),
                (Mtls::Permissive, None) => "allowed without an identity".to_owned(),
            };
            let name = format!("PeerAuthentication/{}", peer.key);
            policies.push(Decision { name, action: mode.to_string(), decided });
        }
        if refused {
            tls = format!("refused under STRICT ({tls})");
            let mut reason =
                format!("reset: port {} takes mutual TLS only, and the caller has none", to.address.port());
            if to.workload.probes.are_at(to.address.port()) {
                reason.push_str("; what the pod's probes ask for passes, from the node's own processes");
            }
            return Entry { tls, policies, refused: Some(reason) };
        }
        let inbound = Inbound { identity: identity.as_ref(), peer: self.address, to: to.address, sni: None };
        let request = head.map(|head| InboundRequest { head, remote: self.address, claims: None });
        let protocol = match self.snapshot.inbound_protocol(to.workload, to.address.port()) {
            Protocol::Detect => to.protocol,
            declared => declared,
        };
        let request = request.as_ref().filter(|_| protocol != Protocol::Tcp);
        let refused = self.refusal(to.workload, &inbound, request, &mut policies);
        Entry { tls, policies, refused }
    }

    /// What the node asks of a pod by its probes passes, whatever the rules are.
    fn as_probe(&self, to: &Place<'_>, head: Option<&Parts>) -> Option<Entry> {
        let (probes, port) = (&to.workload.probes, to.address.port());
        let path = |head: &Parts| head.uri.path_and_query().map_or("/".to_owned(), ToString::to_string);
        let asked = match head {
            Some(head) => probes.ask_for(port, &head.method, &path(head)),
            None => probes.connect_to(port),
        };
        (self.is_node && asked).then(|| Entry {
            tls: "plaintext".to_owned(),
            policies: vec![Decision {
                name: format!("Pod/{}", to.workload.key),
                action: "PROBE".to_owned(),
                decided: "allowed: the pod's own probes ask for this, and it is the node that calls"
                    .to_owned(),
            }],
            refused: None,
        })
    }

    /// Asks a gateway pod's own policies, which are for all that comes there: requests, or bytes for a server of this name.
    /// Answers why it is turned away.
    pub(super) fn ask_gateway(
        &self,
        to: &Place<'_>,
        head: Option<&Parts>,
        server_name: Option<&str>,
        told: &mut Vec<Decision>,
    ) -> Option<String> {
        let inbound = Inbound { identity: None, peer: self.address, to: to.address, sni: server_name };
        let request = head.map(|head| InboundRequest { head, remote: self.address, claims: None });
        self.refusal(to.workload, &inbound, request.as_ref(), told)
    }

    /// How a port of a pod, or of somebody unknown, is reached.
    fn travel<'a>(
        &self,
        workload: Option<&Workload>,
        port: u16,
        tls: Option<&'a (TlsMode, String)>,
        head: Option<&Parts>,
    ) -> Travel<'a> {
        let reach = self.workload.filter(|caller| caller.enrolment == Enrolment::Enrolled).map(|caller| {
            let serves = |to: &Workload| to.enrolment == Enrolment::Enrolled && to.node == caller.node;
            let (node, is_local) = (&*caller.node, workload.is_some_and(serves));
            let tls = tls.map(|(mode, _)| *mode);
            Towards { workload, port, tls, node, is_local, has_certificates: self.certificates }
                .reach(self.snapshot)
        });
        Travel { reach, tls, certificates: self.certificates, http: head.is_some() }
    }

    /// Asks the destination's rules. Tells what each of its policies said.
    fn refusal(
        &self,
        to: &Workload,
        inbound: &Inbound<'_>,
        request: Option<&InboundRequest<'_>>,
        told: &mut Vec<Decision>,
    ) -> Option<String> {
        let services = services_of(self.snapshot, to);
        let security = self.snapshot.security_of(to);
        let built = Guard::of(&security, to, &services);
        let local = self.snapshot.entrances.get(&to.key).is_some();
        let guard = if local { self.snapshot.guard(to).map(|guard| &**guard) } else { built.as_ref() };
        let tokens = security.iter().flat_map(|security| &security.tokens);
        if request.is_some() {
            for policy in tokens.filter(|policy| policy.scope.includes(to, &services)) {
                let issuers: Vec<&str> = policy.rules.iter().map(|rule| &*rule.issuer).collect();
                told.push(Decision {
                    name: format!("RequestAuthentication/{}", policy.key),
                    action: "JWT".to_owned(),
                    decided: format!("takes tokens of {}; none is looked at here", issuers.join(", ")),
                });
            }
        }
        let view = request.map_or(View::Bytes, View::Request);
        let mut policies: Vec<&Arc<Policy>> = security
            .iter()
            .flat_map(|security| &security.authorizations)
            .filter(|policy| policy.scope.includes(to, &services))
            .collect();
        policies.sort_by(|a, b| (order(&a.action), &a.age).cmp(&(order(&b.action), &b.age)));
        let judged = DryRuns::of(&security, to, &services)
            .map(|dry_runs| dry_runs.judge(guard, inbound, request))
            .unwrap_or_default();
        let mut denied = false;
        for policy in policies {
            let (truth, rule) = policy.matches(inbound, view);
            let matched = rule.filter(|_| truth == Truth::Yes);
            let would_deny = judged.iter().any(|one| one.denies && one.policy == policy.key);
            let decided = say(policy, matched, denied, would_deny);
            denied |= policy.action == Action::Deny && !policy.dry_run && matched.is_some();
            let name = format!("AuthorizationPolicy/{}", policy.key);
            told.push(Decision { name, action: policy.action.to_string(), decided });
        }
        let (denial, consult) = match (guard?, request) {
            (guard, Some(request)) => match guard.admit_request(inbound, request) {
                RequestVerdict::Denied(denial) => (Some(denial), None),
                RequestVerdict::Allowed => (None, guard.consult(inbound, request)),
            },
            (guard, None) => match guard.admit_connection(inbound, Protocol::Tcp) {
                ConnectionVerdict::Denied(denial) => (Some(denial), None),
                ConnectionVerdict::Allowed | ConnectionVerdict::ByRequest => {
                    (None, guard.consult_connection(inbound))
                }
            },
        };
        let http = request.is_some();
        let nobody = consult.filter(|consult| self.snapshot.provider(&consult.provider).is_none());
        denial
            .map(|denial| in_words(&denial, http))
            .or_else(|| nobody.map(|consult| nobody_to_ask(&consult, http)))
    }
}

/// The order of decision.
fn order(action: &Action) -> u8 {
    match action {
        Action::Custom(_) => 0,
        Action::Deny => 1,
        Action::Allow => 2,
        Action::Audit => 3,
    }
}

fn say(policy: &Policy, matched: Option<usize>, denied: bool, would_deny: bool) -> String {
    match (matched, &policy.action) {
        (None, _) if policy.dry_run && would_deny => {
            "not matched, and not enforced: it is a dry run, and would refuse this".to_owned()
        }
        (None, _) if policy.dry_run => "not matched (dry run)".to_owned(),
        (Some(rule), action) if policy.dry_run => {
            format!("matched by rules[{rule}], and not enforced: {action} is a dry run")
        }
        (None, _) => "not matched".to_owned(),
        (Some(rule), Action::Audit) => format!("matched by rules[{rule}], without effect"),
        (Some(rule), Action::Custom(provider)) => format!("{provider} is asked by rules[{rule}]"),
        (Some(rule), Action::Deny) => format!("denied by rules[{rule}]"),
        (Some(_), Action::Allow) if denied => "not reached".to_owned(),
        (Some(rule), Action::Allow) => format!("allowed by rules[{rule}]"),
    }
}

fn how(http: bool) -> &'static str {
    if http { "403 RBAC: access denied" } else { "closed" }
}

fn nobody_to_ask(consult: &Consult, http: bool) -> String {
    let Consult { provider, policy } = consult;
    format!(
        "{}: AuthorizationPolicy {policy} asks {provider:?}, which is none of MeshConfig's extensionProviders",
        how(http)
    )
}

fn in_words(denial: &Denial, http: bool) -> String {
    let how = how(http);
    match (&denial.policy, denial.rule) {
        (Some(policy), Some(rule)) => {
            format!("{how}: AuthorizationPolicy {policy} denies it by rules[{rule}]")
        }
        (Some(policy), None) => format!("{how}: AuthorizationPolicy {policy} denies it"),
        (None, _) => format!("{how}: there are ALLOW policies, and none of them matches"),
    }
}

/// The services that lead to a workload; of another node's by their ready endpoints.
pub(super) fn services_of(snapshot: &Snapshot, workload: &Workload) -> Vec<Arc<str>> {
    if let Some(entrance) = snapshot.entrances.get(&workload.key) {
        return entrance.services.to_vec();
    }
    let leads = |cluster: &Cluster| {
        let mut workloads = cluster.endpoints.iter().filter_map(|endpoint| endpoint.workload.as_ref());
        workloads.any(|other| other.key == workload.key)
    };
    let services = snapshot
        .registry
        .hosts
        .iter()
        .filter(|(_, entry)| entry.policies.others.ports.iter().any(|port| leads(&port.whole)));
    services.map(|(host, _)| host.clone()).collect()
}
