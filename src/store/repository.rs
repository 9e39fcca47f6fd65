//! The repository of a folder: making one, finding one, opening one.
//!
//! It is an ordinary git repository with a work tree: the folder's `.git`, or `.foldersync` beside somebody else's
//! `.git`. Its presence is also the marker that the folder is really there. What is our own in it lies in
//! `foldersync/`, which git does not look at:
//!
//! ```text
//! .git/            HEAD -> refs/heads/main, config (with [foldersync]), index, objects, refs, info
//! .git/foldersync/ lock  under-way  exchange-PEER.lock  empty-folders  arriving-…  .tmp-…
//!                  stage/  kept/  damaged/  mending/
//! ```
//!
//! **The promise.** [`Store::init`] builds the repository under another name, syncs it and renames it: a kill leaves
//! none, or a whole one (and perhaps a folder `.git.foldersync-new-…`, which the next `init` removes). [`Store::open`]
//! makes at most empty folders that are missing; what it cannot use it names, with what to do, and it repairs nothing by
//! guessing. [`Store::lock`]
//! clears away what a killed process left.
//!
//! Must not: use a repository that foldersync did not make, or obey any configuration from inside the work tree.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::durable;
use super::error::StoreError;
use super::index_file::{self, Loaded};
use super::kept::{self, Compared};
use super::lock::{self, FolderLock, Wait};
use super::objects::Objects;
use super::refs::{self, Head, RefName, Refs};
use super::settings::{self, Config, Key, Settings};
use crate::id::{DeviceId, FolderId, ReplicaId};
use crate::path::ALONGSIDE;
use crate::table::DiskTable;

/// The folder of our own in the repository.
pub(crate) const PRIVATE: &str = "foldersync";
const GIT: &str = ".git";
/// How the name of a repository that is being made begins.
const UNFINISHED: &str = ".git.foldersync-new-";

/// Whether this is the name of a repository that is being made, or was when a kill came.
pub(crate) fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
}

/// How a repository is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct InitOptions {
    /// In `.foldersync`, so that the folder's `.git` may be somebody else's.
    pub alongside: bool,
}

/// The ids of a new copy.
#[derive(Debug, Clone, Copy)]
pub struct NewIds {
    /// The folder's: its own until it joins another.
    pub folder: FolderId,
    /// The copy's.
    pub replica: ReplicaId,
    /// Its device's.
    pub device: DeviceId,
}

/// An opened repository. To be shared between threads.
pub struct Store {
    root: PathBuf,
    git_dir: PathBuf,
    // The handle is for one thread at a time; the packs that it has opened are shared by its clones.
    objects: Mutex<Objects>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("git_dir", &self.git_dir).finish_non_exhaustive()
    }
}

fn unfit<T>(reason: String) -> Result<T, StoreError> {
    Err(StoreError::Unfit { reason })
}

/// What is at a place where a repository may be.
enum Found {
    Nothing,
    Ours(Box<Config>),
    /// A repository, or a file, of somebody else.
    Foreign,
}

fn look(git_dir: &Path) -> Result<Found, StoreError> {
    match fs::symlink_metadata(git_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Ok(data) if data.is_dir() => {}
        Ok(_) => return Ok(Found::Foreign),
        Err(error) => return Err(StoreError::io("look at", git_dir)(error)),
    }
    match Config::read(git_dir) {
        Ok(Some(config)) if config.is_ours() => Ok(Found::Ours(Box::new(config))),
        // Our own folder in it tells that it is ours, whatever became of its config.
        Ok(_) if git_dir.join(PRIVATE).is_dir() => Err(StoreError::damaged(
            format!("`{}`", git_dir.join("config").display()),
            "it lacks the section `[foldersync]`; put back the file of a backup",
        )),
        Err(error @ StoreError::Damaged { .. }) if git_dir.join(PRIVATE).is_dir() => Err(error),
        Ok(_) | Err(StoreError::Damaged { .. }) => Ok(Found::Foreign),
        Err(error) => Err(error),
    }
}

