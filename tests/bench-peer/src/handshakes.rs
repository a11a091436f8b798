//! Opens connections with TLS, each with a full handshake, and counts them: between nodes with mutual TLS, or to a gateway as
//! anybody from outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, SignatureScheme, StreamOwned,
};

use crate::client::Outcome;
use crate::histogram::Histogram;

/// For a server to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any measurement.
const LIFE: Duration = Duration::from_hours(1);

#[derive(clap::Args)]
pub struct Args {
    /// The server; of the mesh, it must speak first, as HTTP/2 does
    to: SocketAddr,
    /// Where the root is that both sides trust
    #[arg(long, requires = "identity")]
    ca_dir: Option<PathBuf>,
    /// The client's SPIFFE ID
    #[arg(long, requires = "ca_dir")]
    identity: Option<String>,
    /// The server names that are asked for by turns, `0.NAME` and so on; each is asked for one page of HTTP/1.1
    #[arg(long, conflicts_with = "identity")]
    name: Option<String>,
    /// How many there are
    #[arg(long, default_value_t = 1)]
    names: usize,
    /// The only key exchange that the client offers; without one, all that it knows
    #[arg(long, value_enum)]
    group: Option<Group>,
    /// Connections at once
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How long, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

/// A way to agree upon keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    X25519,
    X25519mlkem768,
}

impl Group {
    fn name(self) -> NamedGroup {
        match self {
            Self::X25519 => NamedGroup::X25519,
            Self::X25519mlkem768 => NamedGroup::X25519MLKEM768,
        }
    }
}

/// Runs, and answers what came of it.
pub fn run(args: &Args) -> Result<Outcome> {
    let config = Arc::new(config(args)?);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(args.seconds);
    let visitors: Vec<_> = (0..args.connections)
        .map(|index| {
            let (config, to) = (config.clone(), args.to);
            let (name, names) = (args.name.clone(), args.names);
            thread::spawn(move || {
                let (mut latencies, mut errors) = (Histogram::new(), 0);
                let mut turn = index;
                while Instant::now() < end {
                    let began = Instant::now();
                    turn = turn.wrapping_mul(31).wrapping_add(17) % names.max(1);
                    let host = name.as_ref().map(|name| format!("{turn}.{name}"));
                    match visit(&config, to, host) {
                        Ok(()) => latencies.record(began.elapsed()),
                        Err(error) => {
                            eprintln!("{error:#}");
                            errors += 1;
                        }
                    }
                }
                (latencies, errors)
            })
        })
        .collect();
    let (mut latencies, mut errors) = (Histogram::new(), 0);
    for visitor in visitors {
        let (more, failed) = visitor.join().map_err(|_| anyhow::anyhow!("a visitor panicked"))?;
        latencies.merge(&more);
        errors += failed;
    }
    Ok(Outcome { latencies, took: start.elapsed(), errors })
}

/// With TLS 1.3 the client has finished before the server has looked at its certificate: the server's first byte says so.
fn visit(config: &Arc<ClientConfig>, to: SocketAddr, host: Option<String>) -> Result<()> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let Some(host) = host else {
        let connection = ClientConnection::new(config.clone(), ServerName::IpAddress(to.ip().into()))?;
        return StreamOwned::new(connection, stream).read_exact(&mut [0]).context("the server did not speak");
    };
    let connection = ClientConnection::new(config.clone(), ServerName::try_from(host.clone())?)?;
    let mut stream = StreamOwned::new(connection, stream);
    write!(stream, "GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).with_context(|| format!("{host} did not answer"))?;
    ensure!(status == *b"HTTP/1.1 200", "{host}: {}", status.escape_ascii());
    Ok(())
}

fn config(args: &Args) -> Result<ClientConfig> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Some(wanted) = args.group {
        provider.kx_groups.retain(|group| group.name() == wanted.name());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let (Some(ca_dir), Some(identity)) = (&args.ca_dir, &args.identity) else {
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        return Ok(config);
    };
    let root = CertificateDer::from_pem_slice(find(ca_dir, "CERTIFICATE")?.as_bytes())?;
    let issuer = Issuer::from_ca_cert_der(&root, KeyPair::from_pem(&find(ca_dir, "PRIVATE KEY")?)?)?;
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - Duration::from_mins(1)).into(), (now + LIFE).into());
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config = builder.with_client_auth_cert(vec![leaf.der().clone(), root], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The text of the file in `dir` that holds such a thing.
fn find(dir: &Path, section: &str) -> Result<String> {
    let files = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let texts = files.flatten().map(|file| fs::read_to_string(file.path()).unwrap_or_default());
    let mut found = texts.filter(|text| text.contains(&format!("{section}-----")));
    found.next().with_context(|| format!("no {section} in {}", dir.display()))
}

/// Takes every server: only the work that it does is of interest.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
