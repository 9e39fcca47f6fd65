//! Receiving a pack from somebody who is not trusted: received, indexed, checked, and only then admitted.
//!
//! Owns the file that a pack is received into, until [`VerifiedPack::admit`] makes it a pack of the repository. The
//! three steps are three types: what was not checked cannot be admitted. Whatever fails, and wherever a kill comes,
//! nothing of the pack is visible to anybody; dropped, it leaves nothing behind (a kill leaves a `tmp_pack_…`).
//!
//! # What is checked
//!
//! - The pack itself: checksum, count, sizes, deltas, no object twice, nothing behind it. Every object's id is computed
//!   here (and attempts at SHA-1 collisions are noticed); deltas against objects that the repository has are completed.
//! - Every tree: names that git and [`crate::path`] accept, modes that foldersync keeps, the order of names, no name
//!   twice. What a tree shares with the tree that it is a delta against was checked there.
//! - Every reference of a tree or a commit: an object of the right kind, in the pack or the repository.
//! - That the prerequisites are here, and the tips are commits.
//!
//! # What it may cost
//!
//! Whatever the pack: about 100 MiB of memory, and on disk the pack. Sizes are compared with [`Limits`] before anything
//! is allocated; large contents are hashed as they pass.
//!
//! # Whether the pack is an ordered one
//!
//! It is (see [`super::pack`]) if each of its commits follows the one before it, and nothing refers to what stands
//! behind it. Bases that complete it come behind the last commit. Other packs are admitted without the marker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress, Status};
use tempfile::NamedTempFile;

use super::bundle::{BundleHeader, unreadable};
use super::commit::Commit;
use super::error::StoreError;
use super::objects::{ObjectHasher, ObjectKind, Objects, object_id};
use super::pack::Deflater;
use super::pack::delta::{self, DeltaError, common_prefix, common_suffix, first_entry};
use super::pack::entry::{EntryHeader, EntryKind, HeaderError, MAX_ENTRY_HEADER, pack_header, write_header};
use super::pack::ids::IdTable;
use super::pack::index::IndexEntry;
use super::pack::reader::links;
use super::pack::writer::{Order, publish, seal, temporary};
use super::tree::name_order;
use crate::entry::Kind;
use crate::id::{CommitId, ObjectId};
use crate::path::{check_name, quote};

/// How much of what a pack may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The bytes of the pack: what it may take on disk.
    pub pack_bytes: u64,
    /// The objects in it.
    pub objects: u32,
    /// The bytes of an object that has to be held in memory: trees, commits, deltas, what these are made against.
    pub held_bytes: usize,
    /// The bytes of a content.
    pub blob_bytes: u64,
    /// The deltas from an object back to a whole one.
    pub chain: usize,
    /// How deep folders may lie in each other.
    pub depth: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pack_bytes: 64 << 30,
            objects: 500_000,
            held_bytes: 8 << 20,
            blob_bytes: 1 << 40,
            chain: 512,
            depth: 1024,
        }
    }
}

/// Bytes of contents that are kept for the deltas to come.
const CACHE_BYTES: usize = 16 << 20;
/// The most deltas that may come before their base.
const MAX_DEFERRED: usize = 10_000;
/// The longest name in a tree.
const MAX_NAME: usize = 4096;

fn damaged(detail: impl ToString) -> StoreError {
    StoreError::damaged("the received pack", detail)
}

#[expect(clippy::needless_pass_by_value, reason = "so that errors and texts alike can be passed")]
fn hostile(what: impl Into<String>, detail: impl ToString) -> StoreError {
    StoreError::Hostile { what: what.into(), detail: detail.to_string() }
}

fn too_large(what: &str, limit: u64) -> StoreError {
    StoreError::TooLarge { what: what.to_owned(), limit }
}

/// A pack that lies on disk with all its ids known, but is not checked.
pub struct QuarantinedPack {
    header: BundleHeader,
    file: NamedTempFile,
    entries: Vec<Entry>,
    table: IdTable,
    checksum: [u8; 20],
    commits: Vec<NewCommit>,
    /// References to what did not stand before them.
    pending: HashSet<(ObjectId, ObjectKind)>,
    ordered: bool,
}

/// A pack that was checked.
pub struct VerifiedPack {
    file: NamedTempFile,
    entries: Vec<Entry>,
    checksum: [u8; 20],
    commits: Vec<CommitId>,
    tips: Vec<CommitId>,
    ordered: bool,
    unreferenced: u64,
}

/// A pack that is part of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its name; `None` if there was nothing in it.
    pub pack: Option<String>,
    /// Its commits, parents first.
    pub commits: Vec<CommitId>,
    /// The tips that it was sent with; the main one is the first.
    pub tips: Vec<CommitId>,
    /// How many objects it has.
    pub objects: u64,
    /// The bytes of the pack.
    pub bytes: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    index: IndexEntry,
    /// `None` while it is a delta whose base is not known.
    kind: Option<ObjectKind>,
    referenced: bool,
    /// For a tree: how deep folders lie in it, at most.
    height: u16,
}

struct NewCommit {
    id: CommitId,
    parents: Vec<CommitId>,
}

/// Receives the pack behind a bundle's header into `dir`, which is on the file system of the packs, and indexes it.
/// `objects` is the repository that its deltas may stand on.
pub fn receive(
    dir: &Path,
    header: BundleHeader,
    pack: &mut dyn Read,
    objects: &Objects,
    limits: &Limits,
) -> Result<QuarantinedPack, StoreError> {
    let mut missing = Vec::new();
    for prerequisite in &header.prerequisites {
        let id = ObjectId::from(*prerequisite);
        if !matches!(objects.header(&id)?, Some((ObjectKind::Commit, _))) {
            missing.push(id);
        }
    }
    if !missing.is_empty() {
        return Err(StoreError::Prerequisites { missing });
    }
    let spool = Spool::new(temporary(dir)?, pack, limits.pack_bytes);
    let mut intake = Intake {
        objects,
        limits,
        spool,
        inflate: Decompress::new(true),
        entries: Vec::new(),
        table: IdTable::default(),
        cache: Cache::default(),
        borrowed: HashMap::new(),
        deferred: Vec::new(),
        commits: Vec::new(),
        pending: HashSet::new(),
        ordered: true,
    };
    intake.all_entries()?;
    intake.finish(header)
}

