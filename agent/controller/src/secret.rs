//! A CA as a Secret holds it: in Istio's layout, or in that of cert-manager.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use weft_identity::Parts;

const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";

/// As cert-manager names them: the certificate with its chain, the key, the root.
const TLS_CERTIFICATE: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const TLS_ROOT: &str = "ca.crt";

/// Why a Secret holds no CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misshapen {
    /// Neither layout.
    #[error(
        "it has neither {KEY}, {CERTIFICATE} and {ROOTS} (as Istio's cacerts) nor {TLS_KEY} and {TLS_CERTIFICATE} (as cert-manager's)"
    )]
    Unknown,
    /// One layout, incomplete.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Nothing of PEM.
    #[error("{key} holds no {what} in PEM")]
    NotPem {
        /// In the Secret.
        key: &'static str,
        /// What belongs there.
        what: &'static str,
    },
    /// cert-manager's issuer tells no root.
    #[error(
        "{TLS_ROOT} is missing and {TLS_CERTIFICATE} does not end in a root: put the root of the chain under {TLS_ROOT}"
    )]
    NoRoot,
}

type Data = BTreeMap<String, ByteString>;

/// Reads the CA of a Secret.
pub fn parts(secret: &Secret) -> Result<Parts, Misshapen> {
    let none = Data::new();
    let data = secret.data.as_ref().unwrap_or(&none);
    if data.contains_key(KEY) || data.contains_key(CERTIFICATE) {
        istio(data)
    } else if data.contains_key(TLS_KEY) {
        cert_manager(data)
    } else {
        Err(Misshapen::Unknown)
    }
}

fn istio(data: &Data) -> Result<Parts, Misshapen> {
    let key = key(data, KEY)?;
    let mut own = required(data, CERTIFICATE)?.into_iter();
    let certificate = own.next().ok_or(Misshapen::NotPem { key: CERTIFICATE, what: CERTIFICATES })?;
    let chain = own.chain(certificates(data, CHAIN)?.unwrap_or_default()).collect();
    Ok(Parts { key, certificate, chain, roots: required(data, ROOTS)? })
}

fn cert_manager(data: &Data) -> Result<Parts, Misshapen> {
    let key = key(data, TLS_KEY)?;
    let own = required(data, TLS_CERTIFICATE)?;
    let roots = match certificates(data, TLS_ROOT)? {
        Some(roots) if !roots.is_empty() => roots,
        _ => own.last().filter(|last| is_root(last)).cloned().into_iter().collect(),
    };
    if roots.is_empty() {
        return Err(Misshapen::NoRoot);
    }
    let mut own = own.into_iter();
    let certificate = own.next().ok_or(Misshapen::NotPem { key: TLS_CERTIFICATE, what: CERTIFICATES })?;
    Ok(Parts { key, certificate, chain: own.collect(), roots })
}

fn is_root(der: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(der)
        .is_ok_and(|(_, certificate)| certificate.subject().as_raw() == certificate.issuer().as_raw())
}

const CERTIFICATES: &str = "certificate";

fn key(data: &Data, name: &'static str) -> Result<KeyPair, Misshapen> {
    let pem = data.get(name).ok_or(Misshapen::Missing(name))?;
    let key = std::str::from_utf8(&pem.0).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
    key.ok_or(Misshapen::NotPem { key: name, what: "private key" })
}

fn required(data: &Data, name: &'static str) -> Result<Vec<CertificateDer<'static>>, Misshapen> {
    let all = certificates(data, name)?.ok_or(Misshapen::Missing(name))?;
    if all.is_empty() { Err(Misshapen::NotPem { key: name, what: CERTIFICATES }) } else { Ok(all) }
}

/// `None`: there is no such key.
fn certificates(data: &Data, name: &'static str) -> Result<Option<Vec<CertificateDer<'static>>>, Misshapen> {
    let Some(pem) = data.get(name) else { return Ok(None) };
    let all = CertificateDer::pem_slice_iter(&pem.0).collect::<Result<_, _>>();
    all.map(Some).map_err(|_| Misshapen::NotPem { key: name, what: CERTIFICATES })
}

/// A Secret with a root that was just made, in Istio's layout.
pub fn new(name: &str, key: &KeyPair, certificate: &rcgen::Certificate) -> Secret {
    let pem = certificate.pem();
    let data = [(KEY, key.serialize_pem()), (CERTIFICATE, pem.clone()), (CHAIN, pem.clone()), (ROOTS, pem)];
    Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests;
