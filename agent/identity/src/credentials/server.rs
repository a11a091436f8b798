//! One server's TLS, of what its Gateway says and what its Secrets hold.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use weft_api::istio::{ServerTls, Termination};

use super::{SecretData, clients};
use crate::crypto;

/// A server's TLS.
#[derive(Debug)]
pub struct Server {
    /// For its handshakes.
    pub config: Arc<ServerConfig>,
    /// What its certificates say, in the order of the Gateway's.
    pub certificates: Vec<Facts>,
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Names of DNS, as it has them.
    pub names: Vec<String>,
    /// Its end.
    pub not_after: SystemTime,
}

/// A chain and its key, in PEM.
struct Pair {
    what: String,
    chain: Vec<u8>,
    key: Vec<u8>,
}

/// What clients prove by: what it is called, roots and a revocation list in PEM.
struct Roots {
    what: String,
    pem: Vec<u8>,
    revoked: Option<Vec<u8>>,
}

/// The files that it is made of.
pub fn files(of: &Termination) -> impl Iterator<Item = &Path> {
    let ServerTls { server_certificate, private_key, ca_certificates, ca_crl, tls_certificates, .. } =
        &of.settings;
    let several = tls_certificates.iter().flat_map(|one| [&one.server_certificate, &one.private_key]);
    let all = [server_certificate, private_key, ca_certificates, ca_crl].into_iter().chain(several);
    all.flatten().filter(|path| !path.is_empty()).map(Path::new)
}

/// Makes it; `find` has the Secrets of the gateway's namespace.
pub fn make(
    of: &Termination,
    find: impl Fn(&str) -> Result<Arc<SecretData>, String>,
    files: bool,
) -> Result<Server, String> {
    let mut provider = crypto::provider();
    let versions = versions(of)?;
    choose_ciphers(&mut provider, &of.settings.cipher_suites);
    let provider = Arc::new(provider);
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for pair in pairs(of, &find, files)? {
        let (key, facts) = certified(&pair, &provider)?;
        keys.push(Arc::new(key));
        certificates.push(facts);
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| error.to_string())?;
    let asks = of.settings.asks_clients();
    let builder = if asks {
        let given = roots(of, &find, files)?;
        let roots = given.as_ref().map(parse_roots).transpose()?;
        let verifier = clients::verifier(&of.settings, roots, &provider)?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByKind(keys)));
    if of.requests {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if asks {
        // Each connection proves anew who the client is.
        config.send_tls13_tickets = 0;
    } else {
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        config.ticketer = ticketer;
        config.send_tls13_tickets = 1;
    }
    if cfg!(feature = "fips") && !config.fips() {
        return Err("not all of it is FIPS-approved".to_owned());
    }
    Ok(Server { config: Arc::new(config), certificates })
}

/// The versions between the two bounds, of those that weft speaks.
fn versions(of: &Termination) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let number = |text: &Option<String>| text.as_deref().and_then(ServerTls::version_number);
    let oldest = number(&of.settings.min_protocol_version).unwrap_or(ServerTls::OLDEST_VERSION);
    let newest = number(&of.settings.max_protocol_version).unwrap_or(u8::MAX);
    let all = [(2, &version::TLS12), (3, &version::TLS13)];
    let between: Vec<_> = all
        .into_iter()
        .filter(|(number, _)| (oldest..=newest).contains(number))
        .map(|(_, version)| version)
        .collect();
    if between.is_empty() {
        Err("it allows neither TLS 1.2 nor TLS 1.3, which weft speaks".to_owned())
    } else {
        Ok(between)
    }
}

/// Leaves those that are named, of TLS 1.2: TLS 1.3's are not for choice, as in Envoy. Names that weft does not know count for
/// nothing; without any that it knows, all are left.
fn choose_ciphers(provider: &mut CryptoProvider, names: &[String]) {
    let chosen: Vec<CipherSuite> = names.iter().filter_map(|name| suite(name)).collect();
    if !chosen.is_empty() {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen.contains(&suite.suite()));
    }
}

/// A cipher suite by OpenSSL's name.
fn suite(name: &str) -> Option<CipherSuite> {
    Some(match name {
        "ECDHE-ECDSA-AES256-GCM-SHA384" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES128-GCM-SHA256" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-AES256-GCM-SHA384" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES128-GCM-SHA256" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305" => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        _ => return None,
    })
}

