//! Which sockets are captured, which are left alone, and what programs see of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use weft_tests::{Mesh, scenarios, story};

use crate::deploy;

fn requests(mesh: &Mesh) -> Result<u64> {
    Ok(mesh.metrics()?.count("istio_requests_total", &[("reporter", "source")]))
}

#[test]
fn every_kind_of_socket_is_captured_and_sees_what_it_dialled() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let client = mesh.the("client")?;
        let (v4, v6) = (mesh.service_at("echo", 80)?, mesh.service_at6("echo", 80)?);
        let SocketAddr::V4(plain) = v4 else { anyhow::bail!("not IPv4") };
        let mapped: SocketAddr = SocketAddrV6::new(plain.ip().to_ipv6_mapped(), 80, 0, 0).into();
        for (name, dialled) in [("IPv4", v4), ("IPv6", v6), ("v4-mapped, as Java does", mapped)] {
            let before = requests(mesh)?;
            let mut stream = client.enter(|| -> Result<TcpStream> {
                let socket = Socket::new(Domain::for_address(dialled), Type::STREAM, None)?;
                socket.connect(&dialled.into()).with_context(|| name.to_owned())?;
                Ok(socket.into())
            })??;
            ensure!(stream.peer_addr()? == dialled, "{name}: getpeername says {}", stream.peer_addr()?);
            let own = stream.local_addr()?.ip().to_canonical();
            ensure!(own == client.ip || own == client.ip6, "{name}: its own address is {own}");
            let text = scenarios::ask_again(&mut stream, "echo", "/")?;
            ensure!(text.starts_with("HTTP/1.1 200"), "{name}: {text}");
            // The application sees the client's address, and its own.
            ensure!(
                text.contains(&format!("\"peer\":\"{}:", client.ip))
                    || text.contains(&format!("\"peer\":\"[{}]:", client.ip6)),
                "{name}: {text}"
            );
            ensure!(requests(mesh)? == before + 1, "{name} was not captured");
        }
        Ok(())
    });
}

#[test]
fn a_socket_that_does_not_wait_for_its_connection_is_captured_too() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let address = mesh.service_at("echo", 80)?;
        let client = mesh.the("client")?;
        let mut stream = client.enter(|| -> Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // Either done or on its way.
            socket.connect(&address.into()).ok();
            let stream = TcpStream::from(socket);
            weft_tests::eventually("connected", Duration::from_secs(5), || Ok(stream.peer_addr()?))?;
            stream.set_nonblocking(false)?;
            Ok(stream)
        })??;
        ensure!(stream.peer_addr()? == address);
        ensure!(scenarios::ask_again(&mut stream, "echo", "/")?.starts_with("HTTP/1.1 200"));
        // And one that has chosen its port and address itself, as some clients do.
        let mut bound = client.enter(|| -> Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((client.ip, 40_000)).into())?;
            socket.connect(&address.into())?;
            Ok(socket.into())
        })??;
        ensure!(bound.local_addr()? == SocketAddr::from((client.ip, 40_000)), "{}", bound.local_addr()?);
        ensure!(scenarios::ask_again(&mut bound, "echo", "/")?.starts_with("HTTP/1.1 200"));
        Ok(())
    });
}

#[test]
fn a_client_with_the_port_of_a_listener_of_the_agents_is_served() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let client = mesh.the("client")?;
        for port in [15001, 15006, 15008] {
            for dialled in [mesh.service_at("echo", 80)?, mesh.service_at6("echo", 80)?] {
                // With the agent's user and `SO_REUSEPORT` it may have the port, too.
                let mut stream = client.enter(|| -> Result<TcpStream> {
                    let socket = Socket::new(Domain::for_address(dialled), Type::STREAM, None)?;
                    socket.set_reuse_address(true)?;
                    socket.set_reuse_port(true)?;
                    let any = if dialled.is_ipv4() { "0.0.0.0" } else { "::" };
                    socket.bind(&SocketAddr::new(any.parse()?, port).into())?;
                    socket.connect(&dialled.into()).with_context(|| format!("from port {port}"))?;
                    Ok(socket.into())
                })??;
                let text = scenarios::ask_again(&mut stream, "echo", "/")?;
                ensure!(text.starts_with("HTTP/1.1 200"), "from port {port} to {dialled}: {text}");
                // The agent's end from port 15001 to 15006 has the name of the client's from 15006 to 15001.
                stream.shutdown(Shutdown::Write)?;
                stream.read_to_end(&mut Vec::new())?;
            }
        }
        Ok(())
    });
}

