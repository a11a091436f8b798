//! The registry of kinds: what weft reads, what it will read, and what it will not.
//!
//! Whatever goes by a kind's name, group or version is made from here: keys, loading, watches, CustomResourceDefinitions,
//! [what manifests say of kinds](manifest), statuses, what is said of objects without effect. A kind that is read has one line in [`crate::object`], which gives it
//! its type, and one here; the compiler misses either, and then names the places that say what it means (checks, weight, rules).

pub mod manifest;
mod past;

use serde_json::Value;

use crate::istio::{
    AuthorizationPolicySpec, DestinationRuleSpec, GatewaySpec, PeerAuthenticationSpec,
    RequestAuthenticationSpec, VirtualServiceSpec,
};
use crate::load::inlined;

pub use crate::object::Kind;
pub(crate) use past::{MIXER, today};

/// Istio's kinds of traffic.
pub const NETWORKING: &str = "networking.istio.io";
/// Istio's kinds of security.
pub const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// A kind, as the API server knows it, and what weft does with its objects.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// `VirtualService`.
    pub kind: &'static str,
    /// `networking.istio.io`; empty for the core group.
    pub group: &'static str,
    /// Versions that are accepted, all of one schema; the first is taken where several are served, and stored by weft's own
    /// definition.
    pub versions: &'static [&'static str],
    /// In paths: `virtualservices`.
    pub plural: &'static str,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// What becomes of its objects.
    pub state: State,
    /// How `weft install` defines it where the cluster does not; `None`: that is not weft's business.
    pub definition: Option<Definition>,
}

/// What becomes of the objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// They are read; an agent in a cluster watches these of them.
    Read(Watch),
    /// They are accepted, and have no effect in this version; what that means.
    NotYet(&'static str),
    /// They are refused for good; what to use instead.
    Never(&'static str),
}

/// Which objects of a kind an agent watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// All.
    All,
    /// Those whose fields are so, in the words of a field selector.
    Where(&'static str),
    /// Some by their names, which who watches them knows.
    Named,
    /// None: they are read from files alone.
    None,
}

/// What a CustomResourceDefinition says beside names and versions.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// For `kubectl get`: `vs`.
    pub short: &'static [&'static str],
    /// Besides the age: header, path, description.
    pub columns: &'static [(&'static str, &'static str, &'static str)],
    /// The JSON schema of `spec`, without references; `None`: it is kept as it is.
    pub spec: Option<fn() -> Value>,
}

const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];

/// A kind of Kubernetes' own, in namespaces.
const fn builtin(group: &'static str, kind: &'static str, plural: &'static str, watch: Watch) -> Entry {
    let state = State::Read(watch);
    Entry { kind, group, versions: &["v1"], plural, namespaced: true, state, definition: None }
}

/// A kind of Istio's that is read.
const fn istio(
    group: &'static str,
    versions: &'static [&'static str],
    (kind, plural): (&'static str, &'static str),
    definition: Definition,
) -> Entry {
    let state = State::Read(Watch::All);
    Entry { kind, group, versions, plural, namespaced: true, state, definition: Some(definition) }
}

/// A kind in namespaces that is not read.
const fn unread(
    group: &'static str,
    versions: &'static [&'static str],
    (kind, plural): (&'static str, &'static str),
    state: State,
) -> Entry {
    Entry { kind, group, versions, plural, namespaced: true, state, definition: None }
}