/// The stream of a pack, with what was read of it on disk.
struct Spool<'a> {
    from: &'a mut dyn Read,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    file: NamedTempFile,
    hasher: gix_hash::Hasher,
    /// Where in the pack the buffer begins.
    offset: u64,
    limit: u64,
    /// Of the entry that is being read.
    crc: crc32fast::Hasher,
}

impl<'a> Spool<'a> {
    fn new(file: NamedTempFile, from: &'a mut dyn Read, limit: u64) -> Self {
        let hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        let crc = crc32fast::Hasher::new();
        Self { from, buffer: vec![0; 256 << 10], start: 0, end: 0, file, hasher, offset: 0, limit, crc }
    }

    /// Where in the pack the next byte stands.
    fn position(&self) -> u64 {
        self.offset + self.start as u64
    }

    fn io(&self, what: &'static str) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
        let path = self.file.path().to_owned();
        move |source| StoreError::Io { what, path, source }
    }

    /// Writes what was consumed to the disk.
    fn settle(&mut self) -> Result<(), StoreError> {
        let consumed = &self.buffer[..self.start];
        self.hasher.update(consumed);
        self.file.as_file().write_all_at(consumed, self.offset).map_err(self.io("write"))?;
        self.offset += self.start as u64;
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.offset > self.limit {
            return Err(too_large("the received pack", self.limit));
        }
        Ok(())
    }

