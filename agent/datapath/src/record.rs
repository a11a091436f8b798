//! What the agent writes down of each pod before it changes anything there, so that whoever comes after a crash can
//! take it back; and what to do with what is found at start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Context, DatapathError};
use super::object::PinnedPod;
use super::routing::Sysctls;

/// A pod whose namespace the agent has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The namespace's cookie.
    pub cookie: u64,
    /// `namespace/name`.
    pub key: String,
    /// Path of the namespace.
    pub netns: PathBuf,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// What sysctls were before.
    pub sysctls: Sysctls,
    /// Cookies begin again with every boot.
    pub boot: String,
}

/// The directory of all records.
#[derive(Debug, Clone)]
pub struct Records(PathBuf);

impl Records {
    /// The records in an agent's run directory.
    pub fn of(run_dir: &Path) -> Self {
        Self(run_dir.join("pods"))
    }

    fn path(&self, cookie: u64) -> PathBuf {
        self.0.join(format!("{cookie:x}.json"))
    }

    /// Writes a record. The values of a record that is there are older and win.
    pub fn save(&self, mut record: Record) -> Result<Record, DatapathError> {
        if let Some(older) = self.load(record.cookie) {
            for (name, value) in older.sysctls {
                record.sysctls.insert(name, value);
            }
        }
        let path = self.path(record.cookie);
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.0)?;
            weft_files::write(&path, 0o600, &serde_json::to_vec_pretty(&record)?)
        };
        write().context(|| format!("cannot write {}", path.display()))?;
        Ok(record)
    }

    /// Reads a record of this boot.
    pub fn load(&self, cookie: u64) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.path(cookie)).ok()?).ok()?;
        (record.cookie == cookie && record.boot == boot_id()).then_some(record)
    }

    /// Reads all records of this boot, and removes those of others.
    pub fn load_all(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let cookie = u64::from_str_radix(name.to_str()?.strip_suffix(".json")?, 16).ok()?;
                let record = self.load(cookie);
                if record.is_none() {
                    self.remove(cookie);
                }
                record
            })
            .collect()
    }

    /// Removes a record.
    pub fn remove(&self, cookie: u64) {
        fs::remove_file(self.path(cookie)).ok();
    }

    /// Removes the directory, if it is empty.
    pub fn remove_dir(&self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// This boot's identity.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What a new agent does with what it finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Takeover {
    /// Namespaces that are gone: forget all of them.
    pub forget: BTreeSet<u64>,
    /// Pods that may be enrolled again; until then they fail closed.
    pub adopt: BTreeMap<u64, Option<String>>,
}

/// Decides what becomes of pinned links, of the pods in the kernel's map and of the records on disk.
pub fn plan_takeover(pinned: &[PinnedPod], in_map: &[u64], records: &[Record]) -> Takeover {
    let dead: BTreeSet<u64> = pinned.iter().filter(|pod| !pod.alive).map(|pod| pod.cookie).collect();
    let keys: BTreeMap<u64, &str> =
        records.iter().map(|record| (record.cookie, record.key.as_str())).collect();
    let known = pinned.iter().map(|pod| pod.cookie).chain(in_map.iter().copied()).chain(keys.keys().copied());
    let adopt = known
        .filter(|cookie| !dead.contains(cookie))
        .map(|cookie| (cookie, keys.get(&cookie).map(|&key| key.to_owned())))
        .collect();
    Takeover { forget: dead, adopt }
}

#[cfg(test)]
mod tests {
    use super::{PinnedPod, Record, Records, Sysctls, Takeover, boot_id, plan_takeover};
    use std::path::PathBuf;

    fn record(cookie: u64, key: &str) -> Record {
        Record {
            cookie,
            key: key.to_owned(),
            netns: PathBuf::from("/var/run/netns/x"),
            addresses: Vec::new(),
            sysctls: Sysctls::new(),
            boot: boot_id(),
        }
    }

    #[test]
    fn namespaces_that_are_gone_are_forgotten_and_others_adopted() {
        let pinned = [PinnedPod { cookie: 1, alive: false }, PinnedPod { cookie: 2, alive: true }];
        let plan = plan_takeover(&pinned, &[1, 2, 3], &[record(2, "default/a"), record(4, "default/b")]);
        assert_eq!(
            plan,
            Takeover {
                forget: [1].into(),
                // 3 has lost its link, 4 was being enrolled: both wait to be claimed.
                adopt: [(2, Some("default/a".to_owned())), (3, None), (4, Some("default/b".to_owned()))]
                    .into(),
            }
        );
    }

    #[test]
    fn the_first_value_of_a_sysctl_is_kept() {
        let dir = tempfile::TempDir::new().expect("a writable temporary directory");
        let records = Records::of(dir.path());
        let mut first = record(7, "default/a");
        first.sysctls.insert("net/ipv4/tcp_tw_reuse".to_owned(), "2".to_owned());
        records.save(first.clone()).expect("a writable temporary directory");
        let again = records.save(record(7, "default/a")).expect("as above");
        assert_eq!(again.sysctls, first.sysctls, "the second agent found its predecessor's value");
        assert_eq!(records.load_all().len(), 1);
        let mut other_boot = record(8, "default/b");
        other_boot.boot = "another".to_owned();
        records.save(other_boot).expect("as above");
        assert_eq!(records.load_all().len(), 1, "records of another boot are dropped");
        records.remove(7);
        records.remove_dir();
    }
}
