//! Finds or installs what weft's build, tests and benchmarks need. Does nothing, and needs no network, the second time.

mod packages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ebpf::{self, Compiler, Toolchain};
use crate::{cluster, progress, workspace};

/// The version of bpf-linker that is built when the machine brings none.
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM that Debian's eBPF-capable compiler goes with.
const LLVM: &str = "22";

/// Flags of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Args {
    /// Only what a build needs, not the programs of tests and benchmarks
    #[arg(long)]
    build_only: bool,
}

/// Sets this machine up.
pub fn run(args: &Args) -> Result<()> {
    ebpf_toolchain()?;
    if !args.build_only {
        test_programs()?;
        cluster_programs()?;
    }
    eprintln!(
        "Ready: `cargo xtask build`, `cargo xtask demo`, `cargo xtask cluster up`, `cargo xtask test`."
    );
    Ok(())
}

/// Installs the programs that tests, demo and benchmarks run.
pub fn test_programs() -> Result<()> {
    packages::ensure("programs for demo, tests and benchmarks", packages::FOR_TESTS)
}

/// Installs and builds what a Kubernetes cluster on this machine consists of.
pub fn cluster_programs() -> Result<()> {
    packages::ensure("programs for a cluster", packages::FOR_CLUSTER)?;
    let _lock = lock_cache()?;
    cluster::ensure_programs()
}

/// The toolchain for the kernel programs, installed if it is missing.
pub fn ebpf_toolchain() -> Result<Toolchain> {
    eprintln!("eBPF toolchain:");
    if let Some(linker) = workspace::in_path("bpf-linker")
        && has_nightly_with_source()
    {
        progress::already(&format!("rustup's nightly with rust-src, {}", linker.display()));
        return Ok(Toolchain { compiler: Compiler::Nightly, linker });
    }
    let _lock = lock_cache()?;
    let rustc = if let Some(rustc) = system_rustc() {
        rustc
    } else {
        packages::ensure("a compiler that can emit eBPF", packages::FOR_COMPILER)?;
        system_rustc().context(
            "the packages are installed, but no rustc in /usr/bin or /usr/local/bin has `core` for eBPF",
        )?
    };
    progress::already(&format!("{} with core for {}", rustc.display(), ebpf::TARGET));
    let linker = cached_linker()?;
    Ok(Toolchain { compiler: Compiler::System { rustc }, linker })
}

/// Two set-ups at once would install the same things over each other.
fn lock_cache() -> Result<fs::File> {
    let dir = workspace::cache_dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let lock = fs::File::create(dir.join("setup.lock"))?;
    lock.lock().context("cannot lock weft's cache")?;
    Ok(lock)
}

fn has_nightly_with_source() -> bool {
    let sysroot = Command::new("rustup")
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .output();
    let Ok(output) = sysroot else { return false };
    let root = String::from_utf8_lossy(&output.stdout);
    output.status.success()
        && Path::new(root.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// A compiler outside rustup that carries a compiled `core` for eBPF.
fn system_rustc() -> Option<PathBuf> {
    ["/usr/local/bin/rustc", "/usr/bin/rustc"].map(PathBuf::from).into_iter().find(|rustc| {
        let libdir =
            Command::new(rustc).args(["--print", "target-libdir", "--target", ebpf::TARGET]).output();
        libdir.is_ok_and(|output| {
            let dir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
            let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
            names.into_iter().any(|name| name.to_string_lossy().starts_with("libcore"))
        })
    })
}

/// The linker in weft's cache, built once for each version of it and of LLVM.
fn cached_linker() -> Result<PathBuf> {
    let root = workspace::cache_dir()?.join(format!("bpf-linker-{LINKER_VERSION}-llvm-{LLVM}"));
    let linker = root.join("bin/bpf-linker");
    if workspace::is_executable(&linker) {
        progress::already(&format!("bpf-linker {LINKER_VERSION} ({})", linker.display()));
        return Ok(linker);
    }
    packages::ensure("what bpf-linker is built with", packages::FOR_LINKER)?;
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM}"));
    if !llvm.is_dir() {
        bail!("bpf-linker needs LLVM {LLVM} in {}; install your system's packages of it", llvm.display());
    }
    let build_dir = root.join("build");
    let mut command = workspace::cargo();
    command
        .env("LLVM_PREFIX", &llvm)
        // Its own target directory: flags and profile are not those of the workspace.
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", &build_dir)
        .args(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(&root);
    let what = format!("bpf-linker {LINKER_VERSION}, built for LLVM {LLVM}");
    progress::run_logged(&what, "about a minute, once", &mut command, &root.join("build.log"))?;
    // Only the binary is of use from here on.
    fs::remove_dir_all(&build_dir).ok();
    Ok(linker)
}
