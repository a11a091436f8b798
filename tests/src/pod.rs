//! A pod: a network namespace with addresses, in which programs run.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::http::Caller;
use crate::manifest::PodSpec;
use crate::network::NETNS_DIR;
use crate::process::{Daemon, Output};
use crate::wait::lock;
use crate::world::{World, built_binary};

/// For a program to listen, or a connection to come.
const START: Duration = Duration::from_secs(10);
/// For a peer to read or to write.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    /// What its manifest says.
    pub spec: PodSpec,
    /// Name of its network namespace.
    pub netns: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its other address.
    pub ip6: Ipv6Addr,
    logs: PathBuf,
    records: PathBuf,
    daemons: Mutex<Vec<Daemon>>,
}

impl Pod {
    pub(crate) fn create(world: &World, spec: PodSpec) -> Result<Self> {
        let (netns, ip, ip6) = world.add_pod(&spec.name)?;
        let logs = world.dir().join("pods");
        fs::create_dir_all(&logs)?;
        Ok(Self { spec, netns, ip, ip6, logs, records: world.records(), daemons: Mutex::default() })
    }

    /// `program`, to be run in the pod.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(program);
        command
    }

    pub(crate) fn caller(&self) -> Caller {
        let words = ["ip", "netns", "exec", &self.netns];
        Caller { name: self.spec.name.clone(), words: words.map(str::to_owned).into() }
    }

    /// Runs a program in the pod to its end.
    pub fn exec(&self, words: &[&str]) -> Result<Output> {
        let (program, args) = words.split_first().context("no program to run")?;
        Output::of(self.command(program).args(args))
    }

    /// Starts `weft-app ROLE …` in the pod and waits until it listens on all that follows a `--port`.
    pub fn app(&self, args: &[&str]) -> Result<()> {
        let mut command = self.command(built_binary("weft-app")?);
        self.daemon(command.args(args))?;
        let ports = args.windows(2).filter(|pair| pair[0] == "--port").map(|pair| pair[1].parse::<u16>());
        for port in ports {
            self.listening(port?)?;
        }
        Ok(())
    }

    /// Starts a program that is to run as long as the pod.
    pub fn daemon(&self, command: &mut Command) -> Result<u32> {
        let mut daemons = lock(&self.daemons);
        let log = self.logs.join(format!("{}-{}.log", self.spec.name, daemons.len()));
        let daemon = Daemon::start(command, &log, &self.records)?;
        let id = daemon.id();
        daemons.push(daemon);
        Ok(id)
    }

    /// Ends all programs of the pod, which stays.
    pub fn stop(&self) {
        lock(&self.daemons).clear();
    }

    /// What the pod's programs said, for a person who looks for a failure.
    pub fn said(&self) -> String {
        let daemons = lock(&self.daemons);
        daemons.iter().map(|daemon| daemon.output() + &daemon.errors()).collect()
    }

    /// Waits until somebody listens on `port`.
    pub fn listening(&self, port: u16) -> Result<()> {
        let wanted = format!(":{port:04X} ");
        crate::eventually(&format!("{} listens on {port}", self.spec.name), START, || {
            let tables = self.enter(|| {
                ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")))
            })?;
            let text = tables.into_iter().collect::<std::io::Result<String>>()?;
            // Local address, remote address, state; 0A is LISTEN.
            let found = text.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.nth(1).is_some_and(|local| format!("{local} ").ends_with(&wanted))
                    && words.nth(1) == Some("0A")
            });
            anyhow::ensure!(found, "nobody does: {}", self.said());
            Ok(())
        })
    }

    /// Does something in the pod's network, on a thread of its own: sockets made there stay in it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        enter(&self.netns, work)
    }

    /// Dials from the pod.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let stream = self
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))?
            .with_context(|| format!("{} cannot connect to {address}", self.spec.name))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Listens in the pod, on IPv4 and IPv6 alike where `[::]` does.
    pub fn listen(&self, port: u16) -> Result<Listener> {
        let listener = self.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        let listener = listener.with_context(|| format!("{} cannot listen on {port}", self.spec.name))?;
        listener.set_nonblocking(true)?;
        Ok(Listener(listener))
    }

    /// An address of the pod.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// The IPv6 one.
    pub fn at6(&self, port: u16) -> SocketAddr {
        (self.ip6, port).into()
    }
}

/// A server inside of a test: it listens in a pod.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// The next connection, and who opened it.
    pub fn accept(&self) -> Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = crate::eventually("a connection", START, || Ok(self.0.accept()?))?;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())))
    }

    /// Fails if somebody connects, or has.
    pub fn nobody(&self) -> Result<()> {
        match self.0.accept() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Ok((_, peer)) => anyhow::bail!("{peer} has connected"),
            Err(error) => Err(error.into()),
        }
    }
}

/// Does something in a network namespace, on a thread of its own.
pub fn enter<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let netns = File::open(Path::new(NETNS_DIR).join(netns))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
            anyhow::Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
