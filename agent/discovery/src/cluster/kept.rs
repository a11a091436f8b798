//! What this agent knows of the cluster, kept in a file of its own: an agent that starts while the API server is away goes
//! on by it.
//!
//! The file is a journal, so that a change costs its own size and memory holds an index alone:
//!
//! ```text
//! weft objects 1 NODE
//! +WATCH <tab> NAMESPACE/NAME <tab> {…}        an object as it is now
//! -WATCH <tab> NAMESPACE/NAME                  an object that is no more
//! =SHA-256                                     of all since the last such line: up to here it is good
//! ```
//!
//! What was not finished with such a line when its writer died does not count; what does not agree with one makes the file
//! useless as a whole, for what it lacks may be what denies. It is there from when all first lists are complete. When the
//! server was heard the last time, the file's own time tells.
//!
//! Kinds of Kubernetes' own are kept as far as weft reads them, which is a tenth of what is served; what users write for the
//! mesh, as it was served.

mod journal;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use weft_api::object::Object;

use super::item::Item;
use crate::fingerprint;

pub use journal::{Journal, remove};

/// The file in the run directory.
pub const FILE: &str = "objects.kept";

/// Longest line that is read; objects of the API server have 1.5 MiB at the most.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It is not there, or cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// Others might have written it.
    #[error("others than its owner may write or read it (mode {mode:o}, owner {owner})")]
    Exposed {
        /// Its mode.
        mode: u32,
        /// Whose it is.
        owner: u32,
    },
    /// Another version of weft has written it, or it is another node's.
    #[error("it begins with {0:?}")]
    Foreign(String),
    /// What it holds is not what was written.
    #[error("it is broken at byte {0}")]
    Broken(u64),
    /// Its writer never came to the end of anything.
    #[error("it holds nothing that was finished")]
    Empty,
}

/// Where an object is in the file.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    length: u32,
}

/// A file that is good.
#[derive(Debug)]
pub struct Kept {
    file: File,
    /// By watch, the objects' names and where they are.
    places: HashMap<String, HashMap<String, Place>>,
    /// When the API server was heard the last time.
    pub as_of: SystemTime,
}

fn header(node: &str) -> String {
    format!("weft objects 1 {node}\n")
}

/// What stands for an object in the file.
pub fn text(object: &Object, served: &Item) -> String {
    let lean = matches!(
        object,
        Object::Namespace(_) | Object::Pod(_) | Object::Service(_) | Object::EndpointSlice(_)
    );
    if lean { fingerprint::json(object) } else { served.text().to_owned() }
}

impl Kept {
    /// Opens what an agent of this node has kept.
    ///
    /// # Errors
    /// It is not there, or of no use.
    pub fn open(path: &Path, node: &str) -> Result<Self, KeptError> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let (mode, owner) = (meta.mode() & 0o7777, meta.uid());
        if mode & 0o077 != 0 || owner != rustix::process::geteuid().as_raw() {
            return Err(KeptError::Exposed { mode, owner });
        }
        let places = index(&mut BufReader::new(&file), &header(node))?;
        Ok(Self { as_of: meta.modified()?, places, file })
    }

    /// How many objects it holds.
    pub fn count(&self) -> usize {
        self.places.values().map(HashMap::len).sum()
    }

    /// The objects of a watch, with their names.
    pub fn objects(&self, watch: &str) -> impl Iterator<Item = io::Result<(&str, String)>> {
        self.places.get(watch).into_iter().flatten().map(|(name, place)| {
            let mut bytes = vec![0; place.length as usize];
            self.file.read_exact_at(&mut bytes, place.at)?;
            let text = String::from_utf8(bytes).map_err(io::Error::other)?;
            Ok((name.as_str(), text))
        })
    }
}

/// What a line says.
enum Line<'a> {
    Put { watch: &'a str, name: &'a str, text: usize },
    Gone { watch: &'a str, name: &'a str },
    Good { digest: &'a str },
}

/// Reads a line, its end included; `None`: nothing that belongs into such a file.
fn line(bytes: &[u8]) -> Option<Line<'_>> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (sign, rest) = line.split_at_checked(1)?;
    let mut parts = rest.splitn(3, '\t');
    match sign {
        "+" => {
            let (watch, name, text) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Line::Put { watch, name, text: text.len() })
        }
        "-" => Some(Line::Gone { watch: parts.next()?, name: parts.next()? }),
        "=" => Some(Line::Good { digest: rest }),
        _ => None,
    }
}

/// Where all objects are that the file says are there.
fn index(
    file: &mut impl BufRead,
    header: &str,
) -> Result<HashMap<String, HashMap<String, Place>>, KeptError> {
    let mut bytes = Vec::new();
    read_line(file, &mut bytes)?;
    if bytes != header.as_bytes() {
        return Err(KeptError::Foreign(
            String::from_utf8_lossy(&bytes).trim_end().chars().take(80).collect(),
        ));
    }
    let mut places: HashMap<String, HashMap<String, Place>> = HashMap::new();
    // What happened since the last good place: the objects' watch, name, and where they are now.
    let mut open: Vec<(String, String, Option<Place>)> = Vec::new();
    let mut digest = Context::new(&SHA256);
    digest.update(&bytes);
    let (mut at, mut good) = (bytes.len() as u64, false);
    loop {
        bytes.clear();
        read_line(file, &mut bytes)?;
        if !bytes.ends_with(b"\n") {
            // The end, or where its writer died.
            return if good { Ok(places) } else { Err(KeptError::Empty) };
        }
        match line(&bytes).ok_or(KeptError::Broken(at))? {
            Line::Put { watch, name, text } => {
                let place = Place { at: at + (bytes.len() - 1 - text) as u64, length: text as u32 };
                open.push((watch.to_owned(), name.to_owned(), Some(place)));
            }
            Line::Gone { watch, name } => open.push((watch.to_owned(), name.to_owned(), None)),
            Line::Good { digest: said } => {
                let found = std::mem::replace(&mut digest, Context::new(&SHA256)).finish();
                if said != hex(found.as_ref()) {
                    return Err(KeptError::Broken(at));
                }
                good = true;
                for (watch, name, place) in open.drain(..) {
                    let of_watch = places.entry(watch).or_default();
                    match place {
                        Some(place) => _ = of_watch.insert(name, place),
                        None => _ = of_watch.remove(&name),
                    }
                }
                at += bytes.len() as u64;
                continue;
            }
        }
        digest.update(&bytes);
        at += bytes.len() as u64;
    }
}

/// Reads up to a line's end; without one, that was the file's.
fn read_line(file: &mut impl BufRead, into: &mut Vec<u8>) -> io::Result<()> {
    io::Read::take(file, LONGEST).read_until(b'\n', into).map(drop)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
