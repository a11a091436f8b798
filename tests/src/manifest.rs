//! What the API server and the kubelet would say of a world's namespaces, pods and services.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A Namespace, in the mesh or not.
pub fn namespace(name: &str, labels: &[(String, String)]) -> String {
    let mut yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n");
    map(&mut yaml, "  ", "labels", labels);
    yaml
}

/// A pod to be.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// Unique in its world.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Annotations beside the one that names its network namespace.
    pub annotations: Vec<(String, String)>,
    /// Node; absent from the manifest when `None`.
    pub node: Option<String>,
    /// Service account.
    pub service_account: String,
    /// Ports that the kubelet probes, by HTTP.
    pub probes: Vec<u16>,
    /// Further lines of its container: `livenessProbe: {…}`.
    pub container: Vec<String>,
}

impl PodSpec {
    /// As the API server has it.
    pub fn yaml(&self, netns: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> String {
        let Self { name, namespace, service_account, .. } = self;
        let mut yaml =
            format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n");
        map(&mut yaml, "  ", "labels", &self.labels);
        let mut annotations = vec![("weft.dev/netns".to_owned(), netns.to_owned())];
        annotations.extend(self.annotations.iter().cloned());
        map(&mut yaml, "  ", "annotations", &annotations);
        let _ = writeln!(yaml, "spec:\n  serviceAccountName: {service_account}");
        if let Some(node) = &self.node {
            let _ = writeln!(yaml, "  nodeName: {node}");
        }
        let _ = writeln!(yaml, "  containers:\n  - name: app\n    image: weft-app");
        for (probe, port) in ["livenessProbe", "readinessProbe", "startupProbe"].iter().zip(&self.probes) {
            let _ = writeln!(yaml, "    {probe}:\n      httpGet: {{path: /, port: {port}}}");
        }
        for line in &self.container {
            let _ = writeln!(yaml, "    {line}");
        }
        let _ = write!(
            yaml,
            "status:\n  phase: Running\n  podIP: {v4}\n  podIPs:\n  - ip: {v4}\n  - ip: \"{v6}\"\n"
        );
        yaml
    }
}

/// A service to be.
#[derive(Debug, Clone)]
pub struct ServiceSpec {
    /// Name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Name (empty for none), port, target port, appProtocol (empty for none).
    pub ports: Vec<(String, u16, u16, String)>,
    /// Labels of its pods.
    pub selector: Vec<(String, String)>,
}

impl ServiceSpec {
    /// As the API server has it.
    pub fn yaml(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> String {
        let Self { name, namespace, .. } = self;
        let mut yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
             spec:\n  clusterIP: {v4}\n  clusterIPs:\n  - {v4}\n  - \"{v6}\"\n  ports:\n"
        );
        for (port_name, port, target, app_protocol) in &self.ports {
            let _ = writeln!(yaml, "  - port: {port}\n    targetPort: {target}");
            if !port_name.is_empty() {
                let _ = writeln!(yaml, "    name: {port_name}");
            }
            if !app_protocol.is_empty() {
                let _ = writeln!(yaml, "    appProtocol: {app_protocol}");
            }
        }
        map(&mut yaml, "  ", "selector", &self.selector);
        yaml
    }

    /// Whether a pod is behind it.
    pub fn selects(&self, pod: &PodSpec) -> bool {
        !self.selector.is_empty()
            && self.namespace == pod.namespace
            && self.selector.iter().all(|label| pod.labels.contains(label))
    }
}

fn map(yaml: &mut String, indent: &str, name: &str, entries: &[(String, String)]) {
    if entries.is_empty() {
        return;
    }
    let _ = writeln!(yaml, "{indent}{name}:");
    for (key, value) in entries {
        // Plain `true` or `1` would not be a string.
        let _ = writeln!(yaml, "{indent}  {key}: \"{value}\"");
    }
}
