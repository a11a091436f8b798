//! Plaintext under STRICT, by every way in.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Mesh, Pod, eventually, story};

use crate::attacks::{NAMED, STRICT, UNNAMED, Victim, dial_from_node, dial_with, mac, only, sh};

/// A friend and a victim on one node, or on two.
fn friend_and_victim(mesh: &Mesh, nodes: &[&str]) -> Result<Victim> {
    mesh.pod("friend").node("n1").service_account("friend").start()?;
    let victim = Victim::start(mesh, "victim", nodes.last().context("no node")?)?;
    mesh.start_agents(nodes)?;
    mesh.apply_now("strict", STRICT)?;
    Ok(victim)
}

fn a_friend_is_answered(mesh: &Mesh, victim: &Victim) -> Result<()> {
    let friend = mesh.the("friend")?;
    let service = mesh.service_at("victim", 80)?;
    for to in [victim.pod.at(NAMED), victim.pod.at6(NAMED), victim.pod.at(UNNAMED), service] {
        victim.answers(&format!("a friend at {to}"), to, friend.connect(to)?)?;
    }
    Ok(())
}

#[test]
fn plaintext_under_strict_gets_nowhere() {
    story(|mesh| {
        mesh.namespace("plain", false)?;
        let neighbour = mesh.pod("neighbour").namespace("plain").node("n1").start()?;
        let stranger = mesh.outsider("stranger")?;
        let victim = friend_and_victim(mesh, &["n1"])?;
        mesh.start_kube_proxy()?;
        let mut ways = vec![mesh.service_at("victim", 80)?, mesh.service_at6("victim", 80)?];
        for port in [NAMED, UNNAMED, 15001, 15006, 15008, 15020, 15021] {
            ways.extend([victim.pod.at(port), victim.pod.at6(port)]);
        }
        for to in ways {
            for attacker in [&neighbour, &stranger] {
                let what = format!("{} at {to}", attacker.spec.name);
                victim.is_safe_from(&what, attacker.connect(to))?;
            }
            victim.is_safe_from(&format!("the node at {to}"), dial_from_node(to))?;
        }
        a_friend_is_answered(mesh, &victim)
    });
}

#[test]
fn under_strict_a_friend_on_another_node_is_answered_and_a_stranger_is_not() {
    story(|mesh| {
        let stranger = mesh.outsider("stranger")?;
        mesh.add_node("n2")?;
        let victim = friend_and_victim(mesh, &["n1", "n2"])?;
        a_friend_is_answered(mesh, &victim)?;
        for to in [victim.pod.at(NAMED), victim.pod.at6(NAMED), victim.pod.at(UNNAMED), victim.pod.at6(15008)]
        {
            victim.is_safe_from(&format!("a stranger at {to}"), stranger.connect(to))?;
        }
        Ok(())
    });
}

#[test]
fn what_listens_on_loopback_alone_is_not_reached_from_the_bridge() {
    story(|mesh| {
        let stranger = mesh.outsider("stranger")?;
        let victim = friend_and_victim(mesh, &["n1"])?;
        // The attacker sends packets for 127.0.0.1 to the victim's interface, as CVE-2020-8558 did.
        sh(
            &stranger,
            &format!(
                "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet && ip address delete 127.0.0.1/8 dev lo && \
                 ip route add 127.0.0.1/32 via {} dev eth0 src {}",
                victim.pod.ip, stranger.ip
            ),
        )?;
        for port in [NAMED, UNNAMED, 15001, 15006, 15008] {
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            victim.is_safe_from(
                &format!("127.0.0.1:{port} from outside"),
                dial_with(&stranger, to, None, |_| Ok(())),
            )?;
        }
        a_friend_is_answered(mesh, &victim)
    });
}

