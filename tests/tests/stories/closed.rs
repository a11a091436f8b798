//! Pods that start while their node's agent is away: those of the mesh are closed from their first packet until it is back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::{Agent, Mesh, Pod, eventually, story};

use crate::cni::{plugin_with, starting};
use crate::deploy;

/// For an agent to take over what was closed, from its start on.
const TAKEN_OVER: Duration = Duration::from_secs(1);
const PORT: u16 = 8080;

/// A node whose agent keeps what it knows for the plugin.
struct Node<'a> {
    mesh: &'a Mesh,
    conf_dir: PathBuf,
    run_dir: PathBuf,
    bpf_dir: PathBuf,
}

impl<'a> Node<'a> {
    /// The echo service, in the mesh, and `outside`, a namespace that is not, with a stranger in it.
    fn start(mesh: &'a Mesh) -> Result<Self> {
        deploy::echo_pods(mesh)?;
        mesh.namespace("outside", false)?;
        mesh.outsider_of("outside", "stranger")?.app(&["echo", "--port", &PORT.to_string()])?;
        let conf_dir = mesh.world().dir().join("net.d");
        let bin_dir = mesh.world().dir().join("cni-bin");
        fs::create_dir_all(&conf_dir)?;
        let (conf, bin) = (conf_dir.display().to_string(), bin_dir.display().to_string());
        mesh.start_agent_with("node-a", &["--cni", "--cni-conf-dir", &conf, "--cni-bin-dir", &bin])?;
        mesh.wait_applied()?;
        let (run_dir, bpf_dir) =
            mesh.with_agent(|agent| Ok((agent.run_dir().to_path_buf(), agent.bpf_dir().to_path_buf())))?;
        let node = Self { mesh, conf_dir, run_dir, bpf_dir };
        eventually("what is known is kept", Duration::from_secs(5), || {
            let kept = fs::read_to_string(node.last_known())?;
            ensure!(kept.contains("\"default\":true") && kept.contains("\"outside\":false"), "{kept}");
            Ok(())
        })?;
        Ok(node)
    }

    fn last_known(&self) -> PathBuf {
        self.conf_dir.join("weft-cni.last-known")
    }

    /// Its entry in the chain.
    fn entry(&self) -> Value {
        json!({ "runDir": self.run_dir, "bpfDir": self.bpf_dir, "lastKnown": self.last_known(), "strict": false })
    }

    fn kill(&self) -> Result<()> {
        self.mesh.with_agent(Agent::kill)
    }

    /// What is pinned, and all of `/run`, is gone then.
    fn reboot(&self) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(&self.bpf_dir)?;
        Ok(fs::remove_dir_all(&self.run_dir)?)
    }

    /// A pod with a server in it, which its runtime is about to start.
    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>> {
        let pod = self.mesh.outsider_of(namespace, name)?;
        pod.app(&["echo", "--port", &PORT.to_string()])?;
        Ok(pod)
    }

    /// Its runtime starts it.
    fn add(&self, pod: &Pod) -> Result<()> {
        let answer = plugin_with("ADD", pod, &self.entry())?;
        println!("{}/{}: ADD answered after {:?}", pod.spec.namespace, pod.spec.name, answer.took);
        ensure!(answer.good, "{}", answer.output);
        ensure!(answer.took < Duration::from_secs(2), "the pod waited {:?}", answer.took);
        Ok(())
    }

    /// The agent starts; `done` is to be so within a second of that.
    fn back(&self, what: &str, mut done: impl FnMut() -> Result<()>) -> Result<()> {
        self.mesh.with_agent(Agent::spawn)?;
        let start = Instant::now();
        eventually(what, Duration::from_secs(30), &mut done)?;
        let took = start.elapsed();
        println!("{what}: {took:?} after the agent's start");
        // With room for a machine that does other things besides.
        ensure!(took < TAKEN_OVER * 5, "{what}: it took {took:?}");
        self.mesh.with_agent(Agent::ready)
    }
}

fn dials(from: &Pod, to: &Pod) -> bool {
    from.connect(to.at(PORT)).is_ok() || from.connect(to.at6(PORT)).is_ok()
}

/// Nobody reaches it, and it reaches nobody.
fn closed(mesh: &Mesh, pod: &Pod) -> Result<()> {
    let stranger = mesh.the("stranger")?;
    ensure!(!dials(&stranger, pod), "{} can be reached", pod.spec.name);
    ensure!(!dials(pod, &stranger), "{} reaches others", pod.spec.name);
    Ok(())
}

