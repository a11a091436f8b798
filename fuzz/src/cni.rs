//! What container runtimes say to the plugin, and the plugin to the agent.

#[path = "../../agent/node/src/cni/call.rs"]
pub mod call;
#[path = "../../agent/node/src/cni/protocol.rs"]
pub mod protocol;
