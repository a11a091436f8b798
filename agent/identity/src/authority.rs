//! Signs certificates of workloads: the embedded CA, without its files.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer, UnixTime};
use webpki::KeyUsage;
use weft_api::identity::Identity;

use super::certificate::{self, Refusal};
use super::request::Request;
use super::tls;
use super::trust::{LONGEST_LIFE, Trust};
use super::verify::Verifier;

/// How far back certificates begin: other nodes' clocks may be behind.
const BACKDATED: Duration = Duration::from_mins(2);
/// Life of a root that weft makes.
const ROOT_LIFE: Duration = Duration::from_hours(24 * 3_650);

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is no CA's.
    #[error("ca-cert.pem: {0}")]
    Certificate(Refusal),
    /// A certificate of a chain or a root.
    #[error("{file}: {why}")]
    Other {
        /// Where it came from.
        file: &'static str,
        /// What is wrong.
        why: Refusal,
    },
    /// It may not sign.
    #[error("ca-cert.pem is not a CA's certificate (basicConstraints CA with keyCertSign is needed)")]
    NotACa,
    /// Another key.
    #[error("ca-key.pem is not the key of ca-cert.pem")]
    OtherKey,
    /// Peers would refuse what it signs.
    #[error("what ca-key.pem signs would not be believed: {0}")]
    Unbelieved(Refusal),
    /// Not for this CA to sign.
    #[error("the request is refused: {0}")]
    Refused(String),
    /// The cryptography failed.
    #[error("cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
}

/// A key that signs, and what its certificates chain through.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
    /// From the signing certificate up, without roots.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

/// A CA as files hold it.
#[derive(Debug)]
pub struct Parts {
    /// The key that signs.
    pub key: KeyPair,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// Between it and a root; may hold both.
    pub chain: Vec<CertificateDer<'static>>,
    /// Trusted roots.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Takes a CA, after proving with a certificate of `trust_domain` that peers believe what it signs.
    pub fn new(parts: Parts, trust_domain: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        let Parts { key, certificate, chain, roots } = parts;
        let facts = certificate::read_ca(&certificate).map_err(AuthorityError::Certificate)?;
        if !facts.may_sign {
            return Err(AuthorityError::NotACa);
        }
        if facts.public_key != key.subject_public_key_info() {
            return Err(AuthorityError::OtherKey);
        }
        let mut between = Vec::new();
        for link in std::iter::once(certificate.clone()).chain(chain) {
            let facts = certificate::read_ca(&link)
                .map_err(|why| AuthorityError::Other { file: "cert-chain.pem", why })?;
            if !facts.is_root && !between.contains(&link) {
                between.push(link);
            }
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let authority = Self { issuer, certificate, not_after: facts.not_after, chain: between, roots };
        authority.prove(trust_domain, now)?;
        Ok(authority)
    }

    /// What its certificates have to chain to.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The certificate that it signs with.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a request whose only name is `identity`, which has to be of `trust_domain`. From the leaf up, no root.
    pub fn sign(
        &self,
        csr: &CertificateSigningRequestDer<'_>,
        identity: &Identity,
        trust_domain: &str,
        life: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let refused = |why: &str| AuthorityError::Refused(why.to_owned());
        if *identity.trust_domain != *trust_domain {
            return Err(refused("its trust domain is not this CA's"));
        }
        // Reading it proves that whoever asks has the key.
        let csr = CertificateSigningRequestParams::from_der(csr)
            .map_err(|error| AuthorityError::Refused(error.to_string()))?;
        let name = SanType::URI(identity.to_string().try_into()?);
        if csr.params.subject_alt_names != [name.clone()] {
            return Err(refused("it names something else than the identity"));
        }
        if csr.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(refused("its key is not of P-256"));
        }
        let mut params = self.leaf(CertificateParams::default(), life, now);
        params.subject_alt_names = vec![name];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&csr.public_key, &self.issuer)?.der().clone();
        Ok(self.chain_of(leaf))
    }

    /// Makes a key and a certificate by which a server of the mesh itself is recognised under `names` of DNS.
    pub fn sign_server(
        &self,
        names: &[String],
        life: Duration,
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = self.leaf(CertificateParams::new(names)?, life, now);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok((self.chain_of(leaf), key.serialize_der().into()))
    }

    /// What every certificate that it signs has.
    fn leaf(&self, mut params: CertificateParams, life: Duration, now: SystemTime) -> CertificateParams {
        params.distinguished_name = DistinguishedName::new();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + life.min(LONGEST_LIFE)).min(self.not_after).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params
    }

    fn chain_of(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        std::iter::once(leaf).chain(self.chain.iter().cloned()).collect()
    }

    fn prove(&self, trust_domain: &str, now: SystemTime) -> Result<(), AuthorityError> {
        let identity = Identity {
            trust_domain: trust_domain.into(),
            namespace: "weft".into(),
            service_account: "proof".into(),
        };
        let trust = Trust::new(identity.trust_domain.clone());
        trust.name(&self.roots, now).map_err(|why| AuthorityError::Other { file: "root-cert.pem", why })?;
        let request = Request::new(identity.clone())?;
        let chain = self.sign(request.csr(), &identity, trust_domain, Duration::from_mins(1), now)?;
        let [leaf, between @ ..] = &*chain else { return Ok(()) };
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Verifier::new(trust.into(), tls::algorithms())
            .verify(leaf, between, UnixTime::since_unix_epoch(since_1970), &KeyUsage::server_auth())
            .map(drop)
            .map_err(AuthorityError::Unbelieved)
    }
}

/// The same key, which is the certificate's, and the same to trust.
impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        (&self.certificate, &self.chain, &self.roots) == (&other.certificate, &other.chain, &other.roots)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Makes a root for a mesh.
pub fn new_root(trust_domain: &str, now: SystemTime) -> Result<(KeyPair, rcgen::Certificate), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, "weft root CA");
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + ROOT_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok((key, certificate))
}
