//! Connections between nodes: encrypted, proved, and otherwise as if there were nothing between.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http_body_util::Empty;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_tests::{Mesh, Pod, story};

use crate::forge::{self, Authority};
use crate::hbone::{self, Client, Server, block_on};

/// What nobody else on the wire has a reason to say.
const MARKER: &str = "in-plain-sight-7f3a";

/// A client on node n1; on n2 a pod with an HTTP server on 8080, and on 7000 whatever a story listens with. Services
/// `server` for both, port 70 declared TCP and port 71 not.
fn two_nodes(mesh: &Mesh) -> Result<(Arc<Pod>, Arc<Pod>)> {
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

fn ports(mesh: &Mesh) -> Result<[SocketAddr; 2]> {
    Ok([mesh.service_at("server", 70)?, mesh.service_at("server", 71)?])
}

/// Makes sure that who connects and says something is reset: at any point, for all of it is one round of the clock.
fn is_reset(from: &Pod, to: SocketAddr) -> Result<()> {
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

fn strict(namespace: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: default\n  namespace: {namespace}\n\
         spec:\n  mtls:\n    mode: STRICT\n"
    )
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
        there.set_write_timeout(Some(Duration::from_millis(500)))?;
        let chunk = vec![7_u8; 1 << 20];
        let mut sent = 0;
        while sent < 400 << 20 {
            match there.write(&chunk) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
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
fn a_policy_that_comes_later_ends_the_connections_that_it_denies() {
    story(|mesh| {
        let (client, server) = two_nodes(mesh)?;
        let near = mesh.pod("near").node("n2").service_account("near").start()?;
        mesh.wait_applied()?;
        let listener = server.listen(7000)?;
        let stranger = mesh.outsider("stranger")?;
        let address = mesh.service_at("server", 70)?;
        let stand = |from: &Pod, to: SocketAddr| -> Result<(TcpStream, TcpStream)> {
            let mut here = from.connect(to)?;
            here.write_all(b"x")?;
            let (mut there, _) = listener.accept()?;
            there.read_exact(&mut [0])?;
            here.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok((here, there))
        };
        let mut far_away = stand(&client, address)?;
        let mut same_node = stand(&near, address)?;
        let mut outside = stand(&stranger, server.at(7000))?;
        let passes = |(here, there): &mut (TcpStream, TcpStream)| -> Result<()> {
            there.write_all(b"y")?;
            Ok(here.read_exact(&mut [0])?)
        };
        // What has nothing to do with them leaves them alone.
        mesh.apply_now("elsewhere", &strict("elsewhere"))?;
        for standing in [&mut far_away, &mut same_node, &mut outside] {
            passes(standing)?;
        }
        mesh.apply_now("strict", &strict("default"))?;
        ensure!(outside.0.read(&mut [0]).is_err(), "plaintext stays under STRICT");
        passes(&mut far_away)?;
        passes(&mut same_node)?;
        mesh.apply_now(
            "nobody",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: nobody\n  namespace: default\n\
             spec:\n  selector:\n    matchLabels:\n      app: server\n",
        )?;
        ensure!(far_away.0.read(&mut [0]).is_err(), "a denied connection from another node stays");
        ensure!(same_node.0.read(&mut [0]).is_err(), "a denied connection from the same node stays");
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
fn strict_lets_in_who_proves_himself_and_nobody_else() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        let mallory = mesh.outsider("mallory")?;
        let neighbour = mesh.pod("neighbour").node("n2").label("weft.dev/mesh", "disabled").start()?;
        let listener = server.listen(7000)?;
        let works = |pod: &Pod| -> Result<bool> {
            let mut here = pod.connect(server.at(7000))?;
            here.write_all(b"x").ok();
            here.set_read_timeout(Some(Duration::from_secs(5)))?;
            let served = std::thread::scope(|scope| {
                let heard = scope.spawn(|| here.read(&mut [0]));
                let accepted = listener.accept();
                if let Ok((mut there, _)) = accepted {
                    there.write_all(b"y").ok();
                }
                heard.join()
            });
            Ok(matches!(served, Ok(Ok(1))))
        };
        ensure!(works(&mallory)? && works(&neighbour)?, "PERMISSIVE is not");
        mesh.apply_now("strict", &strict("default"))?;
        for pod in [&mallory, &neighbour] {
            is_reset(pod, server.at(7000)).context("plaintext under STRICT")?;
        }
        listener.nobody()?;
        ensure!(mesh.get("client", "http://server/")?.status == 200, "mTLS is refused under STRICT");
        // Weft's own ports lead nowhere, in plaintext or in TLS that proves nothing.
        for port in [15001, 15006, 15008] {
            let Ok(mut here) = mallory.connect(server.at(port)) else { continue };
            here.set_read_timeout(Some(Duration::from_secs(15)))?;
            here.write_all(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n").ok();
            let mut heard = Vec::new();
            here.read_to_end(&mut heard).ok();
            ensure!(!heard.starts_with(b"HTTP"), "port {port} answered");
        }
        Ok(())
    });
}

#[test]
fn a_tunnel_leads_to_its_pod_and_nowhere_else() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        let other = mesh.pod("other").node("n2").label("app", "other");
        let other = other.app(["echo", "--port", "8080"]).start()?;
        mesh.wait_applied()?;
        let ztunnel = mesh.outsider("ztunnel")?;
        let authority = Authority::in_dir(&mesh.ca_dir())?;
        let credentials = authority.sign("spiffe://cluster.local/ns/default/sa/client")?;
        block_on(async {
            let mut to = Client::dial(&ztunnel, server.at(hbone::PORT), Some(&credentials)).await?;
            authority.verify(&to.server)?;
            let (status, tunnel) = to.connect(&server.at(8080).to_string()).await?;
            ensure!(status == 200);
            let mut tunnel = tunnel.context("no tunnel")?;
            tunnel.write_all(b"GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n").await?;
            let mut heard = String::new();
            tunnel.read_to_string(&mut heard).await?;
            ensure!(heard.starts_with("HTTP/1.1 200") && heard.contains(&ztunnel.ip.to_string()), "{heard}");
            for elsewhere in [
                other.at(8080).to_string(),
                "127.0.0.1:8080".to_owned(),
                "[::1]:8080".to_owned(),
                "169.254.169.254:80".to_owned(),
                format!("{}:80", mesh.world().gateway()),
                "server.default.svc.cluster.local:80".to_owned(),
                server.at(15001).to_string(),
                server.at(15006).to_string(),
                server.at(15008).to_string(),
            ] {
                let status = to.connect(&elsewhere).await?.0;
                ensure!(status == 400, "{elsewhere}: {status}");
            }
            ensure!(to.connect(&server.at(7999).to_string()).await?.0 == 503, "a closed port");
            let get = http::Request::get(format!("http://{}/", server.at(8080))).body(Empty::new())?;
            ensure!(to.send(get).await?.0 == 400, "a GET");
            Ok(())
        })
    });
}

#[test]
fn a_tunnel_from_ztunnel_ends_as_its_application_does() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        let listener = server.listen(7000)?;
        let ztunnel = mesh.outsider("ztunnel")?;
        let authority = Authority::in_dir(&mesh.ca_dir())?;
        let credentials = authority.sign("spiffe://cluster.local/ns/default/sa/client")?;
        block_on(async {
            let mut to = Client::dial(&ztunnel, server.at(hbone::PORT), Some(&credentials)).await?;
            let program = server.at(7000).to_string();
            let mut open = async || to.connect(&program).await?.1.context("no tunnel");

            let mut tunnel = open().await?;
            let (mut there, _) = listener.accept()?;
            tunnel.write_all(b"question").await?;
            tunnel.shutdown().await?;
            let mut text = String::new();
            there.read_to_string(&mut text)?;
            ensure!(text == "question", "{text}");
            there.write_all(b"answer after your end")?;
            drop(there);
            text.clear();
            tunnel.read_to_string(&mut text).await?;
            ensure!(text == "answer after your end", "{text}");

            let mut tunnel = open().await?;
            let (there, _) = listener.accept()?;
            SockRef::from(&there).set_linger(Some(Duration::ZERO))?;
            drop(there);
            let outcome = tunnel.read(&mut [0]).await;
            ensure!(outcome.is_err(), "the program's reset became {outcome:?}");

            let tunnel = open().await?;
            let (mut there, _) = listener.accept()?;
            drop(tunnel);
            there.set_read_timeout(Some(Duration::from_secs(5)))?;
            // A blocking read: what h2 has to say for the dropped tunnel is said by its own task.
            let outcome = tokio::task::spawn_blocking(move || there.read(&mut [0])).await?;
            let reset = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
            ensure!(reset, "the caller's reset became {outcome:?}");
            Ok(())
        })
    });
}

