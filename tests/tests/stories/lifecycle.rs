//! The agent comes, goes, dies and comes back; and it is not alone on the machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weft_tests::{Agent, Mesh, Pod, eventually, story};

use crate::deploy;

/// What the kernel holds for a pod that could be of weft's making: rules, routes, listeners, sysctls.
fn kernel_state(pod: &Pod) -> Result<String> {
    const SCRIPT: &str = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | sed 's/expires.*//' | grep -v fe80; \
        ip -br address; ss -Htln | sort; nft list ruleset 2>/dev/null; \
        sysctl -a --pattern '^net[.](ipv[46]|core)' 2>/dev/null | grep -v -e tcp_mem -e _count -e neigh | sort";
    pod.exec(&["sh", "-c", SCRIPT])?.good()
}

#[test]
fn stopped_by_sigterm_it_leaves_nothing_behind() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.start_kube_proxy()?;
        let pods = [mesh.the("client")?, mesh.the("echo-v1")?];
        let before = pods.iter().map(|pod| kernel_state(pod)).collect::<Result<Vec<_>>>()?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        let during = kernel_state(&pods[0])?;
        ensure!(during != before[0], "the agent made nothing: this story looks at the wrong places");

        let (code, bpf_dir, run_dir) = mesh.with_agent(|agent| {
            let code = agent.terminate()?;
            Ok((code, agent.bpf_dir().to_path_buf(), agent.run_dir().to_path_buf()))
        })?;
        ensure!(code == 0, "exit code {code}");
        for (pod, before) in pods.iter().zip(&before) {
            let after = kernel_state(pod)?;
            ensure!(
                after == *before,
                "{} was left different:\n{}",
                pod.spec.name,
                difference(before, &after)
            );
        }
        ensure!(!bpf_dir.exists(), "{} is still there", bpf_dir.display());
        let left: Vec<_> =
            std::fs::read_dir(&run_dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
        ensure!(left.is_empty(), "left in the run directory: {left:?}");
        // Out of the mesh, the shop goes on.
        let answer = mesh.get("client", "http://echo/")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    });
}

fn difference(before: &str, after: &str) -> String {
    let gone = before
        .lines()
        .filter(|line| !after.lines().any(|other| other == *line))
        .map(|line| format!("-{line}"));
    let new = after
        .lines()
        .filter(|line| !before.lines().any(|other| other == *line))
        .map(|line| format!("+{line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}

#[test]
fn killed_under_load_it_fails_closed_and_is_back_within_two_seconds() {
    story(|mesh| {
        deploy::echo(mesh)?;
        mesh.start_kube_proxy()?;
        let pods = [mesh.the("echo-v1")?, mesh.the("echo-v2")?];
        let load = mesh.load("client", &["http://echo/", "-c", "32"])?;
        eventually("load", Duration::from_secs(5), || {
            ensure!(mesh.metrics()?.sum("istio_requests_total", &[]) > 200.0);
            Ok(())
        })?;
        mesh.with_agent(Agent::kill)?;
        // Neither by the Service nor by the pod's address, out or in, does anything pass.
        let targets = [
            mesh.service_at("echo", 80)?,
            mesh.service_at6("echo", 80)?,
            pods[0].at(8080),
            pods[1].at6(8080),
        ];
        for _ in 0..10 {
            for target in targets {
                let outcome = mesh
                    .http("client", &format!("http://{target}/leak"))?
                    .flag("--max-time")
                    .flag("2")
                    .send();
                ensure!(outcome.is_err(), "{target}: {outcome:?} without an agent");
            }
        }
        let mut answered = None;
        let start = Instant::now();
        mesh.with_agent(Agent::spawn)?;
        eventually("back", Duration::from_secs(20), || {
            let answer = mesh.http("client", "http://echo/")?.flag("--max-time").flag("1").send()?;
            ensure!(answer.status == 200, "{answer:?}");
            answered = Some(start.elapsed());
            Ok(())
        })?;
        println!("answered {answered:?} after the agent's start");
        ensure!(answered.is_some_and(|took| took < Duration::from_secs(2)), "back after {answered:?}");
        mesh.with_agent(Agent::ready)?;
        let after = mesh.many("client", "http://echo/", 200, 8)?;
        after.none_failed()?;
        let report = load.finish()?;
        println!("under load: {} of {} failed, {:?}", report.failed, report.requests, report.errors);
        ensure!(report.failed > 0, "nothing failed: was the agent in the way at all?");
        for pod in ["echo-v1", "echo-v2"] {
            ensure!(deploy::hits(mesh, pod, "/leak")? == 0, "{pod} was reached without an agent");
        }
        Ok(())
    });
}

#[test]
fn under_a_supervisor_a_killed_agent_is_back_by_itself() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.start_kube_proxy()?;
        mesh.start_agent_with("node-a", &["--supervise"])?;
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        let holder = mesh.with_agent(|agent| Ok(agent.run_dir().join("agent.lock")))?;
        let running = || Ok::<i32, anyhow::Error>(std::fs::read_to_string(&holder)?.trim().parse()?);
        // As often as it takes: what the supervisor bears, the kubelet does not hear of.
        for turn in 1..=10 {
            let before = running()?;
            let killed = Instant::now();
            kill_process(Pid::from_raw(before).context("no agent")?, Signal::KILL)?;
            eventually("an answer from another agent", Duration::from_secs(20), || {
                ensure!(running()? != before, "{before} still has the run directory");
                let answer = mesh.http("client", "http://echo/")?.flag("--max-time").flag("1").send()?;
                ensure!(answer.status == 200, "{answer:?}");
                Ok(())
            })?;
            println!("answered {:?} after SIGKILL number {turn}", killed.elapsed());
        }

        // Told to end, both end in order.
        let last = running()?;
        let code = mesh.with_agent(Agent::terminate)?;
        ensure!(code == 0, "exit code {code}");
        ensure!(
            !std::path::Path::new(&format!("/proc/{last}")).exists(),
            "the agent outlived its supervisor"
        );
        Ok(())
    });
}

