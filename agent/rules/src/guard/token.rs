//! Rules about tokens (one of a RequestAuthentication's `jwtRules`), as far as no key is needed: where a token may stand,
//! whom it must be for, what becomes of it afterwards.

mod location;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use weft_api::istio::JwtRule;

pub use self::location::Location;

/// Longest wait for an issuer's keys where the rule says nothing.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// Claims whose text is a list, whatever the rule says.
const LISTS: [&str; 2] = ["scope", "permission"];

/// One issuer's tokens, as a workload takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRule {
    /// The token's `iss`, to the letter.
    pub issuer: Arc<str>,
    /// Where the issuer's keys are.
    pub keys: KeySource,
    /// Longest wait for them.
    pub keys_timeout: Duration,
    /// Where a token may stand, in the order in which they are looked at.
    pub locations: Vec<Location>,
    /// Whether the program gets the token too.
    pub forward: bool,
    /// Header for the payload.
    pub payload_header: Option<HeaderName>,
    /// Headers for single claims.
    pub claim_headers: Vec<(HeaderName, String)>,
    /// Claims whose text is a list separated by spaces.
    pub lists: Vec<String>,
    audiences: Vec<String>,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// The key set itself.
    Inline(Arc<str>),
    /// Its URL.
    Uri(Arc<str>),
    /// At the URL that the issuer's OpenID configuration names; this is the configuration's.
    Discovery(Arc<str>),
}

impl TokenRule {
    /// Compiles a rule. Header names that are none are left out: validation tells them.
    pub fn compile(rule: &JwtRule) -> Self {
        let name = |name: &String| HeaderName::try_from(name.as_str()).ok();
        let lists = LISTS.into_iter().map(str::to_owned).chain(rule.space_delimited_claims.iter().cloned());
        Self {
            issuer: rule.issuer.as_str().into(),
            keys: KeySource::of(rule),
            keys_timeout: rule.timeout.map_or(KEYS_TIMEOUT, |timeout| timeout.0),
            locations: Location::of(rule),
            forward: rule.forward_original_token.unwrap_or(false),
            payload_header: rule.output_payload_to_header.as_ref().and_then(name),
            claim_headers: rule
                .output_claim_to_headers
                .iter()
                .filter_map(|output| Some((name(&output.header)?, output.claim.clone())))
                .collect(),
            lists: lists.collect(),
            audiences: rule.audiences.iter().map(|audience| plain(audience).to_owned()).collect(),
        }
    }

    /// Whether a token for these audiences is for here.
    pub fn admits_audience<'a>(&self, mut audiences: impl Iterator<Item = &'a str>) -> bool {
        self.audiences.is_empty()
            || audiences.any(|given| self.audiences.iter().any(|wanted| wanted == plain(given)))
    }
}

impl KeySource {
    fn of(rule: &JwtRule) -> Self {
        let given = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Arc::from);
        match (given(&rule.jwks_uri), given(&rule.jwks)) {
            (_, Some(keys)) => Self::Inline(keys),
            (Some(uri), None) => Self::Uri(uri),
            (None, None) => {
                let issuer = rule.issuer.trim_end_matches('/');
                Self::Discovery(format!("{issuer}/.well-known/openid-configuration").into())
            }
        }
    }
}

/// An audience as Envoy compares it: without scheme and without a slash at its end.
fn plain(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(yaml: serde_json::Value) -> TokenRule {
        TokenRule::compile(&serde_json::from_value(yaml).expect("a rule"))
    }

    #[test]
    fn keys_are_inline_at_a_url_or_discovered() {
        let keys = |rule: serde_json::Value| compile(rule).keys;
        let issuer = "https://accounts.example.com/";
        assert_eq!(
            keys(serde_json::json!({"issuer": issuer, "jwks": "{}", "jwksUri": "https://a/b"})),
            KeySource::Inline("{}".into())
        );
        assert_eq!(
            keys(serde_json::json!({"issuer": issuer, "jwksUri": "https://a/b"})),
            KeySource::Uri("https://a/b".into())
        );
        assert_eq!(
            keys(serde_json::json!({"issuer": issuer})),
            KeySource::Discovery("https://accounts.example.com/.well-known/openid-configuration".into())
        );
    }

    #[test]
    fn audiences_are_compared_without_scheme_and_last_slash() {
        let rule =
            compile(serde_json::json!({"issuer": "a", "audiences": ["https://shop.example.com/", "b"]}));
        for good in ["shop.example.com", "http://shop.example.com", "https://shop.example.com/", "b"] {
            assert!(rule.admits_audience(["x", good].into_iter()), "{good}");
        }
        assert!(!rule.admits_audience(["shop.example.com/a", "bb"].into_iter()));
        assert!(!rule.admits_audience(std::iter::empty()));
        assert!(compile(serde_json::json!({"issuer": "a"})).admits_audience(std::iter::empty()));
    }
}
