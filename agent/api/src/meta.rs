//! What every Kubernetes object has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::kinds::Kind;

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// Reads `null` as an absent field: the API server serves empty lists so (`endpoints` of an EndpointSlice, for one).
pub(crate) fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a list whose emptiness would mean the opposite of what it looks like: none, when it counts as any.
pub(crate) fn not_empty<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let list = Option::<Vec<T>>::deserialize(deserializer)?;
    if list.as_ref().is_some_and(Vec::is_empty) {
        return Err(serde::de::Error::custom(
            "an empty list (take the field away for any, or list what may be)",
        ));
    }
    Ok(list.unwrap_or_default())
}

/// Reads a mapping that Istio's schema wants to hold something where it is there.
pub(crate) fn not_empty_map<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    K: Ord + Deserialize<'de>,
    V: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let map = Option::<BTreeMap<K, V>>::deserialize(deserializer)?;
    if map.as_ref().is_some_and(BTreeMap::is_empty) {
        return Err(serde::de::Error::custom("an empty mapping (take the field away, or name something)"));
    }
    Ok(map.unwrap_or_default())
}

/// The parts of `metadata` that weft reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Name, unique for its kind in its namespace.
    pub name: String,
    /// Namespace; empty in a manifest means `default`, and stays empty for cluster-scoped kinds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Set by the API server; empty in a file.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
    pub uid: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
    pub labels: Labels,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
    pub annotations: Labels,
    /// RFC 3339; empty sorts as oldest. Decides wherever "oldest wins".
    #[serde(skip_serializing_if = "String::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
    pub creation_timestamp: String,
    /// Increases with each change of `spec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Who made the object: the way from a pod to its Deployment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
    pub owner_references: Vec<OwnerReference>,
    /// Set while the object is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
}

/// One of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// For example `ReplicaSet`.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// Whether this is the managing controller.
    pub controller: bool,
}

/// An object with its metadata, as the API server serves it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource<Spec> {
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What the user wants.
    pub spec: Spec,
}

/// Names one object: `Kind/namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind's name.
    pub kind: Cow<'static, str>,
    /// The kind's group, which tells it from others of its name; empty for the core group.
    pub group: Cow<'static, str>,
    /// Empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

impl ObjectKey {
    /// Names an object of a kind that weft reads.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.name().into(),
            group: kind.entry().group.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Its kind; `None`: one that weft does not read.
    pub fn known_kind(&self) -> Option<Kind> {
        Kind::named(&self.group, &self.kind)
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}
