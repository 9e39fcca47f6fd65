//! Objects out of packs, by their ids, in memory that does not grow with the packs.
//!
//! Only the indexes of packs are mapped; their data is read with positioned reads, so that what has been read does not
//! stay resident. [`PackFolder`] knows which packs there are, and is shared; [`Fetcher`] reads, one a thread, and keeps
//! a bounded number of bytes for the deltas of the objects that it reads next.
//!
//! Reads only. What it reads was checked when it was let in, and is not hashed again; still it may be damaged on disk,
//! so nothing is allocated by what an entry declares alone. What is not in these packs (loose objects, alternates,
//! annotated tags) is answered with `None`, and is for gix to find.
//!
//! Packs come and go while they are read. A new one is noticed when an object is looked for in vain and the folder has
//! changed since it was listed. One that was removed stays readable if it was read before; otherwise its objects are
//! looked for in those that are there now.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use flate2::bufread::ZlibDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use gix_pack::index;
use libdeflater::Decompressor;

use super::delta::{self, DeltaError};
use super::entry::{EntryHeader, EntryKind, HeaderError};
use crate::id::ObjectId;
use crate::page_cache;
use crate::store::error::StoreError;
use crate::store::objects::{ObjectKind, to_gix};

/// Objects with more bytes are not given as they lie.
const LARGEST_WHOLE: u64 = 8 << 20;
/// Entries of up to this many bytes are inflated at once, larger ones as a stream.
const AT_ONCE: u64 = 4 << 20;
/// The first read of an entry: its header, and all of most small ones.
const FIRST_READ: usize = 8 << 10;
/// The bytes that are read at a time of what streams.
const PIECE: usize = 128 << 10;
/// The bytes that are inflated at a time of what passes.
const PASSING: usize = 16 << 10;
/// The bytes of contents that a fetcher keeps as bases of deltas.
const KEPT: usize = 16 << 20;
/// What a delta makes may have up to this many bytes here. Larger ones (git makes none by itself) are for gix.
const LARGEST_MADE: usize = 1 << 30;
/// The most bytes that a byte of a delta can make: a copy of 2^24 by an instruction of four bytes.
const MADE_BY_A_BYTE: usize = 1 << 22;
/// The most deltas that stand on each other; git makes 4095 at most.
const DEEPEST: usize = 1 << 14;
/// Git's code for annotated tags.
const TAG: u8 = 4;

/// One pack.
struct PackFile {
    /// Tells it from all others that the folder ever listed.
    number: u64,
    path: PathBuf,
    index: index::File,
    /// Opened when it is first read.
    data: OnceLock<File>,
}

impl PackFile {
    fn offset(&self, id: &ObjectId) -> Option<u64> {
        self.index.lookup(to_gix(id)).map(|at| self.index.pack_offset_at_index(at))
    }

    /// Whether the bytes of the entry of an object have the checksum that the index says.
    fn is_sound(&self, id: &ObjectId, entry: &[u8]) -> bool {
        let says = self.index.lookup(to_gix(id)).and_then(|at| self.index.crc32_at_index(at));
        says.is_none_or(|crc| crc == crc32fast::hash(entry))
    }

    fn data(&self) -> io::Result<&File> {
        match self.data.get() {
            Some(data) => Ok(data),
            None => File::open(&self.path).map(|data| self.data.get_or_init(|| data)),
        }
    }

    fn damaged(&self, offset: u64, detail: impl fmt::Display) -> StoreError {
        StoreError::damaged(format!("pack `{}`", self.path.display()), format!("the entry at {offset}: {detail}"))
    }
}

/// The packs of a repository; shared by those who read them.
pub struct PackFolder {
    dir: PathBuf,
    listing: Mutex<Listing>,
}

#[derive(Default)]
struct Listing {
    /// When the folder had changed last before it was listed. (A change within the same tick of the file system's
    /// clock as the listing goes unnoticed until the next; gix finds those objects.)
    changed: Option<SystemTime>,
    /// The how-many-th listing it is.
    number: u64,
    /// How many packs were ever opened.
    opened: u64,
    packs: Vec<Arc<PackFile>>,
}

impl PackFolder {
    /// The packs in `dir`. Nothing is read before something is looked for.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, listing: Mutex::default() }
    }
}

impl Listing {
    /// Lists the folder if it changed. What cannot be listed or opened is left to gix, which tells what is wrong.
    fn refresh(&mut self, dir: &Path) {
        let Ok(changed) = fs::metadata(dir).and_then(|data| data.modified()) else { return };
        if self.changed == Some(changed) {
            return;
        }
        let Ok(files) = fs::read_dir(dir) else { return };
        let mut known: HashMap<PathBuf, Arc<PackFile>> =
            self.packs.drain(..).map(|pack| (pack.path.clone(), pack)).collect();
        for file in files.flatten().map(|file| file.path()) {
            if file.extension() != Some(OsStr::new("idx")) {
                continue;
            }
            let path = file.with_extension("pack");
            if let Some(pack) = known.remove(&path) {
                self.packs.push(pack);
            } else if let Ok(index) = index::File::at(&file, gix_hash::Kind::Sha1) {
                self.opened += 1;
                self.packs.push(Arc::new(PackFile { number: self.opened, path, index, data: OnceLock::new() }));
            }
        }
        self.changed = Some(changed);
        self.number += 1;
    }
}

