//! Certificates that the CA has taken back before their end: its lists (CRLs, RFC 5280, section 5) in a file of PEM, which
//! is looked at again while the agent runs.
//!
//! A list counts for the certificates of the issuer that signed it (whose keyUsage must have cRLSign), for as long as the file
//! holds it: one past its `nextUpdate` still revokes. What no list names is good.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use super::folder::{FileStamp, stamp_of};

/// Lists of what is good no more.
pub type Lists = Vec<CertRevocationList<'static>>;

/// Why a file of lists does not count; what was read last stays in force.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Not ours to read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// Something else.
    #[error("{path} holds no certificate revocation list in PEM (BEGIN X509 CRL)")]
    NotPem {
        /// The file.
        path: PathBuf,
    },
    /// One of them is broken.
    #[error("a revocation list in {path} cannot be read: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What webpki says.
        why: webpki::Error,
    },
}

/// A file of lists.
#[derive(Debug)]
pub struct RevocationFile {
    path: PathBuf,
    stamp: Option<FileStamp>,
}

impl RevocationFile {
    /// Nothing has been read yet; the file need not be there.
    pub fn new(path: PathBuf) -> Self {
        Self { path, stamp: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, if it has changed. A file that goes takes nothing back; one that is empty does.
    pub fn look(&mut self) -> Result<Option<Lists>, RevocationError> {
        let stamp = stamp_of(&self.path);
        if stamp.is_none() || stamp == self.stamp {
            return Ok(None);
        }
        self.stamp = stamp;
        let path = || self.path.clone();
        let pem =
            std::fs::read(&self.path).map_err(|why| RevocationError::Unreadable { path: path(), why })?;
        let ders: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| RevocationError::NotPem { path: path() })?;
        if ders.is_empty() && !pem.trim_ascii().is_empty() {
            return Err(RevocationError::NotPem { path: path() });
        }
        let lists = ders.iter().map(|der| OwnedCertRevocationList::from_der(der).map(Into::into));
        lists.collect::<Result<_, _>>().map(Some).map_err(|why| RevocationError::Broken { path: path(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_file_that_is_no_list_is_told_and_read_once() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("ca-crl.pem");
        let mut file = RevocationFile::new(path.clone());
        assert!(matches!(file.look(), Ok(None)), "it need not be there");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(file.look(), Ok(Some(lists)) if lists.is_empty()), "an empty one revokes nothing");
        std::fs::write(&path, "not a list").unwrap();
        assert!(matches!(file.look(), Err(RevocationError::NotPem { .. })));
        assert!(matches!(file.look(), Ok(None)), "said once");
        std::fs::write(&path, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
        assert!(matches!(file.look(), Err(RevocationError::Broken { .. })));
    }
}
