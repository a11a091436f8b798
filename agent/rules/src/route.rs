//! What is done with requests and connections: matches, actions, and the objects that say them.

pub mod gateway;
pub mod http_route;
pub(crate) mod matching;
pub mod tcp_route;
pub(crate) mod virtual_service;
