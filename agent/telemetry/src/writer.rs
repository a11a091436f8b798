//! The thread that writes the access log to standard output.
//!
//! Workers are not slowed down by it: each has a bounded queue of its own, and while lines keep coming the thread
//! looks into the queues at intervals instead of being woken for each line.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::access_log::{AccessLog, Line, Lines};
use super::shares::Shares;

/// Lines that wait in one worker's queue at most.
const QUEUE_LINES: usize = 8_192;
/// Bytes that wait in one worker's queue at most.
const QUEUE_BYTES: usize = 8 << 20;
/// How long the thread sleeps while lines keep coming.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long it sleeps when nobody rings.
const IDLE: Duration = Duration::from_secs(5);
/// Bytes of one worker that are handed to the kernel at once.
const BATCH_BYTES: usize = 64 << 10;

/// Wakes the writing thread, if it sleeps for long.
#[derive(Debug, Default)]
pub struct Bell {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bell {
    /// Wakes the thread, if need be: one load where it is awake.
    pub fn ring(&self) {
        // Ordered with `listen`: either it sees the line or we see it asleep.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// One worker's.
#[derive(Debug)]
struct Queue {
    lines: Receiver<Line>,
    shares: Arc<Shares>,
}

/// The thread and its queues.
#[derive(Debug)]
pub struct Writer {
    format: AccessLog,
    queues: Arc<Mutex<Vec<Queue>>>,
    dropped: Arc<AtomicU64>,
    /// How often all queues were found empty and everything before was written.
    idle_rounds: Arc<AtomicU64>,
    bell: Arc<Bell>,
}

impl Writer {
    /// Starts the thread.
    pub fn start(format: AccessLog) -> io::Result<Self> {
        let writer = Self {
            format,
            queues: Arc::default(),
            dropped: Arc::default(),
            idle_rounds: Arc::default(),
            bell: Arc::default(),
        };
        let (queues, dropped) = (writer.queues.clone(), writer.dropped.clone());
        let (bell, idle_rounds) = (writer.bell.clone(), writer.idle_rounds.clone());
        let thread = thread::Builder::new()
            .name("weft-log".to_owned())
            .spawn(move || run(&queues, &dropped, &bell, &idle_rounds))?;
        let _ = writer.bell.thread.set(thread.thread().clone());
        Ok(writer)
    }

    /// A queue for one more worker.
    pub fn lines(&self) -> Lines {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let shares = Arc::new(Shares::new(QUEUE_BYTES));
        let waiting = Queue { lines, shares: shares.clone() };
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
        Lines::to(self.format, queue, shares, self.dropped.clone(), self.bell.clone())
    }

    /// Lines that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything logged so far is written, or so long.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let seen = self.idle_rounds.load(Ordering::Acquire);
        // Two rounds: the first may have begun before the last line was queued.
        while self.idle_rounds.load(Ordering::Acquire) < seen + 2 && Instant::now() < until {
            if let Some(thread) = self.bell.thread.get() {
                thread.unpark();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn run(queues: &Mutex<Vec<Queue>>, dropped: &AtomicU64, bell: &Bell, idle_rounds: &AtomicU64) {
    let mut out = io::stdout();
    let mut batch = String::new();
    loop {
        let lines = collect(queues, &mut batch);
        let full = batch.len() >= BATCH_BYTES;
        write(&mut out, &mut batch, lines, dropped);
        if full {
            continue;
        }
        if lines > 0 {
            thread::park_timeout(INTERVAL);
            continue;
        }
        idle_rounds.fetch_add(1, Ordering::Release);
        bell.asleep.store(true, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        let lines = collect(queues, &mut batch);
        if lines == 0 {
            thread::park_timeout(IDLE);
        }
        write(&mut out, &mut batch, lines, dropped);
        bell.asleep.store(false, Ordering::Relaxed);
    }
}

/// Takes lines from every queue, about a batch from each at most; says how many.
fn collect(queues: &Mutex<Vec<Queue>>, batch: &mut String) -> u64 {
    let mut lines = 0;
    for queue in queues.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let end = batch.len() + BATCH_BYTES;
        for line in queue.lines.try_iter() {
            batch.push_str(&line.text);
            queue.shares.give_back(&line.share);
            lines += 1;
            if batch.len() >= end {
                break;
            }
        }
    }
    lines
}

fn write(out: &mut io::Stdout, batch: &mut String, lines: u64, dropped: &AtomicU64) {
    if !batch.is_empty() && out.write_all(batch.as_bytes()).and_then(|()| out.flush()).is_err() {
        dropped.fetch_add(lines, Ordering::Relaxed);
    }
    batch.clear();
}
