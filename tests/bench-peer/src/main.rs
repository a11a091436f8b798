//! Clients and servers for `cargo xtask bench`: of 64-byte messages, by one thread and epoll on each side, so that what is
//! measured is the way between them; of gRPC; and a client of HTTP at a fixed rate.
//!
//! A client prints one line, `operations=… seconds=… p50_us=… p99_us=… errors=…`.

mod certificates;
mod client;
mod grpc;
mod handshakes;
mod histogram;
mod probe;
mod rate;
mod server;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustix::net::AddressFamily;

/// Bytes of a request, and of a reply.
const MESSAGE: usize = 64;

#[derive(Parser)]
#[command(about = "Clients and servers of the benchmarks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send every message back, until killed
    Serve {
        /// Where to listen
        listen: SocketAddr,
    },
    /// Send a request on each connection, again as soon as its reply is there
    Rr(Load),
    /// Connect, send a request, read its reply, close; again at once
    Crr(Load),
    /// Answer calls of gRPC, until killed
    ServeGrpc {
        /// Where to listen
        listen: SocketAddr,
    },
    /// Make calls of gRPC, each as soon as the one before is answered
    Grpc(grpc::Args),
    /// Send requests of HTTP/1.1 at a fixed rate
    Rate(rate::Args),
    /// Connect with TLS, wait for the server's first byte, close; again at once
    Handshakes(handshakes::Args),
    /// Write certificates of servers
    Certificates(certificates::Args),
    /// Repeat an HTTP request until its answer contains a text; print the Unix time in microseconds when it did
    Until(probe::Args),
}

#[derive(clap::Args)]
struct Load {
    /// The server
    to: SocketAddr,
    /// Connections at once
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How long, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    let (load, lasting) = match Cli::parse().command {
        Command::Serve { listen } => return server::run(listen),
        Command::ServeGrpc { listen } => return grpc::serve(listen),
        Command::Until(args) => return probe::run(&args),
        Command::Certificates(args) => return certificates::write(&args),
        Command::Handshakes(args) => return handshakes::run(&args).map(|outcome| println!("{outcome}")),
        Command::Grpc(args) => return grpc::run(&args).map(|outcome| println!("{outcome}")),
        Command::Rate(args) => return rate::run(&args).map(|outcome| println!("{outcome}")),
        Command::Rr(load) => (load, client::Lasting::Kept),
        Command::Crr(load) => (load, client::Lasting::OneRequest),
    };
    let outcome = client::run(load.to, load.connections, Duration::from_secs_f64(load.seconds), lasting)?;
    println!("{outcome}");
    Ok(())
}

fn family_of(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}
