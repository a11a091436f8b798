//! Selectors of `weft tap` and its kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_api::admin::PeerSelector;

fuzz_target!(|text: &str| {
    if let Ok(selector) = text.parse::<PeerSelector>() {
        let written = selector.to_string();
        assert_eq!(written.parse::<PeerSelector>().expect("weft's own form"), selector, "{written:?}");
    }
});
