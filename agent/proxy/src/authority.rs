//! Whom a tunnel is for: an address and a port of the pod that it arrived at, and nothing else.

use std::net::{IpAddr, SocketAddr};

use weft_common::{INBOUND_PORT, OUTBOUND_PORT};

use super::tunnels;

/// The destination of a tunnel that arrived at a pod with these addresses; `None`: it may not lead there. Another pod,
/// the node, loopback and link-local addresses are not the pod's, a name is none, and weft's own ports lead nowhere.
pub(super) fn destination(authority: &str, addresses: &[IpAddr]) -> Option<SocketAddr> {
    let to: SocketAddr = authority.parse().ok()?;
    let own = [tunnels::PORT, INBOUND_PORT, OUTBOUND_PORT];
    (addresses.contains(&to.ip()) && to.port() != 0 && !own.contains(&to.port())).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(authority: &str) -> Option<SocketAddr> {
        let addresses = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        destination(authority, &addresses)
    }

    #[test]
    fn a_tunnel_leads_to_its_own_pod() {
        assert_eq!(parse("10.0.0.7:80"), Some(SocketAddr::from(([10, 0, 0, 7], 80))));
        assert_eq!(parse("[fd00::7]:8080").map(|to| to.port()), Some(8080));
    }

    #[test]
    fn and_nowhere_else() {
        for authority in [
            "10.0.0.8:80",
            "127.0.0.1:80",
            "[::1]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[fe80::1%25eth0]:80",
            "0.0.0.0:80",
            "[::]:80",
            "[::ffff:10.0.0.7]:80",
            "[::ffff:127.0.0.1]:80",
            "10.0.0.7",
            "10.0.0.7:",
            "10.0.0.7:0",
            "10.0.0.7:65536",
            "10.0.0.7:080808",
            "010.0.0.7:80",
            "167772167:80",
            "localhost:80",
            "reviews.default.svc.cluster.local:9080",
            "user@10.0.0.7:80",
            "10.0.0.7:15001",
            "10.0.0.7:15006",
            "10.0.0.7:15008",
            "fd00::7:80",
            "",
        ] {
            assert_eq!(parse(authority), None, "{authority}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_for_it_is_the_pod(authority in ".*") {
            if let Some(to) = parse(&authority) {
                proptest::prop_assert!(["10.0.0.7", "fd00::7"].contains(&to.ip().to_string().as_str()));
            }
        }
    }
}
