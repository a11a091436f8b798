//! One agent takes over from another under load; or fails to.

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use weft_tests::{Agent, Daemon, LoadReport, Mesh, eventually, get, story};

use crate::deploy;

/// For an agent that has handed over to end, once nothing keeps it.
const END: Duration = Duration::from_secs(10);

/// Connections that say something now and then, for as long as this lives.
struct LongLived {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u32>>>,
}

impl LongLived {
    /// Opens `count` connections from `client` to an echo server.
    fn open(mesh: &Mesh, client: &str, to: SocketAddr, count: usize) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let mut threads = Vec::new();
        for index in 0..count {
            let stream = mesh.the(client)?.connect(to)?;
            let stop = stop.clone();
            threads.push(std::thread::spawn(move || talk(stream, index, &stop)));
        }
        Ok(Self { stop, threads })
    }

    /// Closes them; fails if any was cut.
    fn close(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.threads.len();
        let said = self.threads.into_iter().map(|thread| thread.join().expect("no panic"));
        let said = said.collect::<Result<Vec<_>>>()?;
        println!("{count} long connections: {} messages there and back, none cut", said.iter().sum::<u32>());
        ensure!(said.iter().all(|said| *said > 3), "some said little: {said:?}");
        Ok(())
    }
}

fn talk(mut stream: TcpStream, index: usize, stop: &AtomicBool) -> Result<u32> {
    let mut said = 0;
    while !stop.load(Ordering::Relaxed) {
        let message = format!("{index}:{said:08}");
        let mut answer = vec![0; message.len()];
        let exchanged = stream.write_all(message.as_bytes()).and_then(|()| stream.read_exact(&mut answer));
        exchanged.with_context(|| format!("connection {index} was cut after {said} messages"))?;
        ensure!(answer == message.as_bytes(), "{:?} for {message}", String::from_utf8_lossy(&answer));
        said += 1;
        // Not a wait for anything: it is to say something only now and then.
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(said)
}

fn all_good(what: &str, report: &LoadReport) -> Result<()> {
    println!(
        "{what}: {} requests, {} failed, longest gap {:.0} ms, p99 {:.1} ms",
        report.requests, report.failed, report.longest_gap_ms, report.p99_ms
    );
    report.none_failed().map(drop)
}

/// Waits for agents that have handed over, which must end well.
fn end_well(before: Vec<Daemon>) -> Result<()> {
    for mut daemon in before {
        let code = daemon.wait(END)?;
        ensure!(code == 0, "exit code {code}: {}", daemon.errors());
    }
    Ok(())
}

fn still_run(before: &mut [Daemon]) -> Result<()> {
    for daemon in before {
        ensure!(daemon.ended()?.is_none(), "it ended with connections open: {}", daemon.errors());
    }
    Ok(())
}

/// Requests counted by the agent that runs now.
fn counted(mesh: &Mesh, node: &str) -> Result<u64> {
    let metrics = mesh.with_agent_of(node, |agent| agent.metrics())?;
    Ok(metrics.count("istio_requests_total", &[]))
}

/// Waits until the agent that runs now has served so many requests more.
fn serves(mesh: &Mesh, node: &str, more: u64) -> Result<()> {
    let before = counted(mesh, node)?;
    eventually("requests served", Duration::from_secs(10), || {
        let now = counted(mesh, node)?;
        ensure!(now >= before + more, "{node}: {now} requests after {before}");
        Ok(())
    })
}

/// Waits until an agent has written this to its log.
fn says(agent: &Daemon, what: &str) -> Result<()> {
    eventually(what, Duration::from_secs(10), || {
        ensure!(agent.errors().contains(what), "{}", agent.errors());
        Ok(())
    })
}

#[test]
fn under_load_an_upgrade_cuts_nothing_and_refuses_nothing() {
    story(|mesh| {
        mesh.pod("tcp").label("app", "tcp").app(["tcp-echo", "--port", "7000"]).start()?;
        mesh.service("tcp").selector("app", "tcp").port("tcp", 7000, 7000).create()?;
        deploy::echo(mesh)?;
        let load = mesh.load("client", &["http://echo/", "-c", "32"])?;
        let fresh = mesh.load("client", &["http://echo/fresh", "-c", "4", "--close"])?;
        let h2 = mesh.load("client", &["http://echo-grpc/h2", "-c", "4", "--h2"])?;
        let long = LongLived::open(mesh, "client", mesh.service_at("tcp", 7000)?, 16)?;
        serves(mesh, "node-a", 100)?;
        let mut before = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            before.push(mesh.with_agent(|agent| agent.upgrade(&[]))?);
            println!("taken over {:?} after the start", start.elapsed());
            serves(mesh, "node-a", 100)?;
        }
        still_run(&mut before[..1])?;
        // What changes now reaches connections of both.
        deploy::route(mesh, "- route:\n  - destination: {host: echo, subset: v2}\n")?;
        serves(mesh, "node-a", 100)?;
        all_good("32 connections", &load.finish()?)?;
        all_good("a connection for each request", &fresh.finish()?)?;
        all_good("HTTP/2", &h2.finish()?)?;
        still_run(&mut before[..1])?;
        long.close()?;
        end_well(before)?;
        // With it goes everything, as if there had been one agent only.
        let (code, bpf_dir, run_dir) = mesh.with_agent(|agent| {
            Ok((agent.terminate()?, agent.bpf_dir().to_path_buf(), agent.run_dir().to_path_buf()))
        })?;
        ensure!(code == 0 && !bpf_dir.exists(), "exit code {code}, or pins are left");
        let left: Vec<_> = std::fs::read_dir(&run_dir)?.flatten().map(|entry| entry.path()).collect();
        ensure!(left.is_empty(), "left in the run directory: {left:?}");
        let rules = mesh.exec("client", &["ip", "rule"])?.good()?;
        ensure!(!rules.contains("15006"), "rules are left: {rules}");
        Ok(())
    });
}