/// The folder as an absolute path, if it is one.
fn existing_folder(root: &Path) -> Result<PathBuf, StoreError> {
    match fs::canonicalize(root) {
        Ok(path) if path.is_dir() => Ok(path),
        Ok(_) => unfit(format!("`{}` is not a folder", root.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            unfit(format!("there is no folder `{}`; make it first, or mount the disk that it is on", root.display()))
        }
        Err(error) => Err(StoreError::io("open the folder", root)(error)),
    }
}

impl Store {
    /// Makes the repository of the folder `root`.
    pub fn init(root: &Path, options: &InitOptions, ids: NewIds) -> Result<Self, StoreError> {
        let root = existing_folder(root)?;
        let shown = root.display();
        if root.components().any(|name| name.as_os_str() == GIT || name.as_os_str() == ALONGSIDE) {
            return unfit(format!("`{shown}` is inside a repository; choose the folder that it belongs to"));
        }
        match (look(&root.join(GIT))?, look(&root.join(ALONGSIDE))?) {
            (Found::Ours(_), _) | (_, Found::Ours(_)) => {
                return unfit(format!("`{shown}` is already a foldersync folder"));
            }
            (Found::Foreign, _) if !options.alongside => {
                return unfit(format!(
                    "`{shown}/.git` is somebody's git repository; use --alongside to version the folder beside it"
                ));
            }
            (_, Found::Foreign) => {
                return unfit(format!("`{shown}/{ALONGSIDE}` is there and not made by foldersync; move it away"));
            }
            _ => {}
        }
        remove_unfinished(&root)?;
        let unfinished = root.join(format!("{UNFINISHED}{}", ids.replica.short()));
        match fs::create_dir(&unfinished) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                return unfit(format!(
                    "nothing can be written in `{shown}` ({error}); foldersync keeps its history there"
                ));
            }
            made => made.map_err(StoreError::io("make the folder", &unfinished))?,
        }
        let git_dir = root.join(if options.alongside { ALONGSIDE } else { GIT });
        let made = mark_as_being_made(&unfinished).and_then(|living| {
            build(&unfinished, *options, ids)?;
            durable::rename(&unfinished, &git_dir)?;
            drop(living);
            durable::sync_dir(&root)
        });
        if let Err(error) = made {
            // A full disk, most likely. What cannot be removed either, the next `init` removes.
            drop(fs::remove_dir_all(&unfinished));
            return Err(error);
        }
        Self::open(&root)
    }

    /// Opens the repository of the folder `root`.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = existing_folder(root)?;
        let shown = root.display();
        let (git_dir, config) = match (look(&root.join(GIT))?, look(&root.join(ALONGSIDE))?) {
            (Found::Ours(config), _) => (root.join(GIT), config),
            (_, Found::Ours(config)) => (root.join(ALONGSIDE), config),
            (Found::Foreign, _) => {
                return unfit(format!(
                    "`{shown}/.git` is somebody's git repository, not foldersync's; `foldersync init --alongside` \
                     versions the folder beside it"
                ));
            }
            _ => {
                return unfit(format!(
                    "`{shown}` is not a foldersync folder; if it was one, is its disk mounted? Otherwise \
                     `foldersync init` makes it one"
                ));
            }
        };
        if let Err(error) = config.check_form().and_then(|()| config.settings().map(drop)) {
            // What nobody has written asks for no newer foldersync.
            return Err(match kept::compare(&git_dir, "config") {
                Compared::Other(_) => StoreError::damaged(
                    format!("`{}`", git_dir.join("config").display()),
                    "it is not what it was, though nobody has written it; `foldersync repair` puts it back",
                ),
                _ => error,
            });
        }
        match refs::head(&git_dir)? {
            Head::Branch(name) if name == RefName::MAIN.as_str() => {}
            Head::Branch(name)
                if RefName::new(&name).is_some_and(|branch| {
                    let refs = Refs::new(&git_dir);
                    matches!(refs.read(&branch), Ok(None)) && !matches!(refs.read(&RefName::MAIN), Ok(None))
                }) =>
            {
                return Err(StoreError::damaged(
                    format!("`{}`", git_dir.join("HEAD").display()),
                    format!(
                        "it names `{name}`, which there is not; `foldersync repair` writes `ref: refs/heads/main` into it"
                    ),
                ));
            }
            Head::Branch(name) => {
                let name = name.strip_prefix("refs/heads/").unwrap_or(&name);
                return unfit(format!("in `{shown}` git has switched to `{name}`; do `git switch main` first"));
            }
            Head::Detached(id) => {
                let id = id.short();
                return unfit(format!("in `{shown}` git has checked out {id}; do `git switch main` first"));
            }
        }
        let objects_dir = git_dir.join("objects");
        for (dir, what) in [(&objects_dir, "its objects are"), (&git_dir.join("refs"), "its refs are")] {
            if !dir.is_dir() {
                return Err(StoreError::damaged(
                    format!("the repository `{}`", git_dir.display()),
                    format!("{what} missing; put back `{}` of a backup, or clone the folder anew", dir.display()),
                ));
            }
        }
        // Restored from a backup that leaves out empty folders, these may be missing.
        for dir in [objects_dir.join("pack"), git_dir.join(PRIVATE), git_dir.join(PRIVATE).join("stage")] {
            durable::create_dirs(&git_dir, &dir)?;
        }
        let objects = Mutex::new(Objects::open(&objects_dir)?);
        Ok(Self { root, git_dir, objects })
    }

    /// The innermost foldersync folder that `start` is, or lies in.
    pub fn discover(start: &Path) -> Option<PathBuf> {
        let start = fs::canonicalize(start).ok()?;
        // A repository that is damaged is one as well: opening it will tell.
        let is_ours = |dir: &Path| matches!(look(dir), Ok(Found::Ours(_)) | Err(StoreError::Damaged { .. }));
        let found = start.ancestors().find(|dir| is_ours(&dir.join(GIT)) || is_ours(&dir.join(ALONGSIDE)));
        found.map(Path::to_owned)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The repository.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The folder of our own in the repository.
    pub fn private_dir(&self) -> PathBuf {
        self.git_dir.join(PRIVATE)
    }

    /// Where files are made ready before they take their places in the folder.
    pub fn stage_dir(&self) -> PathBuf {
        self.private_dir().join("stage")
    }

    /// Where the packs are.
    pub fn pack_dir(&self) -> PathBuf {
        self.git_dir.join("objects").join("pack")
    }

    /// The repository's own list of what is left out, which does not travel.
    pub fn exclude_file(&self) -> PathBuf {
        self.git_dir.join("info").join("exclude")
    }

    /// A handle to read objects with, for one thread. It shares the opened packs with all others.
    pub fn objects(&self) -> Objects {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The refs.
    pub fn refs(&self) -> Refs {
        Refs::new(&self.git_dir)
    }

    /// What the copy says of itself, as it is now.
    pub fn settings(&self) -> Result<Settings, StoreError> {
        let missing = || StoreError::damaged(format!("`{}`", self.git_dir.join("config").display()), "it is missing");
        Config::read(&self.git_dir)?.ok_or_else(missing)?.settings()
    }

    /// Sets what the copy says of itself.
    pub fn set(&self, key: Key, value: &str) -> Result<(), StoreError> {
        settings::set(&self.git_dir, key, value)
    }

    /// What the disk last held.
    pub fn load_table(&self) -> Result<Loaded, StoreError> {
        index_file::load(&self.git_dir)
    }

    /// Records what the disk holds; see [`index_file::save`].
    pub fn save_table(&self, table: &mut DiskTable) -> Result<(), StoreError> {
        index_file::save(&self.git_dir, table)
    }

    /// Takes the right to change the folder, for the command `what`, and clears away what a killed process left half
    /// done in the repository.
    pub fn lock(&self, what: &str, wait: Wait) -> Result<FolderLock, StoreError> {
        let held = FolderLock::acquire(&self.private_dir().join("lock"), what, wait)?;
        // What exchanges receive at this moment looks like what a killed one left.
        let under_way = self.open_under_way()?;
        if under_way.try_lock().is_ok() {
            durable::remove_leftovers(&self.private_dir())?;
            durable::remove_leftovers(&self.pack_dir())?;
            self.keep_noted_chunks()?;
        }
        drop(under_way);
        // The others are cleared away when they are met; these would stop a git that a person runs.
        for name in ["index", "config", "packed-refs", RefName::MAIN.as_str()] {
            lock::remove_leftover(&self.git_dir.join(name))?;
        }
        // What cannot be copied now (the disk is full) is copied by the next who comes.
        drop(kept::renew(&self.git_dir));
        Ok(held)
    }

    /// Says, until it is dropped, that unfinished files are somebody's: of an exchange that receives. Any number may.
    pub fn under_way(&self) -> Result<UnderWay, StoreError> {
        let file = self.open_under_way()?;
        file.lock_shared().map_err(StoreError::io("lock", &self.private_dir().join(UNDER_WAY)))?;
        Ok(UnderWay(file))
    }

    fn open_under_way(&self) -> Result<File, StoreError> {
        let path = self.private_dir().join(UNDER_WAY);
        let mut options = File::options();
        options.create(true).append(true).open(&path).map_err(StoreError::io("open", &path))
    }

    /// Takes the right to begin an exchange with the peer `peer`: one at a time.
    pub fn turn(&self, peer: &str, wait: Wait) -> Result<FolderLock, StoreError> {
        // The name has been checked to be one that a ref may have; it must be one that a file may have, too.
        let peer = peer.replace('/', "-");
        FolderLock::acquire(&self.private_dir().join(format!("exchange-{peer}.lock")), "exchange", wait)
    }

    /// Has git pass files through our filter, which the config names, so that it sees the bytes of large ones. Only where
    /// there are any: git complains of every file if it does not find foldersync. What a person wrote stays.
    pub(crate) fn set_git_filter(&self) -> Result<(), StoreError> {
        let path = self.git_dir.join("info/attributes");
        let before = match fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Ok(()),
            text => text.map_err(StoreError::io("read", &path))?,
        };
        let ours = ATTRIBUTES.split_inclusive('\n').next_back().unwrap_or_default();
        let filtered = ours.replace("!filter", "filter=foldersync");
        let lines = before.split_inclusive('\n').map(|line| if line == ours { &filtered } else { line });
        let after: String = lines.collect();
        if after == before {
            return Ok(());
        }
        durable::write_file_by_way_of(&self.private_dir(), &path, after.as_bytes())
    }

    /// Makes these patterns the ones of foldersync in `info/exclude`; what a person wrote there stays as it is. Writes
    /// only if that is a change.
    pub fn set_managed_excludes(&self, patterns: &[Vec<u8>]) -> Result<(), StoreError> {
        let path = self.exclude_file();
        let before = self.excludes()?;
        let after = with_managed_block(&before, patterns);
        if after == before {
            return Ok(());
        }
        if let Some(info) = path.parent() {
            durable::create_dirs(&self.git_dir, info)?;
        }
        durable::write_file_by_way_of(&self.private_dir(), &path, &after)
    }
}

