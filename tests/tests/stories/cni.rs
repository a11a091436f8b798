//! Pods that start, as a container runtime starts them: their CNI plugin tells the agent before their first program runs.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::{Agent, Mesh, Pod, built_binary, story};

use crate::deploy;

/// What a plugin answered.
pub struct Answer {
    pub good: bool,
    pub output: Value,
    pub took: Duration,
}

/// Runs `weft cni` as a runtime does, for a pod of this world.
pub fn plugin(mesh: &Mesh, command: &str, pod: &Pod, strict: bool) -> Result<Answer> {
    let run_dir = mesh.with_agent(|agent| Ok(agent.run_dir().to_path_buf()))?;
    plugin_with(command, pod, &json!({ "runDir": run_dir, "strict": strict }))
}

/// The same with what the agent has written in the chain.
pub fn plugin_with(command: &str, pod: &Pod, entry: &Value) -> Result<Answer> {
    let mut config =
        json!({ "cniVersion": "1.0.0", "name": "world", "type": "weft-cni", "prevResult": result(pod) });
    for (key, value) in entry.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let netns = entry["netns"].as_str().unwrap_or(&pod.netns);
    let netns = Path::new("/var/run/netns").join(netns);
    let args = format!(
        "IgnoreUnknown=true;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID=",
        pod.spec.namespace, pod.spec.name
    );
    let start = Instant::now();
    let mut child = Command::new(built_binary("weft")?)
        .arg("cni")
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c-1")
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no input")?.write_all(config.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(Answer {
        good: output.status.success(),
        output: if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? },
        took: start.elapsed(),
    })
}

/// What the plugin before has made.
fn result(pod: &Pod) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": pod.netns}],
        "ips": [{"interface": 0, "address": format!("{}/24", pod.ip)}, {"interface": 0, "address": format!("{}/64", pod.ip6)}],
    })
}

/// A pod's object as it is before the pod runs: no address, and no annotation that tells its network namespace.
pub fn starting(pod: &Pod, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}, namespace: {}, labels: {{{label}}}}}\n\
         spec: {{containers: [{{name: app, image: app}}]}}\nstatus: {{phase: Pending}}\n",
        pod.spec.name, pod.spec.namespace
    )
}

#[test]
fn a_pods_first_connection_is_in_the_mesh() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let late = mesh.outsider("late")?;
        mesh.apply("late", &starting(&late, "app: late"))?;
        let answer = plugin(mesh, "ADD", &late, true)?;
        println!("ADD answered after {:?}", answer.took);
        ensure!(answer.good && answer.output == result(&late), "{}", answer.output);
        ensure!(answer.took < Duration::from_secs(1), "it took {:?}", answer.took);
        // Nothing makes Service addresses reachable in this world but the mesh.
        let answer = mesh.get("late", "http://echo/first")?;
        ensure!(answer.status == 200, "{answer:?}");
        mesh.is_logged("/first").context("it went past the mesh")?;
        ensure!(plugin(mesh, "CHECK", &late, true)?.good && plugin(mesh, "DEL", &late, true)?.good);
        Ok(())
    });
}

/// How many files by which the agent holds a pod's network namespace open.
fn held_open(mesh: &Mesh, pod: &Pod) -> Result<usize> {
    let id = mesh.with_agent(|agent| agent.id())?;
    let netns = std::fs::metadata(Path::new("/var/run/netns").join(&pod.netns))?;
    let is_it = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == (netns.dev(), netns.ino());
    let files = std::fs::read_dir(format!("/proc/{id}/fd"))?.flatten();
    Ok(files.filter(|file| std::fs::metadata(file.path()).is_ok_and(is_it)).count())
}

#[test]
fn a_pod_that_goes_without_a_word_is_forgotten() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let late = mesh.outsider("late")?;
        mesh.apply("late", &starting(&late, "app: late"))?;
        ensure!(plugin(mesh, "ADD", &late, true)?.good);
        ensure!(held_open(mesh, &late)? > 0, "it is not held open: this story looks at the wrong files");
        // As after a crash of the runtime: no DEL.
        mesh.delete("late")?;
        weft_tests::eventually("its network is let go", Duration::from_secs(10), || {
            let files = held_open(mesh, &late)?;
            ensure!(files == 0, "{files} files hold it open");
            Ok(())
        })
    });
}

