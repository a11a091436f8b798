//! Standalone mode: a folder of YAML, read whole and followed.
//!
//! [`Folder`] is the state of the folder as far as it is known; [`Folder::scan`] brings it up to date and answers what
//! changed. Every object keeps its last good version while its file cannot be read, is half-written or is refused.
//! [`watch::Watch`] says when it is worth to look, and [`Followed`] looks.

mod claims;
mod file;
mod follow;
mod walk;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_api::finding::{Finding, Severity};
use weft_rules::compile::Change;

use self::claims::Claims;
use self::file::{File, Look};
pub use self::follow::Followed;

/// A file that was changed in place and lost objects is believed only when it has been left alone for so long:
/// it may be half-written.
const SETTLE: Duration = Duration::from_millis(25);

/// The longest that a file which somebody holds open for writing, and does not write to, is waited for.
const HELD_OPEN: Duration = Duration::from_secs(1);

/// The same for a file that would lose objects as it stands.
const HELD_OPEN_LOSING: Duration = Duration::from_secs(10);

/// Objects of these files and below are not read: editors, version control and ConfigMap volumes put theirs there.
pub(crate) fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

/// Says whether a path names a manifest by its ending.
pub(crate) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml")
}

/// Which files to look at.
#[derive(Debug, Clone)]
pub enum Extent {
    /// All of them.
    All,
    /// These; they are below the folder, and may be gone.
    Files(BTreeSet<PathBuf>),
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// What to tell the compiler.
    pub changes: Vec<Change>,
    /// Files that are being written, to be looked at again soon.
    pub busy: BTreeSet<PathBuf>,
    /// Whether the findings may have changed.
    pub reported: bool,
}

/// A folder of manifests, and what is known of it.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    files: BTreeMap<Arc<Path>, File>,
    claims: Claims,
    /// Directories that could not be listed, and why; their files stay as they were.
    unlisted: Vec<walk::Unlisted>,
    /// Kinds that were seen and ignored: one log line each.
    ignored: HashSet<String>,
    hasher: foldhash::quality::RandomState,
}

impl Folder {
    /// A folder of which nothing is known yet.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            files: BTreeMap::new(),
            claims: Claims::default(),
            unlisted: Vec::new(),
            ignored: HashSet::new(),
            hasher: foldhash::quality::RandomState::default(),
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Looks at the files and answers what changed. `writing` says who was seen to be writing to what.
    pub fn scan(&mut self, extent: &Extent, writing: &watch::Writing, now: Instant) -> Scan {
        let mut scan = Scan::default();
        let mut touched = BTreeSet::new();
        let paths: Vec<Arc<Path>> = match extent {
            Extent::All => self.list(&mut touched, &mut scan),
            Extent::Files(paths) => {
                paths.iter().filter(|path| self.is_ours(path)).map(|path| Arc::from(path.as_path())).collect()
            }
        };
        for path in paths {
            self.look(&path, writing.since(&path, now), &mut touched, &mut scan);
        }
        let resolved = self.claims.resolve(touched, true);
        scan.changes = resolved.changes;
        if !resolved.unread.is_empty() {
            let mut touched = resolved.unread;
            for path in resolved.files {
                if let Some(file) = self.files.get_mut(&path) {
                    file.stamp = None;
                }
                self.look(&path, None, &mut touched, &mut scan);
            }
            scan.changes.extend(self.claims.resolve(touched, false).changes);
        }
        scan
    }

    /// What is wrong: objects that were refused, files that could not be read, objects that are there twice.
    pub fn refused(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.unlisted.iter().map(|unlisted| unreadable(&unlisted.path, &unlisted.error)).collect();
        findings.extend(self.files.values().flat_map(|file| file.problems.iter().cloned()));
        findings.extend(self.claims.duplicates());
        findings
    }

    /// What accepted objects ask for that weft does not do yet.
    pub fn not_in_force(&self) -> Vec<Finding> {
        self.files.values().flat_map(|file| file.not_in_force.iter().cloned()).collect()
    }

