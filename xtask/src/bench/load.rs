//! The programs that make and take load: `wrk` and nginx, `iperf3`, the bench peer.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::figures::{self, Sample};
use super::world::{Pod, World};
use super::{Programs, manifests};

/// Ports of a server pod.
pub const WEB_PORT: u16 = 8080;
pub const STREAM_PORT: u16 = 5201;
pub const ECHO_PORT: u16 = 7000;
pub const GRPC_PORT: u16 = 7001;
pub const TLS_PORT: u16 = 8443;

/// What runs in a server pod.
const SERVERS: [&str; 4] = ["nginx", "iperf3", "peer", "grpc"];

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// HTTP/1.1 requests on this many connections that are kept.
    Http(u32),
    /// The same over TLS.
    Https(u32),
    /// Connections of TLS, each with a full handshake and one request, so many at once, for so many server names by turns.
    Handshakes { at_once: u32, names: u32 },
    /// So many HTTP/1.1 requests a second, on 32 connections that are kept, whether or not they are answered.
    HttpRate(u32),
    /// Unary calls of gRPC, so many at once on each of four connections.
    Grpc(u32),
    /// One TCP stream from the client.
    Stream,
    /// A 64-byte request and its reply, on this many connections that are kept.
    RequestReply(u32),
    /// Connect, request, reply, close; this many at once.
    ConnectRequestClose(u32),
}

impl Load {
    /// Runs in `client` for some seconds, against what answers for this load at `target`.
    pub fn run(
        self,
        world: &World,
        programs: &Programs,
        client: Pod,
        to: &Target,
        seconds: u32,
    ) -> Result<Sample> {
        let seconds = seconds.to_string();
        let from = |program: &Path| world.command(client.name, program);
        match self {
            Self::Handshakes { at_once, names } => {
                let mut peer = from(&programs.peer);
                peer.arg("handshakes").args([
                    "--name",
                    manifests::EDGE_DOMAIN,
                    "--names",
                    &names.to_string(),
                ]);
                peer.args(["--connections", &at_once.to_string(), "--seconds", &seconds]);
                figures::peer(&output(peer.arg(to.https.to_string()))?)
            }
            Self::Http(connections) | Self::Https(connections) => {
                let mut wrk = from(Path::new("wrk"));
                // wrk wants no fewer connections than threads.
                wrk.arg(format!("-t{}", connections.min(2))).arg(format!("-c{connections}"));
                wrk.arg(format!("-d{seconds}s")).arg("--latency");
                wrk.args(["-H", &format!("Host: {}", manifests::HOST), "-H", manifests::MATCHED_HEADER]);
                let url = match self {
                    Self::Https(_) => format!("https://{}/", to.https),
                    _ => format!("http://{}/", to.web),
                };
                figures::wrk(&output(wrk.arg(url))?)
            }
            Self::HttpRate(rate) => {
                let mut peer = from(&programs.peer);
                peer.args(["rate", "--rate", &rate.to_string(), "--seconds", &seconds]);
                peer.args(["--header", &format!("Host: {}", manifests::HOST)]);
                peer.args(["--header", manifests::MATCHED_HEADER]);
                figures::peer(&output(peer.arg(to.web.to_string()))?)
            }
            Self::Grpc(calls) => {
                let mut peer = from(&programs.peer);
                peer.args(["grpc", "--calls", &calls.to_string(), "--seconds", &seconds]);
                peer.args(["--authority", manifests::GRPC_HOST]);
                figures::peer(&output(peer.arg(to.grpc.to_string()))?)
            }
            Self::Stream => {
                let mut iperf3 = from(Path::new("iperf3"));
                iperf3.args(["--json", "--time", &seconds, "--client", &to.stream.ip().to_string()]);
                figures::iperf3(&output(iperf3.args(["--port", &to.stream.port().to_string()]))?)
            }
            Self::RequestReply(connections) | Self::ConnectRequestClose(connections) => {
                let mut peer = from(&programs.peer);
                peer.arg(if matches!(self, Self::RequestReply(_)) { "rr" } else { "crr" });
                peer.args(["--connections", &connections.to_string(), "--seconds", &seconds]);
                figures::peer(&output(peer.arg(to.echo.to_string()))?)
            }
        }
    }
}

/// Where a client finds the servers.
pub struct Target {
    pub web: SocketAddr,
    pub stream: SocketAddr,
    pub echo: SocketAddr,
    pub grpc: SocketAddr,
    pub https: SocketAddr,
}

