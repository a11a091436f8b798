//! What a node asks of its pods passes every rule, is nobody's traffic, and opens nothing to anybody else.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Mesh, Pod, eventually, process, story};

use crate::attacks::{STRICT, dial_from_node};

const HTTP: u16 = 8081;
const UNASKED: u16 = 8082;
const TCP: u16 = 9000;

/// Nobody is let in.
const NOTHING: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: nothing, namespace: default}\nspec: {}\n";

/// Nobody is let in who says that he is the kubelet.
const NO_PROBES: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: nothing, namespace: default}\n\
    spec: {action: DENY, rules: [{when: [{key: 'request.headers[user-agent]', values: ['kube-probe/*']}]}]}\n";

/// A pod that is asked by HTTP and by TCP, and an agent in whose network the machine's own processes are the node's.
fn probed(mesh: &Mesh) -> Result<Arc<Pod>> {
    let pod = mesh
        .pod("probed")
        .node("n1")
        .label("app", "probed")
        .container("ports: [{name: http, containerPort: 8081}]")
        .container("livenessProbe: {httpGet: {path: '/healthz?full=1', port: http}}")
        .container("readinessProbe: {tcpSocket: {port: 9000}}")
        .app(["echo", "--port", "8081", "--port", "8082"])
        .start()?;
    mesh.service("probed").selector("app", "probed").port("http", 80, HTTP).create()?;
    mesh.start_agents(&["n1"])?;
    Ok(pod)
}

