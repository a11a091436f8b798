//! A pod with CAP_NET_RAW and CAP_NET_ADMIN does what it likes in its own namespace: it is still who it is.

use std::net::{SocketAddr, SocketAddrV6, TcpStream};

use anyhow::{Result, ensure};
use socket2::Protocol;
use weft_tests::{Mesh, Pod, story};

use crate::attacks::{NAMED, STRICT, UNNAMED, Victim, dial_with, only, sh};

/// The mark of weft's own connections into a pod, Istio's, Cilium's, and every bit by itself.
fn marks() -> impl Iterator<Item = u32> {
    [0x7765_6674, 0x539, 0x1337, 0x0200, 0xffff_ffff].into_iter().chain((0..32).map(|bit| 1 << bit))
}

/// Every way that Mallory knows to dial.
fn attacks(mallory: &Pod, to: SocketAddr, others: &[SocketAddr]) -> Vec<(String, Result<TcpStream>)> {
    let dial = |prepare: &(dyn Fn(&socket2::Socket) -> std::io::Result<()> + Sync)| {
        dial_with(mallory, to, None, prepare)
    };
    let mut all = vec![("plainly".to_owned(), dial(&|_| Ok(())))];
    for mark in marks() {
        all.push((format!("mark {mark:#x}"), dial(&|socket| socket.set_mark(mark))));
    }
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    for port in [15001, 15006, 15008, 1, 443] {
        let from = SocketAddr::new(any.parse().expect("an address"), port);
        let bound = dial(&|socket| {
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())
        });
        all.push((format!("from port {port}"), bound));
    }
    for other in others.iter().filter(|other| other.is_ipv4() == to.is_ipv4()) {
        let other = SocketAddr::new(other.ip(), 0);
        all.push((format!("as {other}"), dial(&|socket| socket.bind(&other.into()))));
        let transparent = dial(&|socket| {
            socket.set_ip_transparent_v4(true).ok();
            socket.set_mark(0x7765_6674)?;
            socket.bind(&other.into())
        });
        all.push((format!("as {other}, transparent and marked"), transparent));
    }
    all.push(("MPTCP".to_owned(), dial_with(mallory, to, Some(Protocol::MPTCP), |_| Ok(()))));
    if let SocketAddr::V4(v4) = to {
        let mapped = SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0);
        all.push(("v4-mapped".to_owned(), dial_with(mallory, mapped.into(), None, |_| Ok(()))));
    }
    all
}

/// Rules and routes that lead around everything that weft has set up in the pod's namespace.
const AROUND: &str = "ip rule add pref 1 lookup main; ip -6 rule add pref 1 lookup main; \
    ip route flush table 15006; ip -6 route flush table 15006; ip rule delete fwmark 0x77656674; \
    for v in 4 6; do for i in all default eth0 lo; do for k in rp_filter accept_local route_localnet forwarding; do \
    echo 1 >/proc/sys/net/ipv$v/conf/$i/$k; done; done; done 2>/dev/null; true";

fn mallory_friend_and_victims(mesh: &Mesh) -> Result<[Victim; 2]> {
    mesh.pod("friend").node("n1").service_account("friend").start()?;
    mesh.pod("mallory").node("n1").service_account("mallory").start()?;
    let near = Victim::start(mesh, "near", "n1")?;
    let far = Victim::start(mesh, "far", "n2")?;
    mesh.start_agents(&["n1", "n2"])?;
    mesh.apply("strict", STRICT)?;
    mesh.apply_now("only", &only("friend"))?;
    Ok([near, far])
}

