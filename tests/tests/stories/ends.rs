//! Pods that end: whoever has a connection to them hears of it, as without a mesh.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weft_tests::{Mesh, eventually, story};

use crate::cni::plugin;

/// For an answer, or an end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Somebody outside of the mesh, and the connection that he keeps.
struct Caller(BufReader<TcpStream>);

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// It is the last on its connection.
    closes: bool,
}

impl Caller {
    fn of(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn say(&mut self, path: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: www.shop.test\r\n\r\n");
        Ok(self.0.get_mut().write_all(request.as_bytes())?)
    }

    fn ask(&mut self, path: &str) -> Result<Answer> {
        self.say(path)?;
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "{path}: no answer, after {head:?}");
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let length = header("content-length").unwrap_or("0").parse()?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let status = head[0].split(' ').nth(1).context("no status")?.parse()?;
        Ok(Answer { status, closes: header("connection") == Some("close") })
    }

    /// Fails unless the other end closes, or has.
    fn hears_the_end(mut self) -> Result<()> {
        match self.0.read(&mut [0]) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Ok(_) => bail!("more is said"),
            Err(error) => bail!("no end is heard: {error}"),
        }
    }
}

/// A program that serves HTTP, and one that sends bytes back, in one pod.
fn web(mesh: &Mesh, node: &str) -> Result<()> {
    let pod = mesh.pod("web").label("app", "web").node(node).app(["echo", "--port", "8080"]).start()?;
    pod.app(&["tcp-echo", "--port", "9000"])?;
    mesh.service("web").selector("app", "web").port("http", 80, 8080).port("tcp", 81, 9000).create()
}

/// Has the API server say that the pod's deletion was asked for.
fn ask_for_deletion(mesh: &Mesh, pod: &str) -> Result<()> {
    let manifest = std::fs::read_to_string(mesh.pod_file(pod))?;
    let named = format!("  name: {pod}\n");
    let ending = format!("{named}  deletionTimestamp: \"2026-01-01T00:00:00Z\"\n");
    mesh.apply(&format!("pods/{pod}"), &manifest.replacen(&named, &ending, 1))?;
    mesh.wait_applied()
}

#[test]
fn idle_callers_hear_that_the_program_is_gone() {
    story(|mesh| {
        web(mesh, "node-a")?;
        mesh.start_agent()?;
        let web = mesh.the("web")?;
        let mut callers = [Caller::of(web.at(8080))?, Caller::of(web.at6(8080))?];
        for caller in &mut callers {
            let answer = caller.ask("/")?;
            ensure!(answer.status == 200 && !answer.closes, "{answer:?}");
        }
        web.stop();
        callers.into_iter().try_for_each(Caller::hears_the_end)
    });
}

