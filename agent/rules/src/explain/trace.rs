//! Retells how rules were looked at: which did not apply, which condition was missed, which decided.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;

use super::in_words;
use crate::registry::hostname::HostBuffer;
use crate::registry::protocol::Protocol;
use crate::route::http_route::Destination;
use crate::route::matching::{At, HttpMatch, RequestView};
use crate::route::virtual_service::{HttpEntry, HttpOutcome, Rules};
use crate::snapshot::{Outbound, Snapshot, Unroutable};
use crate::workload::Workload;

/// Says what the name and the address stand for.
pub(super) fn name_target(
    snapshot: &Snapshot,
    caller: &Workload,
    host: &str,
    dst: SocketAddr,
    outbound: &Outbound,
    notes: &mut Vec<String>,
) {
    let protocol = match outbound.protocol {
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP/2",
        Protocol::Tcp => "TCP",
        Protocol::Detect => "undeclared (HTTP if the first bytes show it)",
    };
    match &outbound.service {
        Some(service) => notes.push(format!("{host} is {} at {dst}; the port is {protocol}", service.host)),
        None => match snapshot.registry.hosts_at(caller, dst.ip()).next() {
            Some(entry) => {
                let ports: Vec<String> = entry.ports.iter().map(|port| port.port.to_string()).collect();
                notes.push(format!(
                    "{} has no port {}; it has {}",
                    entry.service.host,
                    dst.port(),
                    ports.join(", ")
                ));
            }
            None => notes.push(format!("{host} is no service that namespace {} sees", caller.namespace)),
        },
    }
}

/// Walks the rules of the request's host as the decision does.
pub(super) fn rules(
    snapshot: &Snapshot,
    caller: &Workload,
    dst: SocketAddr,
    parts: &Parts,
    notes: &mut Vec<String>,
) {
    let request = RequestView::of(parts);
    let mut lower = HostBuffer::new();
    let addressee = snapshot.addressee(caller, dst, request.authority, &mut lower);
    let owner = addressee.as_ref().and_then(|addressee| snapshot.owner(addressee.name));
    let lists = addressee.iter().flat_map(|addressee| snapshot.rules_of(addressee));
    let mut decided: Option<&Arc<Rules>> = None;
    for rules in lists.flat_map(|list| list.iter()) {
        if let Some(older) = decided {
            notes.push(format!(
                "VirtualService {} names the host too and has no effect here: {} is older or more specific",
                rules.key, older.key
            ));
            continue;
        }
        if !rules.scope.admits(&caller.namespace) {
            let note =
                format!("VirtualService {} is not exported to namespace {}", rules.key, caller.namespace);
            notes.push(note);
            continue;
        }
        if owner.is_some_and(|owner| !owner.lets(rules)) {
            notes.push(not_owned(rules));
            continue;
        }
        match rules.route_http(caller, dst.port(), At::Mesh, &request) {
            HttpOutcome::Invisible => {
                notes
                    .push(format!("VirtualService {} has no HTTP route for this caller and port", rules.key));
                routes(rules, caller, dst.port(), At::Mesh, &request, notes);
            }
            HttpOutcome::Matched(..) | HttpOutcome::NoMatch => {
                routes(rules, caller, dst.port(), At::Mesh, &request, notes);
                decided = Some(rules);
            }
        }
    }
    let is_known = decided.is_some() || addressee.is_some_and(|addressee| addressee.service.is_some());
    if let Some(entry) = snapshot.stands_in(caller, dst).filter(|_| !is_known) {
        notes.push(format!(
            "no service or rule of port {} has the Host {}: the request is for the service that was dialled, {}, and not for \
             its VirtualServices",
            dst.port(),
            request.authority,
            entry.service.host
        ));
    }
}

fn not_owned(rules: &Rules) -> String {
    format!("VirtualService {} is of another namespace than the host (hostOwnership is namespace)", rules.key)
}

/// Says for each route up to the deciding one why it does not match, and for the later ones that they might.
pub(super) fn routes(
    rules: &Rules,
    caller: &Workload,
    port: u16,
    at: At<'_>,
    request: &RequestView<'_>,
    notes: &mut Vec<String>,
) {
    let mut decided = false;
    for (index, entry) in rules.http.iter().enumerate() {
        let which = format!("http[{index}] of {}", rules.key);
        let matched = entry.matches.is_empty()
            || entry
                .matches
                .iter()
                .any(|entry| entry.source.admits(caller, port, at) && entry.matches(request));
        if matched && decided {
            notes.push(format!("{which} matches too, but comes later"));
        } else if matched {
            decided = true;
            notes.push(format!("{which} matched{}", because(entry, caller, port, at, request)));
        } else {
            for (position, candidate) in entry.matches.iter().enumerate() {
                let part =
                    if entry.matches.len() > 1 { format!(" (match[{position}])") } else { String::new() };
                let missed = misses(candidate, caller, port, at, request).join("; ");
                notes.push(format!("{which}{part} does not match: {missed}"));
            }
        }
    }
}

fn because(entry: &HttpEntry, caller: &Workload, port: u16, at: At<'_>, request: &RequestView<'_>) -> String {
    let fits = |entry: &&HttpMatch| entry.source.admits(caller, port, at) && entry.matches(request);
    let Some(entry) = entry.matches.iter().find(fits) else { return ": it matches everything".into() };
    let mut reasons = entry.source.describe();
    reasons.extend(entry.conditions.iter().map(ToString::to_string));
    if reasons.is_empty() {
        ": it matches everything".into()
    } else {
        format!(" by {}", reasons.join(" and "))
    }
}

