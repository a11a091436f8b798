//! Can this machine run the agent?

use std::fs;
use std::path::Path;

use super::Line;

/// What one look shows: a good state in words, or what is wrong and what to do.
type Finding = Result<String, (String, &'static str)>;

/// Looks at everything. Nothing is changed.
pub fn look() -> Vec<Line> {
    let looks: [(&str, Finding); 7] = [
        ("kernel", kernel(&read("/proc/sys/kernel/osrelease"))),
        ("btf", btf()),
        ("cgroup2", cgroup2(&read("/proc/self/mounts"))),
        ("bpffs", Ok(bpffs(&read("/proc/self/mounts")))),
        ("capabilities", capabilities(&read("/proc/self/status"))),
        ("bpf", bpf()),
        ("cni", Ok(cni(Path::new("/etc/cni/net.d")))),
    ];
    looks.into_iter().map(|(what, finding)| Line::new(what, finding)).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kernel(release: &str) -> Finding {
    const OLDEST: (u32, u32) = (5, 15);
    let release = release.trim();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= OLDEST {
        Ok(release.to_owned())
    } else {
        Err((format!("{release} is too old"), "weft needs Linux 5.15 or newer"))
    }
}

fn btf() -> Finding {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        Ok(path.to_owned())
    } else {
        Err((format!("{path} is missing"), "use a kernel built with CONFIG_DEBUG_INFO_BTF=y"))
    }
}

/// Where a file system of this kind is mounted.
fn mounted(mounts: &str, kind: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, found) = (fields.next()?, fields.next()?);
        (found == kind).then(|| at.to_owned())
    })
}

fn cgroup2(mounts: &str) -> Finding {
    mounted(mounts, "cgroup2").ok_or_else(|| {
        ("is not mounted".to_owned(), "mount -t cgroup2 none /sys/fs/cgroup/unified (or boot with cgroup v2)")
    })
}

fn bpffs(mounts: &str) -> String {
    mounted(mounts, "bpf").unwrap_or_else(|| "is not mounted; the agent mounts it".to_owned())
}

fn capabilities(status: &str) -> Finding {
    const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39)];
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let lacking: Vec<&str> =
        NEEDED.iter().filter(|(_, bit)| held & (1 << bit) == 0).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        Ok(NEEDED.map(|(name, _)| name).join(", "))
    } else {
        Err((format!("{} missing", lacking.join(", ")), "run as root, or grant the capabilities"))
    }
}

/// Which network plugins the kubelet would use; a machine that is no node has none.
fn cni(dir: &Path) -> String {
    let mut files: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| matches!(name.rsplit_once('.'), Some((base, "conflist" | "conf")) if !base.is_empty()))
        .collect();
    files.sort();
    match files.first() {
        // The kubelet's runtime takes the first one by name.
        Some(first) => format!("{}/{first}", dir.display()),
        None => format!("nothing in {}", dir.display()),
    }
}

fn bpf() -> Finding {
    weft_datapath::check().map(|()| "programs and maps that weft uses".to_owned()).map_err(|error| {
        (
            error.to_string(),
            "see the lines above, and the kernel's configuration (CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        assert!(kernel("6.18.44-fc\n").is_ok());
        assert!(kernel("5.15.0-91-generic").is_ok());
        assert!(kernel("5.4.0").is_err());
        assert!(kernel("").is_err());
    }

    #[test]
    fn mounts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2(mounts), Ok("/sys/fs/cgroup/unified".to_owned()));
        assert!(cgroup2("").is_err());
    }

    #[test]
    fn capabilities_of_root_and_of_nobody() {
        assert!(capabilities("Name:\tweft\nCapEff:\t000001ffffffffff\n").is_ok());
        let (problem, _) = capabilities("CapEff:\t0000000000000000\n").unwrap_err();
        assert_eq!(problem, "CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF missing");
    }
}
