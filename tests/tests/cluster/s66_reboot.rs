//! Scenario 6, a node that reboots: what is asked of its pods, and what they send, from before the boot until its agent is
//! back, or while it does not come back at all.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Cluster, Namespace, cluster_story};

use crate::apps::App;
use crate::mesh::{STRICT, in_mesh};

/// The node that reboots, and its pods' addresses without their last number.
const NODE: &str = "n2";
const PODS: [u8; 3] = [10, 245, 2];
/// The machine's address, as pods reach it.
const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// So many addresses after the last one that was given are asked.
const ADDRESSES: u8 = 24;
const PORT: u16 = 8080;
/// Between two questions to an address.
const PERIOD: Duration = Duration::from_millis(20);
/// For an answer.
const PATIENCE: Duration = Duration::from_millis(300);
const LAST_KNOWN: &str = "/etc/cni/net.d/weft-cni.last-known";

/// Asks all addresses in plain text, and takes what pods send.
struct Watch {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    seen: Arc<Seen>,
    address: SocketAddr,
}

#[derive(Default)]
struct Seen {
    /// Answers in plain text, by who gave them, with the seconds of the first and of the last.
    answered: Mutex<BTreeMap<String, (u64, f32, f32)>>,
    refused: AtomicU64,
    /// What arrived from pods without having gone through an agent, by address.
    past: Mutex<BTreeMap<IpAddr, u64>>,
    through: AtomicU64,
}

impl Watch {
    /// What pods send is taken from now on.
    fn start() -> Result<Self> {
        let seen = Arc::<Seen>::default();
        let ended = Arc::<AtomicBool>::default();
        let listener = TcpListener::bind((MACHINE, 0))?;
        let address = listener.local_addr()?;
        let taking = {
            let (seen, ended) = (seen.clone(), ended.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let seen = seen.clone();
                    std::thread::spawn(move || take(stream, &seen));
                }
            })
        };
        Ok(Self { ended, threads: vec![taking], seen, address })
    }

    /// Asks these addresses from now on.
    fn ask(&mut self, first: u8) {
        let begun = Instant::now();
        for last in first..=first.saturating_add(ADDRESSES) {
            let (seen, ended) = (self.seen.clone(), self.ended.clone());
            let address = SocketAddr::from(([PODS[0], PODS[1], PODS[2], last], PORT));
            self.threads.push(std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    ask(address, &seen, begun);
                    std::thread::sleep(PERIOD);
                }
            }));
        }
    }

    /// What was sent before the node went off, when its pods came into the mesh and left it, is not asked for.
    fn forget_sent(&self) {
        self.seen.through.store(0, Ordering::Relaxed);
        self.seen.past.lock().expect("no panic").clear();
    }

    fn end(self) -> Arc<Seen> {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        for thread in self.threads {
            thread.join().expect("no panic");
        }
        self.seen
    }
}

