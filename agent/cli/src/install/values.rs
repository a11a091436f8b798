//! `--set KEY=VALUE`: what can be chosen at installation, each key with its meaning, its check and its doing in one place.

use std::net::IpAddr;

use serde_json::{Value, json};
use weft_api::names::{AGENT, CONTROLLER};
use weft_node::admin::Readers;

use super::kustomize;
use super::object::Object;
use crate::output::Usage;

/// The root namespace as the manifests have it.
const ROOT_NAMESPACE: &str = "istio-system";
/// The Deployment and the Service of the ingress gateway.
const GATEWAY: &str = "istio-ingressgateway";

/// Changes the objects; an error says what a value should be.
type Apply = fn(&mut [Object], &str) -> Result<(), String>;

/// Something that can be chosen.
struct Setting {
    key: &'static str,
    meaning: &'static str,
    apply: Apply,
}

#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    Setting { key: "image", meaning: "image of the agent and the controller", apply: image },
    Setting { key: "imagePullPolicy", meaning: "Always, IfNotPresent or Never", apply: pull_policy },
    Setting { key: "trustDomain", meaning: "trust domain of workload identities [cluster.local]",
              apply: |all, value| { name(value)?; everywhere(all, "WEFT_TRUST_DOMAIN", value) } },
    Setting { key: "rootNamespace", meaning: "namespace of mesh-wide rules and of the MeshConfig [istio-system]", apply: root_namespace },
    Setting { key: "logLevel", meaning: "log level of weft's own messages: info, debug, weft=debug",
              apply: |all, value| everywhere(all, "WEFT_LOG", value) },
    Setting { key: "accessLog", meaning: "log of finished requests: text, json or off [text; profile minimal: off]",
              apply: |all, value| { one_of(value, &["text", "json", "off"])?; agent(all, "WEFT_ACCESS_LOG", value) } },
    Setting { key: "metricsAllow", meaning: "who may read the nodes' metrics: NAMESPACE/SERVICEACCOUNT, NAMESPACE/*, CIDR, … [Prometheus, where it usually is]",
              apply: |all, value| { readers(value)?; agent(all, "WEFT_METRICS_ALLOW", value) } },
    Setting { key: "certificateLife", meaning: "life of a workload's certificate, 24h at most [24h]",
              apply: |all, value| { duration(value)?; agent(all, "WEFT_CERTIFICATE_LIFE", value) } },
    Setting { key: "jwksAllow", meaning: "blocks of addresses, with commas: issuers' keys may be fetched there though users may not send a node there",
              apply: |all, value| { blocks(value)?; agent(all, "WEFT_JWKS_ALLOW", value) } },
    Setting { key: "drainTimeout", meaning: "how long an agent that was replaced keeps open connections [60s]", apply: drain_timeout },
    Setting { key: "cni.enabled", meaning: "be part of the nodes' CNI chain: a pod's first packet is in the mesh [true; profile minimal: false]",
              apply: |all, value| { boolean(value)?; agent(all, "WEFT_CNI", value) } },
    Setting { key: "cni.strict", meaning: "a pod of the mesh does not start while its node's agent is away, instead of starting closed [false]",
              apply: |all, value| { boolean(value)?; agent(all, "WEFT_CNI_STRICT", value) } },
    Setting { key: "cni.confDir", meaning: "the nodes' directory of CNI configurations [/etc/cni/net.d]",
              apply: |all, value| directory(all, "WEFT_CNI_CONF_DIR", "cni-conf", value) },
    Setting { key: "cni.binDir", meaning: "the nodes' directory of CNI plugins [/opt/cni/bin]",
              apply: |all, value| directory(all, "WEFT_CNI_BIN_DIR", "cni-bin", value) },
    Setting { key: "node.taint", meaning: "agents take the taint weft.dev/agent-not-ready:NoSchedule, with which you register nodes, from theirs when ready [false]",
              apply: node_taint },
    Setting { key: "agent.cpu", meaning: "CPU that an agent requests", apply: |all, value| resources(all, AGENT, "requests", "cpu", value) },
    Setting { key: "agent.memory", meaning: "memory that an agent requests", apply: |all, value| resources(all, AGENT, "requests", "memory", value) },
    Setting { key: "agent.memoryLimit", meaning: "memory that an agent may use [1Gi]", apply: |all, value| resources(all, AGENT, "limits", "memory", value) },
    Setting { key: "controller.replicas", meaning: "replicas of the controller: CA and webhook [2; profile minimal: 1]",
              apply: |all, value| replicas(all, CONTROLLER, value) },
    Setting { key: "controller.cpu", meaning: "CPU that a controller requests", apply: |all, value| resources(all, CONTROLLER, "requests", "cpu", value) },
    Setting { key: "controller.memory", meaning: "memory that a controller requests", apply: |all, value| resources(all, CONTROLLER, "requests", "memory", value) },
    Setting { key: "webhook.failurePolicy", meaning: "Ignore, or Fail: no rule is changed while the controller is away [Ignore]", apply: failure_policy },
    Setting { key: "gateway.replicas", meaning: "replicas of the ingress gateway [2; profiles gateway and demo]",
              apply: |all, value| replicas(all, GATEWAY, value) },
    Setting { key: "gateway.type", meaning: "type of its Service: LoadBalancer, NodePort or ClusterIP [LoadBalancer]", apply: gateway_type },
    Setting { key: "gateway.image", meaning: "image of its pods, which does nothing [weft.dev/pause:1]",
              apply: |all, value| { container(all, GATEWAY)?["image"] = value.into(); Ok(()) } },
];

