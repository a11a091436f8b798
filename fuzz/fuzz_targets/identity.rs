//! SPIFFE IDs: one identity has one form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_api::identity::Identity;

fuzz_target!(|text: &str| {
    if let Some(identity) = Identity::parse(text) {
        assert_eq!(identity.to_string(), text);
    }
});
