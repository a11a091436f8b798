//! From the fields and keys of a rule to conditions.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HOST, HeaderName};
use ipnet::IpNet;
use weft_api::istio::{Condition as When, Operation, Source};

use crate::guard::compile::trust_domain;
use crate::guard::condition::{Condition, Test};
use crate::guard::path::PathPattern;
use crate::guard::text::{Glob, Text};
use crate::intern::Interner;

/// A value that means nothing, in a rule that allows: it allows nothing then.
pub(crate) struct Unmatchable;

/// Conditions in the making.
pub(crate) struct Conditions<'a> {
    /// Of the policy.
    pub(crate) namespace: &'a str,
    /// The mesh's own, then those that count as it.
    pub(crate) trust_domains: &'a [Arc<str>],
    /// Values that mean nothing are left out, and if none is left, so is the condition: a rule that refuses refuses
    /// more then. Otherwise they make the rule void.
    pub(crate) lenient: bool,
    pub(crate) intern: &'a mut Interner,
}

type Compiled = Result<Vec<Condition>, Unmatchable>;

impl Conditions<'_> {
    pub(crate) fn source(&mut self, source: &Source) -> Compiled {
        let mut all = Vec::new();
        self.add(&mut all, |by, v| Some(by.principals(v)), &source.principals, &source.not_principals)?;
        self.add(&mut all, |_, v| Some(namespaces(v)), &source.namespaces, &source.not_namespaces)?;
        self.add(
            &mut all,
            |by, v| Some(by.accounts(v)),
            &source.service_accounts,
            &source.not_service_accounts,
        )?;
        self.add(&mut all, |by, v| Some(by.domains(v)), &source.trust_domains, &source.not_trust_domains)?;
        self.add(&mut all, |by, v| by.nets(v).map(Test::Peer), &source.ip_blocks, &source.not_ip_blocks)?;
        self.add(
            &mut all,
            |by, v| by.nets(v).map(Test::Remote),
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
        )?;
        self.add(
            &mut all,
            |_, v| Some(Test::RequestPrincipal(texts(v))),
            &source.request_principals,
            &source.not_request_principals,
        )?;
        Ok(all)
    }

    pub(crate) fn operation(&mut self, operation: &Operation) -> Compiled {
        let mut all = Vec::new();
        self.add(&mut all, Self::ports, &operation.ports, &operation.not_ports)?;
        self.add(&mut all, |_, v| Some(Test::Method(texts(v))), &operation.methods, &operation.not_methods)?;
        self.add(&mut all, |_, v| Some(Test::Host(texts(v))), &operation.hosts, &operation.not_hosts)?;
        self.add(&mut all, Self::paths, &operation.paths, &operation.not_paths)?;
        Ok(all)
    }

    /// One of `when`. A key that nobody knows counts as a value that means nothing.
    pub(crate) fn when(&mut self, when: &When) -> Compiled {
        let mut all = Vec::new();
        let (values, not) = (&when.values, &when.not_values);
        let key = when.key.as_str();
        match key {
            "source.ip" => self.add(&mut all, |by, v| by.nets(v).map(Test::Peer), values, not),
            "remote.ip" => self.add(&mut all, |by, v| by.nets(v).map(Test::Remote), values, not),
            "source.namespace" => self.add(&mut all, |_, v| Some(namespaces(v)), values, not),
            "source.principal" => self.add(&mut all, |by, v| Some(by.principals(v)), values, not),
            "source.serviceAccount" => self.add(&mut all, |by, v| Some(by.accounts(v)), values, not),
            "source.trustDomain" => self.add(&mut all, |by, v| Some(by.domains(v)), values, not),
            "destination.ip" => {
                self.add(&mut all, |by, v| by.nets(v).map(Test::DestinationAddress), values, not)
            }
            "destination.port" => self.add(&mut all, Self::ports, values, not),
            "connection.sni" => self.add(&mut all, |_, v| Some(Test::ServerName(texts(v))), values, not),
            "request.auth.principal" => {
                self.add(&mut all, |_, v| Some(Test::RequestPrincipal(texts(v))), values, not)
            }
            "request.auth.audiences" => self.add(&mut all, |_, v| Some(claim(&["aud"], v)), values, not),
            "request.auth.presenter" => self.add(&mut all, |_, v| Some(claim(&["azp"], v)), values, not),
            _ if key.starts_with("experimental.envoy.filters.") => {
                self.add(&mut all, |_, _| Some(Test::Nothing), values, not)
            }
            _ => {
                let header = key.strip_prefix("request.headers").and_then(one_in_brackets);
                let claims = key.strip_prefix("request.auth.claims").and_then(in_brackets);
                match (header, claims) {
                    (Some(name), _) => self.add(&mut all, |_, v| header_test(name, v), values, not),
                    (_, Some(names)) => self.add(&mut all, |_, v| Some(claim(&names, v)), values, not),
                    _ if self.lenient => Ok(()),
                    _ => Err(Unmatchable),
                }
            }
        }?;
        Ok(all)
    }

    /// Adds the conditions of one attribute. `test` is `None` where no value means anything.
    fn add(
        &mut self,
        all: &mut Vec<Condition>,
        test: impl Fn(&mut Self, &[String]) -> Option<Test>,
        values: &[String],
        not_values: &[String],
    ) -> Result<(), Unmatchable> {
        for (list, negated) in [(values, false), (not_values, true)] {
            if list.is_empty() {
                continue;
            }
            match test(self, list) {
                Some(test) => all.push(Condition { test, negated }),
                None if self.lenient => {}
                None => return Err(Unmatchable),
            }
        }
        Ok(())
    }

    /// Reads each value; `None` where one means nothing and that matters, or where nothing is left.
    fn each<T>(
        &mut self,
        values: &[String],
        read: impl Fn(&mut Self, &str) -> Option<T>,
    ) -> Option<Box<[T]>> {
        let read: Vec<Option<T>> = values.iter().map(|value| read(self, value)).collect();
        if !self.lenient && read.iter().any(Option::is_none) {
            return None;
        }
        let all: Box<[T]> = read.into_iter().flatten().collect();
        (!all.is_empty()).then_some(all)
    }

    fn principals(&mut self, values: &[String]) -> Test {
        let all = values.iter().flat_map(|value| trust_domain::expand_principal(value, self.trust_domains));
        Test::Principal(all.map(|value| Text::parse(&value)).collect())
    }

    fn accounts(&mut self, values: &[String]) -> Test {
        let account = |value: &String| {
            let (namespace, name) = value.split_once('/').unwrap_or((self.namespace, value));
            (self.intern.text(namespace), self.intern.text(name))
        };
        Test::ServiceAccount(values.iter().map(account).collect())
    }

    fn domains(&mut self, values: &[String]) -> Test {
        let all = values.iter().flat_map(|value| trust_domain::expand_domain(value, self.trust_domains));
        Test::TrustDomain(all.map(|value| Text::parse(&value)).collect())
    }

    fn nets(&mut self, values: &[String]) -> Option<Box<[IpNet]>> {
        self.each(values, |_, value| net(value))
    }

    fn ports(&mut self, values: &[String]) -> Option<Test> {
        self.each(values, |_, value| value.parse().ok()).map(Test::DestinationPort)
    }

    fn paths(&mut self, values: &[String]) -> Option<Test> {
        self.each(values, |by, value| PathPattern::parse(value, by.intern)).map(Test::Path)
    }
}