fn ask(address: SocketAddr, seen: &Seen, begun: Instant) {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        // What comes in time counts.
        let _ = stream.take(4096).read_to_string(&mut answer);
        Ok(answer)
    };
    match answer() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
            let app = answer.lines().find_map(|line| line.strip_prefix("x-app: "));
            let at = begun.elapsed().as_secs_f32();
            let mut all = seen.answered.lock().expect("no panic");
            let (count, _, last) = all.entry(app.unwrap_or("?").to_owned()).or_insert((0, at, at));
            (*count, *last) = (*count + 1, at);
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            seen.refused.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// Takes a pod's request: only its own agent counts the attempts of one that is for a Service, as this is.
fn take(mut stream: TcpStream, seen: &Seen) {
    let mut head = [0; 4096];
    let Ok(length) = stream.read(&mut head) else { return };
    let head = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
    if !head.starts_with("get /") {
        return;
    }
    match stream.peer_addr() {
        Ok(peer) if !head.contains("x-envoy-attempt-count") => {
            *seen.past.lock().expect("no panic").entry(peer.ip()).or_default() += 1;
        }
        _ => _ = seen.through.fetch_add(1, Ordering::Relaxed),
    }
    std::thread::sleep(PERIOD);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

/// Six servers in the mesh, which answer nobody without an identity, and one pod that asks from its first moment on; two
/// servers outside.
struct Pods {
    mesh: Namespace,
    bare: Namespace,
}

const READY: &str = "Ready";

impl Pods {
    fn deploy(cluster: &Cluster, name: &str, machine: SocketAddr) -> Result<Self> {
        let (mesh, bare) = (cluster.namespace(name)?, cluster.namespace(&format!("{name}-bare"))?);
        mesh.join_mesh()?;
        mesh.apply(STRICT)?;
        // Past the mesh, the Service's address leads to the machine as well.
        let port = machine.port();
        mesh.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: machine}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: machine, labels: {{kubernetes.io/service-name: machine}}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: {port}}}]\nendpoints: [{{addresses: [{MACHINE}], conditions: {{ready: true}}}}]\n"
        ))?;
        let address = mesh.service_address("machine")?;
        mesh.apply(&App::new("server", &["echo"], PORT).replicas(6).on(NODE).yaml())?;
        mesh.apply(&format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: asker}}, spec: {{selector: {{matchLabels: {{app: asker}}}}, \
             template: {{metadata: {{labels: {{app: asker}}}}, spec: {{nodeName: {NODE}, terminationGracePeriodSeconds: 1, \
             containers: [{{name: app, image: weft.dev/app:0.1.0, imagePullPolicy: IfNotPresent, \
             args: [load, 'http://{address}/', -H, 'host: machine', --close, --seconds, '3600']}}]}}}}}}}}"
        ))?;
        bare.apply(&App::new("bare", &["echo"], PORT).replicas(2).on(NODE).yaml())?;
        for (namespace, name) in [(&mesh, "server"), (&mesh, "asker"), (&bare, "bare")] {
            namespace.rolled_out(&format!("deployment/{name}"))?;
        }
        let pods = Self { mesh, bare };
        pods.mesh.eventually("in the mesh", Duration::from_secs(15), || {
            in_mesh(&pods.mesh, &pods.mesh.pods("app")?, true)
        })?;
        Ok(pods)
    }

    /// Waits until the pods of a namespace run in new containers and are ready; answers how long that takes.
    fn ready_anew(namespace: &Namespace, before: &[String], since: Instant) -> Result<Duration> {
        namespace.eventually("ready again", Duration::from_mins(3), || {
            let list = namespace.get(&["pods"])?;
            for pod in list["items"].as_array().into_iter().flatten() {
                let name = &pod["metadata"]["name"];
                let container = pod["status"]["containerStatuses"][0]["containerID"].as_str();
                let container = container.with_context(|| format!("{name} has no container"))?;
                ensure!(!before.iter().any(|old| container.ends_with(old)), "{name} is as before");
                ensure!(condition(pod, READY).is_some_and(|ready| ready == "True"), "{name} is not ready");
            }
            Ok(since.elapsed())
        })
    }

    fn containers(namespace: &Namespace) -> Result<Vec<String>> {
        Ok(namespace.pods("app")?.into_iter().map(|pod| pod.container).collect())
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let all = pod["status"]["conditions"].as_array()?;
    all.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// The last address that the node's network has given.
fn last_address(cluster: &Cluster) -> Result<u8> {
    let said =
        cluster.on_node(NODE, &["sh", "-c", "cat /var/lib/cni/networks/*/last_reserved_ip.0"])?.good()?;
    said.trim()
        .rsplit('.')
        .next()
        .and_then(|last| last.parse().ok())
        .with_context(|| format!("no address: {said}"))
}

/// Fails if anybody outside was answered, or anything was sent, past the mesh.
fn none_past_the_mesh(pods: &Pods, watch: Watch) -> Result<()> {
    pods.mesh.eventually("requests through the agent", Duration::from_secs(30), || {
        ensure!(watch.seen.through.load(Ordering::Relaxed) > 0, "none yet");
        Ok(())
    })?;
    let seen = watch.end();
    let answered = seen.answered.lock().expect("no panic").clone();
    let past = seen.past.lock().expect("no panic").clone();
    println!(
        "answered in plain text: {answered:?}; {} refused; past an agent: {past:?}; through one: {}",
        seen.refused.load(Ordering::Relaxed),
        seen.through.load(Ordering::Relaxed)
    );
    ensure!(answered.keys().any(|name| name.starts_with("bare")), "the wrong addresses are asked");
    ensure!(seen.refused.load(Ordering::Relaxed) > 0, "nobody refused: the wrong addresses are asked");
    ensure!(answered.keys().all(|name| name.starts_with("bare")), "pods of the mesh answered: {answered:?}");
    ensure!(past.is_empty(), "sent past the mesh: {past:?}");
    Ok(())
}

/// Reboots the node and waits until all is as before; `off` is done while it is off.
fn reboot(cluster: &Cluster, name: &str, off: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut watch = Watch::start()?;
    let pods = Pods::deploy(cluster, name, watch.address)?;
    let (mesh, bare) = (Pods::containers(&pods.mesh)?, Pods::containers(&pods.bare)?);
    let first = last_address(cluster)?;
    cluster.stop_node(NODE)?;
    watch.forget_sent();
    off()?;
    watch.ask(first);
    let boot = Instant::now();
    cluster.start_node(NODE)?;
    let (with, without) = std::thread::scope(|scope| {
        let with = scope.spawn(|| Pods::ready_anew(&pods.mesh, &mesh, boot));
        let without = scope.spawn(|| Pods::ready_anew(&pods.bare, &bare, boot));
        (with.join().expect("no panic"), without.join().expect("no panic"))
    });
    let (with, without) = (with?, without?);
    println!(
        "ready after boot: {:.1} s in the mesh, {:.1} s outside",
        with.as_secs_f32(),
        without.as_secs_f32()
    );
    pods.mesh.eventually("in the mesh", Duration::from_mins(1), || {
        in_mesh(&pods.mesh, &pods.mesh.pods("app")?, true)
    })?;
    none_past_the_mesh(&pods, watch)
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn from_a_boot_on_no_pod_of_the_mesh_is_open() {
    cluster_story(|cluster| reboot(cluster, "s66-reboot", || Ok(())));
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn nor_where_what_its_agent_knew_is_broken() {
    cluster_story(|cluster| {
        // The node's disk, as it is found where nothing of the node runs.
        let disk = format!(
            "/var/lib/weft-cluster/{NODE}/cni-conf/{}",
            LAST_KNOWN.rsplit('/').next().unwrap_or_default()
        );
        reboot(cluster, "s66-broken", || {
            ensure!(std::path::Path::new(&disk).exists(), "{disk} is not there");
            Ok(std::fs::write(&disk, "{\"version\":1,\"known\":{\"names")?)
        })
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn nor_where_its_agent_does_not_come_back() {
    cluster_story(|cluster| {
        let mut watch = Watch::start()?;
        let pods = Pods::deploy(cluster, "s66-missing", watch.address)?;
        let (mesh, bare) = (Pods::containers(&pods.mesh)?, Pods::containers(&pods.bare)?);
        let first = last_address(cluster)?;
        cluster.stop_node(NODE)?;
        watch.forget_sent();
        // What starts anew on that node finds no image; n1's agent goes on.
        let image = "agent=localhost:1/nobody-has-this:1";
        let set = ["--namespace=weft-system", "daemonset/weft-agent"];
        let before = cluster.get(&set)?["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        let before = format!("agent={}", before.as_str().context("no image")?);
        cluster.kubectl(&[&["patch"], &set[..], &["--type=json", "--patch", ON_DELETE]].concat())?;
        cluster.kubectl(&[&["set", "image"], &set[..], &[image]].concat())?;
        let agent = crate::s60_agents::agent_on(cluster, NODE)?;
        cluster.kubectl(&[
            "delete",
            "pod",
            "--namespace=weft-system",
            &agent,
            "--grace-period=0",
            "--force",
        ])?;
        watch.ask(first);
        let boot = Instant::now();
        cluster.start_node(NODE)?;
        let without = Pods::ready_anew(&pods.bare, &bare, boot)?;
        println!("ready after boot, outside of the mesh: {:.1} s", without.as_secs_f32());
        pods.mesh.eventually("running, and closed", Duration::from_mins(2), || {
            let now = Pods::containers(&pods.mesh)?;
            ensure!(now.len() == mesh.len() && now.iter().all(|one| !mesh.contains(one)), "not all are new");
            Ok(())
        })?;
        pods.mesh.eventually("nobody says that they are in the mesh", Duration::from_mins(1), || {
            let list = pods.mesh.get(&["pods"])?;
            for pod in list["items"].as_array().into_iter().flatten() {
                let said = condition(pod, "weft.dev/Enrolled");
                ensure!(said == Some("Unknown"), "{}: {said:?}", pod["metadata"]["name"]);
            }
            Ok(())
        })?;
        println!("all conditions Unknown {:.1} s after the boot", boot.elapsed().as_secs_f32());
        // Another moment: they run, and nobody looks after them.
        std::thread::sleep(Duration::from_secs(5));
        cluster.kubectl(&[&["set", "image"], &set[..], &[&*before]].concat())?;
        cluster.kubectl(&[&["patch"], &set[..], &["--type=json", "--patch", ROLLING]].concat())?;
        let with = Pods::ready_anew(&pods.mesh, &mesh, Instant::now())?;
        println!("in the mesh and ready {:.1} s after there was an image", with.as_secs_f32());
        pods.mesh.eventually("in the mesh", Duration::from_mins(1), || {
            in_mesh(&pods.mesh, &pods.mesh.pods("app")?, true)
        })?;
        none_past_the_mesh(&pods, watch)
    });
}

/// Agents are left alone when their template changes.
const ON_DELETE: &str =
    r#"[{"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "OnDelete"}}]"#;
/// As installed.
const ROLLING: &str = r#"[{"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}]"#;
