//! The security objects, compiled.

pub(crate) mod authorization;
pub(crate) mod condition;
pub(crate) mod peer_authentication;
pub(crate) mod request_authentication;
pub(crate) mod trust_domain;
