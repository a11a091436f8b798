use tempfile::TempDir;

use super::*;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

struct Dir(TempDir);

fn entry(strict: bool) -> Entry {
    Entry {
        run_dir: "/run/weft".into(),
        bpf_dir: "/sys/fs/bpf/weft".into(),
        last_known: "/etc/cni/net.d/weft-cni.last-known".into(),
        strict,
    }
}

impl Dir {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Types of the plugins in a list.
    fn plugins(&self, name: &str) -> Vec<String> {
        let conf = parse(&self.path(name)).unwrap_or_default();
        let plugins = conf["plugins"].as_array().cloned().unwrap_or_default();
        plugins.iter().map(|plugin| plugin["type"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn enter(&self) -> Option<String> {
        let entered = enter(self.0.path(), &entry(false)).unwrap();
        entered.map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
    }

    fn leave(&self) -> bool {
        leave(self.0.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

const LIST: &str =
    r#"{ "name":"net", "cniVersion":"1.0.0", "plugins":[{"type":"bridge"},   {"type":"portmap"}] }"#;
const PLAIN: &str = r#"{"cniVersion": "0.3.1", "name": "plain", "type": "bridge", "ipam": {}}"#;

#[test]
fn it_joins_the_list_in_force_and_leaves_it_as_it_was() {
    let dir = Dir::new();
    dir.put("10-net.conflist", LIST);
    fs::set_permissions(dir.path("10-net.conflist"), Permissions::from_mode(0o640)).unwrap();
    dir.put("99-other.conflist", LIST);
    assert_eq!(dir.enter().as_deref(), Some("10-net.conflist"));
    assert_eq!(dir.plugins("10-net.conflist"), ["bridge", "portmap", "weft-cni"]);
    assert_eq!(fs::metadata(dir.path("10-net.conflist")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(dir.text("99-other.conflist"), LIST);
    assert!(is_entered(dir.0.path()));
    let inode = fs::metadata(dir.path("10-net.conflist")).unwrap().ino();
    dir.enter();
    assert_eq!(fs::metadata(dir.path("10-net.conflist")).unwrap().ino(), inode, "written for nothing");
    assert!(dir.leave());
    assert!(!is_entered(dir.0.path()));
    assert_eq!(dir.text("10-net.conflist"), LIST);
    assert_eq!(dir.names(), ["10-net.conflist", "99-other.conflist"]);
    assert!(!dir.leave());
}

#[test]
fn a_plain_file_becomes_a_list_and_again_a_plain_file() {
    let dir = Dir::new();
    dir.put("10-plain.conf", PLAIN);
    assert_eq!(dir.enter().as_deref(), Some("10-plain.conflist"));
    assert_eq!(dir.plugins("10-plain.conflist"), ["bridge", "weft-cni"]);
    assert_eq!(dir.names(), ["10-plain.conf.weft-original", "10-plain.conflist"]);
    assert_eq!(dir.enter().as_deref(), Some("10-plain.conflist"));
    // Its owner writes it again, with a change.
    let changed = PLAIN.replace("plain", "changed");
    dir.put("10-plain.conf", &changed);
    assert_eq!(dir.enter().as_deref(), Some("10-plain.conflist"));
    assert!(dir.text("10-plain.conflist").contains("changed"));
    assert!(dir.leave());
    assert_eq!(dir.names(), ["10-plain.conf"]);
    assert_eq!(dir.text("10-plain.conf"), changed);
}

#[test]
fn what_another_rewrites_is_repaired_and_restored() {
    let dir = Dir::new();
    dir.put("10-net.conflist", LIST);
    dir.enter();
    let update = LIST.replace("portmap", "bandwidth");
    dir.put("10-net.conflist", &update);
    dir.enter();
    assert_eq!(dir.plugins("10-net.conflist"), ["bridge", "bandwidth", "weft-cni"]);
    // Another one adds itself behind: it stays when weft goes.
    let mut conf = parse(&dir.path("10-net.conflist")).unwrap();
    conf["plugins"].as_array_mut().unwrap().push(json!({"type": "tuning"}));
    dir.put("10-net.conflist", &conf.to_string());
    dir.enter();
    assert_eq!(dir.plugins("10-net.conflist"), ["bridge", "bandwidth", "tuning", "weft-cni"]);
    dir.leave();
    assert_eq!(dir.plugins("10-net.conflist"), ["bridge", "bandwidth", "tuning"]);
    assert_eq!(dir.names(), ["10-net.conflist"]);
}

#[test]
fn it_moves_to_a_new_file_in_force() {
    let dir = Dir::new();
    assert_eq!(dir.enter(), None);
    dir.put("50-net.conflist", LIST);
    assert_eq!(dir.enter().as_deref(), Some("50-net.conflist"));
    // What no runtime takes is not in force.
    dir.put("01-half.conflist", r#"{"name": "half", "plug"#);
    dir.put("02-empty.conflist", r#"{"name": "empty", "cniVersion": "1.0.0", "plugins": []}"#);
    assert_eq!(dir.enter().as_deref(), Some("50-net.conflist"));
    dir.put("05-new.conflist", LIST);
    assert_eq!(dir.enter().as_deref(), Some("05-new.conflist"));
    assert_eq!(dir.text("50-net.conflist"), LIST);
    dir.leave();
    assert_eq!(dir.text("05-new.conflist"), LIST);
}

#[test]
fn a_configuration_without_chains_is_left_alone() {
    let dir = Dir::new();
    let old = PLAIN.replace("0.3.1", "0.2.0");
    dir.put("10-plain.conf", &old);
    assert!(enter(dir.0.path(), &entry(true)).unwrap_err().to_string().contains("0.2.0"));
    assert_eq!(dir.text("10-plain.conf"), old);
}

#[test]
fn a_changed_entry_is_written_anew() {
    let dir = Dir::new();
    dir.put("10-net.conflist", LIST);
    dir.enter();
    enter(dir.0.path(), &entry(true)).unwrap();
    assert!(dir.text("10-net.conflist").contains("\"strict\": true"));
    dir.leave();
    assert_eq!(dir.text("10-net.conflist"), LIST);
}
