//! Stories: objects as users write them in, decisions out.

mod arbitrary;
mod authorization;
mod bookinfo;
mod delegates;
mod destination_rule;
mod explained;
mod explained_names;
mod gateways;
mod headless;
mod hosts;
mod incremental;
mod lists;
mod peer_authentication;
mod registry;
mod request_authentication;
mod state;
mod support;
mod tcp;
mod tls;
mod virtual_service;
