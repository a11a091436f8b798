//! The client of the TCP benchmarks: request and reply, on kept or on fresh connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, Socket, Type};

/// Flags of the client.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// ADDRESS:PORT of the server
    server: SocketAddr,
    /// Exchanges at once
    #[arg(short, long, default_value_t = 1)]
    connections: usize,
    /// How long
    #[arg(short, long, default_value_t = 3.0)]
    seconds: f64,
    /// Bytes of a message
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Connect, one exchange, close
    #[arg(long)]
    close: bool,
}

#[derive(Default, serde::Serialize)]
struct Report {
    /// Exchanges.
    operations: u32,
    /// Exchanges that broke.
    failed: u64,
    seconds: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

struct Exchange {
    stream: TcpStream,
    have: usize,
    sent: bool,
    start: Instant,
}

/// Runs and prints the report as JSON.
pub fn run(args: &Args) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let start = Instant::now();
    let deadline = start + Duration::from_secs_f64(args.seconds);
    let mut report = Report::default();
    let mut times: Vec<f32> = Vec::new();
    let mut exchanges = Vec::new();
    for slot in 0..args.connections {
        exchanges.push(begin(args, &poll, slot)?);
    }
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0_u8; args.size];
    while Instant::now() < deadline {
        events.clear();
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&patience))?;
        for event in &events {
            let slot = event.data.u64() as usize;
            let exchange = &mut exchanges[slot];
            match exchange.turn(&mut buffer) {
                Ok(false) => continue,
                Ok(true) => {
                    report.operations += 1;
                    times.push(exchange.start.elapsed().as_secs_f32() * 1e6);
                    if !args.close {
                        exchange.again(&buffer);
                        continue;
                    }
                }
                Err(_) => report.failed += 1,
            }
            exchanges[slot] = begin(args, &poll, slot)?;
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.per_second = f64::from(report.operations) / report.seconds;
    times.sort_by(f32::total_cmp);
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(0.0).into();
    (report.p50_us, report.p99_us) = (at(50), at(99));
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Connects without waiting; the socket tells when it is there.
fn begin(args: &Args, poll: &rustix::fd::OwnedFd, slot: usize) -> Result<Exchange> {
    let socket = Socket::new(Domain::for_address(args.server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let start = Instant::now();
    match socket.connect(&args.server.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            return Err(error).with_context(|| format!("cannot connect to {}", args.server));
        }
        _ => {}
    }
    let stream = TcpStream::from(socket);
    // Edge-triggered: writable comes once, when the connection stands.
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
    epoll::add(poll, &stream, epoll::EventData::new_u64(slot as u64), flags)?;
    Ok(Exchange { stream, have: 0, sent: false, start })
}

impl Exchange {
    /// Goes on as far as it can; true when a whole answer is here.
    fn turn(&mut self, buffer: &mut [u8]) -> std::io::Result<bool> {
        if !self.sent {
            match self.stream.write(buffer) {
                Ok(_) => self.sent = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        match self.stream.read(buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.have += count;
                Ok(self.have >= buffer.len())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next message on the same connection; an error shows at the next turn.
    fn again(&mut self, buffer: &[u8]) {
        self.have = 0;
        self.start = Instant::now();
        self.sent = self.stream.write(buffer).is_ok();
    }
}