impl Target {
    /// The servers in a pod, at its own address.
    pub fn pod(pod: Pod) -> Self {
        let at = |port| SocketAddr::from((pod.address, port));
        Self {
            web: at(WEB_PORT),
            stream: at(STREAM_PORT),
            echo: at(ECHO_PORT),
            grpc: at(GRPC_PORT),
            https: at(TLS_PORT),
        }
    }

    /// What agents route to them.
    pub fn services() -> Self {
        let at = |address, port| SocketAddr::from((address, port));
        Self {
            web: at(manifests::WEB_ADDRESS, 80),
            stream: at(manifests::TCP_ADDRESS, STREAM_PORT),
            echo: at(manifests::TCP_ADDRESS, ECHO_PORT),
            grpc: at(manifests::TCP_ADDRESS, GRPC_PORT),
            // Nobody in the mesh asks for that.
            https: at(manifests::WEB_ADDRESS, 443),
        }
    }
}

/// Starts all servers in a pod, and waits until they answer.
pub fn serve(world: &World, programs: &Programs, pod: Pod) -> Result<()> {
    let dir = world.dir(&format!("nginx-{}", pod.name))?;
    certificates(world, programs, pod, &dir, 1)?;
    fs::write(dir.join("nginx.conf"), nginx_conf(&dir, pod))?;
    let mut nginx = world.command(pod.name, Path::new("nginx"));
    nginx.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log"));
    let mut iperf3 = world.command(pod.name, Path::new("iperf3"));
    iperf3.args(["--server", "--port", &STREAM_PORT.to_string()]);
    let mut peer = world.command(pod.name, &programs.peer);
    peer.args(["serve", &SocketAddr::from((pod.address, ECHO_PORT)).to_string()]);
    let mut grpc = world.command(pod.name, &programs.peer);
    grpc.args(["serve-grpc", &SocketAddr::from((pod.address, GRPC_PORT)).to_string()]);
    for (name, command) in SERVERS.iter().zip([&mut nginx, &mut iperf3, &mut peer, &mut grpc]) {
        world.start(&format!("{name}-{}", pod.name), command)?;
    }
    wait_for_listeners(world, pod, &[WEB_PORT, STREAM_PORT, ECHO_PORT, GRPC_PORT])
}

fn wait_for_listeners(world: &World, pod: Pod, ports: &[u16]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // The kernel's own list: a connection would be iperf3's first client.
        let listening =
            output(world.command(pod.name, Path::new("cat")).arg("/proc/net/tcp").arg("/proc/net/tcp6"))?;
        let is_open = |port: &u16| {
            listening.lines().any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let local = fields.next().unwrap_or_default();
                local.ends_with(&format!(":{port:04X}")) && fields.nth(1) == Some("0A")
            })
        };
        if ports.iter().all(is_open) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let said = SERVERS.map(|server| world.last_words(&format!("{server}-{}", pod.name)));
            bail!("the servers in {} do not all listen on {ports:?}\n{}", pod.name, said.join("\n"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// 1 KiB from memory, with nothing on the way that touches a disk.
fn nginx_conf(dir: &Path, pod: Pod) -> String {
    let (dir, name, body) = (dir.display(), pod.name, "x".repeat(1023));
    let mut temp = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(temp, "  {kind}_temp_path {dir}/{kind};").ok();
    }
    format!(
        r#"daemon off;
user root;
worker_processes 2;
pid {dir}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  default_type text/plain;
{temp}  server {{
    listen {WEB_PORT} backlog=4096;
    location / {{ add_header x-pod {name}; return 200 "{body}\n"; }}
  }}
  server {{
    listen {TLS_PORT} ssl backlog=4096;
    ssl_certificate {dir}/0.crt;
    ssl_certificate_key {dir}/0.key;
    location / {{ add_header x-pod {name}; return 200 "{body}\n"; }}
  }}
}}
"#
    )
}

/// Writes so many certificates from within a pod, `N.crt` and `N.key` of [`manifests::EDGE_DOMAIN`].
pub fn certificates(world: &World, programs: &Programs, pod: Pod, dir: &Path, count: u32) -> Result<()> {
    let mut peer = world.command(pod.name, &programs.peer);
    peer.args(["certificates", "--name", manifests::EDGE_DOMAIN, "--count", &count.to_string()]);
    output(peer.arg("--dir").arg(dir)).map(drop)
}

/// Runs a program to its end, and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    // The first argument that is no part of nsenter.
    let name = command.get_args().nth(2).map(|name| name.display().to_string()).unwrap_or_default();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name}: {}\n{}{}", output.status, error.trim(), text.trim());
    Ok(text.into_owned())
}
