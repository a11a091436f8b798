//! `metadata`, which all kinds have.

use super::Report;
use super::text::{is_label, is_subdomain};
use crate::finding::code;
use crate::object::Object;
use crate::yaml::shorten;

pub(super) fn check(report: &mut Report, object: &Object) {
    let meta = object.metadata();
    report.field("metadata", |report| {
        let label_only = matches!(object, Object::Namespace(_) | Object::Service(_));
        report.field("name", |r| {
            let shown = shorten(&meta.name);
            if meta.name.is_empty() {
                r.error(code::INVALID_METADATA, "the object has no name");
            } else if label_only && !is_label(&meta.name) {
                r.error(
                    code::INVALID_METADATA,
                    format!("{shown:?} is no valid name (at most 63 of a-z, 0-9 and `-`)"),
                );
            } else if !is_subdomain(&meta.name) {
                r.error(
                    code::INVALID_METADATA,
                    format!("{shown:?} is no valid name (use a-z, 0-9, `-` and `.`)"),
                );
            }
        });
        if !meta.namespace.is_empty() && !is_label(&meta.namespace) {
            report.field("namespace", |r| {
                let shown = shorten(&meta.namespace);
                r.error(
                    code::INVALID_METADATA,
                    format!("{shown:?} is no valid namespace (use a-z, 0-9 and `-`)"),
                );
            });
        }
        let created = &meta.creation_timestamp;
        if !created.is_empty() && created.parse::<jiff::Timestamp>().is_err() {
            report.field("creationTimestamp", |r| {
                let shown = shorten(created);
                r.error(
                    code::INVALID_METADATA,
                    format!("{shown:?} is no time (write it as 2026-11-21T08:00:00Z, or leave it out)"),
                );
            });
        }
        report.labels_field("labels", &meta.labels);
    });
}