    /// How many objects are in force, by kind.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.claims.counts()
    }

    fn is_ours(&self, path: &Path) -> bool {
        path.strip_prefix(&self.dir).is_ok_and(|below| !below.iter().any(is_hidden)) && is_manifest(path)
    }

    /// Lists the folder; forgets files that are gone.
    fn list(&mut self, touched: &mut claims::Touched, scan: &mut Scan) -> Vec<Arc<Path>> {
        let listing = walk::manifests(&self.dir);
        if listing.unlisted != self.unlisted {
            for unlisted in &listing.unlisted {
                tracing::warn!(path = %unlisted.path.display(), error = %unlisted.error, "cannot list; what was there stays in force");
            }
            self.unlisted = listing.unlisted;
            scan.reported = true;
        }
        let present: BTreeSet<&Path> = listing.files.iter().map(|path| &**path).collect();
        let gone: Vec<Arc<Path>> = (self.files.keys())
            .filter(|path| !present.contains(&***path))
            .filter(|path| !self.unlisted.iter().any(|unlisted| path.starts_with(&unlisted.path)))
            .cloned()
            .collect();
        for path in gone {
            self.forget(&path, touched, scan);
        }
        listing.files
    }

    fn forget(&mut self, path: &Arc<Path>, touched: &mut claims::Touched, scan: &mut Scan) {
        if let Some(file) = self.files.remove(path) {
            self.claims.remove(path, &file.keys, touched);
            scan.reported = true;
        }
    }

    fn look(
        &mut self,
        path: &Arc<Path>,
        writing: Option<Duration>,
        touched: &mut claims::Touched,
        scan: &mut Scan,
    ) {
        let known = self.files.get(path);
        match file::look(path, known, &self.hasher) {
            Look::Same => {}
            Look::Touched(stamp) => {
                if let Some(file) = self.files.get_mut(path) {
                    file.stamp = Some(stamp);
                }
            }
            Look::Gone => self.forget(path, touched, scan),
            Look::Moving => _ = scan.busy.insert(path.to_path_buf()),
            Look::Failed(error) => {
                let file = self.files.entry(path.clone()).or_default();
                if file.unread != error {
                    tracing::warn!(path = %path.display(), %error, "cannot read; what was there stays in force");
                    file.problems.retain(|finding| finding.code != file::UNREADABLE);
                    file.problems.push(unreadable(path, &error));
                    file.unread = error;
                    file.stamp = None;
                    scan.reported = true;
                }
            }
            Look::Changed { stamp, text } => {
                let name = path.display().to_string();
                let loaded = weft_api::load::load(&name, &text);
                let contents = claims::read(&loaded, &self.hasher);
                let losing = known.is_some_and(|file| {
                    loaded.unreadable.is_empty() && file.keys.iter().any(|key| !contents.contains_key(key))
                });
                if is_half_written(known, &stamp, losing, writing) {
                    scan.busy.insert(path.to_path_buf());
                    return;
                }
                for ignored in &loaded.ignored {
                    if self.ignored.insert(ignored.kind.clone()) {
                        tracing::info!(kind = %ignored.kind, file = %name, "weft has no use for this kind; ignored");
                    }
                }
                let before: Vec<_> = known.map_or_else(Vec::new, |file| file.keys.clone());
                let keys =
                    self.claims.replace(path, &before, contents, !loaded.unreadable.is_empty(), touched);
                let file = File::new(stamp, keys, &loaded);
                for finding in &file.problems {
                    tracing::warn!(resource = %finding.resource, file = %name, line = finding.line, code = %finding.code, "{}", finding.message);
                }
                self.files.insert(path.clone(), file);
                scan.reported = true;
            }
        }
    }
}

/// Decides whether what stands in the file now is to be believed. A file that was put into place by renaming is whole.
fn is_half_written(
    known: Option<&File>,
    stamp: &file::Stamp,
    losing: bool,
    writing: Option<Duration>,
) -> bool {
    let replaced = known.and_then(|file| file.stamp.as_ref()).is_some_and(|before| !before.same_inode(stamp));
    if replaced {
        return false;
    }
    match writing {
        Some(since) if losing => since < HELD_OPEN_LOSING,
        Some(since) => since < HELD_OPEN,
        None => losing && stamp.age() < SETTLE,
    }
}

fn unreadable(path: &Path, error: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        code: file::UNREADABLE.to_owned(),
        resource: String::new(),
        path: String::new(),
        message: format!("cannot be read: {error} (what was read from it before stays in force)"),
        file: Some(path.display().to_string()),
        line: None,
    }
}

#[cfg(test)]
mod tests;