/// Contents by the pack and the offset that they have.
type Kept = HashMap<(u64, u64), (ObjectKind, Arc<Vec<u8>>)>;

/// The contents that deltas may stand on, by pack and offset: those that were used last, half of them at least.
#[derive(Default)]
struct Bases {
    young: Kept,
    old: Kept,
    /// The bytes of the young ones.
    bytes: usize,
}

impl Bases {
    fn put(&mut self, key: (u64, u64), kind: ObjectKind, content: &Arc<Vec<u8>>) {
        let bytes = content.len() + 128;
        if bytes > KEPT / 2 {
            return;
        }
        if self.bytes + bytes > KEPT / 2 {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        if let Some((_, replaced)) = self.young.insert(key, (kind, Arc::clone(content))) {
            self.bytes -= replaced.len() + 128;
        }
    }

    fn get(&mut self, key: (u64, u64)) -> Option<(ObjectKind, Arc<Vec<u8>>)> {
        if let Some((kind, content)) = self.young.get(&key) {
            return Some((*kind, Arc::clone(content)));
        }
        let (kind, content) = self.old.remove(&key)?;
        self.put(key, kind, &content);
        Some((kind, content))
    }
}

/// What the deltas of an entry stand on in the end.
enum Ground {
    /// An entry that is no delta.
    Whole(ObjectKind, u64, EntryHeader),
    /// A content that was kept.
    Kept(ObjectKind, Arc<Vec<u8>>),
    /// Something that cannot be read here.
    Elsewhere,
}

/// Reads objects out of the packs of a folder; one a thread.
pub struct Fetcher {
    folder: Arc<PackFolder>,
    /// The listing that `packs` come from.
    listing: u64,
    /// The pack that was hit last is the first.
    packs: Vec<Arc<PackFile>>,
    bases: Bases,
    decompressor: Decompressor,
    /// For what is only inflated to see where it ends.
    inflate: Option<Decompress>,
    passing: Vec<u8>,
    /// The beginning of an entry, and which entry it is.
    entry: Vec<u8>,
    held: Option<(u64, u64)>,
}

impl Clone for Fetcher {
    /// Another fetcher from the same packs, for another thread.
    fn clone(&self) -> Self {
        let packs = self.packs.clone();
        Self { listing: self.listing, packs, ..Self::new(Arc::clone(&self.folder)) }
    }
}

impl Fetcher {
    /// A fetcher from these packs.
    pub fn new(folder: Arc<PackFolder>) -> Self {
        Self {
            folder,
            listing: 0,
            packs: Vec::new(),
            bases: Bases::default(),
            decompressor: Decompressor::new(),
            inflate: None,
            passing: Vec::new(),
            entry: Vec::new(),
            held: None,
        }
    }

    /// Whether a pack has the object.
    pub fn contains(&mut self, id: &ObjectId) -> bool {
        self.lookup(id).is_some()
    }

    /// Reads a whole object into `content`; `None` if it is not here.
    pub fn read(&mut self, id: &ObjectId, content: &mut Vec<u8>) -> Result<Option<ObjectKind>, StoreError> {
        match self.find(id)? {
            Some((pack, offset)) => self.content(&pack, offset, content),
            None => Ok(None),
        }
    }

    /// Tells the system that an object of so many bytes, which was read, need not stay in its memory.
    pub fn let_go(&mut self, id: &ObjectId, bytes: u64) {
        if let Ok(Some((pack, offset))) = self.find(id)
            && let Ok(file) = pack.data()
        {
            page_cache::let_go(file, offset, bytes);
        }
    }

    /// The kind and size in bytes of an object; `None` if it is not here.
    pub fn header(&mut self, id: &ObjectId) -> Result<Option<(ObjectKind, u64)>, StoreError> {
        let Some((pack, offset)) = self.find(id)? else { return Ok(None) };
        let mut deltas = Vec::new();
        let ground = self.descend(&pack, offset, &mut deltas)?;
        let kind = match ground {
            Ground::Whole(kind, _, header) if deltas.is_empty() => return Ok(Some((kind, header.size))),
            Ground::Kept(kind, content) if deltas.is_empty() => return Ok(Some((kind, content.len() as u64))),
            Ground::Whole(kind, ..) | Ground::Kept(kind, _) => kind,
            Ground::Elsewhere => return Ok(None),
        };
        let Some(header) = self.load(&pack, offset)? else { return Ok(None) };
        let mut sizes = Vec::with_capacity(20);
        let read = ZlibDecoder::new(&self.entry[header.len..]).take(20).read_to_end(&mut sizes);
        // A stream that breaks off behind what is needed tells enough.
        match (delta::result_size(&sizes), read) {
            (Ok(size), _) => Ok(Some((kind, size))),
            (Err(_), Err(error)) => Err(pack.damaged(offset, error)),
            (Err(error), Ok(_)) => Err(pack.damaged(offset, error)),
        }
    }