#[test]
fn a_tunnel_to_ztunnel_ends_as_its_application_does() {
    story(|mesh| {
        let client = mesh.pod("client").node("n1").service_account("client").start()?;
        let server =
            mesh.pod("server").node("n2").service_account("server").label("app", "server").start()?;
        mesh.service("server").selector("app", "server").port("tcp", 70, 7000).create()?;
        mesh.start_agents(&["n1"])?;
        mesh.wait_applied()?;
        let authority = Authority::in_dir(&mesh.ca_dir())?;
        let credentials = authority.sign("spiffe://cluster.local/ns/default/sa/server")?;
        let node = Server::start(&server, &credentials, &authority)?;
        let listener = server.listen(7000)?;
        let address = mesh.service_at("server", 70)?;
        for round in 0..3 {
            let mut here = client.connect(address)?;
            here.write_all(b"question")?;
            here.shutdown(Shutdown::Write)?;
            let (mut there, _) = listener.accept()?;
            let mut text = String::new();
            there.read_to_string(&mut text)?;
            ensure!(text == "question", "{round}: {text}");
            there.write_all(&vec![7; 3 << 20])?;
            drop(there);
            let mut answer = Vec::new();
            here.read_to_end(&mut answer)?;
            ensure!(answer.len() == 3 << 20, "{round}: {} bytes", answer.len());
        }
        ensure!(node.seen().len() == 3, "{:?}", node.seen());
        // Nobody listens: 503 there, an end here.
        drop(listener);
        is_reset(&client, address)
    });
}

