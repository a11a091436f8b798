//! Policies that are tried out.

use weft_rules::guard::DryRun;

use super::call::{Call, WORLD, call, policy, stranger};
use crate::support::World;

fn tried(name: &str, spec: &str) -> String {
    policy("shop", name, spec)
        .replace("namespace: shop", "namespace: shop, annotations: {istio.io/dry-run: 'true'}")
}

/// Names of those that would deny, and of those that would not.
fn judged(policies: &str, call: &Call) -> [String; 2] {
    let world = World::of(&format!("{WORLD}{policies}"));
    let (guard, dry_runs) = world.snapshot.guard_and_dry_runs(&world.pod("shop/web"));
    let guard = guard.map(|guard| &**guard);
    let all = dry_runs.expect("dry runs").judge(guard, &call.inbound(), Some(&call.request()));
    let names = |denies| {
        let those = all.iter().filter(|one: &&DryRun| one.denies == denies);
        those.map(|one| one.policy.trim_start_matches("shop/")).collect::<Vec<_>>().join(" ")
    };
    [names(true), names(false)]
}

#[test]
fn a_deny_that_is_tried_out_would_refuse_what_it_matches() {
    let puts = tried("puts", "{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}");
    let gets = tried("gets", "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}");
    assert_eq!(judged(&format!("{puts}{gets}"), &call()), ["gets", "puts"]);
}

#[test]
fn an_allow_that_is_tried_out_would_refuse_what_no_allow_matches() {
    let friends = tried("friends", "{rules: [{from: [{source: {namespaces: [shop]}}]}]}");
    let admins = tried("admins", "{rules: [{from: [{source: {namespaces: [admin]}}]}]}");
    let all = policy("shop", "all", "{rules: [{}]}");
    // They are tried out together: who is let in by one is not refused by the other.
    let both = format!("{friends}{admins}");
    assert_eq!(judged(&both, &call()), ["", "admins friends"]);
    assert_eq!(judged(&both, &stranger()), ["admins friends", ""]);
    // And with what is in force.
    assert_eq!(judged(&format!("{both}{all}"), &stranger()), ["", "admins friends"]);
}

#[test]
fn trying_out_changes_nothing_and_costs_nobody_else() {
    let deny = tried("all", "{action: DENY, rules: [{}]}");
    let elsewhere = deny.replace("namespace: shop", "namespace: other");
    let custom = tried("asks", "{action: CUSTOM, provider: {name: x}, rules: [{}]}");
    for (policies, some) in [(&deny, true), (&elsewhere, false), (&custom, false)] {
        let world = World::of(&format!("{WORLD}{policies}"));
        let (guard, dry_runs) = world.snapshot.guard_and_dry_runs(&world.pod("shop/web"));
        assert!(guard.is_none(), "{policies}");
        assert_eq!(dry_runs.is_some(), some, "{policies}");
    }
    // Rules about requests count on bytes as they would in force.
    let world = World::of(&format!(
        "{WORLD}{deny}{}",
        tried("paths", "{rules: [{to: [{operation: {paths: [/a]}}]}]}")
    ));
    let (_, dry_runs) = world.snapshot.guard_and_dry_runs(&world.pod("shop/web"));
    let all = dry_runs.expect("dry runs").judge(None, &call().inbound(), None);
    assert!(all.iter().all(|one| one.denies), "{all:?}");
}
