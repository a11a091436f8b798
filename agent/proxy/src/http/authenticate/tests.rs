use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;
use crate::tokens::test_keys::{TestKey, key_set};

const ISSUER: &str = "https://issuer.example.com";

/// A workload's rules, and a clock that stands.
struct World {
    key: TestKey,
    rules: Vec<Arc<TokenRule>>,
    keyring: Arc<Keyring>,
}

impl World {
    /// One rule of [`ISSUER`] with these fields, and more rules as given.
    fn new(fields: &Value, others: &[Value]) -> Self {
        let key = TestKey::p256();
        let mut first = json!({"issuer": ISSUER, "jwks": key_set(&[key.jwk("k")])});
        first.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let rules = std::iter::once(&first).chain(others);
        let rules = rules.map(|rule| TokenRule::compile(&serde_json::from_value(rule.clone()).unwrap()));
        Self { key, rules: rules.map(Arc::new).collect(), keyring: Keyring::new(&[]).0 }
    }

    fn token(&self, claims: &Value) -> String {
        let mut all = json!({"iss": ISSUER, "sub": "ann", "exp": 2000});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        self.key.token("ES256", "k", &all)
    }

    async fn ask(&self, head: &mut Parts) -> Result<Option<Claims>, Refusal> {
        authenticate(&self.keyring, &self.rules, head, UNIX_EPOCH + Duration::from_secs(1000)).await
    }
}

fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = http::Request::builder().uri(uri).header("host", "shop.example.com");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn bearer(token: &str) -> Parts {
    request("/", &[("authorization", &format!("Bearer {token}"))])
}

#[tokio::test]
async fn a_request_without_a_token_passes_without_claims() {
    let world = World::new(&json!({}), &[]);
    assert_eq!(world.ask(&mut request("/", &[])).await, Ok(None));
}

