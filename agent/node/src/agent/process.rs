//! Finds the network namespaces of a cluster's pods through `/proc`, with no container runtime asked: a container's
//! process is in a cgroup that the kubelet names after its pod's UID.
//!
//! Needs the node's PID namespace (`hostPID: true`).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_datapath::cgroups::pod_of;

/// Between two looks at all processes passes at least so many times what a look takes: a pod that does not come must
/// not cost a core.
const REST: u32 = 4;

/// The processes of each pod, the oldest first: that is its sandbox's, which holds the network namespace as long as the
/// sandbox lives.
#[derive(Debug)]
pub struct PodProcesses {
    proc: PathBuf,
    by_uid: HashMap<Arc<str>, Vec<u32>>,
    /// When the last look ended, and how long it took.
    looked: Option<(Instant, Duration)>,
}

impl Default for PodProcesses {
    fn default() -> Self {
        Self::at("/proc".into())
    }
}

impl PodProcesses {
    fn at(proc: PathBuf) -> Self {
        Self { proc, by_uid: HashMap::new(), looked: None }
    }

    /// The path of the pod's network namespace, as `/proc/PID/ns/net`, and what `accept` makes of it, which tells whether
    /// it is the pod's; `Err` says why there is none (yet).
    ///
    /// Answers from memory while a process that was found is there and in such a namespace. All processes are looked at
    /// otherwise, but not more often than [`REST`] allows.
    pub fn netns<T>(
        &mut self,
        uid: &str,
        accept: impl Fn(&Path) -> Result<T, String>,
    ) -> Result<(PathBuf, T), String> {
        if uid.is_empty() {
            return Err("its object has no UID, so its processes cannot be found".to_owned());
        }
        let found = self.accepted(uid, &accept);
        if found.is_ok() || !self.may_look() {
            return found;
        }
        self.look();
        self.accepted(uid, &accept)
    }

    /// Looks at the pod's processes as they were found, for as far as they are there and still the pod's: process ids are
    /// used again. What is said of the oldest one's namespace is the reason where none is accepted.
    fn accepted<T>(
        &self,
        uid: &str,
        accept: impl Fn(&Path) -> Result<T, String>,
    ) -> Result<(PathBuf, T), String> {
        let mut refused = None;
        for pid in self.by_uid.get(uid).into_iter().flatten() {
            let process = self.proc.join(pid.to_string());
            if !matches!(pod_of(&process), Ok(Some(owner)) if owner == uid) {
                continue;
            }
            let path = process.join("ns/net");
            match accept(&path) {
                Ok(accepted) => return Ok((path, accepted)),
                Err(why) => _ = refused.get_or_insert(why),
            }
        }
        Err(refused.unwrap_or_else(|| "no process of it runs on this node yet".to_owned()))
    }

    fn may_look(&self) -> bool {
        self.looked.is_none_or(|(ended, took)| ended.elapsed() >= took * REST)
    }

    fn look(&mut self) {
        let began = Instant::now();
        let mut found: HashMap<Arc<str>, Vec<(u64, u32)>> = HashMap::new();
        for entry in fs::read_dir(&self.proc).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process may end at any moment: whatever cannot be read is not there.
            let Ok(Some(uid)) = pod_of(&entry.path()) else { continue };
            let stat = fs::read_to_string(self.proc.join(pid.to_string()).join("stat"));
            let Some(started) = stat.ok().as_deref().and_then(start_time) else { continue };
            found.entry(uid.into()).or_default().push((started, pid));
        }
        let oldest_first = found.into_iter().map(|(uid, mut processes)| {
            processes.sort_unstable();
            (uid, processes.into_iter().map(|(_, pid)| pid).collect())
        });
        self.by_uid = oldest_first.collect();
        self.looked = Some((Instant::now(), began.elapsed()));
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)): ticks since boot. The second, the program's name, may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    const A: &str = "0f6b1f9e-2a30-4c7e-9d55-7a3c1f0e8b11";
    const B: &str = "11111111-2222-3333-4444-555555555555";

    fn process(proc: &Path, pid: u32, cgroup: &str, started: u64) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cgroup"), cgroup).unwrap();
        let fields = "S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0";
        fs::write(dir.join("stat"), format!("{pid} (a) b (c)) {fields} {started} 0 0\n")).unwrap();
    }

    #[test]
    fn the_oldest_process_stands_for_the_pod_until_it_ends_or_is_anothers() {
        let dir = TempDir::new().unwrap();
        let proc = dir.path();
        process(proc, 30, &format!("0::/kubepods/pod{A}/sandbox\n"), 500);
        process(proc, 7, &format!("0::/kubepods/pod{A}/app\n"), 900);
        process(proc, 8, "0::/system.slice/cron.service\n", 1);
        let mut processes = PodProcesses::at(proc.to_owned());
        let of =
            |processes: &mut PodProcesses, uid: &str| processes.netns(uid, |_| Ok(())).map(|(path, ())| path);
        assert_eq!(of(&mut processes, A), Ok(proc.join("30/ns/net")));

        // The sandbox ended, and its id went to a process of another pod.
        process(proc, 30, &format!("0::/kubepods/pod{B}/sandbox\n"), 1_000);
        processes.looked = None;
        assert_eq!(of(&mut processes, A), Ok(proc.join("7/ns/net")));
        assert_eq!(of(&mut processes, B), Ok(proc.join("30/ns/net")));
    }

    #[test]
    fn where_the_oldest_process_is_in_another_namespace_a_younger_one_tells() {
        let dir = TempDir::new().unwrap();
        let proc = dir.path();
        process(proc, 30, &format!("0::/kubepods/pod{A}/sandbox\n"), 500);
        process(proc, 31, &format!("0::/kubepods/pod{A}/app\n"), 600);
        let mut processes = PodProcesses::at(proc.to_owned());
        let holds = |path: &Path| {
            if path.starts_with(proc.join("31")) {
                Ok(31)
            } else {
                Err(format!("{} is another", path.display()))
            }
        };
        assert_eq!(processes.netns(A, holds), Ok((proc.join("31/ns/net"), 31)));
        // With none at all, the reason is the sandbox's: a person looks there first.
        fs::remove_dir_all(proc.join("31")).unwrap();
        assert!(processes.netns(A, holds).unwrap_err().contains("30/ns/net is another"));
        // A process that comes later may be it.
        process(proc, 31, &format!("0::/kubepods/pod{A}/app\n"), 900);
        processes.looked = None;
        assert_eq!(processes.netns(A, holds), Ok((proc.join("31/ns/net"), 31)));
    }

    #[test]
    fn a_pod_without_processes_is_said_to_have_none() {
        let dir = TempDir::new().unwrap();
        let proc = dir.path();
        let mut processes = PodProcesses::at(proc.to_owned());
        assert!(processes.netns(A, |_| Ok(())).unwrap_err().contains("no process"));
        assert!(processes.netns("", |_| Ok(())).unwrap_err().contains("no UID"));
    }
}
