//! Where a token stands in a request: a header, a query parameter, a cookie.

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, HeaderValue};
use weft_api::istio::JwtRule;

/// The query parameter of RFC 6750, 2.3.
const ACCESS_TOKEN: &str = "access_token";
const BEARER: &str = "Bearer ";

/// A place where a token may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A header; the token follows the prefix.
    Header {
        /// Its name.
        name: HeaderName,
        /// What stands before the token; empty: the header is the token.
        prefix: String,
    },
    /// A query parameter.
    Param(String),
    /// A cookie.
    Cookie(String),
}

impl Location {
    /// Those that a rule names; where it names none, `Authorization: Bearer` and `access_token`.
    pub(super) fn of(rule: &JwtRule) -> Vec<Self> {
        if rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty() {
            let bearer = Self::Header { name: AUTHORIZATION, prefix: BEARER.to_owned() };
            return vec![bearer, Self::Param(ACCESS_TOKEN.to_owned())];
        }
        let headers = rule.from_headers.iter().filter_map(|header| {
            let name = HeaderName::try_from(header.name.as_str()).ok()?;
            Some(Self::Header { name, prefix: header.prefix.clone().unwrap_or_default() })
        });
        let params = rule.from_params.iter().cloned().map(Self::Param);
        let cookies = rule.from_cookies.iter().cloned().map(Self::Cookie);
        headers.chain(params).chain(cookies).collect()
    }

    /// The tokens that stand here: each line of a header has one, and so has each parameter and each cookie of this name.
    pub fn find<'a>(&self, head: &'a Parts) -> Vec<&'a str> {
        match self {
            Self::Header { name, prefix } => {
                head.headers.get_all(name).iter().filter_map(|value| token_in(value, prefix)).collect()
            }
            Self::Param(wanted) => {
                params(&head.uri).filter(|(name, _)| name == wanted).map(|(_, value)| value).collect()
            }
            Self::Cookie(wanted) => head
                .headers
                .get_all(COOKIE)
                .iter()
                .filter_map(|line| line.to_str().ok())
                .flat_map(cookies)
                .filter(|(name, _)| name == wanted)
                .map(|(_, value)| value.trim_matches('"'))
                .collect(),
        }
    }

    /// Takes the token out of a request, in every place where this location would look for it.
    pub fn strip(&self, head: &mut Parts) {
        match self {
            Self::Header { name, prefix } => {
                if head.headers.get_all(name).iter().any(|value| token_in(value, prefix).is_some()) {
                    head.headers.remove(name);
                }
            }
            Self::Param(wanted) => strip_param(&mut head.uri, wanted),
            Self::Cookie(wanted) => {
                let strip = |line: &HeaderValue| {
                    let Ok(text) = line.to_str() else { return Some(line.clone()) };
                    let kept: Vec<&str> = text
                        .split(';')
                        .map(str::trim)
                        .filter(|cookie| cookie.split_once('=').is_none_or(|(name, _)| name.trim() != wanted))
                        .collect();
                    HeaderValue::try_from(kept.join("; ")).ok().filter(|value| !value.is_empty())
                };
                let kept: Vec<HeaderValue> = head.headers.get_all(COOKIE).iter().filter_map(strip).collect();
                head.headers.remove(COOKIE);
                for line in kept {
                    head.headers.append(COOKIE, line);
                }
            }
        }
    }
}

/// What follows the prefix, as far as a token can go.
fn token_in<'a>(value: &'a HeaderValue, prefix: &str) -> Option<&'a str> {
    let value = value.to_str().ok()?;
    if prefix.is_empty() {
        return Some(value.trim());
    }
    let (_, rest) = value.split_once(prefix)?;
    let rest = rest.trim_start_matches(|char| !is_of_token(char));
    let end = rest.find(|char| !is_of_token(char)).unwrap_or(rest.len());
    Some(&rest[..end])
}

fn is_of_token(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.')
}

