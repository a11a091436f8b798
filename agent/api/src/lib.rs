//! Objects as users write them, what is wrong with them, and the admin API's types. No I/O.
//!
//! [`object::Object`] is every kind that weft reads; [`finding::Finding`] is what `weft analyze`, the admission
//! webhook and `weft status` say about one of them.
pub mod duration;
pub mod finding;
pub mod istio;
pub mod kubernetes;
pub mod meta;
pub mod object;
