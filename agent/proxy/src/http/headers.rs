//! What a sidecar does to the headers of a request before it is routed and sent, and of a response before it is answered.
//!
//! What only a proxy may say is removed from what clients send: who they are (`x-forwarded-client-cert`), what a proxy has done
//! with the request (`x-envoy-original-path`), and what steers one (`x-envoy-retry-on`, `x-envoy-upstream-rq-timeout-ms`): the
//! headers that Envoy removes from requests from outside, and Istio's sidecars know of no inside. What an agent of the mesh
//! has read before keeps what that agent has said of it. `x-forwarded-for` and its kin are the application's, as in Istio.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, SERVER, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Frame;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use weft_api::mesh_config::Normalization;
use weft_rules::path;

use crate::connection::EndedTls;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const X_ENVOY_ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const X_ENVOY_EXPECTED_RQ_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const X_ENVOY_UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Istio's outbound listener answers under this name, whatever the endpoint calls itself.
const SERVER_NAME: HeaderValue = HeaderValue::from_static("envoy");

/// Headers with this start are a proxy's.
const PROXYS_PREFIX: &str = "x-envoy-";
/// Those that clients may not send. `x-envoy-attempt-count` may come from a proxy outside the mesh, and claims nothing.
const PROXYS: [&str; 23] = [
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-original-path",
    "x-envoy-original-host",
    "x-envoy-original-method",
    "x-envoy-original-dst-host",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
];
/// Headers that say who a peer is: only a proxy may set them.
const IDENTITY: [&str; 3] = ["x-forwarded-client-cert", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id"];

/// Why a request cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unacceptable(pub(super) &'static str);

/// Brings a request into the one form that is routed: path and query in the URI, the host in `host`, the path normalised,
/// nothing that was meant for this hop only, nothing that clients may not say. `read`: an agent of the mesh has done all that
/// before. True: it asks for an upgrade, whose headers stay.
pub(super) fn admit(
    request: &mut Parts,
    dialled: SocketAddr,
    paths: Normalization,
    read: bool,
) -> Result<bool, Unacceptable> {
    settle_host(request, dialled)?;
    path::settle(&mut request.uri, paths)
        .map_err(|path::NotAPath| Unacceptable("path_normalization_failed"))?;
    let headers = &mut request.headers;
    let upgrade = request.version == Version::HTTP_11 && asks_for_upgrade(headers);
    strip_hop_by_hop(headers, upgrade);
    headers.remove(HTTP2_SETTINGS);
    strip_foreign(headers, read);
    if !headers.contains_key(X_REQUEST_ID) {
        headers.insert(X_REQUEST_ID, request_id());
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    Ok(upgrade)
}

/// What a gateway tells of its client: the address that it has seen, after those that others claim (Istio's gateways trust
/// no proxy before them by default), and the scheme.
pub(super) fn tell_client(headers: &mut HeaderMap, client: IpAddr, tls: Option<&EndedTls>) {
    let client = client.to_canonical();
    let told: Vec<&str> =
        headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let all = if told.is_empty() { client.to_string() } else { format!("{},{client}", told.join(",")) };
    if let Ok(all) = HeaderValue::try_from(all) {
        headers.insert(X_FORWARDED_FOR, all);
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if let Some(told) = tls.and_then(|tls| tls.client.as_ref()?.told.clone()) {
        headers.insert(X_FORWARDED_CLIENT_CERT, told);
    }
    // Envoy tells it by this one, too; a client's own must not be taken for it.
    headers.remove(X_ENVOY_EXTERNAL_ADDRESS);
}

/// Moves the host to the `host` header and leaves path and query in the URI. A URI's authority wins over the header
/// (RFC 9112, 3.2.2); HTTP/1.0 without one means the address dialled.
fn settle_host(request: &mut Parts, dialled: SocketAddr) -> Result<(), Unacceptable> {
    if let Some(authority) = request.uri.authority() {
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| Unacceptable("invalid_authority"))?;
        request.headers.insert(HOST, host);
        if request.method != Method::CONNECT {
            let target = request.uri.path_and_query().cloned();
            request.uri = target.unwrap_or(PathAndQuery::from_static("/")).into();
        }
        return Ok(());
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => Ok(()),
        (Some(_), Some(_)) => Err(Unacceptable("multiple_host_headers")),
        (None, _) if request.version == Version::HTTP_10 => {
            let host = HeaderValue::from_str(&dialled.to_string())
                .map_err(|_| Unacceptable("missing_host_header"))?;
            request.headers.insert(HOST, host);
            Ok(())
        }
        (None, _) => Err(Unacceptable("missing_host_header")),
    }
}

/// `Connection: upgrade` with a protocol. Upgrading to HTTP/2 is declined by not passing it on, as in a sidecar.
fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Removes what concerns one hop only (RFC 9110, 7.6.1), with what `connection` names.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != UPGRADE && *name != TE)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if keep_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    if headers.contains_key(TE) {
        let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

fn strip_foreign(headers: &mut HeaderMap, read: bool) {
    if !read && headers.keys().any(|name| name.as_str().starts_with(PROXYS_PREFIX)) {
        for name in PROXYS {
            headers.remove(name);
        }
    }
    for name in IDENTITY {
        headers.remove(name);
    }
}

/// Takes out of a request's trailers what clients may not say: some programs make no difference between these and headers.
pub(super) fn admit_frame(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_foreign(&mut trailers, false);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Gives a routed request the form that its endpoint's version needs.
pub(super) fn address(request: &mut Parts, http2: bool) -> Result<(), Unacceptable> {
    if http2 {
        let host = request.headers.remove(HOST).ok_or(Unacceptable("missing_host_header"))?;
        let mut uri = std::mem::take(&mut request.uri).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority =
            Some(Authority::from_maybe_shared(host).map_err(|_| Unacceptable("invalid_authority"))?);
        uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        request.uri = Uri::from_parts(uri).map_err(|_| Unacceptable("invalid_authority"))?;
        request.version = Version::HTTP_2;
        request.headers.remove(CONNECTION);
        request.headers.remove(UPGRADE);
    } else {
        if request.version == Version::HTTP_2 {
            join_cookies(&mut request.headers);
        }
        request.version = Version::HTTP_11;
    }
    Ok(())
}

/// The host that a request is for, in either of the forms of [`address`].
pub(super) fn host(request: &Parts) -> &str {
    match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

/// One `cookie` line, as HTTP/1.1 wants it (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(_)) = (cookies.next(), cookies.next()) {
        let mut joined = first.as_bytes().to_vec();
        for cookie in headers.get_all(COOKIE).iter().skip(1) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(cookie.as_bytes());
        }
        if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// Says which try this is.
pub(super) fn count_attempt(headers: &mut HeaderMap, attempt: u32) {
    headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(attempt));
}

/// Says how long the endpoint has.
pub(super) fn expect_within(headers: &mut HeaderMap, timeout: Duration) {
    headers.insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, HeaderValue::from(timeout.as_millis() as u64));
}

/// Prepares an endpoint's response for the client.
pub(super) fn admit_response(headers: &mut HeaderMap, took: Duration, upgraded: bool) {
    strip_hop_by_hop(headers, upgraded);
    headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, HeaderValue::from(took.as_millis() as u64));
    for name in &IDENTITY[1..] {
        headers.remove(*name);
    }
}

