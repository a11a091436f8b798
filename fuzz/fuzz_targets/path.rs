//! Normal form of paths: it is reached in one step, and nothing in it leads upwards for a program that decodes it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../agent/node/src/proxy/http/path.rs"]
mod path;

fuzz_target!(|text: &str| {
    let Ok(normal) = path::normalize(text) else { return };
    let normal = normal.as_deref().unwrap_or(text);
    let again = path::normalize(normal).expect("a path").unwrap_or_else(|| normal.to_owned());
    assert_eq!(again, normal, "{text:?}");
    if normal.starts_with('/') {
        let decoded = normal.to_ascii_lowercase().replace("%2e", ".");
        assert!(!decoded.split('/').any(|segment| segment == ".." || segment == "."), "{text:?}: {normal:?}");
    }
});
