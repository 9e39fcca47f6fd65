//! Bundles: a range of history in one file or stream, as git's own bundles, in a Snappy frame stream (`*.bundle.sz`).
//!
//! # Format
//!
//! Once decompressed, a git bundle of version 2: `# v2 git bundle`, a line `-<commit>` for each prerequisite, a line
//! `<commit> <ref>` for each tip (`refs/heads/main` first, then `refs/foldersync/part/<n>`), an empty line, a pack. The
//! pack may be thin: deltas in it may stand on objects that the prerequisites brought. In a bundle for a person, the
//! chunks of large files have a ref, too: `refs/heads/foldersync/chunks-of-<tip>`.
//!
//! # A series
//!
//! [`BundleWriter`] cuts a range at commit boundaries into bundles of bounded size, each complete by itself for whoever
//! has its prerequisites: the parents of its commits that are not in it, which are in earlier bundles of the series or
//! with the other side already. Within a bundle the entries are in commit order, so that the receiver's pack is an
//! ordered one again (see [`super::pack`]).
//!
//! # Where the objects come from
//!
//! The run of a commit in an ordered pack is copied as it lies. For all other commits (made with git, gathered by
//! `git gc`) the trees are compared with the parents'. Both may be mixed. Orderedness is a promise of whoever wrote the
//! pack; should a receiver ever miss an object, [`BundleOptions::thorough`] compares trees for all.

mod instalments;

use std::collections::{BTreeSet, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use self::instalments::Ahead;
use super::checksum::Checksum;
use super::error::StoreError;
use super::frames::FrameWriter;
use super::large::{self, Content, Recipe};
use super::objects::{ObjectKind, Objects};
use super::pack::delta::{self, first_entry};
use super::pack::entry::{EntryKind, HEADER_LEN, TRAILER_LEN, pack_header, write_header};
use super::pack::ids::IdTable;
use super::pack::reader::{Links, links};
use super::pack::{Deflater, MAX_CHAIN, Packs, max_joined_chain};
use crate::id::{CommitId, ObjectId, TreeId};

/// How a series of bundles is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleOptions {
    /// The bytes of a bundle's pack, about; a single commit may have more.
    pub limit: u64,
    /// Whether to compare trees for all commits, and trust no ordered pack.
    pub thorough: bool,
    /// What a commit with more bytes brings goes ahead of it, in bundles of about so many; none: a bundle that is to
    /// stand for itself has it all.
    pub instalment: Option<u64>,
}

impl Default for BundleOptions {
    fn default() -> Self {
        Self { limit: 16 << 20, thorough: false, instalment: None }
    }
}

/// What a bundle begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleHeader {
    /// What the receiver must have.
    pub prerequisites: Vec<CommitId>,
    /// The commits that it brings and that no other in it follows, each under a ref; the tip is the first.
    pub refs: Vec<(String, CommitId)>,
}

impl BundleHeader {
    /// The commit that it brings.
    pub fn tip(&self) -> CommitId {
        self.refs.first().expect("neither written nor read without a ref").1
    }

    /// How many of its `commits` are revisions: all but the branches of chunks.
    pub fn revisions_among(&self, commits: &[CommitId]) -> u64 {
        let is_chunks = |id| self.refs.iter().any(|(name, tip)| *tip == id && name.starts_with(CHUNKS_REF));
        commits.iter().filter(|id| !is_chunks(**id)).count() as u64
    }
}

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleWritten {
    /// Its header.
    pub header: BundleHeader,
    /// Its commits.
    pub commits: u64,
    /// Its objects.
    pub objects: u64,
    /// The bytes of its pack, before compression.
    pub bytes: u64,
}

/// The ref of a bundle's tip.
pub const TIP_REF: &str = "refs/heads/main";
/// The refs of its other tips, with a number behind.
pub const PART_REF: &str = "refs/foldersync/part/";
/// The ref of the chunks that are in a bundle, with the tip behind.
pub const CHUNKS_REF: &str = "refs/heads/foldersync/chunks-of-";
/// The line that every bundle begins with.
const SIGNATURE: &str = "# v2 git bundle";
/// The most objects of a bundle that has several commits.
const MAX_OBJECTS: usize = 400_000;
/// Objects with more bytes are copied from the pack that they are in, rather than read and deflated again.
const COPY_ABOVE: u64 = 256 << 10;
/// A pack with more objects is not sorted just for a few commits (fewer than `FEW`).
const BIG_PACK: u32 = 50_000;
const FEW: usize = 100;
/// How far back commits of a pack are followed to prove that one is an ancestor of another.
const MAX_STEPS: u32 = 1 << 16;

/// Writes a range of history as a series of bundles.
pub struct BundleWriter<'a> {
    objects: &'a Objects,
    packs: &'a Packs,
    commits: &'a [CommitId],
    range: IdTable,
    next: usize,
    options: BundleOptions,
    lineage: Lineage,
    /// Instalments that the other side has.
    received: HashSet<CommitId>,
    /// What a bundle brings of these gets a branch of its own.
    chunks: HashSet<ObjectId>,
    /// Those of the next commit.
    ahead: Option<Ahead>,
}

/// An object of a bundle.
struct Item {
    id: ObjectId,
    base: Base,
    source: Source,
    chain: u8,
    /// About as many as it has in the pack, at most.
    bytes: u64,
}

#[derive(Clone, Copy)]
enum Base {
    Whole(ObjectKind),
    /// The how-many-th item.
    Item(u32),
    /// An object that the receiver has.
    Had(ObjectId),
}

enum Source {
    /// As it lies in a pack.
    Raw { pack: usize, position: u32 },
    /// To be read and deflated.
    Object,
    /// Made here.
    Made(Vec<u8>),
}

/// A bundle that was cut and is still to be written, with the writer that cut it.
pub struct Cut {
    header: BundleHeader,
    items: Vec<Item>,
    commits: u64,
    /// The bytes of its pack, at most.
    bytes: u64,
}

impl Cut {
    /// What it begins with.
    pub const fn header(&self) -> &BundleHeader {
        &self.header
    }

    /// How many commits it has.
    pub const fn commits(&self) -> u64 {
        self.commits
    }
}

/// The part of a range that goes into one bundle.
#[derive(Default)]
struct Slice {
    items: Vec<Item>,
    table: IdTable,
    /// What deltas of it stand on and the receiver has. None of it goes into the same bundle when a later commit comes
    /// back to it: as a delta it could stand on the very object that stands on it, and git gives up on such a circle.
    had: HashSet<ObjectId>,
    bytes: u64,
}

impl Slice {
    /// Whether the receiver needs no (other) entry for an object.
    fn settled(&self, id: &ObjectId) -> bool {
        self.find(id).is_some() || self.had.contains(id)
    }

    fn find(&self, id: &ObjectId) -> Option<u32> {
        self.table.get(id, |at| self.items[at as usize].id)
    }

    fn push(&mut self, item: Item) {
        let at = u32::try_from(self.items.len()).expect("a bundle has fewer objects");
        self.table.insert(&item.id, at, |at| self.items[at as usize].id);
        if let Base::Had(base) = item.base {
            self.had.insert(base);
        }
        self.bytes += item.bytes;
        self.items.push(item);
    }

    fn chain(&self, base: Base) -> u8 {
        match base {
            Base::Whole(_) => 0,
            Base::Item(at) => self.items[at as usize].chain.saturating_add(1),
            Base::Had(_) => 1,
        }
    }
}

/// Successive commits of one pack, each a parent of the next.
#[derive(Default)]
struct Lineage {
    pack: usize,
    /// Positions of the first and the last commit; none if `last` is 0.
    first: u32,
    last: u32,
    steps: u32,
}

impl<'a> BundleWriter<'a> {
    /// A series of bundles with these commits, each behind its parents; they are all that the tip, the last of them,
    /// has and the other side lacks: the other side has every ancestor of theirs that is not among them.
    pub fn new(objects: &'a Objects, packs: &'a Packs, commits: &'a [CommitId], options: BundleOptions) -> Self {
        let mut range = IdTable::default();
        for (at, commit) in (0u32..).zip(commits) {
            range.insert(&(*commit).into(), at, |at| commits[at as usize].into());
        }
        let (lineage, received, chunks) = (Lineage::default(), HashSet::new(), HashSet::new());
        Self { objects, packs, commits, range, next: 0, options, lineage, received, chunks, ahead: None }
    }

