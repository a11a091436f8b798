//! What the kernel says: how much memory and how many descriptors the agent may have, and how much memory it has.

use std::fs;
use std::path::{Path, PathBuf};

/// What an agent may have where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Memory of the machine, in bytes.
    pub memory: u64,
    /// The limit of the agent's control group; `None`: it has none.
    pub memory_limit: Option<u64>,
    /// File descriptors of a process.
    pub descriptors: u64,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        use rustix::process::{Resource, getrlimit};
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED_DESCRIPTORS);
        Self {
            memory: total_memory().unwrap_or(UNKNOWN_MEMORY),
            memory_limit: Group::own().map(|group| group.limit),
            descriptors: descriptors.min(UNLIMITED_DESCRIPTORS),
        }
    }
}

/// Linux's `fs.nr_open`, more than which no process can have.
const UNLIMITED_DESCRIPTORS: u64 = 1 << 20;
/// Taken where the machine does not say.
const UNKNOWN_MEMORY: u64 = 4 << 30;

/// The control group whose memory limit the agent meets first.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    dir: PathBuf,
    version: Version,
    /// In bytes.
    pub limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// The agent's; `None`: no limit.
    pub fn own() -> Option<Self> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::tightest(&cgroups, Path::new("/sys/fs/cgroup"), total_memory().unwrap_or(u64::MAX))
    }

    /// Of a process's groups and those above them, the one with the least limit. In a container the groups above are not to be
    /// seen: there the mount itself is its own group.
    fn tightest(cgroups: &str, mount: &Path, memory: u64) -> Option<Self> {
        let mut found: Option<Self> = None;
        for line in cgroups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let version = match controllers {
                "" => Version::Two,
                listed if listed.split(',').any(|controller| controller == "memory") => Version::One,
                _ => continue,
            };
            let root = if version == Version::One { mount.join("memory") } else { mount.to_owned() };
            for above in Path::new(path).ancestors() {
                let dir = root.join(above.strip_prefix("/").unwrap_or(above));
                let Some(limit) = limit(&dir, version).filter(|limit| *limit < memory) else { continue };
                if found.as_ref().is_none_or(|found| limit < found.limit) {
                    found = Some(Self { dir, version, limit });
                }
            }
        }
        found
    }

    /// Memory that it has now and could not give back at once, in bytes.
    pub fn used(&self) -> Option<u64> {
        let (usage, reclaimable) = match self.version {
            Version::One => ("memory.usage_in_bytes", "total_inactive_file "),
            Version::Two => ("memory.current", "inactive_file "),
        };
        let usage = number(&self.dir.join(usage))?;
        let stat = fs::read_to_string(self.dir.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(reclaimable)?.parse().ok());
        Some(usage.saturating_sub(cached.unwrap_or(0)))
    }
}

fn limit(dir: &Path, version: Version) -> Option<u64> {
    match version {
        Version::One => number(&dir.join("memory.limit_in_bytes")),
        // `max`: none.
        Version::Two => number(&dir.join("memory.max")),
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn total_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Resident memory of this process, in bytes.
pub fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn the_tightest_group_counts() {
        let dir = TempDir::new().unwrap();
        let root = dir.path();
        write(root, "kubepods/memory.max", "4000\n");
        write(root, "kubepods/pod1/memory.max", "1000\n");
        write(root, "kubepods/pod1/agent/memory.max", "max\n");
        write(root, "kubepods/pod1/memory.current", "900\n");
        write(root, "kubepods/pod1/memory.stat", "anon 500\ninactive_file 300\n");
        let group = Group::tightest("0::/kubepods/pod1/agent\n", root, 9_999).unwrap();
        assert_eq!((group.limit, group.used()), (1_000, Some(600)));
        assert_eq!(Group::tightest("0::/\n", root, 9_999), None);
    }

    #[test]
    fn the_first_version_is_read_too_and_no_limit_is_a_large_one() {
        let dir = TempDir::new().unwrap();
        let root = dir.path();
        write(root, "memory/memory.limit_in_bytes", "9223372036854771712\n");
        write(root, "memory/a/memory.limit_in_bytes", "2000\n");
        let group = Group::tightest("4:cpu:/a\n3:memory:/a/b\n", root, 9_999).unwrap();
        assert_eq!(group.limit, 2_000);
        assert_eq!(Group::tightest("3:memory:/\n", root, 9_999), None);
    }

    #[test]
    fn this_machine_says_something() {
        let here = Machine::here();
        assert!(here.memory > 1 << 20 && here.descriptors > 0 && resident().unwrap() > 1 << 20);
    }
}