/// As without weft.
fn open(mesh: &Mesh, pod: &Pod) -> Result<()> {
    let stranger = mesh.the("stranger")?;
    ensure!(dials(&stranger, pod), "{} cannot be reached", pod.spec.name);
    ensure!(dials(pod, &stranger), "{} reaches nobody", pod.spec.name);
    Ok(())
}

fn in_mesh(mesh: &Mesh, pod: &str) -> Result<()> {
    // Nothing makes Service addresses reachable in this world but the mesh.
    let answer = mesh.http(pod, "http://echo/")?.flag("--max-time").flag("2").send()?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

#[test]
fn after_a_reboot_a_pod_of_the_mesh_is_closed_until_the_agent_is_there() {
    story(|mesh| {
        let node = Node::start(mesh)?;
        node.reboot()?;
        let late = node.pod("default", "late")?;
        mesh.apply("late", &starting(&late, "app: late"))?;
        open(mesh, &late).context("before its runtime tells of it")?;
        node.add(&late)?;
        closed(mesh, &late)?;
        // A second one finds programs pinned.
        let second = node.pod("default", "second")?;
        mesh.apply("second", &starting(&second, "app: second"))?;
        node.add(&second)?;
        closed(mesh, &second)?;
        closed(mesh, &late)?;
        node.back("both are in the mesh", || {
            in_mesh(mesh, "late")?;
            in_mesh(mesh, "second")
        })?;
        let answer = mesh.get("late", "http://echo/seen")?;
        ensure!(answer.status == 200, "{answer:?}");
        mesh.is_logged("/seen").context("it went past the mesh")?;
        ensure!(
            !node.run_dir.join("closed").read_dir()?.any(|_| true),
            "something is left of their being closed"
        );
        Ok(())
    });
}

#[test]
fn while_a_killed_agent_is_away_pods_start_closed_by_what_it_has_pinned() {
    story(|mesh| {
        let node = Node::start(mesh)?;
        node.kill()?;
        let late = node.pod("default", "late")?;
        mesh.apply("late", &starting(&late, "app: late"))?;
        node.add(&late)?;
        closed(mesh, &late)?;
        // Its runtime asks again, as after a time-out.
        node.add(&late)?;
        closed(mesh, &late)?;
        node.back("it is in the mesh", || in_mesh(mesh, "late"))?;
        in_mesh(mesh, "client")
    });
}

#[test]
fn pods_outside_of_the_mesh_start_as_without_weft_also_while_the_agent_is_away() {
    story(|mesh| {
        let node = Node::start(mesh)?;
        let out = node.pod("default", "out")?;
        mesh.apply("out", &starting(&out, "weft.dev/mesh: disabled"))?;
        mesh.wait_applied()?;
        eventually("the pod is known", Duration::from_secs(5), || {
            ensure!(fs::read_to_string(node.last_known())?.contains("default/out"));
            Ok(())
        })?;
        node.reboot()?;
        let apart = node.pod("outside", "apart")?;
        for pod in [&out, &apart] {
            node.add(pod)?;
            open(mesh, pod)?;
        }
        ensure!(!node.bpf_dir.exists(), "something was pinned for nothing");
        Ok(())
    });
}

#[test]
fn where_nothing_is_known_all_start_closed_but_what_the_node_needs_and_the_agent_lets_them_go() {
    story(|mesh| {
        let node = Node::start(mesh)?;
        mesh.namespace("kube-system", false)?;
        node.reboot()?;
        fs::write(node.last_known(), "{\"version\": 1, \"known\": {\"namesp")?;
        let apart = node.pod("outside", "apart")?;
        mesh.apply("apart", &starting(&apart, "app: apart"))?;
        let dns = node.pod("kube-system", "dns")?;
        for pod in [&apart, &dns] {
            node.add(pod)?;
        }
        closed(mesh, &apart)?;
        open(mesh, &dns)?;
        fs::remove_file(node.last_known())?;
        let gone = node.pod("outside", "gone")?;
        node.add(&gone)?;
        closed(mesh, &gone).context("somebody has removed what was kept")?;
        node.back("the pod that is outside of the mesh is let go", || open(mesh, &apart))?;
        // Its object may be on its way: for a while it is waited for.
        closed(mesh, &gone)?;
        mesh.apply("gone", &starting(&gone, "app: gone"))?;
        eventually("the other is let go when it is known", Duration::from_secs(5), || open(mesh, &gone))?;
        eventually("what is known is kept again", Duration::from_secs(5), || {
            ensure!(fs::read_to_string(node.last_known())?.contains("outside/apart"));
            Ok(())
        })
    });
}

#[test]
fn an_agent_that_does_not_move_is_not_waited_for() {
    story(|mesh| {
        let node = Node::start(mesh)?;
        let id = mesh.with_agent(|agent| agent.id())?;
        let signal = |name: &str| mesh.the("client")?.exec(&["kill", name, &id.to_string()])?.good();
        signal("-STOP")?;
        let late = node.pod("default", "late")?;
        let answer = plugin_with("ADD", &late, &node.entry())?;
        println!("ADD answered after {:?}", answer.took);
        ensure!(answer.good, "{}", answer.output);
        // Its listeners stand, but nobody answers there.
        ensure!(
            mesh.http("client", &format!("http://{}/", late.at(PORT)))?
                .flag("--max-time")
                .flag("1")
                .send()
                .is_err()
        );
        mesh.apply("late", &starting(&late, "app: late"))?;
        signal("-CONT")?;
        eventually("it is in the mesh", Duration::from_secs(10), || in_mesh(mesh, "late"))
    });
}

#[test]
fn cleanup_removes_what_a_plugin_has_left() {
    story(|mesh| {
        let node = Node::start(mesh)?;
        node.reboot()?;
        let late = node.pod("default", "late")?;
        node.add(&late)?;
        closed(mesh, &late)?;
        let (run_dir, bpf_dir) = (node.run_dir.display().to_string(), node.bpf_dir.display().to_string());
        let told = mesh.weft_alone(&["cleanup", "--run-dir", &run_dir, "--bpf-dir", &bpf_dir])?.good()?;
        ensure!(told.contains("default/late"), "{told}");
        open(mesh, &late)?;
        ensure!(!node.bpf_dir.exists(), "something is pinned still");
        ensure!(!node.run_dir.exists(), "something is left in {run_dir}");
        let (conf, bin) = (node.conf_dir.display().to_string(), mesh.world().dir().join("cni-bin"));
        mesh.weft_alone(&[
            "cni",
            "uninstall",
            "--cni-conf-dir",
            &conf,
            "--cni-bin-dir",
            &bin.display().to_string(),
        ])?
        .good()?;
        ensure!(!node.last_known().exists(), "what was kept is left");
        Ok(())
    });
}

#[test]
fn closed_pods_that_are_gone_leave_nothing_behind() {
    story(|mesh| {
        let node = Node::start(mesh)?;
        node.reboot()?;
        let netns = format!("{}-gone", mesh.the("client")?.netns);
        let ip = |words: &[&str]| {
            let status = std::process::Command::new("ip").args(words).status()?;
            ensure!(status.success(), "ip {words:?}: {status}");
            anyhow::Ok(())
        };
        let pins = || -> Result<usize> {
            let names = fs::read_dir(node.bpf_dir.join("v2"))?.flatten();
            Ok(names.filter(|pin| pin.file_name().to_string_lossy().starts_with("pod_")).count())
        };
        let late = node.pod("default", "late")?;
        let gone = |netns: &str| {
            plugin_with("ADD", &late, &{
                let mut entry = node.entry();
                entry["netns"] = json!(Path::new("/var/run/netns").join(netns));
                entry
            })
        };
        for _ in 0..2 {
            ip(&["netns", "add", &netns])?;
            let added = gone(&netns);
            ip(&["netns", "del", &netns])?;
            ensure!(added?.good);
        }
        // The runtime's next pod collects what is left of those before, and so does the agent.
        node.add(&late)?;
        eventually("no more than one pod is pinned", Duration::from_secs(5), || {
            node.add(&late)?;
            ensure!(pins()? <= 2, "{} are", pins()?);
            Ok(())
        })?;
        mesh.apply("late", &starting(&late, "app: late"))?;
        node.back("the pod that is there is in the mesh", || in_mesh(mesh, "late"))?;
        ensure!(
            !node.run_dir.join("closed").read_dir()?.any(|_| true),
            "something is left of those that are gone"
        );
        Ok(())
    });
}
