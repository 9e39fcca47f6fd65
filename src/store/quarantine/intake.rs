//! From entries to objects: deltas applied, ids computed, what an object refers to noted.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::spool::{Content, OnDisk, Received};
use super::trees::check_tree;
use super::{Limits, damaged, hostile, too_large, wrong_kind};
use crate::id::{CommitId, ObjectId};
use crate::store::commit::{Commit, is_signature};
use crate::store::error::StoreError;
use crate::store::large::Recipe;
use crate::store::objects::{ObjectKind, Objects, object_id};
use crate::store::pack::Deflater;
use crate::store::pack::delta::{self, DeltaError};
use crate::store::pack::entry::{EntryKind, write_header};
use crate::store::pack::ids::IdTable;
use crate::store::pack::index::IndexEntry;
use crate::store::pack::reader::links;
use crate::store::pack::writer::seal;

/// Bytes of contents that are kept for the deltas to come.
const CACHE_BYTES: usize = 16 << 20;
/// What stands in a commit above its message has at most so many bytes: parents by the thousand, but not by the million.
const COMMIT_HEADER: usize = 256 << 10;
/// The most deltas that may come before their base.
const MAX_DEFERRED: usize = 10_000;

/// An object of the pack.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) index: IndexEntry,
    /// `None` while it is a delta whose base is not known.
    pub(super) kind: Option<ObjectKind>,
    pub(super) referenced: bool,
    /// For a tree: how deep folders lie in it, at most.
    pub(super) height: u16,
}

/// A commit of the pack.
pub(super) struct NewCommit {
    pub(super) id: CommitId,
    pub(super) parents: Vec<CommitId>,
}

/// Contents that deltas may stand on, the last used ones.
#[derive(Default)]
struct Cache {
    contents: HashMap<u32, (Arc<Vec<u8>>, u64)>,
    uses: VecDeque<(u32, u64)>,
    clock: u64,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, entry: u32) -> Option<Arc<Vec<u8>>> {
        let (content, used) = self.contents.get_mut(&entry)?;
        self.clock += 1;
        *used = self.clock;
        let content = Arc::clone(content);
        self.uses.push_back((entry, self.clock));
        self.trim();
        Some(content)
    }

    fn put(&mut self, entry: u32, content: Arc<Vec<u8>>) {
        if content.len() > CACHE_BYTES / 2 {
            return;
        }
        self.clock += 1;
        self.bytes += content.len() + 100;
        if let Some((old, _)) = self.contents.insert(entry, (content, self.clock)) {
            self.bytes -= old.len() + 100;
        }
        self.uses.push_back((entry, self.clock));
        self.trim();
    }

    fn trim(&mut self) {
        while self.bytes > CACHE_BYTES || self.uses.len() > 2 * self.contents.len() + 64 {
            let Some((entry, used)) = self.uses.pop_front() else { return };
            let Some((content, last)) = self.contents.get(&entry) else { continue };
            if *last != used {
                continue;
            }
            if self.bytes > CACHE_BYTES {
                self.bytes -= content.len() + 100;
                self.contents.remove(&entry);
            } else {
                // Only the list of uses was too long; this content has no other use in it.
                self.uses.push_back((entry, used));
            }
        }
    }
}

/// What a delta stands on.
#[derive(Clone, Copy)]
enum BaseOf {
    Entry(u32),
    /// An object of the repository.
    Outside(ObjectId),
}

