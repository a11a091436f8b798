use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::super::test_keys::{TestKey, key_set};
use super::*;

fn verify(keys: &str, token: &str) -> Result<(), Refusal> {
    KeySet::read(keys.as_bytes()).expect("a key set").verify(&Token::read(token)?)
}

#[test]
fn signatures_of_every_kind_are_checked() {
    let claims = json!({"iss": "a", "sub": "b"});
    for (key, algorithms) in [
        (TestKey::rsa(), &["RS256", "RS512", "PS256"][..]),
        (TestKey::p256(), &["ES256"]),
        (TestKey::p384(), &["ES384"]),
        (TestKey::ed25519(), &["EdDSA"]),
    ] {
        let keys = key_set(&[TestKey::p256().jwk("other"), key.jwk("k1")]);
        for algorithm in algorithms {
            let token = key.token(algorithm, "k1", &claims);
            assert_eq!(verify(&keys, &token), Ok(()), "{algorithm}");
            let (signed, signature) = token.rsplit_once('.').expect("three parts");
            let forged = key.token(algorithm, "k1", &json!({"iss": "a", "sub": "admin"}));
            let forged = format!("{}.{signature}", forged.rsplit_once('.').expect("three parts").0);
            assert_eq!(verify(&keys, &forged), Err(Refusal::Verification), "{algorithm}");
            assert_eq!(verify(&keys, &format!("{signed}.AAAA")), Err(Refusal::Verification), "{algorithm}");
            assert_eq!(verify(&keys, &format!("{signed}.")), Err(Refusal::Verification), "{algorithm}");
        }
    }
}

#[test]
fn the_tokens_key_id_and_way_choose_the_key() {
    let (mine, other) = (TestKey::rsa(), TestKey::rsa());
    let claims = json!({"iss": "a"});
    let keys = key_set(&[mine.jwk("mine")]);
    assert_eq!(verify(&keys, &mine.token("RS256", "unknown", &claims)), Err(Refusal::NoSuchKey));
    assert_eq!(verify(&keys, &other.token("RS256", "mine", &claims)), Err(Refusal::Verification));
    // The kind of key decides how it can be used, whatever the token says.
    assert_eq!(verify(&keys, &TestKey::p256().token("ES256", "mine", &claims)), Err(Refusal::Verification));
    let mut declared = mine.jwk("mine");
    declared["alg"] = "RS512".into();
    let keys = key_set(&[declared]);
    assert_eq!(verify(&keys, &mine.token("RS256", "mine", &claims)), Err(Refusal::NoSuchKey));
    assert_eq!(verify(&keys, &mine.token("RS512", "mine", &claims)), Ok(()));
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let key = TestKey::rsa();
    let keys = key_set(&[key.jwk("k1")]);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"k1"}"#);
    let payload = URL_SAFE_NO_PAD.encode(r#"{"iss":"a","sub":"admin"}"#);
    let signed = format!("{header}.{payload}");
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key.public_der());
    let signature = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&secret, signed.as_bytes()));
    assert_eq!(verify(&keys, &format!("{signed}.{signature}")), Err(Refusal::Algorithm));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    assert_eq!(verify(&keys, &format!("{none}.{payload}.")), Err(Refusal::Algorithm));
}

#[test]
fn keys_of_no_use_are_left_out() {
    let mut encryption = TestKey::rsa().jwk("e");
    encryption["use"] = "enc".into();
    let strange = json!({"kty": "XX", "kid": "x"});
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"});
    let none = KeySet::read(key_set(&[encryption.clone(), strange.clone(), secret]).as_bytes());
    assert!(matches!(none, Err(NotKeys::Unusable(3))), "{none:?}");
    let one = KeySet::read(key_set(&[strange, TestKey::ed25519().jwk("k"), encryption]).as_bytes());
    assert_eq!(one.expect("a key set").keys.len(), 1);
    for text in ["", "[]", "{}", r#"{"keys": 1}"#] {
        assert!(matches!(KeySet::read(text.as_bytes()), Err(NotKeys::Json(_))), "{text}");
    }
}
