//! What a weft node does, in the order of a request's way: [`discovery`] reads objects, `weft-rules` compiles
//! them to a snapshot, [`datapath`] redirects the sockets of enrolled pods, [`proxy`] routes what arrives,
//! [`telemetry`] counts it and [`admin`] shows it. [`limits`] bounds what anybody can make it hold. [`agent`] starts all of it in order.
pub mod admin;
pub mod agent;
pub mod causes;
mod cgroups;
mod channel;
pub mod cni;
pub mod crypto;
pub mod datapath;
pub mod discovery;
pub mod identity;
pub mod limits;
pub mod proxy;
pub mod telemetry;
pub mod tokens;
mod whole_file;

#[cfg(test)]
mod test_dir;
