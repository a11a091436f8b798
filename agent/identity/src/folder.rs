//! The embedded CA's folder, laid out as Istio's `cacerts`: `ca-key.pem` signs, `ca-cert.pem` is its certificate,
//! `cert-chain.pem` what stands between that and a root, `root-cert.pem` every root that is trusted. Made by the first
//! agent that finds it empty; shared by several; looked at again while they run.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::KeyPair;
use rustix::fs::{FlockOperation, flock};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Issued;
use super::authority::{self, Authority, AuthorityError, Parts};
use super::request::Request;
use super::succession::Succession;

const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";
/// Where revocation lists are, as Istio has it; nothing here reads it.
pub const REVOCATIONS: &str = "ca-crl.pem";

/// Why a folder is no CA.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file system says no.
    #[error("cannot use {path} for the CA: {why}")]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// Some files of a CA are there, and this one is not.
    #[error("{path} is missing: put it back, or remove the folder's other files to have a new root made")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The key is no secret.
    #[error(
        "others than its owner may read {path} (mode {mode:04o}): chmod 600 {path} (of a mounted Secret: defaultMode 0400)"
    )]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Cut off, or something else.
    #[error(
        "{path} holds no {what} in PEM: put a copy of it back, or remove the folder's files to have a new root made"
    )]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What belongs there.
        what: &'static str,
    },
    /// The files do not make a CA together.
    #[error(
        "the CA in {dir} does not work: {why}; put its files right, or remove them to have a new root made"
    )]
    Broken {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        why: Box<AuthorityError>,
    },
}

/// The CA that a folder holds.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    trust_domain: Arc<str>,
    stamp: Stamp,
    signs: Succession,
}

/// Tells a changed file from the same one: device, inode, size, time of change.
pub(super) type FileStamp = (u64, u64, u64, i64, i64);

type Stamp = [Option<FileStamp>; 4];

impl Folder {
    /// Reads the CA in `dir`, which is made if it is not there.
    pub fn open(dir: &Path, trust_domain: Arc<str>, now: SystemTime) -> Result<Self, FolderError> {
        let unusable = |why| FolderError::Unusable { path: dir.to_owned(), why };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
        let lock = File::open(dir).map_err(unusable)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| unusable(error.into()))?;
        if [KEY, CERTIFICATE, ROOTS].iter().all(|name| !dir.join(name).exists()) {
            make(dir, &lock, &trust_domain, now)?;
        }
        let stamp = stamp(dir);
        let authority = read(dir, &trust_domain, now)?;
        Ok(Self { dir: dir.to_owned(), trust_domain, stamp, signs: Succession::new(authority) })
    }

    /// Reads the files again if they have changed. True: they have. After an error, what was read last stays in force.
    pub fn look(&mut self, now: SystemTime) -> Result<bool, FolderError> {
        let stamp = stamp(&self.dir);
        if stamp == self.stamp {
            return Ok(false);
        }
        let authority = read(&self.dir, &self.trust_domain, now)?;
        self.stamp = stamp;
        self.signs.take(authority, Instant::now());
        Ok(true)
    }

    /// Lets a new signing key take over when it is time. True: it has.
    pub fn settle(&mut self, now: Instant) -> bool {
        self.signs.settle(now)
    }

    /// What the folder names as trusted.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        self.signs.roots()
    }

    /// Signs.
    pub fn issue(
        &self,
        request: &Request,
        life: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let signer = self.signs.signer();
        let chain = signer.sign(request.csr(), request.identity(), &self.trust_domain, life, now)?;
        Ok(Issued { chain, roots: self.roots().to_vec() })
    }
}

fn stamp(dir: &Path) -> Stamp {
    [KEY, CERTIFICATE, CHAIN, ROOTS].map(|name| stamp_of(&dir.join(name)))
}

/// `None`: the file is not there.
pub(super) fn stamp_of(path: &Path) -> Option<FileStamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}

fn read(dir: &Path, trust_domain: &str, now: SystemTime) -> Result<Authority, FolderError> {
    let path = dir.join(KEY);
    let mode = fs::metadata(&path).map(|meta| meta.mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        return Err(FolderError::Exposed { path, mode });
    }
    let key = required(&path)?;
    let key = std::str::from_utf8(&key).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
    let key = key.ok_or(FolderError::NotPem { path, what: "private key" })?;

    let path = dir.join(CERTIFICATE);
    let mut own = certificates(&path, &required(&path)?)?.into_iter();
    let Some(certificate) = own.next() else {
        return Err(FolderError::NotPem { path, what: "certificate" });
    };
    let mut chain: Vec<_> = own.collect();
    let path = dir.join(CHAIN);
    if let Some(pem) = optional(&path)? {
        chain.extend(certificates(&path, &pem)?);
    }
    let path = dir.join(ROOTS);
    let roots = certificates(&path, &required(&path)?)?;
    if roots.is_empty() {
        return Err(FolderError::NotPem { path, what: "certificate" });
    }
    Authority::new(Parts { key, certificate, chain, roots }, trust_domain, now)
        .map_err(|why| FolderError::Broken { dir: dir.to_owned(), why: Box::new(why) })
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    match fs::read(path) {
        Ok(pem) => Ok(Some(pem)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(FolderError::Unusable { path: path.to_owned(), why }),
    }
}

fn required(path: &Path) -> Result<Vec<u8>, FolderError> {
    optional(path)?.ok_or_else(|| FolderError::Missing { path: path.to_owned() })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FolderError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| FolderError::NotPem { path: path.to_owned(), what: "certificate" })
}

/// Makes a root; the caller holds the folder's lock. The key comes first and the signing certificate last: what a crash
/// leaves behind is never taken for a whole CA.
fn make(dir: &Path, lock: &File, trust_domain: &str, now: SystemTime) -> Result<(), FolderError> {
    let (key, certificate) = authority::new_root(trust_domain, now)
        .map_err(|error| FolderError::Broken { dir: dir.to_owned(), why: Box::new(error.into()) })?;
    let pem = certificate.pem();
    put(&dir.join(KEY), 0o600, &key.serialize_pem())?;
    put(&dir.join(ROOTS), 0o644, &pem)?;
    put(&dir.join(CHAIN), 0o644, &pem)?;
    put(&dir.join(CERTIFICATE), 0o644, &pem)?;
    lock.sync_all().map_err(|why| FolderError::Unusable { path: dir.to_owned(), why })?;
    tracing::info!(dir = %dir.display(), "made a root for this mesh; agents that share the folder share the mesh");
    Ok(())
}

/// Writes a file whole or not at all.
fn put(path: &Path, mode: u32, text: &str) -> Result<(), FolderError> {
    weft_files::write_durably(path, mode, text.as_bytes())
        .map_err(|why| FolderError::Unusable { path: path.to_owned(), why })
}
