//! `envoyExtAuthzGrpc`: the provider gets what is known of connection and request, and says what is to become of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, TE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};
use prost::Message as _;
use weft_api::identity::Identity;

use super::check::{
    Address, AppendAction, AttributeContext, CheckRequest, CheckResponse, HeaderValueOption, HttpRequest,
    HttpResponse, Peer, Request as AskedRequest, SocketAddress, Timestamp,
};
use super::decision::{Changes, Decision, How, Refused, is_framing};
use crate::http::body::{Peeked, RequestBody};
use crate::http::headers::{self, X_REQUEST_ID};

const METHOD: PathAndQuery = PathAndQuery::from_static("/envoy.service.auth.v3.Authorization/Check");
const GRPC_STATUS: &str = "grpc-status";
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// A message's compression flag and length.
const FRAME_BYTES: usize = 5;

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a> {
    /// The caller.
    pub(super) source: (SocketAddr, Option<&'a Identity>),
    /// The workload.
    pub(super) destination: (SocketAddr, Option<&'a Identity>),
}

/// A request, as the provider sees it.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// Its head.
    pub(super) head: &'a Parts,
    /// What was looked at of its body, and whether as bytes.
    pub(super) body: Option<(&'a Peeked, bool)>,
}

/// The message that asks; without a request it asks about the connection alone.
pub(super) fn message(ends: Ends<'_>, asked: Option<&Asked<'_>>, now: SystemTime) -> Bytes {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: since.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().try_into().unwrap_or_default(),
    };
    let attributes = AttributeContext {
        source: Some(peer(ends.source)),
        destination: Some(peer(ends.destination)),
        request: Some(AskedRequest { time: Some(time), http: asked.map(http_request) }),
    };
    let message = CheckRequest { attributes: Some(attributes) };
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(FRAME_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut framed);
    framed.freeze()
}

/// The call that carries a message.
pub(super) fn call(authority: &str, message: Bytes, millis: u128) -> Option<Request<RequestBody>> {
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(METHOD).build().ok()?;
    let mut call = Request::new(RequestBody::Own(Some(message)));
    *call.method_mut() = http::Method::POST;
    *call.uri_mut() = uri;
    *call.version_mut() = Version::HTTP_2;
    let headers = call.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    // At most 8 digits.
    headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(format!("{}m", millis.min(99_999_999))).ok()?);
    Some(call)
}

/// Whether a call went well, by the status in its trailers or, where there is nothing else, in its head.
pub(super) fn succeeded(head: &HeaderMap, trailers: Option<&HeaderMap>) -> bool {
    let status = trailers.and_then(|trailers| trailers.get(GRPC_STATUS)).or_else(|| head.get(GRPC_STATUS));
    status.is_some_and(|status| status == "0")
}

