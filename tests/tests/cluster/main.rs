//! weft on a real Kubernetes, as its users have it: two nodes, kubelets, pods, `kubectl`.
//!
//! Run by `cargo xtask test --cluster`, one after the other in the order of their names, since they share the cluster:
//! modules begin with a number.

mod agent;
mod apps;
mod mesh;
mod s00_cluster;
mod s10_install;
mod s11_registry;
mod s20_shop;
mod s30_bookinfo;
mod s40_ftgo;
mod s50_gateway;
mod s52_https;
mod s60_agents;
mod s62_parts;
mod s66_reboot;
mod s68_lists;
mod s70_scale;
mod s80_arrivals;
mod s98_dead_agents;
mod s99_uninstall;
