//! Kinds of the past, which are refused with what takes their place today.

/// Kinds of the past, by the group that they had, and today's.
const REMOVED: &[(&str, &[&str], &str)] = &[
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

const CONFIG: &str = "config.istio.io";
const AUTHENTICATION: &str = "authentication.istio.io";
const RBAC: &str = "rbac.istio.io";
/// Mixer's successors.
pub const MIXER: &str =
    "an AuthorizationPolicy for what is checked; what is reported needs nothing: Mixer is gone";
const OUTSIDE: &str = "the defaults: hosts outside the mesh are reached as they are, unless outboundTrafficPolicy is \
                       REGISTRY_ONLY; a ServiceEntry, which would name them, has no effect in this version of weft";

/// So old, or so odd, that no other project has a kind of this name.
const UNMISTAKABLE: [&str; 6] =
    ["RouteRule", "EgressRule", "DestinationPolicy", "QuotaSpec", "QuotaSpecBinding", "MeshPolicy"];

/// What takes a kind's place today; `None`: it is not of the past.
pub fn today(group: &str, kind: &str) -> Option<&'static str> {
    let of_group = REMOVED.iter().find(|(of, kinds, _)| *of == group && kinds.contains(&kind));
    let by_name =
        || REMOVED.iter().find(|(_, kinds, _)| UNMISTAKABLE.contains(&kind) && kinds.contains(&kind));
    // Mixer's adapters had kinds of their own.
    let adapter = || (group == CONFIG && !super::all().any(|entry| entry.kind == kind)).then_some(MIXER);
    of_group.or_else(by_name).map(|(_, _, today)| *today).or_else(adapter)
}

/// Whether the objects of a kind of the past, or of one that nobody reads here, are in no namespace.
pub fn is_cluster_scoped(kind: &str) -> bool {
    matches!(kind, "Node" | "MeshPolicy" | "ClusterRbacConfig")
}