/// What was chosen on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// The profile; `None`: not said.
    pub profile: Option<String>,
    /// Keys and values, in the order in which they were given.
    pub set: Vec<(String, String)>,
}

impl Values {
    /// Reads `KEY=VALUE`s.
    pub fn parse<'a>(set: impl IntoIterator<Item = &'a str>) -> Result<Self, Usage> {
        let mut values = Self::default();
        for text in set {
            let (key, value) =
                text.split_once('=').ok_or_else(|| Usage(format!("--set {text}: write KEY=VALUE")))?;
            if key == "profile" {
                if !kustomize::profiles().any(|profile| profile == value) {
                    let all: Vec<&str> = kustomize::profiles().collect();
                    return Err(Usage(format!(
                        "no profile is called {value:?}; there are {}",
                        all.join(", ")
                    )));
                }
                values.profile = Some(value.to_owned());
            } else if SETTINGS.iter().any(|setting| setting.key == key) {
                values.set.retain(|(known, _)| known != key);
                values.set.push((key.to_owned(), value.to_owned()));
            } else {
                return Err(unknown(key));
            }
        }
        Ok(values)
    }

    /// As [`Self::parse`] reads it.
    pub fn to_text(&self) -> String {
        self.set.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
    }

    /// The profile, said or not.
    pub fn profile(&self) -> &str {
        self.profile.as_deref().unwrap_or("default")
    }

    /// The objects of the installation, in the order in which they are applied.
    pub fn objects(&self) -> anyhow::Result<Vec<Object>> {
        let mut objects = kustomize::build(&format!("overlays/{}", self.profile()))?;
        for (key, value) in &self.set {
            let setting = SETTINGS.iter().find(|setting| setting.key == key).ok_or_else(|| unknown(key))?;
            (setting.apply)(&mut objects, value)
                .map_err(|problem| Usage(format!("--set {key}={value}: {problem}")))?;
        }
        like_the_agent(&mut objects);
        if !self.set.is_empty()
            && let Some(agent) = objects.iter_mut().find(|object| object.kind() == "DaemonSet")
        {
            agent.annotate(SET_ANNOTATION, &self.to_text());
        }
        objects.sort_by_key(Object::rank);
        Ok(objects)
    }
}

/// On the DaemonSet: the profile.
pub const PROFILE_ANNOTATION: &str = "weft.dev/profile";
/// On the DaemonSet: the settings beside it.
pub const SET_ANNOTATION: &str = "weft.dev/set";

