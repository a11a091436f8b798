//! Checks of single values: names, hosts, labels, headers, ports, shares, durations, regular expressions.

use std::net::IpAddr;
use std::time::Duration;

use super::Report;
use crate::duration::Span;
use crate::finding::code;
use crate::istio::Percent;
use crate::meta::Labels;
use crate::pattern::{self, Wrong};
use crate::yaml::shorten;

/// RFC 1123 label, in lower case: the name of a namespace.
pub(crate) fn is_label(text: &str) -> bool {
    is_host_label(text) && !text.bytes().any(|b| b.is_ascii_uppercase())
}

/// RFC 1123 subdomain, in lower case: the name of most objects.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A label of a host name; case does not matter.
fn is_host_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// An address, not a name.
pub(crate) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Says what is wrong with a host name that may begin with a wildcard.
pub(crate) fn wrong_host(host: &str) -> Option<String> {
    let shown = shorten(host);
    if host.is_empty() {
        return Some("the host is empty (name a service)".to_owned());
    }
    if host.len() > 255 {
        return Some(format!("{shown:?} is longer than 255 characters"));
    }
    if host.contains("://") || host.contains('/') {
        return Some(format!("{shown:?} is no host name (write the name alone, without scheme and path)"));
    }
    if host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
    {
        return Some(format!("{shown:?} is no host name (write the port into a field of its own)"));
    }
    let (first, rest) = host.split_once('.').map_or((host, None), |(first, rest)| (first, Some(rest)));
    let plain = first.strip_prefix("*-").or(if first == "*" { Some("x") } else { None }).unwrap_or(first);
    if !is_host_label(plain) {
        return Some(if first.contains('*') {
            format!("{shown:?} has a wildcard that is no label of its own (write *.example.com)")
        } else {
            format!("{shown:?} is no host name: {:?} is not a valid label", shorten(first))
        });
    }
    let rest = rest?;
    let rest = rest.strip_suffix('.').unwrap_or(rest);
    let last = rest.rsplit('.').next().unwrap_or(rest);
    if last.bytes().all(|b| b.is_ascii_digit()) && !last.is_empty() {
        return Some(format!("{shown:?} is no host name: it ends in a number"));
    }
    let wrong = rest.split('.').find(|label| !is_host_label(label))?;
    Some(if wrong.contains('*') {
        format!("{shown:?} has a wildcard that does not come first (write *.example.com)")
    } else {
        format!("{shown:?} is no host name: {:?} is not a valid label", shorten(wrong))
    })
}

impl Report {
    /// A port from 1 to 65535.
    pub(crate) fn port(&mut self, port: u32) {
        if !(1..=65535).contains(&port) {
            self.error(code::INVALID_PORT, format!("{port} is no port (choose 1 to 65535)"));
        }
    }

    /// At least a millisecond, and whole ones.
    pub(super) fn duration(&mut self, span: Span) {
        if span.0 < Duration::from_millis(1) {
            self.error(
                code::INVALID_DURATION,
                format!("{span} is shorter than 1ms (leave the field out to go without)"),
            );
        } else if !span.0.subsec_nanos().is_multiple_of(1_000_000) {
            self.error(
                code::INVALID_DURATION,
                format!("{span} is finer than a millisecond (use whole milliseconds)"),
            );
        }
    }

    /// A field that holds a duration, if it is there.
    pub(crate) fn duration_field(&mut self, name: &'static str, span: Option<Span>) {
        if let Some(span) = span {
            self.field(name, |r| r.duration(span));
        }
    }

    /// A share of 0 to 100, if it is there.
    /// As Istio's schema has it: no list is longer.
    pub(super) fn at_most(&mut self, name: &'static str, count: usize, most: usize) {
        if count > most {
            self.field(name, |r| {
                r.error(
                    code::INVALID_VALUE,
                    format!("{count} entries are too many (at most {most}: make several objects of it)"),
                );
            });
        }
    }

    pub(super) fn percentage_field(&mut self, name: &'static str, percent: Option<Percent>) {
        let Some(Percent { value }) = percent else { return };
        self.field(name, |r| {
            r.field("value", |r| {
                if !(0.0..=100.0).contains(&value) {
                    r.error(
                        code::INVALID_PERCENTAGE,
                        format!("{value} is no share in percent (choose 0 to 100)"),
                    );
                } else if value > 0.0 && value < 0.0001 {
                    r.error(code::INVALID_PERCENTAGE, format!("{value} is finer than 0.0001 percent"));
                }
            });
        });
    }

