//! Tokens: what one says ([`token`]), the keys that prove it ([`keys`]), and where the keys come from ([`keyring`],
//! [`fetch`], [`reach`]). Which of a workload's rules a token is for, and what becomes of a request, is `proxy::http::authenticate`.

mod fetch;
mod keyring;
mod keys;
mod reach;
mod refusal;
#[cfg(test)]
pub(crate) mod test_keys;
mod token;

pub use keyring::{Fetcher, Keyring};
pub use refusal::Refusal;
pub use token::Token;