/// Makes the objects of the entries, checks each, and notes what they refer to.
pub(super) struct Intake<'a> {
    objects: Objects,
    limits: &'a Limits,
    to: OnDisk<'a>,
    entries: Vec<Entry>,
    table: IdTable,
    cache: Cache,
    /// The objects of the repository that deltas stand on, by their kind.
    borrowed: HashMap<ObjectId, ObjectKind>,
    deferred: Vec<u32>,
    commits: Vec<NewCommit>,
    /// How many parents the commits have together.
    parents: usize,
    pending: HashSet<(ObjectId, ObjectKind)>,
    ordered: bool,
    chunks: BTreeSet<ObjectId>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(to: OnDisk<'a>, objects: Objects, limits: &'a Limits) -> Self {
        Self {
            objects,
            limits,
            to,
            entries: Vec::new(),
            table: IdTable::default(),
            cache: Cache::default(),
            borrowed: HashMap::new(),
            deferred: Vec::new(),
            commits: Vec::new(),
            parents: 0,
            pending: HashSet::new(),
            ordered: true,
            chunks: BTreeSet::new(),
        }
    }

    /// Takes entries, in their order, which are on disk.
    pub(super) fn take(&mut self, entries: Vec<Received>) -> Result<(), StoreError> {
        for Received { offset, crc, kind, content } in entries {
            let entry = u32::try_from(self.entries.len()).expect("no more than the limit");
            let index = IndexEntry { id: ObjectId::from_bytes([0; 20]), crc, offset };
            let content = match content {
                Content::Left => Content::Held(self.to.entry(offset, self.limits.held_bytes)?.1),
                content => content,
            };
            self.entries.push(Entry { index, kind: None, referenced: false, height: 0 });
            match (content, kind) {
                (Content::Hashed(id), _) => self.note(entry, ObjectKind::Blob, id)?,
                (Content::Held(content), EntryKind::Whole(kind)) => self.object(entry, kind, content, None)?,
                (Content::Held(delta), kind) => self.delta(entry, kind, &delta)?,
                (Content::Left, _) => return Err(damaged("an entry was not read")),
            }
        }
        Ok(())
    }

    /// Makes the objects of the deltas that came before what they stand on.
    fn deferred(&mut self) -> Result<(), StoreError> {
        for _ in 0..self.limits.chain {
            if self.deferred.is_empty() {
                return Ok(());
            }
            let before = self.deferred.len();
            let mut missing = Vec::new();
            for entry in std::mem::take(&mut self.deferred) {
                let offset = self.entries[entry as usize].index.offset;
                let (kind, delta) = self.to.entry(offset, self.limits.held_bytes)?;
                self.delta(entry, kind, &delta)?;
                if let EntryKind::IdDelta(base) = kind {
                    missing.push(base);
                }
            }
            if self.deferred.len() == before {
                return Err(StoreError::Prerequisites { missing });
            }
        }
        Err(hostile("the received pack", "its deltas stand on one another without end"))
    }

    fn find(&self, id: &ObjectId) -> Option<u32> {
        self.table.get(id, |at| self.entries[at as usize].index.id)
    }

    /// Makes the object that a delta makes, or defers it if its base is still to come.
    fn delta(&mut self, entry: u32, kind: EntryKind, delta: &[u8]) -> Result<(), StoreError> {
        let Some(base) = self.base(entry, kind)? else {
            if self.deferred.len() == MAX_DEFERRED {
                return Err(hostile("the received pack", "too many deltas come before what they stand on"));
            }
            self.deferred.push(entry);
            self.ordered = false;
            return Ok(());
        };
        let limit = self.limits.held_bytes;
        let declared = delta::result_size(delta).map_err(damaged)?;
        if declared > limit as u64 {
            return Err(too_large("an object that a delta makes", limit as u64));
        }
        let (kind, base_content) = self.content(base)?;
        let content = delta::apply(&base_content, delta, limit).map_err(|error| match error {
            DeltaError::TooLarge => too_large("an object that a delta makes", limit as u64),
            other => damaged(format!("a delta cannot be applied: {other}")),
        })?;
        self.object(entry, kind, content, Some(&(base, base_content)))
    }

    /// What the delta at `entry` stands on; `None` if that is not known yet.
    fn base(&mut self, entry: u32, kind: EntryKind) -> Result<Option<BaseOf>, StoreError> {
        let base = match kind {
            EntryKind::Whole(_) => return Ok(None),
            EntryKind::OffsetDelta(distance) => {
                let offset = self.entries[entry as usize].index.offset.checked_sub(distance).filter(|_| distance > 0);
                let found = offset
                    .and_then(|offset| self.entries.binary_search_by_key(&offset, |entry| entry.index.offset).ok());
                let found = found.ok_or_else(|| hostile("the received pack", "a delta stands on no entry"))?;
                u32::try_from(found).expect("as many entries as were counted")
            }
            EntryKind::IdDelta(id) => match self.find(&id) {
                Some(found) => found,
                None if self.borrowed.contains_key(&id) => return Ok(Some(BaseOf::Outside(id))),
                None => {
                    return Ok(match self.objects.header(&id)? {
                        Some((_, size)) if size > self.limits.held_bytes as u64 => {
                            return Err(too_large("an object that others are made of", self.limits.held_bytes as u64));
                        }
                        Some((kind, _)) => {
                            self.borrowed.insert(id, kind);
                            Some(BaseOf::Outside(id))
                        }
                        None => None,
                    });
                }
            },
        };
        Ok(self.entries[base as usize].kind.map(|_| BaseOf::Entry(base)))
    }

    /// The content of something that deltas stand on.
    fn content(&mut self, base: BaseOf) -> Result<(ObjectKind, Arc<Vec<u8>>), StoreError> {
        let mut deltas = Vec::new();
        let mut at = base;
        let (kind, mut content) = loop {
            match at {
                BaseOf::Outside(id) => {
                    let mut content = Vec::new();
                    let kind = self.objects.try_read(&id, &mut content)?.ok_or(StoreError::Missing { id })?;
                    break (kind, Arc::new(content));
                }
                BaseOf::Entry(entry) => {
                    let kind = self.entries[entry as usize].kind.ok_or_else(|| damaged("a delta has no base"))?;
                    if let Some(content) = self.cache.get(entry) {
                        break (kind, content);
                    }
                    let offset = self.entries[entry as usize].index.offset;
                    let (entry_kind, inflated) = self.to.entry(offset, self.limits.held_bytes)?;
                    if let EntryKind::Whole(kind) = entry_kind {
                        let content = Arc::new(inflated);
                        self.cache.put(entry, Arc::clone(&content));
                        break (kind, content);
                    }
                    at = self.base(entry, entry_kind)?.ok_or_else(|| damaged("a delta has no base"))?;
                    deltas.push((entry, inflated));
                    if deltas.len() > self.limits.chain
                        || deltas.iter().map(|(_, delta)| delta.len()).sum::<usize>() > 2 * self.limits.held_bytes
                    {
                        return Err(too_large("a chain of deltas", self.limits.chain as u64));
                    }
                }
            }
        };
        while let Some((entry, delta)) = deltas.pop() {
            content = Arc::new(delta::apply(&content, &delta, self.limits.held_bytes).map_err(damaged)?);
            self.cache.put(entry, Arc::clone(&content));
        }
        Ok((kind, content))
    }

    /// Takes an object whose content is known: checks what can be checked of it alone, and notes what it refers to.
    fn object(
        &mut self,
        entry: u32,
        kind: ObjectKind,
        content: Vec<u8>,
        base: Option<&(BaseOf, Arc<Vec<u8>>)>,
    ) -> Result<(), StoreError> {
        let id = object_id(kind, &content);
        match kind {
            // What only looks like a recipe is a content like any other; whoever writes it to the disk tells.
            ObjectKind::Blob => {
                for chunk in Recipe::parse(&content).iter().flat_map(Recipe::chunks) {
                    if self.chunks.insert(chunk.id) {
                        self.refer(ObjectKind::Blob, chunk.id)?;
                    }
                }
            }
            ObjectKind::Commit => self.commit(entry, id.as_commit(), &content)?,
            ObjectKind::Tree => {
                let mut height = match base {
                    Some((BaseOf::Entry(base), _)) => self.entries[*base as usize].height,
                    _ => 1,
                };
                let base = base.map_or(&[][..], |(_, content)| content);
                let mut references = Vec::new();
                check_tree(base, &content, &mut |kind, id| references.push((kind, id)))
                    .map_err(|detail| hostile(format!("tree {id}"), detail))?;
                for (kind, id) in references {
                    height = height.max(self.refer(kind, id)?.saturating_add(1));
                }
                if height > self.limits.depth {
                    return Err(hostile(format!("tree {id}"), "folders lie too deep in each other"));
                }
                self.entries[entry as usize].height = height;
            }
        }
        self.note(entry, kind, id)?;
        if kind == ObjectKind::Tree || base.is_some() {
            self.cache.put(entry, Arc::new(content));
        }
        Ok(())
    }

    fn note(&mut self, entry: u32, kind: ObjectKind, id: ObjectId) -> Result<(), StoreError> {
        if id == ObjectId::from_bytes([0; 20]) {
            return Err(hostile("the received pack", "an object in it is made to collide with another"));
        }
        if self.find(&id).is_some() {
            return Err(damaged(format!("object {id} is in it twice")));
        }
        self.entries[entry as usize].index.id = id;
        self.entries[entry as usize].kind = Some(kind);
        self.table.insert(&id, entry, |at| self.entries[at as usize].index.id);
        Ok(())
    }

    fn commit(&mut self, entry: u32, id: CommitId, content: &[u8]) -> Result<(), StoreError> {
        let nonsense = |detail: &dyn ToString| hostile(format!("commit {id}"), detail.to_string());
        if content.len() > COMMIT_HEADER && !content[..COMMIT_HEADER].windows(2).any(|ends| ends == b"\n\n") {
            return Err(nonsense(&"there is too much above its message"));
        }
        Commit::parse(id, content).map_err(|error| nonsense(&error))?;
        let links = links(content).ok_or_else(|| nonsense(&"it makes no sense"))?;
        if content.contains(&0) {
            return Err(nonsense(&"it has a NUL byte"));
        }
        let header = content.split(|&byte| byte == b'\n').take_while(|line| !line.is_empty());
        for role in [&b"author "[..], b"committer "] {
            let mut said = header.clone().filter_map(|line| line.strip_prefix(role));
            if !said.next().is_some_and(is_signature) || said.next().is_some() {
                return Err(nonsense(&"who made it, or when, makes no sense"));
            }
        }
        self.refer(ObjectKind::Tree, links.tree.into())?;
        // The first commit follows something outside; each other must follow the one before.
        self.ordered &= self.commits.last().is_none_or(|last| links.parents.contains(&last.id));
        // Deltas make commits of many parents out of few bytes.
        self.parents += links.parents.len();
        if self.parents > self.limits.objects as usize {
            return Err(too_large("the number of parents in the received pack", self.limits.objects.into()));
        }
        for &parent in &links.parents {
            self.refer(ObjectKind::Commit, parent.into())?;
        }
        self.entries[entry as usize].referenced = true;
        self.commits.push(NewCommit { id, parents: links.parents });
        Ok(())
    }

    /// Notes a reference; answers with the height of what it refers to, where that is known.
    fn refer(&mut self, kind: ObjectKind, id: ObjectId) -> Result<u16, StoreError> {
        if let Some(found) = self.find(&id) {
            let entry = &mut self.entries[found as usize];
            entry.referenced = true;
            return if entry.kind == Some(kind) { Ok(entry.height) } else { Err(wrong_kind(id, kind)) };
        }
        if self.pending.len() >= self.limits.objects as usize {
            return Err(too_large("the number of references in the received pack", self.limits.objects.into()));
        }
        self.pending.insert((id, kind));
        Ok(0)
    }

    /// Ends the pack, whose last entry ends at `end`, and completes it with what its deltas stand on outside.
    pub(super) fn finish(mut self, end: u64, checksum: [u8; 20]) -> Result<Indexed, StoreError> {
        self.deferred()?;
        let mut end = end;
        let OnDisk { file, path } = self.to;
        let failed = |error| StoreError::io("write", path)(error);
        let mut bases: Vec<_> = std::mem::take(&mut self.borrowed).into_iter().collect();
        bases.sort_unstable();
        for (id, _) in &bases {
            let Some(entry) = self.find(id) else { continue };
            // As a delta it may be made of what is made of it: whoever reads it would go in a circle for ever.
            let (kind, _) = self.to.entry(self.entries[entry as usize].index.offset, self.limits.held_bytes)?;
            if !matches!(kind, EntryKind::Whole(_)) {
                return Err(hostile(format!("object {id}"), "it is a delta in the pack whose deltas stand on it"));
            }
        }
        bases.retain(|(id, _)| self.find(id).is_none());
        let checksum = if bases.is_empty() {
            file.write_all_at(&checksum, end).map_err(failed)?;
            checksum
        } else {
            let (mut deflater, mut content, mut entry) = (Deflater::default(), Vec::new(), Vec::new());
            for (id, kind) in bases {
                self.objects.read(kind, &id, &mut content)?;
                entry.clear();
                write_header(&mut entry, EntryKind::Whole(kind), content.len() as u64);
                deflater.deflate(&content, &mut entry);
                file.write_all_at(&entry, end).map_err(failed)?;
                let index = IndexEntry { id, crc: crc32fast::hash(&entry), offset: end };
                self.entries.push(Entry { index, kind: Some(kind), referenced: true, height: 0 });
                end += entry.len() as u64;
                if end > self.limits.pack_bytes {
                    return Err(too_large("the received pack, completed,", self.limits.pack_bytes));
                }
            }
            seal(file, u32::try_from(self.entries.len()).expect("limited"), end).map_err(failed)?
        };
        Ok(Indexed {
            entries: self.entries,
            table: self.table,
            checksum,
            commits: self.commits,
            pending: self.pending,
            ordered: self.ordered,
            chunks: self.chunks,
        })
    }
}

/// The objects of a pack that was received.
pub(super) struct Indexed {
    pub(super) entries: Vec<Entry>,
    pub(super) table: IdTable,
    pub(super) checksum: [u8; 20],
    pub(super) commits: Vec<NewCommit>,
    /// References to what did not stand before them.
    pub(super) pending: HashSet<(ObjectId, ObjectKind)>,
    pub(super) ordered: bool,
    /// The chunks that recipes among them name.
    pub(super) chunks: BTreeSet<ObjectId>,
}
