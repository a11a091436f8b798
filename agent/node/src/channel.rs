//! Messages with open files between processes of this machine, over a unix socket: each in JSON, in a packet of its own.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Open files in one packet; the kernel takes 253.
pub const FILES: usize = 128;
/// Longest packet.
const PACKET_BYTES: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;

/// A connection.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Connects to whoever listens at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// The next one that comes to `listener`.
    pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(net::accept_with(listener, SocketFlags::CLOEXEC)?))
    }

    /// Process and user at the other end.
    pub fn peer(&self) -> io::Result<net::UCred> {
        Ok(sockopt::socket_peercred(&self.0)?)
    }

    /// Waits no longer than this for the other side to take a message.
    pub fn limit_sending(&self, patience: Duration) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, Some(patience))?)
    }

    /// Sends a message with open files.
    pub fn send<M: Serialize>(&self, message: &M, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::other("too many files in a message"));
        }
        net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives a message with its files, waiting for `patience` at most; `None`: the other side has gone.
    pub fn receive<M: DeserializeOwned>(
        &self,
        patience: Option<Duration>,
    ) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, patience)?;
        let mut bytes = vec![0; PACKET_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let received = loop {
            match net::recvmsg(&self.0, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let files: Vec<OwnedFd> = files.flatten().collect();
        if received.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, files)))
    }

    /// Whether the other side is there, and silent.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(net::recv(&self.0, &mut byte, flags), Err(rustix::io::Errno::AGAIN))
    }
}

/// Listens at `path`, in place of what a dead agent left there. Whoever gets in is asked who it is.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket()?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Attaches borrowed files to a message.
pub fn borrow(files: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    files.iter().map(AsFd::as_fd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn messages_arrive_one_by_one_with_their_files() {
        let temp = tempfile::TempDir::new().unwrap();
        let path = temp.path().join("channel.sock");
        let listener = listen(&path).unwrap();
        let near = Channel::connect(&path).unwrap();
        let far = Channel::accept(listener.as_fd()).unwrap();
        assert_eq!(far.peer().unwrap().uid, rustix::process::geteuid());

        let mut file = std::fs::File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(temp.path().join("file"))
            .unwrap();
        file.write_all(b"content").unwrap();
        near.send(&"ask", &[]).unwrap();
        near.send(&[(7, 1); 2], &[file.as_fd(), file.as_fd()]).unwrap();
        assert!(!far.is_quiet());
        assert!(
            matches!(far.receive::<String>(None).unwrap(), Some((word, files)) if word == "ask" && files.is_empty())
        );
        let (places, files) = far.receive::<Vec<(u64, u32)>>(None).unwrap().unwrap();
        assert_eq!((places.len(), files.len()), (2, 2));
        let mut received = std::fs::File::from(files.into_iter().next().unwrap());
        received.rewind().unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");

        assert!(far.is_quiet());
        let waited = far.receive::<String>(Some(Duration::from_millis(5))).unwrap_err();
        assert!(matches!(waited.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{waited}");
        drop(near);
        assert!(far.receive::<String>(None).unwrap().is_none());
    }
}
