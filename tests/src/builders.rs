//! Pods and services to be.

use std::sync::Arc;

use anyhow::Result;

use crate::manifest::{PodSpec, ServiceSpec};
use crate::mesh::Mesh;
use crate::pod::Pod;
use crate::process::write_whole;

/// A pod to be.
#[must_use]
#[derive(Debug)]
pub struct PodBuilder<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) spec: PodSpec,
    pub(crate) app: Vec<String>,
}

impl PodBuilder<'_> {
    /// Its namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.spec.namespace);
        self
    }

    /// A label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.spec.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// An annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.spec.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Its node.
    pub fn node(mut self, node: &str) -> Self {
        self.spec.node = Some(node.to_owned());
        self
    }

    /// Its service account.
    pub fn service_account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.spec.service_account);
        self
    }

    /// A port that the kubelet probes, by HTTP; up to three.
    pub fn probe(mut self, port: u16) -> Self {
        self.spec.probes.push(port);
        self
    }

    /// A line of its container's manifest: `livenessProbe: {…}`.
    pub fn container(mut self, line: &str) -> Self {
        self.spec.container.push(line.to_owned());
        self
    }

    /// `weft-app` in a role; the pod's name and its label `version` are told to it.
    pub fn app<'w>(mut self, words: impl IntoIterator<Item = &'w str>) -> Self {
        self.app = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// Makes it: network, program, manifest, in this order.
    pub fn start(self) -> Result<Arc<Pod>> {
        let Self { mesh, spec, mut app } = self;
        let name = spec.name.clone();
        let version = spec.labels.iter().find(|(key, _)| key == "version").map(|(_, value)| value.clone());
        let pod = mesh.add_pod(spec)?;
        if let Some(role) = app.first() {
            if !matches!(role.as_str(), "tcp-echo" | "greet") {
                app.extend(["--name".to_owned(), name.clone()]);
                app.extend(version.into_iter().flat_map(|version| ["--version".to_owned(), version]));
            }
            pod.app(&app.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        write_whole(&mesh.pod_file(&name), &pod.spec.yaml(&pod.netns, pod.ip, pod.ip6))?;
        mesh.update_kube_proxy()?;
        Ok(pod)
    }
}

/// A service to be.
#[must_use]
#[derive(Debug)]
pub struct ServiceBuilder<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) spec: ServiceSpec,
}

impl ServiceBuilder<'_> {
    /// Its namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.spec.namespace);
        self
    }

    /// A label of its pods.
    pub fn selector(mut self, key: &str, value: &str) -> Self {
        self.spec.selector.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A port; an empty name is none.
    pub fn port(self, name: &str, port: u16, target: u16) -> Self {
        self.port_of(name, port, target, "")
    }

    /// A port with an `appProtocol`.
    pub fn port_of(mut self, name: &str, port: u16, target: u16, app_protocol: &str) -> Self {
        self.spec.ports.push((name.to_owned(), port, target, app_protocol.to_owned()));
        self
    }

    /// Makes it.
    pub fn create(self) -> Result<()> {
        let Self { mesh, spec } = self;
        mesh.add_service(spec)
    }
}
