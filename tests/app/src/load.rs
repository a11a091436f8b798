//! Many requests over many connections, each one counted.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two words on a connection that is held.
const ROUND: Duration = Duration::from_millis(50);
/// After a failed connection; a refused one fails at once, and a core is not to be burnt on it.
const PAUSE: Duration = Duration::from_millis(5);

/// Flags of the generator. Without `--requests` and `--seconds` it ends when its standard input does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to GET; `tcp://HOST:PORT` holds connections to a server that echoes, and says something on each now and then
    url: Uri,
    /// Connections, each with one request at a time
    #[arg(short, long, default_value_t = 1)]
    connections: usize,
    /// Stop after so many requests
    #[arg(short = 'n', long)]
    requests: Option<u64>,
    /// Stop after so many seconds
    #[arg(short, long)]
    seconds: Option<f64>,
    /// A header, `name: value`; may be repeated
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// A new connection for every request
    #[arg(long)]
    close: bool,
    /// HTTP/2 with prior knowledge
    #[arg(long)]
    h2: bool,
}

/// What came of it.
#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Answered with a status below 500, or failed.
    requests: u64,
    /// No answer, or a status of 500 and above.
    failed: u64,
    /// Why, by words.
    errors: BTreeMap<String, u64>,
    /// Answers by status.
    statuses: BTreeMap<u16, u64>,
    /// Answers by `x-app-version`.
    versions: BTreeMap<String, u64>,
    /// Answers by `x-app`.
    apps: BTreeMap<String, u64>,
    /// Longest time without a good answer.
    longest_gap_ms: f64,
    /// Whole run.
    seconds: f64,
    /// Half of the good answers came within this time.
    p50_ms: f64,
    /// Of a hundred, 99.
    p99_ms: f64,
}

struct Run {
    args: Args,
    headers: Vec<(HeaderName, HeaderValue)>,
    started: std::cell::Cell<u64>,
    last_good: std::cell::Cell<Instant>,
    report: std::cell::RefCell<Report>,
    times: std::cell::RefCell<Vec<f32>>,
    deadline: Option<Instant>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// Runs and prints the report.
pub async fn run(args: Args) -> Result<()> {
    let mut headers = Vec::new();
    for header in &args.headers {
        let (name, value) =
            header.split_once(':').with_context(|| format!("`{header}` is not `name: value`"))?;
        headers.push((name.trim().parse()?, value.trim().parse()?));
    }
    let start = Instant::now();
    let until_told = args.requests.is_none() && args.seconds.is_none();
    let deadline = args.seconds.map(|seconds| start + Duration::from_secs_f64(seconds));
    let run = Rc::new(Run {
        args,
        headers,
        started: 0.into(),
        last_good: start.into(),
        report: Report::default().into(),
        times: Vec::new().into(),
        deadline,
    });
    let connections = tokio::task::LocalSet::new();
    for _ in 0..run.args.connections {
        let run = run.clone();
        connections.spawn_local(async move {
            match run.args.url.scheme_str() {
                Some("tcp") => run.hold().await,
                _ => run.connection().await,
            }
        });
    }
    if until_told {
        connections.run_until(end_of_input()).await;
    } else {
        connections.await;
    }
    let mut report = run.report.take();
    let mut times = run.times.take();
    times.sort_by(f32::total_cmp);
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(0.0).into();
    (report.p50_ms, report.p99_ms) = (at(50), at(99));
    report.seconds = start.elapsed().as_secs_f64();
    report.longest_gap_ms = report.longest_gap_ms.max(run.last_good.get().elapsed().as_secs_f64() * 1e3);
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Waits on a thread of its own until standard input is closed.
async fn end_of_input() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        sender.send(()).ok();
    });
    receiver.await.ok();
}

impl Run {
    fn may_start(&self) -> bool {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        let started = self.started.get();
        self.started.set(started + 1);
        self.args.requests.is_none_or(|limit| started < limit)
    }

