//! Refs: names for commits, as git keeps them: a file each, or a line in `packed-refs`.
//!
//! **The promise.** [`Refs::update`] takes git's lock of every ref that it changes, then compares all of them with
//! what they were expected to be, then changes: nothing changes unless everything was as expected, and a git that runs
//! at the same moment neither disturbs nor is disturbed. When it returns, the new values last (each new value is
//! synced, then renamed to its name; each folder is synced once, before the refs of another move: one ref moved is two
//! syncs). A kill between two renames leaves the earlier refs of the list moved and the later ones not: the order of the
//! list is the order of the moves, with removals last; a loss of power leaves so the refs of one folder before those of
//! the next. A kill never leaves a ref without a value, and the lock files that it leaves are cleared away by the next
//! who comes (see [`super::lock`]).
//!
//! Must not: follow symbolic refs (only `HEAD` may be one, and only `head` reads it), write reflogs, or be used to
//! change anything by who does not hold the folder's lock.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::durable::{self, Dirs};
use super::error::StoreError;
use super::lock::GitLock;
use crate::id::CommitId;

/// The full name of a ref, one that git accepts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(Cow<'static, str>);

impl RefName {
    /// What the folder should hold.
    pub const MAIN: Self = Self(Cow::Borrowed("refs/heads/main"));
    /// What the disk last held.
    pub const APPLIED: Self = Self(Cow::Borrowed("refs/foldersync/applied"));
    /// The chunks of large files that are here.
    pub const CHUNKS: Self = Self(Cow::Borrowed("refs/heads/foldersync/chunks"));
    /// How the names of what is held back begin; the peer's name follows.
    pub const HELD: &str = "refs/foldersync/held/";
    /// How the names of what must not be collected begin.
    pub const KEEP: &str = "refs/foldersync/keep/";

