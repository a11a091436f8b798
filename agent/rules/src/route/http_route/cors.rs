//! `corsPolicy`, compiled.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN,
};
use http::request::Parts;
use http::{HeaderMap, Method};
use weft_api::istio::CorsPolicy;

use super::headers::header_value;
use crate::intern::Interner;
use crate::pattern::TextMatch;

/// Which origins' scripts may call, and what they may see.
#[derive(Debug)]
pub struct Cors(Box<Policy>);

#[derive(Debug)]
struct Policy {
    origins: Vec<TextMatch>,
    /// What a preflight's answer holds besides the origin.
    preflight: Vec<(HeaderName, HeaderValue)>,
    /// What a response holds besides the origin.
    response: Vec<(HeaderName, HeaderValue)>,
    answers_unmatched: bool,
}

impl Cors {
    pub(crate) fn compile(source: &CorsPolicy, intern: &mut Interner) -> Result<Self, String> {
        let deprecated =
            source.allow_origin.iter().map(|origin| Ok(TextMatch::Exact(origin.as_str().into())));
        let origins =
            source.allow_origins.iter().map(|origin| TextMatch::compile(origin, intern)).chain(deprecated);
        let origins = origins.collect::<Result<Vec<_>, _>>()?;
        let mut preflight = Vec::new();
        let mut response = Vec::new();
        if source.allow_credentials == Some(true) {
            let allow = (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            preflight.push(allow.clone());
            response.push(allow);
        }
        for (name, list, target) in [
            (ACCESS_CONTROL_ALLOW_METHODS, &source.allow_methods, &mut preflight),
            (ACCESS_CONTROL_EXPOSE_HEADERS, &source.expose_headers, &mut response),
        ] {
            if !list.is_empty() {
                target.push((name, header_value(&list.join(","))?));
            }
        }
        if !source.allow_headers.is_empty() {
            preflight.push((ACCESS_CONTROL_ALLOW_HEADERS, header_value(&source.allow_headers.join(","))?));
        }
        if let Some(age) = source.max_age {
            preflight.push((ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age.0.as_secs())));
        }
        let answers_unmatched = source.unmatched_preflights.as_deref() == Some("IGNORE");
        Ok(Self(Box::new(Policy { origins, preflight, response, answers_unmatched })))
    }

    fn allowed<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(ORIGIN).filter(|origin| !origin.is_empty())?;
        let allows = |matcher: &TextMatch| matcher.matches(b"*") || matcher.matches(origin.as_bytes());
        self.0.origins.iter().any(allows).then_some(origin)
    }

    /// The answer to a preflight that this policy answers itself, with status 200; `None`: forward it.
    pub fn preflight(&self, request: &Parts) -> Option<HeaderMap> {
        let asks = request.method == Method::OPTIONS
            && request.headers.get(ORIGIN).is_some_and(|origin| !origin.is_empty())
            && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks {
            return None;
        }
        let Some(origin) = self.allowed(&request.headers) else {
            return self.0.answers_unmatched.then(HeaderMap::new);
        };
        let mut answer = self.0.preflight.iter().cloned().collect::<HeaderMap>();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        Some(answer)
    }

    /// Adds the headers that an actual request's response needs.
    pub fn decorate(&self, request_headers: &HeaderMap, response_headers: &mut HeaderMap) {
        let Some(origin) = self.allowed(request_headers) else { return };
        for (name, value) in &self.0.response {
            response_headers.insert(name.clone(), value.clone());
        }
        response_headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_api::duration::Span;
    use weft_api::istio::StringMatch;

    use super::*;

    fn cors(unmatched: Option<&str>) -> Cors {
        let policy = CorsPolicy {
            allow_origins: vec![StringMatch { exact: Some("https://shop".into()), ..Default::default() }],
            allow_methods: vec!["GET".into(), "POST".into()],
            allow_headers: vec!["x-a".into()],
            expose_headers: vec!["x-b".into()],
            max_age: Some(Span(Duration::from_hours(24))),
            allow_credentials: Some(true),
            unmatched_preflights: unmatched.map(str::to_owned),
            ..Default::default()
        };
        Cors::compile(&policy, &mut Interner::default()).unwrap()
    }

    fn request(method: &str, origin: &str) -> Parts {
        let request = http::Request::builder().method(method).header("origin", origin);
        request.header("access-control-request-method", "POST").body(()).unwrap().into_parts().0
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}={}", value.to_str().unwrap());
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_preflight_is_answered_for_allowed_origins() {
        let answer = cors(None).preflight(&request("OPTIONS", "https://shop")).unwrap();
        assert_eq!(
            text(&answer),
            [
                "access-control-allow-credentials=true",
                "access-control-allow-headers=x-a",
                "access-control-allow-methods=GET,POST",
                "access-control-allow-origin=https://shop",
                "access-control-max-age=86400",
            ]
        );
        assert!(cors(None).preflight(&request("GET", "https://shop")).is_none());
        assert!(cors(None).preflight(&request("OPTIONS", "https://other")).is_none());
        assert!(cors(Some("IGNORE")).preflight(&request("OPTIONS", "https://other")).unwrap().is_empty());
    }

    #[test]
    fn a_response_tells_scripts_what_they_may_read() {
        let mut headers = HeaderMap::new();
        cors(None).decorate(&request("GET", "https://other").headers, &mut headers);
        assert!(headers.is_empty());
        cors(None).decorate(&request("GET", "https://shop").headers, &mut headers);
        assert_eq!(
            text(&headers),
            [
                "access-control-allow-credentials=true",
                "access-control-allow-origin=https://shop",
                "access-control-expose-headers=x-b",
            ]
        );
    }
}
