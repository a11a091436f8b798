//! `envoyExtAuthzHttp`: the provider gets a request like the one that it decides upon, and 200 means yes.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::response;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};
use weft_rules::guard::provider::HttpCheck;

use super::decision::{Changes, Decision, How, Refused, is_framing};
use crate::http::body::{Peeked, RequestBody};
use crate::http::headers;

/// Says that the body was cut.
const PARTIAL: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// The request that asks about `head`. `None`: its path is none, with the prefix.
pub(super) fn question(
    check: &HttpCheck,
    head: &Parts,
    body: Option<&Peeked>,
) -> Option<Request<RequestBody>> {
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut sent_headers = HeaderMap::new();
    for (name, value) in &head.headers {
        if *name == AUTHORIZATION || (check.sees.contain(name) && !is_framing(name)) {
            sent_headers.append(name, value.clone());
        }
    }
    sent_headers.insert(HOST, HeaderValue::try_from(headers::host(head)).ok()?);
    let sent = body.map_or(Bytes::new(), |body| body.bytes.clone());
    sent_headers.insert(CONTENT_LENGTH, HeaderValue::from(sent.len()));
    if let Some(body) = body {
        sent_headers.insert(PARTIAL, HeaderValue::from_static(if body.whole { "false" } else { "true" }));
    }
    for (name, value) in &check.adds {
        sent_headers.insert(name, value.clone());
    }
    let body = if sent.is_empty() { RequestBody::Empty } else { RequestBody::Own(Some(sent)) };
    let mut question = Request::new(body);
    *question.method_mut() = head.method.clone();
    *question.uri_mut() = format!("{}{target}", check.path_prefix).parse().ok()?;
    *question.version_mut() = Version::HTTP_11;
    *question.headers_mut() = sent_headers;
    Some(question)
}

/// What the answer means. `None`: the provider is not in a state to decide.
pub(super) fn decision(check: &HttpCheck, answer: &response::Parts, body: Bytes) -> Option<Decision> {
    let kept = |keeps: &dyn Fn(&HeaderName) -> bool| -> HeaderMap {
        let headers = answer.headers.iter().filter(|(name, _)| keeps(name) && !is_framing(name));
        headers.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    if answer.status == StatusCode::OK {
        let mut changes = Changes::default();
        changes.answer = kept(&|name| check.to_client.contain(name));
        for (name, value) in kept(&|name| check.to_upstream.contain(name)).drain() {
            if let Some(name) = name {
                changes.header(name, value, How::Set);
            }
        }
        return Some(Decision::Allowed(changes));
    }
    if answer.status.is_server_error() || answer.status.is_informational() {
        return None;
    }
    let headers = kept(&|name| match &check.to_refused {
        None => *name != HOST,
        Some(names) => {
            names.contain(name) || *name == http::header::WWW_AUTHENTICATE || *name == http::header::LOCATION
        }
    });
    Some(Decision::Denied(Refused { status: answer.status, headers, body }))
}

#[cfg(test)]
mod tests {
    use weft_api::mesh_config::ExtensionProvider;
    use weft_rules::guard::provider::{Dialect, Provider};

    use super::*;

    fn check(fields: &serde_json::Value) -> HttpCheck {
        let source = serde_json::json!({"name": "a", "envoyExtAuthzHttp": fields});
        let source: ExtensionProvider = serde_json::from_value(source).expect("a provider");
        match Provider::compile(&source).expect("one that is asked").dialect {
            Dialect::Http(check) => *check,
            Dialect::Grpc => panic!("asked over HTTP"),
        }
    }

    fn answer(status: u16, headers: &[(&str, &str)]) -> response::Parts {
        let mut builder = http::Response::builder().status(status);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("an answer").into_parts().0
    }

    #[test]
    fn the_provider_sees_what_it_is_to_see() {
        let check = check(&serde_json::json!({
            "service": "a.b", "port": 80, "pathPrefix": "/check",
            "includeRequestHeadersInCheck": ["x-mine", "content-length"],
            "includeAdditionalHeadersInCheck": {"x-from": "weft"},
        }));
        let request = Request::put("/orders?id=1")
            .header("host", "shop")
            .header("authorization", "Bearer a")
            .header("x-mine", "1")
            .header("x-from", "forged")
            .header("cookie", "secret")
            .header("content-length", "1000")
            .body(())
            .expect("a request");
        let peeked = Peeked { bytes: Bytes::from_static(b"abc"), whole: false };
        let question = question(&check, &request.into_parts().0, Some(&peeked)).expect("a question");
        assert_eq!(
            (question.method().as_str(), question.uri().to_string().as_str()),
            ("PUT", "/check/orders?id=1")
        );
        let headers = question.headers();
        assert_eq!(
            (&headers["host"], &headers["authorization"]),
            (&"shop".parse().unwrap(), &"Bearer a".parse().unwrap())
        );
        assert_eq!(
            (headers["content-length"].as_bytes(), headers["x-from"].as_bytes()),
            (&b"3"[..], &b"weft"[..])
        );
        assert_eq!((headers["x-mine"].as_bytes(), headers[PARTIAL].as_bytes()), (&b"1"[..], &b"true"[..]));
        assert!(!headers.contains_key("cookie"));
    }

    #[test]
    fn an_answer_allows_refuses_or_is_none() {
        let plain = check(&serde_json::json!({"service": "a.b", "port": 80}));
        let picky = check(&serde_json::json!({
            "service": "a.b", "port": 80, "headersToUpstreamOnAllow": ["x-user"],
            "headersToDownstreamOnDeny": ["x-why"], "headersToDownstreamOnAllow": ["x-seen"],
        }));
        let lines = [("x-user", "ann"), ("x-why", "no"), ("x-seen", "1"), ("content-length", "2")];
        let Some(Decision::Allowed(changes)) = decision(&picky, &answer(200, &lines), Bytes::new()) else {
            panic!("allowed")
        };
        let mut headers = HeaderMap::new();
        changes.apply(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-user"]);
        assert_eq!(changes.answer.keys().collect::<Vec<_>>(), ["x-seen"]);

        let refused = |check: &HttpCheck, status| match decision(check, &answer(status, &lines), "no".into())
        {
            Some(Decision::Denied(refused)) => refused,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&picky, 302).headers.keys().collect::<Vec<_>>(), ["x-why"]);
        let all = refused(&plain, 401);
        assert_eq!((all.status.as_u16(), all.headers.len(), &all.body[..]), (401, 3, &b"no"[..]));
        assert_eq!(decision(&plain, &answer(503, &lines), Bytes::new()), None);
    }
}
