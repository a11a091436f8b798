//! Says when it is worth to look at the folder, by inotify.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RemoveKind};
use notify::{RecursiveMode, Watcher};

use super::Extent;

/// Something that happened in the folder.
#[derive(Debug)]
pub enum Seen {
    /// A file may be new, other or gone, and nobody is known to write to it.
    Settled(PathBuf),
    /// Somebody writes to a file, or has made it and is about to.
    Writing(PathBuf),
    /// A file's attributes changed; its writer, if it has one, is still there.
    Attributes(PathBuf),
    /// Anything may have happened.
    Anything,
}

/// A watch on a folder and all below it. Ends when it drops.
#[derive(Debug)]
pub struct Watch {
    _watcher: notify::RecommendedWatcher,
    /// The folder that is watched, which may be another than the one that has its name now.
    identity: (u64, u64),
}

fn identity(dir: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(dir).map(|meta| (meta.dev(), meta.ino()))
}

impl Watch {
    /// Begins to watch. `report` is called on a thread of the watch's own.
    pub fn start(dir: &Path, report: impl Fn(Seen) + Send + 'static) -> notify::Result<Self> {
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
                Ok(event) => classify(event, &report),
                Err(_) => report(Seen::Anything),
            })?;
        let identity = identity(dir).map_err(notify::Error::io)?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher, identity })
    }

    /// Whether the folder that is watched is still the one of that name.
    pub fn stands(&self, dir: &Path) -> bool {
        identity(dir).is_ok_and(|now| now == self.identity)
    }
}

fn classify(event: notify::Event, report: &impl Fn(Seen)) {
    if event.need_rescan() {
        return report(Seen::Anything);
    }
    let seen: fn(PathBuf) -> Seen = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Seen::Settled,
        EventKind::Modify(ModifyKind::Data(_)) => Seen::Writing,
        EventKind::Modify(ModifyKind::Metadata(_)) => Seen::Attributes,
        // A new link is whole from the start; a new file is still to be written.
        EventKind::Create(_) if !event.paths.iter().all(|path| is_link(path)) => Seen::Writing,
        // Reading is no news, least of all our own.
        EventKind::Access(_) => return,
        EventKind::Remove(RemoveKind::Folder) | EventKind::Other | EventKind::Any => |_| Seen::Anything,
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) => Seen::Settled,
    };
    for path in event.paths {
        let hidden = path.file_name().is_some_and(super::is_hidden);
        if super::is_manifest(&path) && !hidden {
            report(seen(path));
        } else if !matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_))) {
            // A folder; or, as in a ConfigMap volume, a hidden link through which all files are reached.
            report(Seen::Anything);
        }
    }
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink() || meta.nlink() > 1)
}

/// Who was seen to be writing, and has not closed the file yet.
#[derive(Debug, Default)]
pub struct Writing {
    files: HashMap<PathBuf, Instant>,
}

impl Writing {
    /// How long ago somebody who still holds this file open wrote to it.
    pub fn since(&self, path: &Path, now: Instant) -> Option<Duration> {
        self.files.get(path).map(|at| now.saturating_duration_since(*at))
    }
}

/// What was seen since the last scan.
#[derive(Debug, Default)]
pub struct News {
    /// Who is writing.
    pub writing: Writing,
    files: BTreeSet<PathBuf>,
    anything: bool,
}

impl News {
    /// Takes note.
    pub fn add(&mut self, seen: Seen, now: Instant) {
        match seen {
            Seen::Settled(path) => {
                self.writing.files.remove(&path);
                self.files.insert(path);
            }
            Seen::Writing(path) => {
                self.writing.files.insert(path.clone(), now);
                self.files.insert(path);
            }
            Seen::Attributes(path) => _ = self.files.insert(path),
            Seen::Anything => self.anything = true,
        }
    }

    /// Files that have to be looked at again.
    pub fn again(&mut self, files: BTreeSet<PathBuf>) {
        self.files.extend(files);
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.anything
    }

    /// What to look at; forgets it.
    pub fn take(&mut self) -> Extent {
        let files = std::mem::take(&mut self.files);
        if std::mem::take(&mut self.anything) { Extent::All } else { Extent::Files(files) }
    }

    /// Forgets writers of long ago, who may be gone with their files.
    pub fn tidy(&mut self, now: Instant) {
        let limit = super::HELD_OPEN_LOSING * 2;
        self.writing.files.retain(|_, at| now.saturating_duration_since(*at) < limit);
    }
}
