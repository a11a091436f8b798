//! Writes what of the manifests follows from the code: `cargo xtask generate` calls it.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let manifests: PathBuf = std::env::args_os().nth(1).ok_or("usage: generate MANIFESTS")?.into();
    for (name, definition) in weft_api::crd::definitions() {
        let text = serde_saphyr::to_string(&definition)?;
        let text = format!("# Made by `cargo xtask generate` from agent/api.\n{text}");
        fs::write(manifests.join("crds").join(name), text)?;
    }
    for file in fs::read_dir(manifests.join("base"))? {
        let path = file?.path();
        let before = fs::read_to_string(&path)?;
        let after = weft_api::kinds::manifest::renewed(&before)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        if before != after {
            fs::write(&path, after)?;
        }
    }
    Ok(())
}
