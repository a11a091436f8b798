//! Header operations, compiled: names and values parsed once.

use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Version};
use weft_api::istio::{HeaderOperations, Headers};

/// What `headers` of a route or of a destination does.
#[derive(Debug, Default)]
pub struct HeaderRules {
    request: Option<Box<Operations>>,
    response: Option<Box<Operations>>,
}

/// In this order: remove, set, add, as Envoy does.
#[derive(Debug, Default)]
struct Operations {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Template)>,
    add: Vec<(HeaderName, Template)>,
    /// The Host to set.
    host: Option<HeaderValue>,
}

/// A header's value, maybe with Envoy's substitutions. `%REQ(NAME)%`, `%PROTOCOL%` and `%%` are carried out in
/// request headers; other operators stay as they are written.
#[derive(Debug)]
enum Template {
    Fixed(HeaderValue),
    Pieces(Vec<Piece>),
}

#[derive(Debug)]
enum Piece {
    Text(String),
    /// The first of these headers that the request has, cut to so many bytes.
    Request(Vec<String>, Option<usize>),
    Protocol,
}

impl HeaderRules {
    /// Compiles `headers`; an error names what cannot be a header.
    pub(crate) fn compile(source: Option<&Headers>) -> Result<Self, String> {
        let mut rules = Self::default();
        if let Some(source) = source {
            rules.append(source)?;
        }
        Ok(rules)
    }

    /// Adds further operations after those already here.
    pub(crate) fn append(&mut self, source: &Headers) -> Result<(), String> {
        if let Some(request) = &source.request {
            self.request.get_or_insert_default().append(request)?;
        }
        if let Some(response) = &source.response {
            self.response.get_or_insert_default().append(response)?;
        }
        Ok(())
    }

    /// The Host that these operations set.
    pub(crate) fn host(&self) -> Option<&HeaderValue> {
        self.request.as_ref()?.host.as_ref()
    }

    pub(crate) fn apply_to_request(&self, request: &mut Parts) {
        let Some(operations) = &self.request else { return };
        // All values first: they are formatted from the headers as they came.
        let values: Vec<HeaderValue> = if operations.is_fixed() {
            Vec::new()
        } else {
            operations.values().map(|template| template.format(Some(request))).collect()
        };
        operations.apply(&values, &mut request.headers);
    }

    pub(crate) fn apply_to_response(&self, headers: &mut HeaderMap) {
        let Some(operations) = &self.response else { return };
        let values: Vec<HeaderValue> = if operations.is_fixed() {
            Vec::new()
        } else {
            operations.values().map(|template| template.format(None)).collect()
        };
        operations.apply(&values, headers);
    }
}

impl Operations {
    fn append(&mut self, source: &HeaderOperations) -> Result<(), String> {
        for (list, entries) in [(&mut self.set, &source.set), (&mut self.add, &source.add)] {
            for (name, value) in entries {
                if is_host(name) {
                    // The first to set it wins: the route is read before its destination.
                    if self.host.is_none() {
                        self.host = Some(header_value(value)?);
                    }
                    continue;
                }
                list.push((header_name(name)?, Template::parse(value)?));
            }
        }
        for name in source.remove.iter().filter(|name| !is_host(name)) {
            self.remove.push(header_name(name)?);
        }
        Ok(())
    }

    fn values(&self) -> impl Iterator<Item = &Template> {
        self.set.iter().chain(&self.add).map(|(_, template)| template)
    }

    fn is_fixed(&self) -> bool {
        self.values().all(|template| matches!(template, Template::Fixed(_)))
    }

    /// `values` are those of `set`, then of `add`; none if all are fixed.
    fn apply(&self, values: &[HeaderValue], headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        let value = |index: usize, template: &Template| match template {
            Template::Fixed(value) => value.clone(),
            Template::Pieces(_) => values.get(index).cloned().unwrap_or(HeaderValue::from_static("-")),
        };
        for (index, (name, template)) in self.set.iter().enumerate() {
            headers.insert(name.clone(), value(index, template));
        }
        for (index, (name, template)) in self.add.iter().enumerate() {
            headers.append(name.clone(), value(self.set.len() + index, template));
        }
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let pieces = pieces(text);
        Ok(match pieces.as_slice() {
            [] => Self::Fixed(HeaderValue::from_static("")),
            [Piece::Text(text)] => Self::Fixed(header_value(text)?),
            _ => {
                header_value(text)?;
                Self::Pieces(pieces)
            }
        })
    }

    fn format(&self, request: Option<&Parts>) -> HeaderValue {
        let pieces = match self {
            Self::Fixed(value) => return value.clone(),
            Self::Pieces(pieces) => pieces,
        };
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Piece::Protocol => bytes.extend_from_slice(protocol(request).as_bytes()),
                Piece::Request(names, cut) => {
                    let found = names.iter().find_map(|name| request_field(request?, name));
                    let value = found.unwrap_or(b"-");
                    bytes.extend_from_slice(&value[..cut.unwrap_or(value.len()).min(value.len())]);
                }
            }
        }
        HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static("-"))
    }
}

