use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use weft_api::kinds::Kind;

use super::*;

/// A journal of two watches, and where it writes.
fn journal(dir: &TempDir) -> (Journal, PathBuf) {
    let path = dir.path().join(FILE);
    (Journal::start(path.clone(), "n1", 2, || Duration::ZERO).unwrap(), path)
}

/// Waits for the writer, which has a thread of its own.
fn soon<T>(mut try_it: impl FnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = try_it() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came")
}

fn held(kept: &Kept, watch: &str) -> Vec<(String, String)> {
    let all = kept.objects(watch).map(|object| object.map(|(name, text)| (name.to_owned(), text)));
    let mut all: Vec<_> = all.collect::<io::Result<_>>().unwrap();
    all.sort();
    all
}

/// A file with a Pod and a policy.
fn written(dir: &TempDir) -> PathBuf {
    let (journal, path) = journal(dir);
    journal.put("Pod", "shop/a", "{\"a\":1}");
    journal.put("Pod", "shop/b", "{}");
    journal.put("Pod", "shop/a", "{\"a\":\n2}");
    journal.gone("Pod", "shop/b");
    journal.put("AuthorizationPolicy", "shop/deny", "{\"deny\":true}");
    journal.listed();
    assert!(!path.exists(), "it holds half of what there is");
    journal.listed();
    soon(|| path.exists().then_some(()));
    path
}

#[test]
fn what_is_written_is_read_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let path = written(&dir);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let kept = Kept::open(&path, "n1").unwrap();
    assert_eq!(kept.count(), 2);
    assert_eq!(held(&kept, "Pod"), [("shop/a".to_owned(), "{\"a\": 2}".to_owned())]);
    assert_eq!(held(&kept, "AuthorizationPolicy").len(), 1);
    assert!(held(&kept, "Service").is_empty());
    assert!(kept.as_of.elapsed().unwrap() < Duration::from_mins(1));
    assert!(matches!(Kept::open(&path, "n2"), Err(KeptError::Foreign(_))));
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_of_no_use() {
    let dir = TempDir::new().unwrap();
    let path = written(&dir);
    let good = fs::read(&path).unwrap();
    let outcome = |bytes: &[u8], mode: u32| {
        let other = dir.path().join("other");
        weft_files::write(&other, mode, bytes).unwrap();
        Kept::open(&other, "n1").map(|kept| kept.count())
    };
    assert_eq!(outcome(&good, 0o600).unwrap(), 2);
    assert!(matches!(outcome(&good, 0o644), Err(KeptError::Exposed { .. })));
    // A writer that dies leaves a part of what follows.
    for torn in [&b"+Pod\tshop/c\t{}\n"[..], b"-Pod\tshop/a", b"=00"] {
        assert_eq!(outcome(&[&good[..], torn].concat(), 0o600).unwrap(), 2, "{}", torn.escape_ascii());
    }
    // Of the file itself every byte counts.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(outcome(&bad, 0o600).is_err(), "byte {at} of {}", good.escape_ascii());
    }
    for length in 0..good.len() {
        assert!(outcome(&good[..length], 0o600).is_err(), "{length} bytes");
    }
    assert!(outcome(&[&good[..], b"nonsense\n"].concat(), 0o600).is_err());
}

#[test]
fn objects_of_kubernetes_come_back_as_they_were() {
    let kinds = [
        (Kind::Namespace, json!({"metadata": {"name": "shop", "labels": {"weft.dev/mesh": "enabled"}}})),
        (
            Kind::Pod,
            json!({"metadata": {"name": "a", "namespace": "shop", "uid": "u", "labels": {"app": "a"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": "a-1", "controller": true}]},
                "spec": {"nodeName": "n1", "serviceAccountName": "s", "containers": [{"name": "c",
                    "ports": [{"name": "http", "containerPort": 80}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}}]},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                    "conditions": [{"type": "Ready", "status": "True"}]}}),
        ),
        (
            Kind::Service,
            json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.1",
                "clusterIPs": ["10.96.0.1"], "selector": {"app": "a"}, "type": "ClusterIP",
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}, {"port": 81}]}}),
        ),
        (
            Kind::EndpointSlice,
            json!({"metadata": {"name": "a-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "a"}},
                "addressType": "IPv4", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true, "terminating": false},
                    "nodeName": "n1", "targetRef": {"kind": "Pod", "name": "a", "namespace": "shop"}}]}),
        ),
        (
            Kind::VirtualService,
            json!({"metadata": {"name": "a", "namespace": "shop"},
                "spec": {"hosts": ["a"], "http": [{"match": [{"uri": {"prefix": "/x"}}],
                    "route": [{"destination": {"host": "a", "port": {"number": 80}}}], "timeout": "1.5s"}]}}),
        ),
    ];
    for (kind, served) in kinds {
        let item: Item = serde_json::from_value(served).unwrap();
        let object = weft_api::load::load_served(kind, item.text()).unwrap().object;
        let text = text(&object, &item);
        let again = weft_api::load::load_served(kind, &text).unwrap().object;
        assert_eq!(again, object, "{text}");
    }
}
