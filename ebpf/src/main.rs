//! weft's kernel programs, one file for each kind of hook:
//! [`connect`] redirects what an enrolled pod's programs dial, [`establish`] tells the agent where they wanted to go,
//! [`lookup`] hands the agent what arrives for them, and [`peer_name`] keeps up appearances.
#![no_std]
#![no_main]
// Atomic addition, see `maps::Stats::add`.
#![feature(asm_experimental_arch)]

mod connect;
mod establish;
mod lookup;
mod maps;
mod peer_name;

/// The kernel lets only GPL-compatible programs call the helpers that these need.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Reads a field of a hook's context: whole, once, and as wide as it is declared, or the verifier refuses it.
macro_rules! read {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the context is valid for as long as the program runs; callers pass nothing else.
        unsafe { core::ptr::addr_of!((*$context).$($field)+).read_volatile() }
    };
}

/// Writes a field of a hook's context, as [`read`] reads it.
macro_rules! write {
    ($context:expr, $field:ident $([$index:literal])?, $value:expr) => {
        // SAFETY: as for `read`; the hook may write this field, which the verifier checks.
        unsafe { core::ptr::addr_of_mut!((*$context).$field $([$index])?).write_volatile($value) }
    };
}

pub(crate) use {read, write};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
