//! Reading packs at the level of their entries: which packs there are, in which order they came, what they hold raw,
//! and the runs of commits (see [`super`]).
//!
//! Only indexes are mapped. Packs are read piece by piece, so that memory does not grow with them.
//!
//! A [`Packs`] is a view of one moment: packs that come later are not in it, and packs that are removed later stay
//! readable through it. It reads what is durable and admitted already; damage in it is told, not survived.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gix_pack::index;
use libdeflater::Decompressor;

use super::entry::{EntryHeader, EntryKind, HEADER_LEN, MAX_ENTRY_HEADER, TRAILER_LEN};
use super::fetch;
use crate::id::{CommitId, ObjectId, TreeId};
use crate::page_cache;
use crate::store::error::StoreError;
use crate::store::objects::{ObjectKind, from_gix, to_gix};

/// The packs of a repository, ordered ones first, oldest first.
pub struct Packs {
    packs: Vec<Pack>,
}

/// One pack, with its index.
pub struct Pack {
    path: PathBuf,
    /// The how-many-th ordered pack it is; `None` if it is not ordered.
    sequence: Option<u64>,
    data: Data,
    index: index::File,
    /// Positions in the index, in the order of the entries in the pack.
    order: OnceCell<Vec<u32>>,
    /// What was found out of the kinds of entries, by position. Chains are long, and share most of their length.
    kinds: RefCell<Vec<Option<ObjectKind>>>,
}

/// The bytes of a pack, with those that were read last.
struct Data {
    file: File,
    len: u64,
    /// Each with its number in the file; the last used is the last.
    blocks: RefCell<VecDeque<(u64, Vec<u8>)>>,
}

/// What is read at a time, and how much of that is kept.
const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 16;

impl Data {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len, blocks: RefCell::default() })
    }

    /// Hands on what is in a range, in pieces.
    fn pieces(&self, range: Range<u64>, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let (number, from) = (at / BLOCK as u64, usize::try_from(at % BLOCK as u64).expect("within a block"));
            let (known, old) = self.lend(number);
            let bytes = known.map_or_else(|| self.block(number, old), Ok)?;
            let wanted = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let to = from.saturating_add(wanted).min(bytes.len());
            let taken = match bytes.get(from..to) {
                Some(piece) if !piece.is_empty() => take(piece),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
            self.blocks.borrow_mut().push_back((number, bytes));
            taken?;
            at += (to - from) as u64;
        }
        Ok(())
    }

    /// A block that is kept, or else one that may give way to it.
    fn lend(&self, number: u64) -> (Option<Vec<u8>>, Vec<u8>) {
        let mut blocks = self.blocks.borrow_mut();
        match blocks.iter().position(|(known, _)| *known == number) {
            Some(found) => (blocks.remove(found).map(|(_, bytes)| bytes), Vec::new()),
            None if blocks.len() < BLOCKS => (None, Vec::new()),
            None => (None, blocks.pop_front().unwrap_or_default().1),
        }
    }

    fn block(&self, number: u64, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        bytes.resize(BLOCK, 0);
        let filled = fetch::read_at(&self.file, &mut bytes, number * BLOCK as u64)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        self.pieces(range, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }
}

/// An entry as it lies in a pack.
#[derive(Debug, Clone, Copy)]
pub struct RawEntry {
    /// The object.
    pub id: ObjectId,
    /// Where the entry begins.
    pub offset: u64,
    /// Where it ends.
    pub end: u64,
    /// What it holds.
    pub header: EntryHeader,
}

impl RawEntry {
    /// The bytes of the zlib stream behind the header.
    pub const fn deflated_len(&self) -> u64 {
        self.end - self.offset - self.header.len as u64
    }
}

/// What a commit refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The state of the folder.
    pub tree: TreeId,
    /// What it follows.
    pub parents: Vec<CommitId>,
}

/// What a commit with this content refers to; `None` if that cannot be told.
pub fn links(content: &[u8]) -> Option<Links> {
    let mut lines = content.split(|&byte| byte == b'\n');
    let id = |line: &[u8], key: &[u8]| -> Option<ObjectId> {
        std::str::from_utf8(line.strip_prefix(key)?).ok().filter(|hex| hex.len() == 40)?.parse().ok()
    };
    let tree = id(lines.next()?, b"tree ")?.as_tree();
    let mut parents = Vec::new();
    for line in lines {
        match id(line, b"parent ") {
            Some(parent) => parents.push(parent.as_commit()),
            None => return line.starts_with(b"author ").then_some(Links { tree, parents }),
        }
    }
    None
}

