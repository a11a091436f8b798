//! What is in each image.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use weft_tests::process::Output;

use super::oci::Image;
use super::rootfs::Rootfs;
use super::{APP, PAUSE, WEFT, coredns_name};
use crate::{cluster, workspace};

/// Whoever needs no right runs as this: nobody's number on any machine.
const UNPRIVILEGED: &str = "65532:65532";
/// The roots that programs trust, as Debian keeps them.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Applets that end or begin machines, and busybox itself.
const NOT_LINKED: [&str; 5] = ["busybox", "halt", "init", "poweroff", "reboot"];

/// The agent, the CA, the CNI plugin: one program. Root, for the agent; what needs less says so in its pod.
pub fn weft(programs: &Path) -> Result<Image> {
    let mut rootfs = Rootfs::default();
    rootfs.program("/weft", &programs.join("weft"))?;
    // The keys of issuers of tokens are fetched over HTTPS.
    if let Ok(roots) = fs::read(ROOTS) {
        rootfs.file(ROOTS, roots, 0o644);
    }
    resolver(&mut rootfs);
    Ok(Image { name: WEFT.to_owned(), entrypoint: vec!["/weft".to_owned()], user: "", rootfs })
}

/// The test application, with a shell, the usual small programs and `curl`.
pub fn app(programs: &Path) -> Result<Image> {
    let mut rootfs = Rootfs::default();
    rootfs.program("/app", &programs.join("weft-app"))?;
    let busybox = workspace::in_path("busybox").context("no busybox (package busybox-static)")?;
    rootfs.program("/bin/busybox", &busybox)?;
    for applet in Output::of(Command::new(&busybox).arg("--list"))?.good()?.lines() {
        if !NOT_LINKED.contains(&applet) {
            rootfs.link(&format!("/bin/{applet}"), "busybox");
        }
    }
    let curl = workspace::in_path("curl").context("no curl")?;
    rootfs.program("/usr/bin/curl", &curl)?;
    rootfs.directory("/tmp", 0o1777);
    resolver(&mut rootfs);
    Ok(Image { name: APP.to_owned(), entrypoint: vec!["/app".to_owned()], user: UNPRIVILEGED, rootfs })
}

/// Does nothing: every pod's first container, and a gateway's only one.
pub fn pause() -> Result<Image> {
    let built = std::env::temp_dir().join(format!("weft-pause-{}", std::process::id()));
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-Os", "-s", "-o"])
        .arg(&built)
        .arg(workspace::root().join("xtask/cluster/pause/pause.c"));
    Output::of(&mut gcc)?.good().context("gcc (packages gcc and libc6-dev)")?;
    let mut rootfs = Rootfs::default();
    rootfs.program("/pause", &built)?;
    fs::remove_file(built)?;
    Ok(Image { name: PAUSE.to_owned(), entrypoint: vec!["/pause".to_owned()], user: UNPRIVILEGED, rootfs })
}

/// The cluster DNS. Root, for port 53; its pod drops the other rights.
pub fn coredns() -> Result<Image> {
    let mut rootfs = Rootfs::default();
    rootfs.program("/coredns", &cluster::program("coredns")?)?;
    Ok(Image { name: coredns_name()?, entrypoint: vec!["/coredns".to_owned()], user: "", rootfs })
}

/// Names are looked up in `/etc/hosts`, then asked of the cluster DNS. Without this, libc would ask for `localhost` too.
fn resolver(rootfs: &mut Rootfs) {
    rootfs.file("/etc/nsswitch.conf", "hosts: files dns\n", 0o644);
}
