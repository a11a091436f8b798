//! The access log's lines: Istio's default text format, or JSON with the same fields.
//!
//! Source: Istio's `EnvoyTextLogFormat` and `EnvoyJSONLogFormatIstio`. Values come from callers: bytes that could
//! begin another line, end a field or move a terminal's cursor are escaped.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::SystemTime;

use http::HeaderValue;
use weft_rules::workload::Workload;

use super::flags::FlagSet;
use super::record::{HttpRecord, TcpRecord, Upstream};
use super::security::Refusal;
use super::shares::{Share, Shares};
use super::writer::Bell;

/// How finished requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// Istio's default text format.
    Text,
    /// One JSON object per line.
    Json,
    /// Not at all.
    Off,
}

/// A line on its way.
#[derive(Debug)]
pub struct Line {
    /// With its end.
    pub text: String,
    /// What it takes of the queue.
    pub share: Share,
}

/// A worker's end of the log. Never blocks: lines that the queue cannot take are dropped and counted.
#[derive(Debug)]
pub struct Lines {
    format: AccessLog,
    queue: SyncSender<Line>,
    shares: Arc<Shares>,
    dropped: Arc<AtomicU64>,
    bell: Arc<Bell>,
    clock: Clock,
    /// Length of the last line: the next is likely as long.
    length: Cell<usize>,
}

impl Lines {
    /// Lines in this format for this queue.
    pub fn to(
        format: AccessLog,
        queue: SyncSender<Line>,
        shares: Arc<Shares>,
        dropped: Arc<AtomicU64>,
        bell: Arc<Bell>,
    ) -> Self {
        Self { format, queue, shares, dropped, bell, clock: Clock::default(), length: Cell::new(480) }
    }

    /// Logs a request.
    pub fn http(&self, record: &HttpRecord<'_>) {
        self.send(&Fields::of_request(record), record.started, record.pod());
    }

    /// Logs a connection.
    pub fn tcp(&self, record: &TcpRecord<'_>) {
        self.send(&Fields::of_connection(record), record.started, record.pod());
    }