#[test]
fn one_that_stands_by_serves_until_the_first_is_back() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.start_kube_proxy()?;
        // As in a pod: whoever starts takes over from whoever runs.
        mesh.start_agent_with("node-a", &["--supervise", "--pod-name", "agent"])?;
        let holder = mesh.with_agent(|agent| Ok(agent.run_dir().join("agent.lock")))?;
        let running = || Ok::<i32, anyhow::Error>(std::fs::read_to_string(&holder)?.trim().parse()?);
        let mut standby = mesh.with_agent(|agent| agent.beside(&["--standby"]))?;
        eventually("one that stands by", Duration::from_secs(20), || {
            ensure!(standby.errors().contains("standing by"), "{}", standby.errors());
            Ok(())
        })?;
        for turn in 1..=4 {
            let first = running()?;
            let killed = Instant::now();
            // The supervisor: its agent goes with it.
            mesh.with_agent(Agent::kill)?;
            eventually("an answer from the one that stands by", Duration::from_secs(20), || {
                ensure!(running()? != first, "{first} still has the run directory");
                let answer = mesh.http("client", "http://echo/")?.flag("--max-time").flag("1").send()?;
                ensure!(answer.status == 200, "{answer:?}");
                Ok(())
            })?;
            println!("answered {:?} after the end of supervisor number {turn}", killed.elapsed());
            let second = running()?;
            let load = mesh.load("client", &["http://echo/", "-c", "4"])?;
            mesh.with_agent(Agent::spawn)?;
            eventually("the first is back", Duration::from_secs(20), || {
                ensure!(running()? != second, "{second} still has the run directory");
                Ok(())
            })?;
            mesh.with_agent(Agent::ready)?;
            load.finish()?.none_failed()?;
            eventually("the end of the one that stood in", Duration::from_secs(20), || {
                ensure!(!std::path::Path::new(&format!("/proc/{second}")).exists(), "it runs");
                Ok(())
            })?;
        }
        standby.signal(Signal::TERM)?;
        let code = standby.wait(Duration::from_secs(10))?;
        ensure!(code == 0, "exit code {code}");
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        Ok(())
    });
}

#[test]
fn an_agent_does_not_outlive_its_supervisor() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.start_agent_with("node-a", &["--supervise"])?;
        let holder = mesh.with_agent(|agent| Ok(agent.run_dir().join("agent.lock")))?;
        let running: i32 = std::fs::read_to_string(&holder)?.trim().parse()?;
        mesh.with_agent(Agent::kill)?;
        eventually("the agent's end", Duration::from_secs(5), || {
            ensure!(!std::path::Path::new(&format!("/proc/{running}")).exists(), "it runs");
            Ok(())
        })?;
        mesh.with_agent(Agent::spawn)?;
        mesh.with_agent(Agent::ready)
    });
}

#[test]
fn with_keep_pinned_a_successor_takes_over() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.start_agent_with("node-a", &["--keep-pinned"])?;
        mesh.wait_applied()?;
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        let code = mesh.with_agent(Agent::terminate)?;
        ensure!(code == 0, "exit code {code}");
        let direct = format!("http://{}/", mesh.the("echo-v1")?.at(8080));
        let outcome = mesh.http("client", &direct)?.flag("--max-time").flag("2").send();
        ensure!(outcome.is_err(), "the pod is out of the mesh: {outcome:?}");
        mesh.with_agent(|agent| {
            agent.spawn()?;
            agent.ready()
        })?;
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        Ok(())
    });
}

#[test]
fn what_a_dead_agent_left_is_removed_by_cleanup() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        let client = mesh.the("client")?;
        let before = kernel_state(&client)?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let (run_dir, bpf_dir) = mesh.with_agent(|agent| {
            agent.kill()?;
            Ok((agent.run_dir().to_path_buf(), agent.bpf_dir().to_path_buf()))
        })?;
        let (run, bpf) = (run_dir.to_string_lossy(), bpf_dir.to_string_lossy());
        let output = mesh.weft_alone(&["cleanup", "--run-dir", &run, "--bpf-dir", &bpf])?;
        ensure!(output.code == 0, "{output:?}");
        let after = kernel_state(&client)?;
        ensure!(after == before, "left different:\n{}", difference(&before, &after));
        ensure!(!bpf_dir.exists(), "pins are left");
        let direct = format!("http://{}/", mesh.the("echo-v1")?.at(8080));
        ensure!(mesh.get("client", &direct)?.status == 200, "the pod is not free");
        Ok(())
    });
}