#[test]
fn who_is_not_whom_the_service_means_gets_no_connection() {
    story(|mesh| {
        mesh.pod("client").node("n1").service_account("client").start()?;
        // No agent of weft on n2: something else takes tunnels there, as ztunnel would.
        let names = ["right", "caller", "namespace", "domain", "self-made"];
        for name in names {
            let pod = mesh.pod(name).node("n2").service_account("server").label("app", name);
            pod.app(["echo", "--port", "8080"]).start()?;
            mesh.service(name).selector("app", name).port("http", 80, 8080).create()?;
        }
        mesh.start_agents(&["n1"])?;
        mesh.wait_applied()?;
        let authority = Authority::in_dir(&mesh.ca_dir())?;
        let credentials = [
            authority.sign("spiffe://cluster.local/ns/default/sa/server")?,
            authority.sign("spiffe://cluster.local/ns/default/sa/client")?,
            authority.sign("spiffe://cluster.local/ns/other/sa/server")?,
            authority.sign("spiffe://elsewhere/ns/default/sa/server")?,
            Authority::self_made()?.sign("spiffe://cluster.local/ns/default/sa/server")?,
        ];
        for (name, credentials) in names.into_iter().zip(&credentials) {
            let pod = mesh.the(name)?;
            let node = Server::start(&pod, credentials, &authority)?;
            let answer = mesh.get("client", &format!("http://{name}/"))?;
            let seen = node.seen();
            if name != "right" {
                ensure!(answer.status == 503 && seen.is_empty(), "{name}: {answer:?} {seen:?}");
                continue;
            }
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(seen[0].client == "spiffe://cluster.local/ns/default/sa/client", "{seen:?}");
            ensure!(seen[0].authority == pod.at(8080).to_string(), "{seen:?}");
            let baggage = seen[0].headers.get("baggage").context("no baggage")?.to_str()?;
            ensure!(baggage.contains("k8s.namespace.name=default"), "{baggage}");
            ensure!(seen[0].headers.contains_key("forwarded"), "{seen:?}");
            ensure!(seen[0].headers.contains_key("traceparent"), "{seen:?}");
        }
        Ok(())
    });
}

