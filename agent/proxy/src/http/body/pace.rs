//! Bodies in tiny pieces: each costs what a large one costs, so a sender of very many is read no faster than others can bear.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Pieces of less than this are tiny: the framing of a chunk, or of a message, costs more.
const TINY_BYTES: usize = 64;
/// So many of them may come within [`TURN`]. At a few microseconds each that is an eighth of a core.
const PIECES: u8 = 32;
const TURN: Duration = Duration::from_millis(1);

/// How fast a body comes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    tiny: u8,
    /// Of one that comes in tiny pieces.
    slow: Option<Box<Slow>>,
}

#[derive(Debug)]
struct Slow {
    since: Instant,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Waits where too many tiny pieces came in too short a time.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(slow) = &mut self.slow
            && let Some(rest) = &mut slow.rest
        {
            ready!(rest.as_mut().poll(context));
            slow.rest = None;
        }
        Poll::Ready(())
    }

    /// A piece has come.
    pub(super) fn note(&mut self, bytes: usize) {
        if bytes >= TINY_BYTES {
            self.tiny = 0;
            return;
        }
        self.tiny += 1;
        if self.tiny < PIECES {
            return;
        }
        self.tiny = 0;
        let now = Instant::now();
        let slow = self.slow.get_or_insert_with(|| Box::new(Slow { since: now - TURN, rest: None }));
        if now - slow.since < TURN {
            slow.rest = Some(Box::pin(tokio::time::sleep(TURN)));
        }
        slow.since = now;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// How many of so many pieces come before the first wait.
    fn at_once(pieces: usize, bytes: usize) -> usize {
        let mut pace = Pace::default();
        let mut context = Context::from_waker(Waker::noop());
        let read = |_: &usize| {
            pace.note(bytes);
            pace.poll(&mut context).is_ready()
        };
        (0..pieces).take_while(read).count()
    }

    #[tokio::test]
    async fn only_very_many_tiny_pieces_wait() {
        assert_eq!(at_once(100_000, TINY_BYTES), 100_000);
        let turn = usize::from(PIECES);
        assert_eq!(at_once(turn, 1), turn);
        assert!(at_once(100_000, 1) < 100_000);
    }
}
