//! Lists the manifests below a folder.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Deeper folders are not read: a loop of bind mounts would have no end.
const MAX_DEPTH: usize = 32;

/// A folder that could not be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlisted {
    /// The folder.
    pub path: PathBuf,
    /// Why.
    pub error: String,
}

/// What stands below a folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// Manifests, sorted.
    pub files: Vec<Arc<Path>>,
    /// Folders that hide what they hold.
    pub unlisted: Vec<Unlisted>,
}

/// Lists every `*.yaml` and `*.yml` below `dir`, through symbolic links, without dot-files.
pub fn manifests(dir: &Path) -> Listing {
    let mut listing = Listing::default();
    let mut seen = HashSet::new();
    if let Err(error) = descend(dir, 0, &mut seen, &mut listing) {
        // The folder itself must be there; one below it may have gone in the meantime.
        listing.unlisted.push(Unlisted { path: dir.to_owned(), error: error.to_string() });
    }
    listing.files.sort();
    listing
}

fn descend(
    dir: &Path,
    depth: usize,
    seen: &mut HashSet<(u64, u64)>,
    listing: &mut Listing,
) -> io::Result<()> {
    let meta = std::fs::metadata(dir)?;
    if depth > MAX_DEPTH || !seen.insert((meta.dev(), meta.ino())) {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if super::is_hidden(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let mut kind = entry.file_type()?;
        if kind.is_symlink() {
            // A link that leads nowhere is a file that is gone.
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            kind = meta.file_type();
        }
        if kind.is_dir() {
            match descend(&path, depth + 1, seen, listing) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    listing.unlisted.push(Unlisted { path, error: error.to_string() });
                }
                _ => {}
            }
        } else if kind.is_file() && super::is_manifest(&path) {
            listing.files.push(path.into());
        }
    }
    Ok(())
}
