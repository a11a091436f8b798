//! Draws from a seed. One request's seed serves several decisions, and each must be independent of the others:
//! every use has a salt of its own.

/// What a draw is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    Destination = 1,
    Endpoint,
    Delay,
    Abort,
    Mirror,
    Backoff,
}

/// 2^64 divided by the golden ratio: multiples of it differ in all bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A generator for one use of a seed.
pub(crate) fn draw(seed: u64, what: Use) -> fastrand::Rng {
    let mut rng = fastrand::Rng::with_seed(seed ^ (what as u64).wrapping_mul(GOLDEN));
    // Seeds of neighbouring requests may be neighbours.
    rng.u64(..);
    rng
}

/// True for so many of a million seeds.
pub(crate) fn happens(seed: u64, what: Use, parts_per_million: u32) -> bool {
    match parts_per_million {
        0 => false,
        1_000_000.. => true,
        parts => draw(seed, what).u32(0..1_000_000) < parts,
    }
}

/// A percentage in millionths; out of range is cut to it.
#[expect(clippy::cast_sign_loss, reason = "cut to 0..=1,000,000")]
pub(crate) fn parts_per_million(percent: f64) -> u32 {
    if percent.is_nan() { 0 } else { (percent * 10_000.0).round().clamp(0.0, 1_000_000.0) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_of_one_seed_are_independent() {
        let both = (0..100_000u64)
            .filter(|seed| happens(*seed, Use::Delay, 500_000) && happens(*seed, Use::Abort, 500_000))
            .count();
        assert!((24_000..26_000).contains(&both), "{both}");
    }

    #[test]
    fn the_resolution_is_a_ten_thousandth_of_a_percent() {
        assert_eq!(parts_per_million(0.0001), 1);
        assert_eq!(parts_per_million(100.0), 1_000_000);
        assert_eq!(parts_per_million(f64::NAN), 0);
        assert_eq!(parts_per_million(-3.0), 0);
        assert!(!happens(1, Use::Delay, 0));
        assert!(happens(1, Use::Delay, 1_000_000));
        let drawn = draw(1, Use::Delay).u32(0..1_000_000);
        assert!(!happens(1, Use::Delay, drawn) && happens(1, Use::Delay, drawn + 1));
    }
}
