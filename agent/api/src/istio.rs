//! `networking.istio.io` and `security.istio.io` kinds as users write them. Source: Istio API 1.30, its generated
//! reference. All served versions share one schema. Unknown fields are refused.

mod authorization_policy;
mod destination_rule;
mod gateway;
mod peer_authentication;
mod request_authentication;
mod virtual_service;

pub use authorization_policy::*;
pub use destination_rule::*;
pub use gateway::*;
pub use peer_authentication::*;
pub use request_authentication::*;
pub use virtual_service::*;