    fn send(&self, fields: &Fields<'_>, started: SystemTime, pod: Option<&Arc<Workload>>) {
        let mut line = String::with_capacity(self.length.get() + 32);
        let time = self.clock.format(started);
        match self.format {
            AccessLog::Text => fields.text(&mut line, &time),
            AccessLog::Json => fields.json(&mut line, &time),
            AccessLog::Off => return,
        }
        self.length.set(line.len());
        let Some(share) = self.shares.take(pod, line.len()) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match self.queue.try_send(Line { text: line, share }) {
            Ok(()) => self.bell.ring(),
            Err(TrySendError::Full(line) | TrySendError::Disconnected(line)) => {
                self.shares.give_back(&line.share);
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Everything that a line tells, `None` where there is nothing to tell.
#[derive(Debug, Default)]
struct Fields<'a> {
    method: Option<&'a str>,
    path: Option<&'a str>,
    protocol: Option<&'static str>,
    status: u16,
    flags: FlagSet,
    details: Option<&'a str>,
    refused: Option<&'a Refusal>,
    upstream_failure: Option<&'a str>,
    received: u64,
    sent: u64,
    duration_ms: u128,
    upstream_ms: Option<u128>,
    forwarded_for: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
    authority: Option<&'a str>,
    upstream: Option<&'a Upstream>,
    dialled: Option<SocketAddr>,
    downstream: Option<SocketAddr>,
    server_name: Option<&'a str>,
    route: Option<&'a str>,
}

/// HTTP versions as Envoy calls them.
pub fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

impl<'a> Fields<'a> {
    fn of_request(record: &'a HttpRecord<'a>) -> Self {
        Self {
            method: Some(record.method.as_str()),
            path: Some(record.path),
            protocol: Some(protocol(record.version)),
            status: record.status,
            flags: record.flags.into(),
            details: Some(record.details).filter(|details| !details.is_empty()),
            refused: record.upstream.refused.as_deref(),
            upstream_failure: record.upstream_failure,
            received: record.request_bytes,
            sent: record.response_bytes,
            duration_ms: record.duration.as_millis(),
            upstream_ms: record.upstream_time.map(|time| time.as_millis()),
            forwarded_for: record.forwarded_for.map(HeaderValue::as_bytes),
            user_agent: record.user_agent.map(HeaderValue::as_bytes),
            request_id: record.request_id.map(HeaderValue::as_bytes),
            authority: Some(record.authority),
            upstream: Some(record.upstream),
            dialled: Some(record.dialled),
            downstream: Some(record.downstream),
            server_name: record.server_name,
            route: record.route,
        }
    }

    fn of_connection(record: &'a TcpRecord<'a>) -> Self {
        Self {
            flags: record.flags.into(),
            refused: record.upstream.refused.as_deref(),
            upstream_failure: record.upstream_failure,
            received: record.received_bytes,
            sent: record.sent_bytes,
            duration_ms: record.duration.as_millis(),
            upstream: Some(record.upstream),
            dialled: Some(record.dialled),
            downstream: Some(record.downstream),
            server_name: record.server_name,
            ..Self::default()
        }
    }

    fn details(&self) -> Option<Details<'a>> {
        let refused = self.refused.filter(|refused| self.method.is_some() || **refused == Refusal::Strict);
        let said = self.details.map(Details::Said).or_else(|| refused.map(Details::Refused));
        match self.upstream.and_then(Upstream::would_deny) {
            Some(policy) => Some(Details::WouldDeny(self.details, policy)),
            None => said,
        }
    }

    /// Why a connection of bytes was ended: a refused request ends none.
    fn termination(&self) -> Option<&'a Refusal> {
        self.refused.filter(|refused| self.method.is_none() && **refused != Refusal::Strict)
    }

    /// Istio's default format, without heap use but the line's own.
    fn text(&self, line: &mut String, time: &Stamp) {
        let upstream = self.upstream;
        // Writing to a string does not fail.
        let _ = writeln!(
            line,
            "[{time}] \"{} {} {}\" {} {} {} {} \"{}\" {} {} {} {} \"{}\" \"{}\" \"{}\" \"{}\" \"{}\" {} {} {} {} {} {}",
            Text(self.method.map(str::as_bytes)),
            Text(self.path.map(str::as_bytes)),
            self.protocol.unwrap_or("-"),
            self.status,
            self.flags,
            OrDash(self.details()),
            OrDash(self.termination()),
            Text(self.upstream_failure.map(str::as_bytes)),
            self.received,
            self.sent,
            self.duration_ms,
            OrDash(self.upstream_ms),
            Text(self.forwarded_for),
            Text(self.user_agent),
            Text(self.request_id),
            Text(self.authority.map(str::as_bytes)),
            OrDash(upstream.and_then(|upstream| upstream.address)),
            Text(upstream.and_then(|upstream| upstream.cluster.as_deref()).map(str::as_bytes)),
            OrDash(upstream.and_then(|upstream| upstream.local_address)),
            OrDash(self.dialled),
            OrDash(self.downstream),
            Text(self.server_name.map(str::as_bytes)),
            Text(self.route.map(str::as_bytes)),
        );
    }

    fn json(&self, line: &mut String, time: &Stamp) {
        let upstream = self.upstream;
        let details = self.details();
        let line_of = JsonLine {
            start_time: Shown(time),
            method: self.method,
            path: self.path,
            protocol: self.protocol,
            response_code: self.status,
            response_flags: Shown(&self.flags),
            response_code_details: details.as_ref().map(Shown),
            connection_termination_details: self.termination().map(Shown),
            upstream_transport_failure_reason: self.upstream_failure,
            bytes_received: self.received,
            bytes_sent: self.sent,
            duration: self.duration_ms,
            upstream_service_time: self.upstream_ms.as_ref().map(Shown),
            x_forwarded_for: self.forwarded_for.map(String::from_utf8_lossy),
            user_agent: self.user_agent.map(String::from_utf8_lossy),
            request_id: self.request_id.map(String::from_utf8_lossy),
            authority: self.authority,
            upstream_host: upstream.and_then(|upstream| upstream.address),
            upstream_cluster: upstream.and_then(|upstream| upstream.cluster.as_deref()),
            upstream_local_address: upstream.and_then(|upstream| upstream.local_address),
            downstream_local_address: self.dialled,
            downstream_remote_address: self.downstream,
            requested_server_name: self.server_name,
            route_name: self.route,
        };
        let mut bytes = std::mem::take(line).into_bytes();
        // Nothing in a line is without an equal in JSON.
        if serde_json::to_writer(&mut bytes, &line_of).is_ok() {
            bytes.push(b'\n');
            *line = String::from_utf8(bytes).unwrap_or_default();
        }
    }
}

/// `%RESPONSE_CODE_DETAILS%`.
enum Details<'a> {
    Said(&'a str),
    Refused(&'a Refusal),
    /// It was let in, with these details, and a policy that is tried out would have refused it.
    WouldDeny(Option<&'a str>, &'a str),
}

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(text) => f.write_str(text),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::WouldDeny(details, policy) => {
                let (namespace, name) = policy.split_once('/').unwrap_or(("", policy));
                let (open, close) = if details.is_some() { ("{", "}") } else { ("", "") };
                let details = details.unwrap_or_default();
                write!(f, "{details}{open}dry_run_denied[ns[{namespace}]-policy[{name}]]{close}")
            }
        }
    }
}

