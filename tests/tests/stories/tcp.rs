//! Plain TCP: ends, resets, who speaks first, and who reads slowly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::SockRef;
use weft_tests::{Mesh, Pod, story};

use crate::deploy;

/// Reads a server's first line.
pub fn greeting(mut stream: &TcpStream) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// A pod of its own behind services `server-tcp` (declared) and `server` (not), for servers inside of the test.
fn server(mesh: &Mesh) -> Result<(std::sync::Arc<Pod>, std::sync::Arc<Pod>)> {
    let client = mesh.pod("client").start()?;
    let server = mesh.pod("server").label("app", "server").start()?;
    mesh.service("server-tcp").selector("app", "server").port("tcp", 70, 7000).create()?;
    mesh.service("server").selector("app", "server").port("", 70, 7000).create()?;
    mesh.start_agent()?;
    mesh.wait_applied()?;
    Ok((client, server))
}

fn both_services(mesh: &Mesh) -> Result<[SocketAddr; 2]> {
    Ok([mesh.service_at("server-tcp", 70)?, mesh.service_at("server", 70)?])
}

#[test]
fn each_side_may_stop_sending_and_go_on_reading() {
    story(|mesh| {
        let (client, server) = server(mesh)?;
        let listener = server.listen(7000)?;
        for address in both_services(mesh)? {
            // The client ends first; the server sees the end, and can still answer.
            let mut here = client.connect(address)?;
            here.write_all(b"question")?;
            here.shutdown(Shutdown::Write)?;
            let (mut there, _) = listener.accept()?;
            let mut text = String::new();
            there.read_to_string(&mut text)?;
            ensure!(text == "question", "{text}");
            there.write_all(b"answer after your end")?;
            drop(there);
            text.clear();
            here.read_to_string(&mut text)?;
            ensure!(text == "answer after your end", "{text}");

            // The server ends first.
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
        Ok(())
    });
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    story(|mesh| {
        let (client, server) = server(mesh)?;
        let listener = server.listen(7000)?;
        for address in both_services(mesh)? {
            for server_resets in [true, false] {
                let mut here = client.connect(address)?;
                here.write_all(b"x")?;
                let (mut there, _) = listener.accept()?;
                there.read_exact(&mut [0])?;
                let (mut survivor, dying) = if server_resets { (here, there) } else { (there, here) };
                // Closing with no time to linger sends RST.
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
fn a_refused_tcp_connection_ends_at_once() {
    story(|mesh| {
        let (client, _server) = server(mesh)?;
        for address in both_services(mesh)? {
            let start = Instant::now();
            // Nobody listens on 7000: however weft tells, the client learns it at once.
            if let Ok(mut stream) = client.connect(address) {
                stream.write_all(b"x").ok();
                let outcome = stream.read(&mut [0]);
                ensure!(!matches!(outcome, Ok(1)), "{address}: somebody answered");
            }
            ensure!(start.elapsed() < Duration::from_secs(5), "{address}: after {:?}", start.elapsed());
        }
        Ok(())
    });
}

#[test]
fn a_server_that_speaks_first_is_not_kept_waiting() {
    story(|mesh| {
        let client = mesh.pod("client").start()?;
        let outside = mesh.pod("outside").label("weft.dev/mesh", "disabled").start()?;
        let database = mesh.pod("db").label("app", "db").app(["greet", "--port", "3306"]).start()?;
        // Not called mysql: nothing tells weft that the server speaks first.
        mesh.service("db").selector("app", "db").port("", 3306, 3306).create()?;
        mesh.service("db-tcp").selector("app", "db").port("tcp-mysql", 3306, 3306).create()?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let address = mesh.service_at("db", 3306)?;
        let declared = mesh.service_at("db-tcp", 3306)?;
        let greets = |pod: &Pod, address: SocketAddr| -> Result<Duration> {
            let start = Instant::now();
            let stream = pod.connect(address)?;
            let text = greeting(&stream)?;
            let took = start.elapsed();
            ensure!(text.starts_with("5.7.44-weft"), "{text}");
            ensure!(text.contains(&format!("{}:", pod.ip)), "the server sees {text}, not the client");
            Ok(took)
        };
        let mut times: [Vec<Duration>; 3] = Default::default();
        for _ in 0..40 {
            times[0].push(greets(&outside, database.at(3306))?);
            times[1].push(greets(&client, address)?);
            times[2].push(greets(&client, declared)?);
        }
        let [direct, detected, declared] = times.map(|mut times| {
            times.sort();
            times[times.len() / 2]
        });
        println!("greeting: direct {direct:?}, undeclared port {detected:?}, declared {declared:?}");
        // Medians: other stories run on the same two cores.
        let limit = direct + Duration::from_millis(5);
        ensure!(detected < limit && declared < limit, "{detected:?} and {declared:?} against {direct:?}");
        Ok(())
    });
}

/// Writes until the way is full, or `most` bytes have gone; answers how many.
pub(crate) fn fill(stream: &mut TcpStream, most: usize) -> Result<usize> {
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let chunk = vec![7_u8; 1 << 20];
    let mut sent = 0;
    while sent < most {
        match stream.write(&chunk) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

#[test]
fn a_slow_reader_slows_the_sender_and_not_the_agent() {
    const CHUNK: usize = 1 << 20;
    story(|mesh| {
        let (client, server) = server(mesh)?;
        let listener = server.listen(7000)?;
        for address in both_services(mesh)? {
            let mut here = client.connect(address)?;
            here.write_all(b"go")?;
            let (mut there, _) = listener.accept()?;
            let before = mesh.with_agent(|agent| agent.rss_bytes())?;
            // Buffers of four sockets and the agent's own.
            let sent = fill(&mut there, 400 * CHUNK)?;
            let grown = mesh.with_agent(|agent| agent.rss_bytes())?.saturating_sub(before);
            println!("{address}: stuck after {} KiB, the agent grew by {} KiB", sent / 1024, grown / 1024);
            ensure!(sent < 100 * CHUNK, "{sent} bytes went to a client that reads nothing");
            ensure!(grown < 16 << 20, "the agent grew by {grown} bytes");
            there.shutdown(Shutdown::Write)?;
            let mut all = Vec::new();
            here.read_to_end(&mut all)?;
            ensure!(all.len() == sent, "{} of {sent} bytes arrived", all.len());
        }
        Ok(())
    });
}

#[test]
fn tcp_routes_choose_by_weight_and_port() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        for version in ["v1", "v2"] {
            mesh.the(&format!("echo-{version}"))?.app(&["greet", "--port", "7000", "--greeting", version])?;
        }
        mesh.service("db")
            .selector("app", "echo")
            .port("tcp", 70, 7000)
            .port("tcp-other", 71, 7000)
            .create()?;
        mesh.apply("db-subsets", &deploy::subsets("db"))?;
        mesh.start_agent()?;
        let rules = "
- match: [{port: 71}]
  route:
  - destination: {host: db, subset: v2, port: {number: 71}}
- route:
  - destination: {host: db, subset: v1}
    weight: 80
  - destination: {host: db, subset: v2}
    weight: 20
";
        mesh.apply_now("db", &deploy::virtual_service("db", "tcp", rules))?;
        let client = mesh.the("client")?;
        let versions = |port: u16, count: u32| -> Result<f64> {
            let address = mesh.service_at("db", port)?;
            let mut v2 = 0;
            for _ in 0..count {
                let text = greeting(&client.connect(address)?)?;
                v2 += u32::from(text.starts_with("v2"));
            }
            Ok(100.0 * f64::from(v2) / f64::from(count))
        };
        let percent = versions(70, 500)?;
        println!("20 % of 500 connections: {percent:.1} %");
        ensure!((13.0..=27.0).contains(&percent), "{percent} % to v2");
        ensure!(versions(71, 20)? >= 100.0, "port 71 did not go to v2");
        Ok(())
    });
}

#[test]
fn bytes_of_any_protocol_pass_unchanged_on_a_port_without_a_name() {
    story(|mesh| {
        let client = mesh.pod("client").start()?;
        mesh.pod("server").label("app", "server").app(["tcp-echo", "--port", "7000"]).start()?;
        mesh.service("server").selector("app", "server").port("", 70, 7000).create()?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let address = mesh.service_at("server", 70)?;
        let cases: [&[u8]; 8] = [
            b"\0\0\0\0",
            b"G",
            b"GE",
            b"GETTING nowhere\r\n",
            b"PRI * HTTP/2.0\r\nnot quite",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"*1\r\n$4\r\nPING\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
        ];
        for bytes in cases {
            let mut stream = client.connect(address)?;
            stream.write_all(bytes)?;
            stream.shutdown(Shutdown::Write)?;
            let mut back = Vec::new();
            stream
                .read_to_end(&mut back)
                .with_context(|| format!("{:?}", bytes.escape_ascii().to_string()))?;
            ensure!(back == bytes, "{} came back as {}", bytes.escape_ascii(), back.escape_ascii());
        }
        Ok(())
    });
}
