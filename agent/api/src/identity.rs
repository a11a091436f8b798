//! A workload's name in certificates: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.

use std::fmt;
use std::sync::Arc;

/// Who a peer is, as its certificate or the kernel proves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// For example `cluster.local`.
    pub trust_domain: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

impl Identity {
    /// Reads a SPIFFE ID of Istio's form; nothing else, not even an escape or an empty part, is one.
    pub fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let trust_domain = parts.next().filter(|part| is_trust_domain(part))?;
        let mut labelled = |label| {
            (parts.next() == Some(label)).then(|| parts.next().filter(|part| is_name(part))).flatten()
        };
        let (namespace, service_account) = (labelled("ns")?, labelled("sa")?);
        parts.next().is_none().then(|| Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }
}

/// Source: SPIFFE ID, 2.1.
fn is_trust_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

/// A name that Kubernetes gives to a namespace or a service account.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
        && !text.starts_with(['.', '-'])
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_and_written() {
        let text = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews";
        assert_eq!(Identity::parse(text).expect("an identity").to_string(), text);
        for wrong in [
            "",
            "spiffe://",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/sa/b/ns/a",
            "spiffe://cluster.local//ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b%2Fc",
            "spiffe://cluster.local/ns/a/sa/b?x",
            "spiffe://u@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local:1/ns/a/sa/b",
            "spiffe://cluster.local/ns/../sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
        ] {
            assert_eq!(Identity::parse(wrong), None, "{wrong}");
        }
    }
}
