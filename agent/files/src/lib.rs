//! Files that whoever reads them finds whole: as they were before, or as they are now, and nothing between.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Follows the name of a file that is being written: no reader of the folders that weft writes to knows files by it.
const DRAFT: &str = ".weft-draft";

/// Writes a file whole or not at all, with these permissions.
///
/// # Errors
/// The file is as it was.
pub fn write(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    put(path, mode, bytes, false)
}

/// The same, and the file outlives a loss of power.
///
/// # Errors
/// The file is as it was.
pub fn write_durably(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    put(path, mode, bytes, true)
}

fn put(path: &Path, mode: u32, bytes: &[u8], durable: bool) -> io::Result<()> {
    let draft = draft(path);
    let mut file = begin(&draft)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&draft, path)?;
    match path.parent().filter(|dir| durable && !dir.as_os_str().is_empty()) {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Where a file is written before it is put into its place.
pub fn draft(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or(OsStr::new("file")).to_owned();
    name.push(DRAFT);
    path.with_file_name(name)
}

/// A new, empty file that its owner alone may read; one that was left there by a crash goes.
///
/// # Errors
/// It cannot be made.
pub fn begin(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.json");
        fs::write(draft(&path), "what a crash left").unwrap();
        for (mode, text) in [(0o600, "one"), (0o644, "two")] {
            write_durably(&path, mode, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&dir.path().join("no/such/folder"), 0o600, b"").is_err());
    }
}