#[test]
fn both_nodes_are_upgraded_in_turn_under_load() {
    story(|mesh| {
        mesh.pod("client").node("n1").service_account("client").start()?;
        for version in ["v1", "v2"] {
            let pod = mesh.pod(&format!("echo-{version}")).node("n2").label("app", "echo");
            pod.label("version", version).app(["echo", "--port", "8080"]).start()?;
        }
        mesh.service("echo").selector("app", "echo").port("http", 80, 8080).create()?;
        mesh.service("echo-grpc").selector("app", "echo").port("grpc", 80, 8080).create()?;
        mesh.pod("tcp").node("n2").label("app", "tcp").app(["tcp-echo", "--port", "7000"]).start()?;
        mesh.service("tcp").selector("app", "tcp").port("tcp", 7000, 7000).create()?;
        mesh.start_agents(&["n1", "n2"])?;
        mesh.wait_applied()?;
        let load = mesh.load("client", &["http://echo/", "-c", "32"])?;
        let fresh = mesh.load("client", &["http://echo/fresh", "-c", "4", "--close"])?;
        let h2 = mesh.load("client", &["http://echo-grpc/h2", "-c", "4", "--h2"])?;
        let long = LongLived::open(mesh, "client", mesh.service_at("tcp", 7000)?, 16)?;
        serves(mesh, "n1", 100)?;
        let mut before = Vec::new();
        for node in ["n2", "n1", "n2", "n1"] {
            let start = Instant::now();
            before.push(mesh.with_agent_of(node, |agent| agent.upgrade(&[]))?);
            println!("{node}: taken over {:?} after the start", start.elapsed());
            // Requests are read where they come from.
            serves(mesh, "n1", 100)?;
        }
        still_run(&mut before[..2])?;
        long.close()?;
        // Requests go on, and nothing of them is left where the agents are to end.
        end_well(before)?;
        all_good("32 connections", &load.finish()?)?;
        all_good("a connection for each request", &fresh.finish()?)?;
        all_good("HTTP/2", &h2.finish()?)?;
        Ok(())
    });
}

/// A successor as far as its predecessor can tell.
struct Pretender(OwnedFd);