impl Store {
    fn excludes(&self) -> Result<Vec<u8>, StoreError> {
        let path = self.exclude_file();
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            bytes => bytes.map_err(StoreError::io("read", &path)),
        }
    }

    /// The rules that a person wrote into `info/exclude`: all but the block that foldersync keeps there for git.
    pub fn own_excludes(&self) -> Result<Vec<u8>, StoreError> {
        Ok(with_managed_block(&self.excludes()?, &[]))
    }
}

/// The file whose shared lock tells that exchanges are under way.
const UNDER_WAY: &str = "under-way";

/// An exchange is under way, as long as this is kept.
#[must_use = "the exchange counts as under way only while this is kept"]
#[derive(Debug)]
pub struct UnderWay(File);

impl Drop for UnderWay {
    fn drop(&mut self) {
        // As with the folder's lock: a program that is being started has a copy of the file for an instant.
        drop(self.0.unlock());
    }
}

const BLOCK_BEGIN: &[u8] = b"# foldersync: begin (kept by foldersync; write your own lines outside)\n";
const BLOCK_END: &[u8] = b"# foldersync: end\n";

/// A list of patterns with these in the block of foldersync, which goes if there are none. A block without its end is
/// taken for a person's lines.
fn with_managed_block(text: &[u8], patterns: &[Vec<u8>]) -> Vec<u8> {
    let lines: Vec<_> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let begin = lines.iter().rposition(|line| line.starts_with(b"# foldersync: begin"));
    let end = lines.iter().rposition(|line| line.starts_with(b"# foldersync: end")).filter(|end| begin < Some(*end));
    let mut kept = match (begin, end) {
        (Some(begin), Some(end)) => [lines[..begin].concat(), lines[end + 1..].concat()].concat(),
        _ => text.to_vec(),
    };
    if patterns.is_empty() {
        return kept;
    }
    if kept.last().is_some_and(|&byte| byte != b'\n') {
        kept.push(b'\n');
    }
    kept.extend_from_slice(BLOCK_BEGIN);
    for pattern in patterns {
        kept.extend_from_slice(pattern);
        kept.push(b'\n');
    }
    kept.extend_from_slice(BLOCK_END);
    kept
}

