//! Who asks for a certificate, and for which node: what a TokenReview says, read strictly.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::ObjectMeta;
use weft_api::names::CA_AUDIENCE;

/// Where a bound token's node stands in the review.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Why a caller gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a token of this cluster for this audience.
    #[error("the token is not accepted: {0}")]
    Token(String),
    /// Somebody else's.
    #[error("{0} may not ask for certificates: only {1} may")]
    User(String, String),
    /// Nothing says which node it is for.
    #[error(
        "the token names no node: it has to be bound to a pod (a projected serviceAccountToken volume), by Kubernetes 1.30 or \
         newer (before 1.32 with the feature gate ServiceAccountTokenPodNodeInfo)"
    )]
    NoNode,
}

/// Asks the API server about a token.
pub fn question(token: &str) -> TokenReview {
    let spec =
        TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![CA_AUDIENCE.to_owned()]) };
    TokenReview { metadata: ObjectMeta::default(), spec, status: None }
}

/// The node that the token is bound to, if it is `user`'s and for the CA.
pub fn node(review: TokenReview, user: &str) -> Result<String, Refusal> {
    let status = review.status.unwrap_or_default();
    let refused = |why: &str| Refusal::Token(why.to_owned());
    if status.authenticated != Some(true) {
        return Err(refused(&status.error.unwrap_or_else(|| "the API server does not know it".to_owned())));
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == CA_AUDIENCE) {
        return Err(refused("it is not for the audience weft-ca"));
    }
    let who = status.user.unwrap_or_default();
    let name = who.username.unwrap_or_default();
    if name != user {
        return Err(Refusal::User(name, user.to_owned()));
    }
    match who.extra.unwrap_or_default().remove(NODE_NAME).as_deref() {
        Some([node]) if !node.is_empty() => Ok(node.clone()),
        _ => Err(Refusal::NoNode),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AGENT: &str = "system:serviceaccount:weft-system:weft-agent";

    fn review(status: &Value) -> Result<String, Refusal> {
        let review = json!({ "metadata": {}, "spec": {}, "status": status });
        node(serde_json::from_value(review).unwrap(), AGENT)
    }

    fn status() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["weft-ca"],
            "user": { "username": AGENT, "extra": { NODE_NAME: ["n1"] } },
        })
    }

    /// The status of a good token, with something else in one place.
    fn with(pointer: &str, value: Value) -> Value {
        let mut status = status();
        *status.pointer_mut(pointer).unwrap() = value;
        status
    }

    #[test]
    fn an_agents_token_tells_its_node() {
        assert_eq!(review(&status()), Ok("n1".to_owned()));
    }

    #[test]
    fn other_tokens_tell_none() {
        let token = |why: &str| Err(Refusal::Token(why.to_owned()));
        assert_eq!(review(&with("/authenticated", json!(false))), token("the API server does not know it"));
        assert_eq!(review(&json!({ "error": "expired" })), token("expired"));
        for audiences in [json!([]), json!(["https://kubernetes.default.svc"])] {
            assert_eq!(review(&with("/audiences", audiences)), token("it is not for the audience weft-ca"));
        }
        for user in ["system:serviceaccount:weft-system:other", "system:serviceaccount:shop:weft-agent", ""] {
            assert_eq!(
                review(&with("/user/username", json!(user))),
                Err(Refusal::User(user.to_owned(), AGENT.to_owned()))
            );
        }
        for extra in [
            json!({}),
            json!({ NODE_NAME: [] }),
            json!({ NODE_NAME: [""] }),
            json!({ NODE_NAME: ["n1", "n2"] }),
        ] {
            assert_eq!(review(&with("/user/extra", extra)), Err(Refusal::NoNode));
        }
    }
}
