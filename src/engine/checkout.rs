//! Checkout: the disk is brought from what was last applied to what the folder should hold.
//!
//! Nothing that the disk holds is replaced or removed before it is in a commit that is safe on disk: what differs
//! from what was last recorded is captured first, merged, and the plan is made again. A kill leaves each path with its
//! old or its new content, `applied` behind `main`, and the next work begins here again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use crate::change::Change;
use crate::clock::Timestamp;
use crate::engine::capture::Candidate;
use crate::engine::error::EngineError;
use crate::engine::folder::Work;
use crate::engine::report::{CaptureReport, LeftOut};
use crate::entry::{Entry, Fingerprint, Kind};
use crate::id::CommitId;
use crate::path::SyncPath;
use crate::store::large::{self, Recipe};
use crate::store::tree::{self, At};
use crate::store::{ObjectHasher, ObjectKind, Objects, StoreError};
use crate::table::TableEdit;
use crate::worktree::{ApplyError, Content, OnDisk, Refused, Root, Target};

/// How often a plan is made again because files changed under it, before it is left to the next time.
const ROUNDS: usize = 20;

/// How long, and how often, a file that was written a moment ago is waited for before it is replaced.
const REST: std::time::Duration = std::time::Duration::from_millis(10);
const RESTS: usize = 10;

/// So many commits are worth a thread of their own to read them.
const READ_BY_THREAD: usize = 1024;

/// Contents for the disk. Each thread that writes takes a reader of its own from the pool.
struct FromStore {
    idle: Mutex<Vec<Objects>>,
    first: Mutex<Objects>,
}

impl FromStore {
    fn with<T>(&self, read: impl FnOnce(&Objects) -> T) -> io::Result<T> {
        let idle = self.idle.lock().map(|mut idle| idle.pop()).ok().flatten();
        let objects = match idle {
            Some(objects) => objects,
            None => self.first.lock().map_err(|_| io::Error::other("a thread failed"))?.clone(),
        };
        let done = read(&objects);
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(objects);
        }
        Ok(done)
    }
}

impl Content for FromStore {
    fn copy_to(&self, entry: &Entry, out: &mut dyn Write) -> io::Result<u64> {
        let copied = self.with(|objects| match entry.kind {
            Kind::Symlink => objects.copy_blob(&entry.id, out),
            _ => objects.copy_file(&entry.id, out),
        })?;
        copied.map_err(|error| match error {
            // Somebody has sent what makes no sense; the repository is as it should be.
            StoreError::Hostile { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            error => io::Error::other(error),
        })
    }

    fn change(&self, old: &Entry, entry: &Entry, file: &File, fill: &mut dyn FnMut() -> io::Result<()>) -> Option<u64> {
        self.with(|objects| objects.patch_file(&old.id, &entry.id, file, fill)).ok().flatten()
    }
}

/// A commit that touched a path, and the file's time that it tells.
type Touch = (CommitId, Timestamp);

#[derive(Default)]
struct Touched {
    by_path: HashMap<SyncPath, Vec<Touch>>,
    /// Whether there was a merge: then the order of the touches says nothing.
    merged: bool,
}

/// What a commit did.
enum What {
    /// It touched these paths.
    Paths(Vec<(SyncPath, Touch)>),
    /// It merged these.
    Merged(Vec<CommitId>),
}

impl What {
    fn of(objects: &Objects, id: CommitId) -> Result<Self, EngineError> {
        let commit = objects.commit(id)?;
        if commit.parents.len() > 1 {
            return Ok(Self::Merged(commit.parents));
        }
        let message = commit.message();
        let touch = (id, message.mtime.unwrap_or(Timestamp::new(commit.author.time, 0)));
        if let Some(path) = message.path() {
            return Ok(Self::Paths(vec![(path, touch)]));
        }
        // A person's own commit: only its trees tell what it touched.
        let before =
            commit.parents.first().map(|&parent| objects.commit(parent).map(|parent| parent.tree)).transpose()?;
        let mut paths = Vec::new();
        let told = tree::diff(objects, before, Some(commit.tree), &mut |change| {
            paths.push((change.path, touch));
            Ok(())
        });
        match told {
            Ok(()) => Ok(Self::Paths(paths)),
            // More than can be worked with, which a later revision took away again: none of it is to be written.
            Err(StoreError::Hostile { .. }) => Ok(Self::Paths(Vec::new())),
            Err(error) => Err(error.into()),
        }
    }
}

impl Work<'_> {
    /// Brings the disk to what the folder should hold.
    pub(crate) fn settle(&mut self) -> Result<(), EngineError> {
        self.settle_with(BTreeSet::new())
    }

