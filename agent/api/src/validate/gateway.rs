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
            ending(report, tls);
        }
        (Some(ServerProtocol::Tcp), Some(tls)) => ending(report, tls),
        (Some(ServerProtocol::Http), Some(tls)) if !tls.https_redirect => {
            let message =
                "a port of plain HTTP has no TLS: only httpsRedirect has an effect (write protocol: HTTPS)";
            report.warning(code::NO_EFFECT, message);
        }
        _ => {}
    }
}

/// Checks what TLS is ended by.
fn ending(report: &mut Report, tls: &ServerTls) {
    let by_secret = tls.certificate_secrets().next().is_some();
    let is_given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let single = [
        ("serverCertificate", &tls.server_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
    ];
    if tls.mode == ServerTlsMode::IstioMutual {
        let secret = [("credentialName", &tls.credential_name)];
        for (field, _) in single.into_iter().chain(secret).filter(|(_, text)| is_given(text)) {
            let message = "with ISTIO_MUTUAL the mesh's own certificate serves (take the field away, or write mode: MUTUAL)";
            report.field(field, |r| r.error(code::CONFLICTING_FIELDS, message));
        }
    }
    if tls.ends_here() && !by_secret {
        let by_files = !tls.tls_certificates.is_empty();
        if !by_files && !is_given(&tls.server_certificate) {
            let message = "to end TLS here takes a certificate (name its Secret in credentialName)";
            return report.error(code::MISSING_FIELD, message);
        }
        if !by_files && !is_given(&tls.private_key) {
            let message = "a certificate takes its key (name its file, or a Secret in credentialName)";
            report.field("privateKey", |r| r.error(code::MISSING_FIELD, message));
        }
        let roots = is_given(&tls.ca_certificates) || is_given(&tls.ca_cert_credential_name);
        if tls.asks_clients() && !roots && tls.insecure_skip_verify != Some(true) {
            let message = "to check clients takes roots (name their file, or a Secret in credentialName)";
            report.field("caCertificates", |r| r.error(code::MISSING_FIELD, message));
        }
    }
    let bounds = [&tls.min_protocol_version, &tls.max_protocol_version];
    let numbers = bounds.map(|text| text.as_deref().and_then(ServerTls::version_number));
    for (field, text) in ["minProtocolVersion", "maxProtocolVersion"].into_iter().zip(bounds) {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty() && *text != "TLS_AUTO")
            && ServerTls::version_number(text).is_none()
        {
            let message = format!("{:?} is no version (TLSV1_2, TLSV1_3 or TLS_AUTO)", shorten(text));
            report.field(field, |r| r.error(code::INVALID_VALUE, message));
        }
    }
    match numbers {
        [Some(oldest), Some(newest)] if oldest > newest => {
            let message = "the oldest version is newer than the newest (exchange them)";
            report.field("minProtocolVersion", |r| r.error(code::CONFLICTING_FIELDS, message));
        }
        [_, Some(newest)] if newest < ServerTls::OLDEST_VERSION => {
            let message = "weft speaks TLS 1.2 and 1.3 alone: the server is closed (write TLSV1_2)";
            report.field("maxProtocolVersion", |r| r.warning(code::NO_EFFECT, message));
        }
        [Some(oldest), _] if oldest < ServerTls::OLDEST_VERSION => {
            let message = "weft speaks TLS 1.2 at the oldest";
            report.field("minProtocolVersion", |r| r.warning(code::NO_EFFECT, message));
        }
        _ => {}
    }
    report.each("cipherSuites", &tls.cipher_suites, |r, name| {
        if !name.is_empty() && !ServerTls::CIPHERS.contains(&&**name) {
            let message = format!(
                "weft does not speak {:?} (of TLS 1.2 it speaks {})",
                shorten(name),
                ServerTls::CIPHERS.join(", ")
            );
            r.warning(code::NO_EFFECT, message);
        }
    });
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
        let is_auto = |tls: &ServerTls| tls.mode == ServerTlsMode::AutoPassthrough;
        if server.port.speaks() != Some(ServerProtocol::Http) && server.tls.as_ref().is_some_and(is_auto) {
            r.field("tls", |r| {
                r.field("mode", |r| not_in_force::tell(r, "nothing listens there"));
            });
        }
        if server.bind.is_some() {
            r.field("bind", |r| not_in_force::tell(r, "it listens on every address of the pod"));
        }
    });
}
