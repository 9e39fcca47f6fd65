//! Which folders are watched, and what an event means: a path is looked at, never trusted to be what its event says.
//!
//! A folder is watched before it is listed, and reported after all below it is watched: what came into it before the
//! watch is found by whoever looks at it then, what comes later is an event.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::fstat;

use super::super::error::WorktreeError;
use super::super::ignore::{self, Above};
use super::super::root::{FOLDER, Form, MAX_PATH, Names, Root};
use super::super::stage;
use super::WatchTrouble;
use super::dirty::{Dirty, Last, Seen};
use super::events::{Look, Note, Notes};
use super::system::{self, NotAdded, Notices};
use crate::path::{self, SyncPath, check_name};

/// What tells the folder from another that came to its place, or from the folder that its disk was mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    mount: u64,
}

impl Identity {
    fn of(root: &Root) -> rustix::io::Result<Self> {
        let stat = fstat(root.fd())?;
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the width differs from system to system")]
        let device = stat.st_dev as u64;
        Ok(Self { device, inode: stat.st_ino, mount: mount_of(root.fd()) })
    }
}

/// The mount that a folder lies on: the same disk, mounted again, is another one.
#[cfg(target_os = "linux")]
fn mount_of(folder: BorrowedFd<'_>) -> u64 {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let found = statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    found.map_or(0, |found| if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 { 0 } else { found.stx_mnt_id })
}

#[cfg(not(target_os = "linux"))]
fn mount_of(_: BorrowedFd<'_>) -> u64 {
    0
}

/// Watched folders, by their paths (the root's is empty), with the rules that hold in them.
pub(super) struct Tree {
    /// The folder's path as it was given.
    path: PathBuf,
    /// The same as events have it.
    base: PathBuf,
    identity: Identity,
    /// Our own repository, where it lies in the folder.
    own: Option<Vec<u8>>,
    exclude: Above,
    folders: BTreeMap<Box<[u8]>, Above>,
    /// Folders for which the system had no watch, since all were last looked at.
    lacking: u64,
    /// The same for other reasons, and the last of those.
    failed: Option<(u64, String)>,
}

/// What a walk has seen.
#[derive(Default)]
struct Walked {
    /// Folders that are watched now.
    visited: BTreeSet<Box<[u8]>>,
    /// Those of them that were not before.
    new: BTreeSet<Box<[u8]>>,
}

impl Tree {
    /// A tree whose folder stands, of which nothing is watched yet.
    pub(super) fn new(path: &Path, own: &Path, exclude: &[u8]) -> Result<Self, WorktreeError> {
        let root = Root::open(path)?;
        let failed = |source| WorktreeError::of("watch", path, source);
        let identity = Identity::of(&root).map_err(|errno| failed(errno.into()))?;
        let base = std::path::absolute(path).map_err(failed)?;
        // Elsewhere events name what links lead to.
        let base = if cfg!(target_os = "linux") { base } else { base.canonicalize().map_err(failed)? };
        let own = std::path::absolute(own).ok();
        let own = own.and_then(|own| Some(own.strip_prefix(&base).ok()?.as_os_str().as_bytes().to_vec()));
        Ok(Self {
            path: path.to_owned(),
            base,
            identity,
            own: own.filter(|own| !own.is_empty()),
            exclude: ignore::exclude(exclude),
            folders: BTreeMap::new(),
            lacking: 0,
            failed: None,
        })
    }

    /// The folder, if it is still the one that it was. It is not kept open, so that its disk can be unmounted.
    fn root(&self) -> Option<Root> {
        let root = Root::open(&self.path).ok()?;
        (Identity::of(&root).ok()? == self.identity).then_some(root)
    }

    /// Whether the folder is still the one that it was.
    pub(super) fn stands(&self) -> bool {
        self.root().is_some()
    }

    /// What keeps the watcher from seeing all.
    pub(super) fn trouble(&self) -> Option<WatchTrouble> {
        if self.lacking > 0 {
            let limit = system::limit("fs.inotify.max_user_watches");
            return Some(WatchTrouble::FolderLimit {
                watched: self.folders.len() as u64,
                lacking: self.lacking,
                limit,
            });
        }
        self.failed.as_ref().map(|(folders, why)| WatchTrouble::Unwatched { folders: *folders, why: why.clone() })
    }

    /// Watches everything, anew where it was watched. `false` if the folder is not there.
    pub(super) fn watch_all(&mut self, notices: &mut dyn Notices, stop: &AtomicBool) -> bool {
        let Some(root) = self.root() else { return false };
        self.walk_all(&root, notices, stop);
        true
    }

    fn walk_all(&mut self, root: &Root, notices: &mut dyn Notices, stop: &AtomicBool) -> Walked {
        (self.lacking, self.failed) = (0, None);
        self.walk(root, b"", notices, stop)
    }

