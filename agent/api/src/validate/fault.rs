//! `http[].fault`.

use super::Report;
use crate::finding::code;
use crate::istio::{FaultAbort, FaultDelay, GRPC_STATUSES, HttpFaultInjection, Percent};
use crate::yaml::shorten;

/// Checks the faults of a rule.
pub(super) fn check(report: &mut Report, fault: &HttpFaultInjection) {
    if fault.delay.is_none() && fault.abort.is_none() {
        report.error(code::MISSING_FIELD, "the fault does nothing (write delay or abort)");
    }
    report.field("delay", |r| fault.delay.iter().for_each(|it| delay(r, it)));
    report.field("abort", |r| fault.abort.iter().for_each(|it| abort(r, it)));
}

fn delay(report: &mut Report, delay: &FaultDelay) {
    report.duration_field("fixedDelay", delay.fixed_delay);
    if delay.exponential_delay.is_some() {
        report.field("exponentialDelay", |r| r.error(code::INVALID_VALUE, "not supported (use fixedDelay)"));
    } else if delay.fixed_delay.is_none() {
        report.field("fixedDelay", |r| r.error(code::MISSING_FIELD, "how long to wait is missing"));
    }
    share(report, delay.percentage, delay.percent);
}

fn abort(report: &mut Report, abort: &FaultAbort) {
    let kinds = [abort.http_status.is_some(), abort.grpc_status.is_some(), abort.http2_error.is_some()];
    match kinds.into_iter().filter(|set| *set).count() {
        0 => report.error(code::MISSING_FIELD, "the abort has no answer (write httpStatus or grpcStatus)"),
        1 => {}
        _ => {
            report.error(code::CONFLICTING_FIELDS, "an abort has one answer (keep httpStatus or grpcStatus)");
        }
    }
    if let Some(it) = abort.http_status {
        status(report, "httpStatus", it);
    }
    if abort.http2_error.is_some() {
        report.field("http2Error", |r| {
            r.error(code::INVALID_VALUE, "not supported (use httpStatus or grpcStatus)");
        });
    }
    if let Some(it) = &abort.grpc_status {
        let known = GRPC_STATUSES.contains(&it.as_str())
            || it.parse::<usize>().is_ok_and(|n| n < GRPC_STATUSES.len());
        if !known {
            report.field("grpcStatus", |r| {
                r.error(
                    code::INVALID_VALUE,
                    format!("{:?} is no gRPC status (as NOT_FOUND or UNAVAILABLE)", shorten(it)),
                );
            });
        }
    }
    share(report, abort.percentage, abort.percent);
}

/// The share of the requests that a fault is for.
fn share(report: &mut Report, percentage: Option<Percent>, percent: Option<i32>) {
    report.percentage_field("percentage", percentage);
    report.percent_field("percent", percent);
    if percent.is_some() {
        report.field("percent", |r| r.warning(code::DEPRECATED_FIELD, "an old field (use percentage)"));
    } else if percentage.is_none() {
        report.field("percentage", |r| {
            r.warning(
                code::NO_EFFECT,
                "a missing percentage is 0: no request is concerned (write percentage: {value: 100})",
            );
        });
    }
}

/// Checks an HTTP status that weft answers itself.
pub(super) fn status(report: &mut Report, name: &'static str, status: u32) {
    if !(200..=599).contains(&status) {
        let message =
            if status == 0 { "there is no status".to_owned() } else { format!("{status} is no status") };
        report.field(name, |r| r.error(code::INVALID_VALUE, format!("{message} (choose 200 to 599)")));
    }
}
