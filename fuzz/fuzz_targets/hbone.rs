//! The heads of tunnels, as HTTP/2 brings them to port 15008.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frames: &[u8]| weft_fuzz::proxy::tunnels(frames));