    /// The other side has these commits, among which there may be instalments of a series that was cut off.
    #[must_use]
    pub fn with_received(mut self, commits: &[CommitId]) -> Self {
        self.received.extend(commits);
        self
    }

    /// These are the chunks of large files, which no tree names: a branch in the bundle has those that it brings, so
    /// that whoever fetches from it with plain git keeps them. It is named after the tip.
    #[must_use]
    pub fn with_chunks(mut self, chunks: HashSet<ObjectId>) -> Self {
        self.chunks = chunks;
        self
    }

    /// How many commits are still to be cut.
    fn remaining(&self) -> usize {
        self.commits.len() - self.next
    }

    /// Writes the next bundle to `out`; `None` when all are written. After an error the series is to be dropped.
    pub fn write_next(&mut self, out: &mut dyn Write) -> Result<Option<BundleWritten>, StoreError> {
        self.cut()?.map(|cut| self.write(cut, out)).transpose()
    }

    /// Cuts the next bundle: sees what goes into it. `None` when there are no more.
    pub fn cut(&mut self) -> Result<Option<Cut>, StoreError> {
        let from = self.next;
        if from == self.commits.len() {
            return Ok(None);
        }
        if let Some(next) = self.ahead.as_mut().and_then(Ahead::next) {
            return Ok(Some(next));
        }
        let mut slice = Slice::default();
        let mut followed = Vec::new();
        let mut prerequisites: Vec<CommitId> = Vec::new();
        let (mut objects, mut bytes) = (0, 0);
        // What its instalments brought, a commit's own bundle lacks. It has no other commit: it makes no ordered pack.
        let is_paid = self.ahead.take().map(Ahead::sent).map(|(last, brought)| {
            prerequisites.push(last);
            slice.had = brought;
        });
        while let Some(&commit) = self.commits.get(self.next) {
            let links = self.gather(commit, &mut slice)?;
            let single = self.next == from;
            if let (true, None, Some(most)) = (single, is_paid, self.options.instalment)
                && slice.bytes > most
            {
                self.ahead = Ahead::of(commit, &links.parents, slice.items, most, &self.received);
                if self.ahead.is_some() {
                    return self.cut();
                }
                slice = Slice::default();
                self.gather(commit, &mut slice)?;
            }
            if !single && (slice.bytes > self.options.limit || slice.items.len() > MAX_OBJECTS) {
                break;
            }
            followed.push(false);
            for parent in links.parents {
                let at = self.range.get(&parent.into(), |at| self.commits[at as usize].into());
                match at.map(|at| at as usize) {
                    Some(at) if at >= self.next => {
                        return Err(StoreError::damaged(format!("commit {commit}"), "it comes before its parent"));
                    }
                    Some(at) if at >= from => followed[at - from] = true,
                    _ if prerequisites.contains(&parent) => {}
                    _ => prerequisites.push(parent),
                }
            }
            self.next += 1;
            (objects, bytes) = (slice.items.len(), slice.bytes);
            if is_paid.is_some() {
                break;
            }
        }
        slice.items.truncate(objects);
        let tips = (from..self.next).rev().filter(|at| !followed[at - from]).map(|at| self.commits[at]);
        let name = |n| if n == 0 { TIP_REF.to_owned() } else { format!("{PART_REF}{n}") };
        let refs = tips.enumerate().map(|(n, tip)| (name(n), tip)).collect();
        let header = BundleHeader { prerequisites, refs };
        let commits = (self.next - from) as u64;
        let mut cut = Cut { header, items: slice.items, commits, bytes: bytes + HEADER_LEN + TRAILER_LEN };
        self.add_chunks(&mut cut);
        Ok(Some(cut))
    }

    /// Adds the branch of the chunks that are in a bundle.
    fn add_chunks(&self, cut: &mut Cut) {
        let brought: BTreeSet<_> = cut.items.iter().map(|item| item.id).filter(|id| self.chunks.contains(id)).collect();
        if brought.is_empty() {
            return;
        }
        for (id, kind, content) in large::branch_of(&brought) {
            let bytes = 40 + content.len() as u64 + content.len() as u64 / 4096;
            cut.bytes += bytes;
            cut.items.push(Item { id, base: Base::Whole(kind), source: Source::Made(content), chain: 0, bytes });
        }
        let commit = cut.items.last().expect("a commit was added").id.as_commit();
        cut.header.refs.push((format!("{CHUNKS_REF}{}", cut.header.tip()), commit));
    }

    /// Adds what a commit brings to the slice.
    fn gather(&mut self, commit: CommitId, slice: &mut Slice) -> Result<Links, StoreError> {
        if !self.options.thorough
            && let Some((at, _)) = self.packs.find(&commit.into())
        {
            let pack = &self.packs.all()[at];
            let cheap = pack.is_sorted() || pack.objects() <= BIG_PACK || self.remaining() >= FEW;
            if pack.sequence().is_some()
                && cheap
                && let Some(position) = pack.position(&commit.into())
            {
                return self.copy_run(at, position, slice);
            }
        }
        self.compare(commit, slice)
    }

    /// Adds the run of the commit at `commit` of an ordered pack.
    fn copy_run(&mut self, at: usize, commit: u32, slice: &mut Slice) -> Result<Links, StoreError> {
        let pack = &self.packs.all()[at];
        let links = pack.links(commit)?;
        let run = pack.run(commit)?;
        let parent = run.start.checked_sub(1);
        let follows = parent.is_some_and(|parent| {
            self.lineage.pack == at
                && self.lineage.last == parent
                && links.parents.contains(&pack.id(parent).as_commit())
        });
        self.lineage = match &self.lineage {
            Lineage { first, steps, .. } if follows => Lineage { pack: at, first: *first, last: commit, steps: *steps },
            _ => Lineage { pack: at, first: commit, last: commit, steps: 0 },
        };
        for position in run {
            let entry = pack.entry(position)?;
            if slice.settled(&entry.id) {
                continue;
            }
            let base = match (entry.header.kind, pack.base(&entry)?) {
                (EntryKind::Whole(kind), _) => Some(Base::Whole(kind)),
                (_, None) => None,
                (_, Some(base)) => {
                    let id = pack.id(base);
                    match slice.find(&id) {
                        Some(item) => Some(Base::Item(item)),
                        // Behind the commit stand bases that ancestors brought; before it, it has to be proven.
                        None if base > commit || self.is_of_ancestor(base)? => Some(Base::Had(id)),
                        None => None,
                    }
                }
            };
            // From several packs, each with a short chain on the last of the one before, one that is too long may come.
            let chain = base.map_or(0, |base| slice.chain(base));
            let short = chain <= MAX_CHAIN || chain <= max_joined_chain(pack.kind(position)?);
            match base.filter(|_| short) {
                Some(base) => {
                    let reference = if matches!(base, Base::Whole(_)) { 0 } else { 20 };
                    let (source, bytes) = (Source::Raw { pack: at, position }, 10 + reference + entry.deflated_len());
                    slice.push(Item { id: entry.id, base, source, chain, bytes });
                }
                None => self.whole(entry.id, slice)?,
            }
        }
        Ok(links)
    }

    /// Whether what stands at `base`, in the pack and before the last commit of the lineage, was brought by that commit
    /// or one of its ancestors.
    fn is_of_ancestor(&mut self, base: u32) -> Result<bool, StoreError> {
        let pack = &self.packs.all()[self.lineage.pack];
        loop {
            let Some(before) = pack.commit_before(self.lineage.first)? else { return Ok(true) };
            if base > before {
                return Ok(true);
            }
            let parents = pack.links(self.lineage.first)?.parents;
            if self.lineage.steps == MAX_STEPS || !parents.contains(&pack.id(before).as_commit()) {
                return Ok(false);
            }
            self.lineage.first = before;
            self.lineage.steps += 1;
        }
    }

