//! A real server of keys on loopback, which tells when it was asked.

use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::super::test_keys::{TestKey, key_set};
use super::*;

/// Answers with what it was given last; nothing given is a 500.
struct Server {
    answer: Arc<Mutex<Option<String>>>,
    asked: mpsc::UnboundedReceiver<String>,
    address: std::net::SocketAddr,
}

impl Server {
    async fn start(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(answer));
        let (tell, asked) = mpsc::unbounded_channel();
        let answers = Arc::clone(&answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(|request: Request<Incoming>| {
                    let path = request.uri().path().to_owned();
                    let discovery = json!({"jwks_uri": format!("http://{address}/keys")}).to_string();
                    let body = match path.as_str() {
                        "/.well-known/openid-configuration" => Some(discovery),
                        _ => answers.lock().unwrap().clone(),
                    };
                    tell.send(path).ok();
                    let status =
                        if body.is_some() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
                    let mut response = Response::new(Full::new(Bytes::from(body.unwrap_or_default())));
                    *response.status_mut() = status;
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            }
        });
        Self { answer, asked, address }
    }

    fn says(&self, answer: Option<String>) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn rule(rule: serde_json::Value) -> Arc<TokenRule> {
    Arc::new(TokenRule::compile(&serde_json::from_value(rule).expect("a rule")))
}

/// A ring whose fetcher runs, told of these rules.
fn ring(rules: Vec<Arc<TokenRule>>) -> Arc<Keyring> {
    let (ring, mut fetcher) = Keyring::new(&["127.0.0.0/8".parse().unwrap()]);
    tokio::spawn(async move { fetcher.fill(Arc::default(), move |_| rules.clone()).await });
    ring
}

async fn verify(ring: &Keyring, rule: &TokenRule, token: &str) -> Result<(), Refusal> {
    ring.verify(rule, &Token::read(token)?).await
}

#[tokio::test]
async fn keys_are_fetched_before_anybody_asks() {
    let key = TestKey::p256();
    let mut server = Server::start(Some(key_set(&[key.jwk("k")]))).await;
    let rule = rule(json!({"issuer": "a", "jwksUri": format!("http://{}/keys", server.address)}));
    let ring = ring(vec![Arc::clone(&rule)]);
    assert_eq!(server.asked.recv().await.as_deref(), Some("/keys"));
    assert_eq!(verify(&ring, &rule, &key.token("ES256", "k", &json!({}))).await, Ok(()));
    assert!(server.asked.try_recv().is_err(), "no request has keys fetched");
}

#[tokio::test]
async fn keys_are_discovered() {
    let key = TestKey::p256();
    let mut server = Server::start(Some(key_set(&[key.jwk("k")]))).await;
    let rule = rule(json!({"issuer": format!("http://{}/", server.address)}));
    let ring = ring(vec![Arc::clone(&rule)]);
    assert_eq!(verify(&ring, &rule, &key.token("ES256", "k", &json!({}))).await, Ok(()));
    assert_eq!(server.asked.recv().await.as_deref(), Some("/.well-known/openid-configuration"));
    assert_eq!(server.asked.recv().await.as_deref(), Some("/keys"));
}

#[tokio::test]
async fn a_new_key_is_fetched_when_its_token_comes_and_old_ones_outlive_a_failure() {
    let (old, new) = (TestKey::p256(), TestKey::p256());
    let mut server = Server::start(Some(key_set(&[old.jwk("old")]))).await;
    let rule = rule(json!({"issuer": "a", "jwksUri": format!("http://{}/keys", server.address)}));
    let ring = ring(vec![Arc::clone(&rule)]);
    let (old, new_token) = (old.token("ES256", "old", &json!({})), new.token("ES256", "new", &json!({})));
    assert_eq!(verify(&ring, &rule, &old).await, Ok(()));
    server.asked.recv().await;

    server.says(None);
    assert_eq!(verify(&ring, &rule, &new_token).await, Err(Refusal::NoSuchKey));
    server.asked.recv().await;
    assert_eq!(verify(&ring, &rule, &old).await, Ok(()));

    server.says(Some(key_set(&[new.jwk("new")])));
    server.asked.recv().await;
    while verify(&ring, &rule, &new_token).await != Ok(()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(verify(&ring, &rule, &old).await, Err(Refusal::NoSuchKey));
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_has_its_tokens_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let token = TestKey::p256().token("ES256", "k", &json!({}));
    for uri in [format!("http://{address}/keys"), "ftp://a/b".to_owned(), "nothing".to_owned()] {
        let rule = rule(json!({"issuer": "a", "jwksUri": uri}));
        let ring = ring(vec![Arc::clone(&rule)]);
        assert_eq!(verify(&ring, &rule, &token).await, Err(Refusal::KeysUnavailable), "{uri}");
    }
}

#[tokio::test]
async fn an_issuer_that_says_nothing_is_not_waited_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/keys", listener.local_addr().unwrap());
    let rule = rule(json!({"issuer": "a", "jwksUri": uri, "timeout": "20ms"}));
    let ring = ring(vec![Arc::clone(&rule)]);
    let token = TestKey::p256().token("ES256", "k", &json!({}));
    assert_eq!(verify(&ring, &rule, &token).await, Err(Refusal::KeysUnavailable));
    let again = tokio::time::timeout(Duration::ZERO, verify(&ring, &rule, &token)).await;
    assert_eq!(again, Ok(Err(Refusal::KeysUnavailable)), "only the first request waits");
}

#[tokio::test]
async fn keys_that_no_rule_names_are_forgotten() {
    let (mine, other) = (TestKey::p256(), TestKey::p256());
    let inline = |key: &TestKey| rule(json!({"issuer": "a", "jwks": key_set(&[key.jwk("k")])}));
    let (kept, dropped) = (inline(&mine), inline(&other));
    let (ring, _fetcher) = Keyring::new(&[]);
    assert_eq!(verify(&ring, &kept, &mine.token("ES256", "k", &json!({}))).await, Ok(()));
    assert_eq!(
        verify(&ring, &dropped, &mine.token("ES256", "k", &json!({}))).await,
        Err(Refusal::Verification)
    );
    ring.keep(&[Arc::clone(&kept)]);
    let left: Vec<_> = ring.issuers.load().keys().cloned().collect();
    assert_eq!(left, std::slice::from_ref(&kept.keys));
}
