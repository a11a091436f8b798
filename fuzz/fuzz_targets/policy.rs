//! AuthorizationPolicy: values of any form against requests of any form. ALLOW and DENY of the same rule never agree.
//!
//! The input's lines are a path, a method, a host and a header's value as a policy has them, then the same of a request.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use weft_rules::guard::{Inbound, InboundRequest, RequestVerdict};
use weft_api::identity::Identity;

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nstatus: {podIP: 10.1.0.1}\n";

static CALLER: LazyLock<Identity> =
    LazyLock::new(|| Identity::parse("spiffe://cluster.local/ns/shop/sa/client").expect("an identity"));

fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.splitn(8, '\n').collect();
    let [path, method, host, value, asked, by, at, header] = lines[..] else { return };
    let request = http::Request::builder().uri(asked).method(by).header("host", at).header("x-fuzz", header);
    let Ok(request) = request.body(()) else { return };
    let head = request.into_parts().0;
    let verdicts = ["ALLOW", "DENY"].map(|action| {
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "fuzz", "namespace": "shop"},
            "spec": {"action": action, "rules": [{
                "to": [{"operation": {"paths": [path], "methods": [method], "notHosts": [host]}}],
                "when": [{"key": "request.headers[x-fuzz]", "values": [value]}],
            }]},
        });
        verdict(&format!("{POD}---\n{policy}\n"), &head)
    });
    if let [Some(allow), Some(deny)] = verdicts {
        assert_ne!(allow, deny, "the rule matches and does not");
    }
});

/// Whether the request may pass; `None`: weft refuses the policy.
fn verdict(yaml: &str, head: &http::request::Parts) -> Option<bool> {
    let loaded = weft_api::load::load("fuzz.yaml", yaml);
    if loaded.objects.len() != 2 {
        return None;
    }
    let snapshot = weft_fuzz::compiled(loaded);
    let workload = snapshot.workload("shop/web").expect("a pod");
    let guard = snapshot.guard(workload).expect("a policy");
    let peer = "10.1.0.2".parse().expect("an address");
    let connection =
        Inbound { identity: Some(&CALLER), peer, to: "10.1.0.1:80".parse().expect("an address"), sni: None };
    let request = InboundRequest { head, remote: peer, claims: None };
    Some(guard.admit_request(&connection, &request) == RequestVerdict::Allowed)
}