#[test]
fn a_spoofed_address_is_no_identity() {
    story(|mesh| {
        let stranger = mesh.outsider("stranger")?;
        let victim = friend_and_victim(mesh, &["n1"])?;
        mesh.apply("strict", "")?;
        mesh.apply_now("only", &only("friend"))?;
        a_friend_is_answered(mesh, &victim)?;
        let friend = mesh.the("friend")?;
        // The stranger takes the friend's address, and the victim's neighbour table says that he has it.
        impersonate(&victim.pod, &stranger, friend.ip)?;
        for to in [victim.pod.at(NAMED), victim.pod.at(UNNAMED)] {
            let stream = dial_with(&stranger, to, None, |socket| {
                socket.bind(&SocketAddr::from((friend.ip, 0)).into())
            });
            // The way back is the attacker's: without weft he would be heard.
            let stream = stream.context("the attack itself does not work")?;
            ensure!(stream.local_addr()?.ip() == friend.ip);
            victim.is_safe_from(&format!("as the friend at {to}"), Ok(stream))?;
        }
        Ok(())
    });
}

/// Gives `attacker` somebody's address, and makes the victim believe it.
fn impersonate(victim: &Pod, attacker: &Pod, address: Ipv4Addr) -> Result<()> {
    sh(attacker, &format!("ip address add {address}/32 dev eth0"))?;
    let mac = mac(attacker)?;
    sh(victim, &format!("ip neighbour replace {address} lladdr {mac} dev eth0 nud permanent"))?;
    Ok(())
}

#[test]
fn probes_of_the_node_pass_and_open_nothing_to_anybody_else() {
    story(|mesh| {
        let stranger = mesh.outsider("stranger")?;
        let pod = mesh.pod("probed").node("n1").service_account("victim").probe(8081);
        pod.app(["echo", "--port", "8081", "--port", "8082"]).start()?;
        let victim = friend_and_victim(mesh, &["n1"])?;
        let probed = mesh.the("probed")?;
        for (address, port, passes) in [
            (IpAddr::from(probed.ip), 8081, true),
            (probed.ip6.into(), 8081, true),
            (probed.ip.into(), 8082, false),
            (probed.ip6.into(), 8082, false),
        ] {
            let to = SocketAddr::new(address, port);
            let answered = get(dial_from_node(to));
            ensure!(answered == passes, "the node at {to}: {answered}");
            ensure!(!get(stranger.connect(to)), "a stranger at {to}");
        }
        // With the node's own address, and the way back to him.
        let node = mesh.world().gateway();
        impersonate(&probed, &stranger, node)?;
        let to = probed.at(8081);
        let stream =
            dial_with(&stranger, to, None, |socket| socket.bind(&SocketAddr::from((node, 0)).into()));
        // It may be reset before it is seen to stand; any other failure would show nothing.
        if let Err(error) = &stream {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            ensure!(kind == Some(std::io::ErrorKind::ConnectionReset), "{error:#}");
        }
        ensure!(!get(stream), "a stranger with the node's address");
        victim.heard_nothing()
    });
}

/// Whether a GET is answered with 200.
fn get(stream: Result<TcpStream>) -> bool {
    let Ok(mut stream) = stream else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: probed\r\nConnection: close\r\n\r\n");
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    text.starts_with(b"HTTP/1.1 200")
}

#[test]
fn with_its_agent_dead_a_pod_is_closed_and_open_again_with_the_next_one() {
    story(|mesh| {
        let stranger = mesh.outsider("stranger")?;
        let victim = friend_and_victim(mesh, &["n1", "n2"])?;
        a_friend_is_answered(mesh, &victim)?;
        mesh.with_agent_of("n2", weft_tests::Agent::kill)?;
        for to in [victim.pod.at(NAMED), victim.pod.at6(NAMED), victim.pod.at(UNNAMED), victim.pod.at(15008)]
        {
            victim.is_safe_from(&format!("a stranger, agent dead, at {to}"), stranger.connect(to))?;
            let friend = mesh.the("friend")?;
            victim.is_safe_from(&format!("a friend, agent dead, at {to}"), friend.connect(to))?;
        }
        mesh.with_agent_of("n2", |agent| {
            agent.spawn()?;
            agent.ready()
        })?;
        eventually("the friend is served again", Duration::from_secs(10), || {
            a_friend_is_answered(mesh, &victim)
        })?;
        victim.is_safe_from("a stranger, agent back", stranger.connect(victim.pod.at(NAMED)))
    });
}
