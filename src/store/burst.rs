//! A burst of captures: one commit for each edit, all in one pack.
//!
//! Owns the folders that the edits touch, each as the bytes of its tree, and the pack until it is finished. Nothing
//! is visible, and no ref moves, before [`Burst::finish`] answers; dropped, or killed, it leaves nothing behind. The
//! pack is ordered (see [`super::pack`]).
//!
//! Commits are gathered into windows. Within one, what each edit does to each folder's bytes is noted at once, as
//! splices; the ids come later, folder by folder, innermost first, since a folder's versions follow from its own
//! splices and the ids of the folders in it. A large folder is replayed by two threads, each hashing every second
//! version: its versions do not depend on one another. Then all is written in the order of the commits.
//!
//! Each version of a folder is a delta against an earlier one. So that no chain of deltas gets long, version n stands
//! on n - 16^i, where i is the lowest digit of n (in base 16) that is not zero.
//!
//! The first version stands on the folder as it was before the burst, and contents may come as deltas against what they
//! replace. Git wants each pack complete, so what they stand on comes behind the last commit, as it lies in the pack
//! that has it: a copy, which goes when packs are gathered.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::commit::{Commit, Signature};
use super::error::StoreError;
use super::large;
use super::objects::{ObjectKind, Objects, object_id};
use super::pack::delta::{self, first_entry};
use super::pack::entry::{EntryKind, write_header};
use super::pack::writer::Placed;
use super::pack::{Deflater, MAX_CHAIN, PackWriter, PackedBlob};
use super::tree::{TREE_MODE, entries, name_order, write_entry};
use crate::change::Edit;
use crate::entry::{Entry, Kind};
use crate::id::{CommitId, ObjectId, TreeId};

/// The most commits in a window.
const WINDOW: usize = 512;
/// The most bytes of blobs that wait in a window.
const WINDOW_BYTES: usize = 8 << 20;
/// Each version of a folder stands on one that is a power of this many versions older.
const RADIX: u32 = 16;
/// A folder with more bytes is hashed by two threads, if it has enough versions in a window.
const LARGE: usize = 32 << 10;
/// From so many versions in a window on, a large folder is hashed by two threads.
const SHARED_FROM: usize = 4;
/// The levels of versions that others stand on: enough for four thousand million of them.
const MAX_LEVELS: u32 = 7;
/// What a delta's place in the pack costs.
const DELTA_HEADER: usize = 3;
/// A mark stands in a folder's bytes about every so many, to find names without reading all before.
const MARK_EVERY: usize = 2 << 10;

/// A commit to be made: one edit.
#[derive(Debug, Clone)]
pub struct NewCommit {
    /// What it changes.
    pub edit: Edit,
    /// The content at that path, unless the repository has it: then one of the commit's ancestors must have brought
    /// it (an object of some other line of history is no use to whoever gets only this one). What a delta stands on
    /// is in the repository, and an ancestor has brought it.
    pub blob: Option<PackedBlob>,
    /// Whose change it is.
    pub author: Signature,
    /// Who captured it.
    pub committer: Signature,
    /// The message.
    pub message: Vec<u8>,
}

/// What a burst has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BurstDone {
    /// The last commit.
    pub head: CommitId,
    /// How many there are: edits that changed nothing made none.
    pub commits: u64,
    /// The objects written.
    pub objects: u64,
    /// The bytes of the pack.
    pub bytes: u64,
    /// The chunks of large files that it has brought: to be kept (see [`super::large`]).
    pub chunks: BTreeSet<ObjectId>,
}

/// Makes commits. See the module.
pub struct Burst {
    objects: Objects,
    writer: PackWriter,
    folders: Vec<Folder>,
    /// What entries of the pack are deltas against and is not in it yet: it comes behind the last commit, whole. In
    /// the order in which it was found out; some may have come into the pack since.
    promised: HashSet<ObjectId>,
    promises: Vec<ObjectId>,
    /// Where in the pack each version of a folder stands, by its serial number.
    placed: Vec<u64>,
    parent: Option<CommitId>,
    commits: u64,
    window: Vec<Pending>,
    window_bytes: usize,
    /// The most commits in a window.
    window_limit: usize,
    /// The folders that the window touches.
    touched: Vec<usize>,
    chunks: BTreeSet<ObjectId>,
}

/// A commit of the window.
struct Pending {
    blob: Option<PackedBlob>,
    /// It puts an empty folder somewhere, so that the empty tree has to be in the repository.
    empty_folder: bool,
    author: Signature,
    committer: Signature,
    message: Vec<u8>,
}

/// The folder at the top.
const ROOT: usize = 0;

/// A folder that an edit went through.
#[derive(Default)]
struct Folder {
    depth: u32,
    /// The bytes of its tree. Within a window, ids of folders that the window has changed are not yet right.
    content: Vec<u8>,
    /// Where some entries begin, in order, to look names up from.
    marks: Vec<u32>,
    /// The folders in it that an edit went through.
    children: BTreeMap<Box<[u8]>, usize>,
    /// Its bytes at the beginning of the window.
    start: Option<Vec<u8>>,
    splices: Vec<Splice>,
    /// The versions of this window, to be found by the folder above.
    versions: Vec<(u32, ObjectId)>,
    history: History,
    /// It is no longer in the folder above, and goes when the window ends.
    detached: bool,
}

