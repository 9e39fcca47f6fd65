//! Writing one pack.
//!
//! Owns the temporary file until [`PackWriter::finish`] has made it durable and visible. Nothing of a pack that was
//! not finished is ever seen; dropped, it leaves nothing behind. The ids of objects are computed here or by
//! [`PackedBlob`]; nobody else's word is taken for them.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::blob::{Deflater, Form, PackedBlob};
use super::entry::{EntryKind, HEADER_LEN, MAX_ENTRY_HEADER, pack_header, write_header};
use super::ids::IdTable;
use super::index::{IndexEntry, write_index};
use crate::id::ObjectId;
use crate::page_cache::WriteBehind;
use crate::store::checksum::Checksum;
use crate::store::durable;
use crate::store::error::StoreError;
use crate::store::objects::{ObjectHasher, ObjectKind, object_id};

/// A pack that is durable and visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its name, without an ending: `pack-<checksum>`.
    pub name: String,
    /// The objects in it.
    pub objects: u64,
    /// The bytes of the pack, without its index.
    pub bytes: u64,
}

/// Whether a pack is an ordered one, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is not.
    None,
    /// The next.
    Youngest,
    /// It takes the place of others, this the youngest of them.
    At(u64),
}

/// Where an object stands in the pack that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The object.
    pub id: ObjectId,
    /// Where its entry begins: for deltas against it.
    pub offset: u64,
    /// How many deltas it stands on, at least.
    pub chain: u8,
}

/// Takes bytes, piece by piece.
pub(crate) type Put<'a> = dyn FnMut(&[u8]) -> Result<(), StoreError> + 'a;

/// A place in a pack that is being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    offset: u64,
    entries: usize,
}

/// Writes a pack.
pub struct PackWriter {
    dir: PathBuf,
    file: BufWriter<NamedTempFile>,
    offset: u64,
    entries: Vec<IndexEntry>,
    /// For each entry, how many deltas it stands on.
    chains: Vec<u8>,
    table: IdTable,
    deflater: Deflater,
    scratch: Vec<u8>,
    behind: WriteBehind,
}

impl PackWriter {
    /// Begins a pack in `pack_dir`.
    pub fn create(pack_dir: &Path) -> Result<Self, StoreError> {
        let file = temporary(pack_dir)?;
        let mut file = BufWriter::with_capacity(256 << 10, file);
        file.write_all(&pack_header(0)).map_err(StoreError::io("write", pack_dir))?;
        Ok(Self {
            dir: pack_dir.to_owned(),
            file,
            offset: HEADER_LEN,
            entries: Vec::new(),
            chains: Vec::new(),
            table: IdTable::default(),
            deflater: Deflater::default(),
            scratch: Vec::new(),
            behind: WriteBehind::default(),
        })
    }

