//! Files of manifests, and what they do to the rules in force.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_api::load::load;

fuzz_target!(|text: &str| {
    let loaded = load("fuzz.yaml", text);
    // Every finding can be told.
    for finding in loaded.findings() {
        assert!(!finding.message.is_empty(), "{finding:?}");
    }
    weft_fuzz::compiled(loaded);
});