/// The number of the youngest ordered pack in `dir`; 0 if there is none.
pub(crate) fn last_sequence(dir: &Path) -> Result<u64, StoreError> {
    let mut last = 0;
    for entry in std::fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        last = last.max(name.to_str().and_then(marker).map_or(0, |(_, sequence)| sequence));
    }
    Ok(last)
}

/// The name of the pack, and the sequence, that a marker of this file name stands for.
pub(crate) fn marker(file_name: &str) -> Option<(&str, u64)> {
    let (pack, sequence) = file_name.strip_suffix(".ordered")?.rsplit_once('.')?;
    Some((pack, sequence.parse().ok()?))
}

impl Packs {
    /// The packs in `dir` at this moment.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let (mut names, mut sequences) = (Vec::new(), HashMap::new());
        for entry in std::fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
            let name = entry.map_err(StoreError::io("list", dir))?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some((pack, sequence)) = marker(name) {
                // Two markers can only be there after a crash; the older is the truth.
                let known = sequences.entry(pack.to_owned()).or_insert(sequence);
                *known = sequence.min(*known);
            } else if let Some(pack) = name.strip_suffix(".idx")
                && pack.starts_with("pack-")
            {
                names.push(pack.to_owned());
            }
        }
        let mut packs = Vec::with_capacity(names.len());
        for name in names {
            // Somebody may be gathering packs: what is gone by now is in a newer one, which the next look finds.
            packs.extend(Pack::open(&dir.join(format!("{name}.pack")), sequences.get(&name).copied())?);
        }
        packs.sort_by_key(|pack| (pack.sequence.is_none(), pack.sequence, pack.path.clone()));
        Ok(Self { packs })
    }

    /// All of them, ordered ones first, oldest first.
    pub fn all(&self) -> &[Pack] {
        &self.packs
    }

    /// The pack that has an object, and the object's position in its index; ordered packs are preferred.
    pub fn find(&self, id: &ObjectId) -> Option<(usize, u32)> {
        self.packs.iter().enumerate().find_map(|(at, pack)| Some((at, pack.index.lookup(to_gix(id))?)))
    }
}

impl Pack {
    fn open(path: &Path, sequence: Option<u64>) -> Result<Option<Self>, StoreError> {
        let index_path = path.with_extension("idx");
        let index = index::File::at(&index_path, gix_hash::Kind::Sha1);
        let whole = |data: &Data| data.len >= HEADER_LEN + TRAILER_LEN;
        match (index, Data::open(path)) {
            (Ok(index), Ok(data)) if whole(&data) => Ok(Some(Self {
                path: path.to_owned(),
                sequence,
                data,
                index,
                order: OnceCell::new(),
                kinds: RefCell::default(),
            })),
            _ if !(path.exists() && index_path.exists()) => Ok(None),
            (Ok(_), Err(error)) => Err(StoreError::io("open", path)(error)),
            (Ok(_), Ok(_)) => Err(StoreError::damaged(format!("pack {}", path.display()), "it is cut off")),
            (Err(error), _) => Err(StoreError::damaged(format!("pack {}", path.display()), error)),
        }
    }

    /// The pack's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which ordered pack it is, in the order in which they came; `None` if it is not ordered.
    pub const fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// How many objects it has.
    pub fn objects(&self) -> u32 {
        self.index.num_objects()
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.data.len
    }

    /// Whether it has been sorted by offset already, so that entries can be had without more work.
    pub fn is_sorted(&self) -> bool {
        self.order.get().is_some()
    }

    fn order(&self) -> &[u32] {
        self.order.get_or_init(|| {
            let offsets = (0..self.index.num_objects()).map(|at| (self.index.pack_offset_at_index(at), at));
            let mut offsets: Vec<_> = offsets.collect();
            offsets.sort_unstable();
            offsets.into_iter().map(|(_, at)| at).collect()
        })
    }

    fn offset(&self, position: u32) -> u64 {
        self.order()
            .get(position as usize)
            .map_or(self.data.len - TRAILER_LEN, |&at| self.index.pack_offset_at_index(at))
    }

    /// Where an object stands in the pack: how many entries are before its own.
    pub fn position(&self, id: &ObjectId) -> Option<u32> {
        self.position_at(self.index.pack_offset_at_index(self.index.lookup(to_gix(id))?))
    }