    /// Whether an object is a blob that begins with these few bytes; `None` if it is not here.
    pub fn begins_with(&mut self, id: &ObjectId, bytes: &[u8]) -> Result<Option<bool>, StoreError> {
        let Some((pack, offset)) = self.find(id)? else { return Ok(None) };
        let Some(header) = self.load(&pack, offset)? else { return Ok(None) };
        let mut content = Vec::new();
        if let EntryKind::Whole(kind) = header.kind {
            let mut inflate = ZlibDecoder::new(&self.entry[header.len..]).take(bytes.len() as u64);
            inflate.read_to_end(&mut content).map_err(|error| pack.damaged(offset, error))?;
            return Ok(Some(kind == ObjectKind::Blob && content == bytes));
        }
        let kind = self.content(&pack, offset, &mut content)?;
        Ok(kind.map(|kind| kind == ObjectKind::Blob && content.starts_with(bytes)))
    }

    /// Writes the content of a blob to `out`, a large one piece by piece; returns its size in bytes, `None` (and
    /// nothing was written) if it is not here.
    pub fn copy_blob(&mut self, id: &ObjectId, out: &mut dyn Write) -> Result<Option<u64>, StoreError> {
        let Some((pack, offset)) = self.find(id)? else { return Ok(None) };
        let Some(header) = self.load(&pack, offset)? else { return Ok(None) };
        let wrote = |source| StoreError::Io { what: "write", path: format!("the content of blob {id}").into(), source };
        if header.kind == EntryKind::Whole(ObjectKind::Blob) && header.size > AT_ONCE {
            inflate_stream(&pack, offset, &header, |piece| out.write_all(piece).map_err(wrote))?;
            return Ok(Some(header.size));
        }
        let mut content = Vec::new();
        match self.content(&pack, offset, &mut content)? {
            None => return Ok(None),
            Some(ObjectKind::Blob) => {}
            Some(kind) => {
                return Err(StoreError::damaged(
                    format!("object {id}"),
                    format!("it is a {}, not a blob", kind.word()),
                ));
            }
        }
        out.write_all(&content).map_err(wrote)?;
        Ok(Some(content.len() as u64))
    }

    /// An object as it lies in a pack, if it is whole there: appends what is deflated, and answers with its kind and
    /// the bytes of its content. `None` for larger ones, too.
    pub fn whole(&mut self, id: &ObjectId, deflated: &mut Vec<u8>) -> Result<Option<(ObjectKind, u64)>, StoreError> {
        let Some((pack, offset)) = self.find(id)? else { return Ok(None) };
        let Some(header) = self.load(&pack, offset)? else { return Ok(None) };
        let EntryKind::Whole(kind) = header.kind else { return Ok(None) };
        if header.size > LARGEST_WHOLE {
            return Ok(None);
        }
        let size = usize::try_from(header.size).expect("compared with `LARGEST_WHOLE`");
        self.load_all(&pack, offset, &header, size)?;
        // Where an entry ends only its stream tells.
        let inflate = self.inflate.get_or_insert_with(|| Decompress::new(true));
        inflate.reset(true);
        self.passing.resize(PASSING, 0);
        loop {
            let (read, made) = (inflate.total_in(), inflate.total_out());
            let rest = &self.entry[header.len + usize::try_from(read).expect("no more than there is")..];
            let status = inflate.decompress(rest, &mut self.passing, FlushDecompress::None);
            match status.map_err(|error| pack.damaged(offset, error))? {
                Status::StreamEnd if inflate.total_out() == header.size => break,
                Status::Ok if (inflate.total_in(), inflate.total_out()) != (read, made) => {}
                // Somebody deflated it into more than it was; or it is damaged, which its reader will tell.
                _ => return Ok(None),
            }
        }
        let end = header.len + usize::try_from(inflate.total_in()).expect("no more than there is");
        if !pack.is_sound(id, &self.entry[..end]) {
            return Err(pack.damaged(offset, "it does not have the checksum in the index"));
        }
        deflated.extend_from_slice(&self.entry[header.len..end]);
        Ok(Some((kind, header.size)))
    }

    /// Where an object lies: in a pack whose data is open.
    fn find(&mut self, id: &ObjectId) -> Result<Option<(Arc<PackFile>, u64)>, StoreError> {
        while let Some((pack, offset)) = self.lookup(id) {
            match pack.data() {
                Ok(_) => return Ok(Some((pack, offset))),
                // It was gathered into another meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(self.packs.remove(0)),
                Err(error) => return Err(StoreError::io("open", &pack.path)(error)),
            }
        }
        Ok(None)
    }

