//! Connections between nodes: encrypted, and otherwise as if there were nothing between.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::SockRef;
use weft_tests::{Mesh, Pod, story};

use crate::hbone;
use crate::tcp::fill;

/// What nobody else on the wire has a reason to say.
pub const MARKER: &str = "in-plain-sight-7f3a";

/// A client on node n1; on n2 a pod with an HTTP server on 8080, and on 7000 whatever a story listens with. Services
/// `server` for both, port 70 declared TCP and port 71 not.
pub fn two_nodes(mesh: &Mesh) -> Result<(Arc<Pod>, Arc<Pod>)> {
    let client = mesh.pod("client").node("n1").service_account("client").start()?;
    let server = mesh.pod("server").node("n2").service_account("server").label("app", "server");
    let server = server.app(["echo", "--port", "8080"]).start()?;
    mesh.service("server")
        .selector("app", "server")
        .port("http", 80, 8080)
        .port("tcp", 70, 7000)
        .port("", 71, 7000)
        .create()?;
    mesh.start_agents(&["n1", "n2"])?;
    mesh.wait_applied()?;
    Ok((client, server))
}

/// The service's ports that are declared TCP, and not declared.
pub fn ports(mesh: &Mesh) -> Result<[SocketAddr; 2]> {
    Ok([mesh.service_at("server", 70)?, mesh.service_at("server", 71)?])
}

/// Makes sure that who connects and says something is reset: at any point, for all of it is one round of the clock.
pub fn is_reset(from: &Pod, to: SocketAddr) -> Result<()> {
    let said = from.connect(to).and_then(|mut here| {
        here.set_read_timeout(Some(Duration::from_secs(5)))?;
        here.write_all(b"x")?;
        Ok(here.read(&mut [0])?)
    });
    let kind = said.as_ref().err().and_then(|error| {
        error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
    });
    let resets = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    ensure!(kind.is_some_and(|kind| resets.contains(&kind)), "{said:?}");
    Ok(())
}

#[test]
fn requests_between_nodes_are_encrypted_and_come_from_the_client() {
    story(|mesh| {
        let (client, server) = two_nodes(mesh)?;
        let mut wire = server.capture()?;
        for http2 in [false, true] {
            let request = mesh.http("client", &format!("http://server/{MARKER}"))?;
            let answer = if http2 { request.h2() } else { request }.send()?;
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(
                answer.body.contains(&client.ip.to_string()),
                "the server sees somebody else: {answer:?}"
            );
        }
        ensure!(!wire.saw(MARKER.as_bytes())?, "the path was on the wire");
        ensure!(wire.tls_to(hbone::PORT)? >= 1, "no TLS");
        Ok(())
    });
}

#[test]
fn each_side_of_a_tunnel_may_stop_sending_and_go_on_reading() {
    story(|mesh| {
        let (client, server) = two_nodes(mesh)?;
        let listener = server.listen(7000)?;
        let mut wire = server.capture()?;
        for address in ports(mesh)? {
            let mut here = client.connect(address)?;
            here.write_all(MARKER.as_bytes())?;
            here.shutdown(Shutdown::Write)?;
            let (mut there, peer) = listener.accept()?;
            ensure!(peer.ip() == client.ip, "the server sees {peer}");
            let mut text = String::new();
            there.read_to_string(&mut text)?;
            ensure!(text == MARKER, "{text}");
            there.write_all(b"answer after your end")?;
            drop(there);
            text.clear();
            here.read_to_string(&mut text)?;
            ensure!(text == "answer after your end", "{text}");

            let mut here = client.connect(address)?;
            here.write_all(b"hello")?;
            let (mut there, _) = listener.accept()?;
            there.write_all(b"bye")?;
            there.shutdown(Shutdown::Write)?;
            text.clear();
            here.read_to_string(&mut text)?;
            ensure!(text == "bye", "{text}");
            here.write_all(b" and more")?;
            drop(here);
            text.clear();
            there.read_to_string(&mut text)?;
            ensure!(text == "hello and more", "{text}");
        }
        ensure!(!wire.saw(MARKER.as_bytes())?, "the bytes were on the wire");
        Ok(())
    });
}