/// What a match entry wants and the request has not.
fn misses(
    entry: &HttpMatch,
    caller: &Workload,
    port: u16,
    at: At<'_>,
    request: &RequestView<'_>,
) -> Vec<String> {
    let source = entry.source.miss(caller, port, at);
    let conditions = entry.conditions.iter().filter(|condition| !condition.holds(request));
    let conditions = conditions.map(|condition| format!("wants {condition}, {}", condition.found(request)));
    source.into_iter().chain(conditions).collect()
}

/// Walks the `tcp` rules of the service at an address; where its port is declared to speak TLS, the `tls` rules.
pub(super) fn l4_rules(
    snapshot: &Snapshot,
    caller: &Workload,
    dst: SocketAddr,
    server_name: Option<&str>,
    notes: &mut Vec<String>,
) {
    let Some(entry) = snapshot.registry.host_at(caller, dst) else { return };
    let by_name = entry.port(dst.port()).is_some_and(|port| port.is_tls);
    let owner = snapshot.owner(&entry.service.host);
    for rules in snapshot.rules_for(&entry.service.host).flat_map(|list| list.iter()) {
        if !rules.scope.admits(&caller.namespace) {
            notes.push(format!(
                "VirtualService {} is not exported to namespace {}",
                rules.key, caller.namespace
            ));
            continue;
        }
        if owner.is_some_and(|owner| !owner.lets(rules)) {
            notes.push(not_owned(rules));
            continue;
        }
        if by_name {
            tls_rules(rules, caller, dst, server_name, notes);
            continue;
        }
        if rules.tcp.is_empty() {
            notes.push(format!("VirtualService {} has no `tcp` routes", rules.key));
        }
        for (index, route) in rules.tcp.iter().enumerate() {
            for candidate in &route.matches {
                if let Some(miss) = candidate.source.miss(caller, dst.port(), At::Mesh) {
                    notes.push(format!("tcp[{index}] of {} does not match: {miss}", rules.key));
                } else if !candidate.contains(dst.ip()) {
                    let note = format!(
                        "tcp[{index}] of {} does not match: {} is outside its subnets",
                        rules.key,
                        dst.ip()
                    );
                    notes.push(note);
                } else if !candidate.is_from(caller) {
                    notes.push(format!(
                        "tcp[{index}] of {} does not match: the caller's address is outside its sourceSubnet",
                        rules.key
                    ));
                }
            }
        }
    }
}

/// Says why the `tls` rules of a VirtualService are not for a connection.
fn tls_rules(
    rules: &Rules,
    caller: &Workload,
    dst: SocketAddr,
    server_name: Option<&str>,
    notes: &mut Vec<String>,
) {
    if rules.tls.is_empty() {
        notes.push(format!("VirtualService {} has no `tls` routes", rules.key));
    }
    for (index, route) in rules.tls.iter().enumerate() {
        for candidate in &route.matches {
            let miss = candidate.source.miss(caller, dst.port(), At::Mesh);
            let miss = miss.or_else(|| {
                let names: Vec<String> = candidate.names.iter().map(ToString::to_string).collect();
                let is_other = candidate.fits(server_name).is_none();
                is_other.then(|| format!("it is for the server name {}", names.join(" or ")))
            });
            let outside =
                || (!candidate.contains(dst.ip())).then(|| format!("{} is outside its subnets", dst.ip()));
            if let Some(miss) = miss.or_else(outside) {
                notes.push(format!("tls[{index}] of {} does not match: {miss}", rules.key));
            }
        }
    }
}

/// Says which policy a destination falls under, or why it leads nowhere and what would help.
pub(super) fn destination(
    snapshot: &Snapshot,
    caller: &Workload,
    destination: &Destination,
    addressed: u16,
    notes: &mut Vec<String>,
) {
    let entry = snapshot.registry.host(&destination.host);
    match (snapshot.cluster(caller, destination, addressed), entry) {
        (Ok(cluster), Some(entry)) => {
            let rules = &entry.clusters(caller).rules;
            if !rules.is_empty() {
                let balance = cluster.balance.name();
                notes.push(format!(
                    "DestinationRule {} applies to {}: {balance}",
                    rules.join(" and "),
                    in_words(destination)
                ));
            }
            if cluster.endpoints.is_empty() {
                notes.push(format!("503: {} has no ready endpoint", in_words(destination)));
            }
        }
        (Err(Unroutable::UnknownPort { port, .. }), Some(entry)) if destination.port.is_none() => {
            let ports: Vec<String> = entry.ports.iter().map(|port| port.port.to_string()).collect();
            notes.push(format!(
                "503: {} has no port {port}, the one addressed (write destination.port.number: {})",
                destination.host,
                ports.join(" or ")
            ));
        }
        (Err(error @ Unroutable::UnknownSubset { .. }), Some(entry)) => {
            let clusters = entry.clusters(caller);
            let names = clusters.ports.first().into_iter().flat_map(|port| port.subsets.iter());
            let names: Vec<&str> = names.filter_map(|cluster| cluster.subset.as_deref()).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            notes.push(format!("503: {error}; defined are: {known}"));
        }
        (Err(error), _) => notes.push(format!("503: {error}")),
        (Ok(_), None) => {}
    }
}
