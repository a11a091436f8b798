//! What a workload's certificate says.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weft_api::identity::Identity;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// Why a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not DER of X.509.
    #[error("the certificate cannot be read")]
    Malformed,
    /// No URI among its names.
    #[error("the certificate names no SPIFFE ID (its subject alternative names hold no URI)")]
    NoUri,
    /// A SPIFFE certificate has one.
    #[error("the certificate has {0} URIs among its names; one is allowed")]
    SeveralUris(usize),
    /// Another form than `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    #[error("the certificate's URI {0:?} is not of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT")]
    NotAnIdentity(String),
    /// Of a mesh that this one does not trust.
    #[error("{0} is of a trust domain that is neither this mesh's nor an alias of it")]
    TrustDomain(Identity),
    /// A CA is no workload.
    #[error("the certificate is a CA's, not a workload's")]
    IsCa,
    /// Nothing can chain to it.
    #[error(
        "the certificate of {0} is named as a root, and is not a CA's (basicConstraints CA with keyCertSign is needed)"
    )]
    NotACa(Arc<str>),
    /// It may not prove who a peer is.
    #[error("the certificate's key may not sign (key usage without digitalSignature)")]
    KeyUsage,
    /// Istio's CAs, weft's and SPIRE say it in every certificate.
    #[error(
        "the certificate does not say what it is for (it has no extended key usage; serverAuth and clientAuth are needed)"
    )]
    NoPurpose,
    /// Chain, time, purpose, revocation.
    #[error("the certificate of {identity} does not hold: {}", words(problem))]
    Chain {
        /// Whom it names.
        identity: Identity,
        /// What webpki found.
        problem: webpki::Error,
    },
}

fn words(problem: &webpki::Error) -> String {
    match problem {
        webpki::Error::CertExpired { .. } => "it has ended, or one that it chains through".to_owned(),
        webpki::Error::CertNotValidYet { .. } => {
            "it is not good yet, or one that it chains through".to_owned()
        }
        webpki::Error::UnknownIssuer => "no root of this mesh signed it".to_owned(),
        webpki::Error::CertRevoked => "it is revoked, or one that it chains through".to_owned(),
        problem => problem.to_string(),
    }
}

/// What a workload's certificate says, its chain unproven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whom it names.
    pub identity: Identity,
    /// In hex.
    pub serial: String,
    /// From when it is good.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

/// Reads a workload's certificate.
pub fn read(der: &[u8]) -> Result<Facts, Refusal> {
    let certificate = parse(der)?;
    let identity = identity(&certificate)?;
    if certificate.is_ca() {
        return Err(Refusal::IsCa);
    }
    let usage = certificate.key_usage().map_err(|_| Refusal::Malformed)?;
    if usage.is_some_and(|usage| !usage.value.digital_signature()) {
        return Err(Refusal::KeyUsage);
    }
    // webpki checks what is said, and lets pass who says nothing.
    if certificate.extended_key_usage().map_err(|_| Refusal::Malformed)?.is_none() {
        return Err(Refusal::NoPurpose);
    }
    let validity = certificate.validity();
    Ok(Facts {
        identity,
        serial: hex(certificate.raw_serial()),
        not_before: system_time(validity.not_before),
        not_after: system_time(validity.not_after),
    })
}

/// Whom a certificate names.
pub fn identity_of(der: &[u8]) -> Result<Identity, Refusal> {
    identity(&parse(der)?)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Refusal::Malformed),
    }
}

fn identity(certificate: &X509Certificate<'_>) -> Result<Identity, Refusal> {
    let names = certificate.subject_alternative_name().map_err(|_| Refusal::Malformed)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match *uris {
        [] => Err(Refusal::NoUri),
        [uri] => Identity::parse(uri).ok_or_else(|| Refusal::NotAnIdentity(uri.chars().take(256).collect())),
        _ => Err(Refusal::SeveralUris(uris.len())),
    }
}

/// A CA's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFacts {
    /// Its subject, for people.
    pub subject: Arc<str>,
    /// Whether it is its own issuer.
    pub is_root: bool,
    /// Whether it may sign certificates.
    pub may_sign: bool,
    /// Its public key, as DER of SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// Until when it is good.
    pub not_after: SystemTime,
}

/// Reads a CA's certificate.
pub fn read_ca(der: &[u8]) -> Result<CaFacts, Refusal> {
    let certificate = parse(der)?;
    let usage = certificate.key_usage().map_err(|_| Refusal::Malformed)?;
    Ok(CaFacts {
        subject: certificate.subject().to_string().into(),
        is_root: certificate.subject().as_raw() == certificate.issuer().as_raw(),
        may_sign: certificate.is_ca() && usage.is_none_or(|usage| usage.value.key_cert_sign()),
        public_key: certificate.public_key().raw.to_vec(),
        not_after: system_time(certificate.validity().not_after),
    })
}

fn system_time(time: ASN1Time) -> SystemTime {
    // A time before 1970 is as good as 1970: past.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
