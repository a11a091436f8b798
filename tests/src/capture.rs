//! What crosses a pod's network interface: TCP streams as an eavesdropper puts them together.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

use crate::pod::{Pod, enter};

/// Every protocol, in network byte order.
const ETH_P_ALL: i32 = 0x0003_u16.to_be() as i32;
/// What may wait to be read; the rest would be lost.
const BUFFER: usize = 64 << 20;
/// The kernel may put segments together to this, and headers.
const LARGEST_FRAME: usize = 128 << 10;
const ETHERNET: usize = 14;
const TCP: u8 = 6;
const SYN: u8 = 2;
/// A TLS record's first five bytes, and its most.
const RECORD_HEADER: usize = 5;
const LARGEST_RECORD: usize = (16 << 10) + 256;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// One direction of a TCP connection.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// All that was sent since the capture began, in order.
    pub bytes: Vec<u8>,
    /// The sequence number that comes next; `None` before the first segment.
    next: Option<u32>,
}

/// Listens at a namespace's interfaces, the loopback device apart. Frames wait in the kernel until somebody asks.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
    flows: BTreeMap<(SocketAddr, SocketAddr), Flow>,
}

impl Pod {
    /// Begins to listen to what crosses the pod's interface.
    pub fn capture(&self) -> Result<Capture> {
        Capture::of(&self.netns)
    }
}

impl Capture {
    /// Begins to listen at all interfaces of a network namespace in `/run/netns`.
    pub fn of(netns: &str) -> Result<Self> {
        let socket =
            enter(netns, || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ETH_P_ALL))))?
                .context("cannot listen to frames")?;
        set_socket_recv_buffer_size_force(&socket, BUFFER)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, flows: BTreeMap::new() })
    }

    /// What was sent so far, connection by connection, each direction apart.
    pub fn flows(&mut self) -> Result<impl Iterator<Item = &Flow>> {
        let mut frame = vec![0; LARGEST_FRAME];
        loop {
            match self.socket.read(&mut frame) {
                Ok(length) => self.take(&frame[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot read frames"),
            }
        }
        Ok(self.flows.values().filter(|flow| !flow.bytes.is_empty()))
    }

    fn take(&mut self, frame: &[u8]) {
        let Some(segment) = Segment::read(frame) else { return };
        let Segment { from, to, .. } = segment;
        let flow = self.flows.entry((from, to));
        flow.or_insert_with(|| Flow { from, to, bytes: Vec::new(), next: None }).take(&segment);
    }

    /// Whether these bytes crossed in plain sight, in any direction.
    pub fn saw(&mut self, bytes: &[u8]) -> Result<bool> {
        Ok(self.flows()?.any(|flow| flow.bytes.windows(bytes.len()).any(|window| window == bytes)))
    }

    /// How many connections to a port began with a TLS `ClientHello`. It fails if anything crossed from or to that port
    /// that is no TLS record.
    pub fn tls_to(&mut self, port: u16) -> Result<usize> {
        let mut hellos = 0;
        for flow in self.flows()?.filter(|flow| flow.to.port() == port || flow.from.port() == port) {
            let Flow { from, to, bytes, .. } = flow;
            anyhow::ensure!(flow.is_tls(), "{from} sent {to} what is no TLS: {}", shown(bytes));
            hellos += usize::from(to.port() == port && flow.begins_with_client_hello());
        }
        Ok(hellos)
    }
}

impl Flow {
    fn take(&mut self, segment: &Segment<'_>) {
        if segment.syn {
            // A port that is used again begins anew.
            (self.next, self.bytes) = (Some(segment.sequence.wrapping_add(1)), Vec::new());
        }
        let known = self.next.map_or(0, |next| next.wrapping_sub(segment.sequence));
        // Sent again, wholly or in part; what seems far ahead has been lost before it.
        let known = if known < u32::MAX / 2 { known as usize } else { 0 };
        if let Some(new) = segment.payload.get(known..).filter(|new| !new.is_empty()) {
            self.bytes.extend_from_slice(new);
            let end = u32::try_from(segment.payload.len()).unwrap_or(0);
            self.next = Some(segment.sequence.wrapping_add(end));
        }
    }

    /// Whether it consists of TLS records; the last may be on its way.
    pub fn is_tls(&self) -> bool {
        let mut rest = self.bytes.as_slice();
        while let [kind, 3, minor, high, low, ..] = *rest {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if !(20..=23).contains(&kind) || minor > 4 || length > LARGEST_RECORD {
                return false;
            }
            rest = rest.get(RECORD_HEADER + length..).unwrap_or_default();
        }
        rest.len() < RECORD_HEADER && rest.first().is_none_or(|kind| (20..=23).contains(kind))
    }

    /// Whether its first record is a `ClientHello`.
    pub fn begins_with_client_hello(&self) -> bool {
        self.bytes.first() == Some(&HANDSHAKE) && self.bytes.get(RECORD_HEADER) == Some(&CLIENT_HELLO)
    }
}

/// The beginning of it, as a person can read it.
fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(80)].escape_ascii().to_string()
}

