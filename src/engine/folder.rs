//! A shared folder: its files, its repository, and the one piece of work that may go on in it at a time.
//!
//! [`Folder`] is the handle that everybody holds; `Work` is the right to change it. Work begins by finishing what a
//! killed process left half-done, so nothing else has to think of that. What is where at any moment:
//!
//! - `refs/heads/main` is what the folder should hold. It moves only forward, after its objects are safe on disk.
//! - `refs/foldersync/applied` is what the disk last held. It moves after the files are safe on disk.
//! - The table (git's index) says, path by path, what the disk last held. It is saved before `applied` moves.
//!
//! After a kill at any point, what differs between `applied` and `main` is looked at again, path by path.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::clock::{Clock, Timestamp};
use crate::engine::error::EngineError;
use crate::engine::place;
use crate::engine::report::{CaptureReport, Identity, InitReport, LeftOut};
use crate::entry::{Entry, Fingerprint};
use crate::guard::Guards;
use crate::id::{CommitId, DeviceId, FolderId, ReplicaId, TreeId};
use crate::monitor::Monitor;
use crate::path::SyncPath;
use crate::store;
use crate::store::tree::At;
use crate::store::{
    Expected, FolderLock, Graph, GraphFile, Key, NewIds, Objects, RefEdit, RefName, Signature, Store, Wait,
};
use crate::table::{DiskTable, TableEdit};
use crate::worktree::{self, OnDisk, Root, Target, WorktreeError};

/// What the engine needs of its surroundings.
#[derive(Clone)]
pub struct Context {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who hears how work goes on.
    pub monitor: Arc<dyn Monitor>,
    /// How many threads may work at once.
    pub threads: usize,
    /// The time zone in which a person names times.
    pub zone: jiff::tz::TimeZone,
    /// What the folder is guarded against.
    pub guards: Guards,
}

/// A device that makes revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its key.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
}

/// How a folder is made.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Whether to put the repository in `.foldersync`, beside somebody's own `.git`.
    pub alongside: bool,
    /// The device that makes it.
    pub device: Device,
    /// The identity of the folder that it shall be a copy of; none: a new one.
    pub folder_id: Option<FolderId>,
}

/// An opened shared folder.
pub struct Folder {
    pub(crate) store: Store,
    pub(crate) cx: Context,
    pub(crate) identity: Identity,
    /// Files with more bytes are kept in chunks.
    pub(crate) large_from: u64,
    graph_file: Arc<GraphFile>,
    id: RwLock<FolderId>,
}

impl Folder {
    /// Makes the folder `dir` a shared one, and captures what is in it.
    pub fn init(dir: &Path, options: &InitOptions, cx: Context) -> Result<(Self, InitReport), EngineError> {
        Self::create(dir, options, cx)?.with_first_capture()
    }

    /// Goes on with an [`init`](Self::init) of this device that was killed: the copy is named as it should be, and what
    /// is in the folder is captured. `None` where this device has made no repository.
    pub fn go_on_with_init(
        dir: &Path,
        options: &InitOptions,
        cx: &Context,
    ) -> Result<Option<(Self, InitReport)>, EngineError> {
        place::made_here(dir, options, cx)?.map(Self::with_first_capture).transpose()
    }

    fn with_first_capture(self) -> Result<(Self, InitReport), EngineError> {
        let capture = self.capture(&[])?;
        let report = InitReport { folder: self.root().display().to_string(), folder_id: self.id(), capture };
        Ok((self, report))
    }

    /// Makes the folder `dir` a shared one, without a revision.
    pub(crate) fn create(dir: &Path, options: &InitOptions, cx: Context) -> Result<Self, EngineError> {
        let dir = std::path::absolute(dir).map_err(EngineError::io("find", dir))?;
        let folder = match options.folder_id {
            Some(folder) => folder,
            None => FolderId::from_bytes(random()?),
        };
        let ids = NewIds { folder, replica: ReplicaId::from_bytes(random()?), device: options.device.id };
        let store = Store::init(&dir, &store::InitOptions { alongside: options.alongside }, ids)?;
        store.set(Key::DeviceName, &options.device.name)?;
        drop(store);
        Self::open(&dir, cx)
    }

    /// The root of the shared folder that `start` lies in.
    pub fn discover(start: &Path) -> Result<PathBuf, EngineError> {
        let start = std::path::absolute(start).map_err(EngineError::io("find", start))?;
        match Store::discover(&start) {
            Some(root) => Ok(root),
            None if start.exists() => Err(EngineError::NoFolder { path: start }),
            None => Err(WorktreeError::Missing { path: start }.into()),
        }
    }

    /// Opens the shared folder whose root is `dir`.
    pub fn open(dir: &Path, cx: Context) -> Result<Self, EngineError> {
        let store = Store::open(dir)?;
        let settings = store.settings()?;
        // A copy that somebody has taken the identity from works under one of its own.
        let device = settings.device.unwrap_or(DeviceId::from_bytes([0; 32]));
        // So does one that was made, and not named any more because of a kill.
        let device_name = settings.device_name.unwrap_or_else(|| "unknown".to_owned());
        let identity = Identity { device, device_name, replica: settings.replica };
        let large_from = settings.large_file_threshold;
        let graph_file = Arc::new(GraphFile::new(store.private_dir().join("graph")));
        Ok(Self { store, cx, identity, id: RwLock::new(settings.folder), large_from, graph_file })
    }

