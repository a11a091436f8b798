//! Whether the API server answers at all. Watches may be silent for a minute when nothing happens, and a connection
//! may be dead without a word: after some silence the server is asked how it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::Request;
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::trouble::Trouble;

/// Where a server says that it is ready; everybody who is anybody may ask.
pub const READY_PATH: &str = "/readyz";

/// The server is asked after so long a silence.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often one that is away is asked.
const RETRY: Duration = Duration::from_secs(1);

/// The server does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// When it was heard the last time.
    pub since: SystemTime,
    /// What happens to those who ask.
    pub why: String,
}

#[derive(Debug)]
struct Shared {
    heard: Mutex<Instant>,
    spoke: AtomicBool,
    doubt: Notify,
    /// Counts how often the server came back.
    back: watch::Sender<u64>,
}

/// One watch's view of the contact.
#[derive(Debug, Clone)]
pub struct Contact {
    shared: Arc<Shared>,
    back: watch::Receiver<u64>,
}

impl Contact {
    /// Nothing was heard yet.
    pub fn new() -> Self {
        let (sender, back) = watch::channel(0);
        let shared = Shared {
            heard: Mutex::new(Instant::now()),
            spoke: AtomicBool::new(false),
            doubt: Notify::new(),
            back: sender,
        };
        Self { shared: Arc::new(shared), back }
    }

    /// The server has said something.
    pub fn heard(&self) {
        self.shared.spoke.store(true, Ordering::Relaxed);
        *self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long the server was not heard; before its first word, since the start.
    pub fn silence(&self) -> Duration {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Whether the server has ever said something.
    pub fn has_spoken(&self) -> bool {
        self.shared.spoke.load(Ordering::Relaxed)
    }

    /// Something went wrong: the server should be asked now.
    pub fn doubt(&self) {
        self.shared.doubt.notify_one();
    }

    /// Waits until the server is back after it was away. Cancel-safe.
    pub async fn regained(&mut self) {
        if self.back.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks when there is reason to, forever; `report` hears when the server goes away and when it is back.
    pub async fn keep(self, client: Client, report: impl Fn(Option<Away>)) {
        loop {
            tokio::select! {
                () = sleep(SILENCE.saturating_sub(self.silence())) => {}
                () = self.shared.doubt.notified() => {}
            }
            let silent = self.silence();
            let Err(why) = self.ask(&client).await else { continue };
            let since = SystemTime::now().checked_sub(silent).unwrap_or(SystemTime::UNIX_EPOCH);
            tracing::warn!(why, "the API server does not answer; going on by what is known");
            let mut told = why.clone();
            report(Some(Away { since, why }));
            loop {
                sleep(RETRY.mul_f64(0.5 + fastrand::f64())).await;
                match self.ask(&client).await {
                    Ok(()) => break,
                    Err(why) if why != told => {
                        told.clone_from(&why);
                        report(Some(Away { since, why }));
                    }
                    Err(_) => {}
                }
            }
            tracing::info!(away = ?since.elapsed().unwrap_or_default(), "the API server answers again");
            self.shared.back.send_modify(|times| *times += 1);
            report(None);
        }
    }

    async fn ask(&self, client: &Client) -> Result<(), String> {
        let request = Request::get(READY_PATH).body(Vec::new()).map_err(|error| error.to_string())?;
        match timeout(ANSWER, client.request_text(request)).await {
            // One that refuses to say is there.
            Ok(Ok(_) | Err(kube::Error::Api(_))) => {
                self.heard();
                Ok(())
            }
            Ok(Err(error)) => Err(Trouble::from(error).to_string()),
            Err(_) => Err(Trouble::silent(ANSWER).to_string()),
        }
    }
}