    /// Adds an object whole.
    fn whole(&self, id: ObjectId, slice: &mut Slice) -> Result<(), StoreError> {
        if slice.settled(&id) {
            return Ok(());
        }
        let (kind, size) = self.objects.header(&id)?.ok_or(StoreError::Missing { id })?;
        if size > COPY_ABOVE
            && let Some((at, _)) = self.packs.find(&id)
            && let Some(position) = self.packs.all()[at].position(&id)
        {
            let entry = self.packs.all()[at].entry(position)?;
            if entry.header.kind == EntryKind::Whole(kind) {
                let source = Source::Raw { pack: at, position };
                let bytes = 10 + entry.deflated_len();
                slice.push(Item { id, base: Base::Whole(kind), source, chain: 0, bytes });
                return Ok(());
            }
        }
        let bytes = 32 + size + size / 4096;
        slice.push(Item { id, base: Base::Whole(kind), source: Source::Object, chain: 0, bytes });
        Ok(())
    }

    /// Adds a blob that takes the place of the `olds` of its path: as a pack has it, if it is a delta against the first
    /// there; or whole. Of a large file, the chunks are added as well that those have not.
    fn content(&self, id: ObjectId, olds: &[TreeId], slice: &mut Slice) -> Result<(), StoreError> {
        if slice.settled(&id) {
            return Ok(());
        }
        self.chunks(id, olds, slice)?;
        if let Some(old) = olds.first().map(|&old| ObjectId::from(old))
            && let Some((at, _)) = self.packs.find(&id)
            && let Some(pack) = self.packs.all().get(at).filter(|pack| pack.is_sorted() || pack.objects() <= BIG_PACK)
            && let Some(position) = pack.position(&id)
        {
            let entry = pack.entry(position)?;
            let base = slice.find(&old).map_or(Base::Had(old), Base::Item);
            let chain = slice.chain(base);
            if pack.base(&entry)?.is_some_and(|base| pack.id(base) == old) && chain <= MAX_CHAIN {
                let bytes = 30 + entry.deflated_len();
                slice.push(Item { id, base, source: Source::Raw { pack: at, position }, chain, bytes });
                return Ok(());
            }
        }
        self.whole(id, slice)
    }

    /// Adds the chunks of a large file that it does not share with the `olds` of its path.
    fn chunks(&self, id: ObjectId, olds: &[TreeId], slice: &mut Slice) -> Result<(), StoreError> {
        let recipe = |id: &ObjectId| match large::content(self.objects, id) {
            Ok(Content::Chunks(recipe)) => Ok(Some(recipe)),
            // What only looks like a recipe has no chunks, nor has the target of a link.
            Ok(Content::Whole(_)) | Err(StoreError::Hostile { .. } | StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let Some(new) = recipe(&id)? else { return Ok(()) };
        let mut shared = HashSet::new();
        for old in olds {
            let old = ObjectId::from(*old);
            if matches!(self.objects.header(&old)?, Some((ObjectKind::Blob, _))) {
                shared.extend(recipe(&old)?.iter().flat_map(Recipe::chunks).map(|chunk| chunk.id));
            }
        }
        for chunk in new.chunks().iter().filter(|chunk| !shared.contains(&chunk.id)) {
            self.whole(chunk.id, slice)?;
        }
        Ok(())
    }

    /// Adds what a commit's trees have and its parents' have not.
    fn compare(&mut self, commit: CommitId, slice: &mut Slice) -> Result<Links, StoreError> {
        let mut content = Vec::new();
        self.objects.read(ObjectKind::Commit, &commit.into(), &mut content)?;
        let damaged = || StoreError::damaged(format!("commit {commit}"), "it makes no sense");
        let links = links(&content).ok_or_else(damaged)?;
        let mut parents = Vec::new();
        for &parent in &links.parents {
            self.objects.read(ObjectKind::Commit, &parent.into(), &mut content)?;
            parents.push(super::pack::reader::links(&content).ok_or_else(damaged)?.tree);
        }
        if !parents.contains(&links.tree) {
            self.compare_trees(&parents, links.tree, 0, slice)?;
        }
        self.whole(commit.into(), slice)?;
        Ok(links)
    }

    fn compare_trees(&self, olds: &[TreeId], new: TreeId, depth: usize, slice: &mut Slice) -> Result<(), StoreError> {
        if slice.settled(&new.into()) {
            return Ok(());
        }
        let damaged = |detail| StoreError::damaged(format!("tree {new}"), detail);
        if depth > MAX_DEPTH {
            return Err(damaged("folders lie too deep in each other"));
        }
        let mut content = Vec::new();
        self.objects.tree(new, &mut content)?;
        let mut old_contents = Vec::with_capacity(olds.len());
        for &old in olds {
            let mut content = Vec::new();
            self.objects.tree(old, &mut content)?;
            old_contents.push(content);
        }
        let mut cursors: Vec<&[u8]> = old_contents.iter().map(Vec::as_slice).collect();
        let mut rest = &content[..];
        let mut below = Vec::new();
        while !rest.is_empty() {
            let (entry, len) = first_entry(rest).ok_or_else(|| damaged("its entries cannot be read"))?;
            rest = &rest[len..];
            below.clear();
            let mut had = false;
            for cursor in &mut cursors {
                while let Some((old, len)) = first_entry(cursor) {
                    let order = super::tree::name_order(old.name, old.is_tree(), entry.name, entry.is_tree());
                    if order.is_gt() {
                        break;
                    }
                    *cursor = &cursor[len..];
                    if order.is_eq() {
                        had |= old.id == entry.id;
                        below.push(old.id.as_tree());
                        break;
                    }
                }
            }
            if had || entry.mode == SUBMODULE {
                continue;
            }
            if entry.is_tree() {
                self.compare_trees(&below, entry.id.as_tree(), depth + 1, slice)?;
            } else {
                self.content(entry.id, &below, slice)?;
            }
        }
        let id = ObjectId::from(new);
        if let (Some(&old), Some(old_content)) = (olds.first(), old_contents.first())
            && old != TreeId::EMPTY
        {
            let base = slice.find(&old.into()).map_or(Base::Had(old.into()), Base::Item);
            let chain = slice.chain(base);
            let delta = delta::trees(old_content, &content);
            if chain <= MAX_CHAIN && delta.len() + 24 < content.len() {
                let bytes = 40 + delta.len() as u64;
                slice.push(Item { id, base, source: Source::Made(delta), chain, bytes });
                return Ok(());
            }
        }
        let bytes = 40 + content.len() as u64 + content.len() as u64 / 4096;
        slice.push(Item { id, base: Base::Whole(ObjectKind::Tree), source: Source::Made(content), chain: 0, bytes });
        Ok(())
    }

    /// Writes a bundle that was cut.
    pub fn write(&self, cut: Cut, out: &mut dyn Write) -> Result<BundleWritten, StoreError> {
        let Cut { header, items, commits, bytes } = cut;
        let failed = || StoreError::io("write", Path::new("the bundle"));
        let mut text = format!("{SIGNATURE}\n");
        for prerequisite in &header.prerequisites {
            text.push_str(&format!("-{prerequisite}\n"));
        }
        for (name, tip) in &header.refs {
            text.push_str(&format!("{tip} {name}\n"));
        }
        text.push('\n');
        let mut out = FrameWriter::new(out).map_err(failed())?;
        out.write_all(text.as_bytes()).map_err(failed())?;

        let mut checksum = Checksum::default();
        let mut written = 0;
        let mut put = |bytes: &[u8]| -> Result<u64, StoreError> {
            checksum.update(bytes);
            written += bytes.len() as u64;
            out.write_all(bytes).map_err(failed())?;
            Ok(written)
        };
        let count = u32::try_from(items.len()).expect("a bundle has fewer objects");
        let mut offset = put(&pack_header(count))?;
        let mut offsets = Vec::with_capacity(items.len());
        let mut deflater = Deflater::default();
        let (mut content, mut entry) = (Vec::new(), Vec::new());
        for item in &items {
            let kind = match item.base {
                Base::Whole(kind) => EntryKind::Whole(kind),
                Base::Item(base) => EntryKind::OffsetDelta(offset - offsets[base as usize]),
                Base::Had(base) => EntryKind::IdDelta(base),
            };
            offsets.push(offset);
            entry.clear();
            match &item.source {
                Source::Raw { pack, position } => {
                    let pack = &self.packs.all()[*pack];
                    let raw = pack.entry(*position)?;
                    write_header(&mut entry, kind, raw.header.size);
                    offset = put(&entry)?;
                    pack.deflated(&raw, &mut |piece| {
                        offset = put(piece)?;
                        Ok(())
                    })?;
                    if bytes > large::PASSING {
                        pack.let_go(&raw);
                    }
                    continue;
                }
                Source::Object => {
                    let Base::Whole(kind) = item.base else { return Err(StoreError::Missing { id: item.id }) };
                    self.objects.read(kind, &item.id, &mut content)?;
                    write_header(&mut entry, EntryKind::Whole(kind), content.len() as u64);
                    if kind == ObjectKind::Blob {
                        deflater.deflate(&content, &mut entry);
                    } else {
                        super::pack::blob::store(&content, &mut entry);
                    }
                }
                Source::Made(content) => {
                    write_header(&mut entry, kind, content.len() as u64);
                    super::pack::blob::store(content, &mut entry);
                }
            }
            offset = put(&entry)?;
        }
        checksum.finish().and_then(|sum| out.write_all(&sum)).map_err(failed())?;
        out.finish().map_err(failed())?;
        let written = written + TRAILER_LEN;
        debug_assert!(written <= bytes, "sizes are not underrated");
        Ok(BundleWritten { header, commits, objects: items.len() as u64, bytes: written })
    }
}

/// How deep folders may lie in each other.
const MAX_DEPTH: usize = 2048;
/// The mode of a submodule: a commit of another repository, which nobody sends.
const SUBMODULE: u32 = 0o160_000;

/// The longest line of a header, and the most lines.
const MAX_LINE: u64 = 4096;
const MAX_LINES: usize = 100_000;

/// A bundle that is being read: its header, and its pack still to come.
pub struct Bundle<'a> {
    header: BundleHeader,
    pack: Box<dyn BufRead + Send + 'a>,
}

impl<'a> Bundle<'a> {
    /// Reads the header of a bundle, in a Snappy frame stream or bare as git writes it.
    pub fn open(from: impl Read + Send + 'a) -> Result<Self, StoreError> {
        let mut from = BufReader::new(from);
        let first = from.fill_buf().map_err(unreadable)?.first().copied();
        let mut from: Box<dyn BufRead + Send + 'a> = match first {
            Some(0xff) => Box::new(BufReader::with_capacity(64 << 10, snap::read::FrameDecoder::new(from))),
            _ => Box::new(from),
        };
        let damaged = |detail: &str| StoreError::damaged("the bundle", detail);
        let mut line = Vec::new();
        let mut next = || -> Result<String, StoreError> {
            line.clear();
            (&mut from).take(MAX_LINE).read_until(b'\n', &mut line).map_err(unreadable)?;
            let Some((b'\n', text)) = line.split_last() else { return Err(damaged("its header is cut off")) };
            Ok(std::str::from_utf8(text).map_err(|_| damaged("its header is not text"))?.to_owned())
        };
        match next() {
            Ok(first) if first == SIGNATURE => {}
            Ok(_) | Err(StoreError::Damaged { .. }) => return Err(damaged("it does not begin as a git bundle does")),
            Err(error) => return Err(error),
        }
        let mut header = BundleHeader { prerequisites: Vec::new(), refs: Vec::new() };
        loop {
            let line = next()?;
            if line.is_empty() {
                break;
            }
            if header.prerequisites.len() + header.refs.len() == MAX_LINES {
                return Err(StoreError::TooLarge { what: "the bundle's header".to_owned(), limit: MAX_LINES as u64 });
            }
            let prerequisite = line.strip_prefix('-');
            let (id, name) =
                prerequisite.unwrap_or(&line).split_once(' ').unwrap_or((prerequisite.unwrap_or(&line), ""));
            let id: CommitId = id.parse().map_err(|_| damaged("its header names no commit where it should"))?;
            match prerequisite {
                Some(_) => header.prerequisites.push(id),
                None if name.is_empty() => return Err(damaged("its header has a tip without a name")),
                None => header.refs.push((name.to_owned(), id)),
            }
        }
        if header.refs.is_empty() {
            return Err(damaged("it brings no tip"));
        }
        Ok(Self { header, pack: from })
    }

