//! When a certificate is renewed, and when a failed attempt is repeated. Draws are from 0 to 1.

use std::time::{Duration, SystemTime};

/// The first repetition.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait between attempts.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// The shortest: also for a certificate that is about to end.
const SHORTEST_RETRY: Duration = Duration::from_millis(250);

/// When a certificate that has just come is renewed: at two thirds of what is left of its life, up to a fifteenth of
/// it earlier, so that a node's certificates do not all come due at once.
pub fn renewal(now: SystemTime, not_before: SystemTime, not_after: SystemTime, draw: f64) -> SystemTime {
    let begin = not_before.max(now);
    let life = not_after.duration_since(begin).unwrap_or_default();
    begin + life.mul_f64(2.0 / 3.0 - draw / 15.0)
}

/// How long to wait after so many failed attempts in a row (1 or more): twice as long each time, the last quarter by
/// draw, and short enough that several attempts fit before the certificate ends.
pub fn retry(failures: u32, now: SystemTime, not_after: Option<SystemTime>, draw: f64) -> Duration {
    let doubled = FIRST_RETRY * 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    let wait = doubled.min(LONGEST_RETRY).mul_f64(1.0 - draw / 4.0);
    let left = not_after.and_then(|end| end.duration_since(now).ok());
    left.map_or(wait, |left| wait.min(left / 4)).max(SHORTEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn renewal_is_at_two_thirds_or_a_little_earlier() {
        let minutes = |draw| renewal(NOW, NOW, NOW + HOUR, draw).duration_since(NOW).unwrap().as_secs() / 60;
        assert_eq!((minutes(0.0), minutes(1.0)), (40, 36));
    }

    #[test]
    fn a_backdated_begin_does_not_bring_renewal_forward() {
        let now = NOW + HOUR;
        let end = now + Duration::from_secs(30);
        assert_eq!(renewal(now, NOW, end, 0.0), now + Duration::from_secs(20));
    }

    #[test]
    fn a_certificate_of_the_future_is_renewed_in_its_own_life() {
        let begin = NOW + Duration::from_secs(30);
        assert_eq!(renewal(NOW, begin, begin + HOUR, 0.0), begin + HOUR * 2 / 3);
    }

    #[test]
    fn one_that_has_ended_is_renewed_at_once() {
        assert_eq!(renewal(NOW + HOUR, NOW, NOW, 0.5), NOW + HOUR);
    }

    #[test]
    fn retries_wait_longer_each_time_and_never_too_long() {
        let waits: Vec<u64> = (1..8).map(|n| retry(n, NOW, None, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(retry(u32::MAX, NOW, None, 1.0), LONGEST_RETRY.mul_f64(0.75));
    }

    #[test]
    fn retries_fit_into_what_is_left() {
        let left = |secs| retry(9, NOW, Some(NOW + Duration::from_secs(secs)), 0.0);
        assert_eq!(left(40), Duration::from_secs(10));
        assert_eq!(left(0), SHORTEST_RETRY);
        let ended = retry(9, NOW + HOUR, Some(NOW), 0.0);
        assert_eq!(ended, LONGEST_RETRY, "nothing is left to be quick for");
    }
}
