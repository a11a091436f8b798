//! Kernel settings that a kubelet changes for the whole machine: kept, and put back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layout;

const CHANGED: [&str; 6] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

fn record() -> PathBuf {
    layout::state("sysctls")
}

/// Writes down what they are.
pub fn save() -> Result<()> {
    let line = |name: &&str| {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        Some(format!("{name} {}\n", value.trim()))
    };
    fs::write(record(), CHANGED.iter().filter_map(line).collect::<String>()).context("cannot keep sysctls")
}

/// Puts them back.
pub fn restore() {
    for line in fs::read_to_string(record()).unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(' ') {
            fs::write(Path::new("/proc/sys").join(name), value).ok();
        }
    }
}