    /// The ref with this name, if git accepts it as one (and keeps it for all work trees together).
    pub fn new(name: &str) -> Option<Self> {
        let accepted = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && !part.ends_with('.')
                && part.strip_suffix(".lock").is_none()
                && !part.contains("..")
                && !part.contains("@{")
                && !part.contains(|c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c))
        };
        let below = name.strip_prefix("refs/")?;
        below.split('/').all(accepted).then(|| Self(Cow::Owned(name.to_owned())))
    }

    /// The last known revision of a peer.
    pub fn peer(peer: &str) -> Result<Self, StoreError> {
        Self::with_peer(peer, |peer| format!("refs/remotes/{peer}/main"))
    }

    /// What came in from a peer and is not merged yet.
    pub fn incoming(peer: &str) -> Result<Self, StoreError> {
        Self::with_peer(peer, |peer| format!("refs/foldersync/incoming/{peer}"))
    }

    /// What came in from a peer ahead of a large revision.
    pub fn instalment(peer: &str) -> Result<Self, StoreError> {
        Self::with_peer(peer, |peer| format!("refs/foldersync/instalment/{peer}"))
    }

    /// What came in from a peer and is held back until a person has decided.
    pub fn held(peer: &str) -> Result<Self, StoreError> {
        Self::with_peer(peer, |peer| format!("{}{peer}", Self::HELD))
    }

    /// Both refs that hold what came in from a peer and is not merged yet.
    pub fn unmerged(peer: &str) -> Result<[Self; 2], StoreError> {
        Ok([Self::incoming(peer)?, Self::instalment(peer)?])
    }

    fn with_peer(peer: &str, name: impl Fn(&str) -> String) -> Result<Self, StoreError> {
        if valid_peer_name(peer) {
            return Ok(Self(Cow::Owned(name(peer))));
        }
        let reason = format!("`{}` cannot be the name of a peer: use {PEER_NAME_RULE}", peer.escape_debug());
        Err(StoreError::Unfit { reason })
    }

    /// Keeps a commit from being collected.
    pub fn keep(id: CommitId) -> Self {
        Self(Cow::Owned(format!("{}{id}", Self::KEEP)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What [`valid_peer_name`] asks for, for messages.
pub const PEER_NAME_RULE: &str = "letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first and last";

/// Whether a peer may have this name: it becomes a part of refs, of file names and of what people type.
pub fn valid_peer_name(name: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 64
        && alphanumeric(name.chars().next())
        && alphanumeric(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !name.contains("..")
        && !name.to_ascii_lowercase().ends_with(".lock")
}

/// What a ref must be for a change of it to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Any,
    /// Not there.
    Absent,
    /// This commit.
    Is(CommitId),
}

impl From<Option<CommitId>> for Expected {
    fn from(value: Option<CommitId>) -> Self {
        value.map_or(Self::Absent, Self::Is)
    }
}

/// A change of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefEdit {
    /// Which.
    pub name: RefName,
    /// What it must be before.
    pub expected: Expected,
    /// What it is afterwards; `None` removes it.
    pub new: Option<CommitId>,
}

/// What `HEAD` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// The name of a branch, which need not be there yet.
    Branch(String),
    /// A commit of no branch.
    Detached(CommitId),
}

/// Reads `HEAD`.
pub(crate) fn head(git_dir: &Path) -> Result<Head, StoreError> {
    let path = git_dir.join("HEAD");
    let damaged = |detail: &str| {
        let what_to_do = "; write the line `ref: refs/heads/main` into it";
        StoreError::damaged(format!("`{}`", path.display()), format!("{detail}{what_to_do}"))
    };
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is missing")),
        bytes => bytes.map_err(StoreError::io("read", &path))?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_end();
    match text.strip_prefix("ref:").map(str::trim_start) {
        _ if bytes.is_empty() => Err(damaged("it is empty")),
        Some(name) if RefName::new(name).is_some() => Ok(Head::Branch(name.to_owned())),
        Some(_) => Err(damaged("it names no ref")),
        None => text.parse().map(Head::Detached).map_err(|_| damaged("it names neither a ref nor a commit")),
    }
}

/// The refs of a repository.
#[derive(Debug, Clone)]
pub struct Refs {
    git_dir: PathBuf,
}

type Packed = BTreeMap<String, CommitId>;

impl Refs {
    /// The refs of the repository `git_dir`.
    pub fn new(git_dir: &Path) -> Self {
        Self { git_dir: git_dir.to_owned() }
    }

    fn path(&self, name: &RefName) -> PathBuf {
        self.git_dir.join(name.as_str())
    }

    fn packed_path(&self) -> PathBuf {
        self.git_dir.join("packed-refs")
    }

    /// The commit that a ref names; `None` if there is no such ref.
    pub fn read(&self, name: &RefName) -> Result<Option<CommitId>, StoreError> {
        // In this order: git moves refs from files into `packed-refs`, so one that is being moved is seen in either.
        match self.read_loose(name)? {
            Some(id) => Ok(Some(id)),
            None => Ok(self.packed()?.get(name.as_str()).copied()),
        }
    }

    fn read_loose(&self, name: &RefName) -> Result<Option<CommitId>, StoreError> {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Err(error) if matches!(error.kind(), NotFound | NotADirectory | IsADirectory) => return Ok(None),
            bytes => bytes.map_err(StoreError::io("read", &path))?,
        };
        let text = std::str::from_utf8(&bytes).unwrap_or("not text").trim_end();
        text.parse().map(Some).map_err(|_| {
            let detail = match text {
                "" => "it is empty".to_owned(),
                _ if text.starts_with("ref:") => "it points to another ref".to_owned(),
                _ => format!("it holds `{}`", text.chars().take(60).collect::<String>().escape_debug()),
            };
            let what_to_do = "write the id of its commit into it (`git fsck --lost-found` names those without a ref)";
            StoreError::damaged(format!("ref {name} (`{}`)", path.display()), format!("{detail}; {what_to_do}"))
        })
    }

    fn packed(&self) -> Result<Packed, StoreError> {
        let path = self.packed_path();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Packed::new()),
            bytes => bytes.map_err(StoreError::io("read", &path))?,
        };
        let mut packed = Packed::new();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if matches!(line[0], b'#' | b'^') {
                continue;
            }
            let parsed = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()).and_then(|line| {
                let (id, name) = line.split_once(' ')?;
                Some((name.to_owned(), id.parse().ok()?))
            });
            let (name, id) = parsed.ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                let detail =
                    format!("it has the line `{}`; correct or remove that line", line.trim_end().escape_debug());
                StoreError::damaged(format!("`{}`", path.display()), detail)
            })?;
            packed.insert(name, id);
        }
        Ok(packed)
    }

    /// The refs whose names begin with `prefix` (whole parts: `refs/remotes/`), by name. Names that only a tag object
    /// or something else than a commit has are listed with its id.
    pub fn list(&self, prefix: &str) -> Result<Vec<(RefName, CommitId)>, StoreError> {
        let mut names = Vec::new();
        self.walk(prefix.trim_end_matches('/'), &mut names)?;
        let mut found = BTreeMap::new();
        for name in names {
            // One that goes or is packed at this moment is found below, or gone.
            if let Some(id) = self.read_loose(&name)? {
                found.insert(name, id);
            }
        }
        for (name, id) in self.packed()? {
            if let Some(name) = RefName::new(&name).filter(|name| name.as_str().starts_with(prefix)) {
                found.entry(name).or_insert(id);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// All refs that can be read, and what is wrong with the others: which it is, where it is known, in which file.
    #[expect(clippy::type_complexity, reason = "the second list is looked at once")]
    pub(crate) fn check(
        &self,
    ) -> Result<(Vec<(RefName, CommitId)>, Vec<(Option<RefName>, PathBuf, String)>), StoreError> {
        let (mut names, mut found, mut wrong) = (Vec::new(), BTreeMap::new(), Vec::new());
        self.walk("refs", &mut names)?;
        let detail = |error: StoreError| match error {
            StoreError::Damaged { detail, .. } => detail.split(';').next().unwrap_or_default().to_owned(),
            error => error.to_string(),
        };
        for name in names {
            // Git's locks, and symbolic refs of a person's (`refs/remotes/x/HEAD`).
            let text = fs::read(self.path(&name)).unwrap_or_default();
            if text.starts_with(b"ref:") && !name.as_str().starts_with("refs/foldersync/") && name != RefName::MAIN {
                continue;
            }
            match self.read_loose(&name) {
                Ok(id) => {
                    let keeps = name.as_str().strip_prefix(RefName::KEEP);
                    if let Some(id) = id.filter(|id| keeps.is_some_and(|kept| kept != id.to_string())) {
                        wrong.push((
                            Some(name.clone()),
                            self.path(&name),
                            format!("it keeps {id}, and not what it says"),
                        ));
                    }
                    if id.is_some_and(|id| text != format!("{id}\n").into_bytes()) {
                        wrong.push((Some(name.clone()), self.path(&name), "it is not as git writes it".to_owned()));
                    }
                    found.extend(id.map(|id| (name, id)));
                }
                Err(error) => wrong.push((Some(name.clone()), self.path(&name), detail(error))),
            }
        }
        match self.packed() {
            Ok(packed) => {
                for (name, id) in packed {
                    if let Some(name) =
                        RefName::new(&name).filter(|name| wrong.iter().all(|w| w.0.as_ref() != Some(name)))
                    {
                        found.entry(name).or_insert(id);
                    }
                }
            }
            Err(error) => wrong.push((None, self.packed_path(), detail(error))),
        }
        Ok((found.into_iter().collect(), wrong))
    }

    fn walk(&self, dir: &str, names: &mut Vec<RefName>) -> Result<(), StoreError> {
        let path = self.git_dir.join(dir);
        let entries = match fs::read_dir(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            entries => entries.map_err(StoreError::io("read", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(StoreError::io("read", &path))?;
            let Some(name) = entry.file_name().to_str().and_then(|name| RefName::new(&format!("{dir}/{name}"))) else {
                continue;
            };
            if entry.file_type().map_err(StoreError::io("read", &path))?.is_dir() {
                self.walk(name.as_str(), names)?;
            } else {
                names.push(name);
            }
        }
        Ok(())
    }

    /// Changes refs, each named once: all of them, if all are as expected; otherwise none.
    pub fn update(&self, edits: &[RefEdit]) -> Result<(), StoreError> {
        let mut locks = edits.iter().map(|edit| self.lock(&edit.name)).collect::<Result<Vec<_>, _>>()?;
        for edit in edits {
            let fits = match edit.expected {
                Expected::Any => true,
                Expected::Absent => self.read(&edit.name)?.is_none(),
                Expected::Is(id) => self.read(&edit.name)? == Some(id),
            };
            if !fits {
                return Err(StoreError::RefMoved { name: edit.name.to_string() });
            }
        }
        for (edit, lock) in edits.iter().zip(&mut locks) {
            if let Some(id) = edit.new {
                lock.write(format!("{id}\n").as_bytes())?;
            }
        }
        // Out of `packed-refs` first: a ref that goes must not come back from there when its file is gone.
        let mut dirs = Dirs::default();
        let removed: Vec<_> = edits.iter().filter(|edit| edit.new.is_none()).map(|edit| edit.name.as_str()).collect();
        if !removed.is_empty() {
            self.remove_packed(&removed)?;
        }
        let mut gone = Vec::new();
        let mut before: Option<PathBuf> = None;
        for (edit, lock) in edits.iter().zip(locks) {
            let path = self.path(&edit.name);
            if edit.new.is_none() {
                gone.push((path, lock));
                continue;
            }
            if before.is_some_and(|before| before.parent() != path.parent()) {
                std::mem::take(&mut dirs).sync()?;
            }
            drop(lock.publish()?);
            dirs.changed(&path);
            before = Some(path);
        }
        // A value that moves to another name is never under neither.
        dirs.sync()?;
        let mut dirs = Dirs::default();
        for (path, lock) in gone {
            if durable::remove(&path)? {
                dirs.changed(&path);
            }
            drop(lock);
        }
        dirs.sync()
    }

    /// Takes git's lock of a ref; the folder that it needs is made. A git that removes empty folders at the same
    /// moment may take that away again.
    fn lock(&self, name: &RefName) -> Result<GitLock, StoreError> {
        let path = self.path(name);
        let mut attempts = 0;
        loop {
            if let Some(dir) = path.parent() {
                durable::create_dirs(&self.git_dir, dir)?;
            }
            // An empty folder of that name is what is left of refs below it.
            drop(fs::remove_dir(&path));
            match GitLock::take(&path) {
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && attempts < 3 => {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    /// Takes refs out of `packed-refs`, keeping the rest of it as it is.
    fn remove_packed(&self, names: &[&str]) -> Result<(), StoreError> {
        let path = self.packed_path();
        let packed = self.packed()?;
        if !names.iter().any(|name| packed.contains_key(*name)) {
            return Ok(());
        }
        let mut lock = GitLock::take(&path)?;
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let mut kept = Vec::with_capacity(bytes.len());
        let mut keeps = true;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            // A line with `^` belongs to the one before it.
            if !line.starts_with(b"^") {
                let name = line.trim_ascii_end().splitn(2, |&byte| byte == b' ').nth(1);
                keeps = line.starts_with(b"#") || !names.iter().any(|removed| name == Some(removed.as_bytes()));
            }
            if keeps {
                kept.extend_from_slice(line);
            }
        }
        lock.write(&kept)?;
        drop(lock.publish()?);
        durable::sync_dir(&self.git_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Step, record};
    use crate::store::lock::lock_path;
    use std::process::Command;

    fn git(dir: &Path, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for (role, name) in [("AUTHOR", "a"), ("COMMITTER", "c")] {
            command.env(format!("GIT_{role}_NAME"), name).env(format!("GIT_{role}_EMAIL"), "x@y");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// A repository with two commits.
    fn repository() -> (tempfile::TempDir, Refs, CommitId, CommitId) {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "-b", "main"]);
        let commit = |message| {
            git(dir.path(), &["commit", "-q", "--allow-empty", "-m", message]);
            git(dir.path(), &["rev-parse", "HEAD"]).parse().unwrap()
        };
        let (a, b) = (commit("a"), commit("b"));
        let refs = Refs::new(&dir.path().join(".git"));
        (dir, refs, a, b)
    }

    fn edit(name: RefName, expected: Expected, new: Option<CommitId>) -> RefEdit {
        RefEdit { name, expected, new }
    }

    #[test]
    fn git_sees_what_is_moved_and_we_see_what_git_moves() {
        let (dir, refs, a, b) = repository();
        assert_eq!(refs.read(&RefName::MAIN).unwrap(), Some(b));
        assert_eq!(refs.read(&RefName::APPLIED).unwrap(), None);
        let nas = RefName::peer("nas").unwrap();
        refs.update(&[
            edit(RefName::MAIN, Expected::Is(b), Some(a)),
            edit(RefName::APPLIED, Expected::Absent, Some(b)),
            edit(nas.clone(), Expected::Any, Some(b)),
        ])
        .unwrap();
        assert_eq!(git(dir.path(), &["rev-parse", "main"]), a.to_string());
        assert_eq!(git(dir.path(), &["rev-parse", "nas/main", "refs/foldersync/applied"]), format!("{b}\n{b}"));
        assert_eq!(git(dir.path(), &["log", "--format=%s", "main..nas/main"]), "b");
        git(dir.path(), &["update-ref", nas.as_str(), &a.to_string()]);
        assert_eq!(refs.read(&nas).unwrap(), Some(a));
        git(dir.path(), &["fsck", "--strict"]);
    }

    #[test]
    fn a_moved_ref_is_one_sync_of_a_file_and_one_of_its_folder() {
        let (_dir, refs, a, b) = repository();
        let (result, steps) = record::steps(|| refs.update(&[edit(RefName::MAIN, Expected::Is(b), Some(a))]));
        result.unwrap();
        let expected =
            [(Step::Write, "main.lock"), (Step::Sync, "main.lock"), (Step::Rename, "main"), (Step::SyncDir, "heads")];
        assert_eq!(steps, expected.map(|(step, name)| (step, name.to_owned())));
    }

    #[test]
    fn refs_of_one_folder_share_its_sync() {
        let (_dir, refs, a, b) = repository();
        let edits = [a, b].map(|id| edit(RefName::keep(id), Expected::Absent, Some(id)));
        refs.update(&edits).unwrap();
        let edits = [a, b].map(|id| edit(RefName::keep(id), Expected::Is(id), Some(id)));
        let (result, steps) = record::steps(|| refs.update(&edits));
        result.unwrap();
        let count = |kind| steps.iter().filter(|(step, _)| *step == kind).count();
        assert_eq!((count(Step::Sync), count(Step::SyncDir)), (2, 1));
    }

    #[test]
    fn what_is_applied_does_not_move_before_the_head_is_safe() {
        let (_dir, refs, a, b) = repository();
        let edits = [edit(RefName::MAIN, Expected::Is(b), Some(a)), edit(RefName::APPLIED, Expected::Absent, Some(a))];
        let (result, steps) = record::steps(|| refs.update(&edits));
        result.unwrap();
        let at = |step: Step, name: &str| steps.iter().position(|it| *it == (step, name.to_owned())).unwrap();
        assert!(at(Step::Rename, "main") < at(Step::SyncDir, "heads"));
        assert!(at(Step::SyncDir, "heads") < at(Step::Rename, "applied"));
    }

    #[test]
    fn nothing_moves_unless_all_are_as_expected() {
        let (dir, refs, a, b) = repository();
        for wrong in [Expected::Is(a), Expected::Absent] {
            let edits = [edit(RefName::APPLIED, Expected::Absent, Some(a)), edit(RefName::MAIN, wrong, Some(a))];
            let error = refs.update(&edits).unwrap_err();
            assert!(matches!(&error, StoreError::RefMoved { name } if name == "refs/heads/main"), "{error}");
        }
        assert_eq!(refs.read(&RefName::APPLIED).unwrap(), None);
        assert_eq!(refs.read(&RefName::MAIN).unwrap(), Some(b));
        assert!(!lock_path(&dir.path().join(".git/refs/heads/main")).exists());
    }

    #[test]
    fn packed_refs_are_read_listed_and_removed() {
        let (dir, refs, a, b) = repository();
        git(dir.path(), &["tag", "-a", "-m", "t", "v1", &a.to_string()]);
        for name in ["refs/remotes/nas/main", "refs/remotes/pi/main", "refs/foldersync/applied"] {
            git(dir.path(), &["update-ref", name, &a.to_string()]);
        }
        git(dir.path(), &["pack-refs", "--all"]);
        let (nas, pi) = (RefName::peer("nas").unwrap(), RefName::peer("pi").unwrap());
        assert_eq!(refs.read(&nas).unwrap(), Some(a));
        refs.update(&[edit(pi.clone(), Expected::Is(a), Some(b))]).unwrap();
        assert_eq!(refs.list("refs/remotes/").unwrap(), [(nas.clone(), a), (pi.clone(), b)]);
        refs.update(&[edit(nas.clone(), Expected::Is(a), None), edit(pi.clone(), Expected::Is(b), None)]).unwrap();
        assert_eq!(refs.list("refs/remotes/").unwrap(), []);
        assert_eq!(git(dir.path(), &["for-each-ref", "--format=%(refname)", "refs/remotes"]), "");
        assert_eq!(git(dir.path(), &["rev-parse", "v1^{commit}", "main"]), format!("{a}\n{b}"));
        // And again: removing what is not there is no error.
        refs.update(&[edit(nas, Expected::Absent, None)]).unwrap();
        git(dir.path(), &["fsck", "--strict"]);
    }

    #[test]
    fn a_ref_may_come_where_others_lay_below() {
        let (_dir, refs, a, _) = repository();
        let (deep, flat) = (RefName::new("refs/x/y/z").unwrap(), RefName::new("refs/x/y").unwrap());
        refs.update(&[edit(deep.clone(), Expected::Absent, Some(a))]).unwrap();
        assert!(refs.update(&[edit(flat.clone(), Expected::Absent, Some(a))]).is_err());
        refs.update(&[edit(deep, Expected::Is(a), None)]).unwrap();
        refs.update(&[edit(flat.clone(), Expected::Absent, Some(a))]).unwrap();
        assert_eq!(refs.read(&flat).unwrap(), Some(a));
    }

    #[test]
    fn a_kill_at_any_step_leaves_the_old_or_the_new_value_and_no_lasting_lock() {
        for allowed in 0.. {
            let (dir, refs, a, b) = repository();
            git(dir.path(), &["update-ref", "refs/foldersync/keep/x", &a.to_string()]);
            git(dir.path(), &["pack-refs", "--all"]);
            let keep = RefName::new("refs/foldersync/keep/x").unwrap();
            let edits = [
                edit(RefName::MAIN, Expected::Is(b), Some(a)),
                edit(RefName::APPLIED, Expected::Absent, Some(b)),
                edit(keep.clone(), Expected::Is(a), None),
            ];
            let (result, _) = record::kill_after(allowed, || refs.update(&edits));
            let main = refs.read(&RefName::MAIN).unwrap();
            let applied = refs.read(&RefName::APPLIED).unwrap();
            assert!([Some(a), Some(b)].contains(&main) && [None, Some(b)].contains(&applied));
            assert!(applied.is_none() || main == Some(a), "in the order of the list");
            // The next one finishes, whatever was left.
            let again = [
                edit(RefName::MAIN, Expected::from(main), Some(a)),
                edit(RefName::APPLIED, Expected::from(applied), Some(b)),
                edit(keep.clone(), Expected::Any, None),
            ];
            refs.update(&again).unwrap();
            assert_eq!(refs.read(&keep).unwrap(), None);
            git(dir.path(), &["update-ref", "refs/heads/main", &b.to_string(), &a.to_string()]);
            git(dir.path(), &["fsck", "--strict"]);
            if result.is_ok() {
                break;
            }
        }
    }

    #[test]
    fn a_ref_that_git_has_locked_stays() {
        let (dir, refs, a, b) = repository();
        let lock = lock_path(&dir.path().join(".git/refs/heads/main"));
        fs::write(&lock, "").unwrap();
        let result = refs.update(&[edit(RefName::MAIN, Expected::Any, Some(a))]);
        assert!(matches!(result, Err(StoreError::Locked { .. })));
        assert_eq!(refs.read(&RefName::MAIN).unwrap(), Some(b));
        assert!(lock.exists());
    }

    #[rstest::rstest]
    #[case("", "it is empty")]
    #[case("garbage\n", "it holds `garbage`")]
    #[case("ref: refs/heads/x\n", "it points to another ref")]
    fn a_ref_without_a_commit_is_damage_with_its_name(#[case] content: &str, #[case] detail: &str) {
        let (dir, refs, a, _) = repository();
        fs::write(dir.path().join(".git/refs/heads/main"), content).unwrap();
        let error = refs.read(&RefName::MAIN).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }));
        let text = error.to_string();
        assert!(text.contains("refs/heads/main") && text.contains(detail), "{text}");
        assert!(refs.update(&[edit(RefName::MAIN, Expected::Is(a), Some(a))]).is_err());
        refs.update(&[edit(RefName::MAIN, Expected::Any, Some(a))]).unwrap();
        assert_eq!(refs.read(&RefName::MAIN).unwrap(), Some(a));
    }

    #[test]
    fn garbage_in_packed_refs_is_damage() {
        let (dir, refs, ..) = repository();
        fs::write(dir.path().join(".git/packed-refs"), "# pack-refs\nnonsense\n").unwrap();
        let error = refs.read(&RefName::APPLIED).unwrap_err().to_string();
        assert!(error.contains("the line `nonsense`"), "{error}");
    }

    #[rstest::rstest]
    #[case("nas", true)]
    #[case("my-nas_2.home", true)]
    #[case("", false)]
    #[case("a/b", false)]
    #[case("..", false)]
    #[case("a..b", false)]
    #[case("-x", false)]
    #[case(".x", false)]
    #[case("x.lock", false)]
    #[case("é", false)]
    #[case("a b", false)]
    fn peer_names(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(valid_peer_name(name), valid);
        assert_eq!(RefName::peer(name).is_ok(), valid);
        if valid {
            assert_eq!(RefName::new(&format!("refs/remotes/{name}/main")), Some(RefName::peer(name).unwrap()));
        }
    }

    #[rstest::rstest]
    #[case("refs/heads/a-b", true)]
    #[case("refs/heads/é", true)]
    #[case("HEAD", false)]
    #[case("refs/heads//a", false)]
    #[case("refs/heads/.a", false)]
    #[case("refs/../config", false)]
    #[case("refs/heads/a.lock", false)]
    #[case("refs/heads/a b", false)]
    #[case("refs/heads/a:b", false)]
    fn ref_names_are_those_of_git(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(RefName::new(name).is_some(), valid);
        let git = Command::new("git").args(["check-ref-format", name]).status().unwrap();
        assert_eq!(git.success(), valid);
    }
}