/// All keys with their meanings, for help.
pub fn help() -> String {
    let profile = ("profile", "default, demo, gateway or minimal");
    let all = [profile].into_iter().chain(SETTINGS.iter().map(|setting| (setting.key, setting.meaning)));
    let lines: Vec<String> = all.map(|(key, meaning)| format!("  {key:<22} {meaning}")).collect();
    format!("Keys of --set:\n{}", lines.join("\n"))
}

fn readers(text: &str) -> Result<(), String> {
    text.parse::<Readers>().map(drop).map_err(|error| error.to_string())
}

fn unknown(key: &str) -> Usage {
    let keys = SETTINGS.iter().map(|setting| setting.key).chain(["profile"]);
    let nearest = keys.max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
    Usage(format!(
        "--set knows no {key}; did you mean {}? (weft install --help lists all)",
        nearest.unwrap_or("profile")
    ))
}

fn one_of(value: &str, all: &[&str]) -> Result<(), String> {
    if all.contains(&value) { Ok(()) } else { Err(format!("write one of {}", all.join(", "))) }
}

fn boolean(value: &str) -> Result<(), String> {
    one_of(value, &["true", "false"])
}

/// A DNS name.
fn name(value: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if !value.is_empty() && value.chars().all(good) && !value.starts_with('-') && !value.ends_with('-') {
        Ok(())
    } else {
        Err("this is no DNS name".to_owned())
    }
}

/// Whole seconds of `90s`, `10m`, `24h`.
fn duration(value: &str) -> Result<u64, String> {
    let problem = || "write a duration: 90s, 10m, 24h".to_owned();
    let unit = match value.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        _ => return Err(problem()),
    };
    let number: u64 = value[..value.len() - 1].parse().map_err(|_| problem())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(problem)
}

fn workload<'a>(objects: &'a mut [Object], name: &str) -> Result<&'a mut Value, String> {
    let found = objects
        .iter_mut()
        .find(|object| matches!(object.kind(), "DaemonSet" | "Deployment") && object.name() == name);
    found.map(|object| &mut object.0).ok_or_else(|| format!("this profile has no {name}"))
}

/// The container of a workload's pods that does its work.
fn container<'a>(objects: &'a mut [Object], name: &str) -> Result<&'a mut Value, String> {
    workload(objects, name)?
        .pointer_mut("/spec/template/spec/containers/0")
        .ok_or_else(|| format!("{name} has no container"))
}

/// The container that stands by for the agent is as the agent's own.
fn like_the_agent(objects: &mut [Object]) {
    let containers = workload(objects, AGENT)
        .ok()
        .and_then(|agent| agent.pointer_mut("/spec/template/spec/containers")?.as_array_mut());
    let Some([agent, standby, ..]) = containers.map(Vec::as_mut_slice) else { return };
    for field in ["image", "imagePullPolicy", "env", "volumeMounts"] {
        standby[field] = agent[field].clone();
    }
    standby["resources"]["limits"] = agent["resources"]["limits"].clone();
}

fn set_env(container: &mut Value, variable: &str, value: &str) -> Result<(), String> {
    let env = container.get_mut("env").and_then(Value::as_array_mut).ok_or("no environment")?;
    match env.iter_mut().find(|entry| entry["name"] == variable) {
        Some(entry) => entry["value"] = value.into(),
        None => env.push(json!({"name": variable, "value": value})),
    }
    Ok(())
}

fn agent(objects: &mut [Object], variable: &str, value: &str) -> Result<(), String> {
    set_env(container(objects, AGENT)?, variable, value)
}

fn everywhere(objects: &mut [Object], variable: &str, value: &str) -> Result<(), String> {
    agent(objects, variable, value)?;
    set_env(container(objects, CONTROLLER)?, variable, value)
}

fn blocks(value: &str) -> Result<(), String> {
    let is_block = |block: &str| {
        let (address, length) = block.split_once('/').unwrap_or((block, "0"));
        address.parse::<IpAddr>().is_ok_and(|address| {
            length.parse::<u8>().is_ok_and(|length| length <= if address.is_ipv4() { 32 } else { 128 })
        })
    };
    if value.split(',').all(is_block) { Ok(()) } else { Err("write 10.0.0.0/8,fd00::/8".to_owned()) }
}

