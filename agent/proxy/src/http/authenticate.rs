//! RequestAuthentication: a request's token is found, checked and, if good, told to the program. A request without one
//! passes; that there is one, an AuthorizationPolicy demands.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};
use weft_rules::claims::Claims;
use weft_rules::guard::token::TokenRule;

use super::headers;
use crate::tokens::{Keyring, Refusal, Token};

/// Longest part of a URL that an answer repeats, as in Envoy.
const LONGEST_REALM: usize = 256;

/// What a rule finds in a request.
enum Found {
    /// No token where it looks.
    Nothing,
    /// Good ones only; the first one's claims.
    Good(Claims),
    /// A bad one.
    Bad(Refusal),
}

/// Checks a request's token by the rules of its workload. A good one is taken out of the request, unless its rule
/// forwards it, and told in headers; headers that only weft may set are removed from every request.
///
/// # Errors
/// There is a token, and no rule takes it.
pub(super) async fn authenticate(
    keyring: &Keyring,
    rules: &[Arc<TokenRule>],
    head: &mut Parts,
    now: SystemTime,
) -> Result<Option<Claims>, Refusal> {
    for rule in rules {
        let claims = rule.claim_headers.iter().map(|(name, _)| name);
        for name in claims.chain(&rule.payload_header) {
            head.headers.remove(name);
        }
    }
    if is_preflight(head) {
        return Ok(None);
    }
    let mut refusal = None;
    for rule in rules {
        match try_rule(keyring, rule, head, now).await {
            Found::Good(claims) => return Ok(Some(claims)),
            Found::Nothing => {}
            // What is wrong with a token tells more than that it is for another rule.
            Found::Bad(Refusal::UnknownIssuer) => refusal = refusal.or(Some(Refusal::UnknownIssuer)),
            Found::Bad(worse) => refusal = Some(worse),
        }
    }
    refusal.map_or(Ok(None), Err)
}

/// Status and headers of a refusal (RFC 6750, 3).
pub(super) fn refusal_head(refusal: Refusal, realm: &str) -> (StatusCode, HeaderMap) {
    let status = match refusal {
        Refusal::AudienceNotAllowed => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let challenge = format!("Bearer realm=\"{realm}\", error=\"invalid_token\"");
    let challenge = HeaderValue::try_from(challenge).ok().map(|value| (WWW_AUTHENTICATE, value));
    (status, challenge.into_iter().collect())
}

/// The URL that was asked for, as a challenge names it. Taken before a token is taken out of it.
pub(super) fn realm(head: &Parts) -> String {
    let host = headers::host(head);
    let mut path = head.uri.path();
    while path.len() > LONGEST_REALM || !path.is_ascii() {
        path = path.char_indices().next_back().map_or("", |(last, _)| &path[..last]);
    }
    format!("http://{host}{path}").replace(['"', '\\'], "")
}

/// All tokens where a rule looks must be good, as in Envoy: the program behind might take a bad one for the one that was
/// checked.
async fn try_rule(keyring: &Keyring, rule: &TokenRule, head: &mut Parts, now: SystemTime) -> Found {
    let mut first = None;
    for text in rule.locations.iter().flat_map(|location| location.find(head)) {
        match check(keyring, rule, text, now).await {
            Ok(token) if first.is_none() => first = Some((claims_of(rule, &token), told(rule, &token))),
            Ok(_) => {}
            Err(refusal) => return Found::Bad(refusal),
        }
    }
    let Some((claims, told)) = first else { return Found::Nothing };
    if !rule.forward {
        for location in &rule.locations {
            location.strip(head);
        }
    }
    head.headers.extend(told);
    Found::Good(claims)
}

async fn check<'a>(
    keyring: &Keyring,
    rule: &TokenRule,
    text: &'a str,
    now: SystemTime,
) -> Result<Token<'a>, Refusal> {
    let token = Token::read(text)?;
    if token.issuer() != &*rule.issuer {
        return Err(Refusal::UnknownIssuer);
    }
    token.check_time(now)?;
    if !rule.admits_audience(token.audiences()) {
        return Err(Refusal::AudienceNotAllowed);
    }
    keyring.verify(rule, &token).await?;
    Ok(token)
}

/// `OPTIONS` as a browser asks before another request: it carries no token.
fn is_preflight(head: &Parts) -> bool {
    let given = |name| head.headers.get(name).is_some_and(|value: &HeaderValue| !value.is_empty());
    head.method == Method::OPTIONS && given(ORIGIN) && given(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What the policies see of a token. Without `sub` there is no principal.
fn claims_of(rule: &TokenRule, token: &Token<'_>) -> Claims {
    let issuer = token.issuer().to_owned();
    let subject = token.claims.get("sub").and_then(Value::as_str);
    let principal = subject.map(|subject| format!("{issuer}/{subject}")).unwrap_or_default();
    let mut all = token.claims.clone();
    for list in &rule.lists {
        if let Some(value) = all.get_mut(list)
            && let Some(text) = value.as_str()
        {
            *value = text.split(' ').filter(|item| !item.is_empty()).map(Value::from).collect();
        }
    }
    Claims { issuer, principal, all }
}

/// The headers that tell the program of the token.
fn told(rule: &TokenRule, token: &Token<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(name) = &rule.payload_header
        && let Ok(payload) = HeaderValue::from_str(token.encoded_payload)
    {
        headers.insert(name, payload);
    }
    for (name, claim) in &rule.claim_headers {
        if let Some(text) = find(&token.claims, claim).and_then(as_text)
            && let Ok(value) = HeaderValue::from_str(&text)
        {
            headers.insert(name, value);
        }
    }
    headers
}

/// A claim by its name. Dots are levels, as in Envoy: a claim whose own name has dots is not found.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        None => claims.get(name),
        Some((outer, inner)) => find(claims.get(outer)?.as_object()?, inner),
    }
}

/// Lists and objects as base64url of their JSON, as in Envoy.
fn as_text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(claim.to_string()),
        Value::Array(_) | Value::Object(_) => Some(URL_SAFE_NO_PAD.encode(claim.to_string())),
    }
}

#[cfg(test)]
mod tests;
