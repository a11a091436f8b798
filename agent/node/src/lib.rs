//! Puts the rooms of a node together, in the order of a request's way: `weft-discovery` reads objects, `weft-rules` compiles
//! them to a snapshot, `weft-datapath` redirects the sockets of enrolled pods, `weft-proxy` routes what arrives,
//! `weft-telemetry` counts it and [`admin`] shows it. `weft-limits` bounds what anybody can make it hold. [`agent`] starts all
//! of it in order; [`cni`] is told of pods that start.
pub mod admin;
pub mod agent;
mod channel;
pub mod cni;
