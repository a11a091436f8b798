//! What people and scrapes see of the limits. Holders by name are in the status alone: a scrape tells of kinds, which are few.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use weft_api::admin::{LimitRow, Limits};
use weft_api::budget::Sums;

use super::budget::{Budget, KINDS, Pressure, Resource, Share};

/// Holders that the status names; those that were refused last.
const NAMED: usize = 20;

/// `weft status`.
pub fn status(budget: &Budget) -> Limits {
    let mut lately = budget.refused_lately();
    lately.sort_by_key(|(_, _, since)| *since);
    lately.truncate(NAMED);
    Limits {
        memory_bytes: budget.limits().memory,
        pressure: name(budget.pressure()).to_owned(),
        all: Resource::ALL.into_iter().map(|resource| row(budget.all(), resource, None)).collect(),
        holders: lately.iter().map(|(share, resource, since)| row(share, *resource, Some(*since))).collect(),
    }
}

fn row(share: &Share, resource: Resource, since: Option<Duration>) -> LimitRow {
    LimitRow {
        holder: share.holder.to_string(),
        resource: resource.name().to_owned(),
        used: share.used(resource),
        max: share.max(resource),
        refused: share.refused(resource),
        refused_seconds_ago: since.map(|since| since.as_secs()),
    }
}

fn name(pressure: Pressure) -> &'static str {
    match pressure {
        Pressure::None => "none",
        Pressure::High => "high",
        Pressure::Critical => "critical",
    }
}

/// `/metrics`.
#[derive(Debug)]
pub struct Metrics(pub Arc<Budget>);

impl Collector for Metrics {
    #[expect(clippy::cast_precision_loss, reason = "none of these numbers comes near 2^53")]
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let budget = &self.0;
        let mut gauge = |name, help, value: &dyn Fn(Resource) -> u64, objects: Sums| {
            let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
            let objects = [
                ("rules_bytes", objects.rules),
                ("endpoints_bytes", objects.endpoints),
                ("regex_instructions", objects.instructions),
            ];
            let held = Resource::ALL.into_iter().map(|resource| (resource.name(), value(resource)));
            held.chain(objects).try_for_each(|(resource, value)| {
                let labels = [("resource", resource)];
                family.encode_family(&labels)?.encode_gauge(&(value as f64))
            })
        };
        let used = |resource| budget.all().used(resource);
        gauge("weft_limit_used", "What is held for others", &used, budget.objects())?;
        let most = |resource| budget.all().max(resource);
        gauge("weft_limit_max", "What may be held for others", &most, budget.limits().objects)?;
        let help = "How often a holder at its bound was refused more, or had to wait";
        let mut family = to.encode_descriptor("weft_limit_refused", help, None, MetricType::Counter)?;
        for resource in Resource::ALL {
            for (kind, refused) in KINDS.iter().zip(budget.refusals(resource)) {
                let labels = [("resource", resource.name()), ("holder", kind)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&refused, None)?;
            }
        }
        let help = "How often a holder lost its connections because memory ran out";
        to.encode_descriptor("weft_limit_ended_holders", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&budget.ended(), None)?;
        to.encode_descriptor(
            "weft_limit_memory_bytes",
            "Memory that the agent may have",
            None,
            MetricType::Gauge,
        )?
        .encode_gauge(&(budget.limits().memory as f64))?;
        let help = "How near the memory limit the agent is: 0 far, 1 high, 2 critical";
        to.encode_descriptor("weft_limit_pressure", help, None, MetricType::Gauge)?
            .encode_gauge(&(budget.pressure() as i64))
    }
}
