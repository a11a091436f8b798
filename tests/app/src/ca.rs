//! A certificate service as Istio's (`istio.v1.auth.IstioCertificateService`, over plain HTTP/2), for agents with
//! `--ca-address`. Its roots are kept in a folder, so that it can end and come back, and hand over from one to another:
//! `--signs old`, then `--signs old --names new`, then `--signs new --names old`, then `--signs new`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::http_server::{self, Body, BoxError, Call, answer, serve};

/// Clocks may differ.
const BACKDATED: Duration = Duration::from_mins(1);
/// Length of the prefix of a gRPC message.
const PREFIX_BYTES: usize = 5;

/// Flags of the certificate service.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, default_value_t = 15010)]
    port: u16,
    /// Folder of roots, NAME.pem and NAME.key; made where they are missing
    #[arg(long)]
    dir: PathBuf,
    /// The root that signs
    #[arg(long, default_value = "root")]
    signs: String,
    /// A root to be trusted beside it; may be repeated
    #[arg(long)]
    names: Vec<String>,
    /// Longest life of a certificate, in seconds
    #[arg(long, default_value_t = 86_400)]
    life: u64,
    /// Refuse whoever has not this token
    #[arg(long)]
    token: Option<String>,
    /// Refuse everybody
    #[arg(long)]
    refuse: bool,
    /// Answer so much later
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

/// Source: istio/api, security/v1alpha1/ca.proto.
#[derive(Clone, PartialEq, Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    metadata: Option<prost_types::Struct>,
}

#[derive(Clone, PartialEq, Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// In PEM.
    roots: String,
    args: Args,
}

/// Serves.
pub async fn run(args: Args) -> Result<()> {
    let (key, certificate) = root(&args.dir, &args.signs)?;
    let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
    let mut roots = certificate;
    for name in &args.names {
        roots.push_str(&root(&args.dir, name)?.1);
    }
    let server = http_server::Args { ports: vec![args.port], version: String::new(), name: "ca".to_owned() };
    let ca = Arc::new(Ca { issuer, roots, args });
    serve(&server, move |call| {
        let ca = ca.clone();
        async move { ca.respond(call).await }
    })
    .await
}

impl Ca {
    async fn respond(&self, call: Call) -> Result<Response<Body>, BoxError> {
        tokio::time::sleep(Duration::from_millis(self.args.delay_ms)).await;
        if call.request.uri().path() != "/istio.v1.auth.IstioCertificateService/CreateCertificate" {
            return Ok(refusal("12", "no such method"));
        }
        let token = call.request.headers().get("authorization").and_then(|token| token.to_str().ok());
        let token = token.and_then(|token| token.strip_prefix("Bearer "));
        if self.args.refuse || (self.args.token.is_some() && token != self.args.token.as_deref()) {
            return Ok(refusal("7", "not for you"));
        }
        let body = call.request.into_body().collect().await?.to_bytes();
        let asked = CertificateRequest::decode(body.get(PREFIX_BYTES..).unwrap_or_default())?;
        match self.sign(&asked) {
            Ok(leaf) => Ok(message(&CertificateResponse { cert_chain: vec![leaf, self.roots.clone()] })),
            Err(error) => {
                eprintln!("refused: {error:#}");
                Ok(refusal("3", "not a request that can be signed"))
            }
        }
    }

    fn sign(&self, asked: &CertificateRequest) -> Result<String> {
        let metadata = asked.metadata.as_ref().and_then(|data| data.fields.get("ImpersonatedIdentity"));
        let Some(prost_types::value::Kind::StringValue(name)) = metadata.and_then(|value| value.kind.clone())
        else {
            anyhow::bail!("no ImpersonatedIdentity");
        };
        let csr = CertificateSigningRequestParams::from_pem(&asked.csr)?;
        let life = Duration::from_secs(u64::try_from(asked.validity_duration)?.min(self.args.life));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(name.as_str().try_into()?)];
        params.not_before = (SystemTime::now() - BACKDATED).into();
        params.not_after = (SystemTime::now() + life).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        println!("signed {name}");
        Ok(params.signed_by(&csr.public_key, &self.issuer)?.pem())
    }
}

/// A root's key and certificate in PEM.
fn root(dir: &Path, name: &str) -> Result<(String, String)> {
    let (key_file, certificate_file) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pem")));
    if !certificate_file.exists() {
        std::fs::create_dir_all(dir)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        std::fs::write(&key_file, key.serialize_pem())?;
        std::fs::write(&certificate_file, params.self_signed(&key)?.pem())?;
    }
    let read = |file: &Path| std::fs::read_to_string(file).with_context(|| file.display().to_string());
    Ok((read(&key_file)?, read(&certificate_file)?))
}

fn message(message: &CertificateResponse) -> Response<Body> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A gRPC status without a message.
fn refusal(status: &'static str, why: &'static str) -> Response<Body> {
    let mut response = answer(StatusCode::OK, "application/grpc", "");
    response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
    response.headers_mut().insert("grpc-message", HeaderValue::from_static(why));
    response
}
