//! Why a token is not accepted, in the words of Envoy (`jwt_verify_lib`).

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not three parts, or longer than any token.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    /// The header's encoding.
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderBase64,
    /// The header's content.
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    /// `alg` is missing or no text.
    #[error("Jwt header [alg] field is required and must be a string")]
    HeaderAlgorithm,
    /// `alg` is none that proves anything: `none`, a shared secret, an unknown one.
    #[error("Jwt header [alg] is not supported")]
    Algorithm,
    /// `kid` is no text.
    #[error("Jwt header [kid] field is not a string")]
    KeyId,
    /// The payload's encoding.
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadBase64,
    /// The payload's content.
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    /// `iss`.
    #[error("Jwt payload [iss] field is not a string")]
    Issuer,
    /// `sub`.
    #[error("Jwt payload [sub] field is not a string")]
    Subject,
    /// `aud`.
    #[error("Jwt payload [aud] field is not a string or string list")]
    Audience,
    /// `exp`.
    #[error("Jwt payload [exp] field is not a positive 64 bit integer")]
    Expiry,
    /// `nbf`.
    #[error("Jwt payload [nbf] field is not a positive 64 bit integer")]
    NotBefore,
    /// The signature's encoding.
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureBase64,
    /// No rule is for its issuer.
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    /// Too early.
    #[error("Jwt not yet valid")]
    NotYetValid,
    /// Too late.
    #[error("Jwt is expired")]
    Expired,
    /// For somebody else.
    #[error("Audiences in Jwt are not allowed")]
    AudienceNotAllowed,
    /// The issuer's keys could not be had.
    #[error("Jwks remote fetch is failed")]
    KeysUnavailable,
    /// None of the keys is the one.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoSuchKey,
    /// The signature is wrong.
    #[error("Jwt verification fails")]
    Verification,
}

impl Refusal {
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub fn details(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "jwt_authn_access_denied{Jwt_issuer_is_not_configured}",
            Self::NotYetValid => "jwt_authn_access_denied{Jwt_not_yet_valid}",
            Self::Expired => "jwt_authn_access_denied{Jwt_is_expired}",
            Self::AudienceNotAllowed => "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}",
            Self::KeysUnavailable => "jwt_authn_access_denied{Jwks_remote_fetch_is_failed}",
            Self::NoSuchKey => "jwt_authn_access_denied{Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt}",
            Self::Verification => "jwt_authn_access_denied{Jwt_verification_fails}",
            Self::Form
            | Self::HeaderBase64
            | Self::HeaderJson
            | Self::HeaderAlgorithm
            | Self::Algorithm
            | Self::KeyId
            | Self::PayloadBase64
            | Self::PayloadJson
            | Self::Issuer
            | Self::Subject
            | Self::Audience
            | Self::Expiry
            | Self::NotBefore
            | Self::SignatureBase64 => "jwt_authn_access_denied{Jwt_is_malformed}",
        }
    }
}
