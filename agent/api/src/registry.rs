//! What the registry says over HTTP: services and where they are, in the shape of Istio's old discovery API (v1).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// GET, answers a list of [`Registration`]; followed by `/` and a service key, its [`Hosts`].
pub const PATH: &str = "/v1/registration";

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// `name.namespace.svc.cluster.local|port-name`; for a port without a name, the host alone.
    #[serde(rename = "service-key")]
    pub service_key: String,
    /// Its ready endpoints.
    pub hosts: Vec<Host>,
}

/// The endpoints of one service key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// In the order of their addresses.
    pub hosts: Vec<Host>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Host {
    /// The pod's address.
    pub ip_address: IpAddr,
    /// The pod's own port.
    pub port: u16,
}
