//! Container images, written as OCI archives without Docker: from nothing, and the same bytes for the same input.

mod contents;
mod oci;
mod rootfs;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{build, cluster, setup, workspace};
use oci::{Image, Written};

/// weft itself.
pub const WEFT: &str = concat!("weft.dev/weft:", env!("CARGO_PKG_VERSION"));
/// The test application.
pub const APP: &str = concat!("weft.dev/app:", env!("CARGO_PKG_VERSION"));
/// What does nothing.
pub const PAUSE: &str = "weft.dev/pause:1";

/// The cluster DNS.
pub fn coredns_name() -> Result<String> {
    Ok(format!("weft.dev/coredns:{}", cluster::coredns_version()?))
}

/// Flags of `cargo xtask image`.
#[derive(clap::Args)]
pub struct Args {
    /// Which build of weft and of the test application
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Take what `cargo xtask build` built last
    #[arg(long)]
    no_build: bool,
}

/// A cargo profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Quick to build, large, slow
    Dev,
    /// Optimised
    Release,
}

impl Profile {
    /// Where cargo puts it.
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Writes all images to `images/` in cargo's target directory.
pub fn run(args: &Args) -> Result<()> {
    setup::cluster_programs()?;
    if !args.no_build {
        build::run(&build::Args { release: args.profile == Profile::Release, fips: false })?;
    }
    let (dir, programs) = places(args.profile)?;
    for (file, image) in [
        ("weft", contents::weft(&programs)?),
        ("app", contents::app(&programs)?),
        ("pause", contents::pause()?),
        ("coredns", contents::coredns()?),
    ] {
        let path = dir.join(format!("{file}.tar"));
        print(&image, &path, &image.write(&path)?);
    }
    Ok(())
}

/// Writes weft's image and the test application's, as built last; answers where they are.
pub fn write_for_tests() -> Result<Vec<PathBuf>> {
    let (dir, programs) = places(Profile::Dev)?;
    let images = [("weft", contents::weft(&programs)?), ("app", contents::app(&programs)?)];
    images.iter().map(|(file, image)| write(&dir, file, image)).collect()
}

/// Writes what every cluster begins with.
pub fn write_for_cluster(dir: &Path) -> Result<()> {
    write(dir, "pause", &contents::pause()?)?;
    write(dir, "coredns", &contents::coredns()?).map(drop)
}

fn write(dir: &Path, file: &str, image: &Image) -> Result<PathBuf> {
    let path = dir.join(format!("{file}.tar"));
    image.write(&path)?;
    Ok(path)
}

/// Where images go, and where the programs are.
fn places(profile: Profile) -> Result<(PathBuf, PathBuf)> {
    let target = workspace::target_dir()?;
    let dir = target.join("images");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok((dir, target.join(profile.folder())))
}

#[expect(clippy::cast_precision_loss, reason = "sizes are shown to a tenth of a megabyte")]
fn print(image: &Image, path: &Path, written: &Written) {
    let megabytes = written.bytes as f64 / 1e6;
    println!("{:<28} {} {megabytes:>6.1} MB  {}", image.name, written.digest, path.display());
}