/// Kinds that are read, in the order of [`Kind`].
const READ: [Entry; Kind::COUNT] = [
    Entry { namespaced: false, ..builtin("", "Namespace", "namespaces", Watch::All) },
    // What has ended has no address any more, and there may be many.
    builtin("", "Pod", "pods", Watch::Where("status.phase!=Succeeded,status.phase!=Failed")),
    builtin("", "Service", "services", Watch::All),
    builtin("discovery.k8s.io", "EndpointSlice", "endpointslices", Watch::All),
    builtin("", "ConfigMap", "configmaps", Watch::Named),
    builtin("", "Secret", "secrets", Watch::None),
    builtin("networking.k8s.io", "NetworkPolicy", "networkpolicies", Watch::None),
    istio(
        NETWORKING,
        NETWORKING_VERSIONS,
        ("VirtualService", "virtualservices"),
        Definition {
            short: &["vs"],
            columns: &[
                ("Gateways", ".spec.gateways", "The gateways that it is bound to"),
                ("Hosts", ".spec.hosts", "The destinations that it applies to"),
            ],
            spec: Some(inlined::<VirtualServiceSpec>),
        },
    ),
    istio(
        NETWORKING,
        NETWORKING_VERSIONS,
        ("DestinationRule", "destinationrules"),
        Definition {
            short: &["dr"],
            columns: &[("Host", ".spec.host", "The service that it applies to")],
            spec: Some(inlined::<DestinationRuleSpec>),
        },
    ),
    istio(
        NETWORKING,
        NETWORKING_VERSIONS,
        ("Gateway", "gateways"),
        Definition { short: &["gw"], columns: &[], spec: Some(inlined::<GatewaySpec>) },
    ),
    istio(
        SECURITY,
        SECURITY_VERSIONS,
        ("PeerAuthentication", "peerauthentications"),
        Definition {
            short: &["pa"],
            columns: &[("Mode", ".spec.mtls.mode", "What is accepted")],
            spec: Some(inlined::<PeerAuthenticationSpec>),
        },
    ),
    istio(
        SECURITY,
        SECURITY_VERSIONS,
        ("AuthorizationPolicy", "authorizationpolicies"),
        Definition {
            short: &["ap"],
            columns: &[("Action", ".spec.action", "What a match means")],
            spec: Some(inlined::<AuthorizationPolicySpec>),
        },
    ),
    istio(
        SECURITY,
        SECURITY_VERSIONS,
        ("RequestAuthentication", "requestauthentications"),
        Definition { short: &["ra"], columns: &[], spec: Some(inlined::<RequestAuthenticationSpec>) },
    ),
];

const UNKNOWN_HOSTS: State = State::NotYet("its hosts and endpoints are not known");
const ROUTES_NOTHING: State = State::NotYet("it routes nothing");
const NO_EFFECT: State = State::NotYet("it has no effect");
const NOT_RUN: State = State::NotYet("it is not run");
/// Kept as it is, and shown without columns.
const OPAQUE: Definition = Definition { short: &[], columns: &[], spec: None };

/// Kinds that users of a mesh expect to have an effect.
const UNREAD: &[Entry] = &[
    Entry {
        definition: Some(Definition {
            short: &["se"],
            columns: &[
                ("Hosts", ".spec.hosts", "Its names"),
                ("Location", ".spec.location", "Whether it is in the mesh"),
                ("Resolution", ".spec.resolution", "How its addresses are found"),
            ],
            spec: None,
        }),
        ..unread(NETWORKING, NETWORKING_VERSIONS, ("ServiceEntry", "serviceentries"), UNKNOWN_HOSTS)
    },
    Entry {
        definition: Some(Definition {
            short: &["we"],
            columns: &[("Address", ".spec.address", "Where it is")],
            spec: None,
        }),
        ..unread(NETWORKING, NETWORKING_VERSIONS, ("WorkloadEntry", "workloadentries"), UNKNOWN_HOSTS)
    },
    Entry {
        definition: Some(Definition { short: &["wg"], ..OPAQUE }),
        ..unread(NETWORKING, NETWORKING_VERSIONS, ("WorkloadGroup", "workloadgroups"), UNKNOWN_HOSTS)
    },
    Entry {
        definition: Some(OPAQUE),
        ..unread(
            NETWORKING,
            NETWORKING_VERSIONS,
            ("Sidecar", "sidecars"),
            State::NotYet("what its workloads see is not limited"),
        )
    },
    Entry {
        definition: Some(OPAQUE),
        ..unread(
            NETWORKING,
            &["v1beta1"],
            ("ProxyConfig", "proxyconfigs"),
            State::NotYet("its settings are not used"),
        )
    },
    Entry {
        definition: Some(Definition { short: &["telemetry"], ..OPAQUE }),
        ..unread(
            TELEMETRY,
            &["v1", "v1alpha1"],
            ("Telemetry", "telemetries"),
            State::NotYet("it changes no log, metric or trace"),
        )
    },
    unread(EXTENSIONS, &["v1alpha1"], ("WasmPlugin", "wasmplugins"), NOT_RUN),
    unread(EXTENSIONS, &["v1alpha1"], ("TrafficExtension", "trafficextensions"), NOT_RUN),
    unread(GATEWAY_API, &["v1", "v1beta1"], ("Gateway", "gateways"), ROUTES_NOTHING),
    unread(GATEWAY_API, &["v1", "v1beta1"], ("HTTPRoute", "httproutes"), ROUTES_NOTHING),
    unread(GATEWAY_API, &["v1"], ("GRPCRoute", "grpcroutes"), ROUTES_NOTHING),
    unread(GATEWAY_API, &["v1alpha2"], ("TCPRoute", "tcproutes"), ROUTES_NOTHING),
    unread(GATEWAY_API, &["v1", "v1alpha3", "v1alpha2"], ("TLSRoute", "tlsroutes"), ROUTES_NOTHING),
    unread(GATEWAY_API, &["v1alpha2"], ("UDPRoute", "udproutes"), ROUTES_NOTHING),
    Entry {
        namespaced: false,
        ..unread(GATEWAY_API, &["v1", "v1beta1"], ("GatewayClass", "gatewayclasses"), NO_EFFECT)
    },
    unread(GATEWAY_API, &["v1", "v1beta1"], ("ReferenceGrant", "referencegrants"), NO_EFFECT),
    unread(GATEWAY_API, &["v1", "v1alpha3"], ("BackendTLSPolicy", "backendtlspolicies"), NO_EFFECT),
    unread(GATEWAY_API, &["v1alpha2"], ("BackendTrafficPolicy", "backendtrafficpolicies"), NO_EFFECT),
    unread(GATEWAY_API, &["v1"], ("ListenerSet", "listenersets"), NO_EFFECT),
    unread(GATEWAY_API, &["v1alpha1"], ("XListenerSet", "xlistenersets"), NO_EFFECT),
    unread(
        NETWORKING,
        &["v1alpha3"],
        ("EnvoyFilter", "envoyfilters"),
        State::Never("there is no Envoy to patch; say it with a VirtualService or a DestinationRule"),
    ),
    unread(
        "install.istio.io",
        &["v1alpha1"],
        ("IstioOperator", "istiooperators"),
        State::Never("weft is installed with `weft install` or `kubectl apply -k manifests`"),
    ),
];

