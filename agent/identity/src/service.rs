//! A certificate service as Istio's: gRPC `istio.v1.auth.IstioCertificateService/CreateCertificate`.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::uri::{PathAndQuery, Scheme};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use weft_api::causes;

use super::request::Request;
use super::wire::{
    CertificateRequest, CertificateResponse, METHOD, SECRETS_METHOD, SecretTold, SecretsRequest,
    SecretsResponse,
};
use super::{Issued, certificate};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// After the service's roots have changed, it takes so long at most until it signs by another key.
const SUCCEEDED: Duration = Duration::from_secs(15);
/// Longest answer.
const ANSWER_BYTES: usize = 1 << 20;

/// Where a certificate service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOptions {
    /// `https://istiod.istio-system.svc:15012`; `http://` where the network is trusted.
    pub address: String,
    /// Roots by which an `https` service is recognised: a file of PEM, read again when it changes.
    pub root: Option<PathBuf>,
    /// The file need not be there at the start: in a cluster the agent puts it there, once it has heard of the roots.
    pub root_comes: bool,
    /// A token that says who asks: a file, read for each request.
    pub token: Option<PathBuf>,
}

/// Why a service gives no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Neither http nor https.
    #[error("{0:?} is no URL of a CA: write https://HOST:PORT or http://HOST:PORT")]
    Address(String),
    /// Nothing says who the service is.
    #[error("{0} cannot be recognised without its root certificates: give --ca-root FILE")]
    NoRoot(String),
    /// A file is not there, or not ours to read.
    #[error("cannot read {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// No root in it.
    #[error("{0} holds no certificate in PEM")]
    NotPem(PathBuf),
    /// Not to be sent in a header.
    #[error("{0} holds no token: it is empty, or has characters that a header cannot bear")]
    Token(PathBuf),
    /// TLS cannot be set up.
    #[error("cannot set up TLS to the CA: {0}")]
    Tls(String),
    /// No connection, or no answer.
    #[error("the CA does not answer: {0}")]
    Unreachable(String),
    /// An error of gRPC.
    #[error("the CA refuses ({code:?}): {message}")]
    Refused {
        /// Its kind.
        code: tonic::Code,
        /// In the CA's words.
        message: String,
    },
    /// Not leaf to root in PEM.
    #[error("the CA answered {0}; certificates from leaf to root were expected")]
    Answer(&'static str),
}

/// A client of one service.
#[derive(Debug)]
pub struct Service {
    options: ServiceOptions,
    endpoint: Endpoint,
    /// The connection, and the roots that it goes by.
    channel: RefCell<Option<(Option<Vec<u8>>, Channel)>>,
    /// The roots that were seen last.
    seen: RefCell<Option<Vec<u8>>>,
    /// When everything is asked for once more.
    again: Cell<Option<Instant>>,
}

