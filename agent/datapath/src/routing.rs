//! What the agent changes in a pod's namespace, besides listening: loopback is up, a rule and a route bring replies to
//! a borrowed client address back to the agent, and some sysctls. All functions work in the calling thread's namespace.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType};
use weft_common::LOOPBACK_DEVICE;

use super::mounts;

/// The mark of connections that borrow a client's address. Grants nothing: a pod may set it too, and reaches itself.
pub const INBOUND_MARK: u32 = 0x7765_6674;
/// The routing table that such connections use, and the preference of the rule that leads there.
const TABLE: u32 = 15_006;

/// What a namespace must have set:
/// - `tcp_fwmark_accept`: the reply to a marked connection carries its mark, so that the rule sees it.
/// - `fwmark_reflect`: so does the refusal of one to a closed port, which no socket sends.
/// - `tcp_tw_reuse`: a borrowed address may use a port again a second later; there are fewer than 20,000 of them.
const SYSCTLS: &[&str] = &[
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/fwmark_reflect",
    "net/ipv6/fwmark_reflect",
    "net/ipv4/tcp_tw_reuse",
];
const WANTED: &str = "1";

/// Values that were found and changed, by name.
pub type Sysctls = BTreeMap<String, String>;

/// The sysctls as they are, those that need a change only.
pub fn read_sysctls() -> io::Result<Sysctls> {
    let mut found = Sysctls::new();
    for &name in SYSCTLS {
        let value = match fs::read_to_string(mounts::sysctls().join(name)) {
            Ok(value) => value.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if value != WANTED {
            found.insert(name.to_owned(), value);
        }
    }
    Ok(found)
}

/// Sets everything up; what is there already is left.
pub fn set_up(sysctls: &Sysctls) -> io::Result<()> {
    for name in sysctls.keys() {
        fs::write(mounts::sysctls().join(name), WANTED)?;
    }
    let netlink = Netlink::open()?;
    netlink.send(RouteNetlinkMessage::SetLink(loopback_up()), 0)?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let rule = netlink.send(RouteNetlinkMessage::NewRule(rule(family)), create);
        let route = netlink.send(RouteNetlinkMessage::NewRoute(route(family)), create);
        for result in [rule, route] {
            match result {
                Err(error) if is(&error, libc::EEXIST) => {}
                Err(error) if family == AddressFamily::Inet6 && is_missing_family(&error) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Takes everything back that [`set_up`] did. A sysctl that somebody else has changed since is left.
pub fn tear_down(sysctls: &Sysctls) -> io::Result<()> {
    for (name, value) in sysctls {
        let path = mounts::sysctls().join(name);
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() == WANTED) {
            fs::write(path, value)?;
        }
    }
    let netlink = Netlink::open()?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let rule = netlink.send(RouteNetlinkMessage::DelRule(rule(family)), 0);
        let route = netlink.send(RouteNetlinkMessage::DelRoute(route(family)), 0);
        for result in [rule, route] {
            match result {
                Err(error) if is(&error, libc::ENOENT) || is(&error, libc::ESRCH) => {}
                Err(error) if family == AddressFamily::Inet6 && is_missing_family(&error) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// The addresses of all devices.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    Netlink::open()?.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            found.extend(address.attributes.iter().filter_map(|attribute| match attribute {
                // Of a point-to-point link the first is the other end's.
                AddressAttribute::Address(address) | AddressAttribute::Local(address) => Some(*address),
                _ => None,
            }));
        }
    })?;
    Ok(found)
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

/// The namespace has no IPv6.
fn is_missing_family(error: &io::Error) -> bool {
    [libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::ENODEV, libc::EACCES].iter().any(|&errno| is(error, errno))
}

fn loopback_up() -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = LOOPBACK_DEVICE;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

/// `ip rule add fwmark MARK lookup TABLE`
fn rule(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(TABLE),
        RuleAttribute::FwMark(INBOUND_MARK),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(TABLE),
    ];
    rule
}

/// `ip route add local default dev lo table TABLE`
fn route(family: AddressFamily) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: family,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    route.attributes = vec![RouteAttribute::Oif(LOOPBACK_DEVICE), RouteAttribute::Table(TABLE)];
    route
}

/// Whether the kernel, asked in the calling thread's namespace, would deliver to this very machine what is sent to an address.
/// An address without a route leads nowhere.
pub fn leads_here(address: IpAddr) -> io::Result<bool> {
    let mut route = RouteMessage::default();
    let (family, length, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    route.header.address_family = family;
    route.header.destination_prefix_length = length;
    route.attributes = vec![RouteAttribute::Destination(destination)];
    match Netlink::open()?.ask(RouteNetlinkMessage::GetRoute(route), 0) {
        Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(found))) => {
            Ok(found.header.kind == RouteType::Local)
        }
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel did not answer the request")),
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::HostUnreachable => Ok(false),
        Err(error) => Err(error),
    }
}

/// A routing socket, one request at a time.
struct Netlink(rustix::fd::OwnedFd);

impl Netlink {
    fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let (family, flags) = (net::AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        Ok(Self(net::socket_with(family, SocketType::RAW, flags, None)?))
    }

    /// Sends one request and hands over all that the kernel answers.
    fn dump(
        &self,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.request(message, NLM_F_DUMP)?;
        let mut answer = vec![0_u8; 32 << 10];
        loop {
            let (length, _) = net::recv(&self.0, answer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &answer[..length];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(unreadable)?;
                let taken = (message.header.length as usize).next_multiple_of(4);
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    _ => {}
                }
                rest = rest.get(taken..).unwrap_or_default();
            }
        }
    }

    /// Sends one request and waits for the kernel's word on it.
    fn send(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        match self.ask(message, NLM_F_ACK | flags)? {
            NetlinkPayload::Error(_) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel did not answer the request")),
        }
    }

    /// Sends one request and waits for the answer; a refusal is an error.
    fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<NetlinkPayload<RouteNetlinkMessage>> {
        self.request(message, flags)?;
        let mut answer = [0_u8; 4096];
        let (length, _) = net::recv(&self.0, &mut answer, RecvFlags::empty())?;
        let answer =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..length]).map_err(unreadable)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            answer => Ok(answer),
        }
    }

    fn request(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        net::send(&self.0, &bytes, SendFlags::empty())?;
        Ok(())
    }
}

fn unreadable(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