#[tokio::test]
async fn a_good_token_tells_who_calls_and_is_taken_out() {
    let world = World::new(&json!({"spaceDelimitedClaims": ["groups"]}), &[]);
    let token = world.token(&json!({"scope": "read write", "groups": "a  b", "name": "Ann Bee"}));
    let mut head = bearer(&token);
    let claims = world.ask(&mut head).await.unwrap().expect("claims");
    assert_eq!(claims.principal, format!("{ISSUER}/ann"));
    assert_eq!(claims.all["scope"], json!(["read", "write"]));
    assert_eq!(claims.all["groups"], json!(["a", "b"]));
    assert_eq!(claims.all["name"], json!("Ann Bee"));
    assert!(!head.headers.contains_key("authorization"));

    let forwarding = World::new(&json!({"forwardOriginalToken": true}), &[]);
    let mut head = bearer(&forwarding.token(&json!({})));
    forwarding.ask(&mut head).await.unwrap().expect("claims");
    assert!(head.headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_token_without_subject_is_no_principal() {
    let world = World::new(&json!({}), &[]);
    let token = world.key.token("ES256", "k", &json!({"iss": ISSUER}));
    assert_eq!(world.ask(&mut bearer(&token)).await.unwrap().expect("claims").principal, "");
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let world = World::new(&json!({"audiences": ["shop"]}), &[]);
    let aud = json!({"aud": "shop"});
    assert!(world.ask(&mut bearer(&world.token(&aud))).await.is_ok());
    for (claims, refusal) in [
        (json!({"iss": "https://issuer.example.com/"}), Refusal::UnknownIssuer),
        (json!({"iss": "other"}), Refusal::UnknownIssuer),
        (json!({"exp": 900, "aud": "shop"}), Refusal::Expired),
        (json!({"nbf": 1100, "aud": "shop"}), Refusal::NotYetValid),
        (json!({"aud": ["bank"]}), Refusal::AudienceNotAllowed),
        (json!({}), Refusal::AudienceNotAllowed),
    ] {
        assert_eq!(world.ask(&mut bearer(&world.token(&claims))).await, Err(refusal), "{claims}");
    }
    let stranger = TestKey::p256().token("ES256", "k", &json!({"iss": ISSUER, "aud": "shop"}));
    assert_eq!(world.ask(&mut bearer(&stranger)).await, Err(Refusal::Verification));
    assert_eq!(world.ask(&mut bearer("nonsense")).await, Err(Refusal::Form));
    let long = "a".repeat(1 << 20);
    assert_eq!(world.ask(&mut bearer(&long)).await, Err(Refusal::Form));
}

#[tokio::test]
async fn every_token_that_is_found_must_be_good() {
    let fields = json!({
        "fromParams": ["token", "secondary_token"],
        "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}, {"name": "x-token"}],
    });
    let world = World::new(&fields, &[]);
    let (good, expired) = (world.token(&json!({})), world.token(&json!({"exp": 900})));
    let bearer = |token: &str| format!("Bearer {token}");
    let line = |name, value| (name, value);
    for (uri, headers) in [
        (format!("/?token={good}&secondary_token={expired}"), vec![]),
        (format!("/?secondary_token={good}&token={expired}"), vec![]),
        (format!("/?token={good}&token={expired}"), vec![]),
        (format!("/?token={good}"), vec![line("x-token", expired.clone())]),
        ("/".into(), vec![line("authorization", bearer(&good)), line("authorization", bearer(&expired))]),
        ("/".into(), vec![line("authorization", bearer(&expired)), line("authorization", bearer(&good))]),
        ("/".into(), vec![line("x-token", good.clone()), line("x-token", expired.clone())]),
    ] {
        let lines: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = world.ask(&mut request(&uri, &lines)).await;
        assert_eq!(answer, Err(Refusal::Expired), "{uri} {lines:?}");
    }
    let mut both =
        request(&format!("/?token={good}&a=1"), &[("authorization", &bearer(&good)), ("x-token", &good)]);
    assert!(world.ask(&mut both).await.unwrap().is_some());
    assert_eq!(
        (both.uri.to_string().as_str(), both.headers.len()),
        ("/?a=1", 1),
        "all of them are taken out"
    );
}

#[tokio::test]
async fn dots_in_the_name_of_a_claim_are_levels() {
    let claims = json!({"a.b": "flat", "x": {"y": {"z": "deep"}}});
    let outputs = ["a.b", "x.y.z", "x.y", "x.q"]
        .map(|claim| json!({"header": format!("x-{claim}").replace('.', "-"), "claim": claim}));
    let world = World::new(&json!({ "outputClaimToHeaders": outputs }), &[]);
    let mut head = bearer(&world.token(&claims));
    head.headers.append("x-a-b", HeaderValue::from_static("the client's own"));
    world.ask(&mut head).await.unwrap().expect("claims");
    assert!(!head.headers.contains_key("x-a-b") && !head.headers.contains_key("x-x-q"));
    assert_eq!(head.headers["x-x-y-z"], "deep");
    assert_eq!(head.headers["x-x-y"], URL_SAFE_NO_PAD.encode(r#"{"z":"deep"}"#));
}

#[tokio::test]
async fn rules_of_several_issuers_stand_side_by_side() {
    let other = TestKey::ed25519();
    let second = json!({"issuer": "second", "jwks": key_set(&[other.jwk("o")])});
    let world = World::new(&json!({}), &[second]);
    let token = other.token("EdDSA", "o", &json!({"iss": "second", "sub": "bob"}));
    let claims = world.ask(&mut bearer(&token)).await.unwrap().expect("claims");
    assert_eq!(claims.principal, "second/bob");
    assert!(world.ask(&mut bearer(&world.token(&json!({})))).await.is_ok());
    let third = other.token("EdDSA", "o", &json!({"iss": "third"}));
    assert_eq!(world.ask(&mut bearer(&third)).await, Err(Refusal::UnknownIssuer));
    let expired = other.token("EdDSA", "o", &json!({"iss": "second", "exp": 1}));
    assert_eq!(world.ask(&mut bearer(&expired)).await, Err(Refusal::Expired));
}

#[tokio::test]
async fn the_program_is_told_claims_that_nobody_else_can_set() {
    let world = World::new(
        &json!({
            "outputPayloadToHeader": "x-payload",
            "outputClaimToHeaders": [
                {"header": "x-user", "claim": "sub"},
                {"header": "x-level", "claim": "account.level"},
                {"header": "x-groups", "claim": "groups"},
                {"header": "x-absent", "claim": "absent"},
            ],
        }),
        &[],
    );
    let forged = [("x-payload", "e30"), ("x-user", "admin"), ("x-user", "root"), ("x-absent", "here")];
    let mut head = request("/", &forged);
    assert_eq!(world.ask(&mut head).await, Ok(None));
    assert_eq!(head.headers.keys().collect::<Vec<_>>(), ["host"]);

    let token = world.token(&json!({"account": {"level": 3}, "groups": ["a"]}));
    let mut head = bearer(&token);
    for (name, value) in forged {
        head.headers.append(name, value.parse().unwrap());
    }
    world.ask(&mut head).await.unwrap().expect("claims");
    assert_eq!(head.headers["x-payload"], token.split('.').nth(1).unwrap());
    assert_eq!(head.headers.get_all("x-user").iter().collect::<Vec<_>>(), ["ann"]);
    assert_eq!(head.headers["x-level"], "3");
    assert_eq!(head.headers["x-groups"], URL_SAFE_NO_PAD.encode(r#"["a"]"#));
    assert!(!head.headers.contains_key("x-absent"));
}

#[tokio::test]
async fn a_browsers_preflight_needs_no_good_token() {
    let world = World::new(&json!({}), &[]);
    let lines = [
        ("authorization", "Bearer nonsense"),
        ("origin", "http://a"),
        ("access-control-request-method", "PUT"),
    ];
    let mut head = request("/", &lines);
    assert_eq!(world.ask(&mut head).await, Err(Refusal::Form));
    head.method = Method::OPTIONS;
    assert_eq!(world.ask(&mut head).await, Ok(None));
}

#[test]
fn a_refusal_is_told_in_the_words_of_rfc_6750() {
    let head = request("/a%22b\"c?access_token=secret", &[]);
    let (status, headers) = refusal_head(Refusal::Expired, &realm(&head));
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let challenge = "Bearer realm=\"http://shop.example.com/a%22bc\", error=\"invalid_token\"";
    assert_eq!(headers[WWW_AUTHENTICATE], challenge);
    assert_eq!(refusal_head(Refusal::AudienceNotAllowed, "").0, StatusCode::FORBIDDEN);
    let long = format!("/{}", "a".repeat(1000));
    assert_eq!(realm(&request(&long, &[])).len(), "http://shop.example.com".len() + LONGEST_REALM);
}
