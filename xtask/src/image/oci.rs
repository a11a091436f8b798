//! An OCI image as a tar archive: what `ctr images import`, `podman load` and `skopeo copy oci-archive:` take.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType};

use super::rootfs::{Rootfs, header};
use crate::digest;

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// An image, as described.
pub struct Image {
    /// `HOST/PATH:TAG`.
    pub name: String,
    /// What is run.
    pub entrypoint: Vec<String>,
    /// `UID:GID` of whoever runs it; root if empty.
    pub user: &'static str,
    /// Its files.
    pub rootfs: Rootfs,
}

/// An image, as written.
pub struct Written {
    /// The manifest's digest, by which a registry would know it.
    pub digest: String,
    /// The archive's size.
    pub bytes: u64,
}

struct Blob {
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        Self { digest: digest::sha256([content.as_slice()]), content }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.content.len(),
        })
    }
}

impl Image {
    /// Writes the archive. The same image makes the same bytes.
    pub fn write(&self, to: &Path) -> Result<Written> {
        let layer = Blob::new(self.rootfs.layer()?);
        let config = Blob::json(&json!({
            "architecture": architecture(),
            "os": "linux",
            "created": EPOCH,
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "User": self.user,
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)] },
            "history": [{ "created": EPOCH, "created_by": "cargo xtask image" }],
        }));
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("config.v1+json"),
            "layers": [layer.descriptor("layer.v1.tar")],
        }));
        let mut named = manifest.descriptor("manifest.v1+json");
        named["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        named["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name.rsplit(':').next(),
        });
        let index = json!({ "schemaVersion": 2, "manifests": [named] }).to_string();

        let mut archive = Builder::new(Vec::new());
        let mut add = |path: &str, content: &[u8]| {
            archive.append_data(&mut header(EntryType::Regular, 0o644, content.len()), path, content)
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add("index.json", index.as_bytes())?;
        for blob in [&manifest, &config, &layer] {
            add(&format!("blobs/sha256/{}", blob.digest), &blob.content)?;
        }
        let content = archive.into_inner()?;
        fs::write(to, &content).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(Written { digest: format!("sha256:{}", manifest.digest), bytes: content.len() as u64 })
    }
}

/// What Go, and so OCI, calls this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{Image, Rootfs};
    use crate::digest;

    fn image() -> Image {
        let mut rootfs = Rootfs::default();
        rootfs.file("/app", "program", 0o755);
        Image { name: "weft.dev/app:1".to_owned(), entrypoint: vec!["/app".to_owned()], user: "1:1", rootfs }
    }

    #[test]
    fn the_same_image_has_the_same_digest_and_every_blob_its_name() {
        let dir = std::env::temp_dir().join(format!("weft-oci-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (one, other) = (dir.join("1.tar"), dir.join("2.tar"));
        let first = image().write(&one).expect("an archive");
        let second = image().write(&other).expect("an archive");
        let bytes = std::fs::read(&one).expect("an archive");
        assert_eq!((first.digest.as_str(), first.bytes), (second.digest.as_str(), second.bytes));
        assert_eq!(bytes, std::fs::read(&other).expect("an archive"));
        assert_eq!(first.bytes, bytes.len() as u64);

        let mut blobs = Vec::new();
        let mut index = String::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(name, digest::sha256([content.as_slice()]));
                blobs.push(format!("sha256:{name}"));
            } else if path == "index.json" {
                index = String::from_utf8(content).expect("text");
            }
        }
        assert_eq!((blobs.len(), &blobs[0]), (3, &first.digest));
        let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
        let manifest = &index["manifests"][0];
        assert_eq!(manifest["digest"], first.digest);
        assert_eq!(manifest["annotations"]["io.containerd.image.name"], "weft.dev/app:1");
        std::fs::remove_dir_all(dir).ok();
    }
}
