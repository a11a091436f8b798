//! Keeps the plugin on the node: its binary, and its place in the conf list in force, whoever writes there besides.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use super::chain::{self, Entry};
use super::{PLUGIN, kept};

/// How often it is looked after without being told to.
const CHECK: Duration = Duration::from_secs(10);
/// Changes that arrive together are looked at together.
const SETTLE: Duration = Duration::from_millis(5);

/// Where the plugin is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniOptions {
    /// The node's CNI configurations.
    pub conf_dir: PathBuf,
    /// The node's CNI plugins.
    pub bin_dir: PathBuf,
    /// Pods of the mesh do not start while the agent is away.
    pub strict: bool,
}

/// Looks after the plugin until it is dropped.
#[derive(Debug)]
pub struct Installed {
    options: CniOptions,
    stop: Sender<Word>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread hears.
enum Word {
    /// Something happened in the directory.
    Look,
    /// It is over.
    Stop,
}

impl Installed {
    /// Puts the plugin in place and looks after it on a thread of its own.
    pub fn start(options: CniOptions, run_dir: &Path, bpf_dir: &Path) -> io::Result<Self> {
        let last_known = kept::path(&options.conf_dir);
        let entry = Entry {
            run_dir: std::path::absolute(run_dir)?,
            bpf_dir: std::path::absolute(bpf_dir)?,
            last_known: std::path::absolute(&last_known)?,
            strict: options.strict,
        };
        let (stop, words) = mpsc::channel();
        let (dir, bin) = (options.conf_dir.clone(), options.bin_dir.clone());
        let tell = stop.clone();
        let thread = std::thread::Builder::new().name("weft-cni-conf".to_owned()).spawn(move || {
            let mut copied = false;
            let mut watch = None;
            let mut said = None;
            loop {
                // A chain must not name a plugin that is not there.
                if !copied {
                    copied = report(&mut said, copy(&bin).map(|()| "the CNI plugin is in place".to_owned()));
                }
                if watch.is_none() {
                    watch = watched(&dir, &tell).ok();
                }
                // Nor one that does not find what it decides by.
                if copied && last_known.exists() {
                    report(
                        &mut said,
                        chain::enter(&dir, &entry).map(|entered| match entered {
                            Some(path) => format!("part of the CNI chain {}", path.display()),
                            None => format!("waiting for a CNI configuration in {}", dir.display()),
                        }),
                    );
                }
                match words.recv_timeout(CHECK) {
                    Ok(Word::Look) => std::thread::sleep(SETTLE),
                    Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                while let Ok(word) = words.try_recv() {
                    if matches!(word, Word::Stop) {
                        return;
                    }
                }
            }
        })?;
        Ok(Self { options, stop, thread: Some(thread) })
    }

    /// Takes the plugin off the node.
    pub fn remove(self) -> io::Result<()> {
        let CniOptions { conf_dir, bin_dir, .. } = self.options.clone();
        drop(self);
        remove(&conf_dir, &bin_dir).map(drop)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = self.stop.send(Word::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether the plugin is in the chain in force.
pub fn is_entered(conf_dir: &Path) -> bool {
    chain::is_entered(conf_dir)
}

/// Takes the plugin out of the chain, and its binary and what it decides by away. Answers whether there was anything of it.
pub fn remove(conf_dir: &Path, bin_dir: &Path) -> io::Result<bool> {
    let left = match chain::leave(conf_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        other => other?,
    };
    kept::remove(&kept::path(conf_dir))?;
    match fs::remove_file(bin_dir.join(PLUGIN)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(left),
        Err(error) => Err(error),
    }
}

/// Says what is new. True: it is good.
fn report(said: &mut Option<String>, outcome: io::Result<String>) -> bool {
    let (good, text) = match outcome {
        Ok(text) => (true, text),
        Err(error) => (false, error.to_string()),
    };
    if said.as_ref() != Some(&text) {
        if good {
            tracing::info!("CNI: {text}");
        } else {
            tracing::warn!("CNI: {text}; trying again every {CHECK:?}");
        }
        *said = Some(text);
    }
    good
}

fn watched(dir: &Path, tell: &Sender<Word>) -> notify::Result<notify::RecommendedWatcher> {
    let tell = tell.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is no change; and what cannot be understood may be one.
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        let _ = tell.send(Word::Look);
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Copies this very program, unless it is there already. A runtime that is about to run it sees the old one or the new one.
fn copy(bin_dir: &Path) -> io::Result<()> {
    let own = Path::new("/proc/self/exe");
    let to = bin_dir.join(PLUGIN);
    let problem =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", to.display()));
    if is_same(own, &to)? {
        return Ok(());
    }
    let copied = || -> io::Result<()> {
        fs::create_dir_all(bin_dir)?;
        let draft = weft_files::draft(&to);
        fs::copy(own, &draft)?;
        fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, &to)
    };
    copied().map_err(problem)
}

/// Whether two files have the same content.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = match File::open(other) {
        Ok(other) => (File::open(one)?, other),
        Err(_) => return Ok(false),
    };
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        match other.read_exact(&mut right[..count]) {
            Ok(()) if left[..count] == right[..count] => {}
            _ => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tempfile::TempDir;

    fn eventually(what: &str, mut is: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(5);
        while !is() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn it_keeps_the_plugin_in_place_and_takes_it_along() {
        let temp = TempDir::new().unwrap();
        let (conf_dir, bin_dir) = (temp.path().join("net.d"), temp.path().join("bin"));
        fs::create_dir_all(&conf_dir).unwrap();
        let options = CniOptions { conf_dir: conf_dir.clone(), bin_dir: bin_dir.clone(), strict: true };
        drop(kept::Keeper::start(kept::path(&conf_dir)).unwrap());
        let installed =
            Installed::start(options, Path::new("/run/weft"), Path::new("/sys/fs/bpf/weft")).unwrap();
        let list = conf_dir.join("10-net.conflist");
        let text = r#"{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}"#;
        let has_plugin = || fs::read_to_string(&list).is_ok_and(|text| text.contains(PLUGIN));
        for _ in 0..3 {
            // As a network's own installer does it, whenever it likes.
            fs::write(&list, text).unwrap();
            eventually("the plugin is in the chain", has_plugin);
        }
        assert!(is_same(Path::new("/proc/self/exe"), &bin_dir.join(PLUGIN)).unwrap());
        installed.remove().unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), text);
        assert_eq!(fs::read_dir(&conf_dir).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&bin_dir).unwrap().count(), 0);
        assert!(!remove(&conf_dir, &bin_dir).unwrap());
    }
}
