//! Tells one version of an object from another without keeping either.

use std::hash::{BuildHasher, Hasher};
use std::io::Write;

use weft_api::kinds::Kind;
use weft_api::object::Object;

/// What tells a version from another: of the fields that weft reads, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// The object's kind.
    pub kind: Kind,
    hash: u64,
}

/// Hashes what is written to it.
struct HashWriter<H>(H);

impl<H: Hasher> Write for HashWriter<H> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Fingerprint {
    /// Of an object, by a hasher that is the same for all that is compared.
    pub fn of(object: &Object, hasher: &impl BuildHasher) -> Self {
        let mut writer = HashWriter(hasher.build_hasher());
        // Neither hashing nor writing these types as JSON fails.
        let _ = object.write_json(&mut writer);
        Self { kind: object.kind(), hash: writer.0.finish() }
    }
}

/// An object as JSON, as far as weft reads it.
pub fn json(object: &Object) -> String {
    let mut bytes = Vec::new();
    // As above.
    let _ = object.write_json(&mut bytes);
    String::from_utf8(bytes).unwrap_or_default()
}