    /// Looks at what is noted: watches what came, forgets what went, and says what is dirty. `None` if the folder is
    /// not there any more.
    pub(super) fn digest(&mut self, notes: Notes, notices: &mut dyn Notices, stop: &AtomicBool) -> Option<Dirty> {
        let mut dirty = Dirty::default();
        let root = self.root()?;
        if notes.lost {
            dirty.all();
        }
        if notes.lost || notes.again.is_some() {
            if let Some(exclude) = notes.again {
                self.exclude = ignore::exclude(&exclude);
            }
            let walked = self.walk_all(&root, notices, stop);
            // A folder stands for what is below it.
            let is_below_new = |folder: &[u8]| {
                let slashes = folder.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
                slashes.map(|(slash, _)| &folder[..slash]).any(|above| walked.new.contains(above))
            };
            for folder in walked.new.iter().filter(|folder| !is_below_new(folder)) {
                touch(&mut dirty, folder, Seen::TOUCHED);
            }
        }
        let mut walks: BTreeMap<Vec<u8>, Seen> = BTreeMap::new();
        for (at, note) in notes.paths {
            let Ok(relative) = at.strip_prefix(&self.base) else { continue };
            match self.place(relative.as_os_str().as_bytes()) {
                None => {}
                Some(Place::Path(path)) => self.look_at(&root, path, note, &mut walks, notices, &mut dirty),
                Some(Place::Rules(path)) => {
                    walks.insert(path.parent().to_vec(), Seen::TOUCHED);
                    dirty.touch(path, note.seen);
                }
                Some(Place::Repository(folder)) => {
                    walks.insert(folder, Seen::TOUCHED);
                }
            }
        }
        // What went is forgotten by now, so that a folder that was renamed is not taken off under its new name.
        let mut done: Option<Vec<u8>> = None;
        for (folder, seen) in walks {
            if !done.as_ref().is_some_and(|above| is_at_or_below(&folder, above)) {
                self.walk(&root, &folder, notices, stop);
                done = Some(folder.clone());
            }
            touch(&mut dirty, &folder, seen);
        }
        Some(dirty)
    }

