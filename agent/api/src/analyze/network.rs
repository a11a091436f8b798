//! NetworkPolicies that stand in the way of traffic between nodes: there it comes to [`TUNNEL_PORT`], whichever port it is for.

use crate::kubernetes::IntOrString;
use crate::kubernetes::network_policy::{LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort};
use crate::names::TUNNEL_PORT;

/// Where clients ask for names: name servers are not in the mesh.
const DNS: u16 = 53;

/// A rule that lets applications' connections through and not those by which the mesh carries them between nodes.
#[derive(Debug, Clone)]
pub struct Gap<'a> {
    /// The policy.
    pub policy: &'a NetworkPolicy,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// Which rule of it.
    pub rule: usize,
}

/// One direction's rule, of either.
struct Rule<'a> {
    policy: &'a NetworkPolicy,
    direction: &'static str,
    index: usize,
    ports: &'a [PolicyPort],
    peers: &'a [PolicyPeer],
}

impl Gap<'_> {
    /// What is wrong, and the cure.
    pub fn message(&self) -> String {
        format!(
            "lets applications' ports through and not {TUNNEL_PORT}, to which the mesh's traffic between nodes goes: pods on \
             other nodes cannot connect where the network enforces this (add {{port: {TUNNEL_PORT}}} to its ports; which port and \
             which caller may be reached behind it, an AuthorizationPolicy says)"
        )
    }
}

/// Finds them among the policies of one namespace.
pub fn without_tunnels<'a>(policies: &[&'a NetworkPolicy]) -> Vec<Gap<'a>> {
    let rules: Vec<Rule<'a>> = policies.iter().flat_map(|policy| rules(policy)).collect();
    rules
        .iter()
        .filter(|rule| rule.is_for_applications() && !rules.iter().any(|other| other.tunnels_for(rule)))
        .map(|rule| Gap { policy: rule.policy, direction: rule.direction, rule: rule.index })
        .collect()
}

fn rules(policy: &NetworkPolicy) -> impl Iterator<Item = Rule<'_>> {
    let rule = move |direction, index, ports, peers| Rule { policy, direction, index, ports, peers };
    let ingress = policy.spec.ingress.iter().enumerate();
    let ingress = ingress.map(move |(index, one)| rule("ingress", index, &*one.ports, &*one.from));
    let egress = policy.spec.egress.iter().enumerate();
    ingress.chain(egress.map(move |(index, one)| rule("egress", index, &*one.ports, &*one.to)))
}

impl Rule<'_> {
    fn selector(&self) -> &LabelSelector {
        &self.policy.spec.pod_selector
    }

    /// Whether it lets TCP through to some ports, and may be about pods of the mesh.
    fn is_for_applications(&self) -> bool {
        let outside = !self.peers.is_empty() && self.peers.iter().all(|peer| peer.ip_block.is_some());
        let is_dns = |port: &PolicyPort| port.port == Some(IntOrString::Int(DNS)) && port.end_port.is_none();
        !outside && self.ports.iter().any(|port| is_tcp(port) && !is_dns(port))
    }

    /// Whether it lets tunnels through wherever another rule lets applications through.
    fn tunnels_for(&self, other: &Self) -> bool {
        self.direction == other.direction
            && (self.selector().is_empty() || self.selector() == other.selector())
            && (self.peers.is_empty()
                || other.peers.iter().all(|peer| self.peers.contains(peer)) && !other.peers.is_empty())
            && (self.ports.is_empty() || self.ports.iter().any(admits_tunnels))
    }
}

fn is_tcp(port: &PolicyPort) -> bool {
    matches!(&*port.protocol, "" | "TCP")
}

fn admits_tunnels(port: &PolicyPort) -> bool {
    is_tcp(port)
        && match (&port.port, port.end_port) {
            (None, _) => true,
            (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&TUNNEL_PORT),
            (Some(IntOrString::Int(port)), None) => *port == TUNNEL_PORT,
            (Some(IntOrString::String(_)), _) => false,
        }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(name: &str, spec: &Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn gaps(specs: &[Value]) -> Vec<String> {
        let policies: Vec<NetworkPolicy> =
            specs.iter().enumerate().map(|(index, spec)| policy(&format!("p{index}"), spec)).collect();
        let found = without_tunnels(&policies.iter().collect::<Vec<_>>());
        found
            .iter()
            .map(|gap| format!("{} {}[{}]", gap.policy.metadata.name, gap.direction, gap.rule))
            .collect()
    }

    #[test]
    fn a_rule_for_an_applications_port_alone_keeps_other_nodes_out() {
        let web =
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 8080}]}]});
        assert_eq!(gaps(&[web]), ["p0 ingress[0]"]);
        let named = json!({"ingress": [{"ports": [{"port": "http"}], "from": [{"podSelector": {}}]}]});
        assert_eq!(gaps(&[named]), ["p0 ingress[0]"]);
        let out =
            json!({"policyTypes": ["Egress"], "egress": [{"ports": [{"protocol": "TCP", "port": 5432}]}]});
        assert_eq!(gaps(&[out]), ["p0 egress[0]"]);
    }

    #[test]
    fn a_rule_that_lets_tunnels_through_is_fine_and_covers_others() {
        assert!(gaps(&[json!({"ingress": [{"ports": [{"port": 8080}, {"port": 15008}]}]})]).is_empty());
        assert!(gaps(&[json!({"ingress": [{"ports": [{"port": 1024, "endPort": 32767}]}]})]).is_empty());
        assert!(gaps(&[json!({"ingress": [{"ports": [{"protocol": "TCP"}]}]})]).is_empty());
        assert!(gaps(&[json!({"ingress": [{"from": [{"podSelector": {}}]}]})]).is_empty());
        let web =
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 8080}]}]});
        let for_all = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 15008}]}]});
        assert!(gaps(&[web.clone(), for_all]).is_empty());
        let for_others =
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": [{"port": 15008}]}]});
        assert_eq!(gaps(&[web, for_others]), ["p0 ingress[0]"]);
    }

    #[test]
    fn tunnels_have_to_come_from_where_the_applications_callers_are() {
        let team = |name: &str| json!([{"namespaceSelector": {"matchLabels": {"team": name}}}]);
        let both = |tunnels: &str| {
            json!({"ingress": [
                {"ports": [{"port": 8080}], "from": team("a")},
                {"ports": [{"port": 15008}], "from": team(tunnels)},
            ]})
        };
        assert!(gaps(&[both("a")]).is_empty());
        assert_eq!(gaps(&[both("b")]), ["p0 ingress[0]"]);
        // From everywhere is more than from one team.
        let wide = json!({"ingress": [{"ports": [{"port": 8080}]}, {"ports": [{"port": 15008}], "from": team("a")}]});
        assert_eq!(gaps(&[wide]), ["p0 ingress[0]"]);
    }

    #[test]
    fn what_is_not_the_meshs_traffic_is_no_gap() {
        assert!(gaps(&[json!({"policyTypes": ["Ingress"]})]).is_empty(), "denied on purpose");
        let dns = json!({"egress": [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]});
        assert!(gaps(&[dns]).is_empty());
        let outside =
            json!({"egress": [{"ports": [{"port": 443}], "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]});
        assert!(gaps(&[outside]).is_empty());
    }
}
