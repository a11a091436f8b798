//! What the agent knew last, in a file beside the node's CNI configurations: where those outlive a reboot, and with them
//! the plugin, so does it.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_rules::last_known::LastKnown;

/// The file's name. No runtime reads files that end so.
const NAME: &str = "weft-cni.last-known";
/// A failed write is tried again after this.
const RETRY: Duration = Duration::from_secs(10);
/// Group and others may not write.
const OTHERS_WRITE: u32 = 0o022;

/// Where it is for the node whose CNI configurations are in `conf_dir`.
pub fn path(conf_dir: &Path) -> PathBuf {
    conf_dir.join(NAME)
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<T> {
    version: u32,
    /// `None`: the agent has not known anything yet.
    known: Option<T>,
}

const VERSION: u32 = 1;

/// Reads what is kept. `Ok(None)`: the agent has never known anything. A file that is missing is an error, too: before
/// there is a plugin to ask for it, a [`Keeper`] has written one.
pub fn read(path: &Path) -> io::Result<Option<LastKnown>> {
    let file = File::open(path)?;
    if !is_private(&file.metadata()?) {
        return Err(io::Error::other("somebody else than root can write it"));
    }
    let kept: Kept<LastKnown> = serde_json::from_reader(io::BufReader::new(file))?;
    if kept.version == VERSION {
        Ok(kept.known)
    } else {
        Err(io::Error::other(format!("it is of version {}", kept.version)))
    }
}

fn is_private(file: &Metadata) -> bool {
    file.uid() == rustix::process::geteuid().as_raw() && file.mode() & OTHERS_WRITE == 0
}

/// Writes the file whole or not at all, as it stands after a power cut as well.
fn write(path: &Path, known: Option<&LastKnown>) -> io::Result<()> {
    weft_files::write_durably(path, 0o600, &serde_json::to_vec(&Kept { version: VERSION, known })?)
}

/// Removes it.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes on a thread of its own what the agent knows, whenever that changes: a disk may be slow. It is the only one to write
/// the file, and begins with one that says that nothing is known yet, unless there is one.
#[derive(Debug)]
pub struct Keeper {
    last: Option<LastKnown>,
    words: Option<Sender<LastKnown>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Keeps it at `path`.
    pub fn start(path: PathBuf) -> io::Result<Self> {
        let (words, changes) = mpsc::channel::<LastKnown>();
        let thread = std::thread::Builder::new().name("weft-cni-kept".to_owned()).spawn(move || {
            // What is to be written: that nothing is known, or what is.
            let mut waiting = (!path.exists()).then_some(None);
            loop {
                if let Some(newest) = changes.try_iter().last() {
                    waiting = Some(Some(newest));
                }
                if let Some(known) = &waiting {
                    match write(&path, known.as_ref()) {
                        Ok(()) => waiting = None,
                        Err(error) => {
                            let path = path.display();
                            tracing::warn!(
                                "CNI: cannot keep in {path} which pods are in the mesh: {error}; trying again"
                            );
                        }
                    }
                }
                let next = match waiting {
                    None => changes.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(_) => changes.recv_timeout(RETRY),
                };
                match next {
                    Ok(known) => waiting = Some(Some(known)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self { last: None, words: Some(words), thread: Some(thread) })
    }

    /// Keeps this from now on.
    pub fn keep(&mut self, known: LastKnown) {
        if self.last.as_ref() != Some(&known) {
            self.last = Some(known.clone());
            // The thread lives as long as this.
            _ = self.words.as_ref().map(|words| words.send(known));
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.words = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn known(namespace: &str) -> LastKnown {
        LastKnown { namespaces: [(namespace.to_owned(), true)].into(), ..LastKnown::default() }
    }

    #[test]
    fn what_was_kept_last_is_read_and_nobody_else_can_read_it() {
        let dir = TempDir::new().unwrap();
        let path = path(dir.path());
        drop(Keeper::start(path.clone()).unwrap());
        assert_eq!(read(&path).unwrap(), None);
        let mut keeper = Keeper::start(path.clone()).unwrap();
        for namespace in ["a", "b", "b", "c"] {
            keeper.keep(known(namespace));
        }
        drop(keeper);
        assert_eq!(read(&path).unwrap(), Some(known("c")));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        drop(Keeper::start(path.clone()).unwrap());
        assert_eq!(read(&path).unwrap(), Some(known("c")), "an agent that starts forgets nothing");
    }

    #[test]
    fn what_is_missing_broken_or_others_to_write_is_not_believed() {
        let dir = TempDir::new().unwrap();
        let path = path(dir.path());
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        write(&path, Some(&known("shop"))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for broken in
            ["", "{", "null", &text[..text.len() - 1], &text.replace("true", "1"), &text.replace(":1", ":2")]
        {
            fs::write(&path, broken).unwrap();
            assert!(read(&path).is_err(), "{broken}");
        }
        fs::write(&path, &text).unwrap();
        assert!(read(&path).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read(&path).is_err(), "anybody may have written that");
    }
}