#[test]
fn what_a_dead_agent_left_in_a_pod_that_it_was_told_of_is_removed_by_cleanup() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let late = mesh.outsider("late")?;
        late.app(&["echo", "--port", "8080"])?;
        let rules = || late.exec(&["ip", "rule"])?.good();
        let before = rules()?;
        mesh.apply("late", &starting(&late, "app: late"))?;
        ensure!(plugin(mesh, "ADD", &late, true)?.good);
        ensure!(rules()? != before, "the agent made no rule: this story looks at the wrong place");
        let (run_dir, bpf_dir) = mesh.with_agent(|agent| {
            agent.kill()?;
            Ok((agent.run_dir().display().to_string(), agent.bpf_dir().display().to_string()))
        })?;
        mesh.weft_alone(&["cleanup", "--run-dir", &run_dir, "--bpf-dir", &bpf_dir])?.good()?;
        // Nobody but the dead agent had its network namespace by the name that it wrote down.
        let after = rules()?;
        ensure!(after == before, "left: {after}");
        Ok(())
    });
}

#[test]
fn a_pod_is_waited_for_that_the_agent_does_not_know_yet() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let late = mesh.outsider("late")?;
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| plugin(mesh, "ADD", &late, true));
            std::thread::sleep(Duration::from_millis(600));
            mesh.apply("late", &starting(&late, "app: late"))?;
            let answer = asked.join().expect("no panic")?;
            println!("ADD answered after {:?}", answer.took);
            ensure!(answer.good, "{}", answer.output);
            ensure!(mesh.get("late", "http://echo/")?.status == 200);
            anyhow::Ok(())
        })?;
        // Nobody ever hears of this one.
        let unknown = mesh.outsider("unknown")?;
        let answer = plugin(mesh, "ADD", &unknown, false)?;
        ensure!(answer.good && answer.took < Duration::from_secs(14), "{:?} {}", answer.took, answer.output);
        let answer = plugin(mesh, "ADD", &unknown, true)?;
        println!("strict: {}", answer.output);
        ensure!(!answer.good && answer.output["code"] == 11, "{}", answer.output);
        Ok(())
    });
}

#[test]
fn pods_outside_of_the_mesh_are_not_held_up_and_without_an_agent_pods_start() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let out = mesh.outsider("out")?;
        mesh.apply("out", &starting(&out, "weft.dev/mesh: disabled"))?;
        mesh.wait_applied().ok();
        let answer = plugin(mesh, "ADD", &out, true)?;
        println!("not in the mesh: answered after {:?}", answer.took);
        ensure!(
            answer.good && answer.took < Duration::from_millis(500),
            "{:?} {}",
            answer.took,
            answer.output
        );
        let late = mesh.outsider("late")?;
        mesh.apply("late", &starting(&late, "app: late"))?;
        mesh.with_agent(Agent::kill)?;
        let answer = plugin(mesh, "ADD", &late, false)?;
        ensure!(answer.good && answer.took < Duration::from_secs(1), "{:?} {}", answer.took, answer.output);
        let answer = plugin(mesh, "ADD", &late, true)?;
        ensure!(
            !answer.good && answer.output["msg"].to_string().contains("default/late"),
            "{}",
            answer.output
        );
        ensure!(plugin(mesh, "DEL", &late, true)?.good);
        mesh.with_agent(|agent| {
            agent.spawn()?;
            agent.ready()
        })
    });
}

#[test]
fn the_plugin_is_in_the_chain_for_as_long_as_the_agent_is() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        let conf_dir = mesh.world().dir().join("net.d");
        let bin_dir = mesh.world().dir().join("cni-bin");
        std::fs::create_dir_all(&conf_dir)?;
        let list = conf_dir.join("10-net.conflist");
        let text = r#"{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}"#;
        std::fs::write(&list, text)?;
        let (conf, bin) = (conf_dir.display().to_string(), bin_dir.display().to_string());
        let flags = ["--cni", "--cni-conf-dir", &conf, "--cni-bin-dir", &bin];
        mesh.start_agent_with("node-a", &flags)?;
        let entered = || {
            weft_tests::eventually("the plugin is in the chain", Duration::from_secs(10), || {
                let text = std::fs::read_to_string(&list)?;
                let conf: Value = serde_json::from_str(&text)?;
                ensure!(conf["plugins"][1]["type"] == "weft-cni", "{text}");
                Ok(())
            })
        };
        entered()?;
        let version = Command::new(bin_dir.join("weft-cni")).env("CNI_COMMAND", "VERSION").output()?;
        ensure!(String::from_utf8_lossy(&version.stdout).contains("1.1.0"), "{version:?}");
        std::fs::write(&list, text)?;
        entered()?;
        // It stays through an upgrade.
        let before = mesh.with_agent(|agent| agent.upgrade(&[]))?;
        drop(before);
        entered()?;
        mesh.with_agent(Agent::terminate)?;
        ensure!(std::fs::read_to_string(&list)? == text, "{}", std::fs::read_to_string(&list)?);
        ensure!(!bin_dir.join("weft-cni").exists(), "the binary is left");
        Ok(())
    });
}
