//! Servers of plain TCP.

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// Flags of the TCP roles.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to listen; may be repeated
    #[arg(long = "port", required = true)]
    ports: Vec<u16>,
    /// What to say first; the pod's version and the client's address follow
    #[arg(long, default_value = "5.7.44-weft")]
    greeting: String,
}

/// Answers what it is sent, up to the end of the stream.
pub async fn echo(args: Args) -> Result<()> {
    serve(args, |mut stream, _| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
}

/// Says `GREETING PEER-ADDRESS` and a line end before it reads, as databases and mail servers do; then echoes.
pub async fn greet(args: Args) -> Result<()> {
    serve(args, |mut stream, greeting| async move {
        let peer =
            stream.peer_addr().map(crate::canonical).map_or_else(|_| "?".into(), |peer| peer.to_string());
        if stream.write_all(format!("{greeting} {peer}\n").as_bytes()).await.is_ok() {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    })
    .await
}

async fn serve<Handler, Work>(args: Args, handler: Handler) -> Result<()>
where
    Handler: Fn(TcpStream, String) -> Work + Copy + Send + 'static,
    Work: Future<Output = ()> + Send + 'static,
{
    let mut servers = tokio::task::JoinSet::new();
    for port in &args.ports {
        let listener = TcpListener::from_std(crate::listen(*port)?)?;
        let greeting = args.greeting.clone();
        servers.spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).ok();
                    tokio::spawn(handler(stream, greeting.clone()));
                } else {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    servers.join_next().await.context("no port to serve")?.context("a listener ended")
}
