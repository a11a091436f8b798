//! Looks at the folder whenever there is a reason to: something was seen, or it is time to make sure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_api::finding::Finding;

use super::watch::{News, Seen, Watch};
use super::{Folder, Scan};

/// How often a file that is being written is looked at again.
const BUSY_RETRY: Duration = Duration::from_millis(15);
/// How often all files are looked at without being told to, in case the watch missed something.
const CHECK: Duration = Duration::from_secs(5);
/// The same where there is no watch.
const CHECK_UNWATCHED: Duration = Duration::from_millis(500);

/// A folder that is followed.
pub struct Followed {
    folder: Folder,
    watch: Option<Watch>,
    news: News,
    /// Files that are being written.
    busy: BTreeSet<PathBuf>,
    checked: Instant,
    report: Arc<dyn Fn(Seen) + Send + Sync>,
}

impl Followed {
    /// Begins with a folder of which nothing is known. `report` is called, on a thread of the watch's own, with what
    /// [`Self::take`] should be told.
    pub fn new(dir: PathBuf, report: impl Fn(Seen) + Send + Sync + 'static) -> Self {
        let mut news = News::default();
        let now = Instant::now();
        news.add(Seen::Anything, now);
        Self {
            folder: Folder::new(dir),
            watch: None,
            news,
            busy: BTreeSet::new(),
            checked: now,
            report: Arc::new(report),
        }
    }

    /// Takes note of what the watch saw.
    pub fn take(&mut self, seen: Seen) {
        self.news.add(seen, Instant::now());
    }

    /// Looks where there is news, everywhere if it is time or the agent is starting; answers what changed.
    pub fn changes(&mut self, starting: bool) -> Scan {
        let now = Instant::now();
        if starting || self.check_due() <= now {
            self.checked = now;
            self.news.add(Seen::Anything, now);
            self.news.tidy(now);
            self.watch(starting);
        }
        self.news.again(std::mem::take(&mut self.busy));
        if self.news.is_empty() {
            return Scan::default();
        }
        let extent = self.news.take();
        let mut scan = self.folder.scan(&extent, &self.news.writing, now);
        self.busy = std::mem::take(&mut scan.busy);
        scan
    }

    /// When to ask for changes again.
    pub fn next_look(&self) -> Instant {
        let check = self.check_due();
        if self.busy.is_empty() { check } else { check.min(Instant::now() + BUSY_RETRY) }
    }

    /// Files that are not read because they are being written.
    pub fn waiting_for(&self) -> Vec<String> {
        self.busy.iter().map(|path| format!("file {} is being written", path.display())).collect()
    }

    /// What is wrong.
    pub fn refused(&self) -> Vec<Finding> {
        self.folder.refused()
    }

    /// What accepted objects ask for that weft does not do yet.
    pub fn not_in_force(&self) -> Vec<Finding> {
        self.folder.not_in_force()
    }

    /// How many objects are in force, by kind.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.folder.counts()
    }

    fn check_due(&self) -> Instant {
        self.checked + if self.watch.is_some() { CHECK } else { CHECK_UNWATCHED }
    }

    /// Sees to it that the folder is watched; without a watch it is looked at now and then.
    fn watch(&mut self, starting: bool) {
        if self.watch.as_ref().is_some_and(|watch| watch.stands(self.folder.dir())) {
            return;
        }
        let report = self.report.clone();
        match Watch::start(self.folder.dir(), move |seen| report(seen)) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                if self.watch.take().is_some() || starting {
                    tracing::warn!(dir = %self.folder.dir().display(), %error, "cannot watch; looking every {CHECK_UNWATCHED:?}");
                }
            }
        }
    }
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("folder", &self.folder.dir()).finish_non_exhaustive()
    }
}
