//! From a RequestAuthentication to a compiled one.

use std::sync::Arc;

use weft_api::istio::RequestAuthentication;

use crate::guard::compile::authorization::{age, scope};
use crate::guard::policy::TokenPolicy;
use crate::guard::token::TokenRule;
use crate::intern::Interner;
use crate::mesh::MeshSettings;

pub(crate) fn compile(
    object: &RequestAuthentication,
    mesh: &MeshSettings,
    intern: &mut Interner,
) -> TokenPolicy {
    let (meta, spec) = (&object.metadata, &object.spec);
    let targets = spec.target_ref.iter().chain(&spec.target_refs);
    TokenPolicy {
        key: format!("{}/{}", meta.namespace, meta.name).into(),
        age: age(meta, intern),
        scope: scope(meta, spec.selector.as_ref(), targets, mesh, intern),
        rules: spec.jwt_rules.iter().map(|rule| Arc::new(TokenRule::compile(rule))).collect(),
    }
}
