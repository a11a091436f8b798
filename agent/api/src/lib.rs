//! Objects as users write them, what is wrong with them, and the admin API's types. No I/O.
//!
//! [`load::load`] reads manifests into [`object::Object`], every kind that weft reads; [`finding::Finding`] is what
//! `weft analyze`, the admission webhook and `weft status` say about one of them; [`admin`] is what an agent answers.
pub mod admin;
pub mod analyze;
pub mod budget;
pub mod causes;
pub mod crd;
pub mod delegate;
pub mod duration;
pub mod finding;
pub mod identity;
pub mod istio;
pub mod kinds;
pub mod kubernetes;
pub mod load;
pub mod mesh_config;
pub mod meta;
pub mod names;
pub mod object;
pub mod pattern;
pub mod printable;
pub mod registry;
pub mod reserved;
pub mod settings;
pub mod validate;
mod yaml;
