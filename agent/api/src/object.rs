//! Every kind that weft reads, in one type.

use std::sync::Arc;

use crate::istio::{
    AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, RequestAuthentication, VirtualService,
};
use crate::kubernetes::network_policy::NetworkPolicy;
use crate::kubernetes::{ConfigMap, EndpointSlice, Namespace, Pod, Service};
use crate::meta::{ObjectKey, ObjectMeta};

/// An accepted object: parsed, without unknown fields, semantically valid.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// `v1` Namespace: its labels opt pods in.
    Namespace(Arc<Namespace>),
    /// `v1` Pod.
    Pod(Arc<Pod>),
    /// `v1` Service.
    Service(Arc<Service>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// `v1` ConfigMap: MeshConfig lives in one.
    ConfigMap(Arc<ConfigMap>),
    /// `networking.k8s.io/v1` NetworkPolicy: the network enforces it, and weft tells what it keeps out of the mesh.
    NetworkPolicy(Arc<NetworkPolicy>),
    /// `networking.istio.io` VirtualService.
    VirtualService(Arc<VirtualService>),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(Arc<DestinationRule>),
    /// `networking.istio.io` Gateway.
    Gateway(Arc<Gateway>),
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication(Arc<PeerAuthentication>),
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication(Arc<RequestAuthentication>),
}

impl Object {
    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "Namespace",
            Self::Pod(_) => "Pod",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::ConfigMap(_) => "ConfigMap",
            Self::NetworkPolicy(_) => "NetworkPolicy",
            Self::VirtualService(_) => "VirtualService",
            Self::DestinationRule(_) => "DestinationRule",
            Self::Gateway(_) => "Gateway",
            Self::PeerAuthentication(_) => "PeerAuthentication",
            Self::AuthorizationPolicy(_) => "AuthorizationPolicy",
            Self::RequestAuthentication(_) => "RequestAuthentication",
        }
    }

    /// The object's metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::ConfigMap(o) => &o.metadata,
            Self::NetworkPolicy(o) => &o.metadata,
            Self::VirtualService(o) => &o.metadata,
            Self::DestinationRule(o) => &o.metadata,
            Self::Gateway(o) => &o.metadata,
            Self::PeerAuthentication(o) => &o.metadata,
            Self::AuthorizationPolicy(o) => &o.metadata,
            Self::RequestAuthentication(o) => &o.metadata,
        }
    }

    /// The object's name in full.
    pub fn key(&self) -> ObjectKey {
        let meta = self.metadata();
        ObjectKey { kind: self.kind().to_owned(), namespace: meta.namespace.clone(), name: meta.name.clone() }
    }
}
