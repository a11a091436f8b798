//! Sends requests of HTTP/1.1 at a fixed rate, whether or not the answers to those before are there: what a user feels, where
//! `wrk` asks as fast as it is answered.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::client::Outcome;
use crate::histogram::Histogram;

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest head of an answer, and its body.
const ANSWER: usize = 16 << 10;

#[derive(clap::Args)]
pub struct Args {
    /// The server
    to: SocketAddr,
    /// Requests in a second, on all connections together
    #[arg(long)]
    rate: u32,
    /// Connections, which take turns; one whose answer is late sends its next request late, and is charged for that
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Headers, as `name: value`
    #[arg(long = "header")]
    headers: Vec<String>,
}

/// Runs, and answers what came of it.
pub fn run(args: &Args) -> Result<Outcome> {
    let mut request = b"GET / HTTP/1.1\r\n".to_vec();
    for header in &args.headers {
        request.extend([header.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    let between = Duration::from_secs(1) * args.connections / args.rate;
    let start = Instant::now() + Duration::from_millis(50);
    let end = start + Duration::from_secs_f64(args.seconds);
    let clients: Vec<_> = (0..args.connections)
        .map(|index| {
            let (request, to) = (request.clone(), args.to);
            let first = start + Duration::from_secs(1) * index / args.rate;
            thread::spawn(move || ask(&request, to, first, between, end))
        })
        .collect();
    Outcome::of(start, clients)
}

/// Sends a request at each of its times, until the end.
fn ask(request: &[u8], to: SocketAddr, first: Instant, between: Duration, end: Instant) -> Result<Histogram> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut latencies, mut planned) = (Histogram::new(), first);
    while planned < end {
        thread::sleep(planned.saturating_duration_since(Instant::now()));
        // From when it should have been sent, if the answer before came too late; that this thread wakes up late is nobody's.
        let late = Instant::now().saturating_duration_since(planned) > between;
        let began = if late { planned } else { Instant::now() };
        stream.write_all(request)?;
        answer(&mut stream)?;
        latencies.record(began.elapsed());
        planned += between;
    }
    Ok(latencies)
}

/// Reads an answer to its end.
fn answer(stream: &mut TcpStream) -> Result<()> {
    let (mut buffer, mut filled) = ([0; ANSWER], 0);
    loop {
        ensure!(filled < ANSWER, "an answer is longer than {ANSWER} bytes");
        let count = stream.read(&mut buffer[filled..])?;
        ensure!(count > 0, "the connection was closed");
        filled += count;
        let Some(head) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            bail!("not 200: {}", text.lines().next().unwrap_or_default());
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.context("an answer without a length")?.trim().parse()?;
        if filled >= head + 4 + length {
            return Ok(());
        }
    }
}
