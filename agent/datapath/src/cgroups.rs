//! Which pod a process belongs to, by its control groups: the kubelet names those of a pod after its UID.

use std::fs;
use std::path::Path;

/// The UID of the pod that a process (`/proc/PID`) belongs to; `Err`: it cannot be read, for example because it has ended.
pub fn pod_of(process: &Path) -> std::io::Result<Option<String>> {
    let cgroups = fs::read_to_string(process.join("cgroup"))?;
    // HIERARCHY:CONTROLLERS:PATH
    Ok(cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(pod_uid))
}

/// The UID in a control group's path: the outermost directory that is named after a pod counts, for a pod may make others
/// within its own. Forms: `pod<UID>` (cgroupfs), `kubepods-burstable-pod<UID with _ for ->.slice` (systemd).
pub fn pod_uid(path: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0f6b1f9e-2a30-4c7e-9d55-7a3c1f0e8b11";
    const B: &str = "11111111-2222-3333-4444-555555555555";

    #[test]
    fn a_pods_uid_is_read_from_every_form_of_path() {
        let systemd = A.replace('-', "_");
        for path in [
            format!("/kubepods/burstable/pod{A}/0a1b"),
            format!("/kubepods/pod{A}/0a1b"),
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{systemd}.slice/cri-containerd-0a1b.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{systemd}.slice/crio-0a1b.scope/container"),
            format!("/../../burstable/pod{A}/0a1b"),
            // Made by the pod itself, to be taken for another.
            format!("/kubepods/burstable/pod{A}/0a1b/pod{B}/x"),
        ] {
            assert_eq!(pod_uid(&path).as_deref(), Some(A), "{path}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(pod_uid(&format!("/kubepods/pod{hash}/x")).as_deref(), Some(hash));
        for path in ["/", "/system.slice/podman.service", "/user.slice/pod123", "nonsense", "/kubepods"] {
            assert_eq!(pod_uid(path), None, "{path}");
        }
    }
}
