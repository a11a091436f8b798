//! The agent opens a connection to a program that is slow to accept; somebody sends the same addresses and ports
//! meanwhile. What arrives so is from outside, and is treated so.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};
use weft_tests::{Mesh, Pod, eventually, network, story};

use crate::attacks::{STRICT, sh};

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(10);

/// All may see `/public`, and nobody anything else.
const PUBLIC: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: public, namespace: default}\n\
    spec: {selector: {matchLabels: {app: slow}}, rules: [{to: [{operation: {paths: [/public]}}]}]}\n";

/// A pod whose program has room for one connection that it has not accepted yet.
fn slow(mesh: &Mesh) -> Result<(std::sync::Arc<Pod>, TcpListener)> {
    let pod = mesh.pod("slow").node("n1").label("app", "slow").start()?;
    let listener = pod.enter(|| -> Result<TcpListener> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from(([0_u16; 8], PORT)).into())?;
        socket.listen(0)?;
        Ok(socket.into())
    })??;
    listener.set_nonblocking(true)?;
    Ok((pod, listener))
}

/// The address that a connection into the pod borrows, of one whose SYN the program has not taken.
fn announced(slow: &Pod, caller: IpAddr) -> Result<SocketAddr> {
    eventually("a connection that the program does not take", PATIENCE, || {
        let text = sh(slow, "ss -Htn state syn-sent")?;
        let locals = text.lines().filter_map(|line| line.split_whitespace().nth(2));
        // `10.0.0.1%lo:32769`, `[fd00::1]%lo:32769`
        let plain = locals.map(|local| local.replace("%lo", ""));
        let found = plain.filter_map(|local| local.parse::<SocketAddr>().ok()).find(|at| at.ip() == caller);
        found.with_context(|| format!("only {text:?}"))
    })
}

/// The program wakes up and takes whatever is there, until `done`. Answers what it was asked for.
fn take_all(listener: &TcpListener, done: &AtomicBool) -> Result<Vec<String>> {
    let mut heard = Vec::new();
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                let mut head = [0; 1024];
                let length = stream.read(&mut head).unwrap_or(0);
                heard.push(String::from_utf8_lossy(&head[..length]).into_owned());
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret");
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if done.load(Ordering::Relaxed) {
                    return Ok(heard);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Dials `to` from `netns` with the address and port of the agent's own connection, and asks for what nobody may see.
fn forge(netns: &str, from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let stream = weft_tests::enter(netns, || -> Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into()).with_context(|| format!("cannot bind {from}"))?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(socket.into())
    })?;
    let Ok(mut stream) = stream else { return Ok(Vec::new()) };
    stream.set_read_timeout(Some(PATIENCE))?;
    let _ = stream.write_all(b"GET /admin HTTP/1.1\r\nHost: slow\r\nConnection: close\r\n\r\n");
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    Ok(back)
}

/// Requests that are allowed fill the program's queue, until one connection of the agent's waits there. Then somebody in
/// `netns`, whose address the caller's is, sends the same.
fn attack(
    (slow, listener): (&Pod, &TcpListener),
    callers: Vec<TcpStream>,
    (caller, netns): (IpAddr, &str),
    to: SocketAddr,
) -> Result<()> {
    for mut caller in &callers {
        caller.write_all(b"GET /public HTTP/1.1\r\nHost: slow\r\nConnection: close\r\n\r\n")?;
    }
    let from = announced(slow, caller)?;
    let done = AtomicBool::new(false);
    let (back, heard) = std::thread::scope(|scope| -> Result<_> {
        let program = scope.spawn(|| take_all(listener, &done));
        let back = forge(netns, from, to);
        // The program has heard all that there was when the callers are answered, or are not any more.
        for mut caller in callers {
            let _ = caller.read_to_end(&mut Vec::new());
        }
        done.store(true, Ordering::Relaxed);
        Ok((back?, program.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?))
    })?;
    ensure!(!back.ends_with(b"secret"), "{from} to {to} was answered: {}", back.escape_ascii());
    ensure!(heard.iter().any(|head| head.starts_with("GET /public ")), "the program heard only {heard:?}");
    let forged = heard.iter().find(|head| head.contains("/admin"));
    ensure!(forged.is_none(), "{from} to {to} reached the program: {forged:?}");
    Ok(())
}

#[test]
fn a_syn_with_the_numbers_of_the_agents_own_is_from_outside() {
    story(|mesh| {
        let (pod, listener) = slow(mesh)?;
        let stranger = mesh.outsider("stranger")?;
        mesh.start_agents(&["n1"])?;
        mesh.apply_now("public", PUBLIC)?;
        for (own, to) in [(stranger.at(0), pod.at(PORT)), (stranger.at6(0), pod.at6(PORT))] {
            let callers = (0..3).map(|_| stranger.connect(to)).collect::<Result<Vec<_>>>()?;
            attack((&pod, &listener), callers, (own.ip(), &stranger.netns), to)?;
        }
        Ok(())
    });
}

#[test]
fn a_pod_of_the_mesh_with_its_device_in_a_namespace_of_its_own_is_from_outside() {
    story(|mesh| {
        let (pod, listener) = slow(mesh)?;
        let mallory = mesh.pod("mallory").node("n1").start()?;
        mesh.start_agents(&["n1"])?;
        mesh.apply("strict", STRICT)?;
        mesh.apply_now("public", PUBLIC)?;
        let to = pod.at(PORT);
        let callers = (0..3).map(|_| mallory.connect(to)).collect::<Result<Vec<_>>>()?;
        // What is captured goes on, by an address that is there still; what she sends from there is not.
        let nested = mesh.world().netns("nested");
        network::ip_batch(None, &format!("netns add {nested}\n"))?;
        network::ip_batch(
            Some(&mallory.netns),
            &format!("link set eth0 netns {nested}\naddress add {}/32 dev lo\n", mallory.ip),
        )?;
        network::ip_batch(
            Some(&nested),
            &format!("link set lo up\naddress add {}/24 dev eth0\nlink set eth0 up\n", mallory.ip),
        )?;
        attack((&pod, &listener), callers, (mallory.ip.into(), &nested), to)
    });
}
