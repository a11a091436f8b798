//! What a service port speaks: `appProtocol`, else the first part of its name, else whatever its first bytes show.

use weft_api::kubernetes::ServicePort;

/// What a service port speaks, by declaration (`appProtocol`, then the port's name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1 or h2c from the client; HTTP/1.1 to the endpoint.
    Http,
    /// HTTP (either version) from the client; HTTP/2 with prior knowledge to the endpoint. `http2`, `grpc`, `grpc-web`, `h2c`.
    Http2,
    /// Bytes. `tcp`, `tls`, `https`, `mongo`, `mysql`, `redis`, …
    Tcp,
    /// Undeclared: what the first bytes show; the endpoint is spoken to in the client's version.
    Detect,
}

/// What a port's declaration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) protocol: Protocol,
    /// It is bytes of TLS, which weft passes on as they are: rules go by the server name that clients send.
    pub(crate) is_tls: bool,
}

/// Reads a port's declaration.
pub(crate) fn declared(port: &ServicePort) -> Declared {
    // An appProtocol that nobody knows says nothing; the name may.
    let app_protocol = port.app_protocol.as_deref().map(str::to_ascii_lowercase);
    let name = port.name.to_ascii_lowercase();
    let app_protocol = app_protocol.as_deref().filter(|word| by_name(word).is_some());
    let word = app_protocol.unwrap_or_else(|| first_part(&name));
    Declared {
        protocol: by_name(word).unwrap_or(Protocol::Detect),
        is_tls: matches!(word, "tls" | "https" | "wss" | "kubernetes.io/wss"),
    }
}

fn first_part(name: &str) -> &str {
    // grpc-web is the one protocol with a dash in it.
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return "grpc-web";
    }
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
            assert_eq!(declared(&port).protocol, expected, "{name:?} {app_protocol:?}");
        }
    }
}
