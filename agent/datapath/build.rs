//! Hands the eBPF object that `cargo xtask build` made to the compiler, or an empty one if there is none yet:
//! then everything but starting an agent works.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=WEFT_EBPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = match env::var_os("WEFT_EBPF_OBJECT") {
        Some(path) => Some(PathBuf::from(path)),
        None => built_by_xtask(&out),
    };
    let bytes = match object {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
        }
        None => Vec::new(),
    };
    fs::write(out.join("weft.bpf.o"), bytes).expect("OUT_DIR is writable");
}

/// `TARGET_DIR/ebpf/weft.bpf.o`. While it is missing its directory is watched: watching a missing file would rebuild
/// this crate every time.
fn built_by_xtask(out: &Path) -> Option<PathBuf> {
    let build_dir = out.ancestors().find(|dir| dir.file_name().is_some_and(|name| name == "build"))?;
    // TARGET_DIR/PROFILE/build, or TARGET_DIR/TRIPLE/PROFILE/build.
    let candidates: Vec<PathBuf> =
        build_dir.ancestors().skip(2).take(2).map(|dir| dir.join("ebpf")).collect();
    if let Some(object) = candidates.iter().map(|dir| dir.join("weft.bpf.o")).find(|file| file.is_file()) {
        return Some(object);
    }
    let dir = candidates.first()?;
    if fs::create_dir_all(dir).is_ok() {
        println!("cargo::rerun-if-changed={}", dir.display());
    }
    None
}
