//! Sends requests on some connections at once, each as soon as the reply to the last is there.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{self, SocketFlags, SocketType, sockopt};

use crate::histogram::Histogram;
use crate::{MESSAGE, family_of};

/// How long a connection lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// For the whole run.
    Kept,
    /// For one request.
    OneRequest,
}

/// What a run did.
pub struct Outcome {
    /// Of all operations that went well.
    pub latencies: Histogram,
    /// The whole run.
    pub took: Duration,
    /// Operations that failed.
    pub errors: u64,
}

impl Outcome {
    /// Of clients that fail where an operation does, once all are done.
    pub fn of(start: Instant, clients: Vec<JoinHandle<Result<Histogram>>>) -> Result<Self> {
        let mut latencies = Histogram::new();
        for client in clients {
            latencies.merge(&client.join().map_err(|_| anyhow!("a client has panicked"))??);
        }
        Ok(Self { latencies, took: start.elapsed(), errors: 0 })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |per_cent| self.latencies.percentile(per_cent).as_secs_f64() * 1e6;
        let (operations, seconds) = (self.latencies.total(), self.took.as_secs_f64());
        let (p50, p99, errors) = (micros(50), micros(99), self.errors);
        write!(
            f,
            "operations={operations} seconds={seconds:.3} p50_us={p50:.1} p99_us={p99:.1} errors={errors}"
        )
    }
}

struct Connection {
    socket: OwnedFd,
    /// When the current operation began: a request's sending, or with one request each, the connect.
    began: Instant,
    /// Whether the request is sent.
    sent: bool,
    /// Bytes of the reply that have come.
    received: usize,
}

/// What became of an event.
enum Progress {
    Waiting,
    Replied,
}

struct Client {
    to: SocketAddr,
    lasting: Lasting,
    poll: OwnedFd,
    connections: Vec<Option<Connection>>,
    latencies: Histogram,
    errors: u64,
}

/// Runs for `time`. A failed connection counts as an error and is replaced.
pub fn run(to: SocketAddr, connections: usize, time: Duration, lasting: Lasting) -> Result<Outcome> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut client =
        Client { to, lasting, poll, connections: Vec::new(), latencies: Histogram::new(), errors: 0 };
    for index in 0..connections {
        let connection = client.connect(index)?;
        client.connections.push(Some(connection));
    }
    let start = Instant::now();
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&client.poll, rustix::buffer::spare_capacity(&mut events), Some(&tick)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll_wait"),
        }
        for event in &events {
            client.proceed(event.data.u64() as usize)?;
        }
        let took = start.elapsed();
        if took >= time {
            return Ok(Outcome { latencies: client.latencies, took, errors: client.errors });
        }
    }
}

impl Client {
    /// A new connection, not yet established.
    fn connect(&self, index: usize) -> Result<Connection> {
        let began = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family_of(self.to), SocketType::STREAM, flags, None)?;
        if self.lasting == Lasting::Kept {
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        match net::connect(&socket, &self.to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", self.to)),
        }
        // Edge-triggered: one registration tells both that it is connected and that a reply is there.
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.poll, &socket, epoll::EventData::new_u64(index as u64), interest)?;
        Ok(Connection { socket, began, sent: false, received: 0 })
    }

    fn proceed(&mut self, index: usize) -> Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        match (connection.step(), self.lasting) {
            (Ok(Progress::Waiting), _) => {}
            (Ok(Progress::Replied), Lasting::Kept) => {
                let now = Instant::now();
                self.latencies.record(now - connection.began);
                connection.began = now;
                connection.received = 0;
                if rustix::io::write(&connection.socket, &[b'w'; MESSAGE]) != Ok(MESSAGE) {
                    self.replace(index)?;
                }
            }
            (Ok(Progress::Replied), Lasting::OneRequest) => {
                let began = connection.began;
                // The close belongs to the operation.
                self.connections[index] = None;
                self.latencies.record(began.elapsed());
                self.connections[index] = Some(self.connect(index)?);
            }
            (Err(_), _) => self.replace(index)?,
        }
        Ok(())
    }

    fn replace(&mut self, index: usize) -> Result<()> {
        self.errors += 1;
        if self.errors > 1000 && self.errors > self.latencies.total() {
            bail!("{} connections to {} failed", self.errors, self.to);
        }
        self.connections[index] = Some(self.connect(index)?);
        Ok(())
    }
}

impl Connection {
    fn step(&mut self) -> rustix::io::Result<Progress> {
        if !self.sent {
            match rustix::io::write(&self.socket, &[b'w'; MESSAGE]) {
                // The reply will be an edge of its own.
                Ok(_) => self.sent = true,
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error),
            }
            return Ok(Progress::Waiting);
        }
        let mut reply = [0; MESSAGE];
        match rustix::io::read(&self.socket, &mut reply[self.received..]) {
            Ok(0) => Err(Errno::CONNRESET),
            Ok(length) => {
                self.received += length;
                Ok(if self.received == MESSAGE { Progress::Replied } else { Progress::Waiting })
            }
            Err(Errno::AGAIN) => Ok(Progress::Waiting),
            Err(error) => Err(error),
        }
    }
}