    /// How many objects it has so far.
    pub fn objects(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many bytes it has so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Where the object with this id stands, if it is in the pack.
    pub fn find(&self, id: &ObjectId) -> Option<Placed> {
        let position = self.table.get(id, |position| self.entries[position as usize].id)? as usize;
        Some(Placed { id: *id, offset: self.entries[position].offset, chain: self.chains[position] })
    }

    /// Puts a whole object, deflated where that pays; small ones and commits are stored.
    pub fn put(&mut self, kind: ObjectKind, content: &[u8]) -> Result<Placed, StoreError> {
        self.put_known(kind, object_id(kind, content), content)
    }

    /// Puts a whole object whose id has been computed already.
    pub(crate) fn put_known(&mut self, kind: ObjectKind, id: ObjectId, content: &[u8]) -> Result<Placed, StoreError> {
        if let Some(placed) = self.find(&id) {
            return Ok(placed);
        }
        let mut entry = std::mem::take(&mut self.scratch);
        entry.clear();
        write_header(&mut entry, EntryKind::Whole(kind), content.len() as u64);
        if kind == ObjectKind::Commit {
            super::blob::store(content, &mut entry);
        } else {
            self.deflater.deflate(content, &mut entry);
        }
        let placed = self.append(id, crc32fast::hash(&entry), &entry, 0);
        self.scratch = entry;
        placed
    }

    /// Puts a blob that was made ready elsewhere. If it is a delta whose base is not in the pack yet, whoever calls has
    /// to put that whole before the pack is finished.
    pub fn put_packed(&mut self, blob: &PackedBlob) -> Result<Placed, StoreError> {
        if let Some(placed) = self.find(&blob.id) {
            return Ok(placed);
        }
        match &blob.form {
            Form::Whole { crc, entry } => self.append(blob.id, *crc, entry, 0),
            Form::Delta { base, size, deflated } => {
                let (kind, chain) = match self.find(base) {
                    Some(base) => (EntryKind::OffsetDelta(self.offset - base.offset), base.chain.saturating_add(1)),
                    None => (EntryKind::IdDelta(*base), 1),
                };
                let mut header = Vec::with_capacity(MAX_ENTRY_HEADER);
                write_header(&mut header, kind, *size);
                self.put_raw(blob.id, &header, chain, &mut |put| put(deflated))
            }
        }
    }

    /// Puts the object `id` as a delta, with which it stands on `chain` of them, against the one at offset `base`;
    /// stored, since bundles compress it better.
    pub(crate) fn put_delta(&mut self, id: ObjectId, base: u64, chain: u8, delta: &[u8]) -> Result<Placed, StoreError> {
        debug_assert!(base < self.offset, "the base stands before its delta");
        if let Some(placed) = self.find(&id) {
            return Ok(placed);
        }
        let mut entry = std::mem::take(&mut self.scratch);
        entry.clear();
        write_header(&mut entry, EntryKind::OffsetDelta(self.offset - base), delta.len() as u64);
        super::blob::store(delta, &mut entry);
        let placed = self.append(id, crc32fast::hash(&entry), &entry, chain);
        self.scratch = entry;
        placed
    }

    /// Puts an entry as it lies in another pack, with a header for this one; `id` is what that pack's index says.
    /// Here it stands on `chain` deltas. `deflated` hands on what is deflated in it, in pieces. After an error the pack is
    /// to be dropped.
    pub(crate) fn put_raw(
        &mut self,
        id: ObjectId,
        header: &[u8],
        chain: u8,
        deflated: &mut dyn FnMut(&mut Put<'_>) -> Result<(), StoreError>,
    ) -> Result<Placed, StoreError> {
        if let Some(placed) = self.find(&id) {
            return Ok(placed);
        }
        let placed = Placed { id, offset: self.offset, chain };
        let (mut crc, mut end) = (crc32fast::Hasher::new(), self.offset);
        let path = self.file.get_ref().path().to_owned();
        let mut put = |piece: &[u8]| {
            crc.update(piece);
            end += piece.len() as u64;
            self.file.write_all(piece).map_err(StoreError::io("write", &path))
        };
        put(header)?;
        deflated(&mut put)?;
        self.note(id, crc.finalize(), chain)?;
        self.offset = end;
        Ok(placed)
    }

    /// Puts a blob of `size` bytes from `content` without holding it in memory. Where there are fewer or more bytes
    /// (somebody is writing the file), nothing is put and `None` answers.
    pub fn stream_blob(&mut self, size: u64, content: &mut dyn Read) -> Result<Option<ObjectId>, StoreError> {
        let start = self.offset;
        match self.try_stream(size, content) {
            Ok(Some(entry)) if self.find(&entry.id).is_none() => {
                self.note(entry.id, entry.crc, 0)?;
                self.offset = entry.offset;
                Ok(Some(entry.id))
            }
            other => {
                self.cut_off(start)?;
                Ok(other?.map(|entry| entry.id))
            }
        }
    }

    /// A place to come back to.
    pub(crate) fn mark(&self) -> Mark {
        Mark { offset: self.offset, entries: self.entries.len() }
    }

    /// Forgets what was put since.
    pub(crate) fn rewind(&mut self, mark: Mark) -> Result<(), StoreError> {
        self.cut_off(mark.offset)?;
        self.offset = mark.offset;
        self.entries.truncate(mark.entries);
        self.chains.truncate(mark.entries);
        self.table = IdTable::default();
        for position in 0..self.entries.len() {
            let id = self.entries[position].id;
            let number = u32::try_from(position).expect("counted by `note`");
            self.table.insert(&id, number, |position| self.entries[position as usize].id);
        }
        Ok(())
    }

    fn cut_off(&mut self, end: u64) -> Result<(), StoreError> {
        self.file.flush().map_err(self.failed("write"))?;
        self.file.get_ref().as_file().set_len(end).map_err(self.failed("write"))?;
        self.file.seek(SeekFrom::Start(end)).map_err(self.failed("write"))?;
        Ok(())
    }

    /// Writes the entry; the answer's `offset` is where it ends.
    fn try_stream(&mut self, size: u64, content: &mut dyn Read) -> Result<Option<IndexEntry>, StoreError> {
        let mut header = Vec::new();
        write_header(&mut header, EntryKind::Whole(ObjectKind::Blob), size);
        let mut buffer = vec![0; 256 << 10];
        let mut filled = fill(content, &mut buffer).map_err(StoreError::io("read", Path::new("the file's content")))?;
        let level = if self.deflater.pays(&buffer[..filled]) {
            flate2::Compression::new(1)
        } else {
            flate2::Compression::none()
        };
        let failed = |dir: &Path| {
            let dir = dir.to_owned();
            move |source| StoreError::Io { what: "write", path: dir, source }
        };
        let mut out = Counting { out: &mut self.file, crc: crc32fast::Hasher::new(), len: 0 };
        out.write_all(&header).map_err(failed(&self.dir))?;
        let mut deflate = flate2::write::ZlibEncoder::new(out, level);
        let mut hasher = ObjectHasher::new(ObjectKind::Blob, size);
        let mut rest = size;
        while filled > 0 {
            let Some(left) = rest.checked_sub(filled as u64) else { return Ok(None) };
            rest = left;
            hasher.update(&buffer[..filled]);
            deflate.write_all(&buffer[..filled]).map_err(failed(&self.dir))?;
            filled = fill(content, &mut buffer).map_err(StoreError::io("read", Path::new("the file's content")))?;
        }
        if rest > 0 {
            return Ok(None);
        }
        let out = deflate.finish().map_err(failed(&self.dir))?;
        let end = self.offset + out.len;
        let crc = out.crc.finalize();
        Ok(Some(IndexEntry { id: hasher.finish(), crc, offset: end }))
    }

    fn append(&mut self, id: ObjectId, crc: u32, entry: &[u8], chain: u8) -> Result<Placed, StoreError> {
        self.note(id, crc, chain)?;
        let placed = Placed { id, offset: self.offset, chain };
        self.file.write_all(entry).map_err(self.failed("write"))?;
        self.offset += entry.len() as u64;
        self.behind.reached(self.file.get_ref().as_file(), self.offset);
        Ok(placed)
    }

    /// Lists the entry that begins where the pack ends now.
    fn note(&mut self, id: ObjectId, crc: u32, chain: u8) -> Result<(), StoreError> {
        let position = u32::try_from(self.entries.len()).map_err(|_| StoreError::TooLarge {
            what: "the number of objects in a pack".to_owned(),
            limit: u64::from(u32::MAX),
        })?;
        self.table.insert(&id, position, |position| self.entries[position as usize].id);
        self.entries.push(IndexEntry { id, crc, offset: self.offset });
        self.chains.push(chain);
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = self.file.get_ref().path().to_owned();
        move |source| StoreError::Io { what, path, source }
    }

    /// Makes the pack durable and visible, as an ordered one; `None` (and no pack) if it has no object.
    pub fn finish(self) -> Result<Option<Finished>, StoreError> {
        self.finish_as(Order::Youngest)
    }

    /// As [`Self::finish`], with the marker that `order` asks for.
    pub(crate) fn finish_as(self, order: Order) -> Result<Option<Finished>, StoreError> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        let Self { dir, file, mut entries, offset, .. } = self;
        let file = file.into_inner().map_err(|error| StoreError::io("write", &dir)(error.into_error()))?;
        let checksum = seal(file.as_file(), u32::try_from(entries.len()).expect("counted by `note`"), offset)
            .map_err(StoreError::io("write", file.path()))?;
        publish(&dir, file, &checksum, &mut entries, order).map(Some)
    }
}

/// Reads until `buffer` is full or there is no more.
pub(crate) fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

struct Counting<'a, W> {
    out: &'a mut W,
    crc: crc32fast::Hasher,
    len: u64,
}

