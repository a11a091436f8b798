//! Asks the API server who a token belongs to. An answer is good for a moment, so that the many requests of a node that
//! has just started ask once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::authentication::v1::TokenReview;
use kube::api::{Api, PostParams};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;
use weft_api::causes;

use crate::caller::{self, Refusal};

/// How long an answer is good: a token whose pod is gone may be used so much longer.
const FRESH: Duration = Duration::from_secs(10);
/// Most answers that are kept.
const KEPT: usize = 4096;
/// Most questions at once.
const AT_ONCE: usize = 16;
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Why it is not known whose a token is.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It gets nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The API server cannot say.
    #[error("the API server does not say whose the token is: {0}")]
    Unknown(String),
}

/// By the token's SHA-256: the token itself is not kept.
type Hash = [u8; 32];

/// Answers about tokens.
#[derive(Debug)]
pub struct Tokens {
    reviews: Api<TokenReview>,
    /// Who may ask for certificates.
    user: String,
    questions: Semaphore,
    answers: Mutex<HashMap<Hash, Answer>>,
}

#[derive(Debug, Clone)]
struct Answer {
    asked: Instant,
    node: Arc<OnceCell<Result<String, Refusal>>>,
}

impl Tokens {
    /// Believes the tokens of `user`.
    pub fn new(client: kube::Client, user: String) -> Self {
        let answers = Mutex::default();
        Self { reviews: Api::all(client), user, questions: Semaphore::new(AT_ONCE), answers }
    }

    /// The node that the token is bound to.
    pub async fn node(&self, token: &str) -> Result<String, TokenError> {
        let mut hash = Hash::default();
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let answer = self.answer(hash, Instant::now());
        // Whoever comes meanwhile waits for the same answer; a failure is no answer.
        Ok(answer.get_or_try_init(|| self.ask(token)).await?.clone()?)
    }

    fn answer(&self, hash: Hash, now: Instant) -> Arc<OnceCell<Result<String, Refusal>>> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= KEPT {
            answers.retain(|_, answer| now < answer.asked + FRESH);
        }
        if answers.len() >= KEPT {
            answers.clear();
        }
        let fresh = || Answer { asked: now, node: Arc::default() };
        let answer = answers.entry(hash).or_insert_with(fresh);
        if now >= answer.asked + FRESH {
            *answer = fresh();
        }
        answer.node.clone()
    }

    async fn ask(&self, token: &str) -> Result<Result<String, Refusal>, TokenError> {
        let _turn = self.questions.acquire().await.map_err(|error| TokenError::Unknown(error.to_string()))?;
        let params = PostParams::default();
        let question = caller::question(token);
        let asking = self.reviews.create(&params, &question);
        let answer = tokio::time::timeout(ANSWER, asking).await;
        let review = answer
            .map_err(|_| TokenError::Unknown("it does not answer in time".to_owned()))?
            .map_err(|error| TokenError::Unknown(causes::all(&error)))?;
        Ok(caller::node(review, &self.user))
    }
}
