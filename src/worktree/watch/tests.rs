//! The watch as a whole, with the system's own watcher.

use super::*;
use crate::path::SyncPath;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

struct Watched {
    dir: tempfile::TempDir,
    watch: Watch,
    woken: Receiver<()>,
    told: Dirty,
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

impl Watched {
    /// A watched folder in which everything was looked at.
    fn new(folders: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir_all(dir.path().join("root").join(folder)).unwrap();
        }
        fs::create_dir_all(dir.path().join("root/.git")).unwrap();
        let (watch, woken) = start(&dir.path().join("root"));
        woken.recv_timeout(PATIENCE).expect("it says that there is something");
        let first = watch.take();
        assert!(first.everything && first.trouble.is_none(), "{first:?}");
        Self { dir, watch, woken, told: Dirty::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    /// Collects what is told until it is as wanted.
    fn until(&mut self, wanted: impl Fn(&Dirty) -> bool) -> &Dirty {
        let end = Instant::now() + PATIENCE;
        while !wanted(&self.told) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(self.woken.recv_timeout(left).is_ok(), "told so far: {:?}", self.told);
            let taken = self.watch.take();
            self.told.trouble.clone_from(&taken.trouble);
            self.told.merge(taken);
        }
        &self.told
    }

    fn until_told(&mut self, names: &[&str]) {
        let paths: Vec<_> = names.iter().map(|name| SyncPath::try_from(*name).unwrap()).collect();
        self.until(|told| told.everything || paths.iter().all(|path| told.paths.contains_key(path)));
    }