/// A change of a folder's bytes.
struct Splice {
    /// The commit of the window that makes it.
    commit: u32,
    at: u32,
    removed: u32,
    inserted: Box<[u8]>,
    /// The folder whose id, as of this commit, takes the place of the last 20 bytes of `inserted`.
    child: Option<usize>,
}

/// A version of a folder that later ones may stand on.
#[derive(Clone)]
struct Base {
    content: Arc<Vec<u8>>,
    serial: u32,
    chain: u8,
}

/// The versions of a folder that later ones stand on.
#[derive(Default)]
struct History {
    count: u32,
    /// The last version and its chain; before the first, what the repository has.
    last: Option<(On, u8)>,
    /// At `i`, the last version whose number is divisible by 16^(i+1).
    levels: Vec<Base>,
    /// The first, which is that for all levels that have none of their own.
    first: Option<Base>,
}

/// A version of a folder, ready to be written.
struct Version {
    commit: u32,
    id: ObjectId,
    serial: u32,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    Delta { base: On, chain: u8, delta: Vec<u8> },
}

/// What a version of a folder is a delta against.
#[derive(Clone, Copy)]
enum On {
    /// Another version, by its serial number.
    Version(u32),
    /// The folder as it was before the burst.
    Before(ObjectId),
}

impl Burst {
    /// Begins a burst on top of `parent`, whose tree is `base`.
    pub fn begin(
        objects: Objects,
        pack_dir: &Path,
        base: TreeId,
        parent: Option<CommitId>,
    ) -> Result<Self, StoreError> {
        let root = Folder::load(&objects, base, 0)?;
        Ok(Self {
            objects,
            writer: PackWriter::create(pack_dir)?,
            folders: vec![root],
            promised: HashSet::new(),
            promises: Vec::new(),
            placed: Vec::new(),
            parent,
            commits: 0,
            window: Vec::new(),
            window_bytes: 0,
            window_limit: WINDOW,
            touched: Vec::new(),
            chunks: BTreeSet::new(),
        })
    }

    /// Adds a commit. An edit that changes nothing (see [`super::tree::edit`]) makes none: answers whether it did.
    /// After an error the burst is to be dropped.
    pub fn push(&mut self, commit: NewCommit) -> Result<bool, StoreError> {
        let NewCommit { edit, blob, author, committer, message } = commit;
        let number = u32::try_from(self.window.len()).expect("a window is small");
        if !self.edit(ROOT, edit.path.as_bytes(), edit.entry, number)? {
            return Ok(false);
        }
        self.window_bytes += blob.as_ref().map_or(0, PackedBlob::packed_len);
        let empty_folder = edit.entry.is_some_and(|entry| entry.kind == Kind::EmptyFolder);
        self.window.push(Pending { blob, empty_folder, author, committer, message });
        if self.window.len() >= self.window_limit || self.window_bytes >= WINDOW_BYTES {
            self.flush()?;
        }
        Ok(true)
    }

    /// Writes a large content into the pack, ahead of the commit that will bring it (its `blob` is then `None`).
    /// `None` answers where there are fewer or more than `size` bytes; then nothing is kept.
    pub fn blob_from_stream(&mut self, size: u64, content: &mut dyn Read) -> Result<Option<ObjectId>, StoreError> {
        self.flush()?;
        self.writer.stream_blob(size, content)
    }

    /// Writes a large file in chunks into the pack, ahead of the commit that will bring it with the recipe that answers
    /// as its `blob`. Chunks that are `known` are left out, as for [`NewCommit::blob`]. `None` answers where there are
    /// fewer or more than `size` bytes; then nothing is kept.
    pub fn chunks_from_stream(
        &mut self,
        size: u64,
        content: &mut (dyn Read + Send),
        threads: usize,
        known: &(dyn Fn(&ObjectId) -> bool + Sync),
    ) -> Result<Option<PackedBlob>, StoreError> {
        self.flush()?;
        let begin = self.writer.mark();
        let writer = &mut self.writer;
        let mut chunks = BTreeSet::new();
        let cut = large::cut(size, content, threads, known, &mut |chunk| {
            chunks.insert(chunk.id());
            writer.put_packed(chunk).map(drop)
        });
        match cut {
            Ok(Some(recipe)) => {
                let recipe = recipe.to_bytes();
                if recipe.len() > large::recipe::LONGEST {
                    self.writer.rewind(begin)?;
                    let what = format!("the recipe of a file of {size} bytes");
                    return Err(StoreError::TooLarge { what, limit: large::recipe::LONGEST as u64 });
                }
                self.chunks.append(&mut chunks);
                Ok(Some(PackedBlob::deflate(&mut Deflater::default(), &recipe)))
            }
            other => {
                self.writer.rewind(begin)?;
                other.map(|_| None)
            }
        }
    }

    /// Writes what is left, makes the pack durable and visible; `None` if there was no commit.
    pub fn finish(mut self) -> Result<Option<BurstDone>, StoreError> {
        self.flush()?;
        let (Some(head), 1..) = (self.parent, self.commits) else { return Ok(None) };
        for base in std::mem::take(&mut self.promises) {
            if self.promised.remove(&base) {
                self.put_base(base)?;
            }
        }
        let finished = self.writer.finish()?;
        let (objects, bytes) = finished.map_or((0, 0), |finished| (finished.objects, finished.bytes));
        Ok(Some(BurstDone { head, commits: self.commits, objects, bytes, chunks: self.chunks }))
    }

