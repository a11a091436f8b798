//! Durations of manifests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_api::duration::Span;

fuzz_target!(|text: &str| {
    if let Ok(span) = text.parse::<Span>() {
        // What weft writes of it means the same.
        assert_eq!(span.to_string().parse::<Span>().expect("weft's own form").0.as_millis(), span.0.as_millis());
    }
});
