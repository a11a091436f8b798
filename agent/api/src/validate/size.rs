//! How much of every node's memory one object may take.

use super::Report;
use crate::budget::{ENDPOINTS, PATTERNS, RULES, Share, weigh};
use crate::finding::code;
use crate::object::Object;

pub(super) fn check(report: &mut Report, object: &Object) {
    let Some(weight) = weigh(object) else { return };
    let bounds = match weight.share {
        Share::Rules => RULES,
        Share::Endpoints => ENDPOINTS,
    };
    let field = if matches!(object, Object::EndpointSlice(_)) { "endpoints" } else { "spec" };
    report.field(field, |report| {
        if weight.bytes > bounds.object {
            let (taken, most) = (weight.bytes.div_ceil(1 << 20), bounds.object >> 20);
            let message = format!(
                "it would take about {taken} MiB of every node's memory, more than {most} MiB (make several objects of it, or \
                 leave something out: rules, named matches, bodies, values)"
            );
            report.error(code::TOO_LARGE, message);
        }
        let instructions = weight.instructions();
        if instructions > PATTERNS.object {
            let message = format!(
                "its regular expressions stand for about {instructions} instructions, more than {} (use exact and prefix, or \
                 fewer and smaller ones)",
                PATTERNS.object
            );
            report.error(code::TOO_LARGE, message);
        }
    });
}
