//! What the types cannot say: the checks that Istio's webhook makes, and weft's own warnings.
//!
//! One function for the admission webhook, `weft analyze` and the agent. Errors refuse an object; warnings do not.

mod problem;

use crate::finding::Finding;
use crate::object::Object;

pub(crate) use problem::{Problem, Report};

/// Checks one object by itself. No finding is about other objects; [`crate::analyze`] makes those.
pub fn validate(object: &Object) -> Vec<Finding> {
    let key = object.key();
    check(object).into_iter().map(|problem| problem.into_finding(&key.to_string(), None)).collect()
}

/// As [`validate`], before paths are turned to text and lines.
pub(crate) fn check(object: &Object) -> Vec<Problem> {
    let report = Report::default();
    let _ = object;
    report.into_problems()
}