/// The server's own certificates: of Secrets, else of files.
fn pairs(
    of: &Termination,
    find: &impl Fn(&str) -> Result<Arc<SecretData>, String>,
    files: bool,
) -> Result<Vec<Pair>, String> {
    let settings = &of.settings;
    let mut all = Vec::new();
    for name in settings.certificate_secrets() {
        let (what, data) = (format!("Secret {}/{name}", of.namespace), find(name)?);
        let pair = [["cert", "key"], ["tls.crt", "tls.key"]]
            .iter()
            .find_map(|[chain, key]| Some((data.first([chain, chain])?, data.first([key, key])?)));
        let Some((chain, key)) = pair else {
            return Err(format!("{what} has neither tls.crt and tls.key nor cert and key"));
        };
        all.push(Pair { what, chain: chain.to_vec(), key: key.to_vec() });
    }
    if !all.is_empty() {
        return Ok(all);
    }
    let single = (&settings.server_certificate, &settings.private_key);
    let several = settings.tls_certificates.iter().map(|one| (&one.server_certificate, &one.private_key));
    for (chain, key) in several.chain([single]) {
        if let (Some(chain), Some(key)) = (chain, key) {
            let (chain_file, key_file) = (chain, key);
            all.push(Pair {
                what: chain_file.clone(),
                chain: file(chain_file, files)?,
                key: file(key_file, files)?,
            });
        }
    }
    if all.is_empty() {
        Err("its Gateway names no certificate (write credentialName)".to_owned())
    } else {
        Ok(all)
    }
}

fn file(path: &str, files: bool) -> Result<Vec<u8>, String> {
    if !files {
        return Err(format!(
            "files as certificates ({path}) are not read in a cluster: name a Secret in credentialName"
        ));
    }
    std::fs::read(Path::new(path)).map_err(|error| format!("{path}: {error}"))
}

fn certified(pair: &Pair, provider: &CryptoProvider) -> Result<(CertifiedKey, Facts), String> {
    let what = &pair.what;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pair.chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate of {what} is not PEM: {error}"))?;
    let leaf = chain.first().ok_or_else(|| format!("{what} holds no certificate in PEM"))?;
    let facts = facts(leaf).ok_or_else(|| format!("the certificate of {what} cannot be read"))?;
    let key = PrivateKeyDer::from_pem_slice(&pair.key)
        .map_err(|_| format!("{what} holds no private key in PEM"))?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| format!("the key of {what} does not serve: {error}"))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| format!("the key of {what} is not that of its certificate"))?;
    Ok((certified, facts))
}

fn facts(der: &CertificateDer<'_>) -> Option<Facts> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let secs = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let parsed = webpki::EndEntityCert::try_from(der).ok();
    let names = parsed.iter().flat_map(|parsed| parsed.valid_dns_names()).map(str::to_owned).collect();
    Some(Facts { names, not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(secs) })
}

/// What clients prove by; `None`: the settings ask for no proof.
fn roots(
    of: &Termination,
    find: &impl Fn(&str) -> Result<Arc<SecretData>, String>,
    files: bool,
) -> Result<Option<Roots>, String> {
    let settings = &of.settings;
    if settings.insecure_skip_verify == Some(true) {
        return Ok(None);
    }
    let mut why = None;
    for name in settings.roots_secrets() {
        match find(&name) {
            Ok(data) => {
                if let Some(roots) = data.first(["cacert", "ca.crt"]) {
                    let revoked = data.first(["crl", "ca.crl"]).map(<[u8]>::to_vec);
                    let what = format!("Secret {}/{name}", of.namespace);
                    return Ok(Some(Roots { what, pem: roots.to_vec(), revoked }));
                }
                why = Some(format!("Secret {}/{name} has neither ca.crt nor cacert", of.namespace));
            }
            // The last one is the one that most people write.
            Err(missing) => why = why.or(Some(missing)),
        }
    }
    let Some(path) = settings.ca_certificates.as_deref().filter(|path| !path.is_empty()) else {
        return Err(why.unwrap_or_else(|| "its Gateway names no roots for clients' certificates".to_owned()));
    };
    let revoked = settings.ca_crl.as_deref().filter(|path| !path.is_empty());
    let revoked = revoked.map(|path| file(path, files)).transpose()?;
    Ok(Some(Roots { what: path.to_owned(), pem: file(path, files)?, revoked }))
}

fn parse_roots(given: &Roots) -> Result<clients::Roots, String> {
    let what = &given.what;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&given.pem) {
        let certificate = certificate.map_err(|error| format!("the roots of {what} are not PEM: {error}"))?;
        store.add(certificate).map_err(|error| format!("a root of {what} does not serve: {error}"))?;
    }
    if store.is_empty() {
        return Err(format!("{what} holds no root in PEM"));
    }
    let revoked = given.revoked.as_deref().map(|pem| {
        CertificateRevocationListDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the revocation list of {what} is not PEM: {error}"))
    });
    Ok(clients::Roots { store, revoked: revoked.transpose()?.unwrap_or_default() })
}

/// Certificates of a server, of which a client gets the first whose key it understands.
#[derive(Debug)]
struct ByKind(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByKind {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}
