//! One program for every pod of weft's tests and demo: `weft-app ROLE [flags]`.
//!
//! Servers answer on IPv4 and IPv6, HTTP/1.1 and h2c alike, and name themselves in `x-app` and `x-app-version`.

mod authz;
mod bookinfo;
mod ca;
mod echo;
mod http_client;
mod http_server;
mod issuer;
mod kube_proxy;
mod load;
mod page;
mod shop;
mod tcp;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

/// Plays one part in weft's tests and demo.
#[derive(Parser)]
#[command(name = "weft-app")]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Bookinfo's page: HTML, calls details and reviews
    Productpage(http_server::Args),
    /// Bookinfo's details
    Details(http_server::Args),
    /// Bookinfo's reviews: v1 no stars, v2 black ones, v3 red ones
    Reviews(http_server::Args),
    /// Bookinfo's ratings
    Ratings(http_server::Args),
    /// FTGO's consumer service: `/consumers`, `/actuator/health`
    Consumer(http_server::Args),
    /// The web shop's catalogue: `/items`
    Catalog(http_server::Args),
    /// The web shop's front: `/api/catalog` calls `http://catalog/items`
    Apigateway(http_server::Args),
    /// Answers what it was asked, as JSON; paths such as `/status/503` misbehave in all ways that HTTP knows
    Echo(http_server::Args),
    /// An external authorizer, over HTTP and gRPC: lets pass what says `x-ext-authz: allow`
    Authz(http_server::Args),
    /// An issuer of tokens: `/keys`, `/token/HEX`
    Issuer(http_server::Args),
    /// Answers the bytes that it gets
    TcpEcho(tcp::Args),
    /// Speaks first, like MySQL, and then echoes
    Greet(tcp::Args),
    /// What kube-proxy does for pods outside of the mesh, in user space
    KubeProxy(kube_proxy::Args),
    /// A certificate service as Istio's, for agents with --ca-address
    Ca(ca::Args),
    /// Many requests, counted; the report is JSON
    Load(load::Args),
}

/// One thread is enough for a pod, and the machine has few.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().role {
        Role::Productpage(args) => block_on(bookinfo::productpage(args)),
        Role::Details(args) => block_on(bookinfo::details(args)),
        Role::Reviews(args) => block_on(bookinfo::reviews(args)),
        Role::Ratings(args) => block_on(bookinfo::ratings(args)),
        Role::Consumer(args) => block_on(shop::consumer(args)),
        Role::Catalog(args) => block_on(shop::catalog(args)),
        Role::Apigateway(args) => block_on(shop::apigateway(args)),
        Role::Echo(args) => block_on(echo::run(args)),
        Role::Authz(args) => block_on(authz::run(args)),
        Role::Issuer(args) => block_on(issuer::run(args)),
        Role::TcpEcho(args) => block_on(tcp::echo(args)),
        Role::Greet(args) => block_on(tcp::greet(args)),
        Role::KubeProxy(args) => block_on(kube_proxy::run(args)),
        Role::Ca(args) => block_on(ca::run(args)),
        Role::Load(args) => block_on(load::run(args)),
    }
}

/// Listens on `port` of every address, IPv4 included.
fn listen(port: u16) -> anyhow::Result<std::net::TcpListener> {
    use anyhow::Context as _;
    use socket2::{Domain, Protocol, Socket, Type};
    let address = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).with_context(|| format!("cannot listen on port {port}"))?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// An IPv4 address as such, also where it arrived at an IPv6 socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