/// What the answer means. `None`: it is none.
pub(super) fn decision(framed: &[u8]) -> Option<Decision> {
    let (frame, message) = framed.split_at_checked(FRAME_BYTES)?;
    let length = u32::from_be_bytes(frame[1..].try_into().ok()?);
    if frame[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let response = CheckResponse::decode(message).ok()?;
    let allowed = response.status.unwrap_or_default().code == 0;
    Some(match (allowed, response.http_response) {
        (true, Some(HttpResponse::Ok(ok))) => {
            let mut changes = Changes::default();
            for (name, value, option) in read(&ok.headers) {
                changes.header(name, value, how(option));
            }
            for name in &ok.headers_to_remove {
                if let Ok(name) = HeaderName::try_from(name) {
                    changes.remove(name);
                }
            }
            changes.answer =
                read(&ok.response_headers_to_add).map(|(name, value, _)| (name, value)).collect();
            Decision::Allowed(changes)
        }
        (true, _) => Decision::Allowed(Changes::default()),
        (false, Some(HttpResponse::Denied(denied))) => {
            let code = denied.status.map(|status| status.code).and_then(|code| u16::try_from(code).ok());
            let status = code.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.filter(|status| !status.is_informational()).unwrap_or(StatusCode::FORBIDDEN);
            let mut headers = HeaderMap::new();
            for (name, value, _) in read(&denied.headers) {
                headers.append(name, value);
            }
            Decision::Denied(Refused { status, headers, body: denied.body.into() })
        }
        (false, _) => Decision::Denied(Refused {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }),
    })
}

fn peer((address, identity): (SocketAddr, Option<&Identity>)) -> Peer {
    let address =
        SocketAddress { address: address.ip().to_canonical().to_string(), port_value: address.port().into() };
    Peer {
        address: Some(Address { socket_address: Some(address) }),
        principal: identity.map(Identity::to_string).unwrap_or_default(),
    }
}

fn http_request(asked: &Asked<'_>) -> HttpRequest {
    let head = asked.head;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut lines: HashMap<String, String> = HashMap::with_capacity(head.headers.len() + 3);
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != HOST) {
        let all = lines.entry(name.as_str().to_owned()).or_default();
        if !all.is_empty() {
            all.push_str(if *name == COOKIE { "; " } else { "," });
        }
        all.push_str(&text(value));
    }
    let named = |name| head.headers.get(name).map(text).unwrap_or_default();
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
    let host = headers::host(head).to_owned();
    lines.extend([
        (":authority".to_owned(), host.clone()),
        (":method".to_owned(), head.method.to_string()),
        (":path".to_owned(), path.clone()),
        (":scheme".to_owned(), "http".to_owned()),
    ]);
    let (mut body, mut raw_body) = (String::new(), Bytes::new());
    if let Some((peeked, as_bytes)) = asked.body {
        lines.insert("x-envoy-auth-partial-body".to_owned(), (!peeked.whole).to_string());
        if as_bytes {
            raw_body = peeked.bytes.clone();
        } else {
            body = String::from_utf8_lossy(&peeked.bytes).into_owned();
        }
    }
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    HttpRequest {
        id: named(X_REQUEST_ID),
        method: head.method.to_string(),
        headers: lines,
        path,
        host,
        scheme: "http".to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        size: length.unwrap_or(-1),
        protocol: if head.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }.to_owned(),
        body,
        raw_body,
    }
}

fn read(
    options: &[HeaderValueOption],
) -> impl Iterator<Item = (HeaderName, HeaderValue, &HeaderValueOption)> {
    options.iter().filter_map(|option| {
        let header = option.header.as_ref()?;
        let name = HeaderName::try_from(&header.key).ok().filter(|name| !is_framing(name))?;
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        Some((name, HeaderValue::from_bytes(value).ok()?, option))
    })
}

