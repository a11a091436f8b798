//! One manifest file: whether it changed, and what it holds.

use std::fs;
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weft_api::finding::{Finding, Severity, code};
use weft_api::load::Loaded;
use weft_api::meta::ObjectKey;

/// Larger files are refused: no manifest is that large, and reading one would cost the node its memory.
const MAX_BYTES: u64 = 128 << 20;

/// A file that was written so shortly before it was read may be written again without a visible change of its times:
/// it is read once more.
const TICK: Duration = Duration::from_millis(50);

/// Code of the finding for a file that cannot be read.
pub const UNREADABLE: &str = "Unreadable";

/// What tells one version of a file from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: SystemTime,
    changed: (i64, i64),
    hash: u64,
    /// The times may hide a change that came after.
    racy: bool,
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let racy = modified.elapsed().map_or(true, |age| age < TICK);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            modified,
            changed: (meta.ctime(), meta.ctime_nsec()),
            hash: 0,
            racy,
        }
    }

    fn same_times(&self, other: &Self) -> bool {
        (self.device, self.inode, self.len, self.modified, self.changed)
            == (other.device, other.inode, other.len, other.modified, other.changed)
    }

    /// Whether it is the same file, rather than another that took its name.
    pub fn same_inode(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// How long ago it was written; zero for a time in the future.
    pub fn age(&self) -> Duration {
        self.modified.elapsed().unwrap_or_default()
    }
}

/// What is known of a file.
#[derive(Debug, Default)]
pub struct File {
    /// The version that was read; `None` before the first.
    pub stamp: Option<Stamp>,
    /// Objects that it speaks of, accepted or not.
    pub keys: Vec<Arc<ObjectKey>>,
    /// Why it could not be read the last time; empty if it could.
    pub unread: String,
    /// Errors.
    pub problems: Vec<Finding>,
    /// What accepted objects ask for that weft does not do yet.
    pub not_in_force: Vec<Finding>,
}

impl File {
    /// A file that was read.
    pub fn new(stamp: Stamp, keys: Vec<Arc<ObjectKey>>, loaded: &Loaded) -> Self {
        let (problems, rest): (Vec<_>, Vec<_>) =
            loaded.findings().into_iter().partition(|finding| finding.severity == Severity::Error);
        let not_in_force = rest.into_iter().filter(|finding| finding.code == code::NOT_IN_FORCE).collect();
        Self { stamp: Some(stamp), keys, unread: String::new(), problems, not_in_force }
    }
}

/// What a look at a file shows.
#[derive(Debug)]
pub enum Look {
    /// Nothing new.
    Same,
    /// Written again with the same contents.
    Touched(Stamp),
    /// New contents.
    Changed {
        /// The version.
        stamp: Stamp,
        /// Its text.
        text: String,
    },
    /// It changed while it was read.
    Moving,
    /// It is no longer there, or no longer a file.
    Gone,
    /// It cannot be read.
    Failed(String),
}

/// Looks at a file; reads it only if something about it is new.
pub fn look(path: &Path, known: Option<&File>, hasher: &impl BuildHasher) -> Look {
    match try_look(path, known.and_then(|file| file.stamp.as_ref()), hasher) {
        Ok(look) => look,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Look::Gone
        }
        Err(error) => Look::Failed(error.to_string()),
    }
}

fn try_look(path: &Path, known: Option<&Stamp>, hasher: &impl BuildHasher) -> io::Result<Look> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() {
        return Ok(Look::Gone);
    }
    if known.is_some_and(|known| !known.racy && known.same_times(&Stamp::of(&meta))) {
        return Ok(Look::Same);
    }
    // Non-blocking, lest a pipe that took the file's name holds everything up.
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let mut stamp = Stamp::of(&file.metadata()?);
    if stamp.len > MAX_BYTES {
        return Err(io::Error::other(format!(
            "{} MiB are more than the {} MiB that a manifest may have",
            stamp.len >> 20,
            MAX_BYTES >> 20
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(stamp.len).unwrap_or(0) + 1);
    (&mut file).take(MAX_BYTES).read_to_end(&mut bytes)?;
    if !stamp.same_times(&Stamp::of(&file.metadata()?)) {
        return Ok(Look::Moving);
    }
    stamp.hash = hasher.hash_one(&bytes);
    if known.is_some_and(|known| known.hash == stamp.hash && known.len == stamp.len) {
        return Ok(Look::Touched(stamp));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        io::Error::other(format!("line {} is not UTF-8", 1 + good.matches('\n').count()))
    })?;
    Ok(Look::Changed { stamp, text })
}
