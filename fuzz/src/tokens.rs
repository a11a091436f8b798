//! Tokens, and the keys that prove them.

#[path = "../../agent/proxy/src/tokens/keys.rs"]
pub mod keys;
#[path = "../../agent/proxy/src/tokens/refusal.rs"]
mod refusal;
#[path = "../../agent/proxy/src/tokens/token.rs"]
mod token;

pub use refusal::Refusal;
pub use token::Token;