/// Switches off every conversion of content, over whatever a `.gitattributes` or a person's own settings say. `!` makes
/// an attribute as if nobody had set it: git dies of `-working-tree-encoding`.
const ATTRIBUTES: &str = "# Bytes are bytes: no conversion of line ends, encodings or keywords, whatever is set elsewhere.\n\
                          * -text -crlf !eol -ident !filter !working-tree-encoding\n";

/// Writes all of a repository in the folder `dir`, which is there and empty, and makes it last.
fn build(dir: &Path, options: InitOptions, ids: NewIds) -> Result<(), StoreError> {
    let exclude = if options.alongside { format!("/{ALONGSIDE}/\n") } else { String::new() };
    let folders = ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "foldersync/stage"];
    let files = [
        ("HEAD", format!("ref: {}\n", RefName::MAIN)),
        ("config", settings::initial(ids, options.alongside)),
        ("info/attributes", ATTRIBUTES.to_owned()),
        ("info/exclude", exclude),
    ];
    for folder in folders {
        let path = dir.join(folder);
        fs::create_dir_all(&path).map_err(StoreError::io("make the folder", &path))?;
    }
    for (name, content) in files {
        let path = dir.join(name);
        let mut file = File::create_new(&path).map_err(StoreError::io("write", &path))?;
        durable::fill(&mut file, &path, content.as_bytes())?;
        durable::sync_file(&file, &path)?;
    }
    if options.alongside {
        // A person's own git should not show it.
        let path = dir.join(".gitignore");
        durable::write_file_by_way_of(&dir.join(PRIVATE), &path, b"*\n")?;
    }
    index_file::create(dir)?;
    for folder in folders.iter().chain(&["objects", "refs", PRIVATE, ""]) {
        durable::sync_dir(&dir.join(folder))?;
    }
    Ok(())
}

