//! What a Secret, or files like one, hold for TLS. It is read once, however many servers name it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use crate::crypto;

/// The keys of a Secret that count: certificates as Kubernetes has them, and as Istio's first documentation had.
pub const KEYS: [&str; 8] = ["tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"];

/// What a Secret holds.
#[derive(Default)]
pub struct SecretData {
    /// By key, of [`KEYS`].
    values: BTreeMap<String, Vec<u8>>,
    certified: OnceLock<Result<(Arc<CertifiedKey>, Facts), String>>,
    clients: OnceLock<Result<Arc<dyn ClientCertVerifier>, String>>,
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Names of DNS, as it has them.
    pub names: Vec<String>,
    /// Its end.
    pub not_after: SystemTime,
}

impl SecretData {
    /// Of values by their keys; those that do not count are left out.
    pub fn new(values: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let values = values.into_iter().filter(|(key, _)| KEYS.contains(&&**key)).collect();
        Self { values, ..Self::default() }
    }

    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        self.values.values().map(Vec::len).sum()
    }

    /// The value of the first key that it has of these.
    fn first(&self, keys: [&str; 2]) -> Option<&[u8]> {
        keys.iter().find_map(|key| self.values.get(*key)).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// A server's certificate and key.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence that begins with the Secret.
    pub fn certified(&self) -> Result<(Arc<CertifiedKey>, Facts), String> {
        self.certified.get_or_init(|| self.read_certified()).clone()
    }

    fn read_certified(&self) -> Result<(Arc<CertifiedKey>, Facts), String> {
        let pair = [["cert", "key"], ["tls.crt", "tls.key"]]
            .iter()
            .find_map(|[chain, key]| Some((self.first([chain, chain])?, self.first([key, key])?)));
        let (chain, key) = pair.ok_or("has neither tls.crt and tls.key nor cert and key")?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("has a certificate that is not PEM: {error}"))?;
        let leaf = chain.first().ok_or("holds no certificate in PEM")?;
        let facts = facts(leaf).ok_or("has a certificate that cannot be read")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "holds no private key in PEM")?;
        let key = crypto::provider().key_provider.load_private_key(key);
        let key = key.map_err(|error| format!("has a key that does not serve: {error}"))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| "has a key that is not that of its certificate")?;
        Ok((Arc::new(certified), facts))
    }

    /// Whether it holds roots for clients' certificates.
    pub fn has_roots(&self) -> bool {
        self.first(ROOTS).is_some()
    }

    /// What clients' certificates are proved by: its roots, and its revocation list if it has one.
    ///
    /// # Errors
    /// As [`Self::certified`].
    pub fn clients(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        self.clients.get_or_init(|| self.read_clients()).clone()
    }

    fn read_clients(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.first(ROOTS).unwrap_or_default()) {
            let certificate = certificate.map_err(|error| format!("has roots that are not PEM: {error}"))?;
            store.add(certificate).map_err(|error| format!("has a root that does not serve: {error}"))?;
        }
        if store.is_empty() {
            return Err("holds no root in PEM".to_owned());
        }
        let revoked = CertificateRevocationListDer::pem_slice_iter(self.first(REVOKED).unwrap_or_default())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("has a revocation list that is not PEM: {error}"))?;
        if self.first(REVOKED).is_some() && revoked.is_empty() {
            return Err("holds no revocation list in PEM".to_owned());
        }
        let provider = Arc::new(crypto::provider());
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).with_crls(revoked);
        builder.build().map_err(|error| format!("cannot check clients: {error}"))
    }
}

const ROOTS: [&str; 2] = ["cacert", "ca.crt"];
const REVOKED: [&str; 2] = ["crl", "ca.crl"];

fn facts(der: &CertificateDer<'_>) -> Option<Facts> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let secs = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let parsed = webpki::EndEntityCert::try_from(der).ok();
    let names = parsed.iter().flat_map(|parsed| parsed.valid_dns_names()).map(str::to_owned).collect();
    Some(Facts { names, not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(secs) })
}

impl PartialEq for SecretData {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl Eq for SecretData {}

impl std::fmt::Debug for SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.values.keys()).finish()
    }
}
