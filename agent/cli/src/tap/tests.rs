use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    tap: TapArgs,
}

fn parse(args: &[&str]) -> Result<TapFilter, clap::Error> {
    Line::try_parse_from([&["tap"], args].concat()).map(|line| line.tap.filter)
}

#[test]
fn no_flag_wants_everything() {
    assert_eq!(parse(&[]).unwrap(), TapFilter::default());
}

#[test]
fn flags_of_one_kind_are_alternatives_and_kinds_must_all_hold() {
    let filter = parse(&["--to", "svc/a.x", "--status", "5xx", "--to", "svc/b.x"]).unwrap();
    assert_eq!(filter.clauses.len(), 2);
    assert_eq!(filter.clauses[0].any.len(), 2);
    assert_eq!(filter.clauses[1].any, [TapTerm::Status(StatusRange { from: 500, to: 599 })]);
}

#[test]
fn not_turns_only_the_flag_after_it_around() {
    let filter = parse(&["--path", "/a", "--not", "--path", "/a/health", "--to", "svc/b"]).unwrap();
    let senses: Vec<bool> = filter.clauses.iter().map(|clause| clause.not).collect();
    assert_eq!(senses, [false, true, false]);
    assert_eq!(filter.clauses[1].any, [TapTerm::Path("/a/health".to_owned())]);
    assert!(parse(&["--to", "svc/b", "--not"]).is_err());
}

#[test]
fn a_namespace_is_of_either_end() {
    let filter = parse(&["-n", "shop", "--status", "5xx"]).unwrap();
    assert_eq!(filter.clauses.len(), 2);
    let event = |from: &str, to: &str| {
        let peer = |namespace: &str| Peer { namespace: namespace.into(), ..Peer::default() };
        let detail = HttpTap { status: 503, ..HttpTap::default() };
        TapEvent::Http(TapRecord {
            source: peer(from),
            destination: peer(to),
            detail,
            ..TapRecord::default()
        })
    };
    for (from, to, wanted) in [("shop", "web", true), ("web", "shop", true), ("web", "web", false)] {
        assert_eq!(filter.matches(&event(from, to)), wanted, "{from} {to}");
    }
    assert_eq!(parse(&["-A"]).unwrap(), TapFilter::default());
    assert!(parse(&["-A", "-n", "shop"]).is_err());
}

#[test]
fn wrong_values_are_refused() {
    for wrong in
        [["--status", "abc"], ["--to", ""], ["--verdict", "maybe"], ["--protocol", "udp"], ["--max", "0"]]
    {
        assert!(parse(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn events_for_people() {
    let pod = |name: &str| Peer { namespace: "shop".into(), pod: name.into(), ..Peer::default() };
    let event = TapEvent::Http(TapRecord {
        time: "2026-11-21T06:05:27.123Z".into(),
        source: pod("web"),
        destination: pod("api"),
        flags: "UF,URX".into(),
        duration_ms: 12.34,
        detail: HttpTap {
            method: "GET".into(),
            authority: "api".into(),
            path: "/x\u{1b}[2J".into(),
            status: 503,
            subset: "v1".into(),
            attempts: 3,
            ..HttpTap::default()
        },
        ..TapRecord::default()
    });
    assert_eq!(
        render(&event, Paint::plain()).unwrap(),
        "06:05:27.123 web.shop → api.shop  GET api/x\\u{1b}[2J 503 12.3ms subset=v1 attempts=3 UF,URX\n"
    );
    let gap = render(&TapEvent::LeftOut { count: 7 }, Paint::plain()).unwrap();
    assert!(gap.contains("7 events were left out"));
}
