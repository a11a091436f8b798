//! What the rules say of a request, done in Envoy's order of filters: CORS, faults, then the route's action.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{HeaderName, LOCATION};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use weft_rules::route::http_route::{Abort, HttpAction, MatchedHttpRoute};
use weft_rules::snapshot::HttpDecision;
use weft_telemetry::ResponseFlag;

use super::admit::{self, Arrival};
use super::body::{ClientBody, ResponseBody};
use super::exchange::Exchange;
use super::{forward, headers, local_reply};
use crate::error::Kind;

/// Answers a request.
pub(super) async fn answer(
    exchange: &Rc<Exchange>,
    mut request: Parts,
    body: Incoming,
) -> Response<ResponseBody> {
    let mut body = ClientBody::new(body, exchange);
    let down = &exchange.down;
    let paths = down.core.shared.snapshot.load().path_normalization();
    let upgrade = match headers::admit(&mut request, down.dialled, paths, down.was_read()) {
        Ok(upgrade) => upgrade,
        Err(headers::Unacceptable(details)) => {
            let response = local_reply::plain(exchange, StatusCode::BAD_REQUEST, Bytes::new());
            exchange.note(|outcome| outcome.details = details);
            return response;
        }
    };
    exchange.note_request_id(&request.headers);
    // As in a sidecar, no route accepts CONNECT.
    if request.method == Method::CONNECT {
        return local_reply::failure(exchange, &Kind::NoRoute.into());
    }
    if down.is_inbound() {
        return forward::passthrough(exchange, request, body, upgrade).await;
    }
    if down.is_at_gateway() {
        let tls = down.ended_tls();
        headers::tell_client(&mut request.headers, down.peer.ip(), tls);
        if tls.is_some() {
            request.extensions.insert(Scheme::HTTPS);
        }
        if let Some(arrival) = Arrival::at_gateway(down) {
            let asked = Request::from_parts(request, body);
            (request, body) = match admit::admit(exchange, &arrival, asked).await {
                Ok(admitted) => admitted.into_parts(),
                Err(answer) => return *answer,
            };
        }
    }
    match down.route_http(&request) {
        HttpDecision::Route(matched) => {
            exchange.note(|outcome| outcome.route = Some(matched.route.clone()));
            by_route(exchange, &matched, request, body, upgrade).await
        }
        HttpDecision::Passthrough => forward::passthrough(exchange, request, body, upgrade).await,
        HttpDecision::Misdirected => {
            local_reply::plain(exchange, StatusCode::MISDIRECTED_REQUEST, Bytes::new())
        }
        HttpDecision::NoRoute => local_reply::failure(exchange, &Kind::NoRoute.into()),
        HttpDecision::BlackHole => local_reply::failure(exchange, &Kind::BlackHole.into()),
    }
}

async fn by_route(
    exchange: &Rc<Exchange>,
    matched: &MatchedHttpRoute,
    request: Parts,
    body: ClientBody,
    upgrade: bool,
) -> Response<ResponseBody> {
    let route = &*matched.route;
    let cross_origin = match &route.cors {
        Some(cors) => {
            if let Some(answer) = cors.preflight(&request) {
                exchange.note(|outcome| outcome.details = "cors_preflight");
                return local_reply::with_headers(exchange, StatusCode::OK, answer, Bytes::new());
            }
            Some((cors, origin_of(&request.headers)))
        }
        None => None,
    };
    let mut response = match inject_fault(exchange, matched).await {
        Some(response) => response,
        None => act(exchange, matched, request, body, upgrade).await,
    };
    if let Some((cors, origin)) = cross_origin {
        cors.decorate(&origin, response.headers_mut());
    }
    response
}

async fn act(
    exchange: &Rc<Exchange>,
    matched: &MatchedHttpRoute,
    request: Parts,
    body: ClientBody,
    upgrade: bool,
) -> Response<ResponseBody> {
    let route = &*matched.route;
    match &route.action {
        HttpAction::Forward(_) => forward::by_route(exchange, matched, request, body, upgrade).await,
        HttpAction::Redirect(redirect) => {
            let scheme = scheme_of(&request.headers);
            let (status, location) =
                redirect.location(&request, matched.matched_prefix, scheme, exchange.down.dialled.port());
            let mut answer = HeaderMap::new();
            if let Ok(location) = HeaderValue::try_from(location) {
                answer.insert(LOCATION, location);
            }
            respond_by_rule(exchange, matched, status, answer, Bytes::new())
        }
        HttpAction::Respond(direct) => {
            let mut answer = HeaderMap::new();
            if !direct.body.is_empty() {
                answer.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            }
            respond_by_rule(exchange, matched, direct.status, answer, direct.body.clone())
        }
    }
}

fn respond_by_rule(
    exchange: &Rc<Exchange>,
    matched: &MatchedHttpRoute,
    status: StatusCode,
    mut answer: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    exchange.note(|outcome| outcome.details = "direct_response");
    matched.route.rewrite_response(None, &mut answer);
    local_reply::with_headers(exchange, status, answer, body)
}

/// Delays, then answers an abort. `None`: the request goes on.
async fn inject_fault(exchange: &Rc<Exchange>, matched: &MatchedHttpRoute) -> Option<Response<ResponseBody>> {
    let draw = matched.route.fault.as_ref()?.draw(fastrand::u64(..));
    if let Some(delay) = draw.delay {
        exchange.note(|outcome| outcome.flag(ResponseFlag::DelayInjected));
        tokio::time::sleep(delay).await;
    }
    let abort = draw.abort?;
    exchange.note(|outcome| {
        outcome.flag(ResponseFlag::FaultInjected);
        outcome.details = "fault_filter_abort";
    });
    let body = Bytes::from_static(b"fault filter abort");
    let mut response = match abort {
        Abort::Http(status) => local_reply::plain(exchange, status, body),
        Abort::Grpc(status) => local_reply::grpc(exchange, status, &body),
    };
    matched.route.rewrite_response(None, response.headers_mut());
    Some(response)
}

fn scheme_of(headers: &HeaderMap) -> &'static str {
    match headers.get("x-forwarded-proto") {
        Some(proto) if proto.as_bytes().eq_ignore_ascii_case(b"https") => "https",
        Some(_) | None => "http",
    }
}

/// What of a request its cross-origin answer depends on.
fn origin_of(headers: &HeaderMap) -> HeaderMap {
    const NAMES: [HeaderName; 1] = [http::header::ORIGIN];
    NAMES.into_iter().filter_map(|name| headers.get(&name).cloned().map(|value| (name, value))).collect()
}
