//! Stories: objects as users write them in, decisions out.

mod arbitrary;
mod bookinfo;
mod destination_rule;
mod explained;
mod hosts;
mod incremental;
mod lists;
mod state;
mod support;
mod tcp;
mod virtual_service;