    /// Sees to it that `wanted` bytes are ahead, unless there are no more.
    fn fill(&mut self, wanted: usize) -> Result<&[u8], StoreError> {
        if self.end - self.start < wanted {
            self.settle()?;
            while self.end < wanted {
                match self.from.read(&mut self.buffer[self.end..]) {
                    Ok(0) => break,
                    Ok(read) => self.end += read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(unreadable(error)),
                }
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, bytes: usize) {
        self.crc.update(&self.buffer[self.start..self.start + bytes]);
        self.start += bytes;
    }

    fn header(&mut self) -> Result<EntryHeader, StoreError> {
        let header = EntryHeader::parse(self.fill(MAX_ENTRY_HEADER)?).map_err(|error| match error {
            HeaderError::Kind(_) => hostile("the received pack", error),
            _ => damaged(error),
        })?;
        self.consume(header.len);
        Ok(header)
    }

    /// Inflates the next bytes into `out`; answers with how many there were, and whether they were the last.
    fn inflate(&mut self, inflate: &mut Decompress, out: &mut [u8]) -> Result<(usize, bool), StoreError> {
        let mut made = 0;
        loop {
            let input = self.fill(1)?;
            let (ins, outs) = (inflate.total_in(), inflate.total_out());
            let at_end = input.is_empty();
            let status = inflate.decompress(input, &mut out[made..], FlushDecompress::None).map_err(damaged)?;
            self.consume(usize::try_from(inflate.total_in() - ins).expect("no more than the buffer has"));
            made += usize::try_from(inflate.total_out() - outs).expect("no more than there is room");
            match status {
                Status::StreamEnd => return Ok((made, true)),
                _ if made == out.len() => return Ok((made, false)),
                _ if at_end => return Err(damaged("it is cut off")),
                _ => {}
            }
        }
    }

    /// What is deflated in an entry that has been read before; of `size` bytes.
    fn again(&mut self, offset: u64, limit: usize) -> Result<(EntryHeader, Vec<u8>), StoreError> {
        if self.start > 0 {
            self.settle()?;
        }
        let mut buffer = vec![0; 16 << 10];
        let mut at = offset;
        let read = |buffer: &mut [u8], at: u64| self.file.as_file().read_at(buffer, at).map_err(self.io("read"));
        let mut len = read(&mut buffer, at)?;
        let header = EntryHeader::parse(&buffer[..len]).map_err(damaged)?;
        let size = usize::try_from(header.size).ok().filter(|&size| size <= limit);
        let size = size.ok_or_else(|| too_large("an object that others are made of", limit as u64))?;
        let mut content = vec![0; size + 1];
        let (mut start, mut made) = (header.len, 0);
        let mut inflate = Decompress::new(true);
        loop {
            if start == len {
                at += len as u64;
                len = read(&mut buffer, at)?;
                start = 0;
            }
            let (ins, outs) = (inflate.total_in(), inflate.total_out());
            let status = inflate
                .decompress(&buffer[start..len], &mut content[made..], FlushDecompress::None)
                .map_err(damaged)?;
            start += usize::try_from(inflate.total_in() - ins).expect("no more than the buffer has");
            made += usize::try_from(inflate.total_out() - outs).expect("no more than there is room");
            match status {
                Status::StreamEnd if made == size => break,
                Status::StreamEnd => return Err(damaged("an entry changed on disk")),
                _ if len == 0 || made > size => return Err(damaged("an entry changed on disk")),
                _ => {}
            }
        }
        content.truncate(size);
        Ok((header, content))
    }
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

struct Intake<'a> {
    objects: &'a Objects,
    limits: &'a Limits,
    spool: Spool<'a>,
    inflate: Decompress,
    entries: Vec<Entry>,
    table: IdTable,
    cache: Cache,
    /// The objects of the repository that deltas stand on, by their kind.
    borrowed: HashMap<ObjectId, ObjectKind>,
    deferred: Vec<u32>,
    commits: Vec<NewCommit>,
    pending: HashSet<(ObjectId, ObjectKind)>,
    ordered: bool,
}

impl Intake<'_> {
    fn find(&self, id: &ObjectId) -> Option<u32> {
        self.table.get(id, |at| self.entries[at as usize].index.id)
    }

    fn all_entries(&mut self) -> Result<(), StoreError> {
        let header = self.spool.fill(pack_header(0).len())?;
        let count = match header.first_chunk::<12>() {
            Some([b'P', b'A', b'C', b'K', 0, 0, 0, 2, count @ ..]) => u32::from_be_bytes(*count),
            _ => return Err(damaged("it does not begin as a pack does")),
        };
        if count > self.limits.objects {
            return Err(too_large("the number of objects in the received pack", self.limits.objects.into()));
        }
        self.spool.consume(pack_header(0).len());
        for entry in 0..count {
            self.entry(entry)?;
        }
        for _ in 0..self.limits.chain {
            if self.deferred.is_empty() {
                break;
            }
            let before = self.deferred.len();
            for entry in std::mem::take(&mut self.deferred) {
                let (header, delta) =
                    self.spool.again(self.entries[entry as usize].index.offset, self.limits.held_bytes)?;
                self.delta(entry, header.kind, &delta)?;
            }
            if self.deferred.len() == before {
                let mut missing = Vec::new();
                for &entry in &self.deferred {
                    let (header, _) =
                        self.spool.again(self.entries[entry as usize].index.offset, self.limits.held_bytes)?;
                    if let EntryKind::IdDelta(base) = header.kind {
                        missing.push(base);
                    }
                }
                return Err(StoreError::Prerequisites { missing });
            }
        }
        if self.deferred.is_empty() {
            Ok(())
        } else {
            Err(hostile("the received pack", "its deltas stand on one another without end"))
        }
    }

    fn entry(&mut self, entry: u32) -> Result<(), StoreError> {
        let offset = self.spool.position();
        self.spool.crc = crc32fast::Hasher::new();
        let header = self.spool.header()?;
        self.entries.push(Entry {
            index: IndexEntry { id: ObjectId::from_bytes([0; 20]), crc: 0, offset },
            kind: None,
            referenced: false,
            height: 0,
        });
        self.inflate.reset(true);
        let large = header.size > self.limits.held_bytes as u64;
        let content = match header.kind {
            EntryKind::Whole(ObjectKind::Blob) if large => {
                let id = self.stream(header.size)?;
                self.note(entry, ObjectKind::Blob, id)?;
                None
            }
            _ if large => return Err(too_large("an object in the received pack", self.limits.held_bytes as u64)),
            _ => Some(self.held(header.size)?),
        };
        self.entries[entry as usize].index.crc = self.spool.crc.clone().finalize();
        match (content, header.kind) {
            (Some(content), EntryKind::Whole(kind)) => self.object(entry, kind, content, None),
            (Some(delta), kind) => self.delta(entry, kind, &delta),
            (None, _) => Ok(()),
        }
    }

    fn held(&mut self, size: u64) -> Result<Vec<u8>, StoreError> {
        let size = usize::try_from(size).map_err(|_| damaged("a size makes no sense"))?;
        // One more, to notice an entry with more than it declares.
        let mut content = vec![0; size + 1];
        match self.spool.inflate(&mut self.inflate, &mut content)? {
            (made, true) if made == size => {
                content.truncate(size);
                Ok(content)
            }
            _ => Err(damaged("an entry has not the size that it declares")),
        }
    }

    fn stream(&mut self, size: u64) -> Result<ObjectId, StoreError> {
        if size > self.limits.blob_bytes {
            return Err(too_large("a content in the received pack", self.limits.blob_bytes));
        }
        let mut hasher = ObjectHasher::new(ObjectKind::Blob, size);
        let mut chunk = vec![0; 64 << 10];
        let mut rest = size;
        loop {
            let (made, end) = self.spool.inflate(&mut self.inflate, &mut chunk)?;
            hasher.update(&chunk[..made]);
            rest = rest
                .checked_sub(made as u64)
                .filter(|&rest| !end || rest == 0)
                .ok_or_else(|| damaged("an entry has not the size that it declares"))?;
            if end {
                return Ok(hasher.finish());
            }
        }
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
                    let (header, inflated) = self.spool.again(offset, self.limits.held_bytes)?;
                    if let EntryKind::Whole(kind) = header.kind {
                        let content = Arc::new(inflated);
                        self.cache.put(entry, Arc::clone(&content));
                        break (kind, content);
                    }
                    at = self.base(entry, header.kind)?.ok_or_else(|| damaged("a delta has no base"))?;
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
            ObjectKind::Blob => {}
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
        Commit::parse(id, content).map_err(|error| nonsense(&error))?;
        let links = links(content).ok_or_else(|| nonsense(&"it makes no sense"))?;
        if content.contains(&0) {
            return Err(nonsense(&"it has a NUL byte"));
        }
        self.refer(ObjectKind::Tree, links.tree.into())?;
        // The first commit follows something outside; each other must follow the one before.
        self.ordered &= self.commits.last().is_none_or(|last| links.parents.contains(&last.id));
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

    /// Reads the end, and completes the pack with what its deltas stand on in the repository.
    fn finish(mut self, header: BundleHeader) -> Result<QuarantinedPack, StoreError> {
        self.spool.settle()?;
        let trailer: Option<[u8; 20]> = self.spool.fill(21)?.try_into().ok();
        let hasher = std::mem::replace(&mut self.spool.hasher, gix_hash::hasher(gix_hash::Kind::Sha1));
        let sum = hasher.try_finalize().map_err(|error| hostile("the received pack", error))?;
        let trailer = match trailer {
            Some(trailer) if sum.as_bytes() == trailer => trailer,
            Some(_) => return Err(damaged("its checksum is wrong")),
            None => return Err(damaged("it does not end with its checksum")),
        };
        let mut end = self.spool.position();
        let file = self.spool.file;
        let failed = |error| StoreError::io("write", file.path())(error);
        let mut bases: Vec<_> = self.borrowed.into_iter().collect();
        bases.sort_unstable();
        bases.retain(|(id, _)| self.table.get(id, |at| self.entries[at as usize].index.id).is_none());
        let checksum = if bases.is_empty() {
            file.as_file().write_all_at(&trailer, end).map_err(failed)?;
            trailer
        } else {
            let (mut deflater, mut content, mut entry) = (Deflater::default(), Vec::new(), Vec::new());
            for (id, kind) in bases {
                self.objects.read(kind, &id, &mut content)?;
                entry.clear();
                write_header(&mut entry, EntryKind::Whole(kind), content.len() as u64);
                deflater.deflate(&content, &mut entry);
                file.as_file().write_all_at(&entry, end).map_err(failed)?;
                let index = IndexEntry { id, crc: crc32fast::hash(&entry), offset: end };
                self.entries.push(Entry { index, kind: Some(kind), referenced: true, height: 0 });
                end += entry.len() as u64;
            }
            seal(file.as_file(), u32::try_from(self.entries.len()).expect("limited"), end).map_err(failed)?
        };
        Ok(QuarantinedPack {
            header,
            file,
            entries: self.entries,
            table: self.table,
            checksum,
            commits: self.commits,
            pending: self.pending,
            ordered: self.ordered,
        })
    }
}

fn wrong_kind(id: ObjectId, kind: ObjectKind) -> StoreError {
    hostile(format!("object {id}"), format!("something refers to it as a {}, which it is not", kind.word()))
}

/// Checks a tree, and tells what it refers to; what it shares with `base`, a tree that was checked, is passed over.
fn check_tree(base: &[u8], content: &[u8], tell: &mut dyn FnMut(ObjectKind, ObjectId)) -> Result<(), String> {
    let (shared, alike) = (common_prefix(base, content), content.len() - common_suffix(base, content));
    let (mut rest, mut old) = (content, base);
    let mut last: Option<(&[u8], bool)> = None;
    // Files whose names the names since begin with: a folder of the same name may still come.
    let mut files: Vec<&[u8]> = Vec::new();
    while let Some((entry, len)) = first_entry(rest) {
        let at = content.len() - rest.len();
        while files.last().is_some_and(|file| !entry.name.starts_with(file)) {
            files.pop();
        }
        // The same entries to the end, and no file that a folder in them could collide with.
        let ends_alike = |old: &[u8]| at >= alike && rest.len() == old.len() && files.is_empty();
        let in_order = |last: Option<(&[u8], bool)>| {
            last.is_none_or(|(name, is_tree)| name_order(name, is_tree, entry.name, entry.is_tree()).is_lt())
        };
        let same = if at + len <= shared {
            // Nothing before was different, so the base has the same entry at the same place.
            old = &old[len..];
            true
        } else {
            if ends_alike(old) && in_order(last) {
                return Ok(());
            }
            while let Some((there, len)) = first_entry(old)
                && name_order(there.name, there.is_tree(), entry.name, entry.is_tree()).is_lt()
            {
                old = &old[len..];
            }
            let same = len <= old.len()
                && first_entry(old).is_some_and(|(_, there)| there == len)
                && old[..len] == rest[..len];
            if same {
                old = &old[len..];
            }
            same
        };
        if at + len > shared && !in_order(last) {
            return Err(format!("{} stands at the wrong place in it, or twice", quote(entry.name)));
        }
        if entry.is_tree() && files.contains(&entry.name) {
            return Err(format!("{} is in it as a file and as a folder", quote(entry.name)));
        }
        if !same {
            check_name(entry.name).map_err(|error| format!("{}: {error}", quote(entry.name)))?;
            if entry.name.len() > MAX_NAME {
                return Err("a name in it is too long".to_owned());
            }
            if Kind::from_mode(entry.mode).is_none() || rest.starts_with(b"0") {
                return Err(format!(
                    "{} has the mode {:o}, which foldersync does not keep",
                    quote(entry.name),
                    entry.mode
                ));
            }
            tell(if entry.is_tree() { ObjectKind::Tree } else { ObjectKind::Blob }, entry.id);
        }
        if !entry.is_tree() {
            files.push(entry.name);
        }
        last = Some((entry.name, entry.is_tree()));
        rest = &rest[len..];
    }
    if rest.is_empty() { Ok(()) } else { Err("its entries cannot be read".to_owned()) }
}

impl QuarantinedPack {
    /// Checks that everything in it refers to what is there.
    pub fn verify(mut self, objects: &Objects) -> Result<VerifiedPack, StoreError> {
        let mut prerequisites = Vec::new();
        for (id, kind) in std::mem::take(&mut self.pending) {
            if let Some(found) = self.table.get(&id, |at| self.entries[at as usize].index.id) {
                let entry = &mut self.entries[found as usize];
                entry.referenced = true;
                self.ordered = false;
                if entry.kind != Some(kind) {
                    return Err(wrong_kind(id, kind));
                }
                continue;
            }
            match objects.header(&id)? {
                Some((found, _)) if found == kind => {}
                Some(_) => return Err(wrong_kind(id, kind)),
                None if kind == ObjectKind::Commit => prerequisites.push(id),
                None => return Err(StoreError::Missing { id }),
            }
        }
        if !prerequisites.is_empty() {
            prerequisites.sort_unstable();
            return Err(StoreError::Prerequisites { missing: prerequisites });
        }
        let mut tips = Vec::with_capacity(self.header.refs.len());
        for &(_, tip) in &self.header.refs {
            let id = ObjectId::from(tip);
            let kind = match self.table.get(&id, |at| self.entries[at as usize].index.id) {
                Some(found) => self.entries[found as usize].kind,
                None => objects.header(&id)?.map(|(kind, _)| kind),
            };
            match kind {
                Some(ObjectKind::Commit) => tips.push(tip),
                Some(_) => return Err(wrong_kind(id, ObjectKind::Commit)),
                None => return Err(StoreError::Missing { id }),
            }
        }
        let commits = parents_first(&self.commits);
        let unreferenced = self.entries.iter().filter(|entry| !entry.referenced).count() as u64;
        Ok(VerifiedPack {
            ordered: self.ordered && !commits.is_empty(),
            file: self.file,
            entries: self.entries,
            checksum: self.checksum,
            commits,
            tips,
            unreferenced,
        })
    }
}

/// The commits, each behind those of its parents that are among them.
fn parents_first(commits: &[NewCommit]) -> Vec<CommitId> {
    let at: HashMap<CommitId, usize> = commits.iter().enumerate().map(|(at, commit)| (commit.id, at)).collect();
    let mut done = vec![false; commits.len()];
    let mut sorted = Vec::with_capacity(commits.len());
    for start in 0..commits.len() {
        // Each with how many of its parents have been seen to.
        let mut stack = vec![(start, 0)];
        while let Some((top, seen)) = stack.last_mut() {
            let top = *top;
            if let Some(parent) = commits[top].parents.get(*seen).filter(|_| !done[top]) {
                *seen += 1;
                stack.extend(at.get(parent).filter(|&&parent| !done[parent]).map(|&parent| (parent, 0)));
            } else {
                stack.pop();
                if !std::mem::replace(&mut done[top], true) {
                    sorted.push(commits[top].id);
                }
            }
        }
    }
    sorted
}

impl VerifiedPack {
    /// The commits in it, parents first.
    pub fn commits(&self) -> &[CommitId] {
        &self.commits
    }

    /// The tips that it was sent with, the main one first.
    pub fn tips(&self) -> &[CommitId] {
        &self.tips
    }

    /// How many objects it has.
    pub fn objects(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many objects in it nothing in it refers to: none, if the sender is foldersync.
    pub const fn unreferenced(&self) -> u64 {
        self.unreferenced
    }

    /// Makes it a pack of the repository: synced, with its index, visible to all.
    pub fn admit(self, pack_dir: &Path) -> Result<Admitted, StoreError> {
        let Self { file, entries, checksum, commits, tips, ordered, .. } = self;
        if entries.is_empty() {
            return Ok(Admitted { pack: None, commits, tips, objects: 0, bytes: 0 });
        }
        let mut entries: Vec<_> = entries.into_iter().map(|entry| entry.index).collect();
        let finished =
            publish(pack_dir, file, &checksum, &mut entries, if ordered { Order::Youngest } else { Order::None })?;
        let (objects, bytes) = (finished.objects, finished.bytes);
        Ok(Admitted { pack: Some(finished.name), commits, tips, objects, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TreeId;
    use crate::store::bundle::tests::{Repo, files};
    use crate::store::bundle::{Bundle, BundleOptions, TIP_REF};
    use crate::store::pack::blob::store;
    use crate::store::pack::entry::HEADER_LEN;
    use crate::store::tree::write_entry;
    use rstest::rstest;

    /// A pack made by hand.
    #[derive(Default)]
    struct Forge {
        entries: Vec<Vec<u8>>,
        tip: Option<CommitId>,
    }

    impl Forge {
        fn entry(&mut self, kind: EntryKind, size: u64, content: &[u8]) -> &mut Self {
            let mut entry = Vec::new();
            write_header(&mut entry, kind, size);
            store(content, &mut entry);
            self.entries.push(entry);
            self
        }

        fn whole(&mut self, kind: ObjectKind, content: &[u8]) -> ObjectId {
            self.entry(EntryKind::Whole(kind), content.len() as u64, content);
            object_id(kind, content)
        }

        /// Where the next entry will begin.
        fn offset(&self) -> u64 {
            HEADER_LEN + self.entries.iter().map(Vec::len).sum::<usize>() as u64
        }

        fn commit(&mut self, tree: ObjectId, parents: &[CommitId]) -> CommitId {
            let parents: Vec<_> = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
            let parents = parents.concat();
            let text = format!("tree {tree}\n{parents}author a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nx\n");
            let id = self.whole(ObjectKind::Commit, text.as_bytes()).as_commit();
            self.tip = Some(id);
            id
        }

        fn pack(&self) -> Vec<u8> {
            let mut pack = pack_header(u32::try_from(self.entries.len()).expect("few")).to_vec();
            pack.extend(self.entries.concat());
            pack
        }

        fn header(&self) -> BundleHeader {
            let tip = self.tip.unwrap_or(CommitId::from_bytes([9; 20]));
            BundleHeader { prerequisites: Vec::new(), refs: vec![(TIP_REF.to_owned(), tip)] }
        }
    }

    fn signed(mut pack: Vec<u8>) -> Vec<u8> {
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        hasher.update(&pack);
        pack.extend(hasher.try_finalize().expect("no collision").as_bytes());
        pack
    }

    fn small() -> Limits {
        Limits { held_bytes: 64 << 10, objects: 1000, ..Limits::default() }
    }

    /// Tries to let a pack in; whatever comes of it, nothing is left behind but what was admitted.
    fn try_in(repo: &Repo, header: BundleHeader, pack: &[u8]) -> Result<Admitted, StoreError> {
        let count = || std::fs::read_dir(&repo.packs).expect("readable").count();
        let before = count();
        let result = receive(&repo.packs, header, &mut &pack[..], &repo.objects, &small())
            .and_then(|pack| pack.verify(&repo.objects))
            .and_then(|pack| pack.admit(&repo.packs));
        if result.is_err() {
            assert_eq!(count(), before);
        }
        result
    }

    fn forged(forge: &Forge) -> Result<Admitted, StoreError> {
        try_in(&Repo::new(), forge.header(), &signed(forge.pack()))
    }

    /// A pack with a tree of these entries, which are made to refer to a blob or an empty folder that is there.
    fn with_tree(entries: &[(&str, &[u8])]) -> Result<Admitted, StoreError> {
        let mut forge = Forge::default();
        let blob = forge.whole(ObjectKind::Blob, b"content");
        let empty = forge.whole(ObjectKind::Tree, b"");
        let mut tree = Vec::new();
        for (mode, name) in entries {
            tree.extend_from_slice(format!("{mode} ").as_bytes());
            tree.extend_from_slice(name);
            tree.push(0);
            tree.extend_from_slice(if mode.ends_with("40000") { empty } else { blob }.as_bytes());
        }
        let tree = forge.whole(ObjectKind::Tree, &tree);
        forge.commit(tree, &[]);
        forged(&forge)
    }

    /// The entries in `mode name|mode name`.
    fn specified(entries: &str) -> Vec<(&str, &[u8])> {
        entries
            .split('|')
            .filter_map(|entry| entry.split_once(' '))
            .map(|(mode, name)| (mode, name.as_bytes()))
            .collect()
    }

    #[rstest]
    #[case::file("100644 a")]
    #[case::all_modes("100644 a|100755 b|40000 c|120000 d|100664 e")]
    #[case::folder_sorts_as_with_a_slash("100644 a-b|40000 a|100644 a0")]
    fn takes_trees(#[case] entries: &str) {
        with_tree(&specified(entries)).expect("admitted");
    }

    #[test]
    fn takes_names_that_are_not_text() {
        with_tree(&[("100644", b"\xff\xfe")]).expect("admitted");
    }

    #[rstest]
    #[case::parent_folder("100644 ..")]
    #[case::this_folder("100644 .")]
    #[case::parent_folder_as_a_folder("40000 ..")]
    #[case::dot_git("40000 .git")]
    #[case::dot_git_link("120000 .git")]
    #[case::dot_git_upper_case("40000 .GIT")]
    #[case::dot_git_short("40000 git~1")]
    #[case::dot_git_ignored_code_point("40000 .g\u{200c}it")]
    #[case::slash("100644 a/b")]
    #[case::absolute("100644 /etc")]
    #[case::empty_name("100644 ")]
    #[case::ours("40000 .foldersync")]
    #[case::twice("100644 a|100644 a")]
    #[case::as_file_and_folder("100644 a|40000 a")]
    #[case::as_file_and_folder_apart("100644 a|100644 a-b|100644 a.b|40000 a")]
    #[case::unsorted("100644 b|100644 a")]
    #[case::folder_sorted_as_a_file("40000 a|100644 a-b")]
    #[case::submodule("160000 a")]
    #[case::device("60000 a")]
    #[case::no_mode(" a")]
    #[case::padded_mode("040000 a")]
    #[case::endless_mode("100000000644 a")]
    fn refuses_trees(#[case] entries: &str) {
        let error = with_tree(&specified(entries)).expect_err("refused");
        assert!(matches!(error, StoreError::Hostile { .. }), "{error}");
    }

    #[test]
    fn refuses_names_that_are_too_long() {
        assert!(matches!(with_tree(&[("100644", &[b'a'; 5000])]), Err(StoreError::Hostile { .. })));
    }

    #[rstest]
    #[case::no_nul(b"100644 a")]
    #[case::half_an_id(b"100644 a\0\x01\x02\x03")]
    #[case::no_space(b"100644")]
    #[case::text(b"hello")]
    fn refuses_what_is_no_tree(#[case] content: &[u8]) {
        let mut forge = Forge::default();
        let tree = forge.whole(ObjectKind::Tree, content);
        forge.commit(tree, &[]);
        assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
    }

    #[test]
    fn what_a_delta_brings_into_a_tree_is_checked() {
        // Each case changes a tree of many entries, so that most of it is shared with its base.
        let id = |n: u8| object_id(ObjectKind::Blob, &[n]);
        let names: Vec<_> = (0..200).map(|n| format!("f{n:03}")).collect();
        let plain: Vec<(u32, &str)> = names.iter().map(|name| (0o100_644, name.as_str())).collect();
        let tree = |entries: &[(u32, &str)]| {
            let mut content = Vec::new();
            for (mode, name) in entries {
                let id = if *mode == 0o40_000 { TreeId::EMPTY.into() } else { id(0) };
                write_entry(&mut content, *mode, name.as_bytes(), &id);
            }
            content
        };
        let attempt = |entries: &[(u32, &str)]| {
            let mut forge = Forge::default();
            forge.whole(ObjectKind::Blob, &[0]);
            forge.whole(ObjectKind::Tree, b"");
            let (base, content) = (tree(&plain), tree(entries));
            let at = forge.offset();
            let first = forge.whole(ObjectKind::Tree, &base);
            let parent = forge.commit(first, &[]);
            let delta = delta::trees(&base, &content);
            let distance = forge.offset() - at;
            forge.entry(EntryKind::OffsetDelta(distance), delta.len() as u64, &delta);
            forge.commit(object_id(ObjectKind::Tree, &content), &[parent]);
            forged(&forge)
        };
        let with = |at: usize, entry: (u32, &'static str)| {
            let mut entries = plain.clone();
            entries.insert(at, entry);
            entries
        };
        attempt(&with(101, (0o100_644, "f100a"))).expect("admitted");
        attempt(&with(101, (0o40_000, "f100a"))).expect("admitted");
        for (at, entry) in [
            (0, (0o100_644, "..")),
            (0, (0o100_644, ".git")),
            (100, (0o100_644, "f100")),
            (101, (0o100_644, "f100")),
            (101, (0o40_000, "f100")),
            (50, (0o100_644, "f100a")),
            (200, (0o100_644, "a")),
            (200, (0o160_000, "z")),
        ] {
            let error = attempt(&with(at, entry)).expect_err("refused");
            assert!(matches!(error, StoreError::Hostile { .. }), "{entry:?}: {error}");
        }
        // A file comes to stand before a folder of its name, which the base has further behind.
        let mut folder = plain.clone();
        folder[100] = (0o40_000, "f100");
        let mut forge = Forge::default();
        forge.whole(ObjectKind::Blob, &[0]);
        forge.whole(ObjectKind::Tree, b"");
        let at = forge.offset();
        forge.whole(ObjectKind::Tree, &tree(&folder));
        let mut both = folder.clone();
        both.insert(100, (0o100_644, "f100"));
        let delta = delta::trees(&tree(&folder), &tree(&both));
        let distance = forge.offset() - at;
        forge.entry(EntryKind::OffsetDelta(distance), delta.len() as u64, &delta);
        forge.commit(object_id(ObjectKind::Tree, &tree(&both)), &[]);
        assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
    }

    #[test]
    fn references_must_lead_to_what_they_say() {
        // A folder that is a file, a file that is a folder, a tree that is a commit.
        for (mode, to_tree) in [(0o40_000, false), (0o100_644, true)] {
            for first in [true, false] {
                let mut forge = Forge::default();
                let mut content = Vec::new();
                let id = if to_tree { TreeId::EMPTY.into() } else { object_id(ObjectKind::Blob, b"x") };
                let target = |forge: &mut Forge| {
                    if to_tree { forge.whole(ObjectKind::Tree, b"") } else { forge.whole(ObjectKind::Blob, b"x") }
                };
                if first {
                    target(&mut forge);
                }
                write_entry(&mut content, mode, b"a", &id);
                let tree = forge.whole(ObjectKind::Tree, &content);
                forge.commit(tree, &[]);
                if !first {
                    target(&mut forge);
                }
                assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
            }
        }
        let mut forge = Forge::default();
        let mut content = Vec::new();
        let missing = object_id(ObjectKind::Blob, b"nowhere");
        write_entry(&mut content, 0o100_644, b"a", &missing);
        let tree = forge.whole(ObjectKind::Tree, &content);
        forge.commit(tree, &[]);
        assert!(matches!(forged(&forge), Err(StoreError::Missing { id }) if id == missing));

        let mut forge = Forge::default();
        let tree = forge.whole(ObjectKind::Tree, b"");
        forge.commit(tree, &[CommitId::from_bytes([5; 20])]);
        assert!(
            matches!(forged(&forge), Err(StoreError::Prerequisites { missing }) if missing == [ObjectId::from_bytes([5; 20])])
        );

        let mut forge = Forge::default();
        let tree = forge.whole(ObjectKind::Tree, b"");
        forge.commit(tree, &[]);
        forge.tip = Some(CommitId::from_bytes(*tree.as_bytes()));
        assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })), "a tip that is a tree");
    }

    #[test]
    fn prerequisites_that_lack_are_told_before_anything_is_read() {
        let lacking = CommitId::from_bytes([3; 20]);
        let header = BundleHeader { prerequisites: vec![lacking], ..Forge::default().header() };
        let error = try_in(&Repo::new(), header, b"not even a pack").expect_err("refused");
        assert!(matches!(error, StoreError::Prerequisites { missing } if missing == [lacking.into()]));
    }

    fn number(mut size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while size > 0x7f {
            bytes.push(0x80 | (size & 0x7f) as u8);
            size >>= 7;
        }
        bytes.push((size & 0x7f) as u8);
        bytes
    }

    #[test]
    fn a_delta_that_declares_four_gib_is_too_large() {
        let mut forge = Forge::default();
        forge.whole(ObjectKind::Blob, b"x");
        let delta = [number(1), number(4 << 30), [0x90, 1].repeat(300)].concat();
        let distance = forge.offset() - HEADER_LEN;
        forge.entry(EntryKind::OffsetDelta(distance), delta.len() as u64, &delta);
        assert!(matches!(forged(&forge), Err(StoreError::TooLarge { .. })));
    }

    #[rstest]
    #[case::tree(ObjectKind::Tree)]
    #[case::commit(ObjectKind::Commit)]
    fn an_object_that_declares_four_gib_is_too_large(#[case] kind: ObjectKind) {
        let mut forge = Forge::default();
        forge.entry(EntryKind::Whole(kind), 4 << 30, b"x");
        assert!(matches!(forged(&forge), Err(StoreError::TooLarge { .. })));
    }

    #[test]
    fn deltas_that_make_ever_more_stay_within_the_limit() {
        let mut forge = Forge::default();
        let (mut size, mut last) = (1000u64, forge.offset());
        forge.whole(ObjectKind::Blob, &[b'x'; 1000]);
        for _ in 0..20 {
            let copy = [0xb0, (size & 0xff) as u8, (size >> 8 & 0xff) as u8];
            let delta = [number(size), number(size * 2), copy.repeat(2)].concat();
            let at = forge.offset();
            forge.entry(EntryKind::OffsetDelta(at - last), delta.len() as u64, &delta);
            (size, last) = (size * 2, at);
            if size > 0xffff {
                break;
            }
        }
        assert!(matches!(forged(&forge), Err(StoreError::TooLarge { .. })));
    }

    #[rstest]
    #[case::itself(0)]
    #[case::the_header(1)]
    #[case::before_the_pack(1000)]
    fn offsets_that_lead_to_no_entry_are_refused(#[case] distance: u64) {
        let mut forge = Forge::default();
        forge.entry(EntryKind::OffsetDelta(distance), 4, &[1, 1, 0x90, 1]);
        assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
    }

    #[test]
    fn deltas_in_a_circle_end() {
        let mut forge = Forge::default();
        for n in [1, 2] {
            forge.entry(EntryKind::IdDelta(ObjectId::from_bytes([n; 20])), 4, &[1, 1, 0x90, 1]);
        }
        assert!(matches!(forged(&forge), Err(StoreError::Prerequisites { missing }) if missing.len() == 2));
    }

    #[test]
    fn a_delta_may_come_before_what_it_stands_on() {
        let mut forge = Forge::default();
        let base = object_id(ObjectKind::Blob, b"hello");
        let delta = delta::splice(5, 5, 0, b" world");
        forge.entry(EntryKind::IdDelta(base), delta.len() as u64, &delta);
        forge.whole(ObjectKind::Blob, b"hello");
        let mut tree = Vec::new();
        write_entry(&mut tree, 0o100_644, b"a", &object_id(ObjectKind::Blob, b"hello world"));
        let tree = forge.whole(ObjectKind::Tree, &tree);
        let tip = forge.commit(tree, &[]);
        let repo = Repo::new();
        let received = receive(&repo.packs, forge.header(), &mut &signed(forge.pack())[..], &repo.objects, &small())
            .expect("received");
        let verified = received.verify(&repo.objects).expect("verified");
        assert_eq!(verified.unreferenced(), 1, "nothing but the delta needs the base");
        verified.admit(&repo.packs).expect("admitted");
        repo.set("refs/heads/main", tip);
        repo.fsck();
        assert_eq!(repo.git(&["show", "main:a"]), "hello world");
    }

    #[test]
    fn sizes_that_lie_are_damage() {
        for declared in [0, 3, 5, 100] {
            for kind in [ObjectKind::Blob, ObjectKind::Tree] {
                let mut forge = Forge::default();
                forge.entry(EntryKind::Whole(kind), declared, b"1234");
                assert!(matches!(forged(&forge), Err(StoreError::Damaged { .. })), "{declared}");
            }
        }
        // Contents that are hashed as they pass.
        for declared in [99_999, 100_001] {
            let mut forge = Forge::default();
            forge.entry(EntryKind::Whole(ObjectKind::Blob), declared, &vec![b'x'; 100_000]);
            assert!(matches!(forged(&forge), Err(StoreError::Damaged { .. })), "{declared}");
        }
    }

    #[test]
    fn large_contents_pass_without_being_held() {
        let mut forge = Forge::default();
        let large = vec![b'x'; 1 << 20];
        let mut tree = Vec::new();
        write_entry(&mut tree, 0o100_644, b"a", &forge.whole(ObjectKind::Blob, &large));
        let tree = forge.whole(ObjectKind::Tree, &tree);
        let tip = forge.commit(tree, &[]);
        let repo = Repo::new();
        assert_eq!(try_in(&repo, forge.header(), &signed(forge.pack())).expect("admitted").commits, [tip]);
        repo.set("refs/heads/main", tip);
        repo.fsck();
    }

    #[test]
    fn packs_that_are_not_whole_are_damage() {
        let mut forge = Forge::default();
        let tree = forge.whole(ObjectKind::Tree, b"");
        forge.commit(tree, &[]);
        let plain = forge.pack();
        let good = signed(plain.clone());
        let refused = |pack: &[u8]| {
            let error = try_in(&Repo::new(), forge.header(), pack).expect_err("refused");
            assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Hostile { .. }), "{error}");
        };
        try_in(&Repo::new(), forge.header(), &good).expect("admitted");
        for len in 0..good.len() {
            refused(&good[..len]);
        }
        refused(&[&good[..], b"x"].concat());
        let counted = |count: u32| signed([&pack_header(count)[..], &plain[12..]].concat());
        refused(&counted(1));
        refused(&counted(3));
        refused(&[&plain[..], &[0; 20]].concat());
        let too_many = try_in(&Repo::new(), forge.header(), &counted(1001)).expect_err("refused");
        assert!(matches!(too_many, StoreError::TooLarge { .. }));
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 0x10;
            assert!(try_in(&Repo::new(), forge.header(), &flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_object_twice_is_damage() {
        let mut forge = Forge::default();
        forge.whole(ObjectKind::Blob, b"x");
        forge.whole(ObjectKind::Blob, b"x");
        assert!(matches!(forged(&forge), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn tags_and_unknown_kinds_are_refused() {
        for code in [0, 4, 5] {
            let mut forge = Forge::default();
            forge.whole(ObjectKind::Blob, b"x");
            forge.entries[0][0] = code << 4 | 1;
            assert!(matches!(forged(&forge), Err(StoreError::Hostile { .. })));
        }
    }

    #[test]
    fn folders_in_folders_without_end_are_refused() {
        let mut forge = Forge::default();
        let mut tree = forge.whole(ObjectKind::Tree, b"");
        for _ in 0..900 {
            let mut content = Vec::new();
            write_entry(&mut content, 0o40_000, b"d", &tree);
            tree = forge.whole(ObjectKind::Tree, &content);
        }
        forge.commit(tree, &[]);
        let limits = Limits { depth: 500, ..small() };
        let repo = Repo::new();
        let result = receive(&repo.packs, forge.header(), &mut &signed(forge.pack())[..], &repo.objects, &limits);
        assert!(matches!(result.err(), Some(StoreError::Hostile { .. })));
    }

    #[test]
    fn a_long_chain_of_deltas_is_read_without_recursion() {
        let mut forge = Forge::default();
        let mut last = forge.offset();
        let mut content = b"0000".to_vec();
        forge.whole(ObjectKind::Blob, &content);
        for n in 1..600u32 {
            let delta = delta::splice(4, 0, 4, format!("{n:04}").as_bytes());
            content = format!("{n:04}").into_bytes();
            let at = forge.offset();
            forge.entry(EntryKind::OffsetDelta(at - last), delta.len() as u64, &delta);
            last = at;
        }
        let mut tree = Vec::new();
        write_entry(&mut tree, 0o100_644, b"a", &object_id(ObjectKind::Blob, &content));
        let tree = forge.whole(ObjectKind::Tree, &tree);
        forge.commit(tree, &[]);
        forged(&forge).expect("admitted");
    }

    #[test]
    fn a_thin_pack_is_completed_and_stays_ordered() {
        let mut from = Repo::new();
        from.burst(&files(0..200, "one"));
        let had = from.head().expect("a head");
        let to = Repo::new();
        for (_, bundle) in from.send(None, BundleOptions::default()) {
            to.receive(&bundle).expect("admitted");
        }
        to.set("refs/heads/main", had);
        from.burst(&files(50..60, "two"));
        let (written, bundle) =
            from.send(Some(had), BundleOptions { thorough: true, ..BundleOptions::default() }).remove(0);
        let admitted = to.receive(&bundle).expect("admitted");
        assert!(admitted.objects > written.objects, "bases were added");
        to.set("refs/heads/main", admitted.tips[0]);
        to.fsck();
        let packs = crate::store::pack::Packs::open(&to.packs).expect("opened");
        assert_eq!(packs.all().iter().map(crate::store::pack::Pack::sequence).collect::<Vec<_>>(), [Some(1), Some(2)]);
        let without = Repo::new();
        assert!(matches!(without.receive(&bundle), Err(StoreError::Prerequisites { .. })));
    }

    #[test]
    fn a_stream_that_breaks_off_is_damage_not_a_fault_of_the_system() {
        let mut from = Repo::new();
        from.burst(&files(0..50, "one"));
        let (_, bundle) = from.send(None, BundleOptions::default()).remove(0);
        let to = Repo::new();
        for len in (0..bundle.len()).step_by(97) {
            assert!(matches!(to.receive(&bundle[..len]), Err(StoreError::Damaged { .. })), "{len}");
        }
        assert_eq!(std::fs::read_dir(&to.packs).expect("readable").count(), 0);
        assert!(Bundle::open(&bundle[..]).is_ok());
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]
        #[test]
        fn any_bytes_behind_a_header_are_survived(mut bytes: Vec<u8>, count in 0u32..5) {
            bytes.splice(0..0, pack_header(count));
            let repo = Repo::new();
            drop(try_in(&repo, Forge::default().header(), &signed(bytes)));
        }
    }
}
