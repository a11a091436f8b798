//! Repeats an HTTP request until its answer has changed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(1);

/// What to ask, and what to wait for.
#[derive(clap::Args)]
pub struct Args {
    /// Where to connect
    to: SocketAddr,
    /// The request's Host
    #[arg(long)]
    host: String,
    /// What the answer must contain
    #[arg(long)]
    text: String,
    /// When to give up, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Asks on a new connection each time, and prints when the answer had the text.
pub fn run(args: &Args) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.seconds);
    let mut last = String::new();
    while Instant::now() < deadline {
        match ask(args) {
            Ok(answer) if answer.contains(&args.text) => {
                println!("{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
                return Ok(());
            }
            Ok(answer) => last = answer,
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(PAUSE);
    }
    bail!("no answer from {} contained {:?}; the last: {last}", args.to, args.text)
}

fn ask(args: &Args) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&args.to, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", args.host)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
