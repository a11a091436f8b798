//! Keeps what a ConfigMap of the CA holds in a file: its roots, which the controller publishes, and its revocation lists.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use kube::Client;
use tokio::sync::watch::Receiver;
use weft_api::kubernetes::ConfigMap;
use weft_api::names;

use super::contact::Contact;
use super::item::Item;
use super::kinds::Watched;
use super::watch::{self, Event};

/// What belongs into which file.
#[derive(Debug, Clone)]
pub struct Kept {
    /// For people.
    pub what: &'static str,
    /// The ConfigMap.
    pub watched: Watched,
    /// Its key.
    pub key: &'static str,
    /// The file.
    pub file: PathBuf,
}

impl Kept {
    /// The roots of the CA.
    pub fn roots(file: PathBuf) -> Self {
        Self { what: "roots", watched: Watched::ca_root(), key: names::CA_ROOT_KEY, file }
    }

    /// What it has taken back.
    pub fn revocations(file: PathBuf) -> Self {
        let (watched, key) = (Watched::ca_revocations(), names::CA_REVOCATIONS_KEY);
        Self { what: "revocation lists", watched, key, file }
    }
}

/// Writes the file whenever the ConfigMap changes. A ConfigMap that is gone, or holds nothing, takes nothing away.
pub async fn keep(client: Client, contact: Contact, asked: Receiver<u64>, kept: Kept) {
    let Kept { what, watched, key, file } = kept;
    let mut events = Box::pin(watch::follow(client, contact, watched, asked));
    while let Some(event) = events.next().await {
        let Event::Is(item) = event else { continue };
        let Some(text) = value(&item, key) else {
            tracing::warn!("ConfigMap {} holds no {key}", item.name());
            continue;
        };
        match write(&file, &text) {
            Ok(true) => tracing::info!(file = %file.display(), "the {what} of the mesh's CA are there"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot write the {what} of the mesh's CA");
            }
        }
    }
}

fn value(item: &Item, key: &str) -> Option<String> {
    let mut config_map: ConfigMap = serde_json::from_str(item.text()).ok()?;
    config_map.data.remove(key).filter(|text| !text.trim().is_empty())
}

/// Puts the file into place whole; false if it is there already.
fn write(file: &Path, roots: &str) -> io::Result<bool> {
    if std::fs::read(file).is_ok_and(|before| before == roots.as_bytes()) {
        return Ok(false);
    }
    weft_files::write(file, 0o644, roots.as_bytes())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn the_file_is_written_when_it_differs() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("ca-root.pem");
        assert!(write(&file, "a").unwrap());
        assert!(!write(&file, "a").unwrap());
        assert!(write(&file, "b").unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "b");
        let item: Item =
            serde_json::from_str(r#"{"metadata": {"name": "r"}, "data": {"root-cert.pem": " "}}"#).unwrap();
        assert_eq!(value(&item, names::CA_ROOT_KEY), None);
    }
}