#[test]
fn a_destination_rule_may_forbid_tls_and_strict_then_refuses() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        let rule = |mode: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: server\n  namespace: default\n\
                 spec:\n  host: server\n  trafficPolicy:\n    tls:\n      mode: {mode}\n"
            )
        };
        let mut wire = server.capture()?;
        mesh.apply_now("server-tls", &rule("DISABLE"))?;
        let answer = mesh.get("client", &format!("http://server/{MARKER}"))?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(wire.saw(MARKER.as_bytes())?, "DISABLE is encrypted");
        mesh.apply_now("strict", &strict("default"))?;
        let answer = mesh.get("client", "http://server/")?;
        ensure!(answer.status == 503, "{answer:?}");
        mesh.apply_now("server-tls", &rule("ISTIO_MUTUAL"))?;
        let answer = mesh.get("client", "http://server/")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    });
}

#[test]
fn strict_also_ends_what_it_finds() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        mesh.pod("near").node("n2").service_account("client").start()?;
        mesh.apply_now(
            "server-tls",
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: server\n  namespace: default\n\
             spec:\n  host: server\n  trafficPolicy:\n    tls: {mode: DISABLE}\n",
        )?;
        let ask = |mut stream: &TcpStream| -> Result<String> {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"HEAD / HTTP/1.1\r\nhost: server\r\n\r\n")?;
            let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
            while !heard.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer)? {
                    0 => break,
                    count => heard.extend_from_slice(&buffer[..count]),
                }
            }
            Ok(String::from_utf8_lossy(&heard).into_owned())
        };
        let stranger = mesh.outsider("mallory")?.connect(server.at(8080))?;
        let first = ask(&stranger)?;
        ensure!(first.starts_with("HTTP/1.1 200"), "{first}");
        ensure!(mesh.get("near", "http://server/")?.status == 200);
        mesh.apply_now("strict", &strict("default"))?;
        // The agent keeps connections to the program for either: neither may go on.
        stranger.set_read_timeout(Some(Duration::from_secs(5)))?;
        (&stranger).write_all(b"GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n").ok();
        let mut heard = String::new();
        (&stranger).read_to_string(&mut heard).ok();
        ensure!(!heard.starts_with("HTTP/1.1 200"), "{heard}");
        let answer = mesh.get("near", "http://server/")?;
        ensure!(answer.status == 503, "{answer:?}");
        Ok(())
    });
}

/// An HTTPS server for one request after another; says whether the client had a certificate.
fn https(pod: &Pod, port: u16, config: Arc<rustls::ServerConfig>) -> Result<()> {
    let listener = pod.listen(port)?;
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let Ok(session) = rustls::ServerConnection::new(config.clone()) else { return };
            let mut stream = rustls::StreamOwned::new(session, socket);
            let mut heard = Vec::new();
            let mut byte = [0];
            while !heard.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                heard.push(byte[0]);
            }
            let known = if stream.conn.peer_certificates().is_some() { "known" } else { "stranger" };
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{known}",
                known.len()
            )
            .ok();
            stream.conn.send_close_notify();
            stream.flush().ok();
        }
    });
    Ok(())
}

