//! `redirect`, compiled.

use http::StatusCode;
use http::request::Parts;
use weft_api::istio::HttpRedirect;

use super::rewrite::replace_prefix;

/// An answer that sends the client elsewhere.
#[derive(Debug)]
pub struct Redirect {
    status: StatusCode,
    scheme: Option<Box<str>>,
    authority: Option<Box<str>>,
    port: RedirectPort,
    path: RedirectPath,
}

#[derive(Debug, Clone, Copy)]
enum RedirectPort {
    /// The request's, where its host stays; none where it is replaced.
    Default,
    /// This one.
    Fixed(u16),
    /// The one that was addressed; where that is the scheme's default, as [`Self::Default`].
    OfRequest,
}

#[derive(Debug)]
enum RedirectPath {
    Keep,
    Whole(Box<str>),
    Prefix(Box<str>),
}

impl Redirect {
    pub(crate) fn compile(source: &HttpRedirect) -> Result<Self, String> {
        let text =
            |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Box::<str>::from);
        let code = source.redirect_code.unwrap_or(301);
        let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let port = match (source.port, source.derive_port.as_deref()) {
            (Some(port), _) => {
                RedirectPort::Fixed(u16::try_from(port).map_err(|_| format!("{port} is not a port"))?)
            }
            (None, Some("FROM_REQUEST_PORT")) => RedirectPort::OfRequest,
            _ => RedirectPort::Default,
        };
        let path = match (text(&source.uri), text(&source.prefix_rewrite)) {
            (Some(uri), _) => RedirectPath::Whole(uri),
            (None, Some(prefix)) => RedirectPath::Prefix(prefix),
            (None, None) => RedirectPath::Keep,
        };
        Ok(Self {
            status: status.filter(StatusCode::is_redirection).ok_or(format!("{code} is not a redirect"))?,
            scheme: text(&source.scheme),
            authority: text(&source.authority),
            port,
            path,
        })
    }

    /// Status and `location` for a request that came with `scheme` to port `addressed`.
    pub fn location(
        &self,
        request: &Parts,
        matched_prefix: Option<usize>,
        scheme: &str,
        addressed: u16,
    ) -> (StatusCode, String) {
        let new_scheme = self.scheme.as_deref().unwrap_or(scheme);
        let port = match self.port {
            RedirectPort::Default => None,
            RedirectPort::Fixed(port) => Some(port),
            RedirectPort::OfRequest => Some(addressed),
        };
        let port = port.filter(|port| Some(*port) != default_port(new_scheme));
        let host = match &self.authority {
            Some(authority) if port.is_some() => without_port(authority).0,
            Some(authority) => authority,
            None => {
                let replaced = port.is_some() || matches!(self.port, RedirectPort::Fixed(_));
                kept_host(super::authority(request), replaced, scheme, new_scheme)
            }
        };
        let query = request.uri.query();
        let path = match &self.path {
            RedirectPath::Keep => request.uri.path().to_owned(),
            RedirectPath::Whole(path) => path.to_string(),
            RedirectPath::Prefix(new) => replace_prefix(request.uri.path(), matched_prefix, new),
        };
        let mut location = format!("{new_scheme}://{host}");
        if let Some(port) = port {
            location.push(':');
            location.push_str(&port.to_string());
        }
        location.push_str(&path);
        // A query of the rule's own wins.
        if let Some(query) = query.filter(|_| !path.contains('?')) {
            location.push('?');
            location.push_str(query);
        }
        (self.status, location)
    }
}

/// The request's host as it stays: with its port, unless the rule names one or it was the old scheme's default.
fn kept_host<'a>(authority: &'a str, replaced: bool, scheme: &str, new_scheme: &str) -> &'a str {
    let (host, port) = without_port(authority);
    let was_default = new_scheme != scheme && port.is_some() && port == default_port(scheme);
    if replaced || was_default { host } else { authority }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn without_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_built_as_envoy_builds_them() {
        let rule = |build: &dyn Fn(&mut HttpRedirect)| {
            let mut redirect = HttpRedirect::default();
            build(&mut redirect);
            Redirect::compile(&redirect).unwrap()
        };
        let elsewhere = |r: &mut HttpRedirect| {
            r.authority = Some("new:81".into());
            r.port = Some(82);
        };
        let cases: [(Redirect, &str, Option<usize>, u16, &str); 13] = [
            (rule(&elsewhere), "shop:8080", None, 301, "http://new:82/a/b?q=1"),
            (rule(&|r| r.uri = Some("/v1".into())), "shop:8080", None, 301, "http://shop:8080/v1?q=1"),
            (rule(&|r| r.uri = Some("/v1?own".into())), "shop", None, 301, "http://shop/v1?own"),
            (rule(&|r| r.authority = Some("new:81".into())), "shop:8080", None, 301, "http://new:81/a/b?q=1"),
            (rule(&|r| r.scheme = Some("https".into())), "shop", None, 301, "https://shop/a/b?q=1"),
            (rule(&|r| r.scheme = Some("https".into())), "shop:80", None, 301, "https://shop/a/b?q=1"),
            (rule(&|r| r.scheme = Some("https".into())), "shop:8080", None, 301, "https://shop:8080/a/b?q=1"),
            (rule(&|r| r.port = Some(8443)), "shop:8080", None, 301, "http://shop:8443/a/b?q=1"),
            (rule(&|r| r.port = Some(80)), "shop:8080", None, 301, "http://shop/a/b?q=1"),
            (
                rule(&|r| r.derive_port = Some("FROM_REQUEST_PORT".into())),
                "shop",
                None,
                301,
                "http://shop:9080/a/b?q=1",
            ),
            (
                rule(&|r| r.derive_port = Some("FROM_PROTOCOL_DEFAULT".into())),
                "shop",
                None,
                301,
                "http://shop/a/b?q=1",
            ),
            (rule(&|r| r.prefix_rewrite = Some("/z".into())), "shop", Some(2), 301, "http://shop/z/b?q=1"),
            (rule(&|r| r.redirect_code = Some(308)), "[::1]:80", None, 308, "http://[::1]:80/a/b?q=1"),
        ];
        for (redirect, host, prefix, status, expected) in cases {
            let request = http::Request::get("/a/b?q=1").header("host", host).body(()).unwrap();
            let (parts, ()) = request.into_parts();
            let (code, location) = redirect.location(&parts, prefix, "http", 9080);
            assert_eq!((code.as_u16(), location.as_str()), (status, expected));
        }
    }

    #[test]
    fn the_port_of_the_request_stays_where_the_host_had_it() {
        let redirect = HttpRedirect { derive_port: Some("FROM_REQUEST_PORT".into()), ..Default::default() };
        let to_https = HttpRedirect { scheme: Some("https".into()), ..redirect.clone() };
        for (rule, host, addressed, expected) in [
            (&redirect, "web:80", 80, "http://web:80/"),
            (&redirect, "web", 80, "http://web/"),
            (&redirect, "web:8080", 8080, "http://web:8080/"),
            (&redirect, "web:9999", 8080, "http://web:8080/"),
            (&to_https, "web:80", 80, "https://web:80/"),
            (&to_https, "web:443", 443, "https://web:443/"),
        ] {
            let request = http::Request::get("/").header("host", host).body(()).unwrap();
            let rule = Redirect::compile(rule).unwrap();
            let (_, location) = rule.location(&request.into_parts().0, None, "http", addressed);
            assert_eq!(location, expected, "{host} at {addressed}");
        }
    }
}