    /// Its repository.
    pub fn git_dir(&self) -> &Path {
        self.store.git_dir()
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        self.store.root()
    }

    /// Its identity, the same on every device.
    pub fn id(&self) -> FolderId {
        *self.id.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is guarded against.
    pub(crate) const fn guards(&self) -> Guards {
        self.cx.guards
    }

    /// Takes over the identity of the folder that this is a copy of.
    pub(crate) fn adopt(&self, id: FolderId) -> Result<(), EngineError> {
        self.store.set(Key::Folder, &id.to_string())?;
        *self.id.write().unwrap_or_else(PoisonError::into_inner) = id;
        Ok(())
    }

    /// The newest revision.
    pub fn head(&self) -> Result<Option<CommitId>, EngineError> {
        Ok(self.store.refs().read(&RefName::MAIN)?)
    }

    /// Who captures, and when.
    pub(crate) fn signature(&self, time: i64) -> Signature {
        Signature {
            name: self.identity.device_name.clone(),
            email: format!("{}@foldersync", self.identity.device),
            time,
        }
    }

    /// The graph of commits.
    pub(crate) fn graph(&self) -> Graph {
        Graph::open(self.store.objects(), Some(self.graph_file.clone()))
    }

    /// Takes the right to change the folder, and finishes what was left half-done.
    pub(crate) fn begin(&self, what: &str, wait: Wait) -> Result<Work<'_>, EngineError> {
        let lock = self.store.lock(what, wait)?;
        let root = Root::open(self.store.root())?;
        let mut work = Work {
            head: self.head()?,
            applied: self.store.refs().read(&RefName::APPLIED)?,
            table: self.store.load_table()?.table,
            table_changed: false,
            table_lacks: false,
            left_out: Vec::new(),
            conflicts: Vec::new(),
            written: 0,
            objects: self.store.objects(),
            graph: self.graph(),
            root,
            folder: self,
            _lock: lock,
        };
        work.recover()?;
        Ok(work)
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        EngineError::io("read", Path::new("the system's random numbers"))(std::io::Error::other(error))
    })?;
    Ok(bytes)
}

/// The right to change a folder; one at a time, over all processes.
pub(crate) struct Work<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) root: Root,
    pub(crate) objects: Objects,
    pub(crate) graph: Graph,
    /// What the folder should hold.
    pub(crate) head: Option<CommitId>,
    /// What the disk last held.
    pub(crate) applied: Option<CommitId>,
    pub(crate) table: DiskTable,
    table_changed: bool,
    /// Whether the table may lack rows of files that stand on the disk, until all of it has been looked at.
    pub(crate) table_lacks: bool,
    /// What could not be captured or written so far.
    pub(crate) left_out: Vec<LeftOut>,
    /// Conflict copies that merges made.
    pub(crate) conflicts: Vec<crate::engine::report::Conflict>,
    /// Files written or removed so far.
    pub(crate) written: u64,
    _lock: FolderLock,
}