    /// A whole-number share of 0 to 100, if it is there.
    pub(super) fn percent_field(&mut self, name: &'static str, percent: Option<i32>) {
        if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
            self.field(name, |r| {
                r.error(
                    code::INVALID_PERCENTAGE,
                    format!("{percent} is no share in percent (choose 0 to 100)"),
                );
            });
        }
    }

    /// A number that must not be negative, if it is there.
    pub(super) fn natural_field(&mut self, name: &'static str, number: Option<i32>) {
        if let Some(number) = number.filter(|number| *number < 0) {
            self.field(name, |r| r.error(code::INVALID_VALUE, format!("{number} is negative")));
        }
    }

    /// One of some words, if it is there.
    pub(super) fn word_field(&mut self, name: &'static str, word: Option<&str>, words: &[&str]) {
        if let Some(word) = word.filter(|word| !words.contains(word)) {
            self.field(name, |r| {
                let word = shorten(word);
                r.error(
                    code::INVALID_VALUE,
                    format!("{word:?} is unknown (choose one of {})", words.join(", ")),
                );
            });
        }
    }

    /// Labels that a selection asks for, if the names and values can exist.
    pub(super) fn labels_field(&mut self, name: &'static str, labels: &Labels) {
        for (key, value) in labels {
            self.field(name, |r| {
                r.field(key.clone(), |r| {
                    if let Some(wrong) = wrong_label_key(key) {
                        r.error(code::INVALID_LABEL, wrong);
                    }
                    if !is_label_value(value) {
                        r.error(
                            code::INVALID_LABEL,
                            format!(
                                "{:?} can be no label's value (at most 63 letters, digits, `-`, `_`, `.`)",
                                shorten(value)
                            ),
                        );
                    }
                });
            });
        }
    }

    /// A regular expression that RE2 knows too.
    pub(super) fn regex(&mut self, regex: &str) {
        if regex.is_empty() {
            return self
                .error(code::INVALID_REGEX, "the regular expression is empty (write `.*` for any value)");
        }
        let shown = shorten(regex);
        let message = match pattern::parse(regex) {
            Ok(_) => return,
            Err(wrong @ Wrong::Long) => format!("the regular expression is {wrong}"),
            Err(wrong @ Wrong::Large(_)) => format!(
                "{shown:?} {wrong} (write + or * instead of counts, or smaller ones: nested counts multiply)"
            ),
            Err(Wrong::Syntax(reason)) => {
                let cure = if reason.contains("look-around") || reason.contains("backreference") {
                    "regular expressions are RE2's; use withoutHeaders or a rule before this one for what must not match"
                } else if regex == "*" {
                    "write `.*` for any value"
                } else {
                    "see RE2's syntax"
                };
                format!("{shown:?} is no regular expression: {reason} ({cure})")
            }
        };
        self.error(code::INVALID_REGEX, message);
    }

    /// An address or a range of them.
    pub(super) fn subnet(&mut self, subnet: &str) {
        if !is_subnet(subnet) {
            let shown = shorten(subnet);
            self.error(
                code::INVALID_VALUE,
                format!("{shown:?} is no address or range (write 10.0.0.0/8 or fd00::/8)"),
            );
        }
    }
}

/// An address, or one with a prefix length.
fn is_subnet(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return is_ip(text) };
    let longest = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.bytes().all(|b| b.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|length| length <= longest)
}

fn wrong_label_key(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if key.is_empty() {
        return Some("a label's name is empty".to_owned());
    }
    if prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Some(format!("{:?} can be no label's name: the part before / is no DNS name", shorten(key)));
    }
    let valid = !name.is_empty() && is_label_value(name);
    (!valid).then(|| format!("{:?} can be no label's name", shorten(key)))
}

fn is_label_value(value: &str) -> bool {
    let edge = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && edge(value.bytes().next())
        && edge(value.bytes().last())
}

/// A header's name in a match.
pub(crate) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Says how many bytes a base64 text stands for; `None` if it is none.
pub(super) fn base64_len(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let valid = digits.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'));
    let whole = match padding {
        0 => digits.len() % 4 != 1,
        1 | 2 => (digits.len() + padding).is_multiple_of(4),
        _ => false,
    };
    (valid && whole).then(|| digits.len() * 3 / 4)
}
