//! Key sets of issuers, and tokens that they may have signed: the first line is a token, the rest a key set.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weft_fuzz::tokens::Token;
use weft_fuzz::tokens::keys::KeySet;

fuzz_target!(|text: &str| {
    let (token, document) = text.split_once('\n').unwrap_or(("", text));
    let Ok(keys) = KeySet::read(document.as_bytes()) else { return };
    let document: Value = serde_json::from_str(document).expect("what is a key set is JSON");
    let public = |key: &Value| key["kty"] != "oct" && key["use"] != "enc";
    assert!(document["keys"].as_array().is_some_and(|keys| keys.iter().any(public)), "no public key");
    let Ok(token) = Token::read(token) else { return };
    if keys.verify(&token).is_ok() {
        let may = |key: &Value| {
            key["kid"].as_str().zip(token.key_id.as_deref()).is_none_or(|(own, wanted)| own == wanted)
        };
        assert!(document["keys"].as_array().is_some_and(|keys| keys.iter().any(may)), "a key that it does not name");
    }
});
