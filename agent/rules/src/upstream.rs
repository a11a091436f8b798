//! Where requests and connections end up: endpoints, and the choice among them.

pub mod cluster;
pub(crate) mod clusters;
