//! Gateway.

use std::collections::HashMap;

use super::text::{is_label, wrong_host};
use super::{Report, not_in_force};
use crate::finding::code;
use crate::istio::{GatewayServer, GatewaySpec, ServerProtocol, ServerTls, ServerTlsMode};
use crate::yaml::shorten;

/// Checks `spec`.
pub(super) fn check(report: &mut Report, spec: &GatewaySpec) {
    if spec.servers.is_empty() {
        let message = "a Gateway without servers serves nothing (write port and hosts of one)";
        report.field("servers", |r| r.error(code::MISSING_FIELD, message));
    }
    if spec.selector.is_empty() {
        let message = "without a selector no pod serves it (write selector: {istio: ingressgateway})";
        report.field("selector", |r| r.warning(code::NO_EFFECT, message));
    }
    report.each("servers", &spec.servers, server);
    names(report, &spec.servers);
    port_names(report, &spec.servers);
}

fn server(report: &mut Report, server: &GatewayServer) {
    let port = &server.port;
    let speaks = port.speaks();
    report.field("port", |r| {
        r.field("number", |r| r.port(port.number));
        match (&*port.protocol, speaks) {
            ("", _) => {
                let message = "a server's port needs a protocol (HTTP, HTTPS, TLS, TCP, GRPC or HTTP2)";
                r.field("protocol", |r| r.error(code::MISSING_FIELD, message));
            }
            (protocol, None) => r.field("protocol", |r| {
                let message = format!(
                    "{:?} is no protocol of a Gateway (HTTP, HTTPS, TLS, TCP, GRPC, GRPC-WEB, HTTP2 or MONGO)",
                    shorten(protocol)
                );
                r.error(code::INVALID_VALUE, message);
            }),
            (_, Some(_)) => {}
        }
        if port.name.is_empty() {
            r.field("name", |r| r.error(code::MISSING_FIELD, "a server's port needs a name (write http)"));
        }
    });
    if server.hosts.is_empty() {
        let message = "a server needs the hosts that it answers to (\"*\" for all)";
        report.field("hosts", |r| r.error(code::MISSING_FIELD, message));
    }
    report.each("hosts", &server.hosts, |r, host| {
        if let Some(wrong) = wrong_server_host(host) {
            r.error(code::INVALID_HOST, wrong);
        }
    });
    report.field("tls", |r| {
        server.tls.iter().for_each(|it| credentials(r, it));
        tls(r, speaks, server.tls.as_ref());
    });
}

/// What is wrong with `host`, `namespace/host`, `./host` or `*/host`.
fn wrong_server_host(text: &str) -> Option<String> {
    let host = match text.split_once('/') {
        Some((namespace, host)) => {
            if !matches!(namespace, "*" | ".") && !is_label(namespace) {
                return Some(format!(
                    "{:?} is no namespace (write namespace/host, ./host for the Gateway's own, or */host)",
                    shorten(namespace)
                ));
            }
            host
        }
        None => text,
    };
    wrong_host(host)
}

fn tls(report: &mut Report, speaks: Option<ServerProtocol>, tls: Option<&ServerTls>) {
    match (speaks, tls) {
        (Some(ServerProtocol::Tls), None) => {
            let message =
                "a port of TLS needs tls (write mode: SIMPLE and credentialName, or mode: PASSTHROUGH)";
            report.error(code::MISSING_FIELD, message);
        }
        (Some(ServerProtocol::Tls), Some(tls)) => {
            if tls.https_redirect {
                let message = "the port speaks TLS already: httpsRedirect is for a port with protocol HTTP";
                report.field("httpsRedirect", |r| r.error(code::CONFLICTING_FIELDS, message));
            }
            let ends = matches!(
                tls.mode,
                ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
            );
            let by_secret = tls.credential_name.is_some() || !tls.credential_names.is_empty();
            let by_file = tls.server_certificate.is_some() || !tls.tls_certificates.is_empty();
            if ends && !by_secret && !by_file {
                let message = "to end TLS here takes a certificate (name its Secret in credentialName)";
                report.error(code::MISSING_FIELD, message);
            }
        }
        (Some(ServerProtocol::Http), Some(tls)) if !tls.https_redirect => {
            let message =
                "a port of plain HTTP has no TLS: only httpsRedirect has an effect (write protocol: HTTPS)";
            report.warning(code::NO_EFFECT, message);
        }
        _ => {}
    }
}

fn names(report: &mut Report, servers: &[GatewayServer]) {
    let mut seen = HashMap::new();
    for (index, server) in servers.iter().enumerate() {
        let Some(name) = server.name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if seen.insert(name, index).is_some() {
            report.item("servers", index, |r| {
                let message = format!("{:?} is another server's name already", shorten(name));
                r.field("name", |r| r.error(code::CONFLICTING_FIELDS, message));
            });
        }
    }
}

/// As Istio's webhook has it: a port's name is its server's.
fn port_names(report: &mut Report, servers: &[GatewayServer]) {
    let mut seen = HashMap::new();
    for (index, name) in servers.iter().map(|server| server.port.name.as_str()).enumerate() {
        if name.is_empty() {
            continue;
        }
        let first = *seen.entry(name).or_insert(index);
        if first != index {
            report.item("servers", index, |r| {
                let name = shorten(name);
                let message = format!(
                    "{name:?} is the name of the port of servers[{first}] already (write another, as {name}-{index})"
                );
                r.field("port", |r| r.field("name", |r| r.error(code::DUPLICATE_NAME, message)));
            });
        }
    }
}

/// Where certificates come from: one way, for two kinds of keys at most.
fn credentials(report: &mut Report, tls: &ServerTls) {
    const MOST: usize = 2;
    let several = !tls.credential_names.is_empty();
    if several && (tls.credential_name.is_some() || !tls.tls_certificates.is_empty()) {
        let message = "credentialNames stands alone (take credentialName and tlsCertificates away)";
        report.field("credentialNames", |r| r.error(code::CONFLICTING_FIELDS, message));
    }
    for (field, count) in
        [("credentialNames", tls.credential_names.len()), ("tlsCertificates", tls.tls_certificates.len())]
    {
        if count > MOST {
            let message =
                format!("{count} of them (at most {MOST}: one with an RSA key, one with an ECDSA key)");
            report.field(field, |r| r.error(code::INVALID_VALUE, message));
        }
    }
}

/// Tells what has no effect yet.
pub(super) fn without_force(report: &mut Report, spec: &GatewaySpec) {
    report.each("servers", &spec.servers, |r, server| {
        let passes = |tls: &ServerTls| tls.mode == ServerTlsMode::Passthrough;
        let tls = server.tls.as_ref().filter(|tls| !passes(tls));
        if matches!(server.port.speaks(), Some(ServerProtocol::Tls | ServerProtocol::Tcp)) && tls.is_some() {
            r.field("tls", |r| {
                r.field("mode", |r| {
                    not_in_force::tell(r, "nothing listens there; of TLS only PASSTHROUGH comes in");
                });
            });
        }
        if server.bind.is_some() {
            r.field("bind", |r| not_in_force::tell(r, "it listens on every address of the pod"));
        }
    });
}
