//! Where a node has files of its own that its programs look for at usual places. The machine's, if it has any, are hidden
//! from the node and not touched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layout::{self, Node};

/// A folder of the node's state, and where the node has it.
const PLACES: [(&str, &str); 7] = [
    ("kubelet", "/var/lib/kubelet"),
    ("containerd", "/var/lib/containerd"),
    ("cni-state", "/var/lib/cni"),
    ("cni-conf", "/etc/cni/net.d"),
    ("cni-bin", "/opt/cni/bin"),
    ("etc-kubernetes", "/etc/kubernetes"),
    ("log", "/var/log"),
];

/// Each folder of a node, and its place.
pub fn of(node: &Node) -> impl Iterator<Item = (PathBuf, &'static str)> {
    let dir = node.dir();
    PLACES.into_iter().map(move |(folder, place)| (dir.join(folder), place))
}

/// Makes the places that this machine lacks, and remembers them.
pub fn make() -> Result<()> {
    let mut made = String::new();
    for (_, place) in PLACES {
        let lacking: Vec<&Path> = Path::new(place).ancestors().take_while(|path| !path.exists()).collect();
        for path in lacking.into_iter().rev() {
            fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
            made = format!("{}\n{made}", path.display());
            fs::write(record(), &made)?;
        }
    }
    Ok(())
}

/// Removes those that were made here, where nobody has put something in them.
pub fn remove() {
    for path in fs::read_to_string(record()).unwrap_or_default().lines() {
        fs::remove_dir(path).ok();
    }
}

fn record() -> PathBuf {
    layout::state("made-directories")
}
