//! `networking.istio.io` kinds as users write them. Source: Istio API 1.30, the generated reference of
//! VirtualService and DestinationRule. All served versions share one schema. Unknown fields are refused.

mod destination_rule;
mod virtual_service;

pub use destination_rule::*;
pub use virtual_service::*;
