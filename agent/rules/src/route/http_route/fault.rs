//! `fault`, compiled.

use std::time::Duration;

use http::StatusCode;
use weft_api::istio::{GRPC_STATUSES, HttpFaultInjection, Percent};

use crate::draw::{Use, happens, parts_per_million};

/// Faults to inject.
#[derive(Debug)]
pub struct Fault {
    delay: Option<(Duration, u32)>,
    abort: Option<(Abort, u32)>,
}

/// What a fault draws for one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultDraw {
    /// Wait so long first.
    pub delay: Option<Duration>,
    /// Then answer so instead of forwarding.
    pub abort: Option<Abort>,
}

/// How an injected abort answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// HTTP status; body `fault filter abort`.
    Http(StatusCode),
    /// gRPC status (200 with `grpc-status`, towards gRPC clients).
    Grpc(u32),
}

impl Fault {
    pub(crate) fn compile(source: &HttpFaultInjection) -> Result<Self, String> {
        let mut fault = Self { delay: None, abort: None };
        if let Some(delay) = &source.delay {
            let length = delay.fixed_delay.ok_or("a delay without fixedDelay")?.0;
            fault.delay = Some((length, share(delay.percentage, delay.percent)));
        }
        if let Some(abort) = &source.abort {
            let answer = match (abort.http_status, &abort.grpc_status) {
                (Some(status), _) => u16::try_from(status)
                    .ok()
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .map(Abort::Http)
                    .ok_or(format!("{status} is not a status"))?,
                (None, Some(name)) => {
                    Abort::Grpc(grpc_code(name).ok_or(format!("{name:?} is not a gRPC status"))?)
                }
                (None, None) => return Err("an abort without httpStatus or grpcStatus".to_owned()),
            };
            fault.abort = Some((answer, share(abort.percentage, abort.percent)));
        }
        Ok(fault)
    }

    /// Decides for one request: delay and abort are drawn independently.
    pub fn draw(&self, seed: u64) -> FaultDraw {
        FaultDraw {
            delay: self
                .delay
                .filter(|(_, share)| happens(seed, Use::Delay, *share))
                .map(|(length, _)| length),
            abort: self
                .abort
                .filter(|(_, share)| happens(seed, Use::Abort, *share))
                .map(|(answer, _)| answer),
        }
    }

    /// Delay and abort in words.
    pub(crate) fn describe(&self) -> (Option<String>, Option<String>) {
        let percent = |share: u32| format!("{}%", f64::from(share) / 10_000.0);
        let delay = self.delay.map(|(length, share)| format!("{length:?} in {}", percent(share)));
        let abort = self.abort.map(|(answer, share)| match answer {
            Abort::Http(status) => format!("{} in {}", status.as_u16(), percent(share)),
            Abort::Grpc(code) => format!("gRPC {code} in {}", percent(share)),
        });
        (delay, abort)
    }
}

/// A missing share is none.
fn share(percentage: Option<Percent>, percent: Option<i32>) -> u32 {
    match (percentage, percent) {
        (Some(percentage), _) => parts_per_million(percentage.value),
        (None, Some(percent)) => parts_per_million(f64::from(percent)),
        (None, None) => 0,
    }
}

fn grpc_code(name: &str) -> Option<u32> {
    let number = name.parse().ok().filter(|code: &u32| *code <= 16);
    number.or_else(|| {
        GRPC_STATUSES
            .iter()
            .position(|code| code.eq_ignore_ascii_case(name))
            .and_then(|at| at.try_into().ok())
    })
}

#[cfg(test)]
mod tests {
    use weft_api::duration::Span;
    use weft_api::istio::{FaultAbort, FaultDelay};

    use super::*;

    fn fault(delay: Option<f64>, abort: Option<f64>) -> Fault {
        let percent = |value: f64| Some(Percent { value });
        Fault::compile(&HttpFaultInjection {
            delay: Some(FaultDelay {
                fixed_delay: Some(Span(Duration::from_secs(7))),
                percentage: delay.and_then(percent),
                ..Default::default()
            }),
            abort: Some(FaultAbort {
                http_status: Some(418),
                percentage: abort.and_then(percent),
                ..Default::default()
            }),
        })
        .unwrap()
    }

    #[test]
    fn a_missing_percentage_is_none() {
        assert!((0..1000).all(|seed| fault(None, None).draw(seed) == FaultDraw::default()));
    }

    #[test]
    fn shares_hold() {
        let fault = fault(Some(10.0), Some(0.5));
        let draws: Vec<_> = (0..200_000).map(|seed| fault.draw(seed)).collect();
        let delays = draws.iter().filter(|draw| draw.delay.is_some()).count();
        let aborts = draws.iter().filter(|draw| draw.abort.is_some()).count();
        assert!((19_400..20_600).contains(&delays), "{delays}");
        assert!((850..1150).contains(&aborts), "{aborts}");
        assert_eq!(fault.describe(), (Some("7s in 10%".into()), Some("418 in 0.5%".into())));
    }

    #[test]
    fn grpc_statuses_go_by_name_or_number() {
        assert_eq!(grpc_code("UNAVAILABLE"), Some(14));
        assert_eq!(grpc_code("unavailable"), Some(14));
        assert_eq!(grpc_code("14"), Some(14));
        assert_eq!(grpc_code("99"), None);
    }
}