/// Istio's JSON fields, in its order. `()` is `null`.
#[derive(serde::Serialize)]
struct JsonLine<'a> {
    start_time: Shown<'a, Stamp>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    protocol: Option<&'static str>,
    response_code: u16,
    response_flags: Shown<'a, FlagSet>,
    response_code_details: Option<Shown<'a, Details<'a>>>,
    connection_termination_details: Option<Shown<'a, Refusal>>,
    upstream_transport_failure_reason: Option<&'a str>,
    bytes_received: u64,
    bytes_sent: u64,
    duration: u128,
    upstream_service_time: Option<Shown<'a, u128>>,
    x_forwarded_for: Option<Cow<'a, str>>,
    user_agent: Option<Cow<'a, str>>,
    request_id: Option<Cow<'a, str>>,
    authority: Option<&'a str>,
    upstream_host: Option<SocketAddr>,
    upstream_cluster: Option<&'a str>,
    upstream_local_address: Option<SocketAddr>,
    downstream_local_address: Option<SocketAddr>,
    downstream_remote_address: Option<SocketAddr>,
    requested_server_name: Option<&'a str>,
    route_name: Option<&'a str>,
}

/// Serialized as it is shown.
struct Shown<'a, T>(&'a T);

impl<T: fmt::Display> serde::Serialize for Shown<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

struct OrDash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Bytes from a caller: printable ASCII as it is, `"` and `\` with a backslash, everything else as `\xNN`.
struct Text<'a>(Option<&'a [u8]>);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(mut rest) = self.0.filter(|bytes| !bytes.is_empty()) else { return f.write_str("-") };
        while !rest.is_empty() {
            let plain =
                rest.iter().take_while(|b| matches!(b, b' '..=b'~' if !matches!(b, b'"' | b'\\'))).count();
            f.write_str(std::str::from_utf8(&rest[..plain]).unwrap_or_default())?;
            rest = &rest[plain..];
            if let Some((byte, after)) = rest.split_first() {
                match byte {
                    b'"' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                    _ => write!(f, "\\x{byte:02x}")?,
                }
                rest = after;
            }
        }
        Ok(())
    }
}

/// A time as text, made without the heap.
#[derive(Debug)]
pub struct Stamp {
    /// Up to the second.
    text: [u8; 20],
    millis: u32,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text[..19]).unwrap_or_default())?;
        write!(f, ".{:03}Z", self.millis)
    }
}

/// Formats times as Envoy does, remembering the last second.
#[derive(Debug, Default)]
pub struct Clock {
    last: Cell<(i64, [u8; 20])>,
}

impl Clock {
    /// `2026-11-21T06:05:27.123Z`.
    pub fn format(&self, time: SystemTime) -> Stamp {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or(0);
        let (known, mut text) = self.last.get();
        if known != second || text[0] == 0 {
            let stamp = jiff::Timestamp::from_second(second).unwrap_or_default().to_string();
            let bytes = stamp.as_bytes();
            let length = bytes.len().min(text.len());
            text[..length].copy_from_slice(&bytes[..length]);
            self.last.set((second, text));
        }
        Stamp { text, millis: since.subsec_millis() }
    }
}
