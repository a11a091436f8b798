//! What a weft node does, in the order of a request's way: `discovery` reads objects, `weft-rules` compiles
//! them to a snapshot, [`datapath`] redirects the sockets of enrolled pods, [`proxy`] routes what arrives,
//! [`telemetry`] counts it and `admin` shows it.
pub mod datapath;
pub mod proxy;
pub mod telemetry;
