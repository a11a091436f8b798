//! Control groups: each node has one of its own in every hierarchy of the machine, be there one or a dozen.
//!
//! Two kubelets in one hierarchy would take each other's pods for orphans and end them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is.
    pub path: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub kind: String,
    /// What to mount it with again: its controllers, or its name.
    pub data: String,
}

/// Those of this machine.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    Ok(parse(&fs::read_to_string("/proc/self/mounts").context("cannot read mounts")?))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| Hierarchy {
            path: path.into(),
            kind: kind.to_owned(),
            data: if kind == "cgroup" { controllers(options) } else { String::new() },
        })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

/// The options that name what a version 1 hierarchy holds.
fn controllers(options: &str) -> String {
    const GENERAL: [&str; 9] =
        ["rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children"];
    let own: Vec<&str> = options
        .split(',')
        .filter(|option| !GENERAL.contains(option) && !option.starts_with("release_agent="))
        .collect();
    if own.iter().any(|option| option.starts_with("name=")) {
        return format!("none,{}", own.join(","));
    }
    own.join(",")
}

/// Makes the group `name` at the top of each of these, and puts this process and what it will start in it.
pub fn join(hierarchies: &[Hierarchy], name: &str) -> Result<()> {
    // Beside version 1, which has the controllers, version 2 is there for its groups alone.
    if let [only] = hierarchies
        && only.kind == "cgroup2"
    {
        share_controllers(&only.path);
    }
    hierarchies.iter().try_for_each(|hierarchy| join_one(hierarchy, name))
}

fn join_one(hierarchy: &Hierarchy, name: &str) -> Result<()> {
    let parent = &hierarchy.path;
    let group = parent.join(name);
    fs::create_dir_all(&group).with_context(|| format!("cannot create {}", group.display()))?;
    // A new group of version 1 has neither processors nor memory, and takes nobody in.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if hierarchy.kind == "cgroup" && group.join(file).exists() {
            fs::write(group.join(file), fs::read(parent.join(file))?)?;
        }
    }
    let id = std::process::id().to_string();
    fs::write(group.join("cgroup.procs"), id).with_context(|| format!("cannot join {}", group.display()))
}

/// Lets the groups below have what this one has. Where processes are in it, they cannot: then the kubelet does it.
fn share_controllers(group: &Path) {
    let offered = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in offered.split_whitespace() {
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}

/// All processes in groups of that name, and below.
pub fn processes(name: &str) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for group in groups(name)? {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        ids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Removes the groups of that name; true if none is left.
pub fn remove(name: &str) -> Result<bool> {
    for group in groups(name)? {
        fs::remove_dir(group).ok();
    }
    Ok(groups(name)?.is_empty())
}

/// Groups of that name and below, in all hierarchies; the lowest first.
fn groups(name: &str) -> Result<Vec<PathBuf>> {
    fn collect(dir: PathBuf, into: &mut Vec<PathBuf>) {
        let children = fs::read_dir(&dir).into_iter().flatten().flatten();
        for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
            collect(child.path(), into);
        }
        into.push(dir);
    }
    let mut all = Vec::new();
    for hierarchy in hierarchies()? {
        let top = hierarchy.path.join(name);
        if top.is_dir() {
            collect(top, &mut all);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn hierarchies_are_read_from_mounts() {
        let mounts = "proc /proc proc rw 0 0\n\
             cgroup /sys/fs/cgroup/cpuset cgroup rw,nosuid,relatime,cpuset 0 0\n\
             cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
             cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,release_agent=/lib/a,name=systemd 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime,nsdelegate 0 0\n";
        let found = parse(mounts);
        let data: Vec<&str> = found.iter().map(|hierarchy| hierarchy.data.as_str()).collect();
        assert_eq!(data, ["cpuset", "cpu,cpuacct", "none,name=systemd", ""]);
        assert_eq!(found[3].kind, "cgroup2");
    }
}
