//! Reading hostile and odd text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;

fn read(text: &str) -> Result<Node<'_>, String> {
    let [piece] = split(text)[..] else { panic!("one document expected in {text:?}") };
    match parse(&piece) {
        Ok(document) => Ok(document.root.expect("a root")),
        Err(error) => Err(format!("{}:{}: {}", error.line, error.column, error.message)),
    }
}

fn key(key: &'static str) -> Segment {
    Segment::Key(key.into())
}

#[test]
fn a_text_is_cut_at_its_markers_only() {
    let text = "# only a comment\n---\na: 1\n...\n---   # note\nb: |\n  ---\n  text\n--- {c: 3}\n---\n---\n";
    let lines: Vec<usize> = split(text).iter().map(|piece| piece.line).collect();
    assert_eq!(lines, [2, 5, 9], "what holds nothing is left out");
    let last = parse(&split(text)[2]).expect("flow after the marker").root.expect("a root");
    assert_eq!(last.get("c").map(|node| node.line), Some(9));
    assert_eq!(split("\u{feff}a: 1\r\n---\r\nb: 2\r\n").len(), 2, "byte order mark and Windows line ends");
    assert!(split("").is_empty() && split("%YAML 1.2\n---\n# nothing\n").is_empty());
}

#[test]
fn scalars_are_those_of_yaml_1_2() {
    let root = read(
        "on: yes\noff: no\nversion: 1.10\nport: 80\nhex: 0x10\noctal: 0o17\nquoted: \"80\"\ndate: 2026-11-21\nip: 10.0.0.1\n\
         tagged: !!str 80\nbig: 99999999999999999999\nnull: ~\n\n",
    );
    assert!(root.is_err(), "a key that is null is none");
    let root = read("on: yes\nversion: 1.10\nhex: 0x10\nquoted: \"80\"\nip: 10.0.0.1\ntagged: !!str 80\nempty:\ndot: .\nplus: +5\n")
        .expect("valid");
    assert_eq!(root.get("on").and_then(Node::text), Some("yes"));
    assert_eq!(root.get("version").map(|n| n.data.clone()), Some(Data::Float(1.1, "1.10".into())));
    assert_eq!(root.get("hex").map(|n| n.data.clone()), Some(Data::Integer(16, "0x10".into())));
    assert_eq!(root.get("quoted").and_then(Node::text), Some("80"));
    assert_eq!(root.get("ip").and_then(Node::text), Some("10.0.0.1"));
    assert_eq!(root.get("tagged").and_then(Node::text), Some("80"));
    assert_eq!(root.get("empty").map(|n| n.data.clone()), Some(Data::Null));
    assert_eq!(root.get("dot").and_then(Node::text), Some("."));
}

#[test]
fn every_value_knows_its_line() {
    let root = read("\n# first\nspec:\n  http:\n  - match:\n    - uri:\n        prefix: /\n    route: []\n")
        .expect("valid");
    let path = [
        key("spec"),
        key("http"),
        Segment::Index(0),
        key("match"),
        Segment::Index(0),
        key("uri"),
        key("prefix"),
    ];
    assert_eq!(root.line_of(&path), 7);
    assert_eq!(root.line_of(&path[..3]), 5);
    assert_eq!(
        root.line_of(&[key("spec"), key("http"), Segment::Index(0), key("timeout")]),
        5,
        "the nearest there is"
    );
    assert_eq!(render(&path), "spec.http[0].match[0].uri.prefix");
    assert_eq!(render(&[key("labels"), key("app.kubernetes.io/name")]), "labels[\"app.kubernetes.io/name\"]");
}

#[test]
fn anchors_and_merges_are_followed() {
    let root = read("base: &b {a: 1, b: 2}\nuse:\n  <<: *b\n  b: 3\nmany:\n  <<: [*b, {c: 4}]\nplain: *b\n")
        .expect("valid");
    let get = |outer: &str, inner: &str| root.get(outer).and_then(|n| n.get(inner)).and_then(Node::written);
    assert_eq!(get("use", "a").as_deref(), Some("1"));
    assert_eq!(get("use", "b").as_deref(), Some("3"), "its own key wins");
    assert_eq!(get("many", "c").as_deref(), Some("4"));
    assert_eq!(get("plain", "b").as_deref(), Some("2"));
}

