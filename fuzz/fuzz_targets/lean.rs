//! Frames of `weft/1`: read the same however they are cut, and written as they are read. The first byte says how they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::proxy;

fuzz_target!(|bytes: &[u8]| {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    proxy::listens(bytes, piece.into());
    proxy::carries(bytes, piece.into());
});