impl Kind {
    /// What is known of it.
    pub const fn entry(self) -> &'static Entry {
        // A constant's address: the compiler makes one static of it.
        const ALL: &[Entry; Kind::COUNT] = &READ;
        &ALL[self as usize]
    }

    /// The kind of this name in this group, if it is read.
    pub fn named(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == kind && known.entry().group == group)
    }

    /// Whether users write it, not Kubernetes: then unknown fields are refused, and its status says whether it is accepted.
    pub const fn is_users(self) -> bool {
        self.entry().definition.is_some()
    }
}

impl Entry {
    /// The versions that are accepted, as people write them: `security.istio.io/v1 or security.istio.io/v1beta1`.
    pub fn accepted(&self) -> String {
        let full = |version: &&str| match self.group {
            "" => (*version).to_owned(),
            group => format!("{group}/{version}"),
        };
        let all: Vec<String> = self.versions.iter().map(full).collect();
        match all.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => all.concat(),
        }
    }
}

/// Every kind that is known, the ones that are read first.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    Kind::ALL.into_iter().map(Kind::entry).chain(UNREAD)
}

/// The kind of this name in this group.
pub fn find(group: &str, kind: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.kind == kind && entry.group == group)
}

/// Whether the objects of a kind are in namespaces; those of a kind that nobody knows are.
pub fn is_namespaced(kind: &str) -> bool {
    // Kinds of one name are alike in this.
    all().find(|entry| entry.kind == kind).map_or(!past::is_cluster_scoped(kind), |entry| entry.namespaced)
}

/// Whether kinds of this group are accepted and have no effect.
pub fn is_in_vain(group: &str) -> bool {
    UNREAD.iter().any(|entry| entry.group == group && matches!(entry.state, State::NotYet(_)))
}

/// What is to be said of an object of a kind that has no effect in this version of weft; `None` for kinds that have one, and
/// for other people's.
pub fn in_vain(group: &str, kind: &str) -> Option<String> {
    match find(group, kind)?.state {
        State::NotYet(effect) => Some(format!("{kind} is not in force in this version of weft: {effect}")),
        State::Never(instead) => Some(format!("{kind} is not supported ({instead})")),
        State::Read(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_entry() {
        for kind in Kind::ALL {
            assert_eq!(kind.entry().kind, kind.name());
            assert_eq!(Kind::named(kind.entry().group, kind.name()), Some(kind));
        }
        let mut names: Vec<_> = all().map(|entry| (entry.group, entry.kind)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count(), "a kind is there twice");
    }

    #[test]
    fn kinds_of_one_name_are_told_apart_by_their_group() {
        assert_eq!(Kind::named(NETWORKING, "Gateway"), Some(Kind::Gateway));
        assert_eq!(Kind::named(GATEWAY_API, "Gateway"), None);
        assert_eq!(find(GATEWAY_API, "Gateway").map(|entry| entry.state), Some(ROUTES_NOTHING));
    }
}