impl Work<'_> {
    pub(crate) fn now(&self) -> Timestamp {
        self.folder.cx.clock.now()
    }

    pub(crate) fn tree_of(&self, commit: Option<CommitId>) -> Result<TreeId, EngineError> {
        Ok(match commit {
            Some(commit) => self.objects.commit(commit)?.tree,
            None => TreeId::EMPTY,
        })
    }

    /// Moves `main` (and, where the disk holds it already, `applied`), in one transaction with `more`.
    pub(crate) fn move_refs(
        &mut self,
        head: Option<CommitId>,
        applied: Option<CommitId>,
        more: Vec<RefEdit>,
    ) -> Result<(), EngineError> {
        let mut edits = more;
        let moves = [(RefName::MAIN, self.head, head), (RefName::APPLIED, self.applied, applied)];
        let moved = moves.into_iter().filter(|(_, old, new)| old != new);
        edits.extend(moved.map(|(name, old, new)| RefEdit { name, expected: Expected::from(old), new }));
        if !edits.is_empty() {
            self.folder.store.refs().update(&edits)?;
        }
        self.head = head;
        self.applied = applied;
        Ok(())
    }

    /// Records what was found or written on disk.
    pub(crate) fn record(&mut self, edits: Vec<TableEdit>) {
        self.table_changed |= !edits.is_empty();
        self.table.edit(edits);
    }

    /// Saves the table, if it has changed.
    pub(crate) fn save_table(&mut self) -> Result<(), EngineError> {
        self.save_table_of(self.applied)
    }

    /// Saves the table as that of a revision which is, or is about to be, applied.
    pub(crate) fn save_table_of(&mut self, applied: Option<CommitId>) -> Result<(), EngineError> {
        // Who works with it next is to doubt it as well.
        let applied = applied.filter(|_| !self.table_lacks);
        if self.table_changed || self.table.applied != applied {
            self.table.applied = applied;
            self.folder.store.save_table(&mut self.table)?;
            self.table_changed = false;
        }
        Ok(())
    }

    /// Ends the work: everything that was learned is saved.
    pub(crate) fn finish(mut self) -> Result<(), EngineError> {
        self.save_table()
    }

    /// Brings the folder to a state from which any work can begin.
    fn recover(&mut self) -> Result<(), EngineError> {
        let is_of = |revision: Option<CommitId>| self.table.applied == revision;
        // A person's git has written it, or it is an older one. (The one of the head is saved before that is applied.)
        let is_doubtful = !self.table.knows_empty_folders || !(is_of(self.applied) || is_of(self.head));
        if is_doubtful {
            self.table_lacks = true;
            self.learn_empty_folders()?;
        }
        worktree::settle(&self.root, &self.folder.store.stage_dir(), &self.table)?;
        if is_doubtful {
            self.doubt_table()?;
        }
        if self.applied == self.head {
            return Ok(());
        }
        if let (Some(applied), head) = (self.applied, self.head)
            && match head {
                Some(head) => !self.graph.is_ancestor(applied, head)?,
                None => true,
            }
        {
            // Somebody moved `main` back or aside with git: forward only. What was there stays in the history; what
            // the disk holds differs from it, and becomes new revisions.
            let heads: Vec<_> = head.into_iter().chain([applied]).collect();
            let head = self.merge(&heads)?;
            self.move_refs(Some(head), Some(applied), Vec::new())?;
        }
        self.settle_again()
    }

    /// A person's git has written the index: it may say of a file that was staged, reset or removed with git that the
    /// disk holds it unchanged, though no revision has it so. Or it is older than what was applied, and lacks what came
    /// since. What is not as it was last applied is read again.
    fn doubt_table(&mut self) -> Result<(), EngineError> {
        let tree = self.tree_of(self.applied)?;
        let mut edits = Vec::new();
        let mut unread = |path: SyncPath, entry: Option<Entry>| {
            edits.push(TableEdit { path, row: entry.map(|entry| (entry, Fingerprint::default())) });
        };
        let rows: Vec<(SyncPath, Entry)> =
            self.table.iter().filter_map(|(path, row)| Some((SyncPath::new(path).ok()?, row.entry))).collect();
        let paths: Vec<&SyncPath> = rows.iter().map(|(path, _)| path).collect();
        for ((path, entry), at) in rows.iter().zip(store::tree::lookup_many(&self.objects, tree, &paths)?) {
            match at {
                At::Leaf(applied) if applied == *entry => {}
                At::Leaf(applied) => unread(path.clone(), Some(applied)),
                _ => unread(path.clone(), None),
            }
        }
        // What the index lacks was removed, if it could stand on the disk and does not.
        let mut lacking = Vec::new();
        store::tree::leaves(&self.objects, tree, &mut |path, entry| {
            if self.table.get(path.as_bytes()).is_none() {
                lacking.push(Target { path, old: None, new: Some(entry), mtime: None });
            }
            Ok(())
        })?;
        let absent: Vec<Target> =
            lacking.into_iter().filter(|target| matches!(self.root.look(&target.path), Ok(OnDisk::Nothing))).collect();
        let entries: Vec<(SyncPath, Option<Entry>)> =
            absent.iter().map(|target| (target.path.clone(), target.new)).collect();
        let plan = worktree::plan(&self.root, &self.table, &self.folder.store.own_excludes()?, absent)?;
        let cannot: Vec<&SyncPath> = plan.refused.iter().map(|refused| &refused.path).chain(&plan.surprises).collect();
        entries.into_iter().filter(|(path, _)| !cannot.contains(&path)).for_each(|(path, entry)| unread(path, entry));
        self.record(edits);
        Ok(())
    }

    /// Git drops the rows of empty folders when it rewrites its index: they come from what was last applied.
    fn learn_empty_folders(&mut self) -> Result<(), EngineError> {
        let tree = self.tree_of(self.applied)?;
        let mut edits = Vec::new();
        store::tree::leaves(&self.objects, tree, &mut |path, entry| {
            if entry == Entry::EMPTY_FOLDER {
                edits.push(TableEdit { path, row: Some((entry, Fingerprint::default())) });
            }
            Ok(())
        })?;
        self.table_changed = true;
        self.table.edit(edits);
        self.table.knows_empty_folders = true;
        Ok(())
    }
}

impl CaptureReport {
    pub(crate) fn count(&mut self, change: &crate::change::Change) {
        *match change.verb() {
            "add" => &mut self.added,
            "change" => &mut self.changed,
            _ => &mut self.deleted,
        } += 1;
        if self.changes.len() < Self::LISTED {
            self.changes.push(crate::engine::report::PathChange { verb: change.verb(), path: change.path.clone() });
        }
    }
}