#[test]
fn a_pod_that_rules_its_own_namespace_does_not_become_another() {
    story(|mesh| {
        let victims = mallory_friend_and_victims(mesh)?;
        let (friend, mallory) = (mesh.the("friend")?, mesh.the("mallory")?);
        for way in ["", AROUND] {
            sh(&mallory, way)?;
            for victim in &victims {
                let pod = &victim.pod;
                for to in [pod.at(NAMED), pod.at6(NAMED), pod.at(UNNAMED)] {
                    for (what, stream) in attacks(&mallory, to, &[]) {
                        victim.is_safe_from(&format!("{what} at {to}"), stream)?;
                    }
                }
            }
        }
        for victim in &victims {
            for to in [victim.pod.at(NAMED), victim.pod.at6(UNNAMED)] {
                victim.answers(&format!("the friend at {to}"), to, friend.connect(to)?)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_pod_that_takes_anothers_addresses_is_still_itself() {
    story(|mesh| {
        let victims = mallory_friend_and_victims(mesh)?;
        let (friend, mallory) = (mesh.the("friend")?, mesh.the("mallory")?);
        let others = [friend.at(0), friend.at6(0), victims[0].pod.at(0), (mesh.world().gateway(), 0).into()];
        for other in others {
            sh(&mallory, &format!("ip address add {} dev lo", other.ip()))?;
        }
        // By name, and by address: what a policy says of addresses is not to be had by lying either.
        let by_address = only("friend").replace(
            "principals: [cluster.local/ns/default/sa/friend]",
            &format!("ipBlocks: [{}, \"{}\"]", friend.ip, friend.ip6),
        );
        for policy in [only("friend"), by_address] {
            mesh.apply_now("only", &policy)?;
            for victim in &victims {
                for to in [victim.pod.at(NAMED), victim.pod.at6(NAMED), victim.pod.at(UNNAMED)] {
                    for (what, stream) in attacks(&mallory, to, &others) {
                        victim.is_safe_from(&format!("{what} at {to}"), stream)?;
                    }
                    victim.answers(&format!("the friend at {to}"), to, friend.connect(to)?)?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn nothing_leaves_a_pod_uncaptured_whatever_its_sockets_are_set_to() {
    story(|mesh| {
        mesh.pod("mallory").node("n1").start()?;
        let outside = mesh.outsider("outside")?;
        let listener = outside.listen(NAMED)?;
        mesh.start_agents(&["n1"])?;
        let mallory = mesh.the("mallory")?;
        // Nobody has registered the address: what the agent sees of it goes nowhere.
        mesh.apply_now(
            "mesh",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
             data:\n  mesh: |\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n",
        )?;
        for way in ["", AROUND] {
            sh(&mallory, way)?;
            for to in [outside.at(NAMED), outside.at6(NAMED)] {
                for (what, stream) in attacks(&mallory, to, &[]) {
                    if let Ok(stream) = stream {
                        crate::attacks::talk(stream)?;
                    }
                    ensure!(listener.nobody().is_ok(), "{what} reached {to}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_pod_that_sits_on_the_agents_ports_harms_itself_at_most() {
    story(|mesh| {
        let victim = Victim::start(mesh, "victim", "n1")?;
        let friend = mesh.pod("friend").node("n1").service_account("friend").start()?;
        let squatter = mesh.pod("squatter").node("n1").start()?;
        let ports = [15001, 15006, 15008, 15020, 15021];
        let before: Vec<_> = ports.iter().map(|&port| squatter.listen(port)).collect::<Result<_>>()?;
        mesh.start_agents(&["n1"])?;
        mesh.apply_now("strict", STRICT)?;
        let to = victim.pod.at(NAMED);
        victim.answers("the friend", to, friend.connect(to)?)?;
        victim.answers("the squatter, who is who he is", to, squatter.connect(to)?)?;
        for listener in &before {
            listener.nobody()?;
        }
        // And in a pod that is in the mesh already.
        let late = mesh.pod("late").node("n1").start()?;
        mesh.wait_applied()?;
        let after: Vec<_> = ports.iter().filter_map(|&port| late.listen(port).ok()).collect();
        victim.answers("the late one", to, late.connect(to)?)?;
        for listener in &after {
            listener.nobody()?;
        }
        Ok(())
    });
}
