//! One token, read but not yet believed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::Refusal;

/// Longest token that is looked at.
const LONGEST: usize = 32 * 1024;
/// How far the issuer's clock may be off, as in Envoy.
const LEEWAY: Duration = Duration::from_mins(1);

/// A token (RFC 7519, signed as RFC 7515 has it in compact form).
#[derive(Debug, Clone, PartialEq)]
pub struct Token<'a> {
    /// What the signature covers.
    pub signed: &'a str,
    /// The payload, encoded.
    pub encoded_payload: &'a str,
    /// The signature, encoded.
    pub signature: &'a str,
    /// How it is signed.
    pub algorithm: Algorithm,
    /// With which key.
    pub key_id: Option<String>,
    /// What it claims.
    pub claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// It is too long, is none, or says how it is signed in a way that proves nothing.
    pub fn read(text: &'a str) -> Result<Self, Refusal> {
        if text.len() > LONGEST {
            return Err(Refusal::Form);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Form)?;
        let (encoded_header, encoded_payload) = signed.split_once('.').ok_or(Refusal::Form)?;
        if encoded_payload.contains('.') {
            return Err(Refusal::Form);
        }
        let header = decode(encoded_header).ok_or(Refusal::HeaderBase64)?;
        let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| Refusal::HeaderJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Refusal::HeaderAlgorithm)?;
        let algorithm = supported(algorithm).ok_or(Refusal::Algorithm)?;
        // RFC 7515, 4.1.11: extensions that must be understood; there are none that are.
        if header.contains_key("crit") {
            return Err(Refusal::Verification);
        }
        let key_id = text_of(header.get("kid"), Refusal::KeyId)?.map(str::to_owned);
        let payload = decode(encoded_payload).ok_or(Refusal::PayloadBase64)?;
        let claims: Map<String, Value> =
            serde_json::from_slice(&payload).map_err(|_| Refusal::PayloadJson)?;
        decode(signature).ok_or(Refusal::SignatureBase64)?;
        let token = Self { signed, encoded_payload, signature, algorithm, key_id, claims };
        token.check_forms()?;
        Ok(token)
    }

    /// `iss`; empty where it says none.
    pub fn issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// `aud`.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self.claims.get("aud") {
            Some(Value::Array(many)) => (None, many.as_slice()),
            one => (one, &[][..]),
        };
        one.into_iter().chain(many).filter_map(Value::as_str)
    }

    /// Whether it holds at this time. Without `exp` it holds for ever.
    ///
    /// # Errors
    /// It does not hold yet, or no longer.
    pub fn check_time(&self, now: SystemTime) -> Result<(), Refusal> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let leeway = LEEWAY.as_secs();
        if self.claims.get("nbf").and_then(seconds).is_some_and(|from| from > now.saturating_add(leeway)) {
            return Err(Refusal::NotYetValid);
        }
        if self.claims.get("exp").and_then(seconds).is_some_and(|to| now > to.saturating_add(leeway)) {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    fn check_forms(&self) -> Result<(), Refusal> {
        text_of(self.claims.get("iss"), Refusal::Issuer)?;
        text_of(self.claims.get("sub"), Refusal::Subject)?;
        for (name, refusal) in [("exp", Refusal::Expiry), ("nbf", Refusal::NotBefore)] {
            if self.claims.get(name).is_some_and(|value| seconds(value).is_none()) {
                return Err(refusal);
            }
        }
        match self.claims.get("aud") {
            None | Some(Value::String(_)) => Ok(()),
            Some(Value::Array(many)) if many.iter().all(Value::is_string) => Ok(()),
            Some(_) => Err(Refusal::Audience),
        }
    }
}

/// Signatures that only the issuer can make. A shared secret is none: who can check could also sign.
fn supported(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn text_of(value: Option<&Value>, refusal: Refusal) -> Result<Option<&str>, Refusal> {
    value.map(|value| value.as_str().ok_or(refusal)).transpose()
}

/// A time in seconds; fractions are cut off.
fn seconds(value: &Value) -> Option<u64> {
    #[expect(clippy::cast_sign_loss, reason = "only what is not negative is cast")]
    let whole = |number: f64| (0.0..9e18).contains(&number).then_some(number as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    fn refused(text: &str) -> Refusal {
        Token::read(text).expect_err(text)
    }

    #[test]
    fn what_is_no_token_is_told_in_envoys_words() {
        const HEADER: &str = r#"{"alg":"RS256"}"#;
        assert_eq!(refused("a.b"), Refusal::Form);
        assert_eq!(refused("a.b.c.d"), Refusal::Form);
        assert_eq!(refused("=.b.c"), Refusal::HeaderBase64);
        assert_eq!(refused("AAAA.b.c"), Refusal::HeaderJson);
        assert_eq!(refused(&token("{}", "{}")), Refusal::HeaderAlgorithm);
        assert_eq!(refused(&token(r#"{"alg":"RS256","kid":1}"#, "{}")), Refusal::KeyId);
        assert_eq!(refused(&token(HEADER, "[]")), Refusal::PayloadJson);
        assert_eq!(refused(&token(HEADER, r#"{"iss":1}"#)), Refusal::Issuer);
        assert_eq!(refused(&token(HEADER, r#"{"exp":"soon"}"#)), Refusal::Expiry);
        assert_eq!(refused(&token(HEADER, r#"{"exp":-1}"#)), Refusal::Expiry);
        assert_eq!(refused(&token(HEADER, r#"{"aud":[1]}"#)), Refusal::Audience);
        assert_eq!(refused(&token(r#"{"alg":"RS256","crit":["b64"]}"#, "{}")), Refusal::Verification);
        assert_eq!(refused(&token(HEADER, "{}").replace("AAAA", "A")), Refusal::SignatureBase64);
    }

    #[test]
    fn a_signature_that_proves_nothing_is_refused() {
        for algorithm in ["none", "None", "", "HS256", "HS384", "HS512", "rs256"] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            assert_eq!(refused(&token(&header, "{}")), Refusal::Algorithm, "{algorithm}");
        }
    }

    #[test]
    fn a_token_of_a_megabyte_is_not_read() {
        let long = token(r#"{"alg":"RS256"}"#, &format!(r#"{{"a":"{}"}}"#, "x".repeat(1 << 20)));
        assert_eq!(refused(&long), Refusal::Form);
    }

    #[test]
    fn time_has_a_minute_of_leeway() {
        let text = token(r#"{"alg":"RS256"}"#, r#"{"nbf":1000,"exp":2000.5}"#);
        let token = Token::read(&text).expect("a token");
        let at = |seconds| token.check_time(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(939), Err(Refusal::NotYetValid));
        assert_eq!(at(940), Ok(()));
        assert_eq!(at(2060), Ok(()));
        assert_eq!(at(2061), Err(Refusal::Expired));
    }
}
