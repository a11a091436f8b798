//! An issuer of tokens, with a real key:
//!
//! | path | answer |
//! |---|---|
//! | `/keys` | the key set; counted |
//! | `/.well-known/openid-configuration` | where the key set is |
//! | `/token/HEX` | a token of the claims that HEX (of JSON) is |
//! | `/rotate` | from now on there is another key |
//! | `/fail`, `/mend` | `/keys` is 503, and no longer |
//! | `/asked` | how often `/keys` was asked for |

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::http_server::{Args, Body, BoxError, Call, answer, json as as_json, not_found, serve};

struct Issuer {
    key: EcdsaKeyPair,
    /// How many keys there were before; part of the key's id.
    turn: u32,
    failing: bool,
    asked: u32,
}

/// Serves.
pub async fn run(args: Args) -> Result<()> {
    let issuer = Issuer { key: new_key()?, turn: 0, failing: false, asked: 0 };
    let issuer = Arc::new(Mutex::new(issuer));
    serve(&args, move |call| {
        let answered = issuer.lock().expect("no holder panics").answer(&call);
        std::future::ready(answered)
    })
    .await
}

fn new_key() -> Result<EcdsaKeyPair> {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).context("no key")
}

impl Issuer {
    fn answer(&mut self, call: &Call) -> Result<Response<Body>, BoxError> {
        let path = call.request.uri().path();
        if let Some(claims) = path.strip_prefix("/token/") {
            return Ok(answer(StatusCode::OK, "text/plain", self.token(&from_hex(claims)?)?));
        }
        match path {
            "/keys" => {
                self.asked += 1;
                if self.failing {
                    return Ok(answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "failing\n"));
                }
            }
            "/rotate" => (self.key, self.turn) = (new_key()?, self.turn + 1),
            "/fail" => self.failing = true,
            "/mend" => self.failing = false,
            "/.well-known/openid-configuration" => {
                let host = call.request.headers().get("host").context("no host")?.to_str()?;
                return Ok(as_json(&json!({"jwks_uri": format!("http://{host}/keys")})));
            }
            "/asked" => return Ok(as_json(&json!({"asked": self.asked}))),
            _ => return Ok(not_found()),
        }
        Ok(as_json(&self.key_set()))
    }

    fn id(&self) -> String {
        format!("key-{}", self.turn)
    }

    fn key_set(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let coordinate = |range| URL_SAFE_NO_PAD.encode(&point[range]);
        let (x, y) = (coordinate(1..33), coordinate(33..65));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.id(), "x": x, "y": y}]})
    }

    fn token(&self, claims: &[u8]) -> Result<String> {
        let header = json!({"alg": "ES256", "kid": self.id(), "typ": "JWT"}).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).context("no signature")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2) && text.is_ascii(), "{text:?} is not hexadecimal");
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    pairs.collect::<Result<_, _>>().with_context(|| format!("{text:?} is not hexadecimal"))
}
