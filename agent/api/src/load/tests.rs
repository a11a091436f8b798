//! Manifests in, objects and findings out.
use super::*;

/// All findings as `weft analyze` prints them, each with its line.
fn told(text: &str) -> Vec<String> {
    let line = |finding: &Finding| finding.line.unwrap_or_default();
    load("test.yaml", text).findings().iter().map(|finding| format!("{}: {finding}", line(finding))).collect()
}

fn accepted(text: &str) -> Object {
    let loaded = load("test.yaml", text);
    assert!(loaded.refused.is_empty() && loaded.unreadable.is_empty(), "{:#?}", loaded.findings());
    let [object] = &loaded.objects[..] else { panic!("one object expected, got {:?}", loaded.objects) };
    object.object.clone()
}

fn virtual_service(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n{spec}"
    )
}

/// Findings as `line code path`.
fn codes(text: &str) -> Vec<String> {
    let findings = load("test.yaml", text).findings();
    findings.iter().map(|f| format!("{} {} {}", f.line.unwrap_or_default(), f.code, f.path)).collect()
}

#[test]
fn a_match_that_is_empty_and_a_route_that_is_indented_wrongly() {
    let text = virtual_service(
        "hosts:\n- reviews\nhttp:\n  - match:\n    - headers:\n        testuser:\n          regex: \"^.+$\"\n     route:\n\
         \u{20}     - destination:\n          host: reviews\n          subset: v2\n",
    );
    let told = told(&text);
    let [misfit] = &told[..] else { panic!("{told:#?}") };
    assert!(
        misfit.starts_with("13: error InvalidYaml VirtualService/default/reviews: not valid YAML"),
        "{misfit}"
    );
    assert!(misfit.contains("with 6 spaces it stands beside `match`"), "{misfit}");

    // As the tutorial prints it: `headers` is an item beside `match`, too.
    let text =
        text.replace("      - headers:", "    - headers:").replace("          testuser", "        testuser");
    let told = self::told(&text);
    let [empty, misfit] = &told[..] else { panic!("{told:#?}") };
    assert!(
        empty.starts_with("9: error MisplacedField VirtualService/default/reviews: `match` is empty, and `headers` on line 10"),
        "{empty}"
    );
    assert!(empty.ends_with("(indent `- headers` under `match`)"), "{empty}");
    assert!(misfit.starts_with("13: error InvalidYaml"), "{misfit}");

    // With `route` in its place it is YAML, and means something that nobody meant.
    let text = text.replace("     route", "    route");
    assert!(codes(&text).contains(&"9 MisplacedField spec.http[0].match".to_owned()), "{:#?}", codes(&text));
}

#[test]
fn a_destination_that_is_empty_with_host_and_subset_beside_it() {
    let told = told(&virtual_service(
        "hosts:\n- reviews\nhttp:\n- route:\n  - destination:\n    host: reviews\n    subset: v1\n    weight: 95\n\
         \u{20} - destination:\n    host: reviews\n    subset: v2\n  weight: 5\n",
    ));
    let prefix = "error MisplacedField VirtualService/default/reviews spec.http[0]";
    assert_eq!(
        told,
        [
            format!(
                "10: {prefix}.route[0].destination: `destination` is empty, and `host` and `subset` stand beside it on lines 11 and 12 (indent them under `destination`)"
            ),
            format!(
                "14: {prefix}.route[1].destination: `destination` is empty, and `host` and `subset` stand beside it on lines 15 and 16 (indent them under `destination`)"
            ),
            format!(
                "17: {prefix}.weight: `weight` is no field of spec.http[0] (indent it under an entry of `route`)"
            ),
        ]
    );
}
