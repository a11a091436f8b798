//! Headers of a CONNECT that tell who calls: for telemetry at the other end, never for a decision.

use std::net::SocketAddr;

use http::HeaderValue;
use weft_rules::workload::Workload;

/// `baggage` as ztunnel writes it.
pub(super) fn baggage(caller: &Workload) -> Option<HeaderValue> {
    let Workload { namespace, workload_name, canonical_service, canonical_revision, .. } = caller;
    HeaderValue::try_from(format!(
        "k8s.cluster.name=Kubernetes,k8s.namespace.name={namespace},k8s.deployment.name={workload_name},\
         service.name={canonical_service},service.version={canonical_revision}"
    ))
    .ok()
}

/// `forwarded` with the program's own address (RFC 7239, 6: what has a colon is quoted).
pub(super) fn forwarded(peer: SocketAddr) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("for=\"{}\"", SocketAddr::new(peer.ip().to_canonical(), peer.port()))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_quoted() {
        assert_eq!(forwarded(([10, 0, 0, 1], 4711).into()).unwrap(), "for=\"10.0.0.1:4711\"");
        assert_eq!(forwarded("[fd00::1]:1".parse().unwrap()).unwrap(), "for=\"[fd00::1]:1\"");
        assert_eq!(forwarded("[::ffff:10.0.0.1]:1".parse().unwrap()).unwrap(), "for=\"10.0.0.1:1\"");
    }
}
