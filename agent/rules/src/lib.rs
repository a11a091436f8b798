//! What the objects mean. Pure functions: objects in ([`compile::Compiler`]), an immutable [`snapshot::Snapshot`]
//! out; then, per connection and per request, [`snapshot::Snapshot::outbound`], [`snapshot::Snapshot::route_http`],
//! [`snapshot::Snapshot::route_tcp`] and [`cluster::Cluster::pick`]. No I/O, no clock, no randomness of its own:
//! seeds arrive as arguments.
mod addressee;
pub mod cluster;
pub mod compile;
mod draw;
pub mod explain;
pub mod gateway;
pub mod guard;
mod host;
pub mod http_route;
pub mod identity;
mod intern;
pub mod last_known;
mod matching;
mod mesh;
mod owner;
pub mod path;
mod pattern;
mod port_index;
pub mod probe;
pub mod provider;
pub mod rows;
mod security;
mod service_entry;
mod shard;
pub mod snapshot;
pub mod tcp_route;
pub mod token;
mod virtual_service;
mod visibility;
pub mod workload;
