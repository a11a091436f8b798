//! Where objects come from: a folder of YAML, or the Kubernetes API.
//!
//! Both keep, of every object, the last version that was good, and answer what changed since they were asked the last
//! time. Objects are handed on and not kept: a large cluster's would take more memory than everything that is made of
//! them.

pub mod cluster;
mod fingerprint;
pub mod folder;

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use weft_api::finding::Finding;
use weft_rules::compile::Change;

/// What is known of the objects, and how more is learnt.
#[derive(Debug)]
pub enum Source {
    /// Standalone mode.
    Folder(Box<folder::Followed>),
    /// Cluster mode.
    Cluster(Box<cluster::Cluster>),
}

/// Something that a source heard of, on a thread of its own.
#[derive(Debug)]
pub enum News {
    /// Something happened in the folder.
    Folder(folder::watch::Seen),
    /// The API server said something, or says nothing any more.
    Cluster(cluster::News),
}

/// What is new.
#[derive(Debug, Default)]
pub struct Changes {
    /// What to tell the compiler.
    pub changes: Vec<Change>,
    /// Whether the findings, or what is waited for, may be others.
    pub reported: bool,
}

impl Source {
    /// Takes note of news.
    pub fn take(&mut self, news: News) {
        match (self, news) {
            (Self::Folder(folder), News::Folder(seen)) => folder.take(seen),
            (Self::Cluster(cluster), News::Cluster(news)) => cluster.take(news),
            // A source hears of its own kind only.
            (Self::Folder(_), News::Cluster(_)) | (Self::Cluster(_), News::Folder(_)) => {}
        }
    }

    /// Somebody waits for all that is there now.
    pub fn look_everywhere(&mut self) {
        match self {
            Self::Folder(folder) => folder.take(folder::watch::Seen::Anything),
            Self::Cluster(cluster) => cluster.catch_up(),
        }
    }

    /// What changed since the last time; `starting` until all that was there at start is in force.
    pub fn changes(&mut self, starting: bool) -> Changes {
        match self {
            Self::Folder(folder) => {
                let scan = folder.changes(starting);
                Changes { changes: scan.changes, reported: scan.reported }
            }
            Self::Cluster(cluster) => {
                let (changes, reported) = cluster.changes();
                Changes { changes, reported }
            }
        }
    }

    /// Whether objects come from a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Whether all that was there at start is known. Before that nothing of it may be put in force: what allows may be
    /// known, and what denies not.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Folder(_) => true,
            Self::Cluster(cluster) => cluster.is_complete(),
        }
    }

    /// When to ask again without being told to; `None`: never.
    pub fn next_look(&self) -> Option<Instant> {
        match self {
            Self::Folder(folder) => Some(folder.next_look()),
            Self::Cluster(_) => None,
        }
    }

    /// What stands between the newest state and its being known.
    pub fn waiting_for(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => folder.waiting_for(),
            Self::Cluster(cluster) => cluster.waiting_for(),
        }
    }

    /// From when what is in force is, where it was not learnt by this agent but kept by one before.
    pub fn kept(&self) -> Option<SystemTime> {
        match self {
            Self::Folder(_) => None,
            Self::Cluster(cluster) => cluster.kept(),
        }
    }

    /// What keeps it from hearing of changes.
    pub fn troubles(&self) -> Vec<String> {
        match self {
            Self::Folder(_) => Vec::new(),
            Self::Cluster(cluster) => cluster.troubles(),
        }
    }

    /// What is wrong: objects that were refused, and what could not be read at all.
    pub fn refused(&self) -> Vec<Finding> {
        match self {
            Self::Folder(folder) => folder.refused(),
            Self::Cluster(cluster) => cluster.refused(),
        }
    }

    /// What accepted objects ask for that weft does not do yet.
    pub fn not_in_force(&self) -> Vec<Finding> {
        match self {
            Self::Folder(folder) => folder.not_in_force(),
            Self::Cluster(cluster) => cluster.not_in_force(),
        }
    }

    /// How many objects are in force, by kind.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        match self {
            Self::Folder(folder) => folder.counts(),
            Self::Cluster(cluster) => cluster.counts(),
        }
    }
}
