//! The files of an image: a map by path, so that the same files make the same layer, whatever their order, owner or age.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tar::{Builder, EntryType, Header};
use weft_tests::process::Output;

/// What is at a path.
enum Entry {
    Directory { mode: u32 },
    File { content: Vec<u8>, mode: u32 },
    Link { to: String },
}

/// The files of an image.
#[derive(Default)]
pub struct Rootfs {
    /// By path, without the leading slash.
    entries: BTreeMap<String, Entry>,
}

impl Rootfs {
    /// An empty directory.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.entries.insert(inside(path), Entry::Directory { mode });
    }

    /// A file with this content.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) {
        self.parents(path);
        self.entries.insert(inside(path), Entry::File { content: content.into(), mode });
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.parents(path);
        self.entries.insert(inside(path), Entry::Link { to: to.to_owned() });
    }

    /// A program, without its symbols, and every shared library that it is linked with, at its own place.
    pub fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        for library in libraries(from)? {
            let content = fs::read(&library).with_context(|| format!("cannot read {library}"))?;
            self.file(&library, content, 0o755);
        }
        self.file(path, stripped(from)?, 0o755);
        Ok(())
    }

    fn parents(&mut self, path: &str) {
        for parent in Path::new(&inside(path)).ancestors().skip(1) {
            let name = parent.display().to_string();
            if !name.is_empty() {
                self.entries.entry(name).or_insert(Entry::Directory { mode: 0o755 });
            }
        }
    }

    /// The layer: everything belongs to root and was made in 1970.
    pub fn layer(&self) -> Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let (kind, mode, content) = match entry {
                Entry::Directory { mode } => (EntryType::Directory, *mode, &[][..]),
                Entry::File { content, mode } => (EntryType::Regular, *mode, content.as_slice()),
                Entry::Link { .. } => (EntryType::Symlink, 0o777, &[][..]),
            };
            let mut header = header(kind, mode, content.len());
            match entry {
                Entry::Link { to } => archive.append_link(&mut header, path, to),
                _ => archive.append_data(&mut header, path, content),
            }
            .with_context(|| format!("{path} does not fit into a layer"))?;
        }
        Ok(archive.into_inner()?)
    }
}

/// A header that says nothing of this machine.
pub fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn inside(path: &str) -> String {
    path.trim_matches('/').to_owned()
}

/// What the loader would map beside `program`, and the loader. None if it is static.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Output::of(Command::new("ldd").arg(program).env("LC_ALL", "C"))?;
    let said = output.stdout + &output.stderr;
    if said.contains("not a dynamic executable") || said.contains("statically linked") {
        return Ok(Vec::new());
    }
    ensure!(output.code == 0, "ldd {}: {}", program.display(), said.trim());
    parse_ldd(&said).with_context(|| format!("ldd {}", program.display()))
}

fn parse_ldd(said: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for line in said.lines().map(str::trim) {
        let (name, rest) = line.split_once(" => ").unwrap_or((line, line));
        if rest.starts_with("not found") {
            bail!("{name} is not installed");
        }
        let path = rest.split(" (").next().unwrap_or_default();
        // The kernel's own, `linux-vdso.so.1`, is no file.
        if path.starts_with('/') {
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

/// The program without symbols and debug information.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let mut head = [0; 4];
    let mut file = fs::File::open(program).with_context(|| format!("cannot read {}", program.display()))?;
    file.read_exact(&mut head)?;
    ensure!(&head == b"\x7fELF", "{} is no program", program.display());
    let copy = std::env::temp_dir().join(format!("weft-image-{}", std::process::id()));
    let output = Output::of(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    output.good().with_context(|| format!("strip {} (package binutils)", program.display()))?;
    let content = fs::read(&copy)?;
    fs::remove_file(copy)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::{Rootfs, parse_ldd};

    #[test]
    fn the_same_files_make_the_same_layer() {
        let mut one = Rootfs::default();
        one.file("/bin/a", "x", 0o755);
        one.directory("/tmp", 0o1777);
        one.link("/bin/b", "a");
        let mut other = Rootfs::default();
        other.link("bin/b", "a");
        other.directory("tmp", 0o1777);
        other.file("bin/a", "x", 0o755);
        let layer = one.layer().expect("a layer");
        assert_eq!(layer, other.layer().expect("a layer"));
        other.file("bin/a", "y", 0o755);
        assert_ne!(layer, other.layer().expect("a layer"));
    }

    #[test]
    fn parents_come_first_and_belong_to_root() {
        let mut rootfs = Rootfs::default();
        rootfs.file("/usr/bin/env", "", 0o755);
        let layer = rootfs.layer().expect("a layer");
        let mut archive = tar::Archive::new(layer.as_slice());
        let mut paths = Vec::new();
        for entry in archive.entries().expect("entries") {
            let entry = entry.expect("an entry");
            let header = entry.header();
            assert_eq!((header.uid().ok(), header.mtime().ok()), (Some(0), Some(0)));
            paths.push(entry.path().expect("a path").display().to_string());
        }
        assert_eq!(paths, ["usr", "usr/bin", "usr/bin/env"]);
    }

    #[test]
    fn libraries_are_read_from_ldd() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\
             \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n";
        let paths = parse_ldd(said).expect("paths");
        assert_eq!(paths, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(parse_ldd("\tliba.so => not found\n").is_err());
    }
}
