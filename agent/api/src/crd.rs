//! CustomResourceDefinitions of Istio's kinds, made from the types that read them.
//!
//! For clusters that do not have Istio's own. They refuse nothing that Istio's accept: what the schema cannot say, the
//! webhook checks. Kinds whose fields weft does not read are kept whole.

mod structural;

use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::istio::{
    AuthorizationPolicySpec, DestinationRuleSpec, GatewaySpec, PeerAuthenticationSpec,
    RequestAuthenticationSpec, VirtualServiceSpec,
};
use crate::load::inlined;

/// One kind, as Istio names it.
struct Definition {
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    group: &'static str,
    /// All of one schema; the first is stored.
    versions: &'static [&'static str],
    /// Besides the age: header, path, description.
    columns: &'static [(&'static str, &'static str, &'static str)],
    spec: fn() -> Value,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";

const KINDS: &[Definition] = &[
    Definition {
        kind: "VirtualService",
        plural: "virtualservices",
        short: &["vs"],
        group: NETWORKING,
        versions: &["v1", "v1beta1", "v1alpha3"],
        columns: &[
            ("Gateways", ".spec.gateways", "The gateways that it is bound to"),
            ("Hosts", ".spec.hosts", "The destinations that it applies to"),
        ],
        spec: spec_of::<VirtualServiceSpec>,
    },
    Definition {
        kind: "DestinationRule",
        plural: "destinationrules",
        short: &["dr"],
        group: NETWORKING,
        versions: &["v1", "v1beta1", "v1alpha3"],
        columns: &[("Host", ".spec.host", "The service that it applies to")],
        spec: spec_of::<DestinationRuleSpec>,
    },
    Definition {
        kind: "Gateway",
        plural: "gateways",
        short: &["gw"],
        group: NETWORKING,
        versions: &["v1", "v1beta1", "v1alpha3"],
        columns: &[],
        spec: spec_of::<GatewaySpec>,
    },
    Definition {
        kind: "ServiceEntry",
        plural: "serviceentries",
        short: &["se"],
        group: NETWORKING,
        versions: &["v1", "v1beta1", "v1alpha3"],
        columns: &[
            ("Hosts", ".spec.hosts", "Its names"),
            ("Location", ".spec.location", "Whether it is in the mesh"),
            ("Resolution", ".spec.resolution", "How its addresses are found"),
        ],
        spec: any,
    },
    Definition {
        kind: "Sidecar",
        plural: "sidecars",
        short: &[],
        group: NETWORKING,
        versions: &["v1", "v1beta1", "v1alpha3"],
        columns: &[],
        spec: any,
    },
    Definition {
        kind: "WorkloadEntry",
        plural: "workloadentries",
        short: &["we"],
        group: NETWORKING,
        versions: &["v1", "v1beta1", "v1alpha3"],
        columns: &[("Address", ".spec.address", "Where it is")],
        spec: any,
    },
    Definition {
        kind: "WorkloadGroup",
        plural: "workloadgroups",
        short: &["wg"],
        group: NETWORKING,
        versions: &["v1", "v1beta1", "v1alpha3"],
        columns: &[],
        spec: any,
    },
    Definition {
        kind: "ProxyConfig",
        plural: "proxyconfigs",
        short: &[],
        group: NETWORKING,
        versions: &["v1beta1"],
        columns: &[],
        spec: any,
    },
    Definition {
        kind: "PeerAuthentication",
        plural: "peerauthentications",
        short: &["pa"],
        group: SECURITY,
        versions: &["v1", "v1beta1"],
        columns: &[("Mode", ".spec.mtls.mode", "What is accepted")],
        spec: spec_of::<PeerAuthenticationSpec>,
    },
    Definition {
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
        short: &["ap"],
        group: SECURITY,
        versions: &["v1", "v1beta1"],
        columns: &[("Action", ".spec.action", "What a match means")],
        spec: spec_of::<AuthorizationPolicySpec>,
    },
    Definition {
        kind: "RequestAuthentication",
        plural: "requestauthentications",
        short: &["ra"],
        group: SECURITY,
        versions: &["v1", "v1beta1"],
        columns: &[],
        spec: spec_of::<RequestAuthenticationSpec>,
    },
    Definition {
        kind: "Telemetry",
        plural: "telemetries",
        short: &["telemetry"],
        group: TELEMETRY,
        versions: &["v1", "v1alpha1"],
        columns: &[],
        spec: any,
    },
];

/// Every definition, by the name of its file.
pub fn definitions() -> Vec<(String, Value)> {
    KINDS.iter().map(|kind| (format!("{}.{}.yaml", kind.plural, kind.group), kind.definition())).collect()
}

fn spec_of<T: JsonSchema>() -> Value {
    structural::structural(inlined::<T>())
}

/// A spec that is kept as it is.
fn any() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

impl Definition {
    fn definition(&self) -> Value {
        let Self { kind, plural, short, group, .. } = self;
        let mut names = json!({
            "kind": kind,
            "listKind": format!("{kind}List"),
            "plural": plural,
            "singular": kind.to_ascii_lowercase(),
            "categories": ["istio-io", group.replace('.', "-")],
        });
        if !short.is_empty() {
            names["shortNames"] = json!(short);
        }
        let versions: Vec<_> = (0..self.versions.len()).map(|index| self.version(index)).collect();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.{group}"),
                "labels": {
                    "app.kubernetes.io/name": "weft",
                    "app.kubernetes.io/part-of": "weft",
                    "app.kubernetes.io/managed-by": "weft",
                },
            },
            "spec": { "group": group, "names": names, "scope": "Namespaced", "versions": versions },
        })
    }

    fn version(&self, index: usize) -> Value {
        let column = |(name, path, description): &(&str, &str, &str)| json!({ "name": name, "type": "string", "jsonPath": path, "description": description });
        let age = json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" });
        let columns: Vec<_> = self.columns.iter().map(column).chain([age]).collect();
        json!({
            "name": self.versions[index],
            "served": true,
            "storage": index == 0,
            "subresources": { "status": {} },
            "additionalPrinterColumns": columns,
            "schema": { "openAPIV3Schema": {
                "type": "object",
                "properties": { "spec": (self.spec)(), "status": status() },
            } },
        })
    }
}

/// Istio's status. Several controllers write conditions side by side.
fn status() -> Value {
    let text = || json!({ "type": "string" });
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "conditions": {
                "type": "array",
                "description": "What controllers say about it",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "required": ["type"],
                    "properties": {
                        "type": text(),
                        "status": text(),
                        "reason": text(),
                        "message": text(),
                        "lastTransitionTime": text(),
                    },
                },
            },
            "observedGeneration": { "x-kubernetes-int-or-string": true },
            "validationMessages": {
                "type": "array",
                "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            },
        },
    })
}

#[cfg(test)]
mod tests;
