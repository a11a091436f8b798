//! Against a small server that answers as API servers of several ages do.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Config;
use tokio::net::TcpListener;
use weft_api::kinds::Kind;

use super::*;

/// What the server says to a question.
enum Says {
    /// All of an answer.
    This(u16, String),
    /// The events of a watch that stays open.
    Events(Vec<String>),
}

/// Follows Services on a server; the other answer is what that was asked for, without `timeoutSeconds`.
async fn follow_on(
    server: impl Fn(&str) -> Says + Clone + Send + Sync + 'static,
) -> (Pin<Box<dyn Stream<Item = Event>>>, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let questions = Arc::new(Mutex::new(Vec::new()));
    let asked = questions.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (server, asked) = (server.clone(), asked.clone());
            tokio::spawn(async move {
                let service = service_fn(|request: http::Request<Incoming>| {
                    let pairs = request.uri().query().unwrap_or_default().split('&');
                    let pairs = pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("timeoutSeconds="));
                    let question = pairs.collect::<Vec<_>>().join("&");
                    asked.lock().unwrap().push(question.clone());
                    let answer = answer(server(&question));
                    async { Ok::<_, Infallible>(answer) }
                });
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    let client = Client::try_from(Config::new(url)).unwrap();
    let watched =
        Watched::all("istio-system").into_iter().find(|watched| watched.kind == Kind::Service).unwrap();
    // Nobody asks for what the server knows now.
    let (_, never) = watch::channel(0);
    (Box::pin(follow(client, Contact::new(), watched, never)), questions)
}

type Body = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

fn answer(says: Says) -> Response<Body> {
    let frame = |text: String| Ok(Frame::data(Bytes::from(text)));
    let (status, body): (_, Pin<Box<dyn Stream<Item = _> + Send>>) = match says {
        Says::This(status, text) => (status, Box::pin(stream::iter([frame(text)]))),
        Says::Events(events) => {
            let lines = stream::iter(events.into_iter().map(move |event| frame(event + "\n")));
            (200, Box::pin(lines.chain(stream::pending())))
        }
    };
    let mut response = Response::new(StreamBody::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn service(name: &str, version: u32) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"{version}"}}}}"#)
}

fn added(name: &str, version: u32) -> String {
    format!(r#"{{"type":"ADDED","object":{}}}"#, service(name, version))
}

fn bookmark(version: u32, annotations: &str) -> String {
    format!(
        r#"{{"type":"BOOKMARK","object":{{"kind":"Service","apiVersion":"v1","metadata":{{"resourceVersion":"{version}","annotations":{{{annotations}}}}}}}}}"#
    )
}

fn page(items: &[String], next: &str) -> Says {
    let items = items.join(",");
    Says::This(
        200,
        format!(r#"{{"metadata":{{"resourceVersion":"9","continue":"{next}"}},"items":[{items}]}}"#),
    )
}

fn refusal(code: u16, message: &str) -> Says {
    Says::This(code, format!(r#"{{"kind":"Status","status":"Failure","code":{code},"message":"{message}"}}"#))
}

/// The next events, as words.
async fn told(events: &mut Pin<Box<dyn Stream<Item = Event>>>, count: usize) -> Vec<String> {
    let word = |event| match event {
        Event::Is(item) => format!("is {}", item.name()),
        Event::Gone(item) => format!("gone {}", item.name()),
        other => format!("{other:?}"),
    };
    let words = events.map(word).take(count).collect();
    timeout(Duration::from_secs(20), words).await.expect("in time")
}

fn streams(question: &str) -> bool {
    question.contains("sendInitialEvents=true")
}

#[tokio::test]
async fn a_list_is_streamed_where_the_server_can() {
    let (mut events, asked) = follow_on(|_| {
        let end = bookmark(9, r#""k8s.io/initial-events-end":"true""#);
        Says::Events(vec![added("a", 3), added("b", 7), end, added("c", 10)])
    })
    .await;
    assert_eq!(told(&mut events, 5).await, ["Begin", "is shop/a", "is shop/b", "Complete", "is shop/c"]);
    let asked = asked.lock().unwrap();
    let [asked] = &asked[..] else { panic!("asked {asked:?}") };
    assert!(asked.starts_with("watch=true&allowWatchBookmarks=true&sendInitialEvents=true"), "{asked}");
    // Nothing of the past.
    assert!(asked.ends_with("&resourceVersionMatch=NotOlderThan&resourceVersion="), "{asked}");
}

#[tokio::test]
async fn a_server_that_refuses_streaming_lists_is_asked_for_pages() {
    let (mut events, asked) = follow_on(|question| match question {
        question if streams(question) => refusal(
            422,
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ),
        "limit=500" => page(&[service("a", 3)], "more"),
        "limit=500&continue=more" => page(&[service("b", 7)], ""),
        _ => Says::Events(vec![added("c", 10)]),
    })
    .await;
    assert_eq!(
        told(&mut events, 6).await,
        ["Begin", "is shop/a", "is shop/b", "Complete", "Resumed", "is shop/c"]
    );
    // From where the list was.
    let asked = asked.lock().unwrap();
    assert_eq!(asked[1..3], ["limit=500", "limit=500&continue=more"]);
    assert_eq!(asked[3..], ["watch=true&allowWatchBookmarks=true&resourceVersion=9"]);
}

#[tokio::test]
async fn a_server_that_takes_no_notice_of_the_wish_is_asked_for_pages() {
    let (mut events, _) = follow_on(|question| match question {
        question if streams(question) => Says::Events(vec![added("a", 3), bookmark(8, "")]),
        "limit=500" => page(&[service("a", 3), service("b", 9)], ""),
        _ => Says::Events(Vec::new()),
    })
    .await;
    let told = told(&mut events, 7).await;
    // The first list never ends; the second names all.
    assert_eq!(told, ["Begin", "is shop/a", "Begin", "is shop/a", "is shop/b", "Complete", "Resumed"]);
}

#[tokio::test]
async fn pages_that_have_expired_begin_anew() {
    let times = Arc::new(Mutex::new(0));
    let (mut events, asked) = follow_on(move |question| match question {
        question if streams(question) => refusal(400, "unknown parameter"),
        "limit=500" => page(&[service("a", 3)], "more"),
        "limit=500&continue=more" => {
            *times.lock().unwrap() += 1;
            if *times.lock().unwrap() == 1 {
                refusal(410, "the continue parameter is too old")
            } else {
                page(&[service("b", 7)], "")
            }
        }
        _ => Says::Events(vec![r#"{"type":"ERROR","object":{"code":410,"message":"too old"}}"#.to_owned()]),
    })
    .await;
    let expired = "Failed(\"the continue parameter is too old (410)\")";
    let begun = ["Begin", "is shop/a", expired, "Begin", "is shop/a", "is shop/b", "Complete", "Resumed"];
    assert_eq!(told(&mut events, 8).await, begun);
    // A watch that falls behind lists anew as well, and does not try streams again.
    assert_eq!(told(&mut events, 2).await, ["Begin", "is shop/a"]);
    assert_eq!(asked.lock().unwrap().iter().filter(|question| streams(question)).count(), 1);
}
