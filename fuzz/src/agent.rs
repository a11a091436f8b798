//! How an agent takes over from another.

pub mod handover;
