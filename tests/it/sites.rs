//! Folders to try the engine on: real ones, in a temporary folder, with clocks of their own; and the checks that every
//! one of them must pass whatever was done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use foldersync::clock::{ManualClock, Timestamp};
use foldersync::engine::report::ExchangeReport;
use foldersync::engine::{Address, Context, Device, EngineError, Folder, InitOptions, PeerTarget};
use foldersync::guard::Guards;
use foldersync::id::{CommitId, DeviceId};
use foldersync::monitor::Recording;

/// Noon of 2026-11-20 UTC.
pub(crate) const NOON: i64 = 1_795_176_000;

/// Several copies of one folder, not connected yet.
pub(crate) struct Sites {
    dir: tempfile::TempDir,
    pub(crate) sites: Vec<Site>,
}

/// One copy.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) monitor: Arc<Recording>,
    pub(crate) guards: Guards,
}

impl Sites {
    /// So many empty folders, made into shared ones.
    pub(crate) fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let sites = (0..count)
            .map(|n| {
                let name = char::from(b'a' + u8::try_from(n).expect("few")).to_string();
                let root = dir.path().join(&name);
                fs::create_dir(&root).expect("a folder");
                let site = Site {
                    name,
                    root,
                    clock: Arc::new(ManualClock::at(NOON)),
                    monitor: Arc::default(),
                    guards: Guards::default(),
                };
                Folder::init(&site.root, &site.init_options(), site.context()).expect("init");
                site
            })
            .collect();
        Self { dir, sites }
    }

    /// From now on, files with more bytes are kept in chunks.
    pub(crate) fn keep_in_chunks_from(&self, bytes: u64) {
        for site in &self.sites {
            site.git(&["config", "foldersync.largeFileThreshold", &bytes.to_string()]);
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Exchanges between two of them, begun by the first.
    pub(crate) fn exchange(&self, from: usize, to: usize) -> ExchangeReport {
        self.try_exchange(from, to).expect("exchange")
    }

    pub(crate) fn try_exchange(&self, from: usize, to: usize) -> Result<ExchangeReport, EngineError> {
        let (from, to) = (&self.sites[from], &self.sites[to]);
        from.folder().exchange(&Site::target(to), false)
    }

    /// Exchanges between all until nothing moves, then checks that all are the same and sound.
    pub(crate) fn settle(&self) {
        let count = self.sites.len();
        for _ in 0..2 {
            (1..count).for_each(|n| drop(self.exchange(0, n)));
        }
        let first = &self.sites[0];
        for site in &self.sites {
            assert_eq!(site.head(), first.head(), "the heads of {} and {} differ", site.name, first.name);
            assert_eq!(site.files(), first.files(), "the files of {} and {} differ", site.name, first.name);
            site.check();
        }
    }
}

/// What stands at a path, with everything that foldersync keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    File { content: Vec<u8>, executable: bool, mtime: (i64, i64) },
    Link(PathBuf),
    EmptyFolder,
}

impl Site {
    pub(crate) fn context(&self) -> Context {
        Context {
            clock: self.clock.clone(),
            monitor: self.monitor.clone(),
            threads: 2,
            zone: jiff::tz::TimeZone::UTC,
            guards: self.guards,
        }
    }

    pub(crate) fn init_options(&self) -> InitOptions {
        let id = DeviceId::from_bytes([self.name.as_bytes()[0]; 32]);
        InitOptions { alongside: false, device: Device { id, name: format!("device-{}", self.name) }, folder_id: None }
    }

    pub(crate) fn target(other: &Self) -> PeerTarget {
        PeerTarget {
            name: other.name.clone(),
            address: Address::Path(other.root.clone()),
            send: true,
            receive: true,
            join: true,
        }
    }

    pub(crate) fn folder(&self) -> Folder {
        Folder::open(&self.root, self.context()).expect("open")
    }

    pub(crate) fn head(&self) -> Option<CommitId> {
        self.folder().head().expect("a head")
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Writes a file, with folders as needed, and a time of its own: the clock's, which moves on.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("folders");
        fs::write(&path, content).expect("write");
        self.touch(&path);
    }

