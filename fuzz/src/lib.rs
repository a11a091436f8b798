//! Parsers of `agent/node` and `agent/proxy`, built without the rest of them: what they need of TLS and of the Kubernetes API is
//! nothing. Each module stands where it stands there, and next to it what must hold of whatever it reads.
#![expect(dead_code, reason = "modules are taken whole, and not all of each is fuzzed")]

use std::sync::Arc;

use weft_api::load::Loaded;
use weft_rules::compile::{Change, Compiler, CompilerOptions};
use weft_rules::snapshot::Snapshot;

use proxy::{authority, limits};

pub mod agent;
pub mod cni;
pub mod proxy;
pub mod tokens;

/// The rules that follow from objects.
pub fn compiled(loaded: Loaded) -> Arc<Snapshot> {
    let mut compiler = Compiler::new(CompilerOptions {
        node: "n1".into(),
        cluster_domain: "cluster.local".into(),
        root_namespace: "istio-system".into(),
        trust_domain: "cluster.local".into(),
        cluster: false,
    });
    compiler.apply(loaded.objects.into_iter().map(|object| Change::Put(object.object)).collect())
}
