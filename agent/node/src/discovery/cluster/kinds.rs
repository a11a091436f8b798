//! What is watched.

use weft_api::names;

/// A kind, where it is served, and which of its objects are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// For example `Pod`.
    pub kind: &'static str,
    /// Empty for the core group.
    pub group: &'static str,
    /// Versions that are read, the one that is taken first where several are served. Kinds of Kubernetes' own have
    /// one, which is always there.
    pub versions: &'static [&'static str],
    /// In the path, for example `pods`.
    pub plural: &'static str,
    /// The only namespace that is wanted.
    pub namespace: Option<String>,
    /// The only name that is wanted, or another limit on fields.
    pub fields: Option<String>,
}

const ISTIO_NETWORKING: &str = "networking.istio.io";
const ISTIO_SECURITY: &str = "security.istio.io";
const ISTIO_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const ISTIO_SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];

/// Kinds of Istio's that are read, by group.
const ISTIO_KINDS: &[(&str, &[&str], &str, &str)] = &[
    (ISTIO_NETWORKING, ISTIO_VERSIONS, "VirtualService", "virtualservices"),
    (ISTIO_NETWORKING, ISTIO_VERSIONS, "DestinationRule", "destinationrules"),
    (ISTIO_NETWORKING, ISTIO_VERSIONS, "Gateway", "gateways"),
    (ISTIO_SECURITY, ISTIO_SECURITY_VERSIONS, "PeerAuthentication", "peerauthentications"),
    (ISTIO_SECURITY, ISTIO_SECURITY_VERSIONS, "AuthorizationPolicy", "authorizationpolicies"),
    (ISTIO_SECURITY, ISTIO_SECURITY_VERSIONS, "RequestAuthentication", "requestauthentications"),
];

/// Names of the ConfigMap that holds MeshConfig.
const MESH_CONFIG_MAPS: [&str; 2] = ["istio", "weft"];

impl Watched {
    /// How it is called in messages: `Pod`, `ConfigMap istio-system/istio`.
    pub fn name(&self) -> String {
        let one = self.fields.as_deref().and_then(|fields| fields.strip_prefix("metadata.name="));
        match (&self.namespace, one) {
            (Some(namespace), Some(name)) => format!("{} {namespace}/{name}", self.kind),
            _ => self.kind.to_owned(),
        }
    }

    /// The path of its list, in one of the versions.
    pub fn path(&self, version: &str) -> String {
        let root = match self.group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        match &self.namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// Whether the server may not have the kind.
    pub fn is_custom(&self) -> bool {
        self.versions.len() > 1
    }

    fn core(kind: &'static str, plural: &'static str) -> Self {
        Self { kind, group: "", versions: &["v1"], plural, namespace: None, fields: None }
    }

    fn config_map(namespace: &str, name: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            fields: Some(format!("metadata.name={name}")),
            ..Self::core("ConfigMap", "configmaps")
        }
    }

    /// Everything that rules are made from.
    pub fn all(root_namespace: &str) -> Vec<Self> {
        let mut all = vec![
            Self::core("Namespace", "namespaces"),
            // What has ended has no address any more, and there may be many.
            Self {
                fields: Some("status.phase!=Succeeded,status.phase!=Failed".to_owned()),
                ..Self::core("Pod", "pods")
            },
            Self::core("Service", "services"),
            Self { group: "discovery.k8s.io", ..Self::core("EndpointSlice", "endpointslices") },
        ];
        all.extend(MESH_CONFIG_MAPS.map(|name| Self::config_map(root_namespace, name)));
        all.extend(ISTIO_KINDS.iter().map(|(group, versions, kind, plural)| Self {
            kind,
            group,
            versions,
            plural,
            namespace: None,
            fields: None,
        }));
        all
    }

    /// The roots by which the CA is recognised.
    pub fn ca_root() -> Self {
        Self::config_map(names::NAMESPACE, names::CA_ROOT_CONFIG_MAP)
    }

    /// The certificates that the CA has taken back.
    pub fn ca_revocations() -> Self {
        Self::config_map(names::NAMESPACE, names::CA_REVOCATIONS_CONFIG_MAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        let all = Watched::all("istio-system");
        let told = |at: usize| (all[at].name(), all[at].path(all[at].versions[0]));
        assert_eq!(told(1), ("Pod".into(), "/api/v1/pods".into()));
        assert_eq!(
            told(4),
            ("ConfigMap istio-system/istio".into(), "/api/v1/namespaces/istio-system/configmaps".into())
        );
        assert_eq!(told(6), ("VirtualService".into(), "/apis/networking.istio.io/v1/virtualservices".into()));
        assert_eq!(Watched::ca_root().name(), "ConfigMap weft-system/weft-ca-root");
    }
}
