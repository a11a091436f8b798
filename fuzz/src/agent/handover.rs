//! What two agents say to each other, and what becomes of it.

#[path = "../../../agent/node/src/agent/handover/estate.rs"]
pub mod estate;
#[path = "../../../agent/node/src/agent/handover/wire.rs"]
pub mod wire;