/// The older field decides where it is there. Its absence, and the newer one's default, mean to set.
fn how(option: &HeaderValueOption) -> How {
    match (&option.append, option.append_action()) {
        (Some(append), _) if append.value => How::Append,
        (Some(_), _) | (None, AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd) => {
            How::Set
        }
        (None, AppendAction::AddIfAbsent) => How::IfAbsent,
        (None, AppendAction::OverwriteIfExists) => How::IfPresent,
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{Allowed, BoolValue, Denied, HeaderValue as Header, HttpStatus, Status};
    use super::*;

    fn framed(response: &CheckResponse) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend(u32::try_from(response.encoded_len()).expect("small").to_be_bytes());
        framed.extend(response.encode_to_vec());
        framed
    }

    fn option(key: &str, append: Option<bool>, action: AppendAction) -> HeaderValueOption {
        HeaderValueOption {
            header: Some(Header { key: key.to_owned(), value: "new".to_owned(), raw_value: Bytes::new() }),
            append: append.map(|value| BoolValue { value }),
            append_action: action.into(),
        }
    }

    #[test]
    fn the_provider_learns_who_calls_and_what_is_asked() {
        let source = Identity::parse("spiffe://cluster.local/ns/a/sa/b").expect("an identity");
        let head = Request::post("/orders?id=1")
            .header("host", "shop")
            .header("x-a", "1")
            .header("x-a", "2")
            .header("content-length", "9")
            .header("x-request-id", "r1")
            .body(())
            .expect("a request")
            .into_parts()
            .0;
        let peeked = Peeked { bytes: Bytes::from_static(b"abc"), whole: false };
        let ends = Ends {
            source: ("10.0.0.1:1234".parse().expect("an address"), Some(&source)),
            destination: ("[fd00::1]:80".parse().expect("an address"), None),
        };
        let asked = Asked { head: &head, body: Some((&peeked, false)) };
        let message = message(ends, Some(&asked), UNIX_EPOCH);
        let read =
            CheckRequest::decode(&message[FRAME_BYTES..]).expect("a message").attributes.expect("attributes");
        let caller = read.source.expect("a source");
        assert_eq!(caller.principal, "spiffe://cluster.local/ns/a/sa/b");
        let address = caller.address.and_then(|address| address.socket_address).expect("an address");
        assert_eq!((address.address.as_str(), address.port_value), ("10.0.0.1", 1234));
        assert_eq!(read.destination.expect("a destination").principal, "");
        let http = read.request.and_then(|request| request.http).expect("a request");
        assert_eq!(
            (http.method.as_str(), http.path.as_str(), http.host.as_str()),
            ("POST", "/orders?id=1", "shop")
        );
        assert_eq!((http.id.as_str(), http.query.as_str(), http.size), ("r1", "id=1", 9));
        assert_eq!((http.body.as_str(), http.raw_body.len()), ("abc", 0));
        assert_eq!(http.headers["x-a"], "1,2");
        assert_eq!(http.headers[":authority"], "shop");
        assert_eq!(http.headers["x-envoy-auth-partial-body"], "true");
    }

    #[test]
    fn a_yes_may_change_the_request() {
        let ok = Allowed {
            headers: vec![
                option("x-set", None, AppendAction::AppendIfExistsOrAdd),
                option("x-append", Some(true), AppendAction::AppendIfExistsOrAdd),
                option("x-absent", None, AppendAction::AddIfAbsent),
                option("content-length", None, AppendAction::AppendIfExistsOrAdd),
            ],
            headers_to_remove: vec!["x-gone".to_owned(), "not a name".to_owned()],
            response_headers_to_add: vec![option("x-seen", None, AppendAction::AppendIfExistsOrAdd)],
        };
        let response =
            CheckResponse { status: Some(Status { code: 0 }), http_response: Some(HttpResponse::Ok(ok)) };
        let Some(Decision::Allowed(changes)) = decision(&framed(&response)) else { panic!("allowed") };
        let mut headers = HeaderMap::new();
        headers.insert("x-append", HeaderValue::from_static("old"));
        headers.insert("x-gone", HeaderValue::from_static("old"));
        changes.apply(&mut headers);
        assert_eq!(headers.get_all("x-append").iter().collect::<Vec<_>>(), ["old", "new"]);
        assert_eq!(
            (&headers["x-set"], &headers["x-absent"]),
            (&"new".parse().unwrap(), &"new".parse().unwrap())
        );
        assert!(!headers.contains_key("x-gone") && !headers.contains_key("content-length"));
        assert_eq!(changes.answer["x-seen"], "new");
    }

    #[test]
    fn a_no_tells_the_client_what_the_provider_says() {
        let refused = |response: &CheckResponse| match decision(&framed(response)) {
            Some(Decision::Denied(refused)) => refused,
            other => panic!("{other:?}"),
        };
        let denied = Denied {
            status: Some(HttpStatus { code: 401 }),
            headers: vec![option("x-why", None, AppendAction::AppendIfExistsOrAdd)],
            body: "no".to_owned(),
        };
        let status = Some(Status { code: 16 });
        let no = CheckResponse { status: status.clone(), http_response: Some(HttpResponse::Denied(denied)) };
        let told = refused(&no);
        assert_eq!(
            (told.status.as_u16(), &told.body[..], told.headers["x-why"].as_bytes()),
            (401, &b"no"[..], &b"new"[..])
        );
        // A status that is no yes is a no, whatever comes with it.
        let odd = CheckResponse { status, http_response: Some(HttpResponse::Ok(Allowed::default())) };
        assert_eq!(refused(&odd).status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn what_is_no_answer_decides_nothing() {
        let good = framed(&CheckResponse { status: Some(Status { code: 7 }), http_response: None });
        assert!(decision(&good).is_some());
        assert_eq!(decision(&good[..3]), None);
        assert_eq!(decision(&good[..good.len() - 1]), None);
        assert_eq!(decision(&[&[1], &good[1..]].concat()), None);
        assert_eq!(decision(&[0, 0, 0, 0, 2, 0xff, 0xff]), None);
        let ok: HeaderMap =
            [(HeaderName::from_static(GRPC_STATUS), HeaderValue::from_static("0"))].into_iter().collect();
        assert!(succeeded(&HeaderMap::new(), Some(&ok)) && succeeded(&ok, None));
        assert!(
            !succeeded(&HeaderMap::new(), None) && !succeeded(&HeaderMap::new(), Some(&HeaderMap::new()))
        );
    }
}