    async fn connection(&self) {
        let mut sender = None;
        while self.may_start() {
            let start = Instant::now();
            let exchange = self.exchange(&mut sender);
            let outcome = tokio::time::timeout(PATIENCE, exchange).await;
            let error = match outcome {
                Ok(Ok(())) => {
                    self.times.borrow_mut().push(start.elapsed().as_secs_f32() * 1e3);
                    continue;
                }
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer in time".to_owned(),
            };
            sender = None;
            self.count_failure(error);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One connection, from beginning to end: each echo counts as a request, its loss as one that failed.
    async fn hold(&self) {
        let mut stream = match self.dial().await {
            Ok(stream) => stream,
            Err(error) => return self.count_failure(format!("{error:#}")),
        };
        while self.may_start() {
            let (said, mut heard) = (self.started.get().to_be_bytes(), [0; 8]);
            let round = async {
                stream.write_all(&said).await?;
                stream.read_exact(&mut heard).await?;
                anyhow::ensure!(said == heard, "something else came back");
                Ok(())
            };
            match tokio::time::timeout(PATIENCE, round).await {
                Ok(Ok(())) => self.count_answer(),
                Ok(Err(error)) => return self.count_failure(format!("cut: {error:#}")),
                Err(_) => return self.count_failure("cut: no answer in time".to_owned()),
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    fn count_answer(&self) {
        let mut report = self.report.borrow_mut();
        report.requests += 1;
        let gap = self.last_good.replace(Instant::now()).elapsed().as_secs_f64() * 1e3;
        report.longest_gap_ms = report.longest_gap_ms.max(gap);
    }

    fn count_failure(&self, error: String) {
        let mut report = self.report.borrow_mut();
        report.requests += 1;
        report.failed += 1;
        *report.errors.entry(error).or_default() += 1;
    }

    async fn exchange(&self, sender: &mut Option<Sender>) -> Result<()> {
        if sender.is_none() {
            *sender = Some(self.connect().await?);
        }
        let mut request = self.request()?;
        let response = loop {
            match sender.as_mut().expect("just connected") {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    break sender.send_request(request).await?;
                }
                Sender::Http2(http2) => match http2.try_send_request(request).await {
                    Ok(response) => break response,
                    // The server has said that it takes no more requests on this connection.
                    Err(mut error) => match error.take_message() {
                        Some(unsent) => request = unsent,
                        None => return Err(error.into_error().into()),
                    },
                },
            }
            *sender = Some(self.connect().await?);
        };
        let status = response.status().as_u16();
        let named =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (version, app) = (named("x-app-version"), named("x-app"));
        let last = named("connection").is_some_and(|value| value == "close");
        response.into_body().collect().await?;
        if last || self.args.close {
            *sender = None;
        }
        let mut report = self.report.borrow_mut();
        *report.statuses.entry(status).or_default() += 1;
        if let Some(version) = version {
            *report.versions.entry(version).or_default() += 1;
        }
        if let Some(app) = app {
            *report.apps.entry(app).or_default() += 1;
        }
        if status >= 500 {
            drop(report);
            anyhow::bail!("status {status}");
        }
        drop(report);
        self.count_answer();
        Ok(())
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>> {
        let url = &self.args.url;
        let target = if self.args.h2 {
            url.clone()
        } else {
            url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse()?
        };
        let mut request = Request::get(target).body(Empty::new())?;
        if !self.args.h2 {
            let host = url.authority().context("a URL without a host")?.as_str();
            request.headers_mut().insert("host", host.parse()?);
        }
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }

    async fn dial(&self) -> Result<TcpStream> {
        let host = self.args.url.host().context("a URL without a host")?.trim_matches(['[', ']']);
        let port = self.args.url.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(&self) -> Result<Sender> {
        let stream = self.dial().await?;
        let io = TokioIo::new(stream);
        if self.args.h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }
}