fn image(objects: &mut [Object], value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains(char::is_whitespace) {
        return Err("this is no image".to_owned());
    }
    for name in [AGENT, CONTROLLER] {
        container(objects, name)?["image"] = value.into();
    }
    Ok(())
}

fn pull_policy(objects: &mut [Object], value: &str) -> Result<(), String> {
    one_of(value, &["Always", "IfNotPresent", "Never"])?;
    for name in [AGENT, CONTROLLER] {
        container(objects, name)?["imagePullPolicy"] = value.into();
    }
    Ok(())
}

fn root_namespace(objects: &mut [Object], value: &str) -> Result<(), String> {
    name(value)?;
    everywhere(objects, "WEFT_ROOT_NAMESPACE", value)?;
    for Object(object) in objects {
        let is_namespace = object["kind"] == "Namespace";
        let field = if is_namespace { "/metadata/name" } else { "/metadata/namespace" };
        if let Some(place) = object.pointer_mut(field).filter(|place| *place == ROOT_NAMESPACE) {
            *place = value.into();
        }
    }
    Ok(())
}

fn drain_timeout(objects: &mut [Object], value: &str) -> Result<(), String> {
    /// What comes before and after draining.
    const BESIDE: u64 = 30;
    let seconds = duration(value)?;
    agent(objects, "WEFT_DRAIN_TIMEOUT", value)?;
    workload(objects, AGENT)?["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] =
        (seconds + BESIDE).into();
    Ok(())
}

/// A directory of the nodes, which the container sees under the same path.
fn directory(objects: &mut [Object], variable: &str, volume: &str, value: &str) -> Result<(), String> {
    if !value.starts_with('/') {
        return Err("write an absolute path".to_owned());
    }
    agent(objects, variable, value)?;
    let pods = &mut workload(objects, AGENT)?["spec"]["template"]["spec"];
    let named = |list: &mut Value, field: &str| -> Result<(), String> {
        let all = list.as_array_mut().into_iter().flatten();
        let found = all.into_iter().find(|item| item["name"] == volume);
        *found.and_then(|item| item.pointer_mut(field)).ok_or_else(|| format!("no volume {volume}"))? =
            value.into();
        Ok(())
    };
    named(&mut pods["volumes"], "/hostPath/path")?;
    named(&mut pods["containers"][0]["volumeMounts"], "/mountPath")
}

/// The agent may read and change nodes then; an admission policy limits it to this taint of its own.
fn node_taint(objects: &mut [Object], value: &str) -> Result<(), String> {
    boolean(value)?;
    agent(objects, "WEFT_NODE_TAINT", value)?;
    if value == "true" {
        let role = objects.iter_mut().find(|object| object.kind() == "ClusterRole" && object.name() == AGENT);
        let rules = role.and_then(|role| role.0["rules"].as_array_mut()).ok_or("the agent has no role")?;
        rules.push(json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}));
    }
    Ok(())
}

fn resources(
    objects: &mut [Object],
    name: &str,
    which: &str,
    resource: &str,
    value: &str,
) -> Result<(), String> {
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if number.parse::<f64>().is_err() {
        return Err("write a quantity: 100m, 0.5, 128Mi".to_owned());
    }
    container(objects, name)?["resources"][which][resource] = value.into();
    Ok(())
}

fn replicas(objects: &mut [Object], name: &str, value: &str) -> Result<(), String> {
    let replicas: u16 = value.parse().map_err(|_| "write a number".to_owned())?;
    workload(objects, name)?["spec"]["replicas"] = replicas.into();
    Ok(())
}

fn failure_policy(objects: &mut [Object], value: &str) -> Result<(), String> {
    one_of(value, &["Ignore", "Fail"])?;
    let webhook = objects.iter_mut().find(|object| object.kind() == "ValidatingWebhookConfiguration");
    webhook.ok_or("this profile has no webhook")?.0["webhooks"][0]["failurePolicy"] = value.into();
    Ok(())
}

