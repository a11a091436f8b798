//! Files of manifests, and what they do to the rules in force.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_api::load::load;
use weft_rules::compile::{Change, Compiler, CompilerOptions};

fuzz_target!(|text: &str| {
    let loaded = load("fuzz.yaml", text);
    // Every finding can be told.
    for finding in loaded.findings() {
        assert!(!finding.message.is_empty(), "{finding:?}");
    }
    let mut compiler = Compiler::new(CompilerOptions {
        node: "n1".into(),
        cluster_domain: "cluster.local".into(),
        root_namespace: "istio-system".into(),
        trust_domain: "cluster.local".into(),
        cluster: false,
    });
    compiler.apply(loaded.objects.into_iter().map(|object| Change::Put(object.object)).collect());
});
