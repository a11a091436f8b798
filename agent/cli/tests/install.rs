//! `weft manifest generate` gives what `kubectl kustomize` gives.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn generate(args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    objects(&output(command.args(["manifest", "generate"]).args(args)))
}

fn objects(yaml: &str) -> Vec<Value> {
    let mut all: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    all.sort_by_key(|object| {
        let at = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (at("/kind"), at("/metadata/namespace"), at("/metadata/name"))
    });
    all
}

/// On the search path, or where `cargo xtask cluster` builds it.
fn kubectl() -> Option<PathBuf> {
    let built = std::env::home_dir()?.join(".cache/weft");
    let built = std::fs::read_dir(built).into_iter().flatten().flatten();
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join("kubectl"))
        .chain(built.map(|dir| dir.path().join("bin/kubectl")))
        .find(|path| path.is_file())
}

#[test]
fn every_profile_is_what_kustomize_makes_of_it() {
    let Some(kubectl) = kubectl() else {
        eprintln!("skipped: there is no kubectl");
        return;
    };
    for profile in ["default", "demo", "gateway", "minimal"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/overlays").join(profile);
        let wanted = objects(&output(Command::new(&kubectl).arg("kustomize").arg(dir)));
        let found = generate(&["--set", &format!("profile={profile}")]);
        assert_eq!(found.len(), wanted.len(), "{profile}");
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found, wanted, "{profile}");
        }
    }
}

#[test]
fn settings_are_in_the_yaml() {
    let text =
        serde_json::to_string(&generate(&["--image", "example/weft:1", "--set", "accessLog=off"])).unwrap();
    assert!(text.contains("example/weft:1") && !text.contains("weft.dev/weft:"), "{text}");
    assert!(text.contains(r#"{"name":"WEFT_ACCESS_LOG","value":"off"}"#), "{text}");
}

#[test]
fn an_unknown_setting_is_wrong_usage() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    let output = command.args(["install", "--dry-run", "--set", "trustdomain=x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean trustDomain?"));
}