    /// All that is told by the time that a file made now is.
    fn names(&mut self) -> Vec<String> {
        self.write("zz-last", "");
        self.until_told(&["zz-last"]);
        fs::remove_file(self.at("zz-last")).unwrap();
        self.until(|told| {
            told.paths.iter().any(|(path, seen)| path.as_bytes() == b"zz-last" && seen.last == Last::Gone)
        });
        let told = std::mem::take(&mut self.told);
        assert!(!told.everything);
        told.paths.into_keys().map(|path| path.to_string()).filter(|name| name != "zz-last").collect()
    }
}

fn start(root: &Path) -> (Watch, Receiver<()>) {
    let (wake, woken) = mpsc::channel();
    let wake = Arc::new(move || {
        let _ = wake.send(()); // A test that has ended listens no more.
    });
    (Watch::start(root, &root.join(".git"), b"", wake).unwrap(), woken)
}

#[test]
fn tells_of_each_change_by_its_path() {
    let mut watched = Watched::new(&["a/b", "c"]);
    watched.write("a/b/new", "1");
    assert_eq!(watched.names(), ["a/b/new"]);
    watched.write("a/b/new", "2");
    watched.until(|told| told.paths.values().any(|seen| *seen == Seen { last: Last::Closed, created: false }));
    assert_eq!(watched.names(), ["a/b/new"]);
    fs::set_permissions(watched.at("a/b/new"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("nowhere", watched.at("link")).unwrap();
    assert_eq!(watched.names(), ["a/b/new", "link"]);
    fs::rename(watched.at("a/b/new"), watched.at("c/moved")).unwrap();
    assert_eq!(watched.names(), ["a/b/new", "c/moved"]);
    fs::remove_dir_all(watched.at("a")).unwrap();
    assert_eq!(watched.names(), ["a"]);
}

#[test]
fn reading_and_our_own_repository_wake_nobody() {
    let mut watched = Watched::new(&["a", ".git/objects", "nested/.git"]);
    watched.write("a/x", "1");
    assert_eq!(watched.names(), ["a/x"]);
    fs::read(watched.at("a/x")).unwrap();
    fs::read_dir(watched.at("a")).unwrap().for_each(drop);
    watched.write(".git/objects/1", "");
    watched.write(".git/index", "");
    watched.write("nested/x", "");
    watched.write("nested/.git/x", "");
    assert_eq!(watched.names(), Vec::<String>::new());
}

#[test]
fn a_file_that_is_open_is_not_closed_yet() {
    let mut watched = Watched::new(&[]);
    let mut file = fs::File::create(watched.at("log")).unwrap();
    file.write_all(b"1").unwrap();
    watched.until_told(&["log"]);
    let log = SyncPath::try_from("log").unwrap();
    assert_eq!(watched.told.paths[&log], Seen { last: Last::Touched, created: true });
    drop(file);
    watched.until(|told| told.paths[&log].last == Last::Closed);
}

#[test]
fn a_tree_that_is_moved_in_is_watched_from_then_on() {
    let mut watched = Watched::new(&[]);
    let outside = watched.dir.path().join("outside");
    fs::create_dir_all(outside.join("deep/er")).unwrap();
    fs::rename(&outside, watched.at("in")).unwrap();
    assert_eq!(watched.names(), ["in"]);
    watched.write("in/deep/er/x", "1");
    assert_eq!(watched.names(), ["in/deep/er/x"]);
    fs::rename(watched.at("in"), watched.at("on")).unwrap();
    assert_eq!(watched.names(), ["in", "on"]);
    watched.write("on/deep/er/x", "2");
    assert_eq!(watched.names(), ["on/deep/er/x"]);
    // Out again: what happens there is nothing to us.
    fs::rename(watched.at("on"), &outside).unwrap();
    assert_eq!(watched.names(), ["on"]);
    fs::write(outside.join("deep/er/x"), "3").unwrap();
    assert_eq!(watched.names(), Vec::<String>::new());
}

/// Whatever happens to the tree, each file that was changed is told of, or a folder above it.
#[test]
fn nothing_is_missed_in_a_storm_of_new_and_renamed_folders() {
    let mut watched = Watched::new(&["spot"]);
    let mut written = Vec::new();
    for n in 0..150 {
        let (made, renamed) = (format!("spot/{}-{n}", n % 7), format!("{}-{n}", n % 5));
        fs::create_dir_all(watched.at(&made).join("x/y")).unwrap();
        watched.write(&format!("{made}/x/y/early"), "1");
        if n % 3 == 0 {
            fs::rename(watched.at(&made), watched.at(&renamed)).unwrap();
            watched.write(&format!("{renamed}/x/y/late"), "2");
            written.extend([format!("{renamed}/x/y/early"), format!("{renamed}/x/y/late")]);
        } else {
            written.push(format!("{made}/x/y/early"));
        }
    }
    let written: Vec<_> = written.iter().map(|name| SyncPath::try_from(&**name).unwrap()).collect();
    let told = |told: &Dirty, path: &SyncPath| {
        told.everything
            || told.paths.contains_key(path)
            || path.ancestors().any(|above| told.paths.contains_key(&above))
    };
    watched.until(|dirty| written.iter().all(|path| told(dirty, path)));
    // And all of them are watched where they are now.
    drop(watched.names());
    for path in &written {
        watched.write(&path.to_string(), "3");
    }
    watched.until(|dirty| written.iter().all(|path| dirty.paths.contains_key(path)));
}

#[test]
fn wakes_once_until_it_is_asked() {
    let mut watched = Watched::new(&[]);
    watched.write("a", "1");
    watched.woken.recv_timeout(PATIENCE).unwrap();
    for n in 0..50 {
        watched.write(&format!("b{n}"), "1");
    }
    // All of them are noted by the time that the last is: it is in what is taken in the end.
    let end = Instant::now() + PATIENCE;
    let last = SyncPath::try_from("b49").unwrap();
    while !lock(&watched.watch.shared.told).dirty.paths.contains_key(&last) {
        assert!(Instant::now() < end);
        thread::yield_now();
    }
    assert_eq!(watched.woken.try_recv().ok(), None);
    watched.told = watched.watch.take();
    assert_eq!(watched.told.paths.len(), 51);
    assert!(watched.watch.take().is_empty());
}

#[rstest::rstest]
#[case::moved(|root: &Path| fs::rename(root, root.with_extension("old")).unwrap())]
#[case::deleted(|root: &Path| fs::remove_dir_all(root).unwrap())]
#[case::replaced(|root: &Path| { fs::rename(root, root.with_extension("old")).unwrap(); fs::create_dir(root).unwrap(); })]
fn a_root_that_goes_is_told_and_nothing_is_deleted(#[case] go: fn(&Path)) {
    let mut watched = Watched::new(&["a"]);
    watched.write("a/x", "1");
    drop(watched.names());
    go(&watched.at(""));
    watched.until(|told| told.trouble == Some(WatchTrouble::RootGone));
    let last = watched.watch.take();
    assert!(last.is_empty() && last.trouble == Some(WatchTrouble::RootGone), "{last:?}");
    assert!(WatchTrouble::RootGone.is_final());
}

#[test]
fn a_folder_that_is_not_there_cannot_be_watched() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("none");
    let started = Watch::start(&root, &root.join(".git"), b"", Arc::new(|| {}));
    assert!(matches!(started.err(), Some(WorktreeError::Missing { .. })));
}

#[test]
fn at_rest_it_does_not_wake_and_keeps_nothing_open() {
    let watched = Watched::new(&["a"]);
    assert_eq!(watched.woken.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    let root = watched.at("").canonicalize().unwrap();
    let open = fs::read_dir("/proc/self/fd").map(|fds| {
        fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).filter(|to| to.starts_with(&root)).collect::<Vec<_>>()
    });
    assert_eq!(open.unwrap_or_default(), Vec::<PathBuf>::new());
}

#[test]
fn new_excludes_are_heeded_after_another_look() {
    let mut watched = Watched::new(&["a", "b"]);
    watched.watch.look_again(b"a/\n".to_vec());
    // The look is done before what comes after it.
    drop(watched.names());
    watched.write("a/x", "1");
    watched.write("b/x", "1");
    assert_eq!(watched.names(), ["b/x"]);
}

#[test]
fn says_what_each_trouble_is_and_what_to_do() {
    let texts: BTreeMap<_, _> = [
        WatchTrouble::RootGone,
        WatchTrouble::FolderLimit { watched: 10, lacking: 2, limit: Some(10) },
        WatchTrouble::WatcherLimit { limit: Some(128) },
        WatchTrouble::Unwatched { folders: 2, why: "reasons".to_owned() },
        WatchTrouble::Failed,
    ]
    .map(|trouble| (trouble.to_string(), trouble.hint()))
    .into();
    let all = format!("{texts:?}");
    for words in ["fs.inotify.max_user_watches=12", "fs.inotify.max_user_instances=256", "10 of 12", "unmounted"] {
        assert!(all.contains(words), "{words} in {all}");
    }
}
