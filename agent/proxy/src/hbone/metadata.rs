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

/// `traceparent` of a tunnel: a trace of its own, not sampled, as ztunnel begins one (W3C Trace Context, 3.2.2).
pub(super) fn traceparent() -> Option<HeaderValue> {
    // All zeroes are no id.
    let (trace, parent) = (fastrand::u128(1..), fastrand::u64(1..));
    HeaderValue::try_from(format!("00-{trace:032x}-{parent:016x}-00")).ok()
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

    #[test]
    fn a_trace_begins_with_ids_of_their_length() {
        let value = traceparent().unwrap();
        let lengths: Vec<_> = value.to_str().unwrap().split('-').map(str::len).collect();
        assert_eq!(lengths, [2, 32, 16, 2]);
    }
}