fn protocol(request: Option<&Parts>) -> &'static str {
    match request.map(|parts| parts.version) {
        Some(Version::HTTP_2) => "HTTP/2",
        Some(Version::HTTP_10) => "HTTP/1.0",
        Some(_) => "HTTP/1.1",
        None => "-",
    }
}

fn request_field<'a>(request: &'a Parts, name: &str) -> Option<&'a [u8]> {
    match name {
        ":method" => Some(request.method.as_str().as_bytes()),
        ":path" => request.uri.path_and_query().map(|path| path.as_str().as_bytes()),
        ":scheme" => Some(super::scheme(request).as_bytes()),
        ":authority" | "host" => Some(super::authority(request).as_bytes()),
        _ => request.headers.get(name).map(HeaderValue::as_bytes),
    }
}

/// Splits at `%OPERATOR%`; what is no operator that we know stays text.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        plain.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        let Some(end) = after.find('%') else {
            plain.push('%');
            rest = after;
            break;
        };
        rest = &after[end + 1..];
        match operator(&after[..end]) {
            _ if end == 0 => plain.push('%'),
            Some(piece) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(piece);
            }
            None => {
                plain.push('%');
                plain.push_str(&after[..=end]);
            }
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    pieces
}

fn operator(text: &str) -> Option<Piece> {
    if text == "PROTOCOL" {
        return Some(Piece::Protocol);
    }
    let (names, cut) = text.strip_prefix("REQ(")?.split_once(')')?;
    let cut = match cut.strip_prefix(':') {
        Some(number) => Some(number.parse().ok()?),
        None if cut.is_empty() => None,
        None => return None,
    };
    Some(Piece::Request(names.split('?').map(str::to_ascii_lowercase).collect(), cut))
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header name"))
}

pub(super) fn header_value(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value)
        .or_else(|_| HeaderValue::from_bytes(value.as_bytes()))
        .map_err(|_| format!("{value:?} is not a header value"))
}

/// Replaces the Host of a request, wherever its version carries it.
pub(super) fn set_authority(request: &mut Parts, host: &HeaderValue) {
    let before = super::authority(request).to_owned();
    if before.as_bytes() != host.as_bytes()
        && let Ok(before) = HeaderValue::from_str(&before)
    {
        request.headers.insert("x-envoy-original-host", before);
    }
    if request.uri.authority().is_some() {
        let mut parts = std::mem::take(&mut request.uri).into_parts();
        let new = http::uri::Authority::try_from(host.as_bytes()).ok();
        parts.authority = new.or(parts.authority);
        request.uri = http::Uri::from_parts(parts).unwrap_or_default();
    }
    if request.headers.contains_key(HOST) || request.version < Version::HTTP_2 {
        request.headers.insert(HOST, host.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(template: &str, request: &Parts) -> String {
        let value = Template::parse(template).unwrap().format(Some(request));
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_new_authority_stands_where_the_version_has_it() {
        for (version, uri, before, after) in [
            (Version::HTTP_11, "/", Some("shop"), Some("new")),
            (Version::HTTP_10, "/", None, Some("new")),
            (Version::HTTP_2, "http://shop/", None, None),
            (Version::HTTP_2, "http://shop/", Some("shop"), Some("new")),
        ] {
            let mut request = http::Request::get(uri).version(version);
            if let Some(host) = before {
                request = request.header(HOST, host);
            }
            let (mut request, ()) = request.body(()).unwrap().into_parts();
            set_authority(&mut request, &HeaderValue::from_static("new"));
            let host = request.headers.get(HOST).map(|host| host.to_str().unwrap());
            assert_eq!(host, after, "{version:?} {uri} {before:?}");
            assert!(request.uri.host().is_none_or(|host| host == "new"), "{}", request.uri);
        }
    }

    #[test]
    fn values_may_quote_the_request() {
        let (request, ()) = http::Request::get("/a?b=c")
            .header("host", "shop")
            .header("x-user", "jason")
            .body(())
            .unwrap()
            .into_parts();
        for (template, expected) in [
            ("plain", "plain"),
            ("50%", "50%"),
            ("100%%", "100%"),
            ("u=%REQ(x-user)%", "u=jason"),
            ("%REQ(X-None?X-User):3%", "jas"),
            ("%REQ(:path)% %REQ(:authority)%", "/a?b=c shop"),
            ("%REQ(:method)% %REQ(:scheme)%", "GET http"),
            ("%REQ(x-none)%", "-"),
            ("%PROTOCOL%", "HTTP/1.1"),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", "%DOWNSTREAM_REMOTE_ADDRESS%"),
            ("", ""),
        ] {
            assert_eq!(formatted(template, &request), expected, "{template}");
        }
    }
}
