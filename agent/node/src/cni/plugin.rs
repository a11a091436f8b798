//! The plugin, as CNI's specification (0.3.1 to 1.1.0) has it: a command in the environment, a configuration on standard
//! input, a result on standard output.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use weft_api::causes;
use weft_datapath::Enclosed;
use weft_rules::last_known::{self, Memory, Start, StartingPod};

pub use super::call::Call;
use super::call::{Config, VERSIONS};
use super::kept;
use super::protocol::{Answer, LAST_PATIENCE, PATIENCE, PRESENCE, Pod, Request};
use crate::channel::Channel;

/// Codes of CNI's specification.
mod code {
    pub const INCOMPATIBLE: u32 = 1;
    pub const ENVIRONMENT: u32 = 4;
    pub const DECODE: u32 = 6;
    pub const CONFIG: u32 = 7;
    pub const TRY_AGAIN: u32 = 11;
    pub const UNAVAILABLE: u32 = 50;
}

/// Why a command fails.
#[derive(Debug)]
struct Failure {
    code: u32,
    message: String,
    details: String,
}

fn fail(code: u32, message: &str, details: &dyn std::fmt::Display) -> Failure {
    Failure { code, message: message.to_owned(), details: details.to_string() }
}

/// Runs a command: answers what belongs on standard output, and whether it was good.
pub fn run(call: &Call<'_>) -> (String, bool) {
    match command(call) {
        Ok(Some(result)) => (format!("{result}\n"), true),
        Ok(None) => (String::new(), true),
        Err(Failure { code, message, details }) => {
            let error =
                json!({"cniVersion": call.version(), "code": code, "msg": message, "details": details});
            (format!("{error}\n"), false)
        }
    }
}

fn command(call: &Call<'_>) -> Result<Option<Value>, Failure> {
    let command = call.get("CNI_COMMAND");
    // Never to stand in the way of a pod's end.
    if command == "DEL" {
        if let Ok(config) = config(call) {
            let pod = call.pod(&config);
            // Its callers hear of its end while it still has a network.
            let netns = File::open(call.get("CNI_NETNS")).ok();
            let _ = ask(&config, &Request::Delete(pod), netns.as_ref(), LAST_PATIENCE);
        }
        return Ok(None);
    }
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": call.version(), "supportedVersions": VERSIONS})));
    }
    let config = config(call)?;
    if !VERSIONS.contains(&&*config.cni_version) {
        let details = format!("{} is none of {}", config.cni_version, VERSIONS.join(", "));
        return Err(fail(code::INCOMPATIBLE, "incompatible CNI version", &details));
    }
    match &*command {
        "ADD" => add(call, &config).map(Some),
        "CHECK" => previous(&config).map(|_| None),
        "STATUS" if config.strict => match ask(&config, &Request::Status, None, PATIENCE) {
            Ok(_) => Ok(None),
            Err(error) => Err(fail(code::UNAVAILABLE, "the agent of weft is away", &away(&config, &error))),
        },
        "STATUS" | "GC" => Ok(None),
        other => Err(fail(code::ENVIRONMENT, "CNI_COMMAND is none that is known", &other)),
    }
}

fn config(call: &Call<'_>) -> Result<Config, Failure> {
    call.config()
        .map_err(|error| fail(code::DECODE, "the configuration on standard input cannot be read", &error))
}

fn previous(config: &Config) -> Result<&Value, Failure> {
    config.prev_result.as_ref().ok_or_else(|| {
        fail(code::CONFIG, "weft-cni makes no network: it belongs behind another plugin", &"no prevResult")
    })
}

/// Tells the agent, and hands the plugin's result before on as it was. While there is no agent, pods of the mesh start closed.
fn add(call: &Call<'_>, config: &Config) -> Result<Value, Failure> {
    let result = previous(config)?;
    let pod = call.pod(config);
    // Something else than a pod.
    if pod.name.is_empty() {
        return Ok(result.clone());
    }
    let path = call.get("CNI_NETNS");
    let netns = File::open(&path).map_err(|error| {
        fail(code::ENVIRONMENT, "CNI_NETNS cannot be opened", &format!("{path}: {error}"))
    })?;
    let key = pod.key();
    let told = ask(config, &Request::Status, None, PRESENCE)
        .and_then(|_| ask(config, &Request::Add(pod.clone()), Some(&netns), PATIENCE));
    let problem = match told {
        Ok(Answer::NotYet(why)) => why,
        Ok(_) => return Ok(result.clone()),
        Err(error) => away(config, &error),
    };
    let waits = |why: &dyn std::fmt::Display| {
        Err(fail(code::TRY_AGAIN, &format!("weft cannot take pod {key} into the mesh yet"), why))
    };
    if config.strict {
        return waits(&problem);
    }
    match alone(config, &pod) {
        Start::Open(why) => eprintln!("weft-cni: pod {key} starts outside of the mesh ({why}): {problem}"),
        Start::Closed(why) => {
            if let Err(error) = enclose(config, &pod, path.into(), &netns) {
                return waits(&format!("{problem}; nor can it start closed: {error}"));
            }
            eprintln!("weft-cni: pod {key} starts closed until the agent is there ({why}): {problem}");
        }
    }
    Ok(result.clone())
}

/// Decides without the agent how a pod starts.
fn alone(config: &Config, pod: &Pod) -> Start {
    // An agent of the past, that did not keep anything, has written this configuration.
    if config.last_known.as_os_str().is_empty() {
        return Start::Open("nothing is kept on this node");
    }
    let kept = kept::read(&config.last_known);
    let memory = match &kept {
        Ok(Some(known)) => Memory::Known(known),
        Ok(None) => Memory::Never,
        Err(error) => {
            eprintln!("weft-cni: {} cannot be used: {error}", config.last_known.display());
            Memory::Lost
        }
    };
    let key = pod.key();
    last_known::start(memory, StartingPod { namespace: &pod.namespace, key: &key, uid: &pod.uid })
}

/// Closes a pod, and tells an agent that has come meanwhile: before it could be reached, it finds what is pinned.
fn enclose(config: &Config, pod: &Pod, path: PathBuf, netns: &File) -> Result<(), String> {
    let enclosed = Enclosed {
        key: pod.key(),
        uid: pod.uid.clone(),
        container: pod.container.clone(),
        // By a link of the node's, the agent in its container would be led astray.
        netns: path.canonicalize().unwrap_or(path),
        addresses: pod.addresses.clone(),
    };
    weft_datapath::enclose(&config.run_dir, &config.bpf_dir, &enclosed, netns.as_fd())
        .map_err(|error| causes::all(&error))?;
    let _ = ask(config, &Request::Enclosed(pod.clone()), Some(netns), PRESENCE);
    Ok(())
}

fn away(config: &Config, error: &io::Error) -> String {
    format!("the agent does not answer at {}: {error}", socket(config).display())
}

fn socket(config: &Config) -> PathBuf {
    config.run_dir.join(super::SOCKET)
}

fn ask(config: &Config, request: &Request, netns: Option<&File>, patience: Duration) -> io::Result<Answer> {
    let channel = Channel::connect(&socket(config))?;
    channel.limit_sending(patience)?;
    let files: Vec<_> = netns.iter().map(|file| file.as_fd()).collect();
    channel.send(request, &files)?;
    match channel.receive(Some(patience))? {
        Some((answer, _)) => Ok(answer),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests;
