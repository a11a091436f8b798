//! From a RequestAuthentication to a compiled one.

use std::sync::Arc;

use weft_api::istio::RequestAuthentication;

use super::authorization::{age, scope};
use crate::guard::policy::TokenPolicy;
use crate::intern::Interner;
use crate::mesh::MeshSettings;
use crate::token::TokenRule;

pub(super) fn compile(
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
