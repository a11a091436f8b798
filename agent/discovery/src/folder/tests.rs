use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tempfile::TempDir;

use super::watch::{News, Seen};
use super::*;

/// A folder, looked at as an agent would.
struct World {
    dir: TempDir,
    folder: Folder,
    news: News,
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  ports: [{{name: http, port: {port}}}]\n"
    )
}

/// Refused: a VirtualService without hosts.
const REFUSED: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [], http: []}\n";
const GOOD: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}\n";

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        Self { dir, folder, news: News::default() }
    }

    /// Looks at everything; changes as `+Kind/ns/name` and `-Kind/ns/name`.
    fn scan(&mut self) -> Vec<String> {
        let scan = self.folder.scan(&Extent::All, &self.news.writing, Instant::now());
        scan.changes.iter().map(told).collect()
    }

    /// The same, when nothing has been written for a while.
    fn settle(&mut self) -> Vec<String> {
        for path in self.folder.files.keys().cloned().collect::<Vec<_>>() {
            if let Ok(file) = fs::File::open(&path) {
                let old = std::time::SystemTime::now() - Duration::from_mins(1);
                file.set_modified(old).unwrap();
            }
        }
        self.scan()
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn codes(&self) -> Vec<String> {
        self.folder.refused().iter().map(|finding| format!("{} {}", finding.code, finding.resource)).collect()
    }
}

fn told(change: &Change) -> String {
    match change {
        Change::Put(object) => format!("+{}", object.key()),
        Change::Delete(key) => format!("-{key}"),
    }
}

