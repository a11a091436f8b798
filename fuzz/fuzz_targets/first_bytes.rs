//! What a connection speaks, by its first bytes. Two bytes say where those are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [high, low, bytes @ ..] = bytes else { return };
    weft_fuzz::proxy::is_told_by_first_bytes(bytes, u16::from_be_bytes([*high, *low]).into());
});
