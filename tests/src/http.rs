//! HTTP as a user in a pod does it: `curl`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::Output;

/// From where a request is sent: a program is run there by these words before its name.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// For a person.
    pub(crate) name: String,
    /// As `ip netns exec NAME`, or `kubectl exec POD --`.
    pub(crate) words: Vec<String>,
}

impl Caller {
    /// `program`, to be run there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut words = self.words.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        command.args(words);
        command
    }
}

/// A request to be.
#[derive(Debug, Clone)]
pub struct Request {
    caller: Caller,
    url: String,
    flags: Vec<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
    /// Statuses of informational answers before it.
    pub informational: Vec<u16>,
}

impl Request {
    pub(crate) fn new(caller: Caller, url: &str) -> Self {
        Self { caller, url: url.to_owned(), flags: Vec::new() }
    }

    /// Adds a flag of `curl`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        // `curl` leaves out a header without a value unless it ends so.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        self.flag("-H").flag(&header)
    }

    /// Other than GET.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        if method == "HEAD" { self.flag("--head") } else { self.flag("-X").flag(method) }
    }

    /// A body.
    #[must_use]
    pub fn body(self, body: &str) -> Self {
        self.flag("--data-binary").flag(body)
    }

    /// HTTP/2 with prior knowledge.
    #[must_use]
    pub fn h2(self) -> Self {
        self.flag("--http2-prior-knowledge")
    }

    /// Sends it. Any status is fine; no answer is an error.
    pub fn send(self) -> Result<Answer> {
        let mut command = self.caller.command("curl");
        // Paths go as they are; a name server is never asked.
        command.args(["-sS", "-i", "--path-as-is", "--max-time", "15"]).args(&self.flags).arg(&self.url);
        let output = Output::of(&mut command)?;
        if output.code != 0 {
            bail!("{} from {}: curl {}: {}", self.url, self.caller.name, output.code, output.stderr.trim());
        }
        Answer::parse(&output.stdout).with_context(|| format!("{}: {:?}", self.url, output.stdout))
    }
}

impl Answer {
    fn parse(text: &str) -> Result<Self> {
        let mut rest = text;
        let mut informational = Vec::new();
        loop {
            let (head, after) = rest.split_once("\r\n\r\n").context("no end of headers")?;
            let mut lines = head.lines();
            let first = lines.next().context("no status line")?;
            let status: u16 = first.split(' ').nth(1).context("no status")?.parse()?;
            if status < 200 && status != 101 {
                informational.push(status);
                rest = after;
                continue;
            }
            let headers = lines.filter_map(|line| line.split_once(':'));
            let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
            return Ok(Self { status, headers: headers.collect(), body: after.to_owned(), informational });
        }
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {} {}", self.status, self.body))
    }

    /// The version that the application bears; empty if weft answered.
    pub fn version(&self) -> &str {
        self.header("x-app-version").unwrap_or_default()
    }

    /// The application's name; empty if weft answered.
    pub fn app(&self) -> &str {
        self.header("x-app").unwrap_or_default()
    }
}

/// GETs `path` from here, without a pod: status and body.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // 1.0: the body ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").context("no end of headers")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}
