//! weft as its users meet it: real programs in network namespaces, real sockets, the built binary.
//!
//! Each story has a world of its own, which goes away with it. Run as root, after `cargo xtask build`.

mod world;
