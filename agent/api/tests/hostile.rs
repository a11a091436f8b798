//! Text that nobody vouches for: never a panic, never a long wait, never a stack overflow.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use weft_api::analyze::analyze;
use weft_api::load::{Loaded, load};

const MIB: usize = 1 << 20;

/// Generous: a debug build.
const PATIENCE: Duration = Duration::from_secs(20);

/// This thread's time on a processor, or simply the time where the system does not tell.
fn spent(since: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.as_deref().and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

#[track_caller]
fn loaded_in_time(name: &str, text: &str) -> Loaded {
    let start = Instant::now();
    let before = spent(start);
    let loaded = load("big.yaml", text);
    let took = spent(start).saturating_sub(before);
    println!("{name}: {} MiB in {took:?}", text.len() / MIB);
    assert!(took < PATIENCE, "{name} took {took:?}");
    loaded
}

const MANIFEST: &str = r#"apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: reviews
  namespace: bookinfo
  labels: {app.kubernetes.io/name: "reviews"}
spec:
  hosts: &hosts
  - reviews
  - "*.reviews.example.org"
  http:
  - name: jason
    match:
    - headers:
        end-user: {exact: jason}
      uri: {regex: "/v[0-9]+/.*"}
    route:
    - destination: {host: reviews, subset: v2, port: {number: 9080}}
      weight: 90
    - destination:
        host: reviews
        subset: v3
      weight: 10
    timeout: 1m30s
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: "5xx,reset"}
    fault:
      delay: {fixedDelay: 7s, percentage: {value: 0.5}}
  - route:
    - destination:
      host: reviews
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {tcp: {connectTimeout: 30ms}}
    portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}}]
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: "2.1"}}]
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80, targetPort: http}]}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: "accessLogFile: /dev/stdout"}}
"#;

#[test]
fn many_objects_in_one_file() {
    let mut text = String::new();
    let mut count = 0;
    while text.len() < 10 * MIB {
        let _ = writeln!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs-{count}}}\nspec:\n  hosts: [host-{count}]\n  \
             http:\n  - match:\n    - headers: {{end-user: {{exact: jason}}}}\n    route:\n    - destination: {{host: host-{count}, subset: v1}}"
        );
        count += 1;
    }
    let loaded = loaded_in_time("virtual services", &text);
    assert_eq!(loaded.objects.len(), count);
    let last = loaded.objects.last().expect("one");
    assert_eq!(last.line, text.lines().count() - 9, "lines are those of the whole file");
}

/// How many objects are refused for what they would take, and for nothing else.
fn too_large(loaded: &Loaded) -> usize {
    let only = |refused: &&weft_api::load::Refused| {
        refused.findings.iter().filter(|f| f.is_error()).all(|f| f.code == "TooLarge")
    };
    loaded.refused.iter().filter(only).count()
}

/// A thousand objects of a few bytes, each of which would be megabytes of program.
#[test]
fn expressions_that_stand_for_a_thousand_times_their_length() {
    for regex in ["(a{1,100}){1,100}b", r"(\p{L}\p{M}*){1,60}x"] {
        let mut text = String::new();
        for n in 0..1000 {
            let _ = writeln!(
                text,
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v{n}}}\nspec:\n  hosts: [h{n}]\n  http:\n  - \
                 match: [{{uri: {{regex: '/{n}{regex}'}}}}, {{headers: {{x: {{regex: '{n}{regex}'}}}}}}]\n    redirect: {{uri: /}}"
            );
        }
        let start = Instant::now();
        let before = spent(start);
        let loaded = loaded_in_time(regex, &text);
        let took = spent(start).saturating_sub(before);
        assert!(took < Duration::from_secs(1), "{regex} took {took:?}");
        assert_eq!((loaded.objects.len(), loaded.refused.len()), (0, 1000));
        let codes = loaded.refused.iter().flat_map(|refused| &refused.findings).map(|f| &*f.code);
        assert_eq!(codes.filter(|code| *code == "InvalidRegex").count(), 2000);
    }
}

#[test]
fn one_large_object() {
    let routes = "  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: b}, weight: 1}]\n"
        .repeat(10 * MIB / 80);
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [b]\n  http:\n{routes}"
    );
    assert_eq!(too_large(&loaded_in_time("one virtual service", &text)), 1);
    let value = "x".repeat(10 * MIB);
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  long: {value}\n  block: |\n    {value}\n"
    );
    assert_eq!(loaded_in_time("one config map", &text).objects.len(), 1);
    let mut json = r#"{"apiVersion": "v1", "kind": "List", "items": ["#.to_owned();
    while json.len() < 10 * MIB {
        json.push_str(r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"app": "b"}}, "status": {"podIP": "10.0.0.1"}}, "#);
    }
    json.push_str(r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]}"#);
    assert!(loaded_in_time("a list in JSON", &json).objects.len() > 80_000);
}