/// Holds an advisory lock on a repository that is being made, so that another `init` can tell it from a leftover.
fn mark_as_being_made(unfinished: &Path) -> Result<File, StoreError> {
    let dir = File::open(unfinished).map_err(StoreError::io("open the folder", unfinished))?;
    // Where folders cannot be locked, the rename still lets only one of two win.
    drop(dir.try_lock());
    Ok(dir)
}

/// Removes what a killed `init` left.
fn remove_unfinished(root: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(root).map_err(StoreError::io("read the folder", root))? {
        let entry = entry.map_err(StoreError::io("read the folder", root))?;
        let path = entry.path();
        if is_unfinished(&entry.file_name()) && path.is_dir() {
            let living = File::open(&path).is_ok_and(|dir| dir.try_lock().is_err());
            if !living {
                fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Step, record};
    use crate::id::{CommitId, DeviceId, ObjectId};
    use crate::store::lock::{GitLock, lock_path};
    use crate::store::{Expected, ObjectKind, RefEdit};
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    const IDS: NewIds = NewIds {
        folder: FolderId::from_bytes([1; 16]),
        replica: ReplicaId::from_bytes([2; 16]),
        device: DeviceId::from_bytes([3; 32]),
    };
    const PLAIN: InitOptions = InitOptions { alongside: false };
    const ALONG: InitOptions = InitOptions { alongside: true };

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        (dir, root)
    }

    /// Runs git with the settings of a person who wants line ends converted.
    fn git(root: &Path, args: &[&str]) -> String {
        let config = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            config.path(),
            "[core]\nautocrlf = true\nsafecrlf = true\n[user]\nname = a\nemail = b@c\n[feature]\nmanyFiles = true\n",
        )
        .unwrap();
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(args);
        command.env("GIT_CONFIG_GLOBAL", config.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {errors}");
        assert!(!errors.contains("warning") && !errors.contains("ignoring"), "git {args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn reason(result: Result<Store, StoreError>) -> String {
        match result {
            Err(StoreError::Unfit { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_repository_is_one_that_git_likes() {
        let (_dir, root) = folder();
        let store = Store::init(&root, &PLAIN, IDS).unwrap();
        assert_eq!(store.root(), root);
        assert_eq!(store.git_dir(), root.join(".git"));
        assert_eq!(store.settings().unwrap().folder, IDS.folder);
        assert_eq!(git(&root, &["status", "--porcelain"]), "");
        assert_eq!(git(&root, &["symbolic-ref", "HEAD"]), "refs/heads/main\n");
        assert_eq!(git(&root, &["fsck", "--full", "--strict"]), "");

        fs::write(root.join("a.txt"), "one\r\ntwo\n").unwrap();
        git(&root, &["add", "."]);
        git(&root, &["commit", "-q", "-m", "a"]);
        assert_eq!(git(&root, &["log", "--format=%s"]), "a\n");
        assert_eq!(git(&root, &["cat-file", "blob", "HEAD:a.txt"]), "one\r\ntwo\n");
        assert!(store.refs().read(&RefName::MAIN).unwrap().is_some());
        git(&root, &["gc", "-q"]);
        let head = store.refs().read(&RefName::MAIN).unwrap().unwrap();
        assert_eq!(store.objects().commit(head).unwrap().author.name, "a");
        assert_eq!(git(&root, &["fsck", "--full", "--strict"]), "");
        let (_dir, other) = folder();
        git(&other, &["clone", "-q", root.to_str().unwrap(), "copy"]);
        assert_eq!(fs::read(other.join("copy/a.txt")).unwrap(), fs::read(root.join("a.txt")).unwrap());
        let modes = fs::metadata(root.join(".git/config")).unwrap().permissions().mode() & 0o111;
        assert_eq!(modes, 0);
    }

    #[test]
    fn no_setting_of_a_person_or_of_the_folder_converts_content() {
        let (_dir, root) = folder();
        Store::init(&root, &PLAIN, IDS).unwrap();
        let attributes =
            "* text eol=crlf ident filter=x working-tree-encoding=UTF-16\n[attr]m text eol=lf\n*.txt m crlf=input\n";
        fs::write(root.join(".gitattributes"), attributes).unwrap();
        let contents = ["one\r\ntwo\n", "$Id: x$\n", "a\nb\n"];
        for (n, content) in contents.iter().enumerate() {
            fs::write(root.join(format!("{n}.txt")), content).unwrap();
        }
        git(&root, &["add", "."]);
        git(&root, &["commit", "-q", "-m", "a"]);
        for (n, content) in contents.iter().enumerate() {
            assert_eq!(git(&root, &["cat-file", "blob", &format!("HEAD:{n}.txt")]), *content);
            fs::remove_file(root.join(format!("{n}.txt"))).unwrap();
        }
        git(&root, &["checkout", "-q", "."]);
        for (n, content) in contents.iter().enumerate() {
            assert_eq!(fs::read_to_string(root.join(format!("{n}.txt"))).unwrap(), *content);
        }
        assert_eq!(git(&root, &["status", "--porcelain"]), "");
    }

    #[test]
    fn alongside_it_lies_next_to_somebodys_repository() {
        let (_dir, root) = folder();
        git(&root, &["init", "-q", "-b", "main"]);
        let text = reason(Store::init(&root, &PLAIN, IDS));
        assert!(text.contains("is somebody's git repository; use --alongside"), "{text}");
        assert!(reason(Store::open(&root)).contains("--alongside"));
        assert_eq!(Store::discover(&root), None);
        let before = fs::read(root.join(".git/config")).unwrap();
        let store = Store::init(&root, &ALONG, IDS).unwrap();
        assert_eq!(store.git_dir(), root.join(".foldersync"));
        assert_eq!(fs::read(root.join(".git/config")).unwrap(), before);
        fs::write(root.join("a"), "").unwrap();
        assert_eq!(git(&root, &["--git-dir=.foldersync", "status", "--porcelain"]), "?? a\n");
        assert_eq!(Store::discover(&root), Some(root.clone()));
        for options in [PLAIN, ALONG] {
            assert!(reason(Store::init(&root, &options, IDS)).ends_with("is already a foldersync folder"));
        }
    }

    #[test]
    fn a_folder_is_not_made_twice_but_may_lie_in_another() {
        let (_dir, root) = folder();
        Store::init(&root, &PLAIN, IDS).unwrap();
        for options in [PLAIN, ALONG] {
            assert!(reason(Store::init(&root, &options, IDS)).ends_with("is already a foldersync folder"));
        }
        let inner = root.join("a/b");
        fs::create_dir_all(inner.join("c")).unwrap();
        assert_eq!(Store::discover(&inner.join("c")), Some(root.clone()));
        Store::init(&inner, &PLAIN, IDS).unwrap();
        assert_eq!(Store::discover(&inner.join("c")), Some(inner.clone()));
        assert!(reason(Store::init(&root.join(".git/info"), &PLAIN, IDS)).contains("is inside a repository"));
    }

    #[test]
    fn what_is_no_folder_to_write_in_is_refused() {
        let (_dir, root) = folder();
        assert!(reason(Store::init(&root.join("missing"), &PLAIN, IDS)).starts_with("there is no folder"));
        assert!(reason(Store::open(&root.join("missing"))).contains("mount the disk"));
        fs::write(root.join("file"), "").unwrap();
        assert!(reason(Store::init(&root.join("file"), &PLAIN, IDS)).ends_with("is not a folder"));
        fs::write(root.join(".git"), "gitdir: /elsewhere\n").unwrap();
        assert!(reason(Store::init(&root, &PLAIN, IDS)).contains("is somebody's git repository"));
        fs::remove_file(root.join(".git")).unwrap();
        assert!(reason(Store::open(&root)).contains("`foldersync init` makes it one"));
        fs::set_permissions(&root, fs::Permissions::from_mode(0o555)).unwrap();
        // Who runs the tests as root writes everywhere.
        let writes = fs::write(root.join("x"), "").is_ok();
        let result = Store::init(&root, &PLAIN, IDS);
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        if !writes {
            assert!(reason(result).starts_with("nothing can be written in"));
        }
    }

    #[test]
    fn a_killed_init_leaves_nothing_or_a_whole_one() {
        for allowed in 0.. {
            let (_dir, root) = folder();
            fs::write(root.join("file"), "").unwrap();
            let (result, _) = record::kill_after(allowed, || Store::init(&root, &PLAIN, IDS));
            let whole = root.join(".git").exists();
            if whole {
                Store::open(&root).unwrap();
                assert_eq!(git(&root, &["status", "--porcelain"]), "?? file\n");
            } else {
                // As a kill does, unlike an error.
                fs::create_dir_all(root.join(format!("{UNFINISHED}x/objects"))).unwrap();
                Store::init(&root, &PLAIN, IDS).unwrap();
                assert_eq!(fs::read_dir(&root).unwrap().count(), 2);
            }
            if result.is_ok() {
                break;
            }
        }
    }

    #[test]
    fn a_repository_that_is_being_made_is_not_taken_for_a_leftover() {
        let (_dir, root) = folder();
        let other = root.join(format!("{UNFINISHED}other"));
        fs::create_dir(&other).unwrap();
        let living = mark_as_being_made(&other).unwrap();
        Store::init(&root, &PLAIN, IDS).unwrap();
        assert!(other.exists());
        living.unlock().unwrap();
        remove_unfinished(&root).unwrap();
        assert!(!other.exists());
    }

    #[test]
    fn everything_is_synced_before_the_repository_gets_its_name() {
        let (_dir, root) = folder();
        let (store, steps) = record::steps(|| Store::init(&root, &PLAIN, IDS));
        store.unwrap();
        let renamed = steps.iter().position(|(step, _)| *step == Step::Rename).unwrap();
        let count = |kind| steps[..renamed].iter().filter(|(step, _)| *step == kind).count();
        assert_eq!(count(Step::Sync), 5);
        assert_eq!(steps[renamed + 1..].iter().map(|(step, _)| *step).collect::<Vec<_>>(), [Step::SyncDir]);
    }

    #[rstest::rstest]
    #[case::head_empty("HEAD", Some(""), "it is empty")]
    #[case::head_garbage("HEAD", Some("garbage"), "it names neither")]
    #[case::head_gone("HEAD", None, "it is missing")]
    #[case::config_garbage("config", Some("[core"), "could not read it")]
    #[case::config_without_us("config", Some("[core]\n\tbare = false\n"), "lacks the section")]
    #[case::config_gone("config", None, "lacks the section")]
    #[case::bad_id("config", Some("[foldersync]\n\tversion = 1\n\tfolder = x\n"), "`foldersync.folder` is `x`")]
    fn damage_is_named_with_what_to_do(#[case] file: &str, #[case] content: Option<&str>, #[case] detail: &str) {
        let (_dir, root) = folder();
        Store::init(&root, &PLAIN, IDS).unwrap();
        let path = root.join(".git").join(file);
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = Store::open(&root).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(detail) && text.contains(&path.display().to_string()), "{text}");
        assert_eq!(Store::discover(&root), Some(root));
    }

    #[test]
    fn missing_objects_are_damage_and_not_made_anew() {
        let (_dir, root) = folder();
        Store::init(&root, &PLAIN, IDS).unwrap();
        fs::remove_dir_all(root.join(".git/objects")).unwrap();
        let text = Store::open(&root).unwrap_err().to_string();
        assert!(text.contains("its objects are missing; put back"), "{text}");
        assert!(!root.join(".git/objects").exists());
    }

    #[test]
    fn another_branch_than_main_is_refused_with_the_way_back() {
        let (_dir, root) = folder();
        Store::init(&root, &PLAIN, IDS).unwrap();
        git(&root, &["commit", "-q", "--allow-empty", "-m", "a"]);
        git(&root, &["switch", "-q", "-c", "other"]);
        let text = reason(Store::open(&root));
        assert!(text.contains("switched to `other`; do `git switch main` first"), "{text}");
        git(&root, &["switch", "-q", "--detach"]);
        assert!(reason(Store::open(&root)).contains("do `git switch main` first"));
        git(&root, &["switch", "-q", "main"]);
        Store::open(&root).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let (_dir, root) = folder();
        Store::init(&root, &PLAIN, IDS).unwrap();
        git(&root, &["config", "foldersync.version", "7"]);
        assert!(reason(Store::open(&root)).ends_with("update foldersync"));
    }

    #[test]
    fn the_lock_clears_away_what_a_kill_left() {
        let (_dir, root) = folder();
        let store = Store::init(&root, &PLAIN, IDS).unwrap();
        fs::write(store.private_dir().join(".tmp-x"), "half").unwrap();
        let index = root.join(".git/index");
        let (result, _) = record::kill_after(0, || GitLock::take(&index).and_then(|mut lock| lock.write(b"x")));
        assert!(result.is_err() && lock_path(&index).exists());
        let held = store.lock("exchange", Wait::No).unwrap();
        assert!(!lock_path(&index).exists() && !store.private_dir().join(".tmp-x").exists());
        let again = Store::open(&root).unwrap();
        assert!(matches!(again.lock("commit", Wait::No), Err(StoreError::Locked { .. })));
        drop(held);
        drop(again.lock("commit", Wait::No).unwrap());
    }

    #[test]
    fn settings_are_set_and_read_again() {
        let (_dir, root) = folder();
        let store = Store::init(&root, &PLAIN, IDS).unwrap();
        store.set(Key::DeviceName, "laptop").unwrap();
        let settings = Store::open(&root).unwrap().settings().unwrap();
        assert_eq!(settings.device, Some(IDS.device));
        assert_eq!(settings.device_name.as_deref(), Some("laptop"));
        assert_eq!(git(&root, &["config", "foldersync.devicename"]), "laptop\n");
    }

    #[test]
    fn managed_excludes_leave_a_persons_lines_alone() {
        let (_dir, root) = folder();
        let store = Store::init(&root, &PLAIN, IDS).unwrap();
        let path = store.exclude_file();
        fs::write(&path, "# mine\n*.o").unwrap();
        let patterns = [b"*.tmp".to_vec(), b"/cache \xff".to_vec()];
        store.set_managed_excludes(&patterns).unwrap();
        let once = fs::read(&path).unwrap();
        assert!(once.starts_with(b"# mine\n*.o\n# foldersync: begin"));
        let (result, steps) = record::steps(|| store.set_managed_excludes(&patterns));
        result.unwrap();
        assert_eq!(steps, [], "nothing changed");
        fs::write(root.join("a.tmp"), "").unwrap();
        assert_eq!(git(&root, &["status", "--porcelain"]), "");
        fs::write(&path, [&once[..], b"later\n"].concat()).unwrap();
        store.set_managed_excludes(&[]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"# mine\n*.o\nlater\n");
        fs::write(&path, b"# foldersync: begin\nmine now\n").unwrap();
        store.set_managed_excludes(&[]).unwrap();
        store.set_managed_excludes(&patterns).unwrap();
        store.set_managed_excludes(&patterns[..1]).unwrap();
        assert!(fs::read(&path).unwrap().starts_with(b"# foldersync: begin\nmine now\n# foldersync: begin"));
    }

    #[test]
    fn a_store_is_shared_between_threads() {
        let (_dir, root) = folder();
        let store = Store::init(&root, &PLAIN, IDS).unwrap();
        git(&root, &["commit", "-q", "--allow-empty", "-m", "a"]);
        let head = store.refs().read(&RefName::MAIN).unwrap().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert!(store.objects().commit(head).unwrap().parents.is_empty()));
            }
        });
        // What comes later is found as well.
        git(&root, &["commit", "-q", "--allow-empty", "-m", "b"]);
        let id: ObjectId = store.refs().read(&RefName::MAIN).unwrap().unwrap().into();
        assert_eq!(store.objects().header(&id).unwrap().map(|(kind, _)| kind), Some(ObjectKind::Commit));
        let wrong = CommitId::from_bytes([9; 20]);
        let edit = RefEdit { name: RefName::MAIN, expected: Expected::Is(wrong), new: Some(head) };
        assert!(matches!(store.refs().update(&[edit]), Err(StoreError::RefMoved { .. })));
    }
}