impl Pretender {
    fn greet(run_dir: &Path, hello: &Value) -> Result<(Self, Value)> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(run_dir.join("handover.sock"))?)?;
        let pretender = Self(socket);
        pretender.say(&json!({ "hello": hello }))?;
        let (welcome, _) = pretender.hear()?;
        Ok((pretender, welcome))
    }

    fn say(&self, message: &Value) -> Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut nothing, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message, and how many files came with it. They are closed.
    fn hear(&self) -> Result<(Value, usize)> {
        let mut bytes = vec![0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.0, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let files = control.drain().map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(files) => files.count(),
            _ => 0,
        });
        let files = files.sum();
        Ok((serde_json::from_slice(&bytes[..received.bytes])?, files))
    }
}

#[test]
fn a_successor_that_dies_half_way_changes_nothing() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let load = mesh.load("client", &["http://echo/", "-c", "32"])?;
        let fresh = mesh.load("client", &["http://echo/fresh", "-c", "4", "--close"])?;
        let (run_dir, bpf_dir, readiness) = mesh.with_agent(|agent| {
            Ok((agent.run_dir().to_path_buf(), agent.bpf_dir().to_path_buf(), agent.readiness_address()))
        })?;
        let ready = |wanted: u16| {
            eventually("readiness", Duration::from_secs(5), || {
                let (status, body) = get(readiness, "/healthz/ready")?;
                ensure!(status == wanted, "{status}: {body}");
                Ok(())
            })
        };
        let hello = json!({"protocol": 1, "version": "0", "layout": 2, "node": "node-a", "bpfDir": bpf_dir});
        for handed in [false, true] {
            let (pretender, welcome) = Pretender::greet(&run_dir, &hello)?;
            ensure!(welcome["welcome"]["doors"].is_array(), "{welcome}");
            // Whoever asks at the node's port means the one that is coming.
            ready(503)?;
            if handed {
                pretender.say(&json!("ask"))?;
                let mut files = 0;
                loop {
                    let (message, more) = pretender.hear()?;
                    files += more;
                    if message == json!("end") {
                        break;
                    }
                }
                println!("{files} files were handed over to somebody who dies");
                ensure!(files > 3 * 4, "three pods have more listeners");
            }
            // The one that was asked serves on.
            serves(mesh, "node-a", 100)?;
            drop(pretender);
            ready(200)?;
        }
        for (key, value) in [("protocol", json!(9)), ("layout", json!(9)), ("node", json!("other"))] {
            let mut hello = hello.clone();
            hello[key] = value;
            let (_, answer) = Pretender::greet(&run_dir, &hello)?;
            ensure!(answer["refused"].is_string(), "{key}: {answer}");
        }
        // A real one that is killed while it prepares.
        for stage in ["", "taking over from", "has started"] {
            let mut daemon =
                mesh.with_agent(|agent| agent.beside(&["--ca-address", "http://127.0.0.1:1"]))?;
            says(&daemon, stage)?;
            ensure!(daemon.ended()?.is_none(), "{}", daemon.errors());
        }
        mesh.with_agent(Agent::ready)?;
        let before = mesh.with_agent(|agent| agent.upgrade(&[]))?;
        end_well(vec![before])?;
        all_good("32 connections", &load.finish()?)?;
        all_good("a connection for each request", &fresh.finish()?)
    });
}

#[test]
fn a_successor_with_a_broken_configuration_ends_and_the_agent_serves_on() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let load = mesh.load("client", &["http://echo/", "-c", "32"])?;
        let broken_ca = mesh.world().dir().join("broken-ca");
        std::fs::create_dir_all(&broken_ca)?;
        std::fs::write(broken_ca.join("ca-key.pem"), "no key")?;
        std::fs::write(broken_ca.join("ca-cert.pem"), "no certificate")?;
        let ca = broken_ca.display().to_string();
        let mut daemon = mesh.with_agent(|agent| agent.beside(&["--ca-dir", &ca]))?;
        let code = daemon.wait(Duration::from_secs(20))?;
        println!("{code}: {}", daemon.errors().lines().last().unwrap_or_default());
        ensure!(code == 1, "{code}: {}", daemon.errors());
        mesh.with_agent(Agent::ready)?;
        serves(mesh, "node-a", 100)?;
        all_good("32 connections", &load.finish()?)
    });
}

