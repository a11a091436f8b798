//! Writes the file, on a thread of its own: nothing waits for a disk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};

use super::{Place, header, hex};

/// The file is written so often at the most, when something has changed.
const PAUSE: Duration = Duration::from_secs(10);
/// Unless so much waits to be written, in bytes.
const MUCH: usize = 1024 * 1024;
/// The server was heard: what is known is of now.
const HEARD: Duration = Duration::from_secs(30);
/// A file is written anew when it is larger than twice what counts in it, and this.
const SLACK: u64 = 4 * 1024 * 1024;

/// What is told to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    wake: Condvar,
    hasher: foldhash::quality::RandomState,
}

#[derive(Debug, Default)]
struct Told {
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// Watches whose first lists are not complete.
    incomplete: usize,
    /// Nobody writes any more.
    over: bool,
}

/// A line that is to be written.
#[derive(Debug)]
struct Line {
    /// Hash of watch and name.
    id: u64,
    length: usize,
    /// Where the object's text begins in it, and how long that is; `None`: it is no more.
    text: Option<(usize, u32)>,
}

impl Journal {
    /// Starts to write for so many watches. `silence` says how long the server was not heard.
    pub fn start(
        path: PathBuf,
        node: &str,
        watches: usize,
        silence: impl Fn() -> Duration + Send + 'static,
    ) -> io::Result<Self> {
        let told = Told { incomplete: watches, ..Told::default() };
        let shared = Arc::new(Shared {
            told: Mutex::new(told),
            wake: Condvar::new(),
            hasher: foldhash::quality::RandomState::default(),
        });
        let writer = Writer::begin(path, node)?;
        let listening = Arc::clone(&shared);
        std::thread::Builder::new().name("weft-kept".to_owned()).spawn(move || {
            let path = writer.path.clone();
            if let Err(error) = write_on(writer, &listening, silence) {
                tracing::warn!(file = %path.display(), %error, "what is known is not kept any more");
                // What it holds would be older and older.
                let _ = fs::remove_file(&path);
            }
            let mut told = listening.told();
            *told = Told { over: true, ..Told::default() };
        })?;
        Ok(Self { shared })
    }

    /// An object as it is now.
    pub fn put(&self, watch: &str, name: &str, text: &str) {
        // Lines end where they end: JSON on the wire has no line feeds, unless somebody likes it so.
        let text = text.replace('\n', " ");
        let line = format!("+{watch}\t{name}\t{text}\n");
        let begins = line.len() - 1 - text.len();
        self.tell(watch, name, &line, Some((begins, text.len() as u32)));
    }

    /// An object that is no more.
    pub fn gone(&self, watch: &str, name: &str) {
        self.tell(watch, name, &format!("-{watch}\t{name}\n"), None);
    }

    /// The first list of one more watch is complete.
    pub fn listed(&self) {
        let mut told = self.shared.told();
        told.incomplete = told.incomplete.saturating_sub(1);
        self.shared.wake.notify_one();
    }