#[test]
fn every_manifest_below_the_folder_is_read_once() {
    let mut world = World::new();
    world.put("a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    world.put("deep/er/c.yml", &service("c", 80));
    world.put("notes.txt", &service("d", 80));
    world.put(".hidden.yaml", &service("e", 80));
    world.put(".git/f.yaml", &service("f", 80));
    assert_eq!(world.scan(), ["+Service/shop/a", "+Service/shop/b", "+Service/shop/c"]);
    assert!(world.scan().is_empty());
    assert_eq!(world.folder.counts(), [("Service".to_owned(), 3)].into());
}

#[test]
fn only_what_differs_is_told() {
    let mut world = World::new();
    world.put("a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    world.scan();
    world.put("a.yaml", &format!("# a comment\n{}---\n{}", service("a", 80), service("b", 81)));
    assert_eq!(world.scan(), ["+Service/shop/b"]);
}

#[test]
fn an_editor_renames_into_place() {
    let mut world = World::new();
    world.put("a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    world.scan();
    world.put(".a.yaml.swp", &service("a", 82));
    fs::rename(world.dir.path().join(".a.yaml.swp"), world.dir.path().join("a.yaml")).unwrap();
    // Whole from the start: what is missing is believed at once.
    assert_eq!(world.scan(), ["+Service/shop/a", "-Service/shop/b"]);
}

#[test]
fn a_file_that_is_being_rewritten_loses_nothing() {
    let mut world = World::new();
    world.put("a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    world.scan();
    world.put("a.yaml", "");
    assert!(world.scan().is_empty(), "just truncated");
    world.put("a.yaml", &service("a", 80));
    assert!(world.scan().is_empty(), "half of it is back");
    world.put("a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 81)));
    assert_eq!(world.scan(), ["+Service/shop/b"]);
}

#[test]
fn a_file_that_was_emptied_loses_its_objects_when_it_has_settled() {
    let mut world = World::new();
    world.put("a.yaml", &service("a", 80));
    world.scan();
    world.put("a.yaml", "");
    assert!(world.scan().is_empty());
    assert_eq!(world.settle(), ["-Service/shop/a"]);
}

#[test]
fn whoever_holds_a_file_open_for_writing_is_waited_for() {
    let mut world = World::new();
    world.put("a.yaml", &service("a", 80));
    world.scan();
    let path = world.dir.path().join("a.yaml");
    world.put("a.yaml", &service("b", 80));
    world.news.add(Seen::Writing(path.clone()), Instant::now());
    assert!(world.settle().is_empty());
    world.news.add(Seen::Settled(path), Instant::now());
    assert_eq!(world.settle(), ["-Service/shop/a", "+Service/shop/b"]);
}

#[test]
fn broken_yaml_keeps_the_last_good_version_of_everything_in_it() {
    let mut world = World::new();
    world.put("a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    world.scan();
    world.put("a.yaml", &format!("{}---\nkind: [Service\n  - :", service("a", 81)));
    let changes = world.settle();
    assert!(!changes.iter().any(|change| change.starts_with('-')), "{changes:?}");
    assert_eq!(world.folder.counts()["Service"], 2);
    assert!(!world.codes().is_empty());
    world.put("a.yaml", &service("a", 81));
    world.settle();
    assert_eq!(world.folder.counts()["Service"], 1);
    assert!(world.codes().is_empty());
}

#[test]
fn a_refused_object_keeps_its_last_good_version_and_is_reported() {
    let mut world = World::new();
    world.put("a.yaml", GOOD);
    assert_eq!(world.scan(), ["+VirtualService/shop/web"]);
    world.put("a.yaml", REFUSED);
    assert!(world.settle().is_empty());
    assert!(world.codes().iter().any(|code| code.contains("VirtualService/shop/web")), "{:?}", world.codes());
    // Elsewhere, and still wrong: still in force.
    fs::rename(world.dir.path().join("a.yaml"), world.dir.path().join("b.yaml")).unwrap();
    assert!(world.scan().is_empty());
    fs::remove_file(world.dir.path().join("b.yaml")).unwrap();
    assert_eq!(world.scan(), ["-VirtualService/shop/web"]);
    assert!(world.codes().is_empty());
}

#[test]
fn an_object_that_was_never_good_is_reported_and_not_in_force() {
    let mut world = World::new();
    world.put("a.yaml", REFUSED);
    assert!(world.scan().is_empty());
    assert!(!world.codes().is_empty());
}

#[test]
fn of_two_files_that_say_the_same_the_first_by_name_counts() {
    let mut world = World::new();
    world.put("b.yaml", &service("a", 80));
    assert_eq!(world.scan(), ["+Service/shop/a"]);
    world.put("a.yaml", &service("a", 81));
    assert_eq!(world.scan(), ["+Service/shop/a"]);
    assert_eq!(world.codes(), ["DuplicateObject Service/shop/a"]);
    assert!(world.folder.refused()[0].file.as_ref().unwrap().ends_with("b.yaml"));
    fs::remove_file(world.dir.path().join("a.yaml")).unwrap();
    assert_eq!(world.scan(), ["+Service/shop/a"]);
    assert!(world.codes().is_empty());
}

#[test]
fn when_the_winner_of_two_is_refused_and_then_goes_the_other_takes_over() {
    let mut world = World::new();
    world.put("a.yaml", GOOD);
    world.put("b.yaml", &GOOD.replace("host: web", "host: other"));
    assert_eq!(world.scan(), ["+VirtualService/shop/web"]);
    world.put("a.yaml", REFUSED);
    assert!(world.settle().is_empty());
    fs::remove_file(world.dir.path().join("a.yaml")).unwrap();
    assert_eq!(world.scan(), ["+VirtualService/shop/web"]);
    assert_eq!(world.folder.counts()["VirtualService"], 1);
}

#[test]
fn when_the_last_good_version_is_lost_what_is_in_force_stays() {
    let mut world = World::new();
    world.put("a.yaml", GOOD);
    world.put("b.yaml", GOOD.replace("host: web", "host: other").as_str());
    world.scan();
    world.put("b.yaml", REFUSED);
    assert!(world.settle().is_empty());
    fs::remove_file(world.dir.path().join("a.yaml")).unwrap();
    assert!(world.scan().is_empty());
    assert_eq!(world.folder.counts()["VirtualService"], 1);
    fs::remove_file(world.dir.path().join("b.yaml")).unwrap();
    assert_eq!(world.scan(), ["-VirtualService/shop/web"]);
}

#[test]
fn an_object_that_moves_to_another_file_does_not_change() {
    let mut world = World::new();
    world.put("a.yaml", &service("a", 80));
    world.scan();
    fs::rename(world.dir.path().join("a.yaml"), world.dir.path().join("z.yaml")).unwrap();
    assert!(world.scan().is_empty());
}

#[test]
fn files_and_folders_vanish() {
    let mut world = World::new();
    world.put("sub/a.yaml", &service("a", 80));
    world.scan();
    let path = world.dir.path().join("sub/a.yaml");
    fs::remove_dir_all(world.dir.path().join("sub")).unwrap();
    // Between listing and reading: the file alone is asked for.
    let files = Extent::Files([path].into());
    let scan = world.folder.scan(&files, &world.news.writing, Instant::now());
    assert_eq!(scan.changes.iter().map(told).collect::<Vec<_>>(), ["-Service/shop/a"]);
}

#[test]
fn when_the_whole_folder_is_gone_everything_stays_in_force() {
    let mut world = World::new();
    world.put("a.yaml", &service("a", 80));
    world.scan();
    let aside = world.dir.path().with_extension("aside");
    fs::rename(world.dir.path(), &aside).unwrap();
    assert!(world.scan().is_empty());
    assert_eq!(world.folder.refused()[0].code, file::UNREADABLE);
    fs::rename(&aside, world.dir.path()).unwrap();
    assert!(world.scan().is_empty());
    assert!(world.codes().is_empty());
}

#[test]
fn a_file_that_is_no_text_keeps_what_it_held() {
    let mut world = World::new();
    world.put("a.yaml", &service("a", 80));
    world.scan();
    fs::write(world.dir.path().join("a.yaml"), b"kind: Service\n\xff\xfe").unwrap();
    assert!(world.settle().is_empty());
    assert!(world.folder.refused()[0].message.contains("line 2 is not UTF-8"));
    world.put("a.yaml", &service("a", 80));
    world.settle();
    assert!(world.codes().is_empty());
}

#[test]
fn pipes_loops_and_dangling_links_hold_nobody_up() {
    let mut world = World::new();
    let dir = world.dir.path().to_owned();
    world.put("real.txt", &service("a", 80));
    symlink(dir.join("real.txt"), dir.join("link.yaml")).unwrap();
    symlink(dir.join("nowhere"), dir.join("dangling.yaml")).unwrap();
    symlink(&dir, dir.join("loop")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("pipe.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert_eq!(world.scan(), ["+Service/shop/a"]);
}

#[test]
fn a_config_map_volume_is_swapped_whole() {
    let mut world = World::new();
    let dir = world.dir.path().to_owned();
    world.put("..v1/a.yaml", &service("a", 80));
    world.put("..v2/a.yaml", &service("a", 81));
    symlink("..v1", dir.join("..data")).unwrap();
    symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
    assert_eq!(world.scan(), ["+Service/shop/a"]);
    symlink("..v2", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    assert_eq!(world.scan(), ["+Service/shop/a"]);
}

#[test]
fn the_watch_tells_a_write_from_its_end() {
    let dir = TempDir::new().unwrap();
    let (sender, seen) = std::sync::mpsc::channel();
    let _watch = watch::Watch::start(dir.path(), move |seen| _ = sender.send(seen)).unwrap();
    let path = dir.path().join("a.yaml");
    std::fs::write(&path, "kind: x\n").unwrap();
    let mut writing = false;
    loop {
        match seen.recv_timeout(Duration::from_secs(10)).expect("the end of the write is told") {
            Seen::Writing(at) if at == path => writing = true,
            Seen::Settled(at) if at == path => break,
            _ => {}
        }
    }
    assert!(writing);
    fs::read(&path).unwrap();
    assert!(seen.recv_timeout(Duration::from_millis(50)).is_err(), "reading is no news");
}
