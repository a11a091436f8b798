//! Whose hosts a VirtualService names, and what its gateways see of the rules for them.

use super::index::{Index, full_host, seen_from};
use crate::finding::{Severity, code};
use crate::istio::{DestinationRule, MESH, VirtualService};
use crate::validate::Report;

/// The namespace whose rules are the mesh's, where nothing says otherwise.
const ROOT: &str = "istio-system";

/// The service that a name with a dot was probably meant for: such a name is taken as it is.
pub(super) fn meant(index: &Index<'_>, written: &str) -> Option<String> {
    let name = written.strip_suffix('.').unwrap_or(written).to_ascii_lowercase();
    let full = match name.split('.').collect::<Vec<_>>()[..] {
        [_, _] => format!("{name}.svc.cluster.local"),
        [_, _, "svc"] => format!("{name}.cluster.local"),
        _ => return None,
    };
    index.services.contains_key(&full).then_some(full)
}

/// Checks the hosts of a VirtualService that callers in the mesh see.
pub(super) fn of_rules(report: &mut Report, index: &Index<'_>, object: &VirtualService) {
    let own = object.metadata.namespace.as_str();
    for (at, written) in object.spec.hosts.iter().enumerate() {
        let host = full_host(written, own);
        report.item("hosts", at, |r| {
            if let Some(full) = meant(index, written) {
                let (name, namespace) = full.split_once('.').map_or(("", ""), |(name, rest)| {
                    (name, rest.split('.').next().unwrap_or_default())
                });
                let short = if namespace == own { format!("{name} or ") } else { String::new() };
                r.warning(
                    code::UNKNOWN_HOST,
                    format!("{written} is not the service {full}: a name with a dot is taken as it is (write {short}{full})"),
                );
            }
            taken(r, index, object, &host);
        });
    }
}

/// Another namespace's Services whose traffic these rules take.
fn taken(report: &mut Report, index: &Index<'_>, object: &VirtualService, host: &str) {
    let own = object.metadata.namespace.as_str();
    let private = !object.spec.export_to.is_empty()
        && object.spec.export_to.iter().all(|to| to == "." || to == own || to == "~");
    if own == ROOT || (private && !index.host_ownership) {
        return;
    }
    let covers = |service: &str| match host.strip_prefix('*') {
        Some(suffix) => service.ends_with(suffix),
        None => service == host,
    };
    let foreign = |service: &&String| covers(service) && owner(service).is_some_and(|owner| owner != own);
    let mut known: Vec<&String> = index.services.keys().filter(foreign).collect();
    known.sort_unstable();
    let (severity, names) = match (&known[..], owner(host)) {
        ([], Some(owner)) if owner != own && !host.starts_with('*') => (Severity::Info, host.to_owned()),
        ([], _) => return,
        ([first], _) => (Severity::Warning, (*first).clone()),
        ([first, rest @ ..], _) => (Severity::Warning, format!("{first} and {} more", rest.len())),
    };
    let message = if index.host_ownership {
        format!(
            "not in force for {names}, of another namespace: hostOwnership is namespace (put the rules there)"
        )
    } else {
        format!(
            "takes the traffic of {names}, of another namespace (put the rules there, limit them with exportTo: [.], or refuse all \
             such with hostOwnership: namespace)"
        )
    };
    report.push(severity, code::HOST_TAKEN, message);
}

/// The namespace of a Service by its full name.
fn owner(host: &str) -> Option<&str> {
    let names = host.strip_suffix(".svc.cluster.local")?;
    let (_, namespace) = names.split_once('.')?;
    (!namespace.contains('.')).then_some(namespace)
}

/// Whether the gateways of a VirtualService see a DestinationRule that defines the subset; says which one they do not see.
pub(super) fn subset_at_gateways(
    report: &mut Report,
    index: &Index<'_>,
    object: &VirtualService,
    host: &str,
    subset: &str,
) {
    let Some(owner) = owner(host) else { return };
    let rules = index.destination_rules.get(host).map_or(&[][..], Vec::as_slice);
    let defining: Vec<&DestinationRule> = rules
        .iter()
        .map(|(_, rule)| *rule)
        .filter(|rule| rule.spec.subsets.iter().any(|defined| defined.name == subset))
        .collect();
    let Some(first) = defining.first() else { return };
    for gateway in object.spec.gateways.iter().filter(|gateway| *gateway != MESH) {
        let namespaces = index.gateway_namespaces(gateway, &object.metadata.namespace);
        let sees = |rule: &&DestinationRule, from: &str| {
            let of = rule.metadata.namespace.as_str();
            of == from || ([owner, ROOT].contains(&of) && seen_from((of, &rule.spec.export_to), from))
        };
        for from in namespaces.iter().filter(|from| !defining.iter().any(|rule| sees(rule, from))) {
            let meta = &first.metadata;
            unseen(report, &format!("{}/{}", meta.namespace, meta.name), gateway, from, owner);
        }
    }
}

fn unseen(report: &mut Report, rule: &str, gateway: &str, from: &str, owner: &str) {
    report.warning(
        code::UNKNOWN_SUBSET,
        format!(
            "answers 503 at gateway {gateway}: DestinationRule {rule} defines it, and pods in namespace {from} do not see that rule \
             (they see their own namespace's, and what {owner} and {ROOT} export: put it into {owner})"
        ),
    );
}