#[test]
fn without_take_over_a_second_agent_is_refused() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let (run_dir, bpf_dir) = mesh.with_agent(|agent| {
            Ok((agent.run_dir().display().to_string(), agent.bpf_dir().display().to_string()))
        })?;
        let dir = mesh.manifests().display().to_string();
        let flags = ["--standalone", &dir, "--run-dir", &run_dir, "--bpf-dir", &bpf_dir];
        let output = mesh.weft_alone(&[&["agent"][..], &flags].concat())?;
        ensure!(output.code == 1 && output.stderr.contains("--take-over"), "{output:?}");
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        Ok(())
    });
}

#[test]
fn a_successor_that_dies_leaves_pods_closed_and_old_connections_alive() {
    story(|mesh| {
        mesh.pod("tcp").label("app", "tcp").app(["tcp-echo", "--port", "7000"]).start()?;
        mesh.service("tcp").selector("app", "tcp").port("tcp", 7000, 7000).create()?;
        deploy::echo(mesh)?;
        let long = LongLived::open(mesh, "client", mesh.service_at("tcp", 7000)?, 4)?;
        let mut before = mesh.with_agent(|agent| agent.upgrade(&[]))?;
        mesh.with_agent(Agent::kill)?;
        let direct = format!("http://{}/leak", mesh.the("echo-v1")?.at(8080));
        for url in ["http://echo/leak", &direct] {
            let outcome = mesh.http("client", url)?.flag("--max-time").flag("2").send();
            ensure!(outcome.is_err(), "{outcome:?} without an agent");
        }
        ensure!(deploy::hits(mesh, "echo-v1", "/leak").is_err(), "a pod is open");
        let start = Instant::now();
        mesh.with_agent(Agent::spawn)?;
        eventually("back", Duration::from_secs(10), || {
            let answer = mesh.http("client", "http://echo/")?.flag("--max-time").flag("1").send()?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        println!("answered {:?} after the start of the next", start.elapsed());
        mesh.with_agent(Agent::ready)?;
        ensure!(before.ended()?.is_none(), "{}", before.errors());
        long.close()?;
        end_well(vec![before])
    });
}

#[test]
fn killed_instead_it_fails_closed_and_the_one_that_was_to_follow_is_there_at_once() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let load = mesh.load("client", &["http://echo/", "-c", "32"])?;
        // A successor that is not prepared yet: it waits for certificates that nobody gives.
        let mut successor = mesh.with_agent(|agent| agent.beside(&["--ca-address", "http://127.0.0.1:1"]))?;
        says(&successor, "has started")?;
        mesh.with_agent(Agent::kill)?;
        let killed = Instant::now();
        eventually("back", Duration::from_secs(10), || {
            let answer = mesh.http("client", "http://echo/")?.flag("--max-time").flag("1").send()?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        let gap = killed.elapsed();
        let report = load.finish()?;
        println!("{}", successor.errors());
        println!(
            "killed: answered after {gap:?}; {} of {} requests failed, longest gap {:.0} ms",
            report.failed, report.requests, report.longest_gap_ms
        );
        ensure!(gap < Duration::from_secs(2) && report.longest_gap_ms < 2000.0);
        successor.signal(Signal::TERM)?;
        let code = successor.wait(END)?;
        ensure!(code == 0, "exit code {code}: {}", successor.errors());
        Ok(())
    });
}

#[test]
fn in_a_pod_the_agent_before_waits_for_its_end_and_does_not_take_back() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.start_agent_with("node-a", &["--keep-pinned"])?;
        mesh.wait_applied()?;
        let before = mesh.with_agent(|agent| agent.upgrade(&["--pod-name", "weft-agent-1"]))?;
        // That one was in no pod: it ends when its last connection has.
        end_well(vec![before])?;
        let mut before = mesh.with_agent(|agent| agent.upgrade(&["--pod-name", "weft-agent-2"]))?;
        says(&before, "the last connection has ended")?;
        ensure!(before.ended()?.is_none(), "its container would be started again: {}", before.errors());
        // As the kubelet starts a container again whose pod is still to be deleted.
        let mut again = mesh.with_agent(|agent| agent.beside(&["--pod-name", "weft-agent-1"]))?;
        let code = again.wait(Duration::from_secs(10))?;
        ensure!(code == 1 && again.errors().contains("taken over from this very pod"), "{}", again.errors());
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        before.signal(Signal::TERM)?;
        end_well(vec![before])?;
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        Ok(())
    });
}
