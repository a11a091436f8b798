//! A stand-in for kube-proxy: pods outside of the mesh reach Service addresses through it.
//!
//! It accepts at each Service's address and port and relays to the endpoints in turn. The file that says so is JSON,
//! `[{"listen": "10.96.0.10:80", "endpoints": ["10.244.0.5:3000"]}]`, and is read again when it changes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Flags of the stand-in.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The table of services
    #[arg(long)]
    table: PathBuf,
}

#[derive(serde::Deserialize)]
struct Entry {
    listen: SocketAddr,
    endpoints: Vec<SocketAddr>,
}

#[derive(Default)]
struct Backends {
    endpoints: Vec<SocketAddr>,
    next: usize,
}

/// Relays for ever.
pub async fn run(args: Args) -> Result<()> {
    let mut served: HashMap<SocketAddr, (Arc<Mutex<Backends>>, AbortHandle)> = HashMap::new();
    let mut text = String::new();
    // The harness writes the table as often as it makes a Service: a look now and then is enough.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        let now = std::fs::read_to_string(&args.table).unwrap_or_default();
        if now == text || now.is_empty() {
            continue;
        }
        let entries: Vec<Entry> =
            serde_json::from_str(&now).with_context(|| args.table.display().to_string())?;
        text = now;
        served.retain(|address, (_, task)| {
            let kept = entries.iter().any(|entry| entry.listen == *address);
            if !kept {
                task.abort();
            }
            kept
        });
        for entry in entries {
            if let Some((backends, _)) = served.get(&entry.listen) {
                backends.lock().expect("no holder panics").endpoints = entry.endpoints;
                continue;
            }
            let listener = TcpListener::bind(entry.listen)
                .await
                .with_context(|| format!("cannot listen on {}", entry.listen))?;
            let backends = Arc::new(Mutex::new(Backends { endpoints: entry.endpoints, next: 0 }));
            let task = tokio::spawn(accept(listener, backends.clone())).abort_handle();
            served.insert(entry.listen, (backends, task));
        }
    }
}

async fn accept(listener: TcpListener, backends: Arc<Mutex<Backends>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let Some(endpoint) = backends.lock().expect("no holder panics").pick() else { continue };
        tokio::spawn(relay(client, endpoint));
    }
}

async fn relay(mut client: TcpStream, endpoint: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(endpoint).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

impl Backends {
    fn pick(&mut self) -> Option<SocketAddr> {
        self.next = self.next.wrapping_add(1);
        let at = self.next.checked_rem(self.endpoints.len())?;
        self.endpoints.get(at).copied()
    }
}