    /// The pack that an object is in, which becomes the first, and where.
    fn lookup(&mut self, id: &ObjectId) -> Option<(Arc<PackFile>, u64)> {
        loop {
            let hit = self.packs.iter().enumerate().find_map(|(at, pack)| Some((at, pack.offset(id)?)));
            if let Some((at, offset)) = hit {
                self.packs[..=at].rotate_right(1);
                return Some((Arc::clone(&self.packs[0]), offset));
            }
            if !self.refresh() {
                return None;
            }
        }
    }

    /// Takes over the packs that came and went; answers whether there can be any.
    fn refresh(&mut self) -> bool {
        let mut listing = self.folder.listing.lock().unwrap_or_else(PoisonError::into_inner);
        listing.refresh(&self.folder.dir);
        if listing.number == self.listing {
            return false;
        }
        self.listing = listing.number;
        let mut listed: HashMap<u64, &Arc<PackFile>> = listing.packs.iter().map(|pack| (pack.number, pack)).collect();
        self.packs.retain(|pack| listed.remove(&pack.number).is_some());
        self.packs.splice(0..0, listed.into_values().map(Arc::clone));
        true
    }

    /// The header of an entry, whose beginning `entry` holds then; `None` if it is an annotated tag.
    fn load(&mut self, pack: &PackFile, offset: u64) -> Result<Option<EntryHeader>, StoreError> {
        if self.held != Some((pack.number, offset)) {
            self.held = None;
            self.entry.resize(FIRST_READ, 0);
            let read = pack.data().and_then(|data| read_at(data, &mut self.entry, offset));
            self.entry.truncate(read.map_err(StoreError::io("read", &pack.path))?);
            self.held = Some((pack.number, offset));
        }
        match EntryHeader::parse(&self.entry) {
            Ok(header) => Ok(Some(header)),
            Err(HeaderError::Kind(TAG)) => Ok(None),
            Err(error) => Err(pack.damaged(offset, error)),
        }
    }

    /// What the entry stands on. The deltas from it down are added to `deltas`.
    fn descend(
        &mut self,
        pack: &PackFile,
        mut offset: u64,
        deltas: &mut Vec<(u64, EntryHeader)>,
    ) -> Result<Ground, StoreError> {
        loop {
            if let Some((kind, content)) = self.bases.get((pack.number, offset)) {
                return Ok(Ground::Kept(kind, content));
            }
            let Some(header) = self.load(pack, offset)? else { return Ok(Ground::Elsewhere) };
            let base = match header.kind {
                EntryKind::Whole(kind) => return Ok(Ground::Whole(kind, offset, header)),
                EntryKind::OffsetDelta(distance) => offset
                    .checked_sub(distance)
                    .filter(|_| distance > 0)
                    .ok_or_else(|| pack.damaged(offset, "its base is outside of the pack"))?,
                EntryKind::IdDelta(base) => match pack.offset(&base) {
                    Some(base) => base,
                    None => return Ok(Ground::Elsewhere),
                },
            };
            deltas.push((offset, header));
            if deltas.len() > DEEPEST {
                return Err(pack.damaged(offset, "too many deltas stand on each other"));
            }
            offset = base;
        }
    }

    /// Reads the object of an entry into `content`; `None` if that cannot be done here.
    fn content(
        &mut self,
        pack: &PackFile,
        offset: u64,
        content: &mut Vec<u8>,
    ) -> Result<Option<ObjectKind>, StoreError> {
        let mut deltas = Vec::new();
        let (kind, mut base) = match self.descend(pack, offset, &mut deltas)? {
            Ground::Elsewhere => return Ok(None),
            Ground::Kept(kind, base) => (kind, base),
            Ground::Whole(kind, at, header) => {
                self.inflate(pack, at, &header, content)?;
                if deltas.is_empty() {
                    return Ok(Some(kind));
                }
                let base = Arc::new(std::mem::take(content));
                self.bases.put((pack.number, at), kind, &base);
                (kind, base)
            }
        };
        let mut delta = Vec::new();
        for (at, header) in deltas.into_iter().rev() {
            self.inflate(pack, at, &header, &mut delta)?;
            let bound = delta.len().saturating_mul(MADE_BY_A_BYTE);
            base = match delta::apply(&base, &delta, bound.min(LARGEST_MADE)) {
                Ok(made) => Arc::new(made),
                Err(DeltaError::TooLarge) if bound > LARGEST_MADE => return Ok(None),
                Err(error) => return Err(pack.damaged(at, error)),
            };
            self.bases.put((pack.number, at), kind, &base);
        }
        content.clear();
        match Arc::try_unwrap(base) {
            Ok(made) => *content = made,
            Err(kept) => content.extend_from_slice(&kept),
        }
        Ok(Some(kind))
    }

    /// Inflates what is in an entry into `content`.
    fn inflate(
        &mut self,
        pack: &PackFile,
        offset: u64,
        header: &EntryHeader,
        content: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        content.clear();
        if header.size <= AT_ONCE && self.inflate_at_once(pack, offset, header, content)? {
            return Ok(());
        }
        content.clear();
        inflate_stream(pack, offset, header, |piece| {
            content.extend_from_slice(piece);
            Ok(())
        })
    }

