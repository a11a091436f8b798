//! What a client of a gateway has proved by its certificate, and how endpoints are told.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use weft_api::identity::Identity;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::clients::hex;

/// Nobody is told more of one: where anybody's will do, that is for the client to say.
const LONGEST: usize = 16 << 10;

/// A client's certificate.
#[derive(Debug)]
pub struct ClientCertificate {
    /// Who it is, where its certificate names a workload.
    pub identity: Option<Arc<Identity>>,
    /// As `x-forwarded-client-cert` has it, in the details that Istio's gateways tell.
    pub told: Option<HeaderValue>,
}

impl ClientCertificate {
    /// What the peer of a finished handshake has shown; `None`: nothing.
    pub fn of(connection: &CommonState) -> Option<Self> {
        let leaf = connection.peer_certificates()?.first()?;
        let identity = crate::peer(connection).map(Arc::new);
        Some(Self {
            identity,
            told: Some(told(leaf)).filter(|told| told.len() <= LONGEST).and_then(|told| told.try_into().ok()),
        })
    }
}

/// `By=;Hash=…;Cert="…";Subject="…";URI=…;DNS=…`, in Envoy's order.
/// <https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert>
fn told(leaf: &CertificateDer<'_>) -> String {
    let mut text = String::from("By=;Hash=");
    text.push_str(&hex(digest(&SHA256, leaf).as_ref()));
    let _ = write!(text, ";Cert=\"{}\"", escaped(&pem(leaf)));
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return text };
    let _ = write!(text, ";Subject=\"{}\"", subject(&parsed));
    let (mut uris, mut names) = (Vec::new(), Vec::new());
    for extension in parsed.extensions() {
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() {
            for name in &alternative.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push(*uri),
                    GeneralName::DNSName(name) => names.push(*name),
                    _ => {}
                }
            }
        }
    }
    for (key, values) in [("URI", &uris), ("DNS", &names)] {
        if values.is_empty() && key == "URI" {
            text.push_str(";URI=");
        }
        for value in values {
            let _ = write!(text, ";{key}={}", quoted(value));
        }
    }
    text
}

/// As RFC 2253 has it: the last part first.
fn subject(parsed: &X509Certificate<'_>) -> String {
    let parts = parsed.subject().iter_rdn().map(|rdn| {
        let attributes = rdn.iter().map(|attribute| {
            let name =
                x509_parser::objects::oid2abbrev(attribute.attr_type(), x509_parser::objects::oid_registry());
            let name = name.map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            let value = attribute.as_str().unwrap_or_default();
            let mut escaped = String::with_capacity(value.len());
            for letter in value.chars() {
                if matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
                    escaped.push('\\');
                }
                if !letter.is_control() {
                    escaped.push(letter);
                }
            }
            format!("{name}={escaped}")
        });
        attributes.collect::<Vec<_>>().join("+")
    });
    let mut parts: Vec<String> = parts.collect();
    parts.reverse();
    parts.join(",")
}

/// A value in which a separator would end it is put in quotes.
fn quoted(value: &str) -> String {
    if value.contains([',', ';', '=', '"']) {
        format!("\"{}\"", value.replace('"', "\\\""))
    } else {
        value.to_owned()
    }
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::prelude::BASE64_STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// Percent-encoded, as Envoy has it in URLs.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn endpoints_are_told_as_envoy_tells_them() {
        let mut params = CertificateParams::new(["a.test".to_owned(), "b.test".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://d/ns/a/sa/b".try_into().unwrap()));
        params.distinguished_name.push(DnType::OrganizationName, "Shop, \"Inc\"; By=me");
        params.distinguished_name.push(DnType::CommonName, "client");
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let told = told(leaf.der());
        assert!(
            told.starts_with("By=;Hash=") && told.contains(";Cert=\"-----BEGIN%20CERTIFICATE-----%0A"),
            "{told}"
        );
        assert!(told.ends_with(";URI=spiffe://d/ns/a/sa/b;DNS=a.test;DNS=b.test"), "{told}");
        // What a certificate calls itself does not end the part that it is in.
        let (_, subject) = told.split_once(";Subject=\"").unwrap();
        let (subject, _) = subject.split_once("\";URI=").unwrap();
        let expected = r#"O=Shop\, \"Inc\"\; By=me,CN=client"#;
        assert_eq!(subject, expected);
    }
}
