//! Every kind that weft reads, in one type.

use std::io::Write;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::istio::{
    AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, RequestAuthentication, VirtualService,
};
use crate::kubernetes::network_policy::NetworkPolicy;
use crate::kubernetes::{ConfigMap, EndpointSlice, Namespace, Pod, Secret, Service};
use crate::meta::{ObjectKey, ObjectMeta};

/// Reads objects from whatever they are written in.
pub(crate) trait Source {
    /// Reads one of this type; `None`: it does not fit.
    fn read<T: DeserializeOwned>(&mut self) -> Option<T>;
}

/// Makes [`Object`] and [`Kind`] of one list: kinds by the names of their types.
macro_rules! objects {
    ($($(#[$meaning:meta])* $kind:ident,)*) => {
        /// An accepted object: parsed, without unknown fields, semantically valid.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Object {
            $($(#[$meaning])* $kind(Arc<$kind>),)*
        }

        /// A kind that weft reads. What else is known of it is in [`crate::kinds`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$meaning])* $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$kind,)*];
            /// How many there are.
            pub const COUNT: usize = [$(stringify!($kind),)*].len();

            /// `VirtualService`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)*
                }
            }

            /// Reads an object of this kind.
            pub(crate) fn read(self, source: &mut impl Source) -> Option<Object> {
                match self {
                    $(Self::$kind => source.read().map(|object| Object::$kind(Arc::new(object))),)*
                }
            }
        }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// The object's metadata.
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                }
            }

            /// The metadata of an object that nobody else holds yet.
            pub(crate) fn metadata_mut(&mut self) -> Option<&mut ObjectMeta> {
                match self {
                    $(Self::$kind(object) => Arc::get_mut(object).map(|object| &mut object.metadata),)*
                }
            }

            /// Writes it as JSON, as far as weft reads it.
            ///
            /// # Errors
            /// Those of `to` alone.
            pub fn write_json(&self, to: impl Write) -> serde_json::Result<()> {
                match self {
                    $(Self::$kind(object) => serde_json::to_writer(to, object),)*
                }
            }
        }
    };
}

objects! {
    /// `v1` Namespace: its labels opt pods in.
    Namespace,
    /// `v1` Pod.
    Pod,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` ConfigMap: MeshConfig lives in one.
    ConfigMap,
    /// `v1` Secret: certificates of gateways. An agent in a cluster has no right to read one, and is given those that it needs.
    Secret,
    /// `networking.k8s.io/v1` NetworkPolicy: the network enforces it, and weft tells what it keeps out of the mesh.
    NetworkPolicy,
    /// `networking.istio.io` VirtualService.
    VirtualService,
    /// `networking.istio.io` DestinationRule.
    DestinationRule,
    /// `networking.istio.io` Gateway.
    Gateway,
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication,
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy,
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication,
}

impl Object {
    /// The object's name in full.
    pub fn key(&self) -> ObjectKey {
        let meta = self.metadata();
        ObjectKey::new(self.kind(), &meta.namespace, &meta.name)
    }
}
