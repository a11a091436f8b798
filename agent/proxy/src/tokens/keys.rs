//! An issuer's keys (RFC 7517), and whether one of them made a signature.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::{Refusal, Token};

/// What an issuer's key set says.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Not a key set that is of use.
#[derive(Debug, thiserror::Error)]
pub enum NotKeys {
    /// Not JSON, or without `keys`.
    #[error("not a key set")]
    Json(#[source] serde_json::Error),
    /// None of its keys can be used.
    #[error("none of its {0} keys is an RSA, P-256, P-384 or Ed25519 key for signatures")]
    Unusable(usize),
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only way in which it may be used.
    declared: Option<KeyAlgorithm>,
    /// The ways in which it can be used.
    fits: &'static [Algorithm],
    decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a key set. Keys of other kinds are left out.
    ///
    /// # Errors
    /// It is none, or has no key that could be used.
    pub fn read(json: &[u8]) -> Result<Self, NotKeys> {
        let document: Document = serde_json::from_slice(json).map_err(NotKeys::Json)?;
        let count = document.keys.len();
        let keys: Vec<Key> = document.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() { Err(NotKeys::Unusable(count)) } else { Ok(Self { keys }) }
    }

    /// Whether one of the keys has signed the token.
    ///
    /// # Errors
    /// [`Refusal::NoSuchKey`]: none of them may have; [`Refusal::Verification`]: none of them has.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), Refusal> {
        let mut refusal = Refusal::NoSuchKey;
        for key in self.keys.iter().filter(|key| key.may_have_signed(token)) {
            refusal = Refusal::Verification;
            let signed = token.signed.as_bytes();
            if key.fits.contains(&token.algorithm)
                && matches!(
                    jsonwebtoken::crypto::verify(token.signature, signed, &key.decoding, token.algorithm),
                    Ok(true)
                )
            {
                return Ok(());
            }
        }
        Err(refusal)
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
            return None;
        }
        let fits = ways(&jwk.algorithm)?;
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, declared: jwk.common.key_algorithm, fits, decoding })
    }

    fn may_have_signed(&self, token: &Token<'_>) -> bool {
        let same_id = match (&self.id, &token.key_id) {
            (Some(own), Some(wanted)) => own == wanted,
            (None, _) | (_, None) => true,
        };
        same_id && self.declared.is_none_or(|declared| declared == KeyAlgorithm::from(token.algorithm))
    }
}

/// How a key can sign. The kind of key decides, never the token: a public key is no shared secret.
fn ways(parameters: &AlgorithmParameters) -> Option<&'static [Algorithm]> {
    match parameters {
        AlgorithmParameters::RSA(_) => Some(&[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ]),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Some(&[Algorithm::ES256]),
            EllipticCurve::P384 => Some(&[Algorithm::ES384]),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Some(&[Algorithm::EdDSA])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