/// An address, or a block of them; of IPv4 where it is IPv4 in the dress of IPv6.
fn net(value: &str) -> Option<IpNet> {
    let net: IpNet = value.parse().ok().or_else(|| Some(value.parse::<IpAddr>().ok()?.into()))?;
    let mapped = net.addr().to_canonical();
    match net.prefix_len().checked_sub(96) {
        Some(prefix) if net.addr().is_ipv6() && mapped.is_ipv4() => IpNet::new(mapped, prefix).ok(),
        _ => Some(net),
    }
}

fn namespaces(values: &[String]) -> Test {
    Test::Namespace(values.iter().map(|value| Glob::parse(value)).collect())
}

fn texts(values: &[String]) -> Box<[Text]> {
    values.iter().map(|value| Text::parse(value)).collect()
}

fn claim(names: &[&str], values: &[String]) -> Test {
    Test::Claim(names.iter().map(|name| Box::from(*name)).collect(), texts(values))
}

/// Headers that Envoy makes of the request line can be named too.
fn header_test(name: &str, values: &[String]) -> Option<Test> {
    let texts = texts(values);
    Some(match name.to_ascii_lowercase().as_str() {
        ":authority" => Test::Authority(texts),
        ":method" => Test::Method(texts),
        ":path" => Test::PathAndQuery(texts),
        ":scheme" => Test::Scheme(texts),
        other => match HeaderName::from_bytes(other.as_bytes()).ok()? {
            HOST => Test::Authority(texts),
            name => Test::Header(name, texts),
        },
    })
}

/// `[A][B]` as `A` and `B`.
fn in_brackets(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<&str> = inner.split("][").collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

fn one_in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']').filter(|name| !name.is_empty())
}
