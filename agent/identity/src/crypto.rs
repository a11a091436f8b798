//! The cryptography of all that a process of weft does: one provider, which the build chooses. With feature `fips` that is AWS-LC's
//! module for FIPS 140-3, with approved cipher suites and key exchanges alone.

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// A build for FIPS that is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "weft was built to use FIPS-approved cryptography alone (feature fips), and its module is not in that mode on this machine"
)]
pub struct NotApproved;

/// What TLS is made of.
pub fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// Whether all of it is FIPS-approved.
pub fn is_fips() -> bool {
    provider().fips()
}

/// Makes it the process's, for libraries that ask for one: before anything else.
///
/// # Errors
/// It is not what the build promises.
pub fn install() -> Result<(), NotApproved> {
    // There is one already: it is the same.
    let _ = provider().install_default();
    let installed = CryptoProvider::get_default().is_some_and(|provider| provider.fips());
    if installed || !cfg!(feature = "fips") { Ok(()) } else { Err(NotApproved) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_uses_what_the_build_promises() {
        install().unwrap();
        assert_eq!(is_fips(), cfg!(feature = "fips"));
    }
}
