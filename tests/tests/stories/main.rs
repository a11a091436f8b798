//! weft as its users meet it: real programs in network namespaces, real sockets, the built binary.
//!
//! Each story has a world of its own, which goes away with it. Run as root, after `cargo xtask build`.

mod actions;
mod attacks;
mod attacks_announced;
mod attacks_floods;
mod attacks_http;
mod attacks_plaintext;
mod attacks_pod;
mod attacks_tunnel;
mod bookinfo;
mod capture;
mod certificates;
mod closed;
mod cni;
mod deploy;
mod discovery;
mod dry_runs;
mod endurance;
mod enrol;
mod ext_authz;
mod forge;
mod ftgo;
mod gateways;
mod hbone;
mod headers;
mod hostile;
mod http1;
mod http2;
mod lifecycle;
mod matching;
mod node_ports;
mod probes;
mod registry;
mod request_authorization;
mod security_seeing;
mod seeing;
mod shop;
mod tcp;
mod tokens;
mod tunnel;
mod tunnel_policy;
mod tunnel_ztunnel;
mod two_nodes;
mod upgrade;
mod world;