    /// Inflates a small entry; answers whether that worked.
    fn inflate_at_once(
        &mut self,
        pack: &PackFile,
        offset: u64,
        header: &EntryHeader,
        content: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        let Ok(size) = usize::try_from(header.size) else { return Ok(false) };
        self.load_all(pack, offset, header, size)?;
        content.resize(size, 0);
        let made = self.decompressor.zlib_decompress(&self.entry[header.len..], content);
        Ok(made.is_ok_and(|made| made == size))
    }

    /// Reads an entry, with `size` bytes deflated in it, into `entry` as far as that can be told beforehand.
    fn load_all(&mut self, pack: &PackFile, offset: u64, header: &EntryHeader, size: usize) -> Result<(), StoreError> {
        self.load(pack, offset)?;
        let read = self.entry.len();
        // Deflated, it is hardly ever larger than it is, and never by more than this unless somebody meant it.
        let most = header.len + size + size / 1000 + 64;
        if most > read && read == FIRST_READ {
            self.held = None;
            self.entry.resize(most, 0);
            let more = pack.data().and_then(|data| read_at(data, &mut self.entry[read..], offset + read as u64));
            self.entry.truncate(read + more.map_err(StoreError::io("read", &pack.path))?);
        }
        Ok(())
    }
}

/// Inflates what is in an entry, and gives it away piece by piece.
fn inflate_stream(
    pack: &PackFile,
    offset: u64,
    header: &EntryHeader,
    mut take: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let file = pack.data().map_err(StoreError::io("open", &pack.path))?;
    let stream = Stream { file, offset: offset + header.len as u64 };
    // One byte more than it has: only behind the last one the stream's checksum is compared.
    let mut inflated = ZlibDecoder::new(BufReader::with_capacity(PIECE, stream)).take(header.size.saturating_add(1));
    let (mut piece, mut made) = (vec![0; PIECE], 0);
    loop {
        match inflated.read(&mut piece) {
            Ok(0) => break,
            Ok(read) if made + read as u64 > header.size => {
                return Err(pack.damaged(offset, "it makes more bytes than it declares"));
            }
            Ok(read) => {
                take(&piece[..read])?;
                made += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error().is_some() => return Err(StoreError::io("read", &pack.path)(error)),
            Err(error) => return Err(pack.damaged(offset, error)),
        }
    }
    if made == header.size { Ok(()) } else { Err(pack.damaged(offset, "it makes fewer bytes than it declares")) }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A file from an offset on, without moving the position that its other readers share.
struct Stream<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::blob::{store, tests::noise};
    use super::super::entry::{pack_header, write_header};
    use super::super::index::{IndexEntry, write_index};
    use super::super::testing::{git, repository};
    use super::super::writer::PackWriter;
    use super::*;
    use crate::store::objects::{Objects, object_id};
    use proptest::prelude::*;
    use rstest::rstest;

    fn fetcher(packs: &Path) -> Fetcher {
        Fetcher::new(Arc::new(PackFolder::new(packs.to_owned())))
    }

    /// So that what was done to a folder within a tick of the clock is seen as a change.
    fn make_younger(dir: &Path, seconds: u64) {
        let later = SystemTime::now() + std::time::Duration::from_secs(seconds);
        File::open(dir).and_then(|dir| dir.set_modified(later)).expect("set");
    }

    /// What git says of all objects of a repository.
    fn all_objects(dir: &Path) -> Vec<(ObjectId, String, u64)> {
        let objects = git(dir, &["cat-file", "--batch-all-objects", "--batch-check"]);
        let object = |line: &str| {
            let mut words = line.split(' ');
            let id = words.next()?.parse().ok()?;
            Some((id, words.next()?.to_owned(), words.next()?.parse().ok()?))
        };
        objects.lines().map(|line| object(line).expect("id, kind and size")).collect()
    }

    /// A repository of git's making: files and folders in many versions, and an annotated tag.
    fn with_history(versions: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        git(dir, &["init", "-q", "-b", "main", "."]);
        let mut stream = String::new();
        let mut text: Vec<String> = (0..200).map(|line| format!("line {line}, {:x}", line * 7_919_717)).collect();
        for version in 0..versions {
            text[version * 7 % 200] = format!("changed in {version}");
            let text = text.join("\n");
            stream += "commit refs/heads/main\ncommitter t <t@t> 1 +0000\ndata 0\n";
            stream += &format!("M 644 inline text\ndata {}\n{text}\n", text.len());
            for file in 0..40 {
                if version == 0 || file == version % 40 {
                    let content = format!("{file} {version}");
                    stream += &format!("M 644 inline folder/{file}\ndata {}\n{content}\n", content.len());
                }
            }
        }
        let input = dir.join("stream");
        fs::write(&input, stream).expect("written");
        let status = std::process::Command::new("git")
            .args(["fast-import", "--quiet"])
            .current_dir(dir)
            .stdin(File::open(&input).expect("there"))
            .status();
        assert!(status.expect("git runs").success());
        git(dir, &["tag", "-a", "-m", "a tag", "v1", "main"]);
        let packs = dir.join(".git/objects/pack");
        (folder, packs)
    }

    #[rstest]
    #[case::as_imported(&[])]
    #[case::deep(&["repack", "-q", "-a", "-d", "-f", "--depth=200", "--window=50"])]
    #[case::collected(&["gc", "-q"])]
    #[case::many_indexed(&["repack", "-q", "-a", "-d", "--write-midx"])]
    fn reads_what_git_packed(#[case] repack: &[&str]) {
        let (folder, packs) = with_history(120);
        if !repack.is_empty() {
            git(folder.path(), repack);
        }
        let mut fetcher = fetcher(&packs);
        let objects = Objects::open(&folder.path().join(".git/objects")).expect("opened");
        let (mut content, mut copied, mut ours) = (Vec::new(), Vec::new(), 0);
        let all = all_objects(folder.path());
        for (id, kind, size) in &all {
            let read = fetcher.read(id, &mut content).expect("read");
            if kind == "tag" {
                assert_eq!((read, fetcher.header(id).expect("read")), (None, None));
                assert_eq!((objects.try_read(id, &mut content).unwrap(), objects.header(id).unwrap()), (None, None));
                continue;
            }
            let Some(read) = read else { panic!("{id} was not found") };
            ours += 1;
            assert_eq!((object_id(read, &content), read.word()), (*id, &**kind));
            // Of another, which keeps nothing yet.
            assert_eq!(fetcher.clone().header(id).expect("read"), Some((read, *size)));
            assert_eq!(objects.header(id).expect("read"), Some((read, *size)));
            assert!(objects.exists(id));
            copied.clear();
            let result = objects.copy_blob(id, &mut copied);
            assert_eq!(result.is_ok(), read == ObjectKind::Blob);
            assert!(result.is_err() || copied == content);
        }
        assert!(ours > 400 && ours + 1 == all.len());
        assert!(!fetcher.contains(&ObjectId::from_bytes([7; 20])));
    }

    #[test]
    fn gives_what_is_whole_as_it_lies_and_notices_damage() {
        let (_folder, packs) = repository();
        let mut writer = PackWriter::create(&packs).expect("begun");
        let contents = [Vec::new(), b"text ".repeat(4000), noise(100_000), noise(7 << 20)];
        let ids = contents.each_ref().map(|content| writer.put(ObjectKind::Blob, content).expect("put").id);
        let base = writer.find(&ids[1]).expect("put");
        let made = [&contents[1][..], b"more"].concat();
        let delta = delta::splice(contents[1].len(), contents[1].len(), 0, b"more");
        let made = writer.put_delta(object_id(ObjectKind::Blob, &made), base.offset, 1, &delta).expect("put").id;
        let name = writer.finish().expect("finished").expect("objects").name;
        let mut fetcher = fetcher(&packs);
        let mut deflated = Vec::new();
        for (id, content) in ids.iter().zip(&contents) {
            deflated.clear();
            let found = fetcher.whole(id, &mut deflated).expect("read");
            assert_eq!(found, Some((ObjectKind::Blob, content.len() as u64)));
            let mut back = Vec::new();
            let mut stream = ZlibDecoder::new(&deflated[..]);
            stream.read_to_end(&mut back).expect("a zlib stream");
            assert!(back == *content && stream.total_in() == deflated.len() as u64, "{} bytes", content.len());
        }
        assert_eq!(fetcher.whole(&made, &mut deflated).expect("read"), None);
        assert_eq!(fetcher.whole(&ObjectId::from_bytes([7; 20]), &mut deflated).expect("read"), None);

        let path = packs.join(format!("{name}.pack"));
        let mut bytes = fs::read(&path).expect("read");
        let at = usize::try_from(base.offset).expect("small");
        bytes[at..at + 30].reverse();
        fs::remove_file(&path).expect("removed");
        fs::write(&path, bytes).expect("written");
        let damaged = Fetcher::new(Arc::new(PackFolder::new(packs))).whole(&ids[1], &mut deflated);
        assert!(!matches!(damaged, Ok(Some(_))), "{damaged:?}");
    }

    #[test]
    fn reads_what_we_packed() {
        let (folder, packs) = repository();
        let mut writer = PackWriter::create(&packs).expect("begun");
        let mut base = writer.put(ObjectKind::Blob, &noise(5000)).expect("put");
        let mut content = noise(5000);
        for at in 0..100 {
            content.splice(at * 9..at * 9, *b"more");
            let delta = delta::splice(content.len() - 4, at * 9, 0, b"more");
            base = writer.put_delta(object_id(ObjectKind::Blob, &content), base.offset, 1, &delta).expect("put");
        }
        for size in [0, 1, 8100, 8192, 9000, 4 << 20, (4 << 20) + 1, 9_000_000] {
            writer.put(ObjectKind::Blob, &noise(size)).expect("put");
            writer.put(ObjectKind::Blob, &vec![b'a'; size]).expect("put");
        }
        let large = noise(6_000_000);
        writer.stream_blob(large.len() as u64, &mut &large[..]).expect("put");
        writer.finish().expect("finished");
        let mut fetcher = fetcher(&packs);
        for (id, _, size) in all_objects(folder.path()) {
            let (mut content, mut copied) = (Vec::new(), Vec::new());
            assert_eq!(fetcher.header(&id).expect("read"), Some((ObjectKind::Blob, size)));
            assert_eq!(fetcher.copy_blob(&id, &mut copied).expect("read"), Some(size));
            assert_eq!(fetcher.read(&id, &mut content).expect("read"), Some(ObjectKind::Blob));
            assert_eq!(object_id(ObjectKind::Blob, &content), id);
            assert!(copied == content);
        }
    }

    #[test]
    fn keeps_no_more_than_it_may() {
        let mut bases = Bases::default();
        for number in 0..100 {
            bases.put((1, number), ObjectKind::Tree, &Arc::new(vec![0; 1 << 20]));
            assert!(bases.get((1, number)).is_some());
            assert!(number == 0 || bases.get((1, number - 1)).is_some());
            let kept = bases.young.values().chain(bases.old.values()).map(|(_, content)| content.len()).sum::<usize>();
            assert!(kept <= KEPT);
        }
        bases.put((2, 0), ObjectKind::Tree, &Arc::new(vec![0; KEPT]));
        assert!(bases.get((2, 0)).is_none() && bases.get((1, 0)).is_none());
    }

    #[test]
    fn notices_packs_that_come_and_reads_on_in_those_that_go() {
        let (folder, packs) = repository();
        let objects = Objects::open(&folder.path().join("objects")).expect("opened");
        let mut fetcher = fetcher(&packs);
        let pack = |contents: &[&[u8]]| {
            let mut writer = PackWriter::create(&packs).expect("begun");
            let ids = contents.iter().map(|content| writer.put(ObjectKind::Blob, content).expect("put").id);
            let ids: Vec<_> = ids.collect();
            let name = writer.finish().expect("finished").expect("objects").name;
            (ids, packs.join(format!("{name}.pack")))
        };
        let remove = |pack: &Path| {
            fs::remove_file(pack.with_extension("idx")).expect("removed");
            fs::remove_file(pack).expect("removed");
        };
        let (mut content, absent) = (Vec::new(), object_id(ObjectKind::Blob, b"second"));
        assert_eq!(fetcher.read(&absent, &mut content).expect("read"), None);
        let (first, first_pack) = pack(&[b"first"]);
        make_younger(&packs, 10);
        assert_eq!(fetcher.read(&absent, &mut content).expect("read"), None);
        let (second, second_pack) = pack(&[b"second"]);
        make_younger(&packs, 20);
        for id in [first[0], second[0]] {
            assert!(fetcher.contains(&id) && objects.exists(&id));
        }
        // Only the first is open when both go.
        assert_eq!(fetcher.read(&first[0], &mut content).expect("read"), Some(ObjectKind::Blob));
        remove(&first_pack);
        remove(&second_pack);
        assert_eq!(fetcher.read(&first[0], &mut content).expect("read"), Some(ObjectKind::Blob));
        assert_eq!(content, b"first");
        pack(&[b"first", b"second", b"third"]);
        make_younger(&packs, 30);
        for id in [second[0], first[0]] {
            assert_eq!(fetcher.read(&id, &mut content).expect("read"), Some(ObjectKind::Blob));
            assert_eq!(objects.try_read(&id, &mut content).expect("read"), Some(ObjectKind::Blob));
            assert_eq!(object_id(ObjectKind::Blob, &content), id);
        }
        assert_eq!(fetcher.packs.len(), 1);
        // Loose ones are for gix.
        fs::write(folder.path().join("loose"), b"loose").expect("written");
        let loose = git(folder.path(), &["hash-object", "-w", "loose"]).trim().parse().expect("an id");
        assert_eq!(fetcher.read(&loose, &mut content).expect("read"), None);
        assert_eq!(objects.header(&loose).expect("read"), Some((ObjectKind::Blob, 5)));
        content.clear();
        assert_eq!(objects.copy_blob(&loose, &mut content).expect("read"), 5);
        assert_eq!(content, b"loose");
    }

    /// The id that stands for the n-th entry of a forged pack.
    fn nth(n: u8) -> ObjectId {
        ObjectId::from_bytes([n; 20])
    }

    /// A pack with these entries: their kinds, the sizes that they declare, what is in them.
    fn forge(entries: &[(EntryKind, u64, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let mut pack = pack_header(u32::try_from(entries.len()).expect("few")).to_vec();
        let mut index = Vec::new();
        for (n, (kind, size, content)) in (0..).zip(entries) {
            index.push(IndexEntry { id: nth(n), crc: 0, offset: pack.len() as u64 });
            write_header(&mut pack, *kind, *size);
            store(content, &mut pack);
        }
        pack.extend_from_slice(&[0; 20]);
        fs::write(folder.path().join("pack-1.pack"), pack).expect("written");
        let mut idx = Vec::new();
        write_index(&mut index, &[0; 20], &mut idx).expect("written");
        fs::write(folder.path().join("pack-1.idx"), idx).expect("written");
        folder
    }

    const BLOB: EntryKind = EntryKind::Whole(ObjectKind::Blob);

    #[test]
    fn follows_bases_that_are_told_by_id() {
        let delta = delta::splice(5, 5, 0, b" world");
        let to = |n| EntryKind::IdDelta(nth(n));
        let folder = forge(&[(to(1), delta.len() as u64, &delta), (BLOB, 5, b"hello"), (to(9), 3, b"abc")]);
        let (mut fetcher, mut content) = (fetcher(folder.path()), Vec::new());
        assert_eq!(fetcher.header(&nth(0)).expect("read"), Some((ObjectKind::Blob, 11)));
        assert_eq!(fetcher.read(&nth(0), &mut content).expect("read"), Some(ObjectKind::Blob));
        assert_eq!(content, b"hello world");
        assert_eq!(fetcher.read(&nth(2), &mut content).expect("read"), None, "its base is in no pack");
    }

    #[rstest]
    #[case::more_than_there_is(BLOB, 1 << 50, b"few")]
    #[case::a_little_more(BLOB, 4, b"few")]
    #[case::less(BLOB, 2, b"few")]
    #[case::a_delta_of_nothing(EntryKind::OffsetDelta(14), 0, b"")]
    #[case::a_delta_that_declares_much(EntryKind::OffsetDelta(17), 9, b"\x04\xff\xff\xff\xff\xff\xff\xff\x01")]
    #[case::a_delta_on_itself(EntryKind::OffsetDelta(0), 3, b"abc")]
    #[case::a_base_before_the_pack(EntryKind::OffsetDelta(1 << 40), 3, b"abc")]
    #[case::a_circle(EntryKind::IdDelta(nth(1)), 3, b"abc")]
    fn tells_what_is_damaged(#[case] kind: EntryKind, #[case] size: u64, #[case] content: &[u8]) {
        let folder = forge(&[(BLOB, 4, b"base"), (kind, size, content)]);
        let (mut fetcher, mut out) = (fetcher(folder.path()), Vec::new());
        let read = fetcher.read(&nth(1), &mut out);
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
        let copied = fetcher.copy_blob(&nth(1), &mut out);
        assert!(matches!(copied, Err(StoreError::Damaged { .. })), "{copied:?}");
        drop(fetcher.header(&nth(1)));
        assert_eq!(fetcher.read(&nth(0), &mut out).expect("read"), Some(ObjectKind::Blob));
    }

    #[test]
    fn damage_is_told_or_does_no_harm() {
        let (folder, packs) = with_history(12);
        git(folder.path(), &["repack", "-q", "-a", "-d", "-f", "--depth=20"]);
        let listed = fs::read_dir(&packs).expect("readable").map(|file| file.expect("readable").path());
        let index = listed.into_iter().find(|path| path.extension() == Some(OsStr::new("idx"))).expect("an index");
        let whole = fs::read(index.with_extension("pack")).expect("readable");
        let all = all_objects(folder.path());
        let mut headers = std::collections::HashSet::new();
        let opened = index::File::at(&index, gix_hash::Kind::Sha1).expect("an index");
        for at in opened.sorted_offsets() {
            let len = EntryHeader::parse(&whole[usize::try_from(at).expect("small")..]).map_or(2, |header| header.len);
            headers.extend(at..at + len as u64);
        }
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
        let flips = (0..whole.len(), 0..8u8, proptest::option::weighted(0.1, 0..whole.len()));
        let result = runner.run(&flips, |(at, bit, cut)| {
            let damaged = tempfile::tempdir().expect("a folder");
            fs::copy(&index, damaged.path().join("pack-1.idx")).expect("copied");
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            bytes.truncate(cut.unwrap_or(usize::MAX));
            fs::write(damaged.path().join("pack-1.pack"), bytes).expect("written");
            let (mut fetcher, mut content) = (fetcher(damaged.path()), Vec::new());
            for (id, ..) in &all {
                drop(fetcher.header(id));
                match fetcher.read(id, &mut content) {
                    // The header of an entry has no checksum of its own.
                    Ok(Some(kind)) => {
                        prop_assert!(object_id(kind, &content) == *id || headers.contains(&(at as u64)));
                    }
                    Ok(None) => {}
                    Err(error) => prop_assert!(matches!(error, StoreError::Damaged { .. }), "{}", error),
                }
            }
            Ok(())
        });
        result.expect("told, or without harm");
    }
}
