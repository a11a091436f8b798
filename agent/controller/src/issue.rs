//! Who gets a certificate: the decision, and nothing of how it is asked for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weft_api::identity::Identity;
use weft_identity::wire::CertificateRequest;
use weft_identity::{AuthorityError, LONGEST_LIFE, SHORTEST_LIFE};

use crate::ca::{Ca, CaError};
use crate::pods::Pods;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The request does not say for whom.
    #[error(
        "the request names no identity (metadata ImpersonatedIdentity: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT)"
    )]
    NoIdentity,
    /// Somebody else's mesh.
    #[error("{0} is of another trust domain than this mesh's, {1}")]
    TrustDomain(Identity, String),
    /// It cannot be said yet.
    #[error("the list of pods is not complete yet")]
    NotYet,
    /// Not for this node.
    #[error("no live pod of service account {namespace}/{account} is on node {node}")]
    NotThere {
        /// Where the caller is.
        node: String,
        /// The account's namespace.
        namespace: String,
        /// Its name.
        account: String,
    },
    /// The CA says no.
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl Denied {
    /// In gRPC's words.
    pub fn code(&self) -> tonic::Code {
        match self {
            Self::NoIdentity
            | Self::Ca(CaError::NotARequest | CaError::Authority(AuthorityError::Refused(_))) => {
                tonic::Code::InvalidArgument
            }
            Self::TrustDomain(..) | Self::NotThere { .. } => tonic::Code::PermissionDenied,
            Self::NotYet | Self::Ca(CaError::NoKey) => tonic::Code::Unavailable,
            Self::Ca(CaError::Authority(_)) => tonic::Code::Internal,
        }
    }
}

/// Signs for the pods of a node.
#[derive(Debug)]
pub struct Issuer {
    /// What signs.
    pub ca: Arc<Ca>,
    /// What runs where.
    pub pods: Arc<Pods>,
    /// Longest wait for the watch to hear of a pod that an agent knows already.
    pub patience: Duration,
}

impl Issuer {
    /// The certificates, leaf to root, that the agent of `node` asks for.
    pub async fn issue(&self, node: &str, request: &CertificateRequest) -> Result<Vec<String>, Denied> {
        let identity = request.identity().and_then(Identity::parse).ok_or(Denied::NoIdentity)?;
        if *identity.trust_domain != *self.ca.trust_domain() {
            return Err(Denied::TrustDomain(identity, self.ca.trust_domain().to_owned()));
        }
        let (namespace, account) = (&*identity.namespace, &*identity.service_account);
        if !self.pods.runs_soon(node, namespace, account, self.patience).await {
            if !self.pods.is_complete() {
                return Err(Denied::NotYet);
            }
            return Err(Denied::NotThere {
                node: node.to_owned(),
                namespace: namespace.to_owned(),
                account: account.to_owned(),
            });
        }
        let life = match u64::try_from(request.validity_duration) {
            Ok(secs @ 1..) => Duration::from_secs(secs).max(SHORTEST_LIFE),
            _ => LONGEST_LIFE,
        };
        Ok(self.ca.issue(&request.csr, &identity, life, SystemTime::now())?)
    }
}

#[cfg(test)]
mod tests;