#[test]
fn mebibytes_of_nonsense() {
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n";
    for piece in [
        "[",
        "{",
        "{a: ",
        "- ",
        "? ",
        "a: ",
        "a: b\n",
        "---\n",
        "#\n",
        "\"",
        "'",
        "\n",
        " ",
        "\t",
        "&a ",
        "*a ",
        "!!str ",
        "!a ",
        "%",
        "|\n",
        "  x\n",
        "a\n",
        "<<: ",
        "[],",
        "{},",
        "\u{0}",
        "\u{feff}",
        "é",
        "- a: 1\n",
        "? a\n: b\n",
        "...\n",
        "\r",
        "- - -\n",
        "a: [\n",
        "]",
        "- |\n",
        ": ",
        ",",
        "a,",
        "\"a\":",
        "> \n",
        "hosts:\n",
        "  - match:\n",
        "@",
        "`",
    ] {
        for head in ["", head] {
            let text = format!("{head}{}", piece.repeat(MIB / piece.len()));
            loaded_in_time(&format!("{piece:?} {}", head.len()), &text);
        }
    }
}

#[test]
fn unknown_fields_without_end() {
    let mut text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [b]\n".to_owned();
    for i in 0..200_000 {
        let _ = writeln!(text, "  unknown{i}: {i}");
    }
    let loaded = loaded_in_time("unknown fields", &text);
    let [refused] = &loaded.refused[..] else { panic!("one object") };
    assert!((1..100).contains(&refused.findings.len()), "{} findings are for nobody", refused.findings.len());
    let hosts = (0..100_000).map(|i| format!("h{i}.x.org, ")).collect::<Vec<_>>().concat();
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [{hosts}]\n  http: [{{route: [{{destination: {{host: b}}}}]}}]\n"
    );
    assert_eq!(too_large(&loaded_in_time("hosts", &text)), 1);
    let routes = (0..50_000)
        .map(|i| {
            format!("  - {{match: [{{uri: {{prefix: /{i}/}}}}], route: [{{destination: {{host: b}}}}]}}\n")
        })
        .collect::<Vec<_>>()
        .concat();
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [a]\n  http:\n{routes}"
    );
    assert_eq!(too_large(&loaded_in_time("prefixes", &text)), 1);
    let empty = "  - match:\n    route:\n    - destination:\n      host: a\n".repeat(50_000);
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [a]\n  http:\n{empty}"
    );
    assert_eq!(loaded_in_time("misprints", &text).refused.len(), 1);
}

/// A manifest with some bytes of it changed.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..12usize, prop::sample::select(PIECES));
    prop::collection::vec(edit, 0..6).prop_map(|edits| {
        let mut text = MANIFEST.to_owned();
        for (at, cut, insert) in edits {
            let mut start = at.index(text.len());
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            let mut end = (start + cut).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(start..end, insert);
        }
        text
    })
}

const PIECES: &[&str] = &[
    "",
    " ",
    "  ",
    "\n",
    "\n  ",
    "- ",
    ":",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "null",
    "~",
    "*hosts",
    "&x ",
    "<<: *hosts",
    "---\n",
    "...\n",
    "|\n",
    ">-\n",
    "#",
    "\t",
    "1",
    "-1",
    "1e9",
    ".nan",
    "true",
    "!!str ",
    "match:\n",
    "destination:\n",
    "\u{85}",
    "é",
    "\r\n",
    "%",
    "? ",
    "0x",
    "99999999999999999999",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_read_without_a_panic(text in "\\PC*") {
        load("x.yaml", &text);
    }

    #[test]
    fn arbitrary_yaml_is_read_without_a_panic(text in "([ \\-:,\\[\\]{}'\"&*!|>?#%\n\ta-c0-9]|---\n|\\PC){0,200}") {
        load("x.yaml", &text);
    }

    #[test]
    fn a_mutated_manifest_is_read_without_a_panic(text in mutated()) {
        let findings = analyze(&[("x.yaml", text.as_str())]);
        let lines = text.lines().count().max(1);
        for finding in &findings {
            prop_assert!(finding.line.is_some_and(|line| (1..=lines + 1).contains(&line)), "{finding} at {:?}", finding.line);
            prop_assert!(!finding.to_string().contains('\n'));
        }
        prop_assert_eq!(analyze(&[("x.yaml", text.as_str())]), findings);
    }
}