#[test]
fn repeated_keys_are_told_with_both_lines() {
    let many = (0..40).map(|i| format!("  k{i}: 1\n")).collect::<Vec<_>>().concat();
    let text = format!("a:\n- b: 1\n  b: 2\nmap:\n{many}  k7: 2\n");
    let document = parse(&split(&text)[0]).expect("readable");
    let told: Vec<_> = document.duplicates.iter().map(|d| (render(&d.path), d.first, d.second)).collect();
    assert_eq!(told, [("a[0].b".to_owned(), 2, 3), ("map.k7".to_owned(), 12, 45)]);
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..30 {
        let previous = format!("*a{}, ", i - 1).repeat(9);
        let _ = writeln!(bomb, "a{i}: &a{i} [{}]", previous.trim_end_matches(", "));
    }
    assert!(read(&bomb).expect_err("a bomb").contains("more than 20000 values"));
    for (open, name) in [("[", "lists"), ("{a: ", "mappings"), ("- ", "block lists"), ("? ", "keys")] {
        let deep = open.repeat(100_000);
        assert!(read(&deep).is_err(), "{name}");
    }
    let indented = (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<Vec<_>>().concat();
    assert!(read(&indented).expect_err("deep").contains("nested deeper than 64 levels"));
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for i in 1..100 {
        let _ = writeln!(chain, "a{i}: &a{i} [*a{}]", i - 1);
    }
    assert!(read(&chain).expect_err("deep by aliases").contains("nested deeper than 64 levels"));
}

#[test]
fn what_is_not_text_is_refused_with_its_place() {
    assert_eq!(
        read("a: 1\nb: \0\n").expect_err("a zero"),
        "2:4: control character 0x00, which YAML does not allow"
    );
    assert!(read("a: *nothing\n").is_err());
    assert!(read("name: {{ .Values.name }}\n").expect_err("a template").contains("put quotes around"));
    let error = parse(&split("a: 1\n---\nb: [1,\nc: 2\n")[1]).expect_err("an open bracket");
    assert!(error.line >= 3, "{error:?}");
}

#[test]
fn maps_of_free_keys_keep_empty_values() {
    let root = read("a:\nb: x\n").expect("valid");
    let map: BTreeMap<String, String> = from_node(&root).expect("a map");
    assert_eq!(map, BTreeMap::from([("a".to_owned(), String::new()), ("b".to_owned(), "x".to_owned())]));
}

/// What a text holds, without lines.
fn held(text: &str) -> serde_json::Value {
    from_node(&read(text).unwrap_or_else(|error| panic!("{error} in\n{text}"))).expect("any value")
}

/// As every other reader of YAML takes it: inside brackets, indentation means nothing.
#[test]
fn flow_style_may_close_at_the_column_of_its_key() {
    let args = serde_json::json!({"spec": {"args": ["server", "-p", "80"], "next": 1}});
    for text in [
        "spec:\n  args: [\n    \"server\", \"-p\", '80'\n  ]\n  next: 1\n",
        "spec:\n  args: [\n    server,\n    -p,\n    \"80\",\n  ]\n  next: 1\n",
        "spec:\n  args: [ # why\n    server,\n    # and then\n    -p, \"80\"\n  # at its end\n  ]\n  next: 1\n",
        "spec:\n  args: [\n  server,\n  -p,\n  '80'\n  ]\n  next: 1\n",
        "spec:\n  args: [\nserver,\n-p,\n'80'\n]\n  next: 1\n",
        "spec: {\n  args: [\n    server, -p, '80'\n  ],\n  next: 1\n}\n",
        "spec: {\nargs: [\nserver, -p, '80'\n],\nnext: 1\n}\n",
        "---\nspec:\n  args: [\r\n    server, -p, '80'\r\n  ]\r\n  next: 1\r\n",
        "{\n\t\"spec\": {\n\t\t\"args\": [\n\t\t\t\"server\", \"-p\", \"80\"\n\t\t],\n\t\t\"next\": 1\n\t}\n}\n",
    ] {
        assert_eq!(held(text), args, "{text}");
    }
    let labels = serde_json::json!([{"labels": {"app": "a", "v": {"x": []}}, "name": "b c"}]);
    for text in [
        "- labels: {\n    app: a,\n    v: {\n      x: [\n      ]\n    }\n  }\n  name: b c\n",
        "- labels: {\n  app: a, v: {x: [\n  ]\n  }\n  }\n  name: \"b\n    c\"\n",
        "-\n  labels:\n    {\n    app: a,\n    v: {x: []}\n    }\n  name: 'b\n   c'\n",
        "[\n  {\n    labels: {app: a, v: {x: []}\n    },\n  name: b\n  c\n  }\n]\n",
    ] {
        assert_eq!(held(text), labels, "{text}");
    }
}

#[test]
fn what_follows_a_closing_bracket_knows_its_line() {
    let text = "spec:\n  args: [\n    a,\n    b\n  ]\n  # a word\n  next: {\n    x: 1\n  }\nlast: 1\n";
    let root = read(text).expect("valid");
    for (path, line) in
        [(&["spec", "args"][..], 2), (&["spec", "next"], 7), (&["spec", "next", "x"], 8), (&["last"], 10)]
    {
        let path: Vec<_> = path.iter().map(|name| key(name)).collect();
        assert_eq!(root.line_of(&path), line, "{path:?}");
    }
    let two = "a: [\n  1\n]\n---\nb: {\n  x: 1\n}\n";
    assert_eq!(
        split(two)
            .iter()
            .map(|piece| parse(piece).expect("valid").root.map(|root| root.line))
            .collect::<Vec<_>>(),
        [Some(1), Some(5)]
    );
}

#[test]
fn brackets_that_do_not_close_are_no_yaml() {
    for text in ["a: [\n  b\nc: d\n", "a: {\n  b: 1\nc: d\n", "a: [b\n]]\n", "a: [}\n", "a: [ b c: [\n"] {
        assert!(read(text).is_err(), "{text}");
    }
}