/// What somebody hears who asks so; nothing where he is not let in.
fn ask(stream: Result<TcpStream>, request: &str) -> String {
    let mut text = Vec::new();
    if let Ok(mut stream) = stream {
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok();
        let head = "Host: probed\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(format!("{request} HTTP/1.1\r\n{head}").as_bytes());
        let _ = stream.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn is_let_in(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
}

#[test]
fn probes_pass_every_rule_and_open_nothing_to_anybody_else() {
    story(|mesh| {
        let stranger = mesh.outsider("stranger")?;
        let pod = probed(mesh)?;
        for (name, policy) in
            [("STRICT", STRICT), ("an empty policy", NOTHING), ("DENY on a header", NO_PROBES)]
        {
            mesh.apply_now("rule", policy)?;
            for to in [pod.at(HTTP), pod.at6(HTTP)] {
                let answer = ask(dial_from_node(to), "GET /healthz?full=1");
                ensure!(is_let_in(&answer), "{name}: the node at {to} hears {answer:?}");
                for other in
                    ["GET /", "GET /healthz", "GET /healthz?full=1&x", "POST /healthz?full=1", "GET /admin"]
                {
                    let answer = ask(dial_from_node(to), other);
                    ensure!(!is_let_in(&answer), "{name}: {other} of the node at {to}: {answer}");
                }
                let answer = ask(stranger.connect(to), "GET /healthz?full=1");
                ensure!(!is_let_in(&answer), "{name}: a stranger at {to}: {answer}");
            }
            let other = pod.at(UNASKED);
            let answer = ask(dial_from_node(other), "GET /healthz?full=1");
            ensure!(!is_let_in(&answer), "{name}: the node at {other}: {answer}");
        }
        Ok(())
    });
}

#[test]
fn who_asks_whether_somebody_is_there_reaches_the_program() {
    story(|mesh| {
        let stranger = mesh.outsider("stranger")?;
        let pod = probed(mesh)?;
        mesh.apply_now("rule", &format!("{STRICT}---\n{NOTHING}"))?;
        let program = pod.listen(TCP)?;
        for to in [pod.at(TCP), pod.at6(TCP)] {
            drop(dial_from_node(to)?);
            let (_, peer) = program.accept().with_context(|| format!("the node at {to}"))?;
            let node: [std::net::IpAddr; 2] = [mesh.world().gateway().into(), mesh.world().gateway6().into()];
            ensure!(node.contains(&peer.ip()), "the program sees {peer}");
            drop(stranger.connect(to));
            let answer = ask(stranger.connect(to), "GET /");
            ensure!(answer.is_empty(), "a stranger at {to}: {answer}");
            program.nobody()?;
        }
        // And is told where there is none: by the kernel, once the agent has met the one who asks.
        drop(program);
        eventually("nobody is there", Duration::from_secs(5), || {
            ensure!(dial_from_node(pod.at(TCP)).is_err(), "the node is let in by nobody");
            Ok(())
        })
    });
}

#[test]
fn probes_are_nobodys_traffic() {
    story(|mesh| {
        let pod = probed(mesh)?;
        for _ in 0..3 {
            let answer = ask(dial_from_node(pod.at(HTTP)), "GET /healthz?full=1");
            ensure!(is_let_in(&answer), "{answer}");
        }
        let labels =
            [("destination_workload", "probed"), ("request_protocol", "http"), ("result", "success")];
        eventually("the probes are counted", Duration::from_secs(5), || {
            let counted = mesh.metrics()?.count("weft_probe_requests_total", &labels);
            ensure!(counted == 3, "{counted}");
            Ok(())
        })?;
        // What else comes from the node is traffic.
        let answer = ask(dial_from_node(pod.at(HTTP)), "GET /other");
        ensure!(is_let_in(&answer), "{answer}");
        eventually("traffic is counted", Duration::from_secs(5), || {
            let metrics = mesh.metrics()?;
            let requests = metrics.count("istio_requests_total", &[]);
            ensure!(requests == 1, "{requests} requests");
            let log = mesh.access_log()?.join("\n");
            ensure!(log.contains("/other"), "{log}");
            Ok(())
        })?;
        let log = mesh.access_log()?.join("\n");
        ensure!(!log.contains("/healthz"), "{log}");
        Ok(())
    });
}

#[test]
fn a_tap_shows_probes_to_those_who_want_them() {
    story(|mesh| {
        let pod = probed(mesh)?;
        let tap = |flags: &[&str]| -> Result<std::process::Child> {
            let mut command =
                mesh.with_agent(|agent| agent.weft_command(&["tap", "-o", "json", "--max", "1"]))?;
            Ok(command.args(flags).stdout(std::process::Stdio::piped()).spawn()?)
        };
        let (with, without) = (tap(&["--probes"])?, tap(&[])?);
        eventually("both listen", Duration::from_secs(10), || {
            let listening = mesh.metrics()?.count("weft_taps", &[]);
            ensure!(listening == 2, "{listening}");
            Ok(())
        })?;
        for path in ["/healthz?full=1", "/other"] {
            let answer = ask(dial_from_node(pod.at(HTTP)), &format!("GET {path}"));
            ensure!(is_let_in(&answer), "{answer}");
        }
        let seen = |child: std::process::Child| -> Result<serde_json::Value> {
            Ok(serde_json::from_slice(&child.wait_with_output()?.stdout)?)
        };
        let (with, without) = (seen(with)?, seen(without)?);
        ensure!(with["path"] == "/healthz?full=1" && with["probe"] == true, "{with}");
        ensure!(without["path"] == "/other" && without["probe"].is_null(), "{without}");
        Ok(())
    });
}

/// A control group as the kubelet makes it for a pod.
struct PodGroup(Vec<PathBuf>);

impl PodGroup {
    fn new(label: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        });
        let top = root.context("no cgroup2")?.join(format!("weft-{label}"));
        let group = top.join("pod0f6b1f9e-2a30-4c7e-9d55-7a3c1f0e8b11");
        fs::create_dir_all(&group)?;
        Ok(Self(vec![group, top]))
    }
}

impl Drop for PodGroup {
    fn drop(&mut self) {
        for group in &self.0 {
            fs::remove_dir(group).ok();
        }
    }
}

#[test]
fn a_pod_on_the_nodes_network_is_not_the_node() {
    story(|mesh| {
        let pod = probed(mesh)?;
        mesh.apply_now("rule", STRICT)?;
        let group = PodGroup::new(mesh.world().label())?;
        let to: SocketAddr = pod.at(HTTP);
        let curl = |join: &str| -> Result<String> {
            let words =
                format!("{join} exec curl -s -o /dev/null -w '%{{http_code}}' 'http://{to}/healthz?full=1'");
            Ok(process::Output::of(Command::new("sh").args(["-c", &words]))?.stdout)
        };
        let join = format!("echo $$ >{}/cgroup.procs &&", group.0[0].display());
        // Before the node's own has been seen, and after.
        for _ in 0..2 {
            let code = curl(&join)?;
            ensure!(code == "000", "a pod on the node's network hears {code}");
            let code = curl("")?;
            ensure!(code == "200", "the node hears {code}");
        }
        Ok(())
    });
}