    /// Brings the disk to what the folder should hold, after a kill at any moment of that.
    pub(crate) fn settle_again(&mut self) -> Result<(), EngineError> {
        let strays = self.strays()?;
        self.settle_with(strays)
    }

    /// What the disk holds by the table, and neither what was last applied nor the head has: it was written for a head
    /// that another has replaced since.
    fn strays(&self) -> Result<BTreeSet<SyncPath>, EngineError> {
        let rows = self.table.iter().filter_map(|(path, _)| SyncPath::new(path).ok());
        let mut strays: BTreeSet<SyncPath> = rows.collect();
        for commit in [self.applied, self.head].into_iter().flatten() {
            let paths: Vec<&SyncPath> = strays.iter().collect();
            let standing = tree::lookup_many(&self.objects, self.tree_of(Some(commit))?, &paths)?;
            let mut standing = standing.into_iter();
            strays.retain(|_| standing.next() == Some(At::Nothing));
        }
        Ok(strays)
    }

    /// `tried`: paths that may hold what was written for another head.
    fn settle_with(&mut self, mut tried: BTreeSet<SyncPath>) -> Result<(), EngineError> {
        let mut refused: HashMap<SyncPath, String> = HashMap::new();
        let mut surprised: HashSet<SyncPath> = HashSet::new();
        for _ in 0..ROUNDS {
            let Some(head) = self.head else { return Ok(()) };
            if self.applied == Some(head) {
                break;
            }
            let targets = self.targets(head, &refused, &tried)?;
            // Some of it may be written when the rest surprises, and the head becomes another.
            tried.extend(targets.iter().map(|target| target.path.clone()));
            let exclude = self.folder.store.own_excludes()?;
            let plan = crate::worktree::plan(&self.root, &self.table, &exclude, targets)?;
            note(&mut refused, &plan.refused);
            let mut surprises: Vec<SyncPath> = plan.surprises.clone();
            if surprises.is_empty() {
                surprises = self.apply(plan, &mut refused)?;
            }
            if surprises.is_empty() {
                self.save_table_of(Some(head))?;
                self.move_refs(Some(head), Some(head), Vec::new())?;
                break;
            }
            // What surprises a second time is not something that can be captured: an ignored file in the way.
            let (again, new): (Vec<_>, Vec<_>) = surprises.into_iter().partition(|path| surprised.contains(path));
            for path in again {
                refused.insert(
                    path,
                    "something that is left out of the folder (an ignored file?) is in the way".to_owned(),
                );
            }
            if !new.is_empty() {
                self.capture_surprises(&new)?;
                surprised.extend(new);
            }
        }
        let mut refused: Vec<_> = refused.into_iter().collect();
        refused.sort();
        self.left_out.extend(refused.into_iter().map(|(path, why)| LeftOut { path: path.to_string(), why }));
        Ok(())
    }