fn params(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    uri.query().into_iter().flat_map(|query| query.split('&')).filter_map(|param| param.split_once('='))
}

fn cookies(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split(';')
        .filter_map(|cookie| cookie.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
}

fn strip_param(uri: &mut Uri, wanted: &str) {
    let named = |param: &str| param.split_once('=').is_some_and(|(name, _)| name == wanted);
    let Some(query) = uri.query().filter(|query| query.split('&').any(named)) else { return };
    let kept: Vec<&str> = query.split('&').filter(|param| !named(param)).collect();
    let target =
        if kept.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), kept.join("&")) };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request").into_parts().0
    }

    fn rule(rule: serde_json::Value) -> Vec<Location> {
        Location::of(&serde_json::from_value(rule).expect("a rule"))
    }

    fn found<'a>(locations: &[Location], head: &'a Parts) -> Vec<&'a str> {
        locations.iter().flat_map(|location| location.find(head)).collect()
    }

    #[test]
    fn a_rule_without_locations_means_bearer_and_access_token() {
        let locations = rule(serde_json::json!({"issuer": "a"}));
        let head = request("/a?x=1&access_token=e.y.z", &[("authorization", "Bearer a.b.c, q")]);
        assert_eq!(found(&locations, &head), ["a.b.c", "e.y.z"]);
        assert!(found(&locations, &request("/", &[("authorization", "Basic a.b.c")])).is_empty());
        assert!(
            found(&locations, &request("/?access_tokens=1&b", &[("cookie", "access_token=a")])).is_empty()
        );
    }

    #[test]
    fn named_locations_are_the_only_ones() {
        let locations = rule(serde_json::json!({
            "issuer": "a",
            "fromHeaders": [{"name": "X-Token"}, {"name": "x-auth", "prefix": "Mine "}],
            "fromParams": ["t"],
            "fromCookies": ["session"],
        }));
        let headers = [
            ("authorization", "Bearer no"),
            ("x-token", "1.1.1"),
            ("x-auth", "Mine 2.2.2"),
            ("cookie", "a=b; session=4.4.4"),
        ];
        assert_eq!(found(&locations, &request("/?t=3.3.3", &headers)), ["1.1.1", "2.2.2", "3.3.3", "4.4.4"]);
    }

    #[test]
    fn every_token_of_a_location_is_found() {
        let locations = rule(serde_json::json!({
            "issuer": "a", "fromHeaders": [{"name": "x-t", "prefix": "T "}], "fromParams": ["p"], "fromCookies": ["c"],
        }));
        let headers = [
            ("x-t", "T 1.1.1"),
            ("x-t", "none"),
            ("x-t", "T 2.2.2"),
            ("cookie", "c=5; b=c; c=6"),
            ("cookie", "c=7"),
        ];
        assert_eq!(
            found(&locations, &request("/?p=3&q=p&p=4", &headers)),
            ["1.1.1", "2.2.2", "3", "4", "5", "6", "7"]
        );
    }

    #[test]
    fn a_token_is_taken_out_and_nothing_else() {
        let locations = rule(serde_json::json!({
            "issuer": "a", "fromHeaders": [{"name": "x-token"}], "fromParams": ["t"], "fromCookies": ["s"],
        }));
        let headers = [("x-token", "1"), ("x-other", "2"), ("cookie", "a=b; s=1; c=d"), ("cookie", "s=2")];
        let mut head = request("/p?a=1&t=2&tt=3&t=4", &headers);
        for location in &locations {
            location.strip(&mut head);
        }
        assert_eq!(head.uri, "/p?a=1&tt=3");
        assert!(!head.headers.contains_key("x-token") && head.headers.contains_key("x-other"));
        let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=b; c=d"]);
        let mut only = request("http://h/p?t=1", &[]);
        Location::Param("t".to_owned()).strip(&mut only);
        assert_eq!(only.uri, "http://h/p");
    }
}
