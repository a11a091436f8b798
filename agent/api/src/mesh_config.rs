//! MeshConfig, as far as weft reads it: key `mesh` of the ConfigMap `istio` or `weft` in the root namespace.

mod providers;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duration::Span;
use crate::finding::{Finding, Severity, code};
use crate::istio::HttpRetry;
use crate::kubernetes::ConfigMap;
use crate::validate::{Problem, Report};
use crate::yaml::{self, Data, Fault, Node, Segment, render, shorten};

pub use providers::{CheckedBody, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider};

/// The key of the ConfigMap.
pub const KEY: &str = "mesh";
/// What an agent without `--trust-domain` uses.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// Keys that are understood and that nothing acts upon yet. Gets shorter as features land.
const NOT_ACTED_UPON: &[&str] = &[
    "accessLogFile",
    "accessLogEncoding",
    "accessLogFormat",
    "rootNamespace",
    "protocolDetectionTimeout",
    "defaultConfig",
];

/// Settings of the whole mesh. An absent field leaves the default, or the agent's flag, in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// What happens to destinations that nobody knows.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// Retries of routes that have none of their own.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// Where access logs go; `/dev/stdout` is standard output, empty is nowhere.
    pub access_log_file: String,
    /// How a line looks.
    pub access_log_encoding: AccessLogEncoding,
    /// Istio's default format when empty.
    pub access_log_format: String,
    /// Namespace of what holds for the whole mesh.
    pub root_namespace: Option<String>,
    /// First part of SPIFFE names.
    pub trust_domain: Option<String>,
    /// Former trust domains, accepted as the present one.
    pub trust_domain_aliases: Vec<String>,
    /// `exportTo` of Services without one; empty means all.
    pub default_service_export_to: Vec<String>,
    /// `exportTo` of VirtualServices without one; empty means all.
    pub default_virtual_service_export_to: Vec<String>,
    /// `exportTo` of DestinationRules without one; empty means all.
    pub default_destination_rule_export_to: Vec<String>,
    /// How long a connection may keep silent before it counts as TCP; 0 and absent wait for ever.
    pub protocol_detection_timeout: Option<Span>,
    /// Settings of proxies.
    pub default_config: DefaultConfig,
    /// Services that rules may refer to.
    pub extension_providers: Vec<ExtensionProvider>,
    /// The form in which paths are compared with rules, and passed on.
    pub path_normalization: PathNormalization,
}

/// `pathNormalization`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathNormalization {
    /// How.
    pub normalization: Normalization,
}

/// `pathNormalization.normalization`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// As the client wrote them.
    None,
    /// RFC 3986: dot segments are resolved, escaped letters and digits decoded; and backslashes are slashes.
    #[default]
    #[serde(alias = "DEFAULT")]
    Base,
    /// Besides, slashes in a row are one.
    MergeSlashes,
    /// Besides, escaped slashes are slashes.
    DecodeAndMergeSlashes,
}

/// `outboundTrafficPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboundTrafficPolicy {
    /// How.
    pub mode: OutboundMode,
}

/// `outboundTrafficPolicy.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// Passes through.
    #[default]
    AllowAny,
    /// Answers 502 to HTTP and resets TCP.
    RegistryOnly,
}

/// `accessLogEncoding`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AccessLogEncoding {
    /// By `accessLogFormat`.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// `defaultConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultConfig {
    /// Headers that the proxy adds.
    pub proxy_headers: ProxyHeaders,
}

/// `defaultConfig.proxyHeaders`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyHeaders {
    /// `x-request-id`.
    pub request_id: HeaderSwitch,
    /// `server`.
    pub server: ServerHeader,
    /// `x-envoy-attempt-count`.
    pub attempt_count: HeaderSwitch,
    /// `x-envoy-upstream-service-time` and the like.
    pub envoy_debug_headers: HeaderSwitch,
}

/// Switches a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderSwitch {
    /// `Some(true)` is off; absent is the header's own default.
    pub disabled: Option<bool>,
}

/// The `server` header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerHeader {
    /// Off.
    pub disabled: Option<bool>,
    /// Instead of `istio-envoy`.
    pub value: String,
}

/// What a ConfigMap says about the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshRead {
    /// The settings; absent when they hold an error.
    pub config: Option<MeshConfig>,
    /// Errors, and keys that have no effect.
    pub findings: Vec<Finding>,
}

/// Reads the MeshConfig of a ConfigMap; `None` when it holds none: it is called neither `istio` nor `weft`, or has
/// no key [`KEY`].
pub fn read(map: &ConfigMap) -> Option<MeshRead> {
    let (config, problems) = check(map)?;
    let resource = format!("ConfigMap/{}/{}", map.metadata.namespace, map.metadata.name);
    let findings = problems.into_iter().map(|problem| problem.into_finding(&resource, None)).collect();
    Some(MeshRead { config, findings })
}

