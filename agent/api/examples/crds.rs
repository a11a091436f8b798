//! Writes the CustomResourceDefinitions to a folder: `cargo xtask generate` calls it.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir: PathBuf = std::env::args_os().nth(1).ok_or("usage: crds DIR")?.into();
    std::fs::create_dir_all(&dir)?;
    for (name, definition) in weft_api::crd::definitions() {
        let text = serde_saphyr::to_string(&definition)?;
        std::fs::write(dir.join(name), format!("# Made by `cargo xtask generate` from agent/api.\n{text}"))?;
    }
    Ok(())
}
