//! Worlds for weft's tests, demo and benchmarks: pods as network namespaces on a bridge, a folder of manifests, and
//! agents from the built `weft`, used as a user would.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use weft_tests::Mesh;
//!
//! let mesh = Mesh::new()?;
//! mesh.namespace("shop", true)?;
//! mesh.pod("client").namespace("shop").start()?;
//! mesh.pod("catalog-1").namespace("shop").label("app", "catalog").app(["catalog", "--port", "3000"]).start()?;
//! mesh.service("catalog").namespace("shop").selector("app", "catalog").port("http", 80, 3000).create()?;
//! mesh.start_agent()?;
//! let answer = mesh.get("client", "http://catalog/items")?;
//! assert_eq!(answer.status, 200);
//! # Ok(())
//! # }
//! ```
//!
//! Whatever a world made is gone when its [`Mesh`] is dropped, on a panic, on Ctrl-C, and after a crash when the next
//! world is made. It needs root.

mod agent;
mod builders;
mod capture;
mod cluster;
mod http;
mod manifest;
mod mesh;
mod metrics;
pub mod network;
mod nodes;
mod pod;
pub mod process;
pub mod scenarios;
mod traffic;
mod wait;
mod world;

pub use agent::{Agent, AgentSpec};
pub use builders::{PodBuilder, ServiceBuilder};
pub use capture::{Capture, Flow};
pub use cluster::{Cluster, ClusterPod, Etcd, Namespace, cluster_story};
pub use http::{Answer, Request, get};
pub use manifest::{PodSpec, ServiceSpec};
pub use mesh::{Mesh, story};
pub use metrics::{Metrics, Sample};
pub use pod::{Listener, Pod, enter};
pub use process::{Daemon, Output};
pub use traffic::{Load, LoadReport};
pub use wait::{eventually, within};
pub use world::{World, built_binary, sweep_all, until_interrupted};
