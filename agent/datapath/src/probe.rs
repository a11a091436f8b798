//! Says in one sentence what a kernel lacks, or what this process may not do.

use std::fs;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};

use super::error::DatapathError;
use super::mounts::{self, Seat};

/// The oldest kernel that has everything.
const OLDEST: (u32, u32) = (5, 15);

/// Capabilities that the agent needs, with their numbers and reasons.
const CAPABILITIES: &[(&str, u32, &str)] = &[
    ("CAP_NET_ADMIN", 12, "attaching programs, transparent sockets, routes in pods"),
    ("CAP_SYS_ADMIN", 21, "entering the network namespaces of pods"),
    ("CAP_BPF", 39, "loading programs"),
];

/// Looks for everything that weft needs here; nothing is changed.
///
/// # Errors
/// [`DatapathError::Unsupported`], which names all that is missing.
pub fn check() -> Result<(), DatapathError> {
    match missing() {
        Some((missing, cure)) => Err(DatapathError::Unsupported { missing, cure }),
        None => mounts::cgroup_root(Seat::Anywhere).map(drop),
    }
}

/// What is missing, and its cure.
fn missing() -> Option<(String, String)> {
    let effective =
        fs::read_to_string("/proc/thread-self/status").ok().and_then(|text| effective_caps(&text));
    if let Some(lacking) = effective.map(lacking).filter(|lacking| !lacking.is_empty()) {
        let names: Vec<String> = lacking.iter().map(|(name, _, why)| format!("{name} ({why})")).collect();
        return Some((
            format!("the agent lacks {}", names.join(", ")),
            "run it as root, or grant the capabilities".to_owned(),
        ));
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    if version(release).is_some_and(|version| version < OLDEST) {
        return Some((
            format!("kernel {release} is too old"),
            format!("weft needs Linux {}.{} or newer", OLDEST.0, OLDEST.1),
        ));
    }
    let programs = [
        (ProgramType::CgroupSockAddr, "programs at connect (CONFIG_CGROUP_BPF)"),
        (ProgramType::SockOps, "programs at TCP events (CONFIG_CGROUP_BPF)"),
        (ProgramType::SkLookup, "programs at socket lookup (CONFIG_NET, CONFIG_BPF_SYSCALL)"),
    ];
    let maps = [
        (MapType::SkStorage, "storage in sockets (CONFIG_NET, CONFIG_BPF_SYSCALL)"),
        (MapType::SockHash, "maps of sockets (CONFIG_BPF_STREAM_PARSER)"),
    ];
    let programs = programs.iter().filter(|(kind, _)| matches!(is_program_supported(*kind), Ok(false)));
    let maps = maps.iter().filter(|(kind, _)| matches!(is_map_supported(*kind), Ok(false)));
    let lacking: Vec<&str> = programs.map(|(_, what)| *what).chain(maps.map(|(_, what)| *what)).collect();
    if lacking.is_empty() {
        return None;
    }
    Some((
        format!("kernel {release} has no eBPF {}", lacking.join(", ")),
        "use a kernel with these options; those of Debian, Ubuntu, RHEL 9 and the cloud providers have them"
            .to_owned(),
    ))
}

fn effective_caps(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn lacking(effective: u64) -> Vec<&'static (&'static str, u32, &'static str)> {
    CAPABILITIES.iter().filter(|(_, number, _)| effective & (1 << number) == 0).collect()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::{effective_caps, lacking, version};

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.15.0-91-generic"), Some((5, 15)));
        assert!(version("5.4.0") < version("5.15.0"));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let root = effective_caps("Name:\tx\nCapEff:\t000001ffffffffff\n").unwrap_or(0);
        assert!(lacking(root).is_empty());
        let names: Vec<&str> = lacking(1 << 12).iter().map(|(name, _, _)| *name).collect();
        assert_eq!(names, ["CAP_SYS_ADMIN", "CAP_BPF"]);
    }
}
