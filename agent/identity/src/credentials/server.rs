//! One server's TLS, of what its Gateway says and what its Secrets hold.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion, version};
use weft_api::istio::{ServerTls, Termination};

use super::clients;
use super::secret::{Facts, SecretData};
use crate::crypto;

/// A server's TLS.
#[derive(Debug)]
pub struct Server {
    /// For its handshakes.
    pub config: Arc<ServerConfig>,
    /// What its certificates say, in the order of the Gateway's.
    pub certificates: Vec<Facts>,
}

/// Why there is no such Secret to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// There is none, or it is not for this node.
    Absent(String),
    /// Nobody has told of it yet.
    Unknown(String),
}

impl Lack {
    fn into_why(self) -> String {
        match self {
            Self::Absent(why) | Self::Unknown(why) => why,
        }
    }
}

/// The files that it is made of.
pub fn files(of: &Termination) -> impl Iterator<Item = &Path> {
    let ServerTls { server_certificate, private_key, ca_certificates, ca_crl, tls_certificates, .. } =
        &of.settings;
    let several = tls_certificates.iter().flat_map(|one| [&one.server_certificate, &one.private_key]);
    let all = [server_certificate, private_key, ca_certificates, ca_crl].into_iter().chain(several);
    all.flatten().filter(|path| !path.is_empty()).map(Path::new)
}

/// Makes it; `find` has the Secrets of the gateway's namespace. `by_files`: files may be read, too.
pub fn make(
    of: &Termination,
    find: impl Fn(&str) -> Result<Arc<SecretData>, Lack>,
    by_files: bool,
) -> Result<Server, String> {
    let versions = versions(of)?;
    let mut provider = crypto::provider();
    choose_ciphers(&mut provider, &of.settings.cipher_suites);
    let provider = Arc::new(provider);
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for (what, data) in own(of, &find, by_files)? {
        let (key, facts) = data.certified().map_err(|why| format!("{what} {why}"))?;
        keys.push(key);
        certificates.push(facts);
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| error.to_string())?;
    let asks = of.settings.asks_clients();
    let builder = if asks {
        let by_roots = proofs(of, &find, by_files)?;
        builder.with_client_cert_verifier(clients::verifier(&of.settings, by_roots, &provider))
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
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
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

/// A cipher suite by OpenSSL's name, of [`ServerTls::CIPHERS`].
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

/// The server's own certificates, and what each is called: of Secrets, else of files.
fn own(
    of: &Termination,
    find: &impl Fn(&str) -> Result<Arc<SecretData>, Lack>,
    by_files: bool,
) -> Result<Vec<(String, Arc<SecretData>)>, String> {
    let settings = &of.settings;
    let named = |name| {
        let data = find(name).map_err(Lack::into_why)?;
        Ok((format!("Secret {}/{name}", of.namespace), data))
    };
    let by_secret = settings.certificate_secrets().map(named).collect::<Result<Vec<_>, String>>()?;
    if !by_secret.is_empty() {
        return Ok(by_secret);
    }
    let several = settings.tls_certificates.iter().map(|one| (&one.server_certificate, &one.private_key));
    let pairs = several.chain([(&settings.server_certificate, &settings.private_key)]);
    let pairs = pairs.filter_map(|(chain, key)| Some((chain.as_deref()?, key.as_deref()?)));
    let read = |(chain, key)| {
        let data = read_files(&[("tls.crt", chain), ("tls.key", key)], by_files)?;
        Ok((chain.to_owned(), data))
    };
    let all = pairs.map(read).collect::<Result<Vec<_>, String>>()?;
    if all.is_empty() {
        Err("its Gateway names no certificate (write credentialName)".to_owned())
    } else {
        Ok(all)
    }
}

/// What clients' certificates are proved by; `None`: nothing, anybody's will do.
fn proofs(
    of: &Termination,
    find: &impl Fn(&str) -> Result<Arc<SecretData>, Lack>,
    by_files: bool,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let settings = &of.settings;
    if settings.insecure_skip_verify == Some(true) {
        return Ok(None);
    }
    let mut why = None;
    for name in settings.roots_secrets() {
        let what = format!("Secret {}/{name}", of.namespace);
        match find(&name) {
            Ok(data) if data.has_roots() => {
                return data.clients().map(Some).map_err(|why| format!("{what} {why}"));
            }
            Ok(_) => why = Some(format!("{what} has neither ca.crt nor cacert")),
            // The next one's roots may be others.
            Err(Lack::Unknown(why)) => return Err(why),
            Err(Lack::Absent(missing)) => why = why.or(Some(missing)),
        }
    }
    let given = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    let Some(roots) = given(&settings.ca_certificates) else {
        return Err(why.unwrap_or_else(|| "its Gateway names no roots for clients' certificates".to_owned()));
    };
    let revoked = given(&settings.ca_crl);
    let files = [("ca.crt", Some(&*roots)), ("ca.crl", revoked.as_deref())];
    let files: Vec<_> = files.into_iter().filter_map(|(key, path)| Some((key, path?))).collect();
    read_files(&files, by_files)?.clients().map(Some).map_err(|why| format!("{roots} {why}"))
}

fn read_files(files: &[(&str, &str)], by_files: bool) -> Result<Arc<SecretData>, String> {
    let values = files.iter().map(|(key, path)| {
        if !by_files {
            return Err(format!(
                "files as certificates ({path}) are not read in a cluster: name a Secret in credentialName"
            ));
        }
        let value = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        Ok(((*key).to_owned(), value))
    });
    Ok(Arc::new(SecretData::new(values.collect::<Result<Vec<_>, String>>()?)))
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
