//! Normal forms of paths: each is reached in one step, and nothing in it leads upwards for a program that decodes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_api::mesh_config::Normalization;
use weft_rules::path;

fuzz_target!(|text: &str| {
    for how in [Normalization::Base, Normalization::MergeSlashes, Normalization::DecodeAndMergeSlashes] {
        let Ok(normal) = path::normalize(text, how) else { continue };
        let normal = normal.as_deref().unwrap_or(text);
        let again = path::normalize(normal, how).expect("a path").unwrap_or_else(|| normal.to_owned());
        assert_eq!(again, normal, "{text:?}");
        if normal.starts_with('/') {
            let decoded = normal.to_ascii_lowercase().replace("%2e", ".");
            assert!(!decoded.split('/').any(|segment| segment == ".." || segment == "."), "{text:?}: {normal:?}");
            assert!(how == Normalization::Base || !normal.contains("//"), "{text:?}: {normal:?}");
            let escaped = normal.to_ascii_lowercase();
            let slash = escaped.contains("%2f") || escaped.contains("%5c");
            assert!(how != Normalization::DecodeAndMergeSlashes || !slash, "{text:?}: {normal:?}");
        }
    }
});