impl<W: io::Write> io::Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.crc.update(bytes);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A temporary file for a pack, under a name that `git gc` knows as litter.
pub(crate) fn temporary(dir: &Path) -> Result<NamedTempFile, StoreError> {
    tempfile::Builder::new().prefix(durable::PACK_TEMP_PREFIX).tempfile_in(dir).map_err(StoreError::io("create", dir))
}

/// Puts the number of entries into a pack's header and the checksum behind its last entry, which ends at `end`.
pub(crate) fn seal(file: &File, count: u32, end: u64) -> io::Result<[u8; 20]> {
    use std::os::unix::fs::FileExt as _;
    file.write_all_at(&pack_header(count), 0)?;
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < end {
        let len = usize::try_from(end - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        file.read_exact_at(&mut buffer[..len], at)?;
        checksum.update(&buffer[..len]);
        at += len as u64;
    }
    let checksum = checksum.finish()?;
    file.write_all_at(&checksum, end)?;
    file.set_len(end + super::entry::TRAILER_LEN)?;
    Ok(checksum)
}

/// Whether the pack `at` is here already, as the one in `new`. Its name alone does not tell: it is a checksum, which is
/// no proof (see [`crate::store::checksum`]).
fn is_there(at: &Path, new: &Path) -> Result<bool, StoreError> {
    if !at.exists() || !at.with_extension("idx").exists() {
        return Ok(false);
    }
    let open = |path: &Path| File::open(path).map_err(StoreError::io("open", path));
    let (mut there, mut file) = (open(at)?, open(new)?);
    let (mut buffer, mut other) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    loop {
        let read = fill(&mut there, &mut buffer).map_err(StoreError::io("read", at))?;
        let wanted = fill(&mut file, &mut other).map_err(StoreError::io("read", new))?;
        if buffer[..read] != other[..wanted] {
            let detail = "it should be equal to another pack, by its checksum, and is not";
            return Err(StoreError::damaged(at.display().to_string(), detail));
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

/// Makes a sealed pack durable and visible: synced, then renamed, with its marker and its index, the index last.
pub(crate) fn publish(
    dir: &Path,
    file: NamedTempFile,
    checksum: &[u8; 20],
    entries: &mut [IndexEntry],
    order: Order,
) -> Result<Finished, StoreError> {
    let name = format!("pack-{}", ObjectId::from_bytes(*checksum));
    let pack = dir.join(format!("{name}.pack"));
    let bytes = file.as_file().metadata().map_err(StoreError::io("read", file.path()))?.len();
    let finished = Finished { objects: entries.len() as u64, bytes, name };
    if is_there(&pack, file.path())? {
        return Ok(finished);
    }
    let mut index = tempfile::Builder::new()
        .prefix(durable::PACK_TEMP_PREFIX)
        .tempfile_in(dir)
        .map_err(StoreError::io("create", dir))?;
    write_index(entries, checksum, index.as_file_mut()).map_err(StoreError::io("write", index.path()))?;
    for file in [&file, &index] {
        fs::set_permissions(file.path(), Permissions::from_mode(0o444))
            .map_err(StoreError::io("set the permissions of", file.path()))?;
        durable::sync_file(file.as_file(), file.path())?;
    }
    durable::persist(file, &pack)?;
    let sequence = match order {
        Order::None => None,
        Order::Youngest => Some(super::reader::last_sequence(dir)? + 1),
        Order::At(sequence) => Some(sequence),
    };
    if let Some(sequence) = sequence {
        let marker = dir.join(format!("{}.{sequence:010}.ordered", finished.name));
        File::create(&marker).map_err(StoreError::io("create", &marker))?;
    }
    let path = pack.with_extension("idx");
    durable::persist(index, &path)?;
    durable::sync_dir(dir)?;
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::pack::blob::tests::noise;
    use crate::store::pack::testing::{git, repository};

    #[test]
    fn an_empty_pack_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(PackWriter::create(folder.path()).expect("begun").finish().expect("finished"), None);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_pack_that_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = PackWriter::create(folder.path()).expect("begun");
        writer.put(ObjectKind::Blob, b"hello").expect("put");
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn git_agrees_with_pack_and_index() {
        let (folder, pack_dir) = repository();
        let mut writer = PackWriter::create(&pack_dir).expect("begun");
        let mut deflater = Deflater::default();
        let hello = writer.put(ObjectKind::Blob, b"hello\n").expect("put");
        assert_eq!(hello.id.to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(writer.put(ObjectKind::Blob, b"hello\n").expect("put"), hello);
        let text = "some text ".repeat(5000).into_bytes();
        for content in [&noise(100)[..], &noise(200_000), &text, b""] {
            let blob = PackedBlob::deflate(&mut deflater, content);
            assert_eq!(writer.put_packed(&blob).expect("put").id, object_id(ObjectKind::Blob, content));
        }
        let made = object_id(ObjectKind::Blob, b"hello world\n");
        let delta = super::super::delta::splice(6, 5, 0, b" world");
        writer.put_delta(made, hello.offset, 1, &delta).expect("put");
        let large = [&text[..], &noise(3_000_000)].concat();
        let streamed = writer.stream_blob(large.len() as u64, &mut &large[..]).expect("put");
        assert_eq!(streamed, Some(object_id(ObjectKind::Blob, &large)));
        let finished = writer.finish().expect("finished").expect("objects");
        assert_eq!(finished.objects, 7);

        let pack = pack_dir.join(format!("{}.pack", finished.name));
        assert_eq!(fs::metadata(&pack).expect("there").permissions().mode() & 0o777, 0o444);
        let index = folder.path().join("again.idx");
        git(folder.path(), &["index-pack", "--strict", "-o", &index.to_string_lossy(), &pack.to_string_lossy()]);
        assert_eq!(
            fs::read(&index).expect("git's index"),
            fs::read(pack.with_extension("idx")).expect("our index"),
            "the index is what git would write"
        );
        assert_eq!(git(folder.path(), &["cat-file", "-p", &made.to_string()]), "hello world\n");
        git(folder.path(), &["fsck", "--full", "--strict"]);
    }

    #[test]
    fn a_pack_with_the_name_of_another_is_compared_with_it() {
        let (_folder, pack_dir) = repository();
        let write = || {
            let mut writer = PackWriter::create(&pack_dir).expect("begun");
            writer.put(ObjectKind::Blob, b"hello\n").expect("put");
            writer.finish()
        };
        let first = write().expect("finished").expect("an object");
        assert_eq!(write().expect("there already"), Some(first.clone()));
        let path = pack_dir.join(format!("{}.pack", first.name));
        let mut content = fs::read(&path).expect("readable");
        content[13] ^= 1;
        fs::remove_file(&path).expect("removed");
        fs::write(&path, content).expect("written");
        assert!(matches!(write(), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_blob_of_another_size_than_said_is_taken_back() {
        let (folder, pack_dir) = repository();
        let mut writer = PackWriter::create(&pack_dir).expect("begun");
        writer.put(ObjectKind::Blob, b"before").expect("put");
        let (bytes, text) = (writer.bytes(), b"text ".repeat(200_000));
        for size in [text.len() as u64 - 1, text.len() as u64 + 1, 0] {
            assert_eq!(writer.stream_blob(size, &mut &text[..]).expect("tried"), None);
            assert_eq!(writer.bytes(), bytes);
        }
        let known = writer.stream_blob(6, &mut &b"before"[..]).expect("tried");
        assert_eq!((known, writer.objects()), (Some(object_id(ObjectKind::Blob, b"before")), 1));
        let after = writer.stream_blob(text.len() as u64, &mut &text[..]).expect("put").expect("as many as said");
        writer.put(ObjectKind::Blob, b"after").expect("put");
        writer.finish().expect("finished");
        assert_eq!(git(folder.path(), &["cat-file", "blob", &after.to_string()]).len(), text.len());
        git(folder.path(), &["fsck", "--full", "--strict"]);
    }
}
