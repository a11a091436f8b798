//! Addresses that mean something to the machine that uses them: a user who names one sends a node to itself, to its
//! neighbours or to its cloud.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds answer their machines without asking who they are: AWS (IPv6), GCP (IPv6), Alibaba, Oracle, Azure. The others
/// do so at 169.254.169.254, which is link-local.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// What an address is, where no user may send a node there; `None`: nothing of that kind.
pub fn kind(address: IpAddr) -> Option<&'static str> {
    let address = plain(address);
    let (link_local, this_network) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[0] == 0 || v4.is_broadcast()),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_unspecified()),
    };
    if address.is_loopback() {
        Some("a loopback address")
    } else if this_network {
        Some("an unspecified address")
    } else if METADATA.contains(&address) {
        Some("the address of a cloud's metadata")
    } else if link_local {
        Some("a link-local address, where clouds have their metadata")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, "compatible" (RFC 4291, 2.5.5), behind NAT64 (RFC 6052, 2.1) or
/// 6to4 (RFC 3056); any other as it is.
pub fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let parts = v6.segments();
    let v4 = |at: usize| {
        let [[a, b], [c, d]] = [parts[at], parts[at + 1]].map(u16::to_be_bytes);
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => v4(6),
        // `::` and `::1` are their own.
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => v4(6),
        [0x2002, ..] => v4(1),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_is_not_to_be_sent_to() {
        for text in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(kind(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.1", "203.0.113.7", "fd00::1", "2001:db8::1", "64:ff9b::cb00:7107"]
        {
            assert_eq!(kind(text.parse().unwrap()), None, "{text}");
        }
    }
}
