//! Where an opaque TCP connection goes.

use std::sync::Arc;

use crate::route::http_route::Destination;

/// What to do with a connection.
#[derive(Debug, Clone)]
pub enum TcpDecision {
    /// To a destination, by rule or because the address is a service's.
    Forward {
        /// Where to.
        destination: Destination,
        /// `namespace/name` of the VirtualService that decided; `None` for a default.
        virtual_service: Option<Arc<str>>,
    },
    /// The service has `tcp` rules and none matches: close, flag `NR`.
    NoRoute,
    /// Nobody knows the address: to where the caller dialled.
    Passthrough,
    /// Nobody knows the address, under REGISTRY_ONLY: reset.
    BlackHole,
}
