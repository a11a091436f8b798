//! What the attacks have in common: a victim, a friend who may call it, and the proof that nobody else got anywhere.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use weft_tests::{Listener, Mesh, Pod};

/// The port of the victim's program that its Service names, and one that no Service does.
pub const NAMED: u16 = 8080;
pub const UNNAMED: u16 = 9000;
/// What the attacker wants to say, and what the victim answers to a friend.
const REQUEST: &[u8] = b"GET /secret HTTP/1.1\r\nHost: victim\r\nConnection: close\r\n\r\n";
const SECRET: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret";
/// A connection that is neither answered nor ended by then is held open.
const PATIENCE: Duration = Duration::from_secs(5);

/// Callers must prove who they are, in the whole mesh.
pub const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
    metadata: {name: strict, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n";

/// Only this service account of `default` may call the victim.
pub fn only(account: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: only, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{app: victim}}}}\n  rules:\n\
         \u{20} - from: [{{source: {{principals: [cluster.local/ns/default/sa/{account}]}}}}]\n"
    )
}

/// A pod whose program is the test itself.
pub struct Victim {
    pub pod: Arc<Pod>,
    named: Listener,
    unnamed: Listener,
}

impl Victim {
    /// Starts it on a node; its Service, of the same name, has port 80.
    pub fn start(mesh: &Mesh, name: &str, node: &str) -> Result<Self> {
        let pod =
            mesh.pod(name).node(node).service_account("victim").label("app", "victim").label("pod", name);
        let pod = pod.start()?;
        mesh.service(name).selector("pod", name).port("http", 80, NAMED).create()?;
        Ok(Self { named: pod.listen(NAMED)?, unnamed: pod.listen(UNNAMED)?, pod })
    }

    /// Fails if the attacker hears anything, or if the program hears of him.
    pub fn is_safe_from(&self, what: &str, dialled: Result<TcpStream>) -> Result<()> {
        let back = dialled.map_or(Ok(Vec::new()), talk);
        let back = back.with_context(|| what.to_owned())?;
        // The program answers with this alone; a 403 of weft's own is a refusal.
        ensure!(!back.windows(6).any(|part| part == b"secret"), "{what}: {}", back.escape_ascii());
        self.heard_nothing().with_context(|| what.to_owned())
    }

    /// Fails if somebody has connected.
    pub fn heard_nothing(&self) -> Result<()> {
        self.named.nobody()?;
        self.unnamed.nobody()
    }

    /// Fails unless the connection reaches the program, and its answer comes back.
    pub fn answers(&self, what: &str, to: SocketAddr, mut stream: TcpStream) -> Result<()> {
        stream.write_all(REQUEST)?;
        let listener = if to.port() == UNNAMED { &self.unnamed } else { &self.named };
        let mut first = [0; 3];
        let mut program = loop {
            let (mut program, _) = listener.accept().with_context(|| what.to_owned())?;
            // Where the client is slow, the agent dials before it knows what is spoken, and again for a request.
            if program.read(&mut first[..1]).with_context(|| what.to_owned())? > 0 {
                break program;
            }
        };
        program.read_exact(&mut first[1..]).with_context(|| what.to_owned())?;
        ensure!(&first == b"GET", "{what}: {}", first.escape_ascii());
        program.write_all(SECRET)?;
        let mut back = Vec::new();
        let mut buffer = [0; 4096];
        while !back.ends_with(b"secret") {
            let length = stream.read(&mut buffer).with_context(|| what.to_owned())?;
            ensure!(length > 0, "{what}: {}", back.escape_ascii());
            back.extend_from_slice(&buffer[..length]);
        }
        Ok(())
    }
}

/// Says what the attacker wants to say, and answers what came back until the end.
pub fn talk(mut stream: TcpStream) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    // It may be refused before all of it is written.
    let _ = stream.write_all(REQUEST);
    let mut back = Vec::new();
    match stream.read_to_end(&mut back) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            anyhow::bail!("the connection is held open, after {}", back.escape_ascii())
        }
        _ => Ok(back),
    }
}

/// Dials from a pod with a socket that was prepared.
pub fn dial_with(
    pod: &Pod,
    to: SocketAddr,
    protocol: Option<Protocol>,
    prepare: impl FnOnce(&Socket) -> std::io::Result<()> + Send,
) -> Result<TcpStream> {
    pod.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, protocol)?;
        prepare(&socket)?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(socket.into())
    })?
}

/// Runs a shell's words in a pod; they must succeed.
pub fn sh(pod: &Pod, words: &str) -> Result<String> {
    pod.exec(&["sh", "-c", words])?.good().with_context(|| words.to_owned())
}

/// The hardware address of a pod's interface.
pub fn mac(pod: &Pod) -> Result<String> {
    Ok(sh(pod, "cat /sys/class/net/eth0/address")?.trim().to_owned())
}

/// Dials from the machine itself: the node of an agent without a namespace of its own.
pub fn dial_from_node(to: SocketAddr) -> Result<TcpStream> {
    Ok(TcpStream::connect_timeout(&to, PATIENCE)?)
}