    /// Puts `entry` at `path` below `folder` (or removes what is there); answers whether that changes anything.
    fn edit(&mut self, folder: usize, path: &[u8], entry: Option<Entry>, commit: u32) -> Result<bool, StoreError> {
        let (name, below) = match path.iter().position(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        let there = self.folders[folder].find(name);
        let there_is_folder = there.is_some_and(|there| there.mode == TREE_MODE);
        let Some(below) = below else {
            match (there, entry) {
                (None, None) => return Ok(false),
                (Some(there), None) if there.mode == TREE_MODE && there.id != TreeId::EMPTY.into() => {
                    return Ok(false);
                }
                (_, Some(entry)) if entry.kind == Kind::EmptyFolder && there_is_folder => return Ok(false),
                (Some(there), Some(entry)) if (there.mode, there.id) == (entry.kind.mode(), entry.id) => {
                    return Ok(false);
                }
                _ => {}
            }
            let new = entry.map(|entry| (entry.kind.mode(), entry.id, None));
            self.replace(folder, name, there, new, commit);
            return Ok(true);
        };
        let attached = self.folders[folder].children.get(name).copied().filter(|_| there_is_folder);
        let child = match (there.filter(|_| there_is_folder), attached) {
            (Some(_), Some(child)) => child,
            (Some(there), None) => {
                let depth = self.folders[folder].depth + 1;
                let child = Folder::load(&self.objects, there.id.as_tree(), depth)?;
                self.attach(folder, name, child)
            }
            (None, _) if entry.is_none() => return Ok(false),
            (None, _) => {
                let depth = self.folders[folder].depth + 1;
                self.attach(folder, name, Folder { depth, ..Folder::default() })
            }
        };
        let changed = self.edit(child, below, entry, commit)?;
        if self.folders[child].content.is_empty() {
            // Nothing is left in it (or nothing ever was, and nothing came).
            if there_is_folder {
                self.replace(folder, name, there, None, commit);
            }
            return Ok(there_is_folder);
        }
        if changed {
            self.replace(folder, name, there, Some((TREE_MODE, ObjectId::from_bytes([0; 20]), Some(child))), commit);
        }
        Ok(changed)
    }

    fn attach(&mut self, folder: usize, name: &[u8], child: Folder) -> usize {
        let index = self.folders.len();
        self.folders.push(child);
        self.folders[folder].children.insert(name.into(), index);
        index
    }

    /// Notes that the entry `there` of a folder gives way to a new one of the same name.
    fn replace(
        &mut self,
        folder: usize,
        name: &[u8],
        there: Option<Found>,
        new: Option<(u32, ObjectId, Option<usize>)>,
        commit: u32,
    ) {
        if new.is_none_or(|(_, _, child)| child.is_none())
            && let Some(child) = self.folders[folder].children.remove(name)
        {
            self.folders[child].detached = true;
            self.touched.push(child);
        }
        let this = &mut self.folders[folder];
        if this.start.is_none() {
            this.start = Some(this.content.clone());
            self.touched.push(folder);
        }
        let is_folder = |mode| mode == TREE_MODE;
        match (there, new) {
            (Some(there), Some((mode, id, child))) if is_folder(there.mode) == is_folder(mode) => {
                let mut entry = Vec::with_capacity(there.len);
                write_entry(&mut entry, mode, name, &id);
                if child.is_some() && there.mode == mode {
                    this.splice(commit, there.at + there.len - 20, 20, id.as_bytes(), child);
                } else {
                    this.splice(commit, there.at, there.len, &entry, child);
                }
            }
            (there, new) => {
                if let Some(there) = there {
                    this.splice(commit, there.at, there.len, &[], None);
                }
                if let Some((mode, id, child)) = new {
                    let mut entry = Vec::with_capacity(name.len() + 28);
                    write_entry(&mut entry, mode, name, &id);
                    let at = this.place_for(name, is_folder(mode));
                    this.splice(commit, at, 0, &entry, child);
                }
            }
        }
    }

    /// Computes the window's versions of all folders, and writes its objects in the order of the commits.
    fn flush(&mut self) -> Result<(), StoreError> {
        if self.window.is_empty() {
            return Ok(());
        }
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable_by_key(|&folder| (std::cmp::Reverse(self.folders[folder].depth), folder));
        touched.dedup();
        let mut trees: Vec<Vec<Version>> = Vec::new();
        trees.resize_with(self.window.len(), Vec::new);
        for &folder in &touched {
            for version in self.versions(folder) {
                trees[version.commit as usize].push(version);
            }
        }
        for &folder in &touched {
            if self.folders[folder].detached {
                self.forget(folder);
            } else {
                self.folders[folder].versions = Vec::new();
            }
        }
        self.window_bytes = 0;
        for (pending, trees) in std::mem::take(&mut self.window).into_iter().zip(trees) {
            if let Some(blob) = &pending.blob {
                self.put_blob(blob)?;
            }
            if pending.empty_folder {
                self.writer.put(ObjectKind::Tree, &[])?;
            }
            let root = trees.last().expect("an edit that makes a commit changes the top").id.as_tree();
            for version in trees {
                let placed = match version.body {
                    Body::Whole(content) => self.writer.put_known(ObjectKind::Tree, version.id, &content)?,
                    // As of a content that was promised (see `put_blob`).
                    Body::Delta { .. } if self.promised.remove(&version.id) => self.put_base(version.id)?,
                    Body::Delta { base: On::Version(base), chain, delta } => {
                        self.writer.put_delta(version.id, self.placed[base as usize], chain, &delta)?
                    }
                    Body::Delta { base: On::Before(base), delta, .. } => {
                        self.put_tree_delta(version.id, base, &delta)?
                    }
                };
                self.placed[version.serial as usize] = placed.offset;
            }
            let Pending { author, committer, message, .. } = pending;
            let commit = Commit { tree: root, parents: self.parent.into_iter().collect(), author, committer, message };
            let placed = self.writer.put(ObjectKind::Commit, &commit.to_bytes())?;
            self.parent = Some(placed.id.as_commit());
            self.commits += 1;
        }
        Ok(())
    }

    fn put_blob(&mut self, blob: &PackedBlob) -> Result<(), StoreError> {
        let id = blob.id();
        if self.writer.find(&id).is_some() {
            return Ok(());
        }
        // Where others stand on it already it has to be whole: as a delta it might stand on one of them.
        let promised = self.promised.remove(&id);
        let Some(base) = blob.base() else { return self.writer.put_packed(blob).map(drop) };
        if promised {
            return self.put_base(id).map(drop);
        }
        match self.writer.find(&base) {
            Some(base) if base.chain >= MAX_CHAIN => {
                let mut content = Vec::new();
                self.objects.read(ObjectKind::Blob, &base.id, &mut content)?;
                let damaged = || StoreError::damaged(format!("blob {}", base.id), "it is not what it was a moment ago");
                let content = blob.made_of(&content).ok_or_else(damaged)?;
                return self.writer.put_known(ObjectKind::Blob, id, &content).map(drop);
            }
            Some(_) => {}
            None => self.promise(base),
        }
        self.writer.put_packed(blob).map(drop)
    }

    fn promise(&mut self, base: ObjectId) {
        if self.promised.insert(base) {
            self.promises.push(base);
        }
    }

    /// Puts a tree that is a delta against one of the repository.
    fn put_tree_delta(&mut self, id: ObjectId, base: ObjectId, delta: &[u8]) -> Result<Placed, StoreError> {
        if let Some(placed) = self.writer.find(&id) {
            return Ok(placed);
        }
        match self.writer.find(&base) {
            Some(base) if base.chain < MAX_CHAIN => self.writer.put_delta(id, base.offset, base.chain + 1, delta),
            Some(_) => {
                let mut content = Vec::new();
                self.objects.read(ObjectKind::Tree, &base, &mut content)?;
                let content = delta::apply(&content, delta, usize::MAX)
                    .map_err(|error| StoreError::damaged(format!("tree {base}"), error))?;
                self.writer.put_known(ObjectKind::Tree, id, &content)
            }
            None => {
                self.promise(base);
                let (mut header, mut stored) = (Vec::new(), Vec::new());
                write_header(&mut header, EntryKind::IdDelta(base), delta.len() as u64);
                super::pack::blob::store(delta, &mut stored);
                self.writer.put_raw(id, &header, 1, &mut |put| put(&stored))
            }
        }
    }

    /// Puts an object of the repository, whole.
    fn put_base(&mut self, id: ObjectId) -> Result<Placed, StoreError> {
        let mut content = Vec::new();
        if let Ok(Some((kind, size))) = self.objects.whole(&id, &mut content) {
            let mut header = Vec::new();
            write_header(&mut header, EntryKind::Whole(kind), size);
            return self.writer.put_raw(id, &header, 0, &mut |put| put(&content));
        }
        let kind = self.objects.try_read(&id, &mut content)?.ok_or(StoreError::Missing { id })?;
        if object_id(kind, &content) != id {
            return Err(StoreError::damaged(format!("object {id}"), "its content is not what it was"));
        }
        self.writer.put_known(kind, id, &content)
    }

    /// The versions that the window makes of a folder; those of the folders in it have been computed.
    fn versions(&mut self, folder: usize) -> Vec<Version> {
        let Some(start) = self.folders[folder].start.take() else { return Vec::new() };
        let mut splices = std::mem::take(&mut self.folders[folder].splices);
        for splice in &mut splices {
            if let Some(child) = splice.child {
                let versions = &self.folders[child].versions;
                let at = versions.binary_search_by_key(&splice.commit, |&(commit, _)| commit);
                let (_, id) = versions[at.expect("a folder in it that changed has a version of that commit")];
                let len = splice.inserted.len();
                splice.inserted[len - 20..].copy_from_slice(id.as_bytes());
            }
        }
        let Folder { content, history, versions, .. } = &mut self.folders[folder];
        let commits = splices.chunk_by(|a, b| a.commit == b.commit).count();
        let shared = commits >= SHARED_FROM && start.len().max(content.len()) > LARGE;
        let placed = &mut self.placed;
        let (made, after) = std::thread::scope(|scope| {
            let odd = shared.then(|| {
                let (start, splices) = (start.clone(), &splices);
                scope.spawn(move || {
                    let mut ids = Vec::with_capacity(commits / 2);
                    replay(start, splices, |nth, _, _, content| {
                        if nth % 2 == 1 {
                            ids.push(object_id(ObjectKind::Tree, content));
                        }
                    });
                    ids
                })
            });
            let mut made = Vec::with_capacity(commits);
            let after = replay(start, &splices, |nth, splices, before, content| {
                // A folder that lost its last entry has no version: it is no longer there.
                if content.is_empty() && folder != ROOT {
                    return;
                }
                let id = if shared && nth % 2 == 1 {
                    ObjectId::from_bytes([0; 20])
                } else {
                    object_id(ObjectKind::Tree, content)
                };
                let serial = u32::try_from(placed.len()).expect("fewer versions than a pack can have objects");
                placed.push(u64::MAX);
                let body = history.add(serial, splices, before, content);
                made.push((nth, Version { commit: splices[0].commit, id, serial, body }));
            });
            if let Some(odd) = odd {
                let ids = odd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                for (nth, version) in made.iter_mut().filter(|(nth, _)| nth % 2 == 1) {
                    version.id = ids[*nth / 2];
                }
            }
            (made, after)
        });
        *content = after;
        let made: Vec<_> = made.into_iter().map(|(_, version)| version).collect();
        *versions = made.iter().map(|version| (version.commit, version.id)).collect();
        made
    }

    /// Lets go of a folder that is no longer there, and of those in it.
    fn forget(&mut self, folder: usize) {
        let folder = std::mem::take(&mut self.folders[folder]);
        for child in folder.children.into_values() {
            self.forget(child);
        }
    }
}

/// Applies splices to a folder's bytes; tells, after those of each commit, the how-many-th it was, the splices, the
/// bytes before (where there were several splices) and the bytes after. Answers with the bytes in the end.
fn replay(
    mut content: Vec<u8>,
    splices: &[Splice],
    mut tell: impl FnMut(usize, &[Splice], Option<&[u8]>, &[u8]),
) -> Vec<u8> {
    for (nth, of_commit) in splices.chunk_by(|a, b| a.commit == b.commit).enumerate() {
        let before = (of_commit.len() > 1).then(|| content.clone());
        for splice in of_commit {
            let at = splice.at as usize;
            if splice.removed as usize == splice.inserted.len() {
                content[at..at + splice.inserted.len()].copy_from_slice(&splice.inserted);
            } else {
                content.splice(at..at + splice.removed as usize, splice.inserted.iter().copied());
            }
        }
        tell(nth, of_commit, before.as_deref(), &content);
    }
    content
}

impl History {
    /// Adds the next version; answers with how it is to be written.
    fn add(&mut self, serial: u32, splices: &[Splice], before: Option<&[u8]>, content: &[u8]) -> Body {
        let number = self.count;
        self.count += 1;
        let (mut body, mut chain) = (None, 0);
        let zeros = (1..=MAX_LEVELS).take_while(|&zeros| number.is_multiple_of(RADIX.pow(zeros))).count();
        let zeros = if number == 0 { 0 } else { zeros };
        if let (0, Some((last, last_chain)), ..MAX_CHAIN) = (zeros, self.last, self.last.map_or(0, |(_, chain)| chain))
        {
            // Before the first version, `before` and the splices tell what the repository has.
            let delta = match (before, splices) {
                (None, [splice]) => {
                    let len = content.len() + splice.removed as usize - splice.inserted.len();
                    delta::splice(len, splice.at as usize, splice.removed as usize, &splice.inserted)
                }
                (before, _) => delta::trees(before.unwrap_or_default(), content),
            };
            (body, chain) = (Some((last, delta)), last_chain + 1);
        } else if number > 0
            && let Some(base) = self.levels.get(zeros.max(1) - 1).or(self.first.as_ref())
            && base.chain < MAX_CHAIN
        {
            (body, chain) = (Some((On::Version(base.serial), delta::trees(&base.content, content))), base.chain + 1);
        }
        let body = match body {
            Some((base, delta)) if delta.len() + DELTA_HEADER < content.len() => Body::Delta { base, chain, delta },
            _ => {
                chain = 0;
                Body::Whole(content.to_vec())
            }
        };
        self.last = Some((On::Version(serial), chain));
        if number == 0 || zeros > 0 {
            let base = Base { content: Arc::new(content.to_vec()), serial, chain };
            match &self.first {
                None => self.first = Some(base),
                Some(first) => {
                    while self.levels.len() < zeros {
                        self.levels.push(first.clone());
                    }
                    self.levels[..zeros].fill(base);
                }
            }
        }
        body
    }
}

/// An entry of a folder, and where its bytes are.
#[derive(Clone, Copy)]
struct Found {
    at: usize,
    len: usize,
    mode: u32,
    id: ObjectId,
}

impl Folder {
    fn load(objects: &Objects, tree: TreeId, depth: u32) -> Result<Self, StoreError> {
        let mut content = Vec::new();
        objects.tree(tree, &mut content)?;
        let mut sorted = BTreeMap::new();
        let mut in_order = true;
        let mut last: Option<(&[u8], bool)> = None;
        for entry in entries(&content) {
            let entry = entry.map_err(|error| StoreError::damaged(format!("tree {tree}"), error))?;
            let key = (entry.name, entry.is_tree());
            in_order &= last.is_none_or(|last| name_order(last.0, last.1, key.0, key.1).is_lt());
            last = Some(key);
            sorted.insert(entry.name, (entry.mode, entry.id));
        }
        // Some tool wrote it against the rules: it is put right with the first edit.
        let mut rewritten = Vec::with_capacity(content.len());
        if in_order {
            for entry in entries(&content).flatten() {
                write_entry(&mut rewritten, entry.mode, entry.name, &entry.id);
            }
        } else {
            let mut sorted: Vec<_> = sorted.into_iter().collect();
            sorted.sort_by(|(a, (a_mode, _)), (b, (b_mode, _))| {
                name_order(a, *a_mode == TREE_MODE, b, *b_mode == TREE_MODE)
            });
            for (name, (mode, id)) in sorted {
                write_entry(&mut rewritten, mode, name, &id);
            }
        }
        let mut folder = Self { depth, content: rewritten, ..Self::default() };
        if folder.content == content && !content.is_empty() {
            folder.history.last = Some((On::Before(tree.into()), 0));
        }
        folder.mark(0);
        Ok(folder)
    }