    /// What a path of an event is to us; `None` if nothing.
    fn place(&self, relative: &[u8]) -> Option<Place> {
        if relative.is_empty() || relative.len() > MAX_PATH || self.is_own(relative) {
            return None; // Whether the root is still there is looked at each time.
        }
        let folder = relative.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |slash| &relative[..slash]);
        if !self.folders.contains_key(folder) {
            return None; // It is gone, or left out, and its event is late.
        }
        let name = &relative[if folder.is_empty() { 0 } else { folder.len() + 1 }..];
        if is_repository(name) {
            return (!folder.is_empty()).then(|| Place::Repository(folder.to_vec()));
        }
        if stage::is_beside(name) {
            return None;
        }
        let path = SyncPath::new(relative).ok()?;
        Some(if name == ignore::FILE_NAME { Place::Rules(path) } else { Place::Path(path) })
    }

    fn is_own(&self, relative: &[u8]) -> bool {
        self.own.as_ref().is_some_and(|own| is_at_or_below(relative, own))
    }

    /// Looks at one path.
    fn look_at(
        &mut self,
        root: &Root,
        path: SyncPath,
        note: Note,
        walks: &mut BTreeMap<Vec<u8>, Seen>,
        notices: &mut dyn Notices,
        dirty: &mut Dirty,
    ) {
        let Some(rules) = self.folders.get(path.parent()).cloned() else { return };
        let ignored = |folder| ignore::is_ignored(&rules, path.as_bytes(), folder);
        if note.look == Look::Not {
            if !ignored(false) {
                match note.seen.last {
                    Last::Gone => dirty.merge(one(path, note.seen)),
                    _ => dirty.touch(path, note.seen),
                }
            }
            return;
        }
        match root.status(&path) {
            Ok(Some(status)) if status.form == Form::Folder => {
                if ignored(true) {
                    self.forget(path.as_bytes(), &BTreeSet::new(), Some((root, notices)));
                } else if note.look == Look::Folder || !self.folders.contains_key(path.as_bytes()) {
                    walks.insert(path.as_bytes().to_vec(), Seen { last: Last::Touched, ..note.seen });
                }
            }
            Ok(found) => {
                let was_folder = self.forget(path.as_bytes(), &BTreeSet::new(), None);
                if !was_folder && ignored(false) && (found.is_some() || ignored(true)) {
                    return;
                }
                if found.is_none() {
                    dirty.merge(one(path, Seen { last: Last::Gone, ..note.seen }));
                } else {
                    dirty.touch(path, note.seen);
                }
            }
            // Whoever looks closer will say what is wrong.
            Err(_) => dirty.touch(path, note.seen),
        }
    }

    /// Forgets the folder and those below it, but for `kept`; returns whether it was watched. With `notices` the watch
    /// is ended where they still stand; elsewhere it has ended, or has gone to another name with its folder.
    fn forget(
        &mut self,
        folder: &[u8],
        kept: &BTreeSet<Box<[u8]>>,
        notices: Option<(&Root, &mut dyn Notices)>,
    ) -> bool {
        let gone: Vec<Box<[u8]>> =
            at_and_below(&self.folders, folder).filter(|at| !kept.contains(*at)).cloned().collect();
        let mut was = false;
        for at in &gone {
            self.folders.remove(at);
            was |= **at == *folder;
        }
        if let Some((root, notices)) = notices {
            gone.iter().filter(|at| root.open_at(at, FOLDER).is_ok()).for_each(|at| notices.remove(&self.at(at)));
        }
        was
    }

    fn at(&self, folder: &[u8]) -> PathBuf {
        if folder.is_empty() { self.base.clone() } else { self.base.join(OsStr::from_bytes(folder)) }
    }

    /// Watches a folder and all below it that counts, the upper ones first, and no longer what does not count.
    fn walk(&mut self, root: &Root, folder: &[u8], notices: &mut dyn Notices, stop: &AtomicBool) -> Walked {
        let mut walked = Walked::default();
        let above = match folder.iter().rposition(|&byte| byte == b'/') {
            _ if folder.is_empty() => Some(self.exclude.clone()),
            Some(slash) => self.folders.get(&folder[..slash]).cloned(),
            None => self.folders.get(&b""[..]).cloned(),
        };
        let mut waiting = VecDeque::new();
        waiting.extend(above.map(|above| (folder.to_vec(), above)));
        let mut names = Names::default();
        while let Some((folder, above)) = waiting.pop_front() {
            if stop.load(Ordering::Relaxed) {
                return walked;
            }
            let at = self.at(&folder);
            let added = notices.add(&at);
            match &added {
                Ok(()) => {}
                Err(NotAdded::NotThere) => continue,
                Err(NotAdded::Limit) => self.lacking += 1,
                Err(NotAdded::Failed(why)) => {
                    let folders = self.failed.as_ref().map_or(0, |(folders, _)| *folders);
                    self.failed = Some((folders + 1, why.clone()));
                }
            }
            let listed = root.open_at(&folder, FOLDER).and_then(|fd| names.read(fd.as_fd()));
            if listed.is_err() {
                continue; // What is gone again is told by the folder above.
            }
            let has = |name: &[u8]| names.find(name, false).or_else(|| names.find(name, true)).is_some();
            if !folder.is_empty() && (has(b".git") || has(path::ALONGSIDE.as_bytes())) {
                if added.is_ok() {
                    notices.remove(&at);
                }
                continue;
            }
            let rules = match names.find(ignore::FILE_NAME, false) {
                Some(_) => ignore::descend(root, &folder, &above).unwrap_or(above),
                None => above,
            };
            for index in (0..names.len()).filter(|&index| names.is_folder(index)) {
                let name = names.name(index);
                let path = if folder.is_empty() { name.to_vec() } else { [&folder, &b"/"[..], name].concat() };
                let counts = !is_repository(name)
                    && !self.is_own(&path)
                    && path.len() <= MAX_PATH
                    && check_name(name).is_ok()
                    && !stage::is_beside(name)
                    && !ignore::is_ignored(&rules, &path, true);
                if counts {
                    waiting.push_back((path, rules.clone()));
                }
            }
            if added.is_ok() {
                let folder = folder.into_boxed_slice();
                if self.folders.insert(folder.clone(), rules).is_none() {
                    walked.new.insert(folder.clone());
                }
                walked.visited.insert(folder);
            }
        }
        self.forget(folder, &walked.visited, Some((root, notices)));
        walked
    }

    /// The watched folders.
    #[cfg(test)]
    pub(super) fn watched(&self) -> Vec<String> {
        self.folders.keys().map(|folder| String::from_utf8_lossy(folder).into_owned()).collect()
    }
}

/// What a path is to us.
enum Place {
    Path(SyncPath),
    /// A file of rules: what counts in its folder may be something else now.
    Rules(SyncPath),
    /// A folder that has become, or is no more, a repository of its own.
    Repository(Vec<u8>),
}

fn is_repository(name: &[u8]) -> bool {
    name == b".git" || name == path::ALONGSIDE.as_bytes()
}

fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

fn at_and_below<'a>(folders: &'a BTreeMap<Box<[u8]>, Above>, folder: &[u8]) -> impl Iterator<Item = &'a Box<[u8]>> {
    let start: Box<[u8]> = folder.into();
    let with_bytes = start.clone();
    let first = with_bytes.clone();
    folders
        .range(first..)
        .map(|(at, _)| at)
        .take_while(move |at| at.starts_with(&with_bytes))
        .filter(move |at| is_at_or_below(at, &start))
}

/// Marks a folder, or everything if it is the root.
fn touch(dirty: &mut Dirty, folder: &[u8], seen: Seen) {
    match SyncPath::new(folder) {
        Ok(path) => dirty.touch(path, seen),
        Err(_) => dirty.all(),
    }
}

fn one(path: SyncPath, seen: Seen) -> Dirty {
    Dirty { paths: BTreeMap::from([(path, seen)]), ..Dirty::default() }
}

#[cfg(test)]
mod tests;