impl Service {
    /// Checks what the service is told by; it is asked only later.
    pub fn new(options: ServiceOptions) -> Result<Self, ServiceError> {
        let wrong = || ServiceError::Address(options.address.clone());
        let endpoint = Endpoint::from_shared(options.address.clone()).map_err(|_| wrong())?;
        match endpoint.uri().scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS && options.root.is_none() => {
                return Err(ServiceError::NoRoot(options.address));
            }
            Some(scheme) if *scheme == Scheme::HTTPS => {}
            Some(scheme) if *scheme == Scheme::HTTP => {
                tracing::warn!(
                    address = options.address,
                    "the CA is asked over plain http: nothing proves that it is the CA, and others may read the token"
                );
            }
            _ => return Err(wrong()),
        }
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(ANSWER).tcp_nodelay(true);
        let service = Self {
            options,
            endpoint,
            channel: RefCell::default(),
            seen: RefCell::default(),
            again: Cell::default(),
        };
        match service.root() {
            Err(ServiceError::File { path, why })
                if service.options.root_comes && why.kind() == std::io::ErrorKind::NotFound =>
            {
                tracing::info!(file = %path.display(), "the roots of the CA are not there yet");
            }
            root => *service.seen.borrow_mut() = root?,
        }
        Ok(service)
    }

    /// Looks whether the service's roots are others than before. True: every certificate is to be asked for again, once
    /// for the roots of the mesh, which the answers name, and once more when the service signs by another key.
    pub fn look(&self, now: Instant) -> bool {
        if let Ok(root) = self.root()
            && *self.seen.borrow() != root
        {
            // The first roots follow no others.
            let before = self.seen.replace(root);
            self.again.set(before.map(|_| now + SUCCEEDED));
            return true;
        }
        let due = self.again.get().is_some_and(|again| again <= now);
        if due {
            self.again.set(None);
        }
        due
    }

    /// Asks for a certificate.
    pub async fn issue(&self, request: &Request, life: Duration) -> Result<Issued, ServiceError> {
        let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        let message =
            CertificateRequest::new(request.csr_pem().to_owned(), life, request.identity().to_string());
        let mut message = tonic::Request::new(message);
        if let Some(token) = self.token()? {
            message.metadata_mut().insert("authorization", token);
        }
        let answer = self.ask(message).await;
        if matches!(answer, Err(ServiceError::Unreachable(_))) {
            // The connection may be dead without a word: the next attempt makes another.
            *self.channel.borrow_mut() = None;
        }
        read(&answer?.cert_chain)
    }

    /// Asks weft's controller which Secrets are others than the caller knows; it holds its answer back until there are some, or
    /// a few seconds have passed. Istio's has no such method.
    pub async fn secrets(&self, request: SecretsRequest) -> Result<Vec<SecretTold>, ServiceError> {
        let mut message = tonic::Request::new(request);
        if let Some(token) = self.token()? {
            message.metadata_mut().insert("authorization", token);
        }
        let answer: Result<SecretsResponse, _> = self.ask_at(SECRETS_METHOD, message).await;
        if matches!(answer, Err(ServiceError::Unreachable(_))) {
            *self.channel.borrow_mut() = None;
        }
        Ok(answer?.secrets)
    }

    async fn ask(
        &self,
        message: tonic::Request<CertificateRequest>,
    ) -> Result<CertificateResponse, ServiceError> {
        self.ask_at(METHOD, message).await
    }

    async fn ask_at<Q, A>(&self, method: &'static str, message: tonic::Request<Q>) -> Result<A, ServiceError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel()?).max_decoding_message_size(ANSWER_BYTES);
        grpc.ready().await.map_err(|error| ServiceError::Unreachable(causes::all(&error)))?;
        let codec = tonic_prost::ProstCodec::default();
        let answer = grpc.unary(message, PathAndQuery::from_static(method), codec).await;
        Ok(answer.map_err(|status| refused(&status))?.into_inner())
    }

    /// The connection, made anew when the roots are others than before.
    fn channel(&self) -> Result<Channel, ServiceError> {
        let root = self.root()?;
        let mut channel = self.channel.borrow_mut();
        if let Some((by, channel)) = &*channel
            && *by == root
        {
            return Ok(channel.clone());
        }
        let mut endpoint = self.endpoint.clone();
        if let Some(pem) = &root {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint = endpoint.tls_config(tls).map_err(|error| ServiceError::Tls(causes::all(&error)))?;
        }
        let fresh = endpoint.connect_lazy();
        *channel = Some((root, fresh.clone()));
        Ok(fresh)
    }

    /// The roots of an `https` service, in PEM.
    fn root(&self) -> Result<Option<Vec<u8>>, ServiceError> {
        let Some(path) = &self.options.root else { return Ok(None) };
        if self.endpoint.uri().scheme() != Some(&Scheme::HTTPS) {
            return Ok(None);
        }
        let pem = std::fs::read(path).map_err(|why| ServiceError::File { path: path.clone(), why })?;
        match CertificateDer::pem_slice_iter(&pem).next() {
            Some(Ok(_)) => Ok(Some(pem)),
            _ => Err(ServiceError::NotPem(path.clone())),
        }
    }

    fn token(&self) -> Result<Option<AsciiMetadataValue>, ServiceError> {
        let Some(path) = &self.options.token else { return Ok(None) };
        let text =
            std::fs::read_to_string(path).map_err(|why| ServiceError::File { path: path.clone(), why })?;
        let value = Some(text.trim())
            .filter(|token| !token.is_empty())
            .and_then(|token| AsciiMetadataValue::try_from(format!("Bearer {token}")).ok());
        let mut value = value.ok_or_else(|| ServiceError::Token(path.clone()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Reads an answer: the leaf first, the trusted roots last, what chains them in between.
fn read(answer: &[String]) -> Result<Issued, ServiceError> {
    let [chain @ .., roots] = answer else { return Err(ServiceError::Answer("nothing")) };
    if chain.is_empty() {
        return Err(ServiceError::Answer("one certificate"));
    }
    let pem = |text: &String| {
        CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ServiceError::Answer("something that is not PEM"))
    };
    let roots = pem(roots)?;
    let mut all = Vec::new();
    for text in chain {
        all.extend(pem(text)?);
    }
    let is_root = |der: &CertificateDer<'_>| certificate::read_ca(der).is_ok_and(|facts| facts.is_root);
    let mut links = all.into_iter();
    let leaf = links.next();
    let chain: Vec<_> = leaf.into_iter().chain(links.filter(|der| !is_root(der))).collect();
    if chain.is_empty() || roots.is_empty() {
        return Err(ServiceError::Answer("no leaf, or no root"));
    }
    Ok(Issued { chain, roots })
}

fn refused(status: &tonic::Status) -> ServiceError {
    // A status with a cause is made on this side: the connection broke, or the time ran out.
    match std::error::Error::source(status) {
        Some(cause) => ServiceError::Unreachable(causes::all(cause)),
        None => ServiceError::Refused {
            code: status.code(),
            message: status.message().chars().take(512).collect(),
        },
    }
}

#[cfg(test)]
mod tests;
