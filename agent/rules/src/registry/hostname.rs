//! Host names: as requests carry them, as rules write them, and the short names of services.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Longest name that DNS allows; a longer Host names nothing.
const LONGEST: usize = 253;
/// Room for a short name with the rest of its service's full name.
const ROOM: usize = 512;

/// Text on the stack: a request's host is compared without allocating.
pub(crate) struct HostBuffer {
    bytes: [u8; ROOM],
    len: usize,
}

impl HostBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }

    fn push(&mut self, text: &str) -> Option<()> {
        let end = self.len.checked_add(text.len())?;
        self.bytes.get_mut(self.len..end)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Some(())
    }

    fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes[..self.len]).ok()
    }
}

/// What a Host header or `:authority` names, without its port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestHost<'a> {
    /// A name: lower case, no trailing dot.
    Name(&'a str),
    /// A literal address.
    Address(IpAddr),
    /// Nothing that a rule could name.
    Nothing,
}

/// Drops port and trailing dot and lowers the case, into `buffer` only if there is case to lower.
pub(crate) fn normalize<'a>(authority: &'a str, buffer: &'a mut HostBuffer) -> RequestHost<'a> {
    // An authority may carry userinfo; nobody means it.
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(rest) = authority.strip_prefix('[') {
        let address = rest.split_once(']').and_then(|(inside, _)| inside.parse::<Ipv6Addr>().ok());
        return address.map_or(RequestHost::Nothing, |address| RequestHost::Address(address.into()));
    }
    let host = match authority.split_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) => {
            return authority.parse().map_or(RequestHost::Nothing, RequestHost::Address);
        }
        None => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > LONGEST {
        return RequestHost::Nothing;
    }
    if host.as_bytes()[host.len() - 1].is_ascii_digit()
        && let Ok(address) = host.parse()
    {
        return RequestHost::Address(address);
    }
    if !host.bytes().any(|b| b.is_ascii_uppercase()) {
        return RequestHost::Name(host);
    }
    buffer.len = 0;
    if buffer.push(host).is_none() {
        return RequestHost::Nothing;
    }
    buffer.bytes[..buffer.len].make_ascii_lowercase();
    buffer.as_str().map_or(RequestHost::Nothing, RequestHost::Name)
}

/// The full name that a service's short name stands for in the caller's namespace: `name`, `name.ns` and
/// `name.ns.svc`. `None`: not of such a form.
pub(crate) fn expand<'a>(
    name: &str,
    namespace: &str,
    domain: &str,
    buffer: &'a mut HostBuffer,
) -> Option<&'a str> {
    buffer.len = 0;
    buffer.push(name)?;
    match name.bytes().filter(|b| *b == b'.').count() {
        0 => {
            buffer.push(".")?;
            buffer.push(namespace)?;
            buffer.push(".svc.")?;
        }
        1 => buffer.push(".svc.")?,
        2 if name.rsplit_once('.').is_some_and(|(_, last)| last == "svc") => buffer.push(".")?,
        _ => return None,
    }
    buffer.push(domain)?;
    buffer.as_str()
}

/// The namespace of the Service that a full name stands for. `None`: not of such a form.
pub(crate) fn namespace_of_service<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let service = name.strip_suffix(domain)?.strip_suffix(".svc.")?;
    service.rsplit_once('.').map(|(_, namespace)| namespace)
}

/// What a TLS client calls a host by (RFC 6066, 3: a DNS name, no address, no dot at its end).
pub(crate) fn server_name(host: &str) -> Option<String> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (!name.is_empty() && name.parse::<IpAddr>().is_err()).then_some(name)
}

/// `label.parent`. `None`: no name is as long.
pub(crate) fn join<'a>(label: &str, parent: &str, buffer: &'a mut HostBuffer) -> Option<&'a str> {
    buffer.len = 0;
    buffer.push(label)?;
    buffer.push(".")?;
    buffer.push(parent)?;
    buffer.as_str()
}

/// A host as a rule in `namespace` writes it, in full: a name without a dot is a service of that namespace.
pub(crate) fn resolve(host: &str, namespace: &str, domain: &str) -> String {
    let mut name = host.trim_end_matches('.').to_ascii_lowercase();
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.to_string();
    }
    if !name.contains('.') && !name.contains('*') && !name.is_empty() {
        name = format!("{name}.{namespace}.svc.{domain}");
    }
    name
}

/// A resolved host of a rule: exact, or everything below a suffix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HostPattern {
    /// This name.
    Exact(Arc<str>),
    /// Every name that ends with a dot and this; empty for `*`.
    Below(Arc<str>),
}

impl HostPattern {
    pub(crate) fn parse(resolved: &str) -> Self {
        match resolved.strip_prefix('*') {
            Some(suffix) => Self::Below(suffix.trim_start_matches('.').into()),
            None => Self::Exact(resolved.into()),
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) if suffix.is_empty() => f.write_str("*"),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// The suffixes that a wildcard above this name may have, longest first, `*` (empty) last.
pub(crate) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| &name[dot + 1..]).chain(std::iter::once(""))
}

/// Whether a wildcard above this name has this suffix.
pub(crate) fn is_below(name: &str, suffix: &str) -> bool {
    suffixes(name).any(|other| other == suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_port_case_and_dot() {
        for (given, name) in [
            ("reviews", Some("reviews")),
            ("Reviews.Default:9080", Some("reviews.default")),
            ("reviews.", Some("reviews")),
            ("reviews.default.svc.cluster.local.:80", Some("reviews.default.svc.cluster.local")),
            ("user@reviews:80", Some("reviews")),
            ("", None),
            (":80", None),
            ("a:b", None),
        ] {
            let mut buffer = HostBuffer::new();
            let expected = name.map_or(RequestHost::Nothing, RequestHost::Name);
            assert_eq!(normalize(given, &mut buffer), expected, "{given}");
        }
        for given in ["10.0.0.1", "10.0.0.1:80", "[::1]", "[::1]:80", "::1"] {
            let mut buffer = HostBuffer::new();
            assert!(matches!(normalize(given, &mut buffer), RequestHost::Address(_)), "{given}");
        }
        let long = "a".repeat(300);
        assert_eq!(normalize(&long, &mut HostBuffer::new()), RequestHost::Nothing);
    }

    #[test]
    fn short_names_stand_for_services() {
        let full = "reviews.shop.svc.cluster.local";
        for (given, expected) in [
            ("reviews", Some(full)),
            ("reviews.shop", Some(full)),
            ("reviews.shop.svc", Some(full)),
            ("a.b.c", None),
            (full, None),
        ] {
            assert_eq!(expand(given, "shop", "cluster.local", &mut HostBuffer::new()), expected);
        }
        assert_eq!(resolve("reviews", "shop", "cluster.local"), full);
        assert_eq!(resolve("reviews.other", "shop", "cluster.local"), "reviews.other");
        assert_eq!(resolve("*.Example.com", "shop", "cluster.local"), "*.example.com");
        assert_eq!(resolve("fd00:0::01", "shop", "cluster.local"), "fd00::1", "as a request's is compared");
    }

    #[test]
    fn wildcards_go_from_long_to_short() {
        assert_eq!(suffixes("a.b.c").collect::<Vec<_>>(), ["b.c", "c", ""]);
        assert_eq!(HostPattern::parse("*.b.c"), HostPattern::Below("b.c".into()));
        assert_eq!(HostPattern::parse("*.b.c").to_string(), "*.b.c");
    }
}
