//! Kinds that weft reads, will read, will not read, and those of the past.

/// What to do with an object, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Read it.
    Read,
    /// A kind that is read, in another group or version: the ones accepted.
    OtherVersion(&'static str),
    /// A kind of the mesh that has no effect yet, with what it would do.
    NotYet(&'static str),
    /// A kind of the past, with today's.
    Removed(&'static str),
    /// A kind that weft will not have, with what to use.
    Never(&'static str),
    /// Somebody else's.
    Foreign,
}

/// Kinds that are read: group, versions.
const READ: &[(&str, &str, &[&str])] = &[
    ("Namespace", "", &["v1"]),
    ("Pod", "", &["v1"]),
    ("Service", "", &["v1"]),
    ("ConfigMap", "", &["v1"]),
    ("EndpointSlice", "discovery.k8s.io", &["v1"]),
    ("NetworkPolicy", "networking.k8s.io", &["v1"]),
    ("VirtualService", "networking.istio.io", &["v1", "v1beta1", "v1alpha3"]),
    ("DestinationRule", "networking.istio.io", &["v1", "v1beta1", "v1alpha3"]),
    ("Gateway", "networking.istio.io", &["v1", "v1beta1", "v1alpha3"]),
    ("PeerAuthentication", "security.istio.io", &["v1", "v1beta1"]),
    ("AuthorizationPolicy", "security.istio.io", &["v1", "v1beta1"]),
    ("RequestAuthentication", "security.istio.io", &["v1", "v1beta1"]),
];

/// Kinds that users of a mesh expect to have an effect, and that have none yet: group, kinds, what for.
const NOT_YET: &[(&str, &[&str], &str)] = &[
    (
        "networking.istio.io",
        &["ServiceEntry", "WorkloadEntry", "WorkloadGroup"],
        "its hosts and endpoints are not known",
    ),
    ("networking.istio.io", &["Sidecar"], "what its workloads see is not limited"),
    ("networking.istio.io", &["ProxyConfig"], "its settings are not used"),
    ("telemetry.istio.io", &["Telemetry"], "it changes no log, metric or trace"),
    ("extensions.istio.io", &["WasmPlugin", "TrafficExtension"], "it is not run"),
    (
        "gateway.networking.k8s.io",
        &["Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "UDPRoute"],
        "it routes nothing",
    ),
    (
        "gateway.networking.k8s.io",
        &[
            "GatewayClass",
            "ReferenceGrant",
            "BackendTLSPolicy",
            "BackendTrafficPolicy",
            "ListenerSet",
            "XListenerSet",
        ],
        "it has no effect",
    ),
];

/// Kinds of the past, by the groups that they had, and today's.
const REMOVED: &[(&[&str], &[&str], &str)] = &[
    (CONFIG, &["RouteRule"], "a VirtualService, with a DestinationRule for its subsets"),
    (CONFIG, &["DestinationPolicy"], "a DestinationRule with a trafficPolicy"),
    (CONFIG, &["EgressRule", "ExternalService", "V1alpha2RouteRule"], OUTSIDE),
    (CONFIG, &["denier", "checknothing"], "an AuthorizationPolicy with action DENY"),
    (
        CONFIG,
        &["listchecker", "listentry", "whitelist", "blacklist"],
        "an AuthorizationPolicy whose rules list the callers",
    ),
    (
        CONFIG,
        &["quota", "QuotaSpec", "QuotaSpecBinding", "memquota", "redisquota"],
        "connectionPool limits in a DestinationRule, which are not in force in this version of weft",
    ),
    (CONFIG, &["rule"], MIXER),
    (
        CONFIG,
        &["handler", "instance", "adapter", "template", "attributemanifest", "apikey", "authorization"],
        MIXER,
    ),
    (
        CONFIG,
        &["metric", "prometheus", "statsd", "cloudwatch", "circonus", "dogstatsd", "signalfx", "edge"],
        "the standard metrics, which are there; a Telemetry, which would change them, has no effect in this \
         version of weft",
    ),
    (
        CONFIG,
        &["logentry", "stdio", "fluentd", "accesslog", "solarwinds", "stackdriver", "reportnothing"],
        "`weft agent --access-log`; a Telemetry has no effect in this version of weft",
    ),
    (
        CONFIG,
        &["tracespan", "zipkin"],
        "traces of the applications' own: this version of weft makes none, and a Telemetry has no effect",
    ),
    (
        CONFIG,
        &["rbac", "opa", "bypass", "kubernetesenv", "kubernetes", "servicecontrol", "servicecontrolreport"],
        MIXER,
    ),
    (CONFIG, &["HTTPAPISpec", "HTTPAPISpecBinding"], "VirtualService matches on path and method"),
    (CONFIG, &["MeshPolicy"], "a PeerAuthentication in the root namespace"),
    (AUTHENTICATION, &["Policy"], "a PeerAuthentication for mTLS and a RequestAuthentication for tokens"),
    (AUTHENTICATION, &["MeshPolicy"], "a PeerAuthentication in the root namespace"),
    (
        RBAC,
        &["ClusterRbacConfig", "RbacConfig"],
        "an AuthorizationPolicy without rules in each namespace that should deny by default",
    ),
    (
        RBAC,
        &["ServiceRole", "ServiceRoleBinding", "AuthorizationPolicy"],
        "an AuthorizationPolicy of security.istio.io/v1",
    ),
];

const CONFIG: &[&str] = &["config.istio.io"];
const AUTHENTICATION: &[&str] = &["authentication.istio.io"];
const RBAC: &[&str] = &["rbac.istio.io"];
/// Mixer's successors.
pub(super) const MIXER: &str =
    "an AuthorizationPolicy for what is checked; what is reported needs nothing: Mixer is gone";
const OUTSIDE: &str = "the defaults: hosts outside the mesh are reached as they are, unless outboundTrafficPolicy is \
                       REGISTRY_ONLY; a ServiceEntry, which would name them, has no effect in this version of weft";

/// Kinds that weft will not have.
const NEVER: &[(&str, &str, &str)] = &[
    (
        "networking.istio.io",
        "EnvoyFilter",
        "there is no Envoy to patch; say it with a VirtualService or a DestinationRule",
    ),
    (
        "install.istio.io",
        "IstioOperator",
        "weft is installed with `weft install` or `kubectl apply -k manifests`",
    ),
];

/// The groups that have kinds without effect.
pub(super) const GROUPS_IN_VAIN: [&str; 4] =
    ["networking.istio.io", "telemetry.istio.io", "extensions.istio.io", "gateway.networking.k8s.io"];

/// What is said of an object of a kind that has no effect here; `None` for kinds that have one.
pub(super) fn in_vain(group: &str, kind: &str) -> Option<String> {
    match reading(&format!("{group}/v1"), kind) {
        Reading::NotYet(effect) => Some(not_yet(kind, effect)),
        Reading::Never(instead) => Some(never(kind, instead)),
        _ => None,
    }
}

pub(super) fn not_yet(kind: &str, effect: &str) -> String {
    format!("{kind} is not in force in this version of weft: {effect}")
}

pub(super) fn never(kind: &str, instead: &str) -> String {
    format!("{kind} is not supported ({instead})")
}

/// Says what to do with an object of this `apiVersion` and `kind`.
pub(super) fn reading(api_version: &str, kind: &str) -> Reading {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some((_, _, name)) =
        REMOVED.iter().find(|(groups, kinds, _)| groups.contains(&group) && kinds.contains(&kind))
    {
        return Reading::Removed(name);
    }
    // So old, or so odd, that no other project has a kind of this name.
    if matches!(
        kind,
        "RouteRule" | "EgressRule" | "DestinationPolicy" | "QuotaSpec" | "QuotaSpecBinding" | "MeshPolicy"
    ) {
        let known = REMOVED.iter().find(|(_, kinds, _)| kinds.contains(&kind));
        return known.map_or(Reading::Foreign, |(_, _, name)| Reading::Removed(name));
    }
    if let Some((_, _, instead)) = NEVER.iter().find(|(g, k, _)| *g == group && *k == kind) {
        return Reading::Never(instead);
    }
    if let Some((_, _, effect)) = NOT_YET.iter().find(|(g, kinds, _)| *g == group && kinds.contains(&kind)) {
        return Reading::NotYet(effect);
    }
    let Some((_, read_group, versions)) = READ.iter().find(|(k, ..)| *k == kind) else {
        return if group == "config.istio.io" { Reading::Removed(MIXER) } else { Reading::Foreign };
    };
    if *read_group == group {
        return if versions.contains(&version) {
            Reading::Read
        } else {
            Reading::OtherVersion(accepted(kind))
        };
    }
    // `VirtualService` of another vendor's group is that vendor's; of `networking/v1` it is a slip.
    let slip = !group.contains('.') || group.contains("istio") || group.ends_with("k8s.io");
    let core = read_group.is_empty();
    if slip && !(core && group.contains('.')) {
        Reading::OtherVersion(accepted(kind))
    } else {
        Reading::Foreign
    }
}

fn accepted(kind: &str) -> &'static str {
    match kind {
        "VirtualService" | "DestinationRule" | "Gateway" => {
            "networking.istio.io/v1, networking.istio.io/v1beta1 or networking.istio.io/v1alpha3"
        }
        "PeerAuthentication" | "AuthorizationPolicy" | "RequestAuthentication" => {
            "security.istio.io/v1 or security.istio.io/v1beta1"
        }
        "EndpointSlice" => "discovery.k8s.io/v1",
        "NetworkPolicy" => "networking.k8s.io/v1",
        _ => "v1",
    }
}

/// Says whether a kind lives outside namespaces.
pub(super) fn is_cluster_scoped(kind: &str) -> bool {
    matches!(kind, "Namespace" | "Node" | "GatewayClass" | "MeshPolicy" | "ClusterRbacConfig")
}
