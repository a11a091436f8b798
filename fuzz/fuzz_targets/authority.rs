//! Whom a tunnel is for: whatever is asked, it leads to the pod that it arrived at.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;

#[path = "../../agent/node/src/proxy/authority.rs"]
mod authority;

/// The module knows the tunnels' port as its neighbour's.
mod tunnels {
    pub const PORT: u16 = 15008;
}

fuzz_target!(|text: &str| {
    let addresses: [IpAddr; 2] = ["10.0.0.7".parse().expect("v4"), "fd00::7".parse().expect("v6")];
    if let Some(to) = authority::destination(text, &addresses) {
        assert!(addresses.contains(&to.ip()) && ![0, tunnels::PORT, 15001, 15006].contains(&to.port()), "{to}");
    }
});
