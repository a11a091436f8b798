//! The applications of the scenarios, as demo and tests deploy them, and the manifests that go with them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::mesh::Mesh;

/// A manifest below `tests/fixtures`, without its ending.
pub fn fixture(name: &str) -> Result<String> {
    let path = fixture_path(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Where it is.
pub fn fixture_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.yaml"))
}

/// The web shop in `istioinaction`, which is not in the mesh yet: catalog, apigateway and a client.
pub fn deploy_shop(mesh: &Mesh) -> Result<()> {
    let ns = "istioinaction";
    mesh.namespace(ns, false)?;
    mesh.pod("client").namespace(ns).label("app", "client").start()?;
    for (name, port) in [("catalog", "3000"), ("apigateway", "3000")] {
        let pod = mesh.pod(name).namespace(ns).label("app", name).label("version", "v1");
        pod.app([name, "--port", port]).start()?;
        mesh.service(name).namespace(ns).selector("app", name).port("http", 80, 3000).create()?;
    }
    Ok(())
}

/// Bookinfo in `bookinfo`, in the mesh; reviews-v3 has a service account of its own.
pub fn deploy_bookinfo(mesh: &Mesh) -> Result<()> {
    deploy_bookinfo_on(mesh, |_| None)
}

/// The same, with each app's pods on the node that is told.
pub fn deploy_bookinfo_on(mesh: &Mesh, node: impl Fn(&str) -> Option<&'static str>) -> Result<()> {
    let ns = "bookinfo";
    mesh.namespace(ns, true)?;
    for app in ["details", "ratings", "reviews", "productpage"] {
        mesh.service(app).namespace(ns).selector("app", app).port("http", 9080, 9080).create()?;
    }
    let pods = [
        ("details", "v1"),
        ("ratings", "v1"),
        ("reviews", "v1"),
        ("reviews", "v2"),
        ("reviews", "v3"),
        ("productpage", "v1"),
    ];
    for (app, version) in pods {
        let mut pod =
            mesh.pod(&format!("{app}-{version}")).namespace(ns).label("app", app).label("version", version);
        if let Some(node) = node(app) {
            pod = pod.node(node);
        }
        let account = if version == "v3" { format!("bookinfo-{app}-v3") } else { format!("bookinfo-{app}") };
        pod.service_account(&account).app([app, "--port", "9080"]).start()?;
    }
    Ok(())
}

/// FTGO's consumer service in `ftgo`, in the mesh, v1 and v2 deployed.
pub fn deploy_ftgo(mesh: &Mesh) -> Result<()> {
    let (ns, app) = ("ftgo", "ftgo-consumer-service");
    mesh.namespace(ns, true)?;
    mesh.service(app).namespace(ns).selector("app", app).port("http", 8080, 8080).create()?;
    for version in ["v1", "v2"] {
        let pod =
            mesh.pod(&format!("{app}-{version}")).namespace(ns).label("app", app).label("version", version);
        pod.app(["consumer", "--port", "8080"]).start()?;
    }
    Ok(())
}

/// GETs on a connection that is open, and leaves it open; answers head and body.
pub fn ask_again(stream: &mut TcpStream, host: &str, path: &str) -> Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        anyhow::ensure!(count > 0, "the connection ended: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..count]);
        let so_far = String::from_utf8_lossy(&text).to_ascii_lowercase();
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let whole = match length {
            Some(length) => body.len() >= length.trim().parse()?,
            None => body.ends_with("0\r\n\r\n"),
        };
        if whole {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}
