//! What is watched.

use weft_api::kinds::{Entry, Kind, State, Watch};
use weft_api::names;

/// A kind, and which of its objects are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The kind.
    pub kind: Kind,
    /// The only namespace that is wanted.
    pub namespace: Option<String>,
    /// The only name that is wanted, or another limit on fields.
    pub fields: Option<String>,
}

/// Names of the ConfigMap that holds MeshConfig.
const MESH_CONFIG_MAPS: [&str; 2] = ["istio", "weft"];

impl Watched {
    /// How it is called in messages: `Pod`, `ConfigMap istio-system/istio`.
    pub fn name(&self) -> String {
        let (kind, one) = (self.kind.name(), self.fields.as_deref());
        match (&self.namespace, one.and_then(|fields| fields.strip_prefix("metadata.name="))) {
            (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
            _ => kind.to_owned(),
        }
    }

    /// The path of its list, in one of the versions.
    pub fn path(&self, version: &str) -> String {
        let Entry { group, plural, .. } = self.kind.entry();
        let root = match *group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        match &self.namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{plural}"),
        }
    }

    /// Whether the server may not have the kind.
    pub fn is_custom(&self) -> bool {
        self.kind.is_users()
    }

    fn config_map(namespace: &str, name: &str) -> Self {
        Self {
            kind: Kind::ConfigMap,
            namespace: Some(namespace.to_owned()),
            fields: Some(format!("metadata.name={name}")),
        }
    }

    /// Everything that rules are made from.
    pub fn all(root_namespace: &str) -> Vec<Self> {
        let of = |kind: Kind| match kind.entry().state {
            State::Read(Watch::All) => vec![Self { kind, namespace: None, fields: None }],
            State::Read(Watch::Where(fields)) => {
                vec![Self { kind, namespace: None, fields: Some(fields.to_owned()) }]
            }
            State::Read(Watch::Named) => {
                MESH_CONFIG_MAPS.map(|name| Self::config_map(root_namespace, name)).to_vec()
            }
            State::Read(Watch::None) | State::NotYet(_) | State::Never(_) => Vec::new(),
        };
        Kind::ALL.into_iter().flat_map(of).collect()
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
        let told = |at: usize| (all[at].name(), all[at].path(all[at].kind.entry().versions[0]));
        assert_eq!(told(1), ("Pod".into(), "/api/v1/pods".into()));
        assert_eq!(
            told(4),
            ("ConfigMap istio-system/istio".into(), "/api/v1/namespaces/istio-system/configmaps".into())
        );
        assert_eq!(told(6), ("VirtualService".into(), "/apis/networking.istio.io/v1/virtualservices".into()));
        assert_eq!(Watched::ca_root().name(), "ConfigMap weft-system/weft-ca-root");
    }
}