    /// The position of the entry that begins at `offset`.
    pub fn position_at(&self, offset: u64) -> Option<u32> {
        let found = self.order().binary_search_by_key(&offset, |&at| self.index.pack_offset_at_index(at));
        found.ok().and_then(|position| u32::try_from(position).ok())
    }

    /// The object at a position.
    pub fn id(&self, position: u32) -> ObjectId {
        from_gix(self.index.oid_at_index(self.order()[position as usize]))
    }

    fn damaged(&self, detail: impl ToString) -> StoreError {
        StoreError::damaged(format!("pack {}", self.path.display()), detail)
    }

    /// The entry at a position, as it lies there.
    pub fn entry(&self, position: u32) -> Result<RawEntry, StoreError> {
        let (offset, end, header) = self.header(position)?;
        Ok(RawEntry { id: self.id(position), offset, end, header })
    }

    fn header(&self, position: u32) -> Result<(u64, u64, EntryHeader), StoreError> {
        let (offset, end) = (self.offset(position), self.offset(position + 1));
        if offset >= end {
            return Err(self.damaged("an entry is outside of it"));
        }
        let (mut begin, mut len) = ([0; MAX_ENTRY_HEADER], 0);
        let read = self.data.pieces(offset..end.min(offset + MAX_ENTRY_HEADER as u64), |piece| {
            begin[len..len + piece.len()].copy_from_slice(piece);
            len += piece.len();
            io::Result::Ok(())
        });
        read.map_err(|error| self.unread(error))?;
        let header = EntryHeader::parse(&begin[..len]).map_err(|error| self.damaged(error))?;
        if header.len as u64 > end - offset {
            return Err(self.damaged("an entry is cut off"));
        }
        Ok((offset, end, header))
    }

