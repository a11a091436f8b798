//! weft on a real Kubernetes, as its users have it: two nodes, kubelets, pods, `kubectl`.
//!
//! Run by `cargo xtask test --cluster`, one after the other in the order of their names, since they share the cluster:
//! modules begin with a number.

mod s00_cluster;