#[test]
fn loopback_and_the_own_address_are_left_alone() {
    story(|mesh| {
        let pod = mesh.pod("alone").start()?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let listener = pod.listen(9000)?;
        let before = mesh.metrics()?.count("istio_tcp_connections_opened_total", &[]);
        let own: [SocketAddr; 4] = [
            (Ipv4Addr::LOCALHOST, 9000).into(),
            (Ipv6Addr::LOCALHOST, 9000).into(),
            pod.at(9000),
            pod.at6(9000),
        ];
        for address in own {
            let mut here = pod.connect(address)?;
            let (mut there, peer) = listener.accept()?;
            ensure!(peer.ip() == address.ip(), "{address}: the peer is {peer}");
            ensure!(here.local_addr()? == peer, "{address}: somebody is between");
            here.write_all(b"x")?;
            there.read_exact(&mut [0])?;
        }
        let after = mesh.metrics()?.count("istio_tcp_connections_opened_total", &[]);
        ensure!(before == after, "counted as traffic of the mesh");
        Ok(())
    });
}

#[test]
fn udp_is_left_alone() {
    story(|mesh| {
        let client = mesh.pod("client").start()?;
        let server = mesh.pod("server").start()?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let bind = |pod: &weft_tests::Pod, port: u16| -> Result<UdpSocket> {
            let socket = pod.enter(|| UdpSocket::bind((pod.ip, port)))??;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(socket)
        };
        for port in [5353, 15_001] {
            let there = bind(&server, port)?;
            let here = bind(&client, 0)?;
            here.connect(server.at(port))?;
            here.send(b"question")?;
            let mut buffer = [0; 64];
            let (count, peer) = there.recv_from(&mut buffer)?;
            ensure!(peer == here.local_addr()? && &buffer[..count] == b"question");
            there.send_to(b"answer", peer)?;
            ensure!(here.recv(&mut buffer)? == 6);
            ensure!(here.peer_addr()? == server.at(port));
        }
        Ok(())
    });
}

#[test]
fn dialling_the_agents_own_ports_leads_nowhere_and_breaks_nothing() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let client = mesh.the("client")?;
        let echo = mesh.the("echo-v1")?;
        let targets: Vec<SocketAddr> = [15_001, 15_006, 15_008]
            .into_iter()
            .flat_map(|port| {
                [
                    (Ipv4Addr::LOCALHOST, port).into(),
                    (Ipv6Addr::LOCALHOST, port).into(),
                    client.at(port),
                    echo.at(port),
                ]
            })
            .collect();
        let files_before = open_files(mesh)?;
        for target in targets {
            for _ in 0..5 {
                // Refused or closed are both fine; an answer of an application, or an end without end, are not.
                let outcome = client.enter(|| TcpStream::connect_timeout(&target, Duration::from_secs(2)))?;
                let Ok(mut stream) = outcome else { continue };
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(b"GET /own-port HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n").ok();
                let mut text = Vec::new();
                stream.read_to_end(&mut text).ok();
                let text = String::from_utf8_lossy(&text).into_owned();
                ensure!(!text.starts_with("HTTP/1.1 200"), "{target} answered: {text}");
            }
        }
        for pod in ["echo-v1", "echo-v2"] {
            ensure!(deploy::hits(mesh, pod, "/own-port")? == 0, "{pod} was reached");
        }
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        weft_tests::eventually("no file left open", Duration::from_secs(10), || {
            let files = open_files(mesh)?;
            ensure!(files <= files_before + 20, "{files_before} files before, {files} now");
            Ok(())
        })
    });
}

