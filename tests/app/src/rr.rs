//! The server of the TCP benchmarks: answers messages of a fixed size, by epoll alone, so that it costs next to nothing.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::Result;
use rustix::event::epoll;

/// Flags of the server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long)]
    port: u16,
    /// Bytes of a message
    #[arg(long, default_value_t = 64)]
    size: usize,
}

struct Connection {
    stream: TcpStream,
    /// Bytes of a message that is not whole yet.
    have: usize,
}

/// Serves for ever.
pub fn run(args: &Args) -> Result<()> {
    let listener = crate::listen(args.port)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listener_key = listener.as_raw_fd();
    epoll::add(&poll, &listener, key(listener_key), epoll::EventFlags::IN)?;
    let mut connections: HashMap<i32, Connection> = HashMap::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0_u8; args.size.max(1)];
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let fd = event.data.u64() as i32;
            if fd == listener_key {
                accept(&listener, &poll, &mut connections)?;
                continue;
            }
            let Some(connection) = connections.get_mut(&fd) else { continue };
            if !connection.turn(&mut buffer) {
                // Closing takes it out of the poll, too.
                connections.remove(&fd);
            }
        }
    }
}

fn key(fd: i32) -> epoll::EventData {
    epoll::EventData::new_u64(fd.unsigned_abs().into())
}

fn accept(
    listener: &TcpListener,
    poll: &rustix::fd::OwnedFd,
    connections: &mut HashMap<i32, Connection>,
) -> Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let fd = stream.as_raw_fd();
        epoll::add(poll, &stream, key(fd), epoll::EventFlags::IN)?;
        connections.insert(fd, Connection { stream, have: 0 });
    }
    Ok(())
}

impl Connection {
    /// Reads what is there and answers a whole message; false at the end of the connection.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read(buffer) {
            Ok(0) => return false,
            Ok(count) => self.have += count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        while self.have >= buffer.len() {
            self.have -= buffer.len();
            // A message is far smaller than a socket's buffer.
            if self.stream.write_all(buffer).is_err() {
                return false;
            }
        }
        true
    }
}
