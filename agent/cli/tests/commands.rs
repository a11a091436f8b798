//! The commands as a shell runs them, where no agent is needed.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const BAD: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\n\
spec:\n  hosts: [web]\n  http:\n  - route: [{destination: {host: web}, weigth: 5}]\n";
const GOOD: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

fn weft(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(args).env_remove("WEFT_STANDALONE").env("WEFT_RUN_DIR", "/nonexistent/weft");
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    told(&weft(args).output().expect("the binary runs"))
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A folder with these files; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let dir = std::env::temp_dir().join(format!("weft-cli-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = dir.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn version_says_that_there_is_no_mesh_and_that_is_no_failure() {
    let (code, out, _) = run(&["version"]);
    assert_eq!(code, 0);
    assert!(out.contains(env!("CARGO_PKG_VERSION")) && out.contains("no mesh was found"), "{out}");
}

#[test]
fn without_an_agent_it_is_said_how_to_start_one() {
    for args in [
        &["status"][..],
        &["get", "routes"],
        &["get", "certificates"],
        &["get", "policies"],
        &["explain", "--from-address", "10.0.0.1", "c"],
        &["edges"],
        &["tap"],
        &["explain", "a.b", "c"],
    ] {
        let (code, out, err) = run(args);
        assert_eq!(code, 1, "{args:?}");
        assert!(out.is_empty());
        assert!(err.contains("weft agent --standalone DIR --run-dir /nonexistent/weft"), "{err}");
    }
}

#[test]
fn wrong_usage_is_2() {
    for args in [
        &["agent", "--standalone", "d", "--ca-address", "https://ca", "--ca-dir", "ca"][..],
        &["agent", "--standalone", "d", "--workers", "0"],
        &["status", "--nonsense"],
        &["analyze"],
        &["tap", "--status", "x"],
        &["explain", "a.b"],
        &["explain", "--from-address", "somewhere", "c"],
        &["explain", "--from-address", "10.0.0.1"],
        &["edges", "--from", "pod/x"],
        &["edges", "--interval", "-1"],
        &["get", "nodes"],
        &["nonsense"],
        &[],
    ] {
        let (code, _, err) = run(args);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(!err.is_empty());
    }
}

#[test]
fn analyze_finds_errors_in_files_folders_and_standard_input() {
    let folder =
        Folder::new("analyze", &[("deep/bad.yaml", BAD), ("good.yaml", GOOD), (".hidden.yaml", BAD)]);
    let (code, out, _) = run(&["analyze", "--offline", folder.path()]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("VirtualService/shop/web") && out.contains("bad.yaml:7"), "{out}");
    assert!(out.contains("in 2 files"), "{out}");

    let (code, out, _) = run(&["analyze", &format!("{}/good.yaml", folder.path()), "-o", "json"]);
    assert_eq!((code, &*out), (0, "[]\n"));

    let mut child =
        weft(&["analyze", "-", "-o", "json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(BAD.as_bytes()).unwrap();
    let (code, out, _) = told(&child.wait_with_output().unwrap());
    let findings: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1);
    assert_eq!(findings[0]["severity"], "error");
    for field in ["code", "resource", "path", "message", "file", "line"] {
        assert!(!findings[0][field].is_null(), "{field} in {out}");
    }

    let (code, _, err) = run(&["analyze", "/nonexistent.yaml"]);
    assert_eq!(code, 1);
    assert!(err.contains("/nonexistent.yaml"), "{err}");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let mut child =
        weft(&["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(err, "");
}

#[test]
fn an_agent_whose_folder_is_missing_says_so() {
    let run_dir = Folder::new("agent", &[("x", "")]);
    let (code, _, err) = run(&["agent", "--standalone", "/nonexistent/dir", "--run-dir", run_dir.path()]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot read the folder /nonexistent/dir"), "{err}");
}
