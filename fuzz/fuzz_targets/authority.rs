//! Whom a tunnel is for: whatever is asked, it leads to the pod that it arrived at.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| weft_fuzz::proxy::leads_to_its_pod(text));
