//! What a service port speaks: `appProtocol`, else the first part of its name, else whatever its first bytes show.

use weft_api::kubernetes::ServicePort;

use crate::snapshot::Protocol;

/// Reads a port's declaration.
pub(super) fn declared(port: &ServicePort) -> Protocol {
    // An appProtocol that nobody knows says nothing; the name may.
    let by_app_protocol = port.app_protocol.as_deref().and_then(|name| by_name(&name.to_ascii_lowercase()));
    let by_port_name = || {
        let name = port.name.to_ascii_lowercase();
        // grpc-web is the one protocol with a dash in it.
        let first =
            if name == "grpc-web" || name.starts_with("grpc-web-") { "grpc-web" } else { first_part(&name) };
        by_name(first)
    };
    by_app_protocol.or_else(by_port_name).unwrap_or(Protocol::Detect)
}

fn first_part(name: &str) -> &str {
    name.split_once('-').map_or(name, |(first, _)| first)
}

fn by_name(name: &str) -> Option<Protocol> {
    Some(match name {
        "http" | "http1" | "ws" | "kubernetes.io/ws" => Protocol::Http,
        "http2" | "h2c" | "kubernetes.io/h2c" | "grpc" | "grpc-web" => Protocol::Http2,
        "tcp" | "tls" | "https" | "wss" | "kubernetes.io/wss" | "udp" | "mongo" | "mysql" | "redis"
        | "hbone" => Protocol::Tcp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_is_read_from_app_protocol_then_name() {
        for (name, app_protocol, expected) in [
            ("http", None, Protocol::Http),
            ("http-web", None, Protocol::Http),
            ("HTTP2-x", None, Protocol::Http2),
            ("grpc-web-x", None, Protocol::Http2),
            ("grpc", None, Protocol::Http2),
            ("https", None, Protocol::Tcp),
            ("mysql-main", None, Protocol::Tcp),
            ("web", None, Protocol::Detect),
            ("", None, Protocol::Detect),
            ("httpweb", None, Protocol::Detect),
            ("tcp", Some("http"), Protocol::Http),
            ("http", Some("kubernetes.io/h2c"), Protocol::Http2),
            ("http", Some("example.com/own"), Protocol::Http),
            ("", Some("kubernetes.io/ws"), Protocol::Http),
        ] {
            let port = ServicePort {
                name: name.into(),
                app_protocol: app_protocol.map(str::to_owned),
                ..ServicePort::default()
            };
            assert_eq!(declared(&port), expected, "{name:?} {app_protocol:?}");
        }
    }
}