#[test]
fn a_program_that_closes_its_connections_and_listens_on_closes_none_of_its_callers() {
    story(|mesh| {
        web(mesh, "node-a")?;
        mesh.start_agent()?;
        let mut caller = Caller::of(mesh.the("web")?.at(8080))?;
        // The program closes the connection that it has; until the slow answer it was looked whether it is there.
        for (path, status) in [("/close", 503), ("/sleep/1300", 200), ("/", 200)] {
            let answer = caller.ask(path)?;
            ensure!(answer.status == status && !answer.closes, "{path}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn a_pod_that_is_being_ended_answers_for_the_last_time() {
    story(|mesh| {
        web(mesh, "node-a")?;
        mesh.start_agent()?;
        let web = mesh.the("web")?;
        let (mut busy, mut idle) = (Caller::of(web.at(8080))?, Caller::of(web.at(8080))?);
        ensure!(!busy.ask("/")?.closes);
        // The program has closed what this one's requests went by.
        ensure!(idle.ask("/close")?.status == 503);
        ask_for_deletion(mesh, "web")?;
        let mut late = Caller::of(web.at(8080))?;
        for caller in [&mut busy, &mut late] {
            let answer = caller.ask("/")?;
            ensure!(answer.status == 200 && answer.closes, "{answer:?}");
        }
        busy.hears_the_end()?;
        late.hears_the_end()?;
        web.stop();
        idle.hears_the_end()
    });
}

#[test]
fn when_a_pods_network_goes_everybody_is_told_before() {
    story(|mesh| {
        web(mesh, "node-a")?;
        mesh.start_agent()?;
        let (web, stranger) = (mesh.the("web")?, mesh.outsider("stranger")?);
        let (mut idle, mut waiting) = (Caller::of(web.at(8080))?, Caller::of(web.at(8080))?);
        ensure!(idle.ask("/")?.status == 200);
        waiting.say("/hang")?;
        let mut bytes = TcpStream::connect(web.at(9000))?;
        bytes.set_read_timeout(Some(PATIENCE))?;
        bytes.write_all(b"x")?;
        bytes.read_exact(&mut [0])?;
        // And one that a program of the pod has opened.
        let listener = stranger.listen(7000)?;
        let mut from_inside = web.connect(stranger.at(7000))?;
        from_inside.write_all(b"x")?;
        let (mut heard, _) = listener.accept()?;
        heard.read_exact(&mut [0])?;
        // Another sandbox of the same name goes: nobody is concerned.
        ensure!(plugin(mesh, "DEL", &stranger, false)?.good);
        ensure!(idle.ask("/")?.status == 200);

        let answer = plugin(mesh, "DEL", &web, false)?;
        println!("DEL answered after {:?}", answer.took);
        ensure!(answer.good);
        for stream in [bytes, heard] {
            Caller(BufReader::new(stream)).hears_the_end()?;
        }
        idle.hears_the_end()?;
        waiting.hears_the_end()
    });
}

#[test]
fn what_agents_keep_open_to_a_pod_of_another_node_ends_with_it() {
    story(|mesh| {
        web(mesh, "node-a")?;
        mesh.pod("client").node("node-b").start()?;
        mesh.start_agents(&["node-a", "node-b"])?;
        mesh.wait_applied()?;
        ensure!(mesh.get("client", "http://web/")?.status == 200);
        let tunnels =
            || mesh.exec("client", &["ss", "-Htn", "state", "established", "dport = :15008"])?.good();
        ensure!(!tunnels()?.is_empty(), "nothing is kept: this story looks at the wrong places");
        ensure!(plugin(mesh, "DEL", &*mesh.the("web")?, false)?.good);
        eventually("the tunnels' end", PATIENCE, || {
            let open = tunnels()?;
            ensure!(open.is_empty(), "{open}");
            Ok(())
        })
    });
}

#[test]
fn a_gateway_says_whether_it_is_served_and_sends_its_callers_away_before_it_ends() {
    story(|mesh| {
        web(mesh, "node-a")?;
        mesh.pod("gateway").label("istio", "ingressgateway").node("node-a").start()?;
        mesh.service("ingress").selector("istio", "ingressgateway").port("http2", 80, 8080).create()?;
        mesh.apply(
            "gateway",
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: shop, namespace: default}\nspec:\n  \
             selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]\n\
             ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: shop, namespace: default}\nspec:\n  \
             hosts: ['*']\n  gateways: [shop]\n  http: [{route: [{destination: {host: web}}]}]\n",
        )?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let gateway = mesh.the("gateway")?;
        let (mut busy, mut idle) = (Caller::of(gateway.at(8080))?, Caller::of(gateway.at(8080))?);
        for caller in [&mut busy, &mut idle] {
            let answer = caller.ask("/")?;
            ensure!(answer.status == 200 && !answer.closes, "{answer:?}");
        }
        let health = || weft_tests::get(gateway.at(15021), "/healthz/ready");
        ensure!(health()?.0 == 200, "{:?}", health()?);
        ask_for_deletion(mesh, "gateway")?;
        ensure!(health()?.0 == 503, "{:?}", health()?);
        let answer = busy.ask("/")?;
        ensure!(answer.status == 200 && answer.closes, "{answer:?}");
        busy.hears_the_end()?;
        ensure!(plugin(mesh, "DEL", &gateway, false)?.good);
        idle.hears_the_end()
    });
}
