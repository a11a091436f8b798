//! Parsers of `agent/node`, built without the rest of it: what they need of the kernel, of TLS and of the Kubernetes API is
//! nothing. Each module stands where it stands there, and next to it what must hold of whatever it reads.
#![allow(dead_code)]

pub mod agent;
pub mod cni;
pub mod datapath;
pub mod limits;
pub mod proxy;
pub mod tokens;
