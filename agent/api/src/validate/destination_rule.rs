//! DestinationRule: host and subsets. Traffic policies have a file of their own.

use std::collections::HashSet;

use super::text::{is_ip, is_label, wrong_host};
use super::{Report, export, traffic_policy};
use crate::finding::code;
use crate::istio::{DestinationRuleSpec, Subset, WorkloadSelector};
use crate::yaml::shorten;

/// Checks `spec`.
pub(super) fn check(report: &mut Report, namespace: &str, spec: &DestinationRuleSpec) {
    report.field("host", |r| {
        if let Some(wrong) = wrong_host(&spec.host).filter(|_| !is_ip(&spec.host)) {
            r.error(if spec.host.is_empty() { code::MISSING_FIELD } else { code::INVALID_HOST }, wrong);
        }
    });
    traffic_policy::check(report, spec.traffic_policy.as_ref());
    let mut names = HashSet::new();
    report.each("subsets", &spec.subsets, |r, one| {
        subset(r, one);
        if !one.name.is_empty() && !names.insert(one.name.as_str()) {
            r.field("name", |r| {
                r.error(
                    code::DUPLICATE_NAME,
                    format!("there are two subsets called {:?}", shorten(&one.name)),
                );
            });
        }
    });
    export::export_to(report, namespace, &spec.export_to);
    if let Some(selector) = &spec.workload_selector {
        workload_selector(report, selector);
        let own = |to: &String| to == "." || to == namespace;
        if !spec.export_to.iter().all(own) {
            report.field("exportTo", |r| {
                r.error(
                    code::CONFLICTING_FIELDS,
                    "a rule with a workloadSelector is for its own namespace (write `.`)",
                );
            });
        }
    }
    if spec.subsets.is_empty() && spec.traffic_policy.is_none() && !spec.host.is_empty() {
        report.warning(code::NO_EFFECT, "neither subsets nor a trafficPolicy: the rule changes nothing");
    }
}

fn subset(report: &mut Report, subset: &Subset) {
    report.field("name", |r| {
        if subset.name.is_empty() {
            r.error(code::MISSING_FIELD, "the subset has no name");
        } else if !is_label(&subset.name) {
            let shown = shorten(&subset.name);
            r.error(code::INVALID_VALUE, format!("{shown:?} can be no subset's name (a-z, 0-9 and `-`)"));
        }
    });
    report.labels_field("labels", &subset.labels);
    traffic_policy::check(report, subset.traffic_policy.as_ref());
}

fn workload_selector(report: &mut Report, selector: &WorkloadSelector) {
    report.field("workloadSelector", |report| {
        if selector.match_labels.is_empty() {
            report.warning(code::NO_EFFECT, "no labels: it is for every workload of the namespace");
        }
        report.labels_field("matchLabels", &selector.match_labels);
    });
}
