//! Durations of manifests.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_api::duration::Span;

fuzz_target!(|text: &str| {
    if let Ok(span) = text.parse::<Span>() {
        // What weft writes of it means the same; of what lasts for months, to the millisecond.
        let again = span.to_string().parse::<Span>().expect("weft's own form");
        assert!(again.0.abs_diff(span.0) <= Duration::from_millis(1), "{span}");
    }
});
