//! A scrape: the metrics as they are written, piece by piece, one scrape at a time. A reader that is slow, or that stops, holds
//! a few pieces and no more, and not for long.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Either;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use weft_telemetry::{METRICS_CONTENT_TYPE, Telemetry};

use super::{Answer, Chunks, text};

/// Longest wait for the scrape before.
const TURN: Duration = Duration::from_secs(5);
/// How long a scrape may take: Prometheus gives up after ten seconds by itself.
const LONGEST: Duration = Duration::from_secs(30);
/// Bytes that are sent at once.
const PIECE: usize = 64 << 10;

/// Answers with all metrics. `turn` has one permit.
pub(super) async fn answer(telemetry: Arc<Telemetry>, turn: &Arc<Semaphore>) -> Answer {
    answer_within(telemetry, turn, TURN).await
}

async fn answer_within(telemetry: Arc<Telemetry>, turn: &Arc<Semaphore>, patience: Duration) -> Answer {
    let Ok(Ok(permit)) = tokio::time::timeout(patience, turn.clone().acquire_owned()).await else {
        let problem = "another scrape is going on; one at a time\n".to_owned();
        let mut busy = text(StatusCode::SERVICE_UNAVAILABLE, problem);
        busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return busy;
    };
    let (sender, chunks) = mpsc::channel(1);
    let broken = Arc::new(AtomicBool::new(false));
    let mut pieces =
        Pieces { buffer: String::new(), sender, runtime: Handle::current(), until: Instant::now() + LONGEST };
    let breaks = broken.clone();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let written = telemetry.write_metrics(&mut pieces).and_then(|()| pieces.send());
        // Before the channel closes: the reader must not take a part for the whole.
        breaks.store(written.is_err(), Ordering::Release);
    });
    let mut answer = Response::new(Either::Right(Chunks { chunks, broken }));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_CONTENT_TYPE));
    answer
}

/// Text on its way to a reader.
struct Pieces {
    buffer: String,
    sender: mpsc::Sender<Bytes>,
    runtime: Handle,
    until: Instant,
}

impl Pieces {
    /// Waits until the reader has taken what came before.
    fn send(&mut self) -> fmt::Result {
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        let left = self.until.saturating_duration_since(Instant::now());
        let sending = async { tokio::time::timeout(left, self.sender.send(piece)).await };
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.buffer.push_str(text);
        if self.buffer.len() < PIECE { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use weft_telemetry::AccessLog;

    fn telemetry() -> Arc<Telemetry> {
        Telemetry::start(AccessLog::Off, "n1", 1, 100).unwrap()
    }

    async fn read(answer: Answer) -> String {
        assert_eq!(answer.status(), StatusCode::OK);
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn scrapes_come_one_after_the_other() {
        let (telemetry, turn) = (telemetry(), Arc::new(Semaphore::new(1)));
        for _ in 0..2 {
            let text = read(answer(telemetry.clone(), &turn).await).await;
            assert!(text.ends_with("# EOF\n"), "{text}");
        }
    }

    #[tokio::test]
    async fn who_comes_while_another_is_read_is_told_to_come_again() {
        let (telemetry, turn) = (telemetry(), Arc::new(Semaphore::new(1)));
        let taken = turn.clone().acquire_owned().await;
        let busy = answer_within(telemetry.clone(), &turn, Duration::ZERO).await;
        assert_eq!(
            (busy.status(), &busy.headers()[RETRY_AFTER]),
            (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("5"))
        );
        drop(taken);
        read(answer(telemetry, &turn).await).await;
    }

    #[tokio::test]
    async fn a_reader_that_leaves_makes_room_for_the_next() {
        let (telemetry, turn) = (telemetry(), Arc::new(Semaphore::new(1)));
        drop(answer(telemetry.clone(), &turn).await);
        read(answer(telemetry, &turn).await).await;
    }

    #[tokio::test]
    async fn what_was_not_written_to_its_end_does_not_look_whole() {
        let (sender, chunks) = mpsc::channel(1);
        let broken = Arc::new(AtomicBool::new(false));
        sender.send(Bytes::from_static(b"a part")).await.unwrap();
        broken.store(true, Ordering::Release);
        drop(sender);
        assert!(Chunks { chunks, broken }.collect().await.is_err());
    }
}