/// What every answer has.
pub(super) fn sign(headers: &mut HeaderMap) {
    headers.insert(SERVER, SERVER_NAME);
}

/// Whether the request is gRPC: `application/grpc`, alone or with a format.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'+' || rest[0] == b';')
    })
}

/// Whether the client waits for leave to send its body.
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// `grpc-timeout`: at most 8 digits and a unit. <https://github.com/grpc/grpc/blob/v1.70.0/doc/PROTOCOL-HTTP2.md>
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (amount, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if amount.len() > 8 {
        return None;
    }
    let amount: u64 = amount.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// A version 4 UUID as a header.
fn request_id() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALLED: &str = "10.0.0.1:80";

    fn request(version: Version, uri: &str, lines: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().version(version).uri(uri);
        for (name, value) in lines {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn admitted(mut parts: Parts) -> Result<(Parts, bool), Unacceptable> {
        let upgrade = admit(&mut parts, DIALLED.parse().unwrap(), Normalization::Base, false)?;
        Ok((parts, upgrade))
    }

    #[test]
    fn the_host_comes_from_the_url_then_from_the_header() {
        let both = request(Version::HTTP_11, "http://in-url:8080/a?b", &[("host", "in-header")]);
        let (parts, _) = admitted(both).unwrap();
        assert_eq!(
            (parts.headers[HOST].as_bytes(), parts.uri.to_string().as_str()),
            (&b"in-url:8080"[..], "/a?b")
        );
        let (parts, _) = admitted(request(Version::HTTP_11, "/", &[("host", "in-header")])).unwrap();
        assert_eq!(parts.headers[HOST], "in-header");
        let (parts, _) = admitted(request(Version::HTTP_10, "/", &[])).unwrap();
        assert_eq!(parts.headers[HOST], DIALLED);
        assert!(admitted(request(Version::HTTP_11, "/", &[])).is_err());
        assert!(admitted(request(Version::HTTP_11, "/", &[("host", "a"), ("host", "b")])).is_err());
    }

    #[test]
    fn what_concerns_one_hop_is_dropped() {
        let lines = [
            ("host", "a"),
            ("connection", "keep-alive, X-Mine, host, content-length"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("content-length", "3"),
        ];
        let (parts, upgrade) = admitted(request(Version::HTTP_11, "/", &lines)).unwrap();
        let mut left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "te", "x-forwarded-proto", "x-other", "x-request-id"]);
        assert_eq!(parts.headers[TE], "trailers");
        assert!(!upgrade);
    }

    #[test]
    fn an_upgrade_stays() {
        let lines =
            [("host", "a"), ("connection", "Upgrade, X-Mine"), ("upgrade", "websocket"), ("x-mine", "1")];
        let (parts, upgrade) = admitted(request(Version::HTTP_11, "/", &lines)).unwrap();
        assert!(upgrade && !parts.headers.contains_key("x-mine"));
        assert_eq!(
            (&parts.headers[CONNECTION], &parts.headers[UPGRADE]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
    }

    #[test]
    fn a_client_neither_steers_nor_claims_to_be_somebody() {
        let lines = [
            ("host", "a"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-upstream-rq-timeout-ms", "1"),
            ("x-forwarded-client-cert", "By=me"),
            ("x-envoy-original-path", "/admin"),
            ("x-envoy-decorator-operation", "forged"),
            ("x-envoy-downstream-service-cluster", "forged"),
            ("x-envoy-peer-metadata-id", "forged"),
            ("x-envoy-mine", "kept"),
            ("x-request-id", "given"),
            ("x-forwarded-proto", "https"),
        ];
        let (parts, _) = admitted(request(Version::HTTP_11, "/", &lines)).unwrap();
        let mut left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-envoy-mine", "x-forwarded-proto", "x-request-id"]);
        assert_eq!(
            (&parts.headers[X_REQUEST_ID], &parts.headers[X_FORWARDED_PROTO]),
            (&HeaderValue::from_static("given"), &HeaderValue::from_static("https"))
        );
    }

    #[test]
    fn what_an_agent_has_said_stays_but_for_who_calls() {
        let lines = [
            ("host", "a"),
            ("x-envoy-original-path", "/before"),
            ("x-envoy-expected-rq-timeout-ms", "100"),
            ("x-forwarded-client-cert", "By=me"),
        ];
        let mut parts = request(Version::HTTP_11, "/", &lines);
        admit(&mut parts, DIALLED.parse().unwrap(), Normalization::Base, true).unwrap();
        assert_eq!(parts.headers["x-envoy-original-path"], "/before");
        assert_eq!(parts.headers["x-envoy-expected-rq-timeout-ms"], "100");
        assert!(!parts.headers.contains_key(X_FORWARDED_CLIENT_CERT));
    }

    #[test]
    fn trailers_claim_nothing_either() {
        let lines = [("x-forwarded-client-cert", "By=me"), ("x-envoy-original-path", "/a"), ("x-mine", "1")];
        let trailers = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let left = admit_frame(Frame::trailers(trailers.collect())).into_trailers().unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["x-mine"]);
    }

    #[test]
    fn a_request_takes_the_form_of_its_endpoint() {
        let lines = [("host", "shop:8080"), ("cookie", "a=1"), ("cookie", "b=2")];
        let mut parts = request(Version::HTTP_2, "/x?y", &lines);
        address(&mut parts, false).unwrap();
        assert_eq!(
            (parts.version, &parts.headers[COOKIE]),
            (Version::HTTP_11, &HeaderValue::from_static("a=1; b=2"))
        );
        assert_eq!(parts.headers.get_all(COOKIE).iter().count(), 1);

        let mut parts = request(Version::HTTP_11, "/x?y", &lines);
        address(&mut parts, true).unwrap();
        assert_eq!(
            (parts.version, parts.uri.to_string().as_str()),
            (Version::HTTP_2, "http://shop:8080/x?y")
        );
        assert!(!parts.headers.contains_key(HOST));
    }

    #[test]
    fn grpc_timeouts_are_read() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("250m", Some(Duration::from_millis(250))),
            ("1H", Some(Duration::from_hours(1))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789S", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
        ] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))]);
            assert_eq!(grpc_timeout(&headers), expected, "{text}");
        }
    }

    #[test]
    fn a_request_id_is_a_uuid() {
        let id = request_id();
        let id = uuid::Uuid::parse_str(id.to_str().unwrap()).unwrap();
        assert_eq!((id.get_version_num(), id.get_variant()), (4, uuid::Variant::RFC4122));
    }
}
