//! A Kubernetes object as its YAML says it.

use std::fmt;

use anyhow::{anyhow, bail};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

/// The label by which weft knows what it has installed, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "weft");

/// A kind that an installation has objects of.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// `DaemonSet`.
    pub name: &'static str,
    /// `daemonsets`.
    pub plural: &'static str,
    /// `apps/v1`.
    pub api_version: &'static str,
}

const fn kind(api_version: &'static str, name: &'static str, plural: &'static str) -> Kind {
    Kind { name, plural, api_version }
}

/// Kinds of the installation, in the order in which they are applied.
pub const KINDS: [Kind; 15] = [
    kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
    kind("v1", "Namespace", "namespaces"),
    kind("v1", "ServiceAccount", "serviceaccounts"),
    kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles"),
    kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    kind("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
    kind(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    ),
    kind("v1", "ConfigMap", "configmaps"),
    kind("v1", "Service", "services"),
    kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    kind("apps/v1", "Deployment", "deployments"),
    kind("apps/v1", "DaemonSet", "daemonsets"),
    // Where nobody answers yet it is asked in vain: last.
    kind(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    ),
];

impl Kind {
    /// How the API server calls it.
    pub fn resource(&self) -> ApiResource {
        let (group, version) = self.api_version.rsplit_once('/').unwrap_or(("", self.api_version));
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.name), self.plural)
    }
}

/// An object, with the fields that every object has looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(pub Value);

/// What tells objects apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `DaemonSet`.
    pub kind: String,
    /// Empty for what belongs to the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

impl Key {
    /// How the API server calls its kind.
    pub fn resource(&self) -> anyhow::Result<ApiResource> {
        let found = KINDS.iter().find(|known| known.name == self.kind);
        found.map(Kind::resource).ok_or_else(|| anyhow!("weft installs nothing of kind {}", self.kind))
    }
}

impl Object {
    /// The documents of a YAML text.
    pub fn parse_all(text: &str) -> anyhow::Result<Vec<Self>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
        Ok(documents.into_iter().filter(|document| !document.is_null()).map(Self).collect())
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// `DaemonSet`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`; empty for what belongs to the cluster.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// What tells it apart.
    pub fn key(&self) -> Key {
        let (kind, namespace, name) = (self.kind(), self.namespace(), self.name());
        Key { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Where its kind comes in the order of applying.
    pub fn rank(&self) -> usize {
        KINDS.iter().position(|known| known.name == self.kind()).unwrap_or(KINDS.len())
    }

    /// Sets `metadata.annotations`.
    pub fn annotate(&mut self, name: &str, value: &str) {
        let annotations = &mut self.0["metadata"]["annotations"];
        annotations[name] = value.into();
    }

    /// How the API server calls its kind.
    pub fn resource(&self) -> anyhow::Result<ApiResource> {
        let found = self.key().resource()?;
        if found.api_version == self.text("/apiVersion") {
            Ok(found)
        } else {
            bail!(
                "{} is of {}, and weft install knows {}",
                self.key(),
                self.text("/apiVersion"),
                found.api_version
            )
        }
    }
}