/// As [`read`], before paths are turned to text and lines.
pub(crate) fn check(map: &ConfigMap) -> Option<(Option<MeshConfig>, Vec<Problem>)> {
    if !matches!(map.metadata.name.as_str(), "istio" | "weft") {
        return None;
    }
    let text = map.data.get(KEY)?;
    let mut problems = Vec::new();
    let config = parse(text, &mut problems);
    for problem in &mut problems {
        problem.path.splice(0..0, ["data", KEY].map(|key| Segment::Key(key.into())));
    }
    Some((config, problems))
}

fn error(code: &'static str, path: Vec<Segment>, message: String) -> Problem {
    Problem { severity: Severity::Error, code, path, message }
}

fn parse(text: &str, problems: &mut Vec<Problem>) -> Option<MeshConfig> {
    let root = match yaml::split(text)[..] {
        [] => return Some(MeshConfig::default()),
        [piece] => yaml::parse(&piece),
        [_, second, ..] => {
            let message = format!("a second document begins on line {} of `{KEY}`", second.line);
            problems.push(error(code::INVALID_YAML, Vec::new(), message));
            return None;
        }
    };
    let root = match root {
        Ok(document) => {
            problems.extend(document.duplicates.into_iter().map(|duplicate| {
                let message =
                    format!("the key is there twice, on lines {} and {}", duplicate.first, duplicate.second);
                error(code::DUPLICATE_KEY, duplicate.path, message)
            }));
            let Some(root) = document.root else { return Some(MeshConfig::default()) };
            root
        }
        Err(wrong) => {
            let message = format!("not valid YAML: {}, line {} of `{KEY}`", wrong.message, wrong.line);
            problems.push(error(code::INVALID_YAML, Vec::new(), message));
            return None;
        }
    };
    let config: MeshConfig = match yaml::from_node(&root) {
        Ok(config) => config,
        Err(wrong) => {
            let line = root.line_of(&wrong.path);
            problems.push(error(
                code::INVALID_VALUE,
                wrong.path,
                format!("{} (line {line} of `{KEY}`)", say(&wrong.fault)),
            ));
            return None;
        }
    };
    unread(&root, &config, problems);
    let mut report = Report::default();
    providers::check(&mut report, &config.extension_providers);
    trust_domain(&mut report, &config);
    problems.extend(report.into_problems());
    problems.iter().all(|problem| problem.severity != Severity::Error).then_some(config)
}

fn say(fault: &Fault) -> String {
    match fault {
        Fault::UnknownField => "unknown field".to_owned(),
        Fault::UnknownVariant(found, expected) => format!("{found:?} is none of {}", expected.join(", ")),
        Fault::Type(expected) | Fault::Value(expected) => format!("expected {expected}"),
        Fault::Missing(field) => format!("`{field}` is missing"),
        Fault::Other(message) => message.clone(),
    }
}

/// The agents have certificates before they have read any ConfigMap: their flag decides.
fn trust_domain(report: &mut Report, config: &MeshConfig) {
    if let Some(domain) = config.trust_domain.as_deref().filter(|domain| *domain != DEFAULT_TRUST_DOMAIN) {
        report.field("trustDomain", |r| {
            let domain = shorten(domain);
            r.info(
                code::NOT_IN_FORCE,
                format!("the agent's own setting decides (start it with --trust-domain {domain})"),
            );
        });
    }
}

/// Tells the keys that weft does not read: those that a config read from the text does not write again.
fn unread(root: &Node<'_>, config: &MeshConfig, problems: &mut Vec<Problem>) {
    let known = serde_json::to_value(config).unwrap_or_default();
    let mut here = Vec::new();
    walk(root, &known, &mut here, problems);
}

fn walk(node: &Node<'_>, known: &Value, here: &mut Vec<Segment>, problems: &mut Vec<Problem>) {
    for (key, value) in node.entries() {
        here.push(Segment::Key(key.text.clone().into_owned().into()));
        let acted_upon = !NOT_ACTED_UPON.contains(&render(here).as_str());
        match known.get(&*key.text).filter(|_| acted_upon) {
            Some(known @ Value::Object(_)) if matches!(value.data, Data::Map(_)) => {
                walk(value, known, here, problems);
            }
            Some(Value::Array(known)) => {
                let Data::List(items) = &value.data else { continue };
                for (index, (item, known)) in items.iter().zip(known).enumerate() {
                    here.push(Segment::Index(index));
                    walk(item, known, here, problems);
                    here.pop();
                }
            }
            Some(_) => {}
            None => problems.push(Problem {
                severity: Severity::Info,
                code: code::NOT_IN_FORCE,
                path: here.clone(),
                message: "not read by this version of weft".to_owned(),
            }),
        }
        here.pop();
    }
}

#[cfg(test)]
mod tests;
