//! The conf list in force: the file that libcni, and with it every container runtime, takes, which is the first valid one by
//! name. The plugin is its last; what was there before is kept beside it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::PLUGIN;
use super::call::VERSIONS;

/// Added to the name of what is kept. No runtime reads files that end so.
const ORIGINAL: &str = ".weft-original";

/// How the plugin is to be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the plugin finds the agent.
    pub run_dir: PathBuf,
    /// Where it pins programs when there is none.
    pub bpf_dir: PathBuf,
    /// What the agent knew last.
    pub last_known: PathBuf,
    /// Whether pods must not start without it.
    pub strict: bool,
}

impl Entry {
    fn json(&self) -> Value {
        json!({
            "type": PLUGIN, "runDir": self.run_dir, "bpfDir": self.bpf_dir, "lastKnown": self.last_known,
            "strict": self.strict,
        })
    }
}

/// Sees to it that the plugin is in the file in force, and in no other. Answers that file's path; `None`: there is none.
pub fn enter(dir: &Path, entry: &Entry) -> io::Result<Option<PathBuf>> {
    let files = files(dir)?;
    let Some((first, conf)) = files.iter().find_map(|path| Some((path, read(path)?))) else {
        return Ok(None);
    };
    for other in files.iter().filter(|path| *path != first) {
        leave_file(other)?;
    }
    let version = conf["cniVersion"].as_str().unwrap_or_default();
    if !VERSIONS.contains(&version) {
        return Err(io::Error::other(format!(
            "{} is of CNI version {version:?}, which has no chains (0.3.0 to 1.1.0 do)",
            first.display()
        )));
    }
    if is_list(first) {
        let entered = with_plugin(&conf, entry);
        if entered != conf {
            // An update of another's: it is the original now.
            if without_plugin(&conf) == conf {
                write(&original(first), first, &fs::read(first)?)?;
            }
            write(first, first, &text(&entered))?;
        }
        return Ok(Some(first.clone()));
    }
    // A plain file's name comes before that of its list, so it has to go when that is there.
    let list = first.with_extension("conflist");
    let alone = json!({"cniVersion": version, "name": conf["name"], "plugins": [conf]});
    write(&list, first, &text(&with_plugin(&alone, entry)))?;
    fs::rename(first, original(first))?;
    Ok(Some(list))
}

/// Whether the plugin is in the file in force.
pub fn is_entered(dir: &Path) -> bool {
    let in_force = files(dir).ok().and_then(|files| files.iter().find_map(|path| read(path)));
    in_force.is_some_and(|conf| without_plugin(&conf) != conf)
}

/// Takes the plugin out of all files. Answers whether there was any.
pub fn leave(dir: &Path) -> io::Result<bool> {
    files(dir)?.iter().try_fold(false, |any, path| Ok(leave_file(path)? || any))
}

/// Takes the plugin out of a file, which is as before then: to the byte, if nobody else has changed it.
fn leave_file(path: &Path) -> io::Result<bool> {
    let Some(conf) = read(path) else { return Ok(false) };
    let before = without_plugin(&conf);
    if before == conf {
        return Ok(false);
    }
    let plain = [path.with_extension("conf"), path.with_extension("json")];
    if let Some(plain) = plain.iter().find(|plain| original(plain).exists())
        && let Some(kept) = parse(&original(plain))
        && before["plugins"].as_array().is_some_and(|plugins| **plugins == [kept])
    {
        if plain.exists() {
            fs::remove_file(original(plain))?;
        } else {
            fs::rename(original(plain), plain)?;
        }
        fs::remove_file(path)?;
    } else if parse(&original(path)).is_some_and(|kept| kept == before) {
        fs::rename(original(path), path)?;
    } else {
        write(path, path, &text(&before))?;
        let _ = fs::remove_file(original(path));
    }
    Ok(true)
}

/// The files that a runtime looks at, in its order.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let read = path
            .extension()
            .is_some_and(|kind| ["conf", "conflist", "json"].iter().any(|read| kind == *read));
        if read && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "conflist")
}

fn parse(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// What is in a file, if a runtime would take it: others are passed over.
fn read(path: &Path) -> Option<Value> {
    let conf = parse(path)?;
    let named = |conf: &Value| conf["type"].as_str().is_some_and(|kind| !kind.is_empty());
    let good = if is_list(path) {
        let plugins = conf["plugins"].as_array().filter(|plugins| !plugins.is_empty());
        conf["name"].is_string() && plugins.is_some_and(|plugins| plugins.iter().all(named))
    } else {
        named(&conf)
    };
    good.then_some(conf)
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == PLUGIN
}

fn without_plugin(conf: &Value) -> Value {
    let mut conf = conf.clone();
    if let Some(plugins) = conf["plugins"].as_array_mut() {
        plugins.retain(|plugin| !is_ours(plugin));
    }
    conf
}

/// The list with the plugin at its end.
fn with_plugin(conf: &Value, entry: &Entry) -> Value {
    let mut conf = without_plugin(conf);
    if let Some(plugins) = conf["plugins"].as_array_mut() {
        plugins.push(entry.json());
    }
    conf
}

fn text(conf: &Value) -> Vec<u8> {
    format!("{conf:#}\n").into_bytes()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn original(path: &Path) -> PathBuf {
    beside(path, ORIGINAL)
}

/// Writes a file whole or not at all, as readable as `like` is.
pub fn write(path: &Path, like: &Path, bytes: &[u8]) -> io::Result<()> {
    let mode = fs::metadata(like)?.mode() & 0o7777;
    weft_files::write_durably(path, mode, bytes)
}

#[cfg(test)]
mod tests;
