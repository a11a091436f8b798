//! What the objects mean. Pure functions: objects in ([`compile::Compiler`]), an immutable [`snapshot::Snapshot`]
//! out; then, per connection and per request, [`snapshot::Snapshot::outbound`], [`snapshot::Snapshot::route_http`],
//! [`snapshot::Snapshot::route_tcp`] and [`upstream::cluster::Cluster::pick`]. No I/O, no clock, no randomness of its own:
//! seeds arrive as arguments.
pub mod claims;
pub mod compile;
mod draw;
pub mod explain;
pub mod guard;
mod intern;
pub mod last_known;
mod mesh;
pub mod path;
mod pattern;
pub mod probe;
pub mod registry;
pub mod route;
pub mod rows;
mod shard;
pub mod snapshot;
pub mod upstream;
pub mod workload;
