//! What the types cannot say: the checks that Istio's webhook makes, and weft's own warnings.
//!
//! One function for the admission webhook, `weft analyze` and the agent. Errors refuse an object; warnings do not.

mod annotations;
mod authorization_policy;
mod condition;
mod destination_rule;
mod export;
mod fault;
mod gateway;
mod headers;
mod http_match;
mod http_route;
mod kubernetes;
mod metadata;
mod not_in_force;
mod peer_authentication;
mod problem;
mod reach;
mod request_authentication;
mod security;
mod size;
mod text;
mod traffic_policy;
mod virtual_service;

use crate::finding::Finding;
use crate::meta::Labels;
use crate::object::Object;
use crate::yaml::Path;

pub(crate) use problem::{Problem, Report};
pub(crate) use text::{is_header_name, is_ip, is_label, wrong_host};

/// Checks one object by itself. No finding is about other objects; [`crate::analyze`] makes those.
pub fn validate(object: &Object) -> Vec<Finding> {
    findings(object, check(object))
}

/// Tells what an object asks for that this version of weft does not do yet: one `NotInForce` finding for each field.
pub fn not_in_force(object: &Object) -> Vec<Finding> {
    findings(object, without_force(object))
}

fn findings(object: &Object, problems: Vec<Problem>) -> Vec<Finding> {
    let resource = object.key().to_string();
    problems.into_iter().map(|problem| problem.into_finding(&resource, None)).collect()
}

/// As [`validate`], before paths are turned to text and lines.
pub(crate) fn check(object: &Object) -> Vec<Problem> {
    let mut report = Report::default();
    metadata::check(&mut report, object);
    size::check(&mut report, object);
    match object {
        // The API server checks a NetworkPolicy, and nothing here obeys it.
        Object::Namespace(_) | Object::NetworkPolicy(_) => {}
        Object::Gateway(o) => report.field("spec", |r| gateway::check(r, &o.spec)),
        Object::PeerAuthentication(o) => report.field("spec", |r| peer_authentication::check(r, &o.spec)),
        Object::AuthorizationPolicy(o) => {
            report.field("spec", |r| authorization_policy::check(r, &o.metadata.namespace, &o.spec));
        }
        Object::RequestAuthentication(o) => {
            report.field("spec", |r| request_authentication::check(r, &o.metadata.namespace, &o.spec));
        }
        Object::Secret(o) => kubernetes::secret(&mut report, o),
        Object::ConfigMap(o) => kubernetes::config_map(&mut report, o),
        Object::Pod(o) => kubernetes::pod(&mut report, o),
        Object::Service(o) => report.field("spec", |r| kubernetes::service(r, &o.spec)),
        Object::EndpointSlice(o) => kubernetes::endpoint_slice(&mut report, o),
        Object::VirtualService(o) => {
            report.field("spec", |r| virtual_service::check(r, &o.metadata.namespace, &o.spec));
        }
        Object::DestinationRule(o) => {
            report.field("spec", |r| destination_rule::check(r, &o.metadata.namespace, &o.spec));
        }
    }
    report.into_problems()
}

/// Tells the annotations of what a controller makes pods from that have no effect. `place` is where its template's
/// metadata is.
pub(crate) fn template_without_force(place: Path, annotations: &Labels) -> Vec<Problem> {
    let mut report = Report::default();
    report.at(place, |r| annotations::without_force(r, annotations));
    report.into_problems()
}

/// As [`not_in_force`], before paths are turned to text and lines.
pub(crate) fn without_force(object: &Object) -> Vec<Problem> {
    let mut report = Report::default();
    not_in_force::check(&mut report, object);
    report.into_problems()
}

#[cfg(test)]
mod tests;
