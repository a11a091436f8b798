//! Certificates for those who play a node: as the mesh's own CA would write them, and as it never would.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Longer than any story.
const LIFE: Duration = Duration::from_hours(1);

/// A key, its certificate, and what leads from there to a root.
#[derive(Debug)]
pub struct Credentials {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Writes chain and key as files that a DestinationRule may name: `DIR/NAME.crt` and `DIR/NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) -> Result<()> {
        let chain: String = self.chain.iter().map(|one| pem("CERTIFICATE", one)).collect();
        fs::write(dir.join(format!("{name}.crt")), chain)?;
        Ok(fs::write(dir.join(format!("{name}.key")), pem("PRIVATE KEY", self.key.secret_der()))?)
    }

    /// Chain and key as text.
    pub fn pem(&self) -> (String, String) {
        let chain = self.chain.iter().map(|one| pem("CERTIFICATE", one)).collect();
        (chain, pem("PRIVATE KEY", self.key.secret_der()))
    }

    /// The key, as rustls takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub root: CertificateDer<'static>,
}

impl Authority {
    /// The one whose certificate and key are in `dir`, whatever the files are called: `Mesh::ca_dir` has the mesh's own.
    pub fn in_dir(dir: &Path) -> Result<Self> {
        let root = CertificateDer::from_pem_slice(find(dir, "CERTIFICATE")?.as_bytes())?;
        let key = KeyPair::from_pem(&find(dir, "PRIVATE KEY")?)?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&root, key)?, root })
    }

    /// Somebody else's, who gives his root the name of the mesh's.
    pub fn self_made() -> Result<Self> {
        let (root, key) = new_root()?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(root.der(), key)?, root: root.der().clone() })
    }

    /// For one SPIFFE ID, valid now.
    pub fn sign(&self, spiffe_id: &str) -> Result<Credentials> {
        let now = SystemTime::now();
        self.sign_as(&[spiffe_id], now - Duration::from_mins(1), now + LIFE)
    }

    /// For names of DNS, valid now.
    pub fn sign_names(&self, names: &[&str]) -> Result<Credentials> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let now = SystemTime::now();
        self.finish(CertificateParams::new(names)?, now - Duration::from_mins(1), now + LIFE)
    }

    /// For any URIs and any time.
    pub fn sign_as(&self, uris: &[&str], from: SystemTime, until: SystemTime) -> Result<Credentials> {
        let mut params = CertificateParams::default();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        self.finish(params, from, until)
    }

    fn finish(
        &self,
        mut params: CertificateParams,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<Credentials> {
        (params.not_before, params.not_after) = (from.into(), until.into());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        Ok(Credentials { chain: vec![leaf.der().clone(), self.root.clone()], key })
    }

    /// Checks that a chain leads to this root, now.
    pub fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<()> {
        let (leaf, between) = chain.split_first().context("no certificate")?;
        // Whether it is of a client or a server is the same here: both say that they may be either.
        self.verifier()?.verify_client_cert(leaf, between, UnixTime::now())?;
        Ok(())
    }

    /// What asks for a certificate of this root.
    pub fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?)
    }
}

/// A section of a PEM file (RFC 7468), its base64 in one line.
pub fn pem(section: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in der.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= group.len() { ALPHABET[sextet].into() } else { '=' });
        }
    }
    format!("-----BEGIN {section}-----\n{text}\n-----END {section}-----\n")
}

fn new_root() -> Result<(Certificate, KeyPair)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?, key))
}

/// The text of the file in `dir` that holds such a thing.
fn find(dir: &Path, section: &str) -> Result<String> {
    let files = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let texts = files.flatten().map(|file| fs::read_to_string(file.path()).unwrap_or_default());
    let mut found = texts.filter(|text| text.contains(&format!("{section}-----")));
    found.next().with_context(|| format!("no {section} in {}", dir.display()))
}

/// The one SPIFFE ID in a chain's leaf.
pub fn spiffe_id(chain: &[CertificateDer<'_>]) -> Result<String> {
    let (_, leaf) = X509Certificate::from_der(chain.first().context("no certificate")?)?;
    let names = leaf.subject_alternative_name()?.context("no alternative name")?;
    let uris: Vec<&str> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    ensure!(uris.len() == 1, "not one URI: {uris:?}");
    Ok(uris[0].to_owned())
}

#[test]
fn a_root_is_found_in_its_directory() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("weft-forge-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let (root, key) = new_root()?;
    fs::write(dir.join("a"), root.pem())?;
    fs::write(dir.join("b"), key.serialize_pem())?;
    let found = Authority::in_dir(&dir);
    fs::remove_dir_all(&dir)?;
    let found = found?;
    let leaf = found.sign("spiffe://cluster.local/ns/a/sa/b")?;
    found.verify(&leaf.chain)?;
    ensure!(Authority::self_made()?.verify(&leaf.chain).is_err());
    Ok(())
}