fn open_files(mesh: &Mesh) -> Result<usize> {
    let id = mesh.with_agent(|agent| agent.id())?;
    Ok(std::fs::read_dir(format!("/proc/{id}/fd"))?.count())
}

#[test]
fn addresses_that_are_no_service_are_passed_through() {
    story(|mesh| {
        deploy::echo(mesh)?;
        // A pod by its own address.
        let pod = mesh.the("echo-v2")?;
        for address in [pod.at(8080), pod.at6(8080)] {
            let answer = mesh.get("client", &format!("http://{address}/direct"))?;
            ensure!((answer.status, answer.version()) == (200, "v2"), "{answer:?}");
            let peer = answer.json()?["peer"].as_str().unwrap_or_default().to_owned();
            let client = mesh.the("client")?;
            ensure!(
                peer.contains(&client.ip.to_string()) || peer.contains(&client.ip6.to_string()),
                "{peer}"
            );
        }
        // Somebody outside of the cluster.
        let outside = TcpListener::bind((mesh.world().gateway(), 0))?;
        let address = outside.local_addr()?;
        let client = mesh.the("client")?;
        let mut here = client.connect(address)?;
        here.write_all(b"\x01\x02")?;
        let (mut there, _) = outside.accept()?;
        let mut buffer = [0; 2];
        there.read_exact(&mut buffer)?;
        there.write_all(b"ok")?;
        here.read_exact(&mut buffer)?;
        ensure!(&buffer == b"ok");
        Ok(())
    });
}

#[test]
fn pods_outside_of_the_mesh_talk_to_pods_inside_and_back() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.namespace("outside", false)?;
        let stranger = mesh.pod("stranger").namespace("outside").app(["echo", "--port", "8080"]).start()?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let inside = mesh.the("echo-v1")?;
        for address in [inside.at(8080), inside.at6(8080)] {
            let answer = mesh.get("stranger", &format!("http://{address}/"))?;
            ensure!(answer.status == 200, "{answer:?}");
            let peer = answer.json()?["peer"].as_str().unwrap_or_default().to_owned();
            ensure!(
                peer.contains(&stranger.ip.to_string()) || peer.contains(&stranger.ip6.to_string()),
                "the application sees {peer}"
            );
        }
        for address in [stranger.at(8080), stranger.at6(8080)] {
            ensure!(mesh.get("client", &format!("http://{address}/"))?.status == 200);
        }
        Ok(())
    });
}

#[test]
fn no_mark_on_a_socket_leads_past_the_mesh() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.namespace("outside", false)?;
        let stranger = mesh.pod("stranger").namespace("outside").start()?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let echo = mesh.the("echo-v1")?;
        let marked = |pod: &weft_tests::Pod, mark: u32, to: SocketAddr| -> Result<TcpStream> {
            pod.enter(|| {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.set_mark(mark)?;
                socket.connect(&to.into())?;
                Ok(socket.into())
            })?
        };
        // The agent's own mark, Istio's, Cilium's: a container may set any of them.
        for mark in [0x7765_6674, 1337, 0x539, 0x200] {
            let before = requests(mesh)?;
            let mut stream = marked(&*mesh.the("client")?, mark, mesh.service_at("echo", 80)?)?;
            scenarios::ask_again(&mut stream, "echo", "/")?;
            ensure!(requests(mesh)? == before + 1, "outbound, mark {mark:#x}: not captured");

            let inbound = || -> Result<u64> {
                Ok(mesh
                    .metrics()?
                    .count("istio_tcp_connections_opened_total", &[("reporter", "destination")])
                    + mesh.metrics()?.count("istio_requests_total", &[("reporter", "destination")]))
            };
            let before = inbound()?;
            let mut stream = marked(&stranger, mark, echo.at(8080))?;
            scenarios::ask_again(&mut stream, "echo", "/")?;
            drop(stream);
            weft_tests::eventually("counted", Duration::from_secs(5), || {
                ensure!(inbound()? > before, "inbound, mark {mark:#x}: not captured");
                Ok(())
            })?;
        }
        Ok(())
    });
}