/// A TCP segment inside of an Ethernet frame.
struct Segment<'a> {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    syn: bool,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `None` for what is no TCP, and for the loopback device, whose frames bear no addresses.
    fn read(frame: &'a [u8]) -> Option<Self> {
        let (ethernet, packet) = frame.split_at_checked(ETHERNET)?;
        if ethernet[..12].iter().all(|&byte| byte == 0) {
            return None;
        }
        let (source, destination, segment): (IpAddr, IpAddr, &[u8]) = match ethernet[12..] {
            [0x08, 0x00] => {
                let header = packet.first_chunk::<20>()?;
                let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
                // Padding follows a short packet; one that was put together may be longer than it can say.
                let packet = packet.get(..length).filter(|_| length > 0).unwrap_or(packet);
                let address = |at| packet.get(at..at + 4)?.try_into().ok().map(|bytes: [u8; 4]| bytes.into());
                let (source, destination): (Ipv4Addr, Ipv4Addr) = (address(12)?, address(16)?);
                let body = packet.get(usize::from(header[0] & 0xf) * 4..)?;
                (header[9] == TCP).then_some((source.into(), destination.into(), body))?
            }
            [0x86, 0xdd] => {
                let header = packet.first_chunk::<40>()?;
                let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
                let body = &packet[40..];
                let body = body.get(..length).filter(|_| length > 0).unwrap_or(body);
                let address =
                    |at| packet.get(at..at + 16)?.try_into().ok().map(|bytes: [u8; 16]| bytes.into());
                let (source, destination): (Ipv6Addr, Ipv6Addr) = (address(8)?, address(24)?);
                (header[6] == TCP).then_some((source.into(), destination.into(), body))?
            }
            _ => return None,
        };
        let header = segment.first_chunk::<20>()?;
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Some(Self {
            from: (source, port(0)).into(),
            to: (destination, port(2)).into(),
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            syn: header[13] & SYN != 0,
            payload: segment.get(usize::from(header[12] >> 4) * 4..)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame from 10.0.0.1:1000 to 10.0.0.2:15008.
    fn frame(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend(u16::try_from(40 + payload.len()).expect("short").to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(1000_u16.to_be_bytes());
        frame.extend(15008_u16.to_be_bytes());
        frame.extend(sequence.to_be_bytes());
        frame.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        // Ethernet pads what is short.
        frame.extend([0; 6]);
        frame
    }

    fn flow(frames: &[Vec<u8>]) -> Flow {
        let (from, to) = (([10, 0, 0, 1], 1000).into(), ([10, 0, 0, 2], 15008).into());
        let mut flow = Flow { from, to, bytes: Vec::new(), next: None };
        for frame in frames {
            let segment = Segment::read(frame).expect("TCP");
            assert_eq!((segment.from, segment.to), (from, to));
            flow.take(&segment);
        }
        flow
    }

    #[test]
    fn streams_are_put_together() {
        let begin = u32::MAX - 2;
        let frames = [
            frame(begin, SYN, b""),
            frame(begin.wrapping_add(1), 0, b"abc"),
            frame(begin.wrapping_add(1), 0, b"abcd"),
            frame(begin.wrapping_add(5), 0, b"ef"),
            frame(begin.wrapping_add(1), 0, b"abc"),
        ];
        assert_eq!(flow(&frames).bytes, b"abcdef");
        assert!(Segment::read(b"short").is_none());
        let mut loopback = frame(1, 0, b"x");
        loopback[..12].fill(0);
        assert!(Segment::read(&loopback).is_none());
    }

    #[test]
    fn tls_is_told_from_other_bytes() {
        let hello = flow(&[frame(1, 0, &[22, 3, 1, 0, 2, 1, 0, 20, 3, 3, 0, 1, 1, 23, 3])]);
        assert!(hello.is_tls() && hello.begins_with_client_hello());
        for plain in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0, 1, 1, b'P', b'O', b'S', b'T', b' '], b"x"]
        {
            assert!(!flow(&[frame(1, 0, plain)]).is_tls(), "{}", shown(plain));
        }
    }
}
