//! Who may come through a tunnel, and what goes beside it: policies and rules between nodes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Pod, story};

use crate::forge::{self, Authority};
use crate::tunnel::{MARKER, is_reset, ports, two_nodes};

fn strict(namespace: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: default\n  namespace: {namespace}\n\
         spec:\n  mtls:\n    mode: STRICT\n"
    )
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
fn strict_lets_in_who_proves_himself_and_nobody_else() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        let mallory = mesh.outsider("mallory")?;
        let neighbour = mesh.pod("neighbour").node("n2").label("weft.dev/mesh", "disabled").start()?;
        let listener = server.listen(7000)?;
        let works = |pod: &Pod| -> Result<bool> {
            // Whoever is reset at once may hear of it from `connect` already.
            let Ok(mut here) = pod.connect(server.at(7000)) else { return Ok(false) };
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
