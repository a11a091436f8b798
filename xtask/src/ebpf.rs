//! Builds the kernel programs in `ebpf/` into one object, which the agent embeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{progress, workspace};

/// The target triple of the kernel programs.
pub const TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// What builds the kernel programs here.
pub struct Toolchain {
    /// The compiler to use.
    pub compiler: Compiler,
    /// The `bpf-linker` to use.
    pub linker: PathBuf,
}

/// A Rust compiler that can emit eBPF.
pub enum Compiler {
    /// A compiler with a compiled `core` for eBPF, as Debian packages it.
    System {
        /// Its `rustc`.
        rustc: PathBuf,
    },
    /// A rustup nightly with `rust-src`.
    Nightly,
}

/// Builds the programs; returns the object's path. Only rewrites it if it changed, so that nothing is rebuilt in vain.
pub fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let target_dir = workspace::target_dir()?;
    // A directory of its own: the agent's build script watches the object's directory.
    let build_dir = target_dir.join("ebpf-build");
    let mut command = match &toolchain.compiler {
        Compiler::System { rustc } => {
            let mut cargo = workspace::cargo();
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTC_WRAPPER").arg("build");
            cargo
        }
        Compiler::Nightly => {
            let mut rustup = Command::new("rustup");
            rustup.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
            rustup.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
            rustup
        }
    };
    let linker = toolchain.linker.to_str().context("the linker's path is not UTF-8")?;
    let flags = [
        &format!("-Clinker={linker}"),
        "-Cdebuginfo=2",
        // Atomics and 32-bit jumps; every kernel that weft runs on has them.
        "-Ctarget-cpu=v3",
        "-Clink-arg=--btf",
    ]
    .join("\u{1f}");
    command
        .current_dir(workspace::root().join("ebpf"))
        .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&build_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    let log = build_dir.join("build.log");
    progress::run_logged("eBPF programs", "", &mut command, &log)?;

    let built = build_dir.join(TARGET).join("release").join("weft");
    let object = target_dir.join("ebpf").join("weft.bpf.o");
    copy_if_changed(&built, &object)?;
    Ok(object)
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    ensure!(bytes.starts_with(b"\x7fELF"), "{} is no ELF object", from.display());
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().expect("a file in a directory"))?;
    // Renamed into place: a build running beside this one never sees half an object.
    let partial = to.with_extension(format!("{}", std::process::id()));
    fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("cannot write {}", to.display()))
}
