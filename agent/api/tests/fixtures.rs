//! Manifests of `tests/fixtures/analyze`, and beside each what `weft analyze` says about it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p weft-api --test fixtures` writes what it says now.

use std::fmt::Write as _;
use std::path::Path;

use weft_api::analyze::analyze;

#[test]
fn every_fixture_says_what_is_written_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/analyze");
    let mut fixtures: Vec<_> = std::fs::read_dir(&folder)
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    fixtures.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    fixtures.sort();
    assert!(fixtures.len() > 3, "where are the fixtures?");
    for path in fixtures {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a manifest");
        let mut said = String::new();
        for finding in analyze(&[(name.as_str(), text.as_str())]) {
            let _ = writeln!(said, "{}\n    {finding}", finding.location().unwrap_or_default());
        }
        let golden = path.with_extension("expected");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &said).expect("the golden file");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(said, expected, "{name}");
    }
}