    /// What shall stand where on disk, of what differs between what was last applied and `head`, and at the paths that
    /// were `tried` before.
    fn targets(
        &self,
        head: CommitId,
        refused: &HashMap<SyncPath, String>,
        tried: &BTreeSet<SyncPath>,
    ) -> Result<Vec<Target>, EngineError> {
        let mut changes: Vec<Change> = Vec::new();
        let old = self.applied.map(|applied| self.tree_of(Some(applied))).transpose()?;
        tree::diff(&self.objects, old, Some(self.tree_of(Some(head))?), &mut |change| {
            changes.push(change);
            Ok(())
        })?;
        let mut others: BTreeSet<&SyncPath> = tried.iter().collect();
        for change in &changes {
            others.remove(&change.path);
        }
        let others: Vec<&SyncPath> = others.into_iter().collect();
        let standing = tree::lookup_many(&self.objects, self.tree_of(Some(head))?, &others)?;
        let others = others.into_iter().zip(standing).filter_map(|(path, at)| {
            let (old, new) = (self.table.get(path.as_bytes()).map(|row| row.entry), at.leaf());
            (old != new && !matches!(at, At::Folder(_))).then(|| Change { path: path.clone(), old, new })
        });
        let others: Vec<Change> = others.collect();
        changes.extend(others);
        let mut times = self.times(head, &changes)?;
        let mut targets = Vec::with_capacity(changes.len());
        for change in changes.into_iter().filter(|change| !refused.contains_key(&change.path)) {
            let row = self.table.get(change.path.as_bytes()).map(|row| row.entry);
            let mtime = times.remove(&change.path).map(|(_, mtime)| mtime);
            targets.push(Target { path: change.path, old: row, new: change.new, mtime });
        }
        // Both sides made the same content: the later time is kept, on both.
        for (path, (entry, mtime)) in times {
            if let Some(row) = self.table.get(path.as_bytes()).filter(|row| row.entry == entry)
                && is_later(mtime, row.fingerprint.mtime)
            {
                targets.push(Target { path, old: Some(row.entry), new: Some(row.entry), mtime: Some(mtime) });
            }
        }
        Ok(targets)
    }

    /// The time of each file that the commits between what was last applied and `head` brought, as their messages
    /// tell it: the time of the commit that brought what `head` holds; of several such the latest, of none (merged
    /// text) the latest of all that touched the path. Where there was a merge, the commits of both its sides count, so
    /// that both come to the same time.
    fn times(&self, head: CommitId, changes: &[Change]) -> Result<HashMap<SyncPath, (Entry, Timestamp)>, EngineError> {
        let wanted: HashMap<&SyncPath, Option<Entry>> =
            changes.iter().map(|change| (&change.path, change.new)).collect();
        let hidden: Vec<_> = self.applied.into_iter().collect();
        let touched = self.touches(self.graph.range(&[head], &hidden)?)?;
        let mut times = HashMap::with_capacity(touched.by_path.len());
        for (path, touches) in &touched.by_path {
            let entry = match wanted.get(path) {
                Some(entry) => *entry,
                None => self.table.get(path.as_bytes()).map(|row| row.entry),
            };
            let Some(entry) = entry.filter(|entry| entry.kind != Kind::EmptyFolder) else { continue };
            let time = match &touches[..] {
                [.., (_, last)] if wanted.contains_key(path) && (!touched.merged || touches.len() == 1) => Some(*last),
                _ => self.brought(path, entry, touches)?,
            };
            if let Some(time) = time {
                times.insert(path.clone(), (entry, time));
            }
        }
        // What nobody brought to its path: merged text, or an edit that met a rename at the new name.
        for (&path, entry) in &wanted {
            let Some(entry) = entry.filter(|entry| entry.kind != Kind::EmptyFolder) else { continue };
            let touches = touched.by_path.get(path).map_or(&[][..], |touches| &touches[..]);
            if !touched.merged || self.brought(path, entry, touches)?.is_some() {
                continue;
            }
            let mut elsewhere = None;
            for (other, touches) in &touched.by_path {
                elsewhere = elsewhere.max(self.brought(other, entry, touches)?);
            }
            if let Some(time) = elsewhere.or_else(|| touches.iter().map(|&(_, time)| time).max()) {
                times.insert(path.clone(), (entry, time));
            }
        }
        Ok(times)
    }

    /// The latest of the times of those commits that brought just this entry to `path`.
    fn brought(&self, path: &SyncPath, entry: Entry, touches: &[Touch]) -> Result<Option<Timestamp>, EngineError> {
        let mut latest = None;
        for &(commit, time) in touches {
            if let At::Leaf(there) = tree::lookup(&self.objects, self.tree_of(Some(commit))?, path)?
                && there.id == entry.id
            {
                latest = latest.max(Some(time));
            }
        }
        Ok(latest)
    }

    /// Which paths these commits, and the two sides of each merge among them, touched, and the times of the files.
    fn touches(&self, commits: Vec<CommitId>) -> Result<Touched, EngineError> {
        let mut touched = Touched::default();
        let mut known: HashSet<CommitId> = commits.iter().copied().collect();
        let mut pending = commits;
        while !pending.is_empty() {
            let mut sides = Vec::new();
            for what in self.read_touches(&pending)? {
                match what {
                    What::Paths(paths) => {
                        for (path, touch) in paths {
                            touched.by_path.entry(path).or_default().push(touch);
                        }
                    }
                    What::Merged(parents) => {
                        touched.merged = true;
                        sides.extend(self.graph.unshared(&parents)?.into_iter().map(|(side, _)| side));
                    }
                }
            }
            sides.retain(|side| known.insert(*side));
            pending = sides;
        }
        Ok(touched)
    }