    /// The header.
    pub const fn header(&self) -> &BundleHeader {
        &self.header
    }

    /// The header, and the pack to be read (see [`super::quarantine`]).
    pub fn into_parts(self) -> (BundleHeader, Box<dyn BufRead + Send + 'a>) {
        (self.header, self.pack)
    }
}

/// A stream that ends early or is no Snappy stream is damaged; anything else is the system's fault.
pub(crate) fn unreadable(error: io::Error) -> StoreError {
    let is_snappy = error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<snap::Error>);
    match error.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::damaged("the bundle", "it is cut off"),
        io::ErrorKind::InvalidData => StoreError::damaged("the bundle", error),
        _ if is_snappy => StoreError::damaged("the bundle", error),
        _ => StoreError::io("read", Path::new("the bundle"))(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::change::Edit;
    use crate::entry::{Entry, Kind};
    use crate::monitor::Silent;
    use crate::path::SyncPath;
    use crate::store::burst::{Burst, NewCommit};
    use crate::store::consolidate::{gather_loose, gather_packs};
    use crate::store::pack::Packer;
    use crate::store::pack::testing::{git, repository};
    use crate::store::quarantine::{self, Limits};
    use crate::store::{Signature, StoreError, object_id};
    use proptest::prelude::*;
    use std::path::PathBuf;
    use tempfile::TempDir;

    /// A bare repository that bundles are made in and received into.
    pub(crate) struct Repo {
        folder: TempDir,
        pub(crate) packs: PathBuf,
        pub(crate) objects: Objects,
        clock: i64,
    }

    impl Repo {
        pub(crate) fn new() -> Self {
            let (folder, packs) = repository();
            let objects = Objects::open(&folder.path().join("objects")).expect("opened");
            Self { folder, packs, objects, clock: 1_700_000_000 }
        }

        pub(crate) fn git(&self, args: &[&str]) -> String {
            git(self.folder.path(), args).trim_end().to_owned()
        }

        pub(crate) fn head(&self) -> Option<CommitId> {
            self.git(&["for-each-ref", "--format=%(objectname)", "refs/heads/main"]).parse().ok()
        }

        pub(crate) fn set(&self, name: &str, head: CommitId) {
            self.git(&["update-ref", name, &head.to_string()]);
        }

        /// One commit for each path and content (or none: the path goes).
        pub(crate) fn burst(&mut self, edits: &[(String, Option<Vec<u8>>)]) {
            let head = self.head();
            let tree = head.map_or(TreeId::EMPTY, |head| self.objects.commit(head).expect("there").tree);
            let mut burst = Burst::begin(self.objects.clone(), &self.packs, tree, head).expect("begun");
            let mut packer = Packer::new(Some(self.objects.clone()));
            for (path, content) in edits {
                self.clock += 1;
                let path_there = SyncPath::new(path.as_str()).expect("valid");
                let there = crate::store::tree::lookup_many(&self.objects, tree, &[&path_there]).expect("read");
                let previous = there[0].leaf().filter(|there| there.kind != Kind::EmptyFolder).map(|there| there.id);
                let blob = content
                    .as_ref()
                    .map(|content| packer.pack(object_id(ObjectKind::Blob, content), content, previous));
                let entry = blob.as_ref().map(|blob| Entry { kind: Kind::File, id: blob.id() });
                let who = Signature { name: "laptop".into(), email: "ab@foldersync".into(), time: self.clock };
                let edit = Edit { path: SyncPath::new(path.as_str()).expect("valid"), entry };
                let message = format!("edit {path}\n").into_bytes();
                burst.push(NewCommit { edit, blob, author: who.clone(), committer: who, message }).expect("pushed");
            }
            if let Some(done) = burst.finish().expect("finished") {
                self.set("refs/heads/main", done.head);
            }
        }

        /// A commit made with git, of several files, on top of `parents`; answers with it.
        fn commit_with_git(&mut self, files: &[(String, Option<Vec<u8>>)], parents: &[CommitId]) -> CommitId {
            self.clock += 1;
            let mut stream =
                format!("commit refs/made\ncommitter A <a@b> {} +0000\ndata 2\nx\n", self.clock).into_bytes();
            for (at, parent) in parents.iter().enumerate() {
                stream.extend(format!("{} {parent}\n", if at == 0 { "from" } else { "merge" }).bytes());
            }
            for (path, content) in files {
                if let Some(content) = content {
                    stream.extend(format!("M 100644 inline {path}\ndata {}\n", content.len()).bytes());
                    stream.extend(content);
                    stream.push(b'\n');
                } else {
                    stream.extend(format!("D {path}\n").bytes());
                }
            }
            let path = self.folder.path().join("stream");
            std::fs::write(&path, stream).expect("written");
            let script =
                "git fast-import --quiet --force < stream && git rev-parse refs/made && git update-ref -d refs/made";
            let output = std::process::Command::new("sh").args(["-c", script]).current_dir(self.folder.path()).output();
            let output = output.expect("git runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().parse().expect("a commit")
        }

        /// The series that brings main to somebody who has `have`.
        pub(crate) fn send(&self, have: Option<CommitId>, options: BundleOptions) -> Vec<(BundleWritten, Vec<u8>)> {
            self.send_after(have.as_slice(), &[], options)
        }

        /// The same for somebody who has `have`, and has said so of `received`.
        fn send_after(
            &self,
            have: &[CommitId],
            received: &[CommitId],
            options: BundleOptions,
        ) -> Vec<(BundleWritten, Vec<u8>)> {
            let mut args =
                vec!["rev-list".to_owned(), "--topo-order".to_owned(), "--reverse".to_owned(), "main".to_owned()];
            args.extend(have.iter().map(|have| format!("^{have}")));
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let commits: Vec<CommitId> = self.git(&args).lines().map(|line| line.parse().expect("an id")).collect();
            let packs = Packs::open(&self.packs).expect("opened");
            let mut writer = BundleWriter::new(&self.objects, &packs, &commits, options).with_received(received);
            let mut series = Vec::new();
            loop {
                let mut bundle = Vec::new();
                match writer.write_next(&mut bundle).expect("written") {
                    Some(written) => series.push((written, bundle)),
                    None => return series,
                }
            }
        }

        pub(crate) fn receive(&self, bundle: &[u8]) -> Result<quarantine::Admitted, StoreError> {
            let (header, mut pack) = Bundle::open(bundle)?.into_parts();
            let pack = quarantine::receive(&self.packs, header, &mut pack, &self.objects, &Limits::default())?;
            pack.verify(&self.objects)?.admit(&self.packs)
        }

        fn receive_with_git(&self, bundle: &[u8]) {
            let mut plain = Vec::new();
            snap::read::FrameDecoder::new(bundle).read_to_end(&mut plain).expect("a Snappy stream");
            let path = self.folder.path().join("received.bundle");
            std::fs::write(&path, plain).expect("written");
            self.git(&["bundle", "verify", "received.bundle"]);
            self.git(&[
                "fetch",
                "-q",
                "received.bundle",
                "+refs/heads/main:refs/heads/main",
                "+refs/foldersync/part/*:refs/foldersync/part/*",
            ]);
        }

        pub(crate) fn fsck(&self) {
            assert_eq!(self.git(&["fsck", "--full", "--strict", "--no-dangling"]), "");
        }
    }

    pub(crate) fn files(range: std::ops::Range<u32>, content: &str) -> Vec<(String, Option<Vec<u8>>)> {
        range.map(|n| (format!("folder-{}/file-{n}", n % 7), Some(format!("{content} {n}\n").into_bytes()))).collect()
    }

    /// A text of some hundred bytes, with one line changed.
    pub(crate) fn edited_text(line: u32, how: u32) -> Vec<u8> {
        let text = (0..20u32).flat_map(|n| {
            let word = n.wrapping_mul(0x9e37_79b9) ^ if n == line % 20 { how } else { 0 };
            format!("line {n} of a text says {word:08x}\n").into_bytes()
        });
        text.collect()
    }

    /// The longest chain of deltas of blobs in the packs, and how many blobs are deltas.
    pub(crate) fn blob_chains(repo: &Repo) -> (u32, usize) {
        chains(repo, "blob")
    }

    /// The same for the objects of any kind.
    fn chains(repo: &Repo, kind: &str) -> (u32, usize) {
        let (mut longest, mut deltas) = (0, 0);
        for entry in std::fs::read_dir(&repo.packs).expect("readable") {
            let path = entry.expect("readable").path();
            if path.extension().is_none_or(|ending| ending != "idx") {
                continue;
            }
            for line in repo.git(&["verify-pack", "-v", &path.to_string_lossy()]).lines() {
                let words: Vec<_> = line.split_whitespace().collect();
                if let [there, _, _, _, depth, _] = words.get(1..).unwrap_or_default()
                    && *there == kind
                {
                    longest = longest.max(depth.parse().expect("a number"));
                    deltas += 1;
                }
            }
        }
        (longest, deltas)
    }

    /// A file of so many words; `salt` tells them apart.
    fn words(count: usize, salt: usize) -> Vec<u8> {
        let mut state = (salt as u64).wrapping_mul(2).wrapping_add(1);
        let mut text = String::new();
        for _ in 0..count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(&format!("{:x} ", (state >> 40) % 4000 * 977));
        }
        text.into_bytes()
    }

    /// Edits, one commit each, of random places in the files of a tree; answers with the bytes of our bundle of them
    /// and git's, both for somebody who has the tree.
    fn bundles_of_edits(files: usize, edits: usize, per_burst: usize) -> (u64, u64) {
        let mut from = Repo::new();
        let mut tree: Vec<(String, Vec<u8>)> = (0..files)
            .map(|n| (format!("folder-{}/{}/file-{n}", n % 37, n / 20), words(100 + n * 7919 % 1200, n)))
            .collect();
        from.burst(&tree.iter().map(|(path, content)| (path.clone(), Some(content.clone()))).collect::<Vec<_>>());
        let had = from.head();
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        let mut done = 0;
        while done < edits {
            let mut burst = std::collections::BTreeMap::new();
            while burst.len() < per_burst.min(edits - done) {
                let (path, content) = &mut tree[next(files)];
                if burst.contains_key(path) {
                    continue;
                }
                let at = next(content.len());
                let removed = next(12).min(content.len() - at);
                content.splice(at..at + removed, format!("{:x}", next(1 << 30)).into_bytes());
                burst.insert(path.clone(), Some(content.clone()));
            }
            done += burst.len();
            from.burst(&burst.into_iter().collect::<Vec<_>>());
            gather_packs(&from.objects, &from.packs, &|small| small.len() >= 24, &Silent).expect("gathered");
        }
        from.fsck();
        let series = from.send(had, options(u64::MAX, false));
        assert_eq!(series.iter().map(|(written, _)| written.commits).sum::<u64>(), edits as u64);
        let range = format!("{}..main", had.expect("a head"));
        from.git(&["bundle", "create", "-q", "git.bundle", &range]);
        let gits = std::fs::metadata(from.folder.path().join("git.bundle")).expect("made").len();
        assert!(blob_chains(&from).0 <= u32::from(MAX_CHAIN));
        let to = Repo::new();
        for (_, bundle) in from.send(None, options(1 << 20, false)) {
            to.receive(&bundle).expect("admitted");
        }
        to.set("refs/heads/main", from.head().expect("a head"));
        to.fsck();
        assert!(blob_chains(&to).0 <= u32::from(MAX_CHAIN));
        (series.iter().map(|(_, bundle)| bundle.len() as u64).sum(), gits)
    }

    #[test]
    fn the_bundle_of_edits_is_no_larger_than_gits() {
        let (ours, gits) = bundles_of_edits(200, 1000, 40);
        assert!(ours <= gits, "{ours} against {gits}");
    }

    #[test]
    #[ignore = "the figure, of 20,000 edits: takes a minute"]
    #[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "it is there to tell the figures")]
    fn figures_of_bundles_of_edits() {
        for (files, per_burst) in [(20_000, 20_000), (2000, 500), (2000, 20), (20_000, 200)] {
            let (ours, gits) = bundles_of_edits(files, 20_000, per_burst);
            println!(
                "{files} files, 20000 edits, {per_burst} a capture: {ours} bytes, git {gits}: {:.3}",
                ours as f64 / gits as f64
            );
        }
    }

    #[test]
    fn live_changes_of_one_file_are_small_bundles_and_short_chains() {
        let mut from = Repo::new();
        let (to, third) = (Repo::new(), Repo::new());
        for n in 0..120 {
            let had = from.head();
            from.burst(&[("file".to_owned(), Some([words(3000, 1), words(3, n)].concat()))]);
            let series = from.send(had, BundleOptions::default());
            assert!(n == 0 || series[0].1.len() < 700, "{} bytes", series[0].1.len());
            for (_, bundle) in series {
                to.set("refs/heads/main", to.receive(&bundle).expect("admitted").tips[0]);
            }
            if n % 50 == 30 {
                gather_packs(&from.objects, &from.packs, &|_| true, &Silent).expect("gathered");
            }
        }
        // All at once, out of many packs.
        for (_, bundle) in to.send(None, BundleOptions::default()) {
            assert!(bundle.len() < 120 * 600, "{} bytes", bundle.len());
            third.set("refs/heads/main", third.receive(&bundle).expect("admitted").tips[0]);
        }
        let copies: u64 =
            Packs::open(&to.packs).expect("opened").all().iter().map(super::super::pack::Pack::bytes).sum();
        gather_packs(&to.objects, &to.packs, &|_| true, &Silent).expect("gathered");
        let gathered =
            Packs::open(&to.packs).expect("opened").all().iter().map(super::super::pack::Pack::bytes).sum::<u64>();
        assert!(gathered * 5 < copies, "{gathered} of {copies}");
        for repo in [&from, &to, &third] {
            repo.fsck();
            let (longest, deltas) = blob_chains(repo);
            assert!(longest <= u32::from(MAX_CHAIN) && deltas >= 110, "{longest}, {deltas}");
        }
    }
    fn options(limit: u64, thorough: bool) -> BundleOptions {
        BundleOptions { limit, thorough, ..BundleOptions::default() }
    }

    #[test]
    fn a_series_brings_git_and_us_to_the_same_head() {
        let mut from = Repo::new();
        from.burst(&files(0..300, "one"));
        from.burst(&files(100..200, "two"));
        for thorough in [false, true] {
            let series = from.send(None, options(20_000, thorough));
            assert!(series.len() > 3);
            assert_eq!(series.iter().map(|(written, _)| written.commits).sum::<u64>(), 400);
            let (with_git, ours) = (Repo::new(), Repo::new());
            for (written, bundle) in &series {
                with_git.receive_with_git(bundle);
                let admitted = ours.receive(bundle).expect("admitted");
                assert_eq!(admitted.tips, [written.header.refs[0].1]);
                assert_eq!(admitted.commits.len() as u64, written.commits);
                ours.set("refs/heads/main", admitted.tips[0]);
                with_git.fsck();
                ours.fsck();
            }
            assert_eq!((with_git.head(), ours.head()), (from.head(), from.head()));
            assert!(Packs::open(&ours.packs).expect("opened").all().iter().all(|pack| pack.sequence().is_some()));
        }
    }

    #[test]
    fn one_change_of_a_large_folder_is_a_small_bundle() {
        let mut from = Repo::new();
        from.burst(&(0..3000).map(|n| (format!("flat/{n:05}"), Some(vec![b'x'; n % 7]))).collect::<Vec<_>>());
        let had = from.head();
        from.burst(&[("flat/01000".to_owned(), Some(b"changed".to_vec()))]);
        let to = Repo::new();
        for (_, bundle) in from.send(None, BundleOptions::default()) {
            to.receive(&bundle).expect("admitted");
        }
        // By comparing trees: the new pack has the folder whole.
        let series = from.send(had, options(1 << 20, true));
        assert!(series.len() == 1 && series[0].1.len() < 1000, "{} bytes", series[0].1.len());
        assert_eq!(to.receive(&series[0].1).expect("admitted").tips[0], from.head().expect("a head"));
        // The last commits of a burst: their trees are deltas already.
        from.burst(&(0..20).map(|n| (format!("flat/{n:05}"), Some(b"again".to_vec()))).collect::<Vec<_>>());
        let had: CommitId = from.git(&["rev-parse", "main~3"]).parse().expect("an id");
        let series = from.send(Some(had), BundleOptions::default());
        assert!(series.len() == 1 && series[0].1.len() < 3000, "{} bytes", series[0].1.len());
    }

    #[test]
    fn the_bundle_of_a_capture_is_no_larger_than_gits() {
        let mut from = Repo::new();
        from.burst(&files(0..2000, "some text that is the same in all of them"));
        let ours = from.send(None, options(1 << 30, false)).remove(0).1.len();
        from.git(&["bundle", "create", "-q", "git.bundle", "main"]);
        let gits = std::fs::metadata(from.folder.path().join("git.bundle")).expect("made").len();
        assert!(ours as u64 <= gits, "{ours} against {gits}");
    }

    #[test]
    fn several_heads_are_all_in_the_header() {
        let mut from = Repo::new();
        from.burst(&files(0..3, "base"));
        let base = from.head().expect("a head");
        let sides: Vec<_> = (0u32..3).map(|n| from.commit_with_git(&files(n..n + 1, "side"), &[base])).collect();
        let merge = from.commit_with_git(&[], &sides);
        from.set("refs/heads/main", merge);
        let packs = Packs::open(&from.packs).expect("opened");
        let commits = [sides.clone(), vec![merge]].concat();
        let mut writer = BundleWriter::new(&from.objects, &packs, &commits, options(1200, false));
        let written = writer.write_next(&mut io::sink()).expect("written").expect("a bundle");
        let count = usize::try_from(written.commits).expect("few");
        assert!(count > 1 && count < 4);
        assert_eq!(written.header.refs.len(), count);
        assert_eq!(written.header.refs[0], (TIP_REF.to_owned(), commits[count - 1]));
        assert_eq!(written.header.refs[1].0, "refs/foldersync/part/1");
        assert_eq!(written.header.prerequisites, [base]);
    }

    #[test]
    fn commits_before_their_parents_are_an_error() {
        let mut from = Repo::new();
        from.burst(&files(0..3, "one"));
        let commits: Vec<CommitId> =
            from.git(&["rev-list", "main"]).lines().map(|line| line.parse().expect("an id")).collect();
        let packs = Packs::open(&from.packs).expect("opened");
        let mut writer = BundleWriter::new(&from.objects, &packs, &commits, BundleOptions::default());
        assert!(matches!(writer.write_next(&mut io::sink()), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn many_versions_of_a_folder_are_short_chains() {
        let mut from = Repo::new();
        from.burst(&(0..40).map(|n| (format!("folder/{n}"), Some(vec![b'x'; n]))).collect::<Vec<_>>());
        let edits = (0..2 * usize::from(MAX_CHAIN)).map(|n| (format!("folder/{}", n % 40), Some(vec![b'y'; n])));
        from.burst(&edits.collect::<Vec<_>>());
        for thorough in [false, true] {
            let to = Repo::new();
            for (_, bundle) in from.send(None, options(1 << 20, thorough)) {
                to.receive(&bundle).expect("admitted");
            }
            let (longest, deltas) = chains(&to, "tree");
            assert!(longest <= u32::from(MAX_CHAIN) && deltas > usize::from(MAX_CHAIN), "{longest}, {deltas}");
        }
    }

    #[test]
    fn folders_too_deep_in_each_other_are_damage() {
        for (depth, expected) in [(MAX_DEPTH - 1, true), (MAX_DEPTH + 2, false)] {
            let mut from = Repo::new();
            let head = from.commit_with_git(&[("d/".repeat(depth) + "file", Some(b"deep".to_vec()))], &[]);
            let packs = Packs::open(&from.packs).expect("opened");
            let commits = [head];
            let mut writer = BundleWriter::new(&from.objects, &packs, &commits, options(1 << 20, true));
            match writer.write_next(&mut io::sink()) {
                Ok(written) => assert!(expected && written.is_some(), "{depth}"),
                Err(error) => assert!(!expected && matches!(error, StoreError::Damaged { .. }), "{depth}: {error}"),
            }
        }
    }

    #[test]
    fn the_branch_of_chunks_is_no_revision() {
        let [inner, tip, part, chunks] = [1, 2, 3, 4].map(|n| CommitId::from_bytes([n; 20]));
        let refs = [(TIP_REF.to_owned(), tip), (format!("{PART_REF}1"), part), (format!("{CHUNKS_REF}{tip}"), chunks)];
        let header = BundleHeader { prerequisites: Vec::new(), refs: refs.to_vec() };
        assert_eq!(header.revisions_among(&[inner, tip, part, chunks]), 3);
        assert_eq!((header.revisions_among(&[inner, tip]), header.revisions_among(&[chunks])), (2, 0));
    }

    #[test]
    fn a_large_delta_against_another_file_goes_whole() {
        let mut from = Repo::new();
        let large = words(90_000, 1);
        assert!(large.len() as u64 > COPY_ABOVE);
        let first = from.commit_with_git(&[("one".to_owned(), Some(large.clone()))], &[]);
        let second = from.commit_with_git(&[("two".to_owned(), Some([&large[..], b"more"].concat()))], &[first]);
        from.set("refs/heads/main", second);
        from.git(&["repack", "-q", "-a", "-d", "-f"]);
        assert_eq!(blob_chains(&from).1, 1, "of two alike");
        let to = Repo::new();
        for (_, bundle) in from.send(None, options(1 << 20, true)) {
            to.receive(&bundle).expect("admitted");
        }
        to.set("refs/heads/main", second);
        to.fsck();
    }

    #[test]
    fn a_delta_against_another_branch_goes_whole_to_whoever_lacks_that_branch() {
        let text = |how| {
            let same = (how > 1).then(|| ("same".to_owned(), Some(b"in all branches".to_vec())));
            [("a/text".to_owned(), Some(edited_text(how, how)))].into_iter().chain(same).collect::<Vec<_>>()
        };
        let mut from = Repo::new();
        from.burst(&text(1));
        let base = from.head().expect("a head");
        let sides = [2, 3, 4].map(|how| from.commit_with_git(&text(how), &[base]));
        let merge = from.commit_with_git(&[], &sides);
        from.set("refs/heads/main", merge);
        // Git looks for what is alike in all there is.
        from.git(&["repack", "-q", "-a", "-d", "-f"]);
        assert_eq!(blob_chains(&from).1, 3, "of four texts");
        for (side, thorough) in sides.into_iter().flat_map(|side| [(side, false), (side, true)]) {
            let to = Repo::new();
            for (have, head) in [(None, base), (Some(base), side)] {
                from.set("refs/heads/main", head);
                for (_, bundle) in from.send(have, options(1 << 20, thorough)) {
                    to.receive(&bundle).expect("admitted");
                }
                to.set("refs/heads/main", head);
                to.fsck();
            }
        }
    }

    #[test]
    fn reads_what_git_wrote() {
        let mut from = Repo::new();
        from.burst(&files(0..50, "one"));
        let head = from.head().expect("a head");
        let head = from.commit_with_git(&files(20..30, "two"), &[head]);
        from.set("refs/heads/main", head);
        from.git(&["bundle", "create", "-q", "git.bundle", "main"]);
        let to = Repo::new();
        let admitted =
            to.receive(&std::fs::read(from.folder.path().join("git.bundle")).expect("read")).expect("admitted");
        assert_eq!((admitted.tips, admitted.commits.len()), (vec![head], 51));
        to.set("refs/heads/main", head);
        to.fsck();
    }

    /// Made by the first version of foldersync, never to be made again: what was written once is read for ever.
    const FROZEN: &[u8] = include_bytes!("../../../fixtures/bundles/v1.bundle.sz");

    #[test]
    fn reads_a_bundle_of_the_first_version() {
        let (with_git, ours) = (Repo::new(), Repo::new());
        with_git.receive_with_git(FROZEN);
        let admitted = ours.receive(FROZEN).expect("admitted");
        assert_eq!(admitted.tips[0].to_string(), "1bf58f13d02ec443f117a40f91840a4980adefe0");
        assert_eq!(with_git.head(), Some(admitted.tips[0]));
        ours.set("refs/heads/main", admitted.tips[0]);
        ours.fsck();
        assert_eq!(ours.git(&["show", "main:folder-1/file-8"]), "frozen 8");
    }

    #[test]
    fn headers_that_are_none_are_damage() {
        let open = |bytes: &[u8]| Bundle::open(bytes).map(|bundle| bundle.header().clone());
        let id = "1".repeat(40);
        let good = format!("# v2 git bundle\n-{id} why\n{id} refs/heads/main\n\nPACK");
        assert_eq!(open(good.as_bytes()).expect("a header").refs[0].0, "refs/heads/main");
        let long = format!("# v2 git bundle\n{id} {}", "x".repeat(100_000));
        let other_version = format!("# v4 git bundle\n{id} refs/heads/main\n\nPACK");
        let nameless = format!("# v2 git bundle\n{id}\n\nPACK");
        for bad in ["", "\n", "PACK", "# v2 git bundle\n", "# v2 git bundle\n\nPACK", "# v2 git bundle\n-xyz\n"]
            .into_iter()
            .chain([&*long, &*other_version, &*nameless])
        {
            assert!(matches!(open(bad.as_bytes()), Err(StoreError::Damaged { .. })), "{bad}");
        }
        assert!(matches!(open(b"\xff\x06\x00\x00sNaPpYgarbage"), Err(StoreError::Damaged { .. })));
        let endless = format!("# v2 git bundle\n{}", format!("-{id}\n").repeat(MAX_LINES + 1));
        assert!(matches!(open(endless.as_bytes()), Err(StoreError::TooLarge { .. })));
    }

    /// A stream that fails after its first bytes.
    struct Failing<'a>(&'a [u8]);

    impl Read for Failing<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::Error::other("the disk fails"));
            }
            self.0.read(into)
        }
    }

    #[test]
    fn a_disk_that_fails_is_no_damage_of_the_bundle() {
        for begun in [&b""[..], b"# v2 git", b"\xff\x06\x00\x00sNaPpY"] {
            assert!(matches!(Bundle::open(Failing(begun)), Err(StoreError::Io { .. })), "{begun:?}");
        }
    }

    #[test]
    fn tells_how_many_bytes_its_pack_has() {
        let (from, ..) = with_a_large_commit();
        for (written, bundle) in from.send(None, in_instalments()) {
            let (_, mut pack) = Bundle::open(&bundle[..]).expect("opened").into_parts();
            assert_eq!(io::copy(&mut pack, &mut io::sink()).expect("read"), written.bytes);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Burst(Vec<(String, Option<Vec<u8>>)>),
        Git(Vec<(String, Option<Vec<u8>>)>),
        /// A second line of history with these edits, and a merge.
        Merge(Vec<(String, Option<Vec<u8>>)>, Vec<(String, Option<Vec<u8>>)>),
        Repack,
        Gather,
        Sync {
            limit: u64,
            thorough: bool,
        },
    }

    fn edits() -> impl Strategy<Value = Vec<(String, Option<Vec<u8>>)>> {
        let name = prop::sample::select(vec!["a", "b", "c"]);
        let path = (prop::collection::vec(name, 1..4), 0..6).prop_map(|(names, n)| format!("{}/f{n}", names.join("/")));
        // Some tiny, some large enough, and alike enough, to be told as deltas.
        let content = prop_oneof![
            (0u8..6).prop_map(|n| vec![b'0' + n; 20 * usize::from(n)]),
            (0u8..9).prop_map(|n| edited_text(u32::from(n), u32::from(n) / 3)),
        ];
        let content = prop::option::weighted(0.7, content);
        prop::collection::vec((path, content), 1..12)
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let sync = (200u64..5000, any::<bool>()).prop_map(|(limit, thorough)| Step::Sync { limit, thorough });
        let step = prop_oneof![
            4 => edits().prop_map(Step::Burst),
            2 => edits().prop_map(Step::Git),
            2 => (edits(), edits()).prop_map(|(one, two)| Step::Merge(one, two)),
            1 => Just(Step::Repack),
            2 => Just(Step::Gather),
            3 => sync.clone(),
        ];
        (prop::collection::vec(step, 1..8), sync).prop_map(|(mut steps, last)| {
            steps.push(last);
            steps
        })
    }

    /// A repository whose second commit brings a lot, and git's and our copies of its first.
    fn with_a_large_commit() -> (Repo, Repo, Repo) {
        let (mut from, with_git, ours) = (Repo::new(), Repo::new(), Repo::new());
        from.burst(&files(0..3, "first"));
        let noise = |n: u32| {
            (0..200).flat_map(move |at| {
                object_id(ObjectKind::Blob, &[n, at].map(u32::to_be_bytes).concat()).as_bytes().to_vec()
            })
        };
        let many: Vec<_> = (0..10).map(|n| (format!("folder/{n}"), Some(noise(n).collect::<Vec<_>>()))).collect();
        let large = from.commit_with_git(&many, from.head().as_slice());
        from.set("refs/heads/main", large);
        from.burst(&files(5..9, "last"));
        (from, with_git, ours)
    }

    fn in_instalments() -> BundleOptions {
        BundleOptions { instalment: Some(9000), ..options(9000, false) }
    }

    #[test]
    fn a_large_commit_is_sent_in_instalments() {
        let (from, with_git, ours) = with_a_large_commit();
        let series = from.send(None, in_instalments());
        // The first burst; three times three contents of 4000 bytes; their commit, with the tenth; the last burst.
        assert_eq!(series.iter().map(|(written, _)| written.commits).collect::<Vec<_>>(), [3, 0, 0, 0, 1, 4]);
        for (written, bundle) in &series {
            assert!(written.bytes < 13_000);
            with_git.receive_with_git(bundle);
            ours.receive(bundle).expect("admitted");
        }
        ours.set("refs/heads/main", from.head().expect("a head"));
        assert_eq!(with_git.head(), from.head());
        with_git.fsck();
        ours.fsck();
        // What came in instalments is sent on like all else, and by itself.
        let third = Repo::new();
        for (_, bundle) in ours.send(None, BundleOptions::default()) {
            third.set("refs/heads/main", third.receive(&bundle).expect("admitted").tips[0]);
        }
        assert_eq!(third.head(), from.head());
        third.fsck();
    }

    #[test]
    fn instalments_that_arrived_are_not_sent_again() {
        let (from, _, ours) = with_a_large_commit();
        let series = from.send(None, in_instalments());
        for (n, (written, bundle)) in series.iter().enumerate().take(3) {
            let admitted = ours.receive(bundle).expect("admitted");
            let name = if written.commits > 0 { "refs/heads/main" } else { "refs/foldersync/instalment/x" };
            ours.set(name, admitted.tips[0]);
            ours.git(&["gc", "-q", "--prune=now"]);
            assert_eq!(n == 0, written.commits > 0);
        }
        let received = series[2].0.header.tip();
        let head = ours.head().expect("a head");
        let again = from.send_after(&[head], &[head, received], in_instalments());
        assert_eq!(again.iter().map(|(written, _)| written.commits).collect::<Vec<_>>(), [0, 1, 4]);
        assert_eq!(again[0].0.header.prerequisites, [received]);
        for (_, bundle) in &again {
            ours.receive(bundle).expect("admitted");
        }
        ours.set("refs/heads/main", from.head().expect("a head"));
        ours.fsck();
    }

    #[test]
    fn what_comes_back_within_a_bundle_makes_no_circle_of_deltas() {
        for thorough in [false, true] {
            let (mut from, with_git, ours) = (Repo::new(), Repo::new(), Repo::new());
            let text = |how| vec![("a/text".to_owned(), Some(edited_text(7, how)))];
            from.burst(&(0..20).map(|n| (format!("a/f{n}"), Some(vec![b'x'; n]))).collect::<Vec<_>>());
            from.burst(&text(1));
            let receive = |from: &Repo| {
                for (_, bundle) in from.send(ours.head(), options(1 << 20, thorough)) {
                    with_git.receive_with_git(&bundle);
                    ours.set("refs/heads/main", ours.receive(&bundle).expect("admitted").tips[0]);
                }
                assert_eq!((ours.head(), with_git.head()), (from.head(), from.head()));
                ours.fsck();
                with_git.fsck();
            };
            receive(&from);
            // The text and each folder's tree are others, and then again those that both sides had.
            from.burst(&text(2));
            from.burst(&text(1));
            let edit = |content: Option<&[u8]>| vec![("a/f3".to_owned(), content.map(<[u8]>::to_vec))];
            from.burst(&edit(Some(b"edited")));
            from.burst(&edit(Some(b"xxx")));
            from.burst(&edit(None));
            from.burst(&edit(Some(b"xxx")));
            receive(&from);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        #[test]
        fn whoever_has_the_prerequisites_gets_everything(steps in steps()) {
            let (mut from, with_git, ours, third) = (Repo::new(), Repo::new(), Repo::new(), Repo::new());
            from.burst(&files(0..3, "first"));
            for step in steps {
                let head = from.head();
                match step {
                    Step::Burst(edits) => from.burst(&edits),
                    Step::Git(edits) => {
                        let made = from.commit_with_git(&edits, head.as_slice());
                        from.set("refs/heads/main", made);
                    }
                    Step::Merge(one, two) => {
                        let side = from.commit_with_git(&one, head.as_slice());
                        from.burst(&two);
                        let parents: Vec<_> = from.head().into_iter().chain([side]).collect();
                        let merge = from.commit_with_git(&one, &parents);
                        from.set("refs/heads/main", merge);
                    }
                    Step::Repack => {
                        from.git(&["repack", "-q", "-a", "-d"]);
                    }
                    Step::Gather => {
                        for repo in [&from, &ours, &third] {
                            gather_loose(&repo.packs.join(".."), 1, &Silent).expect("gathered");
                            gather_packs(&repo.objects, &repo.packs, &|_| true, &Silent).expect("gathered");
                            repo.fsck();
                        }
                    }
                    Step::Sync { limit, thorough } => {
                        for (written, bundle) in from.send(with_git.head(), options(limit, thorough)) {
                            with_git.receive_with_git(&bundle);
                            let admitted = ours.receive(&bundle).expect("admitted");
                            prop_assert_eq!(admitted.commits.len() as u64, written.commits);
                            ours.set("refs/heads/main", admitted.tips[0]);
                            for (n, tip) in admitted.tips.iter().enumerate().skip(1) {
                                ours.set(&format!("refs/foldersync/part/{n}"), *tip);
                            }
                        }
                        prop_assert_eq!(with_git.head(), from.head());
                        prop_assert_eq!(ours.head(), from.head());
                        with_git.fsck();
                        ours.fsck();
                        if ours.head().is_some() {
                            // What was received is sent on, from packs as they were admitted.
                            for (_, bundle) in ours.send(third.head(), options(limit * 2, thorough)) {
                                let admitted = third.receive(&bundle).expect("admitted");
                                third.set("refs/heads/main", admitted.tips[0]);
                                for (n, tip) in admitted.tips.iter().enumerate().skip(1) {
                                    third.set(&format!("refs/foldersync/part/{n}"), *tip);
                                }
                            }
                            prop_assert_eq!(third.head(), from.head());
                            third.fsck();
                        }
                    }
                }
            }
        }
    }
}
