//! What a container runtime says to the plugin: a command in the environment, a configuration on standard input.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::protocol::Pod;

/// Versions of CNI's specification.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What is said to somebody who says nothing of versions.
const OWN_VERSION: &str = "1.1.0";

/// What the runtime says: environment and standard input.
pub struct Call<'a> {
    /// A variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Standard input.
    pub input: &'a [u8],
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

impl Call<'_> {
    /// A variable of the environment; empty where it is not set.
    pub fn get(&self, name: &str) -> String {
        (self.variable)(name).unwrap_or_default()
    }

    /// The configuration.
    pub fn config(&self) -> serde_json::Result<Config> {
        serde_json::from_slice(self.input)
    }

    /// The version in which an answer is given, whatever else can be understood of the call.
    pub fn version(&self) -> String {
        let asked = self.config().unwrap_or_default().cni_version;
        if asked.is_empty() { OWN_VERSION.to_owned() } else { asked }
    }

    /// The pod that it is about.
    pub fn pod(&self, config: &Config) -> Pod {
        let args = self.get("CNI_ARGS");
        let args: BTreeMap<&str, &str> = args.split(';').filter_map(|pair| pair.split_once('=')).collect();
        let arg = |name: &str| args.get(name).map_or_else(String::new, |value| (*value).to_owned());
        Pod {
            namespace: arg("K8S_POD_NAMESPACE"),
            name: arg("K8S_POD_NAME"),
            uid: arg("K8S_POD_UID"),
            container: self.get("CNI_CONTAINERID"),
            addresses: config.prev_result.as_ref().map(addresses).unwrap_or_default(),
        }
    }
}

/// What the installer writes, and the runtime adds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Version of the specification.
    pub cni_version: String,
    /// Where the agent listens.
    pub run_dir: PathBuf,
    /// Where it pins.
    pub bpf_dir: PathBuf,
    /// Where it keeps what it knows.
    pub last_known: PathBuf,
    /// Whether no pod starts without an agent.
    pub strict: bool,
    /// What the plugin before has made.
    pub prev_result: Option<Value>,
}

/// The addresses of a result, `ADDRESS/LENGTH` each; those of interfaces outside of the container are others'.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let interfaces = result["interfaces"].as_array();
    let inside = |ip: &Value| {
        let interface = ip["interface"].as_u64().and_then(|at| interfaces?.get(usize::try_from(at).ok()?));
        interface.is_none_or(|interface| interface["sandbox"].as_str().is_none_or(|at| !at.is_empty()))
    };
    let ips = result["ips"].as_array().into_iter().flatten().filter(|ip| inside(ip));
    ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}