    fn tell(&self, watch: &str, name: &str, line: &str, text: Option<(usize, u32)>) {
        let id = self.shared.hasher.hash_one((watch, name));
        let mut told = self.shared.told();
        if told.over {
            return;
        }
        told.bytes.extend_from_slice(line.as_bytes());
        told.lines.push(Line { id, length: line.len(), text });
        if told.bytes.len() > MUCH {
            self.shared.wake.notify_one();
        }
    }
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is much, or some for long enough; answers what there is, and whether all first lists are in it.
    fn next(&self, last: Instant, listed: bool) -> (Told, bool) {
        let mut told = self.told();
        loop {
            let waited = last.elapsed();
            let complete = told.incomplete == 0;
            if told.bytes.len() > MUCH || waited >= PAUSE || (complete && !listed) {
                let incomplete = told.incomplete;
                return (std::mem::replace(&mut *told, Told { incomplete, ..Told::default() }), complete);
            }
            told = self
                .wake
                .wait_timeout(told, PAUSE.saturating_sub(waited))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn write_on(mut writer: Writer, shared: &Shared, silence: impl Fn() -> Duration) -> io::Result<()> {
    let (mut last, mut listed) = (Instant::now(), false);
    loop {
        let (told, complete) = shared.next(last, listed);
        last = Instant::now();
        if listed && !writer.is_in_place() {
            // Another agent's: this one has been followed, or is told to leave nothing.
            return Ok(());
        }
        writer.append(&told)?;
        if complete {
            writer.finish()?;
            if !listed {
                writer.put_in_place()?;
                listed = true;
            }
            if writer.is_mostly_past() {
                writer.write_anew()?;
            }
            if silence() < HEARD {
                writer.file.set_modified(SystemTime::now())?;
            }
        }
    }
}

/// The file that is being written: a draft until it may be read.
struct Writer {
    path: PathBuf,
    draft: PathBuf,
    node: String,
    file: File,
    length: u64,
    /// Where the objects are, by a hash of watch and name.
    places: HashMap<u64, Place>,
    digest: Context,
    /// Something was written since the last good place.
    open: bool,
}

impl Writer {
    fn begin(path: PathBuf, node: &str) -> io::Result<Self> {
        let draft = weft_files::draft(&path);
        let file = weft_files::begin(&draft)?;
        let mut writer = Self {
            path,
            draft,
            node: node.to_owned(),
            file,
            length: 0,
            places: HashMap::new(),
            digest: Context::new(&SHA256),
            open: false,
        };
        writer.write(header(node).as_bytes())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        self.open = true;
        Ok(())
    }

    fn append(&mut self, told: &Told) -> io::Result<()> {
        if told.bytes.is_empty() {
            return Ok(());
        }
        let mut at = self.length;
        self.write(&told.bytes)?;
        for Line { id, length: whole, text } in &told.lines {
            match text {
                Some((begins, length)) => {
                    let place = Place { at: at + *begins as u64, length: *length };
                    self.places.insert(*id, place);
                }
                None => _ = self.places.remove(id),
            }
            at += *whole as u64;
        }
        Ok(())
    }

    /// Says that all up to here is good.
    fn finish(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.open) {
            let digest = std::mem::replace(&mut self.digest, Context::new(&SHA256)).finish();
            let line = format!("={}\n", hex(digest.as_ref()));
            self.file.write_all(line.as_bytes())?;
            self.length += line.len() as u64;
        }
        Ok(())
    }

    fn put_in_place(&self) -> io::Result<()> {
        fs::rename(&self.draft, &self.path)
    }

    fn is_in_place(&self) -> bool {
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        fs::metadata(&self.path).ok().map(inode) == self.file.metadata().ok().map(inode)
    }

    fn is_mostly_past(&self) -> bool {
        let counts: u64 = self.places.values().map(|place| u64::from(place.length)).sum();
        self.length > 2 * counts + SLACK
    }

    /// Writes what counts into another file, line by line, and goes on with that.
    fn write_anew(&mut self) -> io::Result<()> {
        let mut places: Vec<(u64, Place)> = self.places.iter().map(|(id, place)| (*id, *place)).collect();
        places.sort_unstable_by_key(|(_, place)| place.at);
        let mut anew = Self::begin(self.path.clone(), &self.node)?;
        for (id, place) in places {
            let line = self.line_of(place)?;
            let begins = line.len() - 1 - place.length as usize;
            let place = Place { at: anew.length + begins as u64, length: place.length };
            anew.write(&line)?;
            anew.places.insert(id, place);
        }
        anew.finish()?;
        anew.put_in_place()?;
        *self = anew;
        Ok(())
    }

    /// The line whose text is at a place.
    fn line_of(&self, place: Place) -> io::Result<Vec<u8>> {
        /// Longest names of a watch and of an object, and what is between.
        const NAMES: u64 = 1024;
        let from = place.at.saturating_sub(NAMES);
        let before = (place.at - from) as usize;
        let mut bytes = vec![0; before + place.length as usize + 1];
        self.file.read_exact_at(&mut bytes, from)?;
        let begin = bytes[..before].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Ok(bytes.split_off(begin))
    }
}

/// Removes what is kept, for an agent that leaves nothing.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(weft_files::draft(path));
    let _ = fs::remove_file(path);
}
