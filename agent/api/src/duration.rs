//! Durations as Istio's manifests write them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time written as Go and protobuf do: `1h`, `1m30s`, `250ms`, `0.5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// Not a duration: the text that was found.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a duration; write a number with a unit, such as 1h, 1m, 1s or 1ms")]
pub struct NotADuration(String);

impl std::str::FromStr for Span {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || NotADuration(text.to_owned());
        let mut rest = text;
        let mut nanos = 0f64;
        if rest.is_empty() {
            return Err(err());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(err)?;
            let (number, tail) = rest.split_at(digits);
            let number: f64 = number.parse().map_err(|_| err())?;
            // `ms` before `m`: the longest unit wins.
            let (scale, unit) =
                [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)]
                    .into_iter()
                    .filter(|(unit, _)| tail.starts_with(unit))
                    .map(|(unit, scale)| (scale, unit))
                    .max_by_key(|(_, unit)| unit.len())
                    .ok_or_else(err)?;
            nanos += number * scale;
            rest = &tail[unit.len()..];
        }
        if !nanos.is_finite() || nanos > 1e18 {
            return Err(err());
        }
        #[expect(clippy::cast_sign_loss, reason = "a sum of unsigned numbers")]
        Ok(Self(Duration::from_nanos(nanos as u64)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