    fn unread(&self, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it is cut off"),
            _ => StoreError::io("read", &self.path)(error),
        }
    }

    /// Hands on what is deflated in an entry, as it lies there, in pieces.
    pub fn deflated(
        &self,
        entry: &RawEntry,
        take: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut failed = Ok(());
        let read = self.data.pieces(entry.offset + entry.header.len as u64..entry.end, |piece| {
            failed = take(piece);
            // Only to end it: the cause is kept beside it.
            if failed.is_ok() { Ok(()) } else { Err(io::Error::other("not taken")) }
        });
        failed?;
        read.map_err(|error| self.unread(error))
    }

    /// Tells the system that an entry, which was read, need not stay in its memory.
    pub fn let_go(&self, entry: &RawEntry) {
        page_cache::let_go(&self.data.file, entry.offset, entry.end - entry.offset);
    }

    /// The position of the base that the entry at a position is a delta against; `None` if it is whole.
    pub fn base(&self, entry: &RawEntry) -> Result<Option<u32>, StoreError> {
        let base = match entry.header.kind {
            EntryKind::Whole(_) => return Ok(None),
            EntryKind::OffsetDelta(distance) => {
                entry.offset.checked_sub(distance).and_then(|offset| self.position_at(offset))
            }
            EntryKind::IdDelta(id) => self.position(&id),
        };
        base.map(Some).ok_or_else(|| self.damaged(format!("the base of {} is not in it", entry.id)))
    }

    /// What kind of object the entry at a position is or makes.
    pub fn kind(&self, position: u32) -> Result<ObjectKind, StoreError> {
        let mut kinds = self.kinds.borrow_mut();
        kinds.resize(self.objects() as usize, None);
        let mut chain = vec![position];
        for _ in 0..=self.objects() {
            let at = *chain.last().expect("it begins with one");
            let entry = self.entry(at)?;
            let kind = match (kinds[at as usize], entry.header.kind, self.base(&entry)?) {
                (Some(kind), ..) | (_, EntryKind::Whole(kind), _) => kind,
                (.., Some(base)) => {
                    chain.push(base);
                    continue;
                }
                (.., None) => break,
            };
            for at in chain {
                kinds[at as usize] = Some(kind);
            }
            return Ok(kind);
        }
        Err(self.damaged("deltas in it stand on one another"))
    }

    /// The entry at a position, after a look at whether its bytes are what the index says.
    pub fn sound_entry(&self, position: u32) -> Result<RawEntry, StoreError> {
        let (offset, end) = (self.offset(position), self.offset(position + 1));
        let at = self.order()[position as usize];
        let mut crc = crc32fast::Hasher::new();
        let read = self.data.pieces(offset..end, |piece| {
            crc.update(piece);
            io::Result::Ok(())
        });
        read.map_err(|error| self.unread(error))?;
        let crc = crc.finalize();
        if self.index.crc32_at_index(at).is_some_and(|listed| crc != listed) {
            return Err(
                self.damaged(format!("the entry of {} does not have the checksum in the index", self.id(position)))
            );
        }
        self.entry(position)
    }

    fn is_commit(&self, position: u32) -> Result<bool, StoreError> {
        let (.., header) = self.header(position)?;
        Ok(header.kind == EntryKind::Whole(ObjectKind::Commit))
    }

    /// The position of the last commit before `position`.
    pub fn commit_before(&self, position: u32) -> Result<Option<u32>, StoreError> {
        let mut at = position;
        while at > 0 {
            at -= 1;
            if self.is_commit(at)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The position of the first commit from `position` on.
    pub fn commit_from(&self, position: u32) -> Result<Option<u32>, StoreError> {
        for at in position..self.objects() {
            if self.is_commit(at)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The run of the commit at a position: the positions of what it brings, itself the last.
    pub fn run(&self, commit: u32) -> Result<Range<u32>, StoreError> {
        Ok(self.commit_before(commit)?.map_or(0, |before| before + 1)..commit + 1)
    }

    /// What the commit at a position refers to.
    pub fn links(&self, commit: u32) -> Result<Links, StoreError> {
        let entry = self.entry(commit)?;
        let from = entry.offset + entry.header.len as u64;
        let deflated = self.data.read(from..entry.end).map_err(|error| self.unread(error))?;
        let content =
            inflate(&entry, &deflated).ok_or_else(|| self.damaged(format!("commit {} cannot be read", entry.id)))?;
        links(&content).ok_or_else(|| self.damaged(format!("commit {} makes no sense", entry.id)))
    }
}

/// What is deflated in an entry.
fn inflate(entry: &RawEntry, deflated: &[u8]) -> Option<Vec<u8>> {
    // Deflate makes at most about a thousand bytes of one: the size is not taken on trust.
    let size = usize::try_from(entry.header.size).ok().filter(|size| size / 1100 <= deflated.len())?;
    let mut content = vec![0; size];
    let made = Decompressor::new().zlib_decompress(deflated, &mut content).ok()?;
    (made == size).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::pack::PackWriter;
    use crate::store::pack::testing::repository;

    #[test]
    fn a_run_is_what_stands_between_two_commits() {
        let (_folder, dir) = repository();
        let mut writer = PackWriter::create(&dir).expect("begun");
        let tree = writer.put(ObjectKind::Tree, b"").expect("put").id;
        let commit = |n: u8, parent: &str| {
            format!("tree {tree}\n{parent}author a <a> {n} +0000\ncommitter a <a> {n} +0000\n\nx\n")
        };
        let first = writer.put(ObjectKind::Commit, commit(1, "").as_bytes()).expect("put").id;
        let blobs = [b"1", b"2"].map(|content| writer.put(ObjectKind::Blob, content).expect("put").id);
        let second = commit(2, &format!("parent {first}\n"));
        let second = writer.put(ObjectKind::Commit, second.as_bytes()).expect("put").id;
        let tail = writer.put(ObjectKind::Blob, b"tail").expect("put").id;
        writer.finish().expect("finished");

        let packs = Packs::open(&dir).expect("opened");
        let (at, _) = packs.find(&second).expect("there");
        let pack = &packs.all()[at];
        assert_eq!((pack.sequence(), pack.objects()), (Some(1), 6));
        let position = pack.position(&second).expect("there");
        let run = pack.run(position).expect("read");
        assert_eq!(run.map(|at| pack.id(at)).collect::<Vec<_>>(), [blobs[0], blobs[1], second]);
        let links = pack.links(position).expect("read");
        assert_eq!(links, Links { tree: tree.as_tree(), parents: vec![first.as_commit()] });
        assert_eq!(pack.position(&tail), Some(5));
        assert_eq!(last_sequence(&dir).expect("listed"), 1);
    }

    #[test]
    fn markers_are_read_back() {
        assert_eq!(marker("pack-ab.0000000012.ordered"), Some(("pack-ab", 12)));
        assert_eq!(marker("pack-ab.ordered"), None);
        assert_eq!(marker("pack-ab.idx"), None);
    }
}
