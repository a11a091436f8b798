//! Pods that start: a plugin at the end of the node's CNI chain tells the agent of each before any program of it runs, so
//! that its first packet is in the mesh.
//!
//! - [`plugin`] is what the container runtime runs (`weft-cni`, the binary `weft` under another name);
//! - [`protocol`] is what it says to the agent, over `RUNDIR/cni.sock`;
//! - [`server`] takes that to the control thread;
//! - [`chain`] is where the plugin is entered: the configuration that is in force on the node;
//! - [`install`] keeps it there, and takes it out;
//! - [`kept`] is what the plugin decides by when no agent answers: then pods of the mesh start closed.

mod call;
mod chain;
pub mod install;
pub mod kept;
pub mod plugin;
pub mod protocol;
pub mod server;

/// Name of the plugin, and of its file.
pub const PLUGIN: &str = "weft-cni";

/// Where the agent hears of pods, in its run directory.
pub const SOCKET: &str = "cni.sock";
