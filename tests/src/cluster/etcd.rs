//! Objects in great number: put straight into etcd, as the API server itself would have written them.
//!
//! The API server serves and announces them like all others. To create tens of thousands by requests takes minutes of
//! two cores, which would tell of Kubernetes and not of weft. Each has a revision of its own, as there: a watch that is
//! resumed after a revision is not told what else that brought.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wait::lock;

/// Where the API server finds it.
const URL: &str = "https://127.0.0.1:23791/v3/kv";
/// Objects for each `curl`.
const PORTION: usize = 500;
/// How many write at a time.
const WRITERS: usize = 4;

/// How the API server shows who it is.
const KEYS: [(&str, &str); 3] =
    [("cacert", "etcd-ca.crt"), ("cert", "etcd-client.crt"), ("key", "etcd-client.key")];

/// The cluster's etcd.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// Certificates and keys.
    pki: PathBuf,
}

impl Etcd {
    /// Beside the administrator's kubeconfig are the keys.
    pub(crate) fn beside(kubeconfig: &str) -> Self {
        Self { pki: Path::new(kubeconfig).with_file_name("pki") }
    }

    /// Puts objects, by their keys (`/registry/pods/NAMESPACE/NAME`). They must be whole: nobody fills in defaults.
    pub fn put(&self, objects: impl Iterator<Item = (String, Value)> + Send) -> Result<()> {
        let objects = Mutex::new(objects);
        let write = || {
            loop {
                let portion: Vec<_> = lock(&objects).by_ref().take(PORTION).collect();
                if portion.is_empty() {
                    return Ok(());
                }
                self.put_portion(portion)?;
            }
        };
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().map_err(|_| anyhow!("a writer panicked"))?)
        })
    }

    fn put_portion(&self, objects: Vec<(String, Value)>) -> Result<()> {
        let mut transfers = String::new();
        for (key, object) in objects {
            let put = json!({"key": STANDARD.encode(key), "value": STANDARD.encode(object.to_string())});
            let put = put.to_string().replace('"', "\\\"");
            if !transfers.is_empty() {
                transfers.push_str("next\n");
            }
            for (flag, file) in KEYS {
                writeln!(transfers, "{flag} = {}", self.pki.join(file).display())?;
            }
            writeln!(transfers, "url = {URL}/put\noutput = /dev/null\nfail\ndata = \"{put}\"")?;
        }
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-early", "--config", "-"]);
        feed(&mut curl, transfers.as_bytes()).map(drop)
    }

    /// Deletes all whose keys begin so; answers how many there were.
    pub fn delete_all(&self, prefix: &str) -> Result<u64> {
        // The first key that does not begin so.
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().context("all of etcd")? += 1;
        let range = json!({"key": STANDARD.encode(prefix), "rangeEnd": STANDARD.encode(end)});
        let answer = self.ask("deleterange", &range)?;
        // Numbers of 64 bits are strings, and 0 is left out.
        Ok(answer["deleted"].as_str().map_or(Ok(0), str::parse)?)
    }

    fn ask(&self, what: &str, question: &Value) -> Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--data-binary", "@-"]);
        for (flag, file) in KEYS {
            curl.arg(format!("--{flag}")).arg(self.pki.join(file));
        }
        let said = feed(curl.arg(format!("{URL}/{what}")), question.to_string().as_bytes())?;
        serde_json::from_str(&said).with_context(|| format!("etcd says {said}"))
    }
}

/// Runs `curl` with something to read; answers what it printed.
fn feed(curl: &mut Command, text: &[u8]) -> Result<String> {
    let curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut curl = curl.spawn().context("cannot run curl")?;
    // It prints little, so it does not wait to be read.
    curl.stdin.take().context("no stdin")?.write_all(text)?;
    let output = curl.wait_with_output()?;
    ensure!(output.status.success(), "etcd: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