    /// Sets a file's time to the clock's, with nanoseconds, and moves the clock on.
    fn touch(&self, path: &Path) {
        use foldersync::clock::Clock as _;
        let Timestamp { secs, .. } = self.clock.now();
        let time =
            std::time::UNIX_EPOCH + std::time::Duration::new(u64::try_from(secs).expect("after 1970"), 123_456_789);
        fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("a time");
        self.clock.advance(Duration::from_secs(1));
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path} in {}: {error}", self.name))
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).expect("remove");
    }

    pub(crate) fn capture(&self) -> u64 {
        self.folder().capture(&[]).expect("capture").revisions()
    }

    /// All that stands in the folder.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Standing> {
        let mut files = BTreeMap::new();
        standing(&self.root, &self.root, &mut files);
        files
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.files().into_keys().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        text(git(&self.root, args))
    }

    /// Every content in the history of the head: the ids of all blobs.
    pub(crate) fn history(&self) -> BTreeSet<String> {
        let objects = self.git(&["rev-list", "--objects", "--all"]);
        objects
            .lines()
            .filter_map(|line| line.split_once(' ').filter(|(_, path)| !path.is_empty()))
            .map(|(id, _)| id.to_owned())
            .collect()
    }

    /// Invariants I1 and I5 on this copy.
    pub(crate) fn check(&self) {
        let fsck = git(&self.root, &["fsck", "--full", "--strict", "--no-dangling", "--no-progress"]);
        // Of a repository without a revision it says so.
        let clean = fsck.stdout.is_empty() && (fsck.stderr.is_empty() || self.head().is_none());
        assert!(fsck.status.success() && clean, "git fsck in {}: {fsck:?}", self.name);
        let status = self.git(&["status", "--porcelain"]);
        assert_eq!(status, "", "git status in {}", self.name);
        if self.head().is_some() {
            one_path_per_commit(&self.root);
        }
    }
}

fn standing(root: &Path, at: &Path, files: &mut BTreeMap<PathBuf, Standing>) {
    let mut empty = true;
    for entry in fs::read_dir(at).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name == ".git" || name == ".foldersync") {
            continue;
        }
        empty = false;
        let data = fs::symlink_metadata(&path).expect("metadata");
        let relative = path.strip_prefix(root).expect("below").to_owned();
        if data.is_dir() {
            standing(root, &path, files);
        } else if data.is_symlink() {
            files.insert(relative, Standing::Link(fs::read_link(&path).expect("a link")));
        } else if data.is_file() {
            let content = fs::read(&path).expect("content");
            let executable = data.permissions().mode() & 0o100 != 0;
            files.insert(relative, Standing::File { content, executable, mtime: (data.mtime(), data.mtime_nsec()) });
        }
    }
    if empty && at != root {
        files.insert(at.strip_prefix(root).expect("below").to_owned(), Standing::EmptyFolder);
    }
}

/// Says that a test was not run, and why, past what the test harness keeps to itself.
pub(crate) fn skipped(test: &str, why: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("standard error");
}

/// Where programs are, foldersync among them: git runs it as a filter.
fn path_with_foldersync() -> std::ffi::OsString {
    let own = Path::new(env!("CARGO_BIN_EXE_foldersync")).parent().expect("it lies in a folder").to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&others))).expect("a path without a colon")
}

/// Runs git as a plain user would, without the settings of whoever runs the tests.
pub(crate) fn git(dir: &Path, args: &[&str]) -> Output {
    Command::new("git")
        .args(["-c", "safe.directory=*"])
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", path_with_foldersync())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "person")
        .env("GIT_AUTHOR_EMAIL", "person@example.org")
        .env("GIT_COMMITTER_NAME", "person")
        .env("GIT_COMMITTER_EMAIL", "person@example.org")
        .output()
        .expect("git is installed")
}

pub(crate) fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Invariant I1, by the script that people can run too.
pub(crate) fn one_path_per_commit(dir: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/one-path-per-commit.sh");
    let output = Command::new("sh").arg(script).arg(dir).output().expect("sh");
    assert!(output.status.success(), "one path per commit in {}: {output:?}", dir.display());
}