    /// Where to begin to look for `name`: the last mark before it.
    fn mark_before(&self, name: &[u8]) -> usize {
        let before = self.marks.partition_point(|&mark| {
            first_entry(&self.content[mark as usize..])
                .is_some_and(|(entry, _)| name_order(entry.name, entry.is_tree(), name, false).is_lt())
        });
        before.checked_sub(1).map_or(0, |mark| self.marks[mark] as usize)
    }

    fn find(&self, name: &[u8]) -> Option<Found> {
        let mut at = self.mark_before(name);
        while let Some((entry, len)) = first_entry(&self.content[at..]) {
            if entry.name == name {
                return Some(Found { at, len, mode: entry.mode, id: entry.id });
            }
            if name_order(entry.name, entry.is_tree(), name, true).is_gt() {
                return None;
            }
            at += len;
        }
        None
    }

    /// Where an entry of this name is to be put in.
    fn place_for(&self, name: &[u8], is_tree: bool) -> usize {
        let mut at = self.mark_before(name);
        while let Some((entry, len)) = first_entry(&self.content[at..])
            && name_order(entry.name, entry.is_tree(), name, is_tree).is_lt()
        {
            at += len;
        }
        at
    }

    /// Changes the bytes, and notes how.
    fn splice(&mut self, commit: u32, at: usize, removed: usize, inserted: &[u8], child: Option<usize>) {
        self.content.splice(at..at + removed, inserted.iter().copied());
        let narrow = |number: usize| u32::try_from(number).expect("a tree has less than 4 GiB");
        self.splices.push(Splice {
            commit,
            at: narrow(at),
            removed: narrow(removed),
            inserted: inserted.into(),
            child,
        });
        if removed == inserted.len() {
            return;
        }
        let from = self.marks.partition_point(|&mark| mark as usize <= at);
        let gone = self.marks[from..].partition_point(|&mark| (mark as usize) < at + removed);
        self.marks.drain(from..from + gone);
        for mark in &mut self.marks[from..] {
            *mark = narrow(*mark as usize + inserted.len() - removed);
        }
        if from > 0 && self.marks[from - 1] as usize >= self.content.len() {
            self.marks.remove(from - 1);
        }
        self.mark(at);
    }

