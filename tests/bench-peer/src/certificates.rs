//! Writes certificates of servers, as files.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair};

#[derive(clap::Args)]
pub struct Args {
    /// Where to: `N.crt` and `N.key`
    #[arg(long)]
    dir: PathBuf,
    /// They are of `0.NAME` and so on
    #[arg(long)]
    name: String,
    /// How many
    #[arg(long, default_value_t = 1)]
    count: usize,
}

/// Writes them.
pub fn write(args: &Args) -> Result<()> {
    for index in 0..args.count {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([format!("{index}.{}", args.name)])?.self_signed(&key)?;
        fs::write(args.dir.join(format!("{index}.crt")), certificate.pem())?;
        fs::write(args.dir.join(format!("{index}.key")), key.serialize_pem())?;
    }
    Ok(())
}
