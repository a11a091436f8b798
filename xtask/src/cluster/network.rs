//! A bridge that joins the nodes, each a network namespace, and the routes between their pods.

use anyhow::Result;
use weft_tests::network::{ip, ip_batch};

use super::layout::{BRIDGE, CONTROL, NODES, Node, SERVICES};

/// The bridge's hardware address. Without one of its own a bridge takes the lowest of its ports', which changes as
/// nodes come and go.
const BRIDGE_MAC: &str = "02:77:65:66:74:02";

/// Makes the bridge, and the machine's own routes to pods and Services: API servers call webhooks and kubelets.
pub fn make() -> Result<()> {
    ip_batch(
        None,
        &format!(
            "link add {BRIDGE} address {BRIDGE_MAC} type bridge forward_delay 0\n\
             address add {CONTROL}/24 dev {BRIDGE}\n\
             link set {BRIDGE} up\n"
        ),
    )?;
    let via = |to: &str, node: &Node| format!("route replace {to} via {} dev {BRIDGE}\n", node.address);
    let mut routes: String = NODES.iter().map(|node| via(node.pods, node)).collect();
    routes += &via(SERVICES, &NODES[0]);
    ip_batch(None, &routes)
}

/// Plugs a node in: its namespace, new and empty, its card and its routes to the other nodes' pods.
pub fn add(node: &Node) -> Result<()> {
    let (netns, port) = (node.netns(), node.port());
    ip_batch(
        None,
        &format!(
            "netns add {netns}\n\
             link add {port} type veth peer name eth0 netns {netns}\n\
             link set {port} master {BRIDGE} up\n"
        ),
    )?;
    let others = NODES.iter().filter(|other| *other != node);
    let routes: Vec<String> =
        others.map(|other| format!("route add {} via {}", other.pods, other.address)).collect();
    ip_batch(
        Some(&netns),
        &format!(
            "link set lo up\n\
             address add {}/24 dev eth0\n\
             link set eth0 up\n\
             route add default via {CONTROL}\n\
             {}\n",
            node.address,
            routes.join("\n")
        ),
    )
}

/// Unplugs a node. What is not there is no error.
pub fn remove(node: &Node) {
    ip(&["netns", "delete", &node.netns()]).ok();
    ip(&["link", "delete", &node.port()]).ok();
}

/// Removes the bridge, its routes with it.
pub fn remove_bridge() {
    ip(&["link", "delete", BRIDGE]).ok();
}
