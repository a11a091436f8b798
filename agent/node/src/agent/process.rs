//! Finds the network namespaces of a cluster's pods through `/proc`, with no container runtime asked: a container's
//! process is in a cgroup that the kubelet names after its pod's UID.
//!
//! Needs the node's PID namespace (`hostPID: true`).

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at all processes passes at least so many times what a look takes: a pod that does not come must
/// not cost a core.
const REST: u32 = 4;

/// The process that stands for each pod: the oldest of its sandbox, which holds the network namespace as long as the
/// sandbox lives.
#[derive(Debug)]
pub struct PodProcesses {
    proc: PathBuf,
    by_uid: HashMap<Arc<str>, u32>,
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

    /// The path of the pod's network namespace, as `/proc/PID/ns/net`; `Err` says why there is none (yet).
    ///
    /// Answers from memory while the process that was found is there. All processes are looked at otherwise, but not
    /// more often than [`REST`] allows.
    pub fn netns(&mut self, uid: &str) -> Result<PathBuf, String> {
        if uid.is_empty() {
            return Err("its object has no UID, so its processes cannot be found".to_owned());
        }
        if !self.stands(uid) {
            self.by_uid.remove(uid);
            if self.may_look() {
                self.look();
            }
        }
        match self.by_uid.get(uid) {
            Some(pid) => Ok(self.proc.join(pid.to_string()).join("ns/net")),
            None => Err("no process of it runs on this node yet".to_owned()),
        }
    }

    /// Whether the process that was found is there and still the pod's: process ids are used again.
    fn stands(&self, uid: &str) -> bool {
        let owner = self.by_uid.get(uid).and_then(|pid| self.owner(*pid));
        owner.is_some_and(|owner| owner == uid)
    }

    fn may_look(&self) -> bool {
        self.looked.is_none_or(|(ended, took)| ended.elapsed() >= took * REST)
    }

    fn look(&mut self) {
        let began = Instant::now();
        let mut oldest: HashMap<Arc<str>, (u64, u32)> = HashMap::new();
        for entry in fs::read_dir(&self.proc).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process may end at any moment: whatever cannot be read is not there.
            let Some(uid) = self.owner(pid) else { continue };
            let stat = fs::read_to_string(self.proc.join(pid.to_string()).join("stat"));
            let Some(started) = stat.ok().as_deref().and_then(start_time) else { continue };
            let seen = oldest.entry(uid.into()).or_insert((started, pid));
            *seen = (*seen).min((started, pid));
        }
        self.by_uid = oldest.into_iter().map(|(uid, (_, pid))| (uid, pid)).collect();
        self.looked = Some((Instant::now(), began.elapsed()));
    }

    fn owner(&self, pid: u32) -> Option<String> {
        let cgroups = fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")).ok()?;
        cgroups.lines().find_map(pod_uid)
    }
}

/// The UID in a line of `/proc/PID/cgroup`: the outermost directory that is named after a pod counts, for a pod may
/// make others within its own. Forms: `pod<UID>` (cgroupfs), `kubepods-burstable-pod<UID with _ for ->.slice` (systemd).
fn pod_uid(line: &str) -> Option<String> {
    let path = line.splitn(3, ':').nth(2)?;
    path.split('/').find_map(|segment| {
        let segment = segment.strip_suffix(".slice").unwrap_or(segment);
        let uid = match segment.strip_prefix("pod") {
            Some(uid) => uid,
            None => segment.strip_prefix("kubepods")?.rsplit_once("-pod")?.1,
        };
        let uid = uid.replace('_', "-");
        // A UUID, or the hash of a static pod's manifest.
        let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
        let hyphens = uid.bytes().filter(|&byte| byte == b'-').count();
        (hex == 32 && matches!(hyphens, 0 | 4) && uid.len() == hex + hyphens).then_some(uid)
    })
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)): ticks since boot. The second, the program's name, may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

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

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("weft-proc-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_pods_uid_is_read_from_every_form_of_cgroup() {
        let systemd = A.replace('-', "_");
        for line in [
            format!("0::/kubepods/burstable/pod{A}/0a1b"),
            format!("4:cpu,cpuacct:/kubepods/pod{A}/0a1b"),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{systemd}.slice/cri-containerd-0a1b.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{systemd}.slice/crio-0a1b.scope/container"),
            format!("0::/../../burstable/pod{A}/0a1b"),
            // Made by the pod itself, to be taken for another.
            format!("0::/kubepods/burstable/pod{A}/0a1b/pod{B}/x"),
        ] {
            assert_eq!(pod_uid(&line).as_deref(), Some(A), "{line}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(pod_uid(&format!("0::/kubepods/pod{hash}/x")).as_deref(), Some(hash));
        for line in [
            "0::/",
            "0::/system.slice/podman.service",
            "0::/user.slice/pod123",
            "nonsense",
            "1:pods:/kubepods",
        ] {
            assert_eq!(pod_uid(line), None, "{line}");
        }
    }

    #[test]
    fn the_oldest_process_stands_for_the_pod_until_it_ends_or_is_anothers() {
        let proc = folder("oldest");
        process(&proc, 30, &format!("0::/kubepods/pod{A}/sandbox\n"), 500);
        process(&proc, 7, &format!("0::/kubepods/pod{A}/app\n"), 900);
        process(&proc, 8, "0::/system.slice/cron.service\n", 1);
        let mut processes = PodProcesses::at(proc.clone());
        assert_eq!(processes.netns(A), Ok(proc.join("30/ns/net")));

        // The sandbox ended, and its id went to a process of another pod.
        process(&proc, 30, &format!("0::/kubepods/pod{B}/sandbox\n"), 1_000);
        processes.looked = None;
        assert_eq!(processes.netns(A), Ok(proc.join("7/ns/net")));
        assert_eq!(processes.netns(B), Ok(proc.join("30/ns/net")));
        fs::remove_dir_all(&proc).unwrap();
    }

    #[test]
    fn a_pod_without_processes_is_said_to_have_none() {
        let proc = folder("none");
        let mut processes = PodProcesses::at(proc.clone());
        assert!(processes.netns(A).unwrap_err().contains("no process"));
        assert!(processes.netns("").unwrap_err().contains("no UID"));
        fs::remove_dir_all(&proc).unwrap();
    }
}