#[test]
fn a_reset_crosses_a_tunnel_as_a_reset() {
    story(|mesh| {
        let (client, server) = two_nodes(mesh)?;
        let listener = server.listen(7000)?;
        for address in ports(mesh)? {
            for server_resets in [true, false] {
                let mut here = client.connect(address)?;
                here.write_all(b"x")?;
                let (mut there, _) = listener.accept()?;
                there.read_exact(&mut [0])?;
                let (mut survivor, dying) = if server_resets { (here, there) } else { (there, here) };
                SockRef::from(&dying).set_linger(Some(Duration::ZERO))?;
                drop(dying);
                survivor.set_read_timeout(Some(Duration::from_secs(5)))?;
                let outcome = survivor.read(&mut [0]);
                let reset = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
                ensure!(reset, "{address}, server resets: {server_resets}: {outcome:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn big_streams_cross_both_ways_at_once_and_a_slow_reader_slows_its_sender() {
    const BYTES: usize = 64 << 20;
    story(|mesh| {
        let (client, server) = two_nodes(mesh)?;
        let listener = server.listen(7000)?;
        let address = mesh.service_at("server", 70)?;
        let here = client.connect(address)?;
        (&here).write_all(b"x")?;
        let (there, _) = listener.accept()?;
        (&there).read_exact(&mut [0])?;
        let send = |mut stream: &TcpStream| -> Result<()> {
            let piece: Vec<u8> = (0..65_536_u32).map(|index| (index % 251) as u8).collect();
            for _ in 0..BYTES / piece.len() {
                stream.write_all(&piece)?;
            }
            Ok(stream.shutdown(Shutdown::Write)?)
        };
        let receive = |mut stream: &TcpStream| -> Result<()> {
            let (mut total, mut buffer) = (0, vec![0; 50_000]);
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                let right = buffer[..count].iter().enumerate();
                let mut right = right.map(|(at, byte)| *byte == ((total + at) % 65_536 % 251) as u8);
                ensure!(right.all(|right| right), "garbled after {total} bytes");
                total += count;
            }
            ensure!(total == BYTES, "{total} bytes");
            Ok(())
        };
        std::thread::scope(|scope| {
            let work = [
                scope.spawn(|| send(&here)),
                scope.spawn(|| send(&there)),
                scope.spawn(|| receive(&here)),
                scope.spawn(|| receive(&there)),
            ];
            work.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("panicked"))?)
        })?;

        // Nobody reads at the client: the server is stopped by what lies on the way, and no agent holds it all.
        let here = client.connect(address)?;
        (&here).write_all(b"x")?;
        let (mut there, _) = listener.accept()?;
        let sent = fill(&mut there, 400 << 20)?;
        ensure!(sent < 100 << 20, "{sent} bytes went to a client that reads nothing");
        // Others pass meanwhile.
        ensure!(mesh.get("client", "http://server/")?.status == 200);
        there.shutdown(Shutdown::Write)?;
        let mut all = Vec::new();
        (&here).read_to_end(&mut all)?;
        ensure!(all.len() == sent, "{} of {sent} bytes arrived", all.len());
        Ok(())
    });
}

#[test]
fn more_connections_than_a_tunnel_connection_carries_stand_at_once() {
    story(|mesh| {
        let (client, server) = two_nodes(mesh)?;
        let listener = server.listen(7000)?;
        let address = mesh.service_at("server", 70)?;
        let mut standing = Vec::new();
        for _ in 0..500 {
            let mut here = client.connect(address)?;
            here.write_all(b"x")?;
            let (mut there, _) = listener.accept()?;
            there.read_exact(&mut [0])?;
            standing.push((here, there));
        }
        for (number, (here, there)) in standing.iter_mut().enumerate() {
            let sent = number.to_be_bytes();
            there.write_all(&sent)?;
            let mut heard = [0; 8];
            here.read_exact(&mut heard)?;
            ensure!(heard == sent, "connection {number} heard another's bytes");
        }
        Ok(())
    });
}

#[test]
fn a_connection_that_has_ended_leaves_its_tls_to_the_next() {
    story(|mesh| {
        let (client, server) = two_nodes(mesh)?;
        let listener = server.listen(7000)?;
        let address = mesh.service_at("server", 70)?;
        let mut wire = server.capture()?;
        for turn in 0..40_u8 {
            let mut here = client.connect(address)?;
            here.write_all(&[turn])?;
            let (mut there, _) = listener.accept()?;
            here.shutdown(Shutdown::Write)?;
            let mut heard = Vec::new();
            there.read_to_end(&mut heard)?;
            ensure!(heard == [turn], "connection {turn} heard {heard:?}");
            there.write_all(b"done")?;
            drop(there);
            heard.clear();
            here.read_to_end(&mut heard)?;
            ensure!(heard == b"done", "{heard:?}");
        }
        // Each worker of the caller's agent has a TLS connection of its own, and seldom a second one: the next
        // connection may come before its agent has heard the end of the last.
        let workers = std::thread::available_parallelism()?.get();
        let hellos = wire.tls_to(15008)?;
        ensure!((1..=2 * workers).contains(&hellos), "{hellos} handshakes for 40 connections");
        Ok(())
    });
}

#[test]
fn a_pod_that_is_gone_is_a_503_and_one_that_refuses_too() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        ensure!(mesh.get("client", "http://server/")?.status == 200);
        server.stop();
        let answer = mesh.get("client", "http://server/")?;
        ensure!(answer.status == 503, "{answer:?}");
        Ok(())
    });
}