    /// Sets marks between those around `at`, if these are too far apart.
    fn mark(&mut self, at: usize) {
        let next = self.marks.partition_point(|&mark| mark as usize <= at);
        let mut last = next.checked_sub(1).map_or(0, |before| self.marks[before] as usize);
        let end = self.marks.get(next).map_or(self.content.len(), |&mark| mark as usize);
        let (mut at, mut new) = (last, Vec::new());
        while end - last > 2 * MARK_EVERY
            && at < end
            && let Some((_, len)) = first_entry(&self.content[at..])
        {
            if at - last > MARK_EVERY {
                new.push(u32::try_from(at).expect("a tree has less than 4 GiB"));
                last = at;
            }
            at += len;
        }
        self.marks.splice(next..next, new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::SyncPath;
    use crate::store::pack::blob::tests::noise;
    use crate::store::pack::testing::{git, repository};
    use crate::store::pack::{Deflater, PackedBlob, Packer};
    use crate::store::tree;
    use proptest::prelude::*;

    fn who(time: i64) -> Signature {
        Signature { name: "laptop".to_owned(), email: "ab@foldersync".to_owned(), time }
    }

    fn commit(path: &str, entry: Option<Entry>, blob: Option<PackedBlob>) -> NewCommit {
        let edit = Edit { path: SyncPath::new(path).expect("valid"), entry };
        NewCommit { edit, blob, author: who(1), committer: who(2), message: format!("edit {path}\n").into_bytes() }
    }

    fn file(path: &str, content: &[u8]) -> NewCommit {
        let blob = PackedBlob::deflate(&mut Deflater::default(), content);
        commit(path, Some(Entry { kind: Kind::File, id: blob.id() }), Some(blob))
    }

    fn point_main_at(folder: &Path, head: CommitId) {
        git(folder, &["update-ref", "refs/heads/main", &head.to_string()]);
    }

    #[test]
    fn one_file_is_one_commit_in_one_pack() {
        let (folder, packs) = repository();
        let objects = Objects::open(&folder.path().join("objects")).expect("opened");
        let mut burst = Burst::begin(objects, &packs, TreeId::EMPTY, None).expect("begun");
        assert!(burst.push(file("notes.txt", b"hello\n")).expect("pushed"));
        assert!(!burst.push(file("notes.txt", b"hello\n")).expect("pushed"), "nothing changed");
        let done = burst.finish().expect("finished").expect("a commit");
        assert_eq!((done.commits, done.objects), (1, 3));
        point_main_at(folder.path(), done.head);
        assert_eq!(git(folder.path(), &["show", "main:notes.txt"]), "hello\n");
        git(folder.path(), &["fsck", "--full", "--strict"]);
    }

    #[test]
    fn nothing_pushed_is_nothing_written() {
        let (folder, packs) = repository();
        let objects = Objects::open(&folder.path().join("objects")).expect("opened");
        let mut burst = Burst::begin(objects, &packs, TreeId::EMPTY, None).expect("begun");
        assert!(!burst.push(commit("a/b", None, None)).expect("pushed"));
        assert_eq!(burst.finish().expect("finished"), None);
        assert_eq!(std::fs::read_dir(&packs).expect("readable").count(), 0);
    }

    #[test]
    fn a_streamed_blob_stands_before_its_commit() {
        let (folder, packs) = repository();
        let objects = Objects::open(&folder.path().join("objects")).expect("opened");
        let mut burst = Burst::begin(objects, &packs, TreeId::EMPTY, None).expect("begun");
        burst.push(file("a", b"1")).expect("pushed");
        let large = b"large ".repeat(100_000);
        assert_eq!(burst.blob_from_stream(1, &mut &large[..]).expect("tried"), None);
        let id = burst.blob_from_stream(large.len() as u64, &mut &large[..]).expect("tried").expect("as long as said");
        burst.push(commit("b", Some(Entry { kind: Kind::Executable, id }), None)).expect("pushed");
        let done = burst.finish().expect("finished").expect("commits");
        assert_eq!((done.commits, done.objects), (2, 6));
        point_main_at(folder.path(), done.head);
        assert_eq!(git(folder.path(), &["show", "main:b"]).len(), large.len());
        git(folder.path(), &["fsck", "--full", "--strict"]);
    }

    #[test]
    fn many_versions_of_a_large_folder_are_small_deltas_and_hashed_by_two() {
        let (folder, packs) = repository();
        let objects = Objects::open(&folder.path().join("objects")).expect("opened");
        let mut burst = Burst::begin(objects, &packs, TreeId::EMPTY, None).expect("begun");
        // In an order that is neither that of names nor its reverse.
        let name = |n: u32| format!("flat/{:05}-{n}", n.wrapping_mul(7919) % 3001);
        for n in 0..3000 {
            burst.push(file(&name(n), n.to_string().as_bytes())).expect("pushed");
        }
        for n in (0..3000).step_by(3) {
            burst.push(commit(&name(n), None, None)).expect("pushed");
        }
        let done = burst.finish().expect("finished").expect("commits");
        assert_eq!(done.commits, 4000);
        assert!(done.bytes < 4_000_000, "{} bytes", done.bytes);
        point_main_at(folder.path(), done.head);
        git(folder.path(), &["fsck", "--full", "--strict"]);
        assert_eq!(git(folder.path(), &["ls-tree", "-r", "--name-only", "main"]).lines().count(), 2000);
        let depth = git(folder.path(), &["verify-pack", "-v", &packs.join(one_pack(&packs)).to_string_lossy()]);
        let longest =
            depth.lines().filter_map(|line| line.strip_prefix("chain length = ")?.split(':').next()?.parse().ok());
        assert!(longest.max().unwrap_or(0u32) <= u32::from(MAX_CHAIN));
    }

    fn one_pack(packs: &Path) -> String {
        let names =
            std::fs::read_dir(packs).expect("readable").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .into_iter()
            .find(|name| Path::new(name).extension().is_some_and(|ending| ending == "idx"))
            .expect("an index")
    }

    /// What does not deflate well, and is the same but for `n`.
    fn version(n: u8) -> Vec<u8> {
        [&noise(3000)[..], &[n; 20], &noise(2000)].concat()
    }

    /// A burst of changes of contents (old and new version of each path, the old ones in the repository) on a first
    /// one; answers with the pack's objects that are no commits and no trees: bytes in the pack, and the depth of each.
    fn changes(changes: &[(u8, u8)]) -> Vec<(u64, u32)> {
        let (folder, packs) = repository();
        let objects = Objects::open(&folder.path().join("objects")).expect("opened");
        let mut burst = Burst::begin(objects.clone(), &packs, TreeId::EMPTY, None).expect("begun");
        for (n, (old, _)) in changes.iter().enumerate() {
            burst.push(file(&format!("{n:03}"), &version(*old))).expect("pushed");
        }
        let first = burst.finish().expect("finished").expect("commits").head;
        let old_pack = one_pack(&packs);
        let tree = objects.commit(first).expect("there").tree;
        let mut burst = Burst::begin(objects.clone(), &packs, tree, Some(first)).expect("begun");
        let mut packer = Packer::new(Some(objects));
        for (n, (old, new)) in changes.iter().enumerate() {
            let [old, new] = [old, new].map(|n| object_id(ObjectKind::Blob, &version(*n)));
            let blob = packer.pack(new, &version(changes[n].1), Some(old));
            assert_eq!(blob.base(), Some(old));
            let entry = Entry { kind: Kind::File, id: new };
            burst.push(commit(&format!("{n:03}"), Some(entry), Some(blob))).expect("pushed");
        }
        let head = burst.finish().expect("finished").expect("commits").head;
        point_main_at(folder.path(), head);
        assert_eq!(git(folder.path(), &["fsck", "--full", "--strict"]), "");
        std::fs::remove_file(packs.join(&old_pack)).expect("removed");
        let new_pack = one_pack(&packs);
        let listed = git(folder.path(), &["verify-pack", "-v", &packs.join(new_pack).to_string_lossy()]);
        let blobs = listed.lines().filter(|line| line.get(41..45) == Some("blob"));
        let number = |word: Option<&&str>| word.map_or(0, |word| word.parse().expect("a number"));
        blobs
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .map(|words| (number(words.get(3)), u32::try_from(number(words.get(5))).expect("short")))
            .collect()
    }

    #[test]
    fn a_change_is_a_delta_and_its_base_comes_last() {
        let blobs = changes(&[(1, 2)]);
        assert!(matches!(blobs[..], [(..100, 1), (3000.., 0)]), "{blobs:?}");
    }

    #[test]
    fn contents_that_change_places_do_not_stand_on_each_other() {
        let blobs = changes(&[(1, 2), (2, 1)]);
        assert!(matches!(blobs[..], [(..100, 1), (3000.., 0)]), "{blobs:?}");
    }

    #[test]
    fn a_row_of_contents_that_move_on_stands_on_short_chains() {
        // Each path gets what the one before it had; then from the other end.
        let moved: Vec<(u8, u8)> = (0..120).map(|n| (n + 1, n)).collect();
        let blobs = changes(&moved);
        assert_eq!(blobs.len(), 120);
        assert_eq!(blobs.iter().filter(|blob| blob.1 == 0).count(), 60, "what was promised is whole");
        let moved: Vec<(u8, u8)> = moved.into_iter().rev().collect();
        let blobs = changes(&moved);
        assert_eq!(blobs.len(), 121);
        assert_eq!(blobs.iter().map(|blob| blob.1).max(), Some(u32::from(MAX_CHAIN)));
        assert_eq!(blobs.iter().filter(|blob| blob.1 == 0).count(), 3);
    }

    fn edits() -> impl Strategy<Value = Vec<(String, Option<Entry>)>> {
        let name = prop::sample::select(vec!["a", "a-b", "a.b", "a0", "b"]);
        let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
        let entry = prop_oneof![
            3 => (0u8..4).prop_map(|n| Some(Entry { kind: Kind::File, id: object_id(ObjectKind::Blob, &[n]) })),
            1 => (0u8..4).prop_map(|n| Some(Entry { kind: Kind::Symlink, id: object_id(ObjectKind::Blob, &[n]) })),
            1 => Just(Some(Entry::EMPTY_FOLDER)),
            3 => Just(None),
        ];
        prop::collection::vec((path, entry), 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn makes_the_trees_that_edits_one_by_one_make(bursts in prop::collection::vec(edits(), 1..4), window in 1usize..20) {
            let (folder, packs) = repository();
            let objects = Objects::open(&folder.path().join("objects")).expect("opened");
            let (mut tree, mut head) = (TreeId::EMPTY, None);
            for edits in bursts {
                let mut burst = Burst::begin(objects.clone(), &packs, tree, head).expect("begun");
                burst.window_limit = window;
                let mut made = Vec::new();
                for (path, entry) in &edits {
                    let blob = (0u8..4).find(|&n| entry.is_some_and(|entry| entry.id == object_id(ObjectKind::Blob, &[n])));
                    let blob = blob.map(|n| PackedBlob::deflate(&mut Deflater::default(), &[n]));
                    made.push(burst.push(commit(path, *entry, blob)).expect("pushed"));
                }
                let Some(done) = burst.finish().expect("finished") else {
                    prop_assert!(made.iter().all(|made| !made));
                    continue;
                };
                let mut at = done.head;
                let mut trees = Vec::new();
                while Some(at) != head {
                    let commit = objects.commit(at).expect("written");
                    trees.push(commit.tree);
                    match commit.parents.first() {
                        Some(parent) => at = *parent,
                        None => break,
                    }
                }
                prop_assert_eq!(trees.len() as u64, done.commits);
                let mut trees = trees.into_iter().rev();
                for ((path, entry), made) in edits.iter().zip(made) {
                    let edit = Edit { path: SyncPath::new(path.as_str()).expect("valid"), entry: *entry };
                    let edited = tree::edit(&objects, tree, &[edit], &mut |content| {
                        Ok(object_id(ObjectKind::Tree, content).as_tree())
                    }).expect("edited");
                    prop_assert_eq!(made, edited != tree);
                    if made {
                        prop_assert_eq!(trees.next(), Some(edited));
                    }
                    tree = edited;
                }
                head = Some(done.head);
            }
            if let Some(head) = head {
                point_main_at(folder.path(), head);
                let said = git(folder.path(), &["fsck", "--full", "--strict"]);
                prop_assert_eq!(said, "");
            }
        }
    }
}
