//! Sends every message back.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{self, SocketFlags, SocketType, sockopt};

use crate::{MESSAGE, family_of};

/// The listener's event data; connections have their index.
const LISTENER: u64 = u64::MAX;

struct Connection {
    socket: OwnedFd,
    /// Bytes of the current message that have come.
    received: usize,
}

/// Serves until killed.
pub fn run(listen: SocketAddr) -> Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = net::socket_with(family_of(listen), SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    net::bind(&listener, &listen).with_context(|| format!("cannot bind {listen}"))?;
    net::listen(&listener, 4096)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;

    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll_wait"),
        }
        for event in &events {
            let data = event.data.u64();
            if data != LISTENER {
                let index = data as usize;
                if connections[index].as_mut().is_some_and(|connection| !serve(connection)) {
                    connections[index] = None;
                    free.push(index);
                }
                continue;
            }
            while let Ok(socket) = net::accept_with(&listener, flags) {
                let index = free.pop().unwrap_or_else(|| {
                    connections.push(None);
                    connections.len() - 1
                });
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&poll, &socket, data, epoll::EventFlags::IN)?;
                connections[index] = Some(Connection { socket, received: 0 });
            }
        }
    }
}

/// Answers what has come; false if the connection is at its end.
fn serve(connection: &mut Connection) -> bool {
    let mut message = [0; MESSAGE];
    match rustix::io::read(&connection.socket, &mut message[connection.received..]) {
        Ok(0) => false,
        Ok(length) => {
            connection.received += length;
            if connection.received < MESSAGE {
                return true;
            }
            connection.received = 0;
            // One message at a time is on the way: the socket's buffer always has room.
            rustix::io::write(&connection.socket, &message) == Ok(MESSAGE)
        }
        Err(Errno::AGAIN | Errno::INTR) => true,
        Err(_) => false,
    }
}