    /// What each of these commits did, in their order; read by several threads where there are many.
    fn read_touches(&self, commits: &[CommitId]) -> Result<Vec<What>, EngineError> {
        let read = |objects: &Objects, commits: &[CommitId]| -> Result<Vec<What>, EngineError> {
            commits.iter().map(|&id| What::of(objects, id)).collect()
        };
        let threads = self.folder.cx.threads.min(commits.len() / READ_BY_THREAD).max(1);
        if threads == 1 {
            return read(&self.objects, commits);
        }
        std::thread::scope(|scope| {
            let parts: Vec<_> = commits
                .chunks(commits.len().div_ceil(threads))
                .map(|part| {
                    let objects = self.objects.clone();
                    scope.spawn(move || read(&objects, part))
                })
                .collect();
            let mut all = Vec::with_capacity(commits.len());
            for part in parts {
                all.extend(part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(all)
        })
    }

    /// Carries out a plan; answers with the paths that changed meanwhile.
    fn apply(
        &mut self,
        plan: crate::worktree::ApplyPlan,
        refused: &mut HashMap<SyncPath, String>,
    ) -> Result<Vec<SyncPath>, EngineError> {
        let cx = self.folder.cx.clone();
        let content = FromStore { idle: Mutex::new(Vec::new()), first: Mutex::new(self.objects.clone()) };
        let stage = self.folder.store.stage_dir();
        let done = crate::worktree::apply(plan, &self.root, &stage, &content, cx.threads, &*cx.monitor);
        let (applied, error) = match done {
            Ok(applied) => (applied, None),
            Err(ApplyError { applied, source }) => (*applied, Some(source)),
        };
        note(refused, &applied.refused);
        self.written += applied.written + applied.removed;
        self.record(applied.edits);
        match error {
            Some(error) => {
                self.save_table()?;
                Err(error.into())
            }
            None => Ok(applied.surprises),
        }
    }

    /// Captures what is on disk where something else was expected. What turns out to be what the folder should hold
    /// already (an earlier checkout was cut off behind it) is just recorded.
    fn capture_surprises(&mut self, paths: &[SyncPath]) -> Result<(), EngineError> {
        // What was written a moment ago might be written again unnoticed: it is let come to rest.
        let recent = |path: &SyncPath| -> Result<bool, EngineError> {
            Ok(self.root.open_leaf(path)?.is_some_and(|leaf| leaf.is_recent()))
        };
        for _ in 0..RESTS {
            if !paths.iter().map(recent).collect::<Result<Vec<_>, _>>()?.contains(&true) {
                break;
            }
            std::thread::sleep(REST);
        }
        let head = self.tree_of(self.head)?;
        let mut report = CaptureReport::default();
        let scan = self.scan(paths)?;
        self.left_out.extend(scan.left_out.iter().map(LeftOut::from));
        let found: Vec<(SyncPath, Option<Kind>, u64)> =
            scan.found.into_iter().map(|found| (found.path, found.what.kind(), found.what.size())).collect();
        let refs: Vec<&SyncPath> = found.iter().map(|(path, ..)| path).collect();
        let wanted = tree::lookup_many(&self.objects, head, &refs)?;
        let bases = tree::lookup_many(&self.objects, self.tree_of(self.applied)?, &refs)?;
        let mut candidates = Vec::new();
        let mut edits = Vec::new();
        for (((path, kind, size), wanted), base) in found.into_iter().zip(wanted).zip(bases) {
            let done = match wanted.leaf() {
                Some(entry) if kind.is_some() => holds(&self.objects, &self.root, &path, entry)?.map(Some),
                None if kind.is_none() => Some(None),
                _ => None,
            };
            match done {
                Some(row) => edits.push(TableEdit { path, row }),
                None => candidates.push(Candidate { path, base: base.leaf(), found: kind, size }),
            }
        }
        self.record(edits);
        self.commit_candidates(candidates, &mut report)?;
        self.save_table()
    }
}

/// The row to record if the disk holds just `entry` at `path`.
pub(crate) fn holds(
    objects: &Objects,
    root: &Root,
    path: &SyncPath,
    entry: Entry,
) -> Result<Option<(Entry, Fingerprint)>, EngineError> {
    match root.look(path)? {
        OnDisk::Folder { empty: true } if entry == Entry::EMPTY_FOLDER => Ok(Some((entry, Fingerprint::default()))),
        OnDisk::Leaf { kind, .. } if kind == entry.kind => {
            let Some(mut leaf) = root.open_leaf(path)? else { return Ok(None) };
            let failed = |error| EngineError::io("read", Path::new(&path.to_string()))(error);
            let same = match recipe_of(objects, entry)? {
                Some(recipe) if recipe.size() != leaf.size => false,
                Some(recipe) => recipe.makes(&mut leaf).map_err(failed)?,
                None => {
                    let mut hasher = ObjectHasher::new(ObjectKind::Blob, leaf.size);
                    io::copy(&mut leaf, &mut hasher).map_err(failed)? == leaf.size && hasher.finish() == entry.id
                }
            };
            let same = same && leaf.unchanged().map_err(failed)?;
            Ok(same.then_some((entry, leaf.fingerprint)))
        }
        _ => Ok(None),
    }
}

/// The recipe that an entry is, if it is one that can be read.
fn recipe_of(objects: &Objects, entry: Entry) -> Result<Option<Recipe>, EngineError> {
    if !matches!(entry.kind, Kind::File | Kind::Executable) {
        return Ok(None);
    }
    match large::content(objects, &entry.id) {
        Ok(large::Content::Chunks(recipe)) => Ok(Some(recipe)),
        Ok(large::Content::Whole(_)) | Err(StoreError::Hostile { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn note(refused: &mut HashMap<SyncPath, String>, more: &[Refused]) {
    refused.extend(more.iter().map(|refused| (refused.path.clone(), refused.why.to_string())));
}

fn is_later(time: Timestamp, recorded: (u32, u32)) -> bool {
    u32::try_from(time.secs).is_ok_and(|secs| (secs, time.nanos) > recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::object_id;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    #[test]
    fn only_what_is_just_the_same_counts_as_being_there_already() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        for inner in ["empty", "full/inner"] {
            fs::create_dir_all(folder.join(inner)).unwrap();
        }
        for file in ["file", "program"] {
            fs::write(folder.join(file), "content").unwrap();
        }
        fs::set_permissions(folder.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("content", folder.join("link")).unwrap();
        let git = |args: &[&str]| {
            let git = Command::new("git").arg("--git-dir").arg(dir.path().join("git")).args(args).output().unwrap();
            assert!(git.status.success(), "{git:?}");
        };
        git(&["init", "-q", "--bare"]);
        let contents = ["content", "CONTENT", "more content"].map(|content| {
            fs::write(dir.path().join("blob"), content).unwrap();
            git(&["hash-object", "-w", dir.path().join("blob").to_str().unwrap()]);
            object_id(ObjectKind::Blob, content.as_bytes())
        });
        let entries = [Kind::File, Kind::Executable, Kind::Symlink]
            .into_iter()
            .flat_map(|kind| contents.map(|id| Entry { kind, id }))
            .chain([Entry::EMPTY_FOLDER]);
        let (objects, root) = (Objects::open(&dir.path().join("git/objects")).unwrap(), Root::open(&folder).unwrap());
        let mut same = Vec::new();
        for (name, entry) in ["file", "program", "link", "empty", "full", "nothing"]
            .into_iter()
            .flat_map(|name| entries.clone().map(move |entry| (name, entry)))
        {
            if let Some((row, _)) = holds(&objects, &root, &SyncPath::new(name).unwrap(), entry).unwrap() {
                assert_eq!(row, entry);
                same.push((name, entry));
            }
        }
        let [id, ..] = contents;
        let expected = [
            ("file", Entry { kind: Kind::File, id }),
            ("program", Entry { kind: Kind::Executable, id }),
            ("link", Entry { kind: Kind::Symlink, id }),
            ("empty", Entry::EMPTY_FOLDER),
        ];
        assert_eq!(same, expected);
    }
}
