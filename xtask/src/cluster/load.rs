//! Images for the nodes.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use weft_tests::eventually;
use weft_tests::process::Output;

use super::layout::{NODES, Node};
use super::node;

/// containerd tells the kubelet's side of it about a new image; until then a pod would find none, and wait for long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Imports each archive into every node; answers the images' names.
pub fn run(archives: &[PathBuf]) -> Result<Vec<String>> {
    let archives = archives
        .iter()
        .map(|file| file.canonicalize().with_context(|| format!("cannot read {}", file.display())))
        .collect::<Result<Vec<_>>>()?;
    let mut names: Vec<String> = thread::scope(|scope| {
        let nodes: Vec<_> = NODES.iter().map(|node| scope.spawn(|| import(node, &archives))).collect();
        let ended = nodes.into_iter().map(|node| node.join().map_err(|_| anyhow!("an import panicked"))?);
        ended.collect::<Result<Vec<_>>>()
    })?
    .concat();
    names.sort();
    names.dedup();
    Ok(names)
}

fn import(node: &Node, archives: &[PathBuf]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for archive in archives {
        let file = archive.display().to_string();
        let output = ctr(node, &["import", &file]).with_context(|| format!("{file} into {}", node.name))?;
        names.extend(imported(&output));
    }
    eventually("the kubelet's runtime knows the images", PATIENCE, || {
        let known = ctr(node, &["list", "--quiet", "labels.\"io.cri-containerd.image\"==managed"])?;
        let missing = names.iter().find(|name| !known.lines().any(|line| line == *name));
        ensure!(missing.is_none(), "{missing:?} is not among them");
        Ok(())
    })?;
    Ok(names)
}

fn ctr(node: &Node, words: &[&str]) -> Result<String> {
    let words = ["ctr", "-n", "k8s.io", "images"].iter().chain(words);
    let words: Vec<String> = words.map(|&word| word.to_owned()).collect();
    Output::of(&mut node::command(node, &words)?)?.good()
}

/// The names in lines such as `unpacking NAME (sha256:…)...done`.
fn imported(output: &str) -> impl Iterator<Item = String> {
    output.lines().filter_map(|line| Some(line.strip_prefix("unpacking ")?.split_once(" (")?.0.to_owned()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_read_from_what_ctr_says() {
        let said = "unpacking weft.dev/app:0.1.0 (sha256:00ff)...done\n";
        assert_eq!(super::imported(said).collect::<Vec<_>>(), ["weft.dev/app:0.1.0"]);
    }
}