#[test]
fn two_agents_on_one_machine_serve_each_its_own_pods() {
    story(|mesh| {
        for node in ["a", "b"] {
            let node_name = format!("node-{node}");
            mesh.pod(&format!("client-{node}")).node(&node_name).start()?;
            let pod =
                mesh.pod(&format!("echo-{node}")).node(&node_name).label("app", &format!("echo-{node}"));
            pod.label("version", node).app(["echo", "--port", "8080"]).start()?;
            mesh.service(&format!("echo-{node}"))
                .selector("app", &format!("echo-{node}"))
                .port("http", 80, 8080)
                .create()?;
        }
        mesh.start_agent_with("node-a", &[])?;
        mesh.start_agent_with("node-b", &[])?;
        mesh.wait_applied()?;
        let counted = |node: &str| -> Result<u64> {
            let metrics = mesh.with_agent_of(node, |agent| agent.metrics())?;
            Ok(metrics.count("istio_requests_total", &[("reporter", "source")]))
        };
        for node in ["a", "b"] {
            let answer = mesh.get(&format!("client-{node}"), &format!("http://echo-{node}/"))?;
            ensure!((answer.status, answer.version()) == (200, node), "{answer:?}");
            ensure!(
                counted(&format!("node-{node}"))? == 1,
                "node-{node} counted {}",
                counted(&format!("node-{node}"))?
            );
        }
        // One is killed: the other's pods do not notice.
        mesh.with_agent_of("node-b", Agent::kill)?;
        ensure!(mesh.get("client-a", "http://echo-a/")?.status == 200);
        let outcome = mesh.http("client-b", "http://echo-b/")?.flag("--max-time").flag("2").send();
        ensure!(outcome.is_err(), "{outcome:?} without an agent");
        mesh.with_agent_of("node-b", |agent| {
            agent.spawn()?;
            agent.ready()
        })?;
        ensure!(mesh.get("client-b", "http://echo-b/")?.status == 200);
        // One is stopped and takes only its own things with it.
        mesh.with_agent_of("node-b", Agent::terminate)?;
        for _ in 0..5 {
            ensure!(mesh.get("client-a", "http://echo-a/")?.status == 200);
        }
        Ok(())
    });
}

#[test]
fn everything_there_at_start_is_in_force_when_it_is_ready() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        deploy::subsets("echo");
        let rules = "- route:\n  - destination: {host: echo, subset: v2}\n";
        mesh.apply("rules", &deploy::http_rules(rules))?;
        // `start_agent` returns when readiness says 200: no further waiting.
        mesh.start_agent()?;
        let report = mesh.many("client", "http://echo/", 40, 4)?;
        ensure!(report.none_failed()?.versions.keys().eq(["v2"]), "{:?}", report.versions);
        Ok(())
    });
}

#[test]
fn a_stopped_agent_lets_requests_that_run_come_to_their_end() {
    story(|mesh: &Mesh| {
        deploy::echo(mesh)?;
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| mesh.get("client", "http://echo/sleep/1000"));
            eventually("the request runs", Duration::from_secs(5), || {
                let both = deploy::hits(mesh, "echo-v1", "/sleep/1000")?
                    + deploy::hits(mesh, "echo-v2", "/sleep/1000")?;
                ensure!(both == 1);
                Ok(())
            })?;
            let code = mesh.with_agent(Agent::terminate)?;
            ensure!(code == 0, "exit code {code}");
            let answer = slow.join().expect("no panic")?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })
    });
}

#[test]
fn without_its_rights_it_says_what_is_missing_and_ends() -> Result<()> {
    let mesh = Mesh::new()?;
    let weft = weft_tests::built_binary("weft")?;
    // A copy that everybody may run: the build may be below somebody's home.
    let copy = std::env::temp_dir().join(format!("weft-{}", mesh.world().label()));
    std::fs::copy(weft, &copy)?;
    let dir = mesh.manifests().to_string_lossy().into_owned();
    let run_dir = std::env::temp_dir().join(format!("weft-{}-run", mesh.world().label()));
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
    command.args(["agent", "--standalone", &dir, "--run-dir"]).arg(&run_dir);
    command.args(["--metrics-addr", "127.0.0.1:0", "--readiness-addr", "127.0.0.1:0"]);
    let output = weft_tests::Output::of(&mut command);
    std::fs::remove_file(&copy)?;
    std::fs::remove_dir_all(&run_dir).ok();
    let output = output?;
    ensure!(output.code != 0, "it runs: {output:?}");
    let told = output.stderr.to_lowercase();
    let names =
        ["root", "cap_", "permission", "privilege", "capabilit"].iter().any(|word| told.contains(word));
    ensure!(names && !told.contains("panicked"), "{}", output.stderr);
    Ok(())
}