#[test]
fn a_destination_rule_may_begin_tls_of_its_own() {
    story(|mesh| {
        mesh.pod("client").node("n1").start()?;
        let server = mesh.pod("server").label("app", "server").label("weft.dev/mesh", "disabled").start()?;
        mesh.service("server")
            .selector("app", "server")
            .port("http", 80, 8443)
            .port("http-b", 81, 8444)
            .create()?;
        let authority = Authority::self_made()?;
        let dir = mesh.world().dir();
        std::fs::write(dir.join("ca.crt"), forge::pem("CERTIFICATE", &authority.root))?;
        authority.sign("spiffe://elsewhere/caller")?.write(dir, "caller")?;
        let own = authority.sign("spiffe://elsewhere/server")?;
        let config = || {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
        };
        let anybody = config()?.with_no_client_auth().with_single_cert(own.chain.clone(), own.key())?;
        let proved = config()?.with_client_cert_verifier(authority.verifier()?);
        let proved = proved.with_single_cert(own.chain.clone(), own.key())?;
        https(&server, 8443, anybody.into())?;
        https(&server, 8444, proved.into())?;
        mesh.start_agents(&["n1"])?;
        let dir = dir.display();
        let name = "subjectAltNames: [spiffe://elsewhere/server]";
        let pair = format!("clientCertificate: {dir}/caller.crt, privateKey: {dir}/caller.key");
        for (port, tls, expected) in [
            (80, format!("mode: SIMPLE, caCertificates: {dir}/ca.crt, {name}"), Some("stranger")),
            (80, format!("mode: SIMPLE, caCertificates: {dir}/ca.crt"), None),
            (80, format!("mode: SIMPLE, caCertificates: {dir}/ca.crt, subjectAltNames: [other]"), None),
            (80, format!("mode: SIMPLE, {name}"), None),
            (80, "mode: SIMPLE, insecureSkipVerify: true".to_owned(), Some("stranger")),
            (81, format!("mode: SIMPLE, caCertificates: {dir}/ca.crt, {name}"), None),
            (81, format!("mode: MUTUAL, caCertificates: {dir}/ca.crt, {name}, {pair}"), Some("known")),
            (81, format!("mode: MUTUAL, caCertificates: {dir}/no.crt, {name}, {pair}"), None),
            (80, "mode: ISTIO_MUTUAL".to_owned(), None),
        ] {
            let rule = format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: server\n  namespace: default\n\
                 spec:\n  host: server\n  trafficPolicy:\n    tls: {{{tls}}}\n"
            );
            mesh.apply_now("server-tls", &rule)?;
            let answer = mesh.get("client", &format!("http://server:{port}/"))?;
            match expected {
                Some(body) => ensure!(answer.status == 200 && answer.body == body, "{tls}: {answer:?}"),
                None => ensure!(answer.status == 503, "{tls}: {answer:?}"),
            }
            ensure!(!tls.contains("no.crt") || answer.body.contains("no.crt"), "{tls}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn a_caller_that_policy_denies_is_told_so_from_another_node_as_from_the_same() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        mesh.pod("near").node("n2").service_account("client").start()?;
        mesh.pod("friend").node("n1").service_account("friend").start()?;
        mesh.pod("near-friend").node("n2").service_account("friend").start()?;
        let listener = server.listen(7000)?;
        mesh.apply_now(
            "deny",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: friends\n  namespace: default\n\
             spec:\n  selector:\n    matchLabels:\n      app: server\n  rules:\n  - from:\n    - source:\n        \
             principals: [cluster.local/ns/default/sa/friend]\n",
        )?;
        for (caller, allowed) in [("client", false), ("near", false), ("friend", true), ("near-friend", true)]
        {
            let answer = mesh.get(caller, "http://server/")?;
            let expected = if allowed { 200 } else { 403 };
            ensure!(answer.status == expected, "{caller}: {answer:?}");
            ensure!(allowed || answer.body == "RBAC: access denied", "{caller}: {answer:?}");
            for address in ports(mesh)? {
                let caller = mesh.the(caller)?;
                if !allowed {
                    is_reset(&caller, address).with_context(|| format!("{caller:?} to {address}"))?;
                    continue;
                }
                let mut here = caller.connect(address)?;
                here.write_all(b"x")?;
                let (mut there, _) = listener.accept()?;
                there.write_all(b"y")?;
                here.read_exact(&mut [0])?;
            }
        }
        listener.nobody()
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
