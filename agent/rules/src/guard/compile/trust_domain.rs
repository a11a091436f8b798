//! Trust domains in policies: `cluster.local` means the mesh's own, and its aliases count as it.

use std::sync::Arc;

use crate::guard::text::Text;

/// What `cluster.local` in a policy stands for, whatever the mesh's own trust domain is.
const OWN: &str = "cluster.local";

/// The principals that a policy's one stands for. One of five parts that names the mesh's trust domain or an alias
/// stands for all of these; others for themselves.
pub(crate) fn expand_principal(principal: &str, own: &[Arc<str>]) -> Vec<String> {
    let as_it_is = || vec![principal.to_owned()];
    let Some((domain, rest)) = principal.split_once('/') else { return as_it_is() };
    if domain == "*" || rest.split('/').count() != 4 {
        return as_it_is();
    }
    let pattern = Text::parse(domain);
    let is_own = domain == OWN || own.iter().any(|own| pattern.matches(own.as_bytes()));
    if !is_own {
        return as_it_is();
    }
    let suffix = matches!(pattern, Text::Suffix(_));
    let mut all = Vec::new();
    for own in own {
        let kept = suffix && pattern.matches(own.as_bytes());
        let one = if kept { principal.to_owned() } else { format!("{own}/{rest}") };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// The trust domains that a policy's one stands for.
pub(crate) fn expand_domain(domain: &str, own: &[Arc<str>]) -> Vec<String> {
    if own.iter().any(|own| **own == *domain) {
        return own.iter().map(ToString::to_string).collect();
    }
    vec![domain.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_count_as_the_meshs_own() {
        let own: [Arc<str>; 2] = ["td2".into(), "td1".into()];
        for (principal, expected) in [
            ("td1/ns/a/sa/b", &["td2/ns/a/sa/b", "td1/ns/a/sa/b"][..]),
            ("td2/ns/a/sa/*", &["td2/ns/a/sa/*", "td1/ns/a/sa/*"]),
            ("cluster.local/ns/a/sa/b", &["td2/ns/a/sa/b", "td1/ns/a/sa/b"]),
            ("*d1/ns/a/sa/b", &["td2/ns/a/sa/b", "*d1/ns/a/sa/b"]),
            ("*/ns/a/sa/b", &["*/ns/a/sa/b"]),
            ("other/ns/a/sa/b", &["other/ns/a/sa/b"]),
            ("*/sa/b", &["*/sa/b"]),
            ("td1/ns/a/*", &["td1/ns/a/*"]),
            ("*", &["*"]),
        ] {
            assert_eq!(expand_principal(principal, &own), expected, "{principal}");
        }
        assert_eq!(expand_domain("td1", &own), ["td2", "td1"]);
        assert_eq!(expand_domain("td*", &own), ["td*"]);
    }
}