#[test]
fn tunnels_outlive_their_pods_time_in_the_mesh_and_an_agent_waits_for_them() {
    story(|mesh| {
        let (client, server) = two_nodes(mesh)?;
        let listener = server.listen(7000)?;
        let connect = || -> Result<_> {
            let mut here = client.connect(mesh.service_at("server", 70)?)?;
            here.write_all(b"x")?;
            let (mut there, _) = listener.accept()?;
            there.read_exact(&mut [0])?;
            Ok((here, there))
        };
        let talk = |(here, there): &mut (TcpStream, TcpStream)| -> Result<()> {
            here.write_all(b"ping")?;
            there.read_exact(&mut [0; 4])?;
            there.write_all(b"pong")?;
            Ok(here.read_exact(&mut [0; 4])?)
        };
        let mut standing = connect()?;
        // The destination leaves the mesh: what stands lives on, what comes is plaintext.
        let file = mesh.pod_file("server");
        let manifest = std::fs::read_to_string(&file)?;
        let left = manifest.replace("labels:", "labels:\n    weft.dev/mesh: disabled");
        ensure!(left != manifest, "{manifest}");
        std::fs::write(&file, &left)?;
        mesh.wait_applied()?;
        talk(&mut standing)?;
        let mut plain = connect()?;
        talk(&mut plain)?;
        std::fs::write(&file, &manifest)?;
        mesh.wait_applied()?;
        let mut again = connect()?;
        talk(&mut again)?;
        // The destination's agent ends: it waits for what stands.
        let ending = std::thread::scope(|scope| {
            let ending = scope.spawn(|| mesh.with_agent_of("n2", weft_tests::Agent::terminate));
            for _ in 0..20 {
                talk(&mut standing)?;
                talk(&mut again)?;
            }
            drop((standing, again));
            anyhow::Ok(ending.join())
        })?;
        let code = ending.map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(code == 0, "the agent ended with {code}");
        talk(&mut plain)
    });
}
