//! Stories: objects as users write them in, decisions out.

mod bookinfo;
mod support;