fn gateway_type(objects: &mut [Object], value: &str) -> Result<(), String> {
    one_of(value, &["LoadBalancer", "NodePort", "ClusterIP"])?;
    let service = objects.iter_mut().find(|object| object.kind() == "Service" && object.name() == GATEWAY);
    service.ok_or("this profile has no gateway")?.0["spec"]["type"] = value.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(set: &[&str]) -> String {
        let objects = Values::parse(set.iter().copied()).unwrap().objects().unwrap();
        serde_json::to_string(&objects.into_iter().map(|object| object.0).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_key_does_something() {
        for Setting { key, .. } in SETTINGS {
            let value = [
                "true",
                "7",
                "/else/where",
                "Fail",
                "NodePort",
                "Never",
                "json",
                "90m",
                "some.name",
                "10.9.0.0/16",
            ];
            let changed = value.iter().any(|value| {
                let set = format!("{key}={value}");
                let values = Values::parse(["profile=demo", &*set]).unwrap();
                let bare = Values { set: Vec::new(), ..values.clone() }.objects().unwrap();
                values.objects().is_ok_and(|mut objects| {
                    for object in &mut objects {
                        if let Some(notes) = object.0["metadata"]["annotations"].as_object_mut() {
                            notes.remove(SET_ANNOTATION);
                        }
                    }
                    let same =
                        objects.iter().zip(&bare).filter(|(a, b)| a.key() == b.key() && a != b).count();
                    same > 0 || objects.iter().zip(&bare).any(|(a, b)| a.key() != b.key())
                })
            });
            assert!(changed, "{key}");
        }
    }

    #[test]
    fn the_root_namespace_takes_its_roles_along() {
        let text = text(&["rootNamespace=mesh"]);
        // Where Prometheus usually is has nothing to do with it.
        assert!(!text.replace("istio-system/prometheus", "").contains("istio-system"));
    }

    #[test]
    fn a_directory_of_the_nodes_is_changed_in_all_places() {
        let text = text(&["cni.confDir=/etc/elsewhere"]);
        assert!(!text.contains("/etc/cni/net.d"));
        assert_eq!(text.matches("/etc/elsewhere").count(), 6, "{text}");
    }

    #[test]
    fn what_stands_by_for_the_agent_is_like_it() {
        for set in [
            &["profile=demo"][..],
            &["profile=minimal", "accessLog=json", "image=a/b:1", "agent.memoryLimit=2Gi"],
        ] {
            let mut objects = Values::parse(set.iter().copied()).unwrap().objects().unwrap();
            let containers =
                workload(&mut objects, AGENT).unwrap()["spec"]["template"]["spec"]["containers"].clone();
            let (agent, standby) = (&containers[0], &containers[1]);
            assert_eq!((&agent["name"], &standby["name"]), (&"agent".into(), &"standby".into()));
            for field in ["image", "env", "volumeMounts", "securityContext"] {
                assert_eq!(agent[field], standby[field], "{set:?}: {field}");
            }
            assert_eq!(agent["resources"]["limits"], standby["resources"]["limits"]);
        }
    }

    #[test]
    fn agents_may_change_nodes_only_where_that_is_asked_for() {
        let may = |set: &[&str]| text(set).contains(r#""resources":["nodes"],"verbs":["get","patch"]"#);
        assert!(may(&["node.taint=true"]));
        assert!(!may(&["node.taint=false"]) && !may(&[]));
    }

    #[test]
    fn wrong_values_and_unknown_keys_are_told() {
        let told = |set: &str| {
            let values = Values::parse([set]).map_err(|Usage(told)| told);
            match values {
                Ok(values) => format!("{:#}", values.objects().unwrap_err()),
                Err(told) => told,
            }
        };
        assert!(told("acessLog=json").contains("did you mean accessLog?"));
        assert!(told("accessLog=xml").contains("text, json, off"));
        assert!(told("profile=huge").contains("default, demo, gateway, minimal"));
        assert!(told("gateway.replicas=2").contains("no istio-ingressgateway"));
        assert!(told("nonsense").contains("KEY=VALUE"));
        assert!(told("agent.memory=much").contains("128Mi"));
    }
}
