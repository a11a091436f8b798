//! Tokens, and the keys that prove them.

#[path = "../../agent/node/src/tokens/keys.rs"]
pub mod keys;
#[path = "../../agent/node/src/tokens/refusal.rs"]
mod refusal;
#[path = "../../agent/node/src/tokens/token.rs"]
mod token;

pub use refusal::Refusal;
pub use token::Token;
