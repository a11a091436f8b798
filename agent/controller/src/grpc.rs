//! The CA's door: gRPC `istio.v1.auth.IstioCertificateService`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use weft_identity::wire::{CertificateRequest, CertificateResponse, METHOD};

use crate::caller::Refusal;
use crate::issue::{Denied, Issuer};
use crate::listener::AsyncAnswer;
use crate::metrics::Metrics;
use crate::tokens::{TokenError, Tokens};

/// A request for one certificate is a few kilobytes.
const LONGEST_REQUEST: usize = 64 << 10;
/// Longest time for an answer, with what is asked of the API server.
const ANSWER: Duration = Duration::from_secs(10);

/// Answers requests for certificates.
#[derive(Debug, Clone)]
pub struct CertificateService {
    /// Whose tokens are believed.
    pub tokens: Arc<Tokens>,
    /// Who decides and signs.
    pub issuer: Arc<Issuer>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl AsyncAnswer<tonic::body::Body> for CertificateService {
    async fn answer(&self, request: Request<Incoming>) -> http::Response<tonic::body::Body> {
        if request.uri().path() != METHOD {
            return Status::unimplemented("this is the certificate service of weft, and nothing else")
                .into_http();
        }
        let mut grpc =
            tonic::server::Grpc::new(ProstCodec::<CertificateResponse, CertificateRequest>::default())
                .max_decoding_message_size(LONGEST_REQUEST);
        match tokio::time::timeout(ANSWER, grpc.unary(CreateCertificate(self.clone()), request)).await {
            Ok(response) => response,
            Err(_) => Status::deadline_exceeded("the CA is too busy; ask again").into_http(),
        }
    }
}

/// The one method.
struct CreateCertificate(CertificateService);

impl tonic::server::UnaryService<CertificateRequest> for CreateCertificate {
    type Response = CertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<CertificateResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<CertificateRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let outcome = service.create(&request).await;
            let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
            service.metrics.certificate(code);
            outcome.map(|cert_chain| tonic::Response::new(CertificateResponse { cert_chain }))
        })
    }
}

impl CertificateService {
    async fn create(&self, request: &tonic::Request<CertificateRequest>) -> Result<Vec<String>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(|| {
            Status::unauthenticated("no token: send authorization: Bearer TOKEN, of audience weft-ca")
        })?;
        let node = self.tokens.node(token).await.map_err(|error| unknown_caller(&error))?;
        let asked = request.get_ref();
        match self.issuer.issue(&node, asked).await {
            Ok(chain) => {
                tracing::debug!(node, identity = asked.identity(), "signed");
                Ok(chain)
            }
            Err(denied) => Err(denied_to(&node, asked, &denied)),
        }
    }
}

fn unknown_caller(error: &TokenError) -> Status {
    tracing::warn!("a request for a certificate is refused: {error}");
    let code = match error {
        TokenError::Refused(Refusal::Token(_)) => Code::Unauthenticated,
        TokenError::Refused(Refusal::User(..) | Refusal::NoNode) => Code::PermissionDenied,
        TokenError::Unknown(_) => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

fn denied_to(node: &str, asked: &CertificateRequest, denied: &Denied) -> Status {
    // Whatever a caller sends may stand in it: the log escapes it, and takes no more than a name's length.
    let identity: String = asked.identity().unwrap_or_default().chars().take(256).collect();
    tracing::warn!(node, ?identity, "a request for a certificate is refused: {denied}");
    Status::new(denied.code(), denied.to_string())
}
