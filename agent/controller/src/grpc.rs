//! The controller's door for agents: gRPC `istio.v1.auth.IstioCertificateService`, and `weft.v1.GatewaySecrets`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use weft_identity::wire::{
    CertificateRequest, CertificateResponse, METHOD, SECRETS_METHOD, SecretsRequest, SecretsResponse,
};

use crate::caller::Refusal;
use crate::gateway_secrets::GatewaySecrets;
use crate::issue::{Denied, Issuer};
use crate::listener::AsyncAnswer;
use crate::metrics::Metrics;
use crate::tokens::{TokenError, Tokens};

/// A request for one certificate is a few kilobytes.
const LONGEST_REQUEST: usize = 64 << 10;
/// One about thousands of Secrets is more.
const LONGEST_QUESTION: usize = 1 << 20;
/// Longest time for an answer, with what is asked of the API server.
const ANSWER: Duration = Duration::from_secs(10);

/// Answers requests for certificates.
#[derive(Debug, Clone)]
pub struct CertificateService {
    /// Whose tokens are believed.
    pub tokens: Arc<Tokens>,
    /// Who decides and signs.
    pub issuer: Arc<Issuer>,
    /// What gateways of a node need.
    pub secrets: Arc<GatewaySecrets>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl AsyncAnswer<tonic::body::Body> for CertificateService {
    async fn answer(&self, request: Request<Incoming>) -> http::Response<tonic::body::Body> {
        if request.uri().path() == SECRETS_METHOD {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<SecretsResponse, SecretsRequest>::default())
                .max_decoding_message_size(LONGEST_QUESTION);
            return match tokio::time::timeout(ANSWER, grpc.unary(TellSecrets(self.clone()), request)).await {
                Ok(response) => response,
                Err(_) => Status::deadline_exceeded("the controller is too busy; ask again").into_http(),
            };
        }
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

/// The other one: Secrets of gateways.
struct TellSecrets(CertificateService);

impl tonic::server::UnaryService<SecretsRequest> for TellSecrets {
    type Response = SecretsResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<SecretsResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<SecretsRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let node = service.caller(request.metadata()).await?;
            let told = service.secrets.changed(&node, request.get_ref()).await;
            let told =
                told.ok_or_else(|| Status::resource_exhausted("too many questions of this node wait"))?;
            for one in &told.secrets {
                service.metrics.secret(one.refused.is_empty());
                tracing::debug!(
                    node,
                    namespace = one.namespace,
                    name = one.name,
                    refused = one.refused,
                    "told of a Secret"
                );
            }
            Ok(tonic::Response::new(told))
        })
    }
}

impl CertificateService {
    /// The node of whose agent the token is.
    async fn caller(&self, metadata: &MetadataMap) -> Result<String, Status> {
        let token = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(|| {
            Status::unauthenticated("no token: send authorization: Bearer TOKEN, of audience weft-ca")
        })?;
        self.tokens.node(token).await.map_err(|error| unknown_caller(&error))
    }

    async fn create(&self, request: &tonic::Request<CertificateRequest>) -> Result<Vec<String>, Status> {
        let node = self.caller(request.metadata()).await?;
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
    tracing::warn!("an agent's request is refused: {error}");
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
