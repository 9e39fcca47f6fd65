//! The stream of a pack: taken apart into entries, inflated, and written to the disk as it came.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::{Decompress, FlushDecompress, Status};

use super::{Limits, damaged, hostile, too_large};
use crate::id::ObjectId;
use crate::page_cache::WriteBehind;
use crate::store::bundle::unreadable;
use crate::store::checksum::{self, Checksum};
use crate::store::error::StoreError;
use crate::store::large::recipe;
use crate::store::objects::{ObjectHasher, ObjectKind};
use crate::store::pack::entry::{EntryHeader, EntryKind, HeaderError, MAX_ENTRY_HEADER, pack_header};

/// Where a received pack is written to.
#[derive(Clone, Copy)]
pub(super) struct OnDisk<'a> {
    pub(super) file: &'a File,
    /// For errors.
    pub(super) path: &'a Path,
}

/// An entry of the stream.
pub(super) struct Received {
    pub(super) offset: u64,
    pub(super) crc: u32,
    pub(super) kind: EntryKind,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// What was deflated in it.
    Held(Vec<u8>),
    /// The content of a file, by its id.
    Hashed(ObjectId),
    /// Too large to be handed on: to be read from the disk.
    Left,
}

/// What is deflated in an entry is handed on up to this many bytes.
const HANDED: usize = 256 << 10;

/// Takes the stream of a pack apart.
pub(super) struct Spool<'a> {
    from: &'a mut (dyn Read + Send),
    to: OnDisk<'a>,
    limits: &'a Limits,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where in the pack the buffer begins.
    offset: u64,
    /// Of the pack up to there.
    checksum: Checksum,
    behind: WriteBehind,
    /// Of the entry that is being read.
    crc: crc32fast::Hasher,
    inflate: Decompress,
    /// For what passes and is not kept.
    passing: Vec<u8>,
}

impl<'a> Spool<'a> {
    pub(super) fn new(from: &'a mut (dyn Read + Send), to: OnDisk<'a>, limits: &'a Limits) -> Self {
        Self {
            from,
            to,
            limits,
            buffer: vec![0; 256 << 10],
            start: 0,
            end: 0,
            offset: 0,
            checksum: Checksum::default(),
            behind: WriteBehind::default(),
            crc: crc32fast::Hasher::new(),
            inflate: Decompress::new(true),
            passing: vec![0; 64 << 10],
        }
    }

    /// Writes what was consumed to the disk.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        if self.start > 0 {
            let consumed = &self.buffer[..self.start];
            self.to.file.write_all_at(consumed, self.offset).map_err(StoreError::io("write", self.to.path))?;
            self.checksum.update(consumed);
            self.offset += self.start as u64;
            self.behind.reached(self.to.file, self.offset);
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.offset > self.limits.pack_bytes {
            return Err(too_large("the received pack", self.limits.pack_bytes));
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

    /// The number of entries that the pack says it has.
    pub(super) fn count(&mut self) -> Result<u32, StoreError> {
        let len = pack_header(0).len();
        let count = match self.fill(len)?.first_chunk::<12>() {
            Some([b'P', b'A', b'C', b'K', 0, 0, 0, 2, count @ ..]) => u32::from_be_bytes(*count),
            _ => return Err(damaged("it does not begin as a pack does")),
        };
        if count > self.limits.objects {
            return Err(too_large("the number of objects in the received pack", self.limits.objects.into()));
        }
        self.consume(len);
        Ok(count)
    }

    /// The next entry.
    pub(super) fn entry(&mut self) -> Result<Received, StoreError> {
        let offset = self.offset + self.start as u64;
        self.crc = crc32fast::Hasher::new();
        let header = EntryHeader::parse(self.fill(MAX_ENTRY_HEADER)?).map_err(|error| match error {
            HeaderError::Kind(_) => hostile("the received pack", error),
            _ => damaged(error),
        })?;
        self.consume(header.len);
        self.inflate.reset(true);
        let held = self.limits.held_bytes;
        let content = match usize::try_from(header.size) {
            _ if header.kind == EntryKind::Whole(ObjectKind::Blob) => self.blob(header.size)?,
            Ok(size) if size <= held => match self.held(size)? {
                content if content.len() <= HANDED => Content::Held(content),
                _ => Content::Left,
            },
            _ => return Err(too_large("an object in the received pack", held as u64)),
        };
        Ok(Received { offset, crc: self.crc.clone().finalize(), kind: header.kind, content })
    }

    fn held(&mut self, size: usize) -> Result<Vec<u8>, StoreError> {
        // One more, to notice an entry with more than it declares.
        let mut content = vec![0; size + 1];
        match self.inflate(&mut content)? {
            (made, true) if made == size => {
                content.truncate(size);
                Ok(content)
            }
            _ => Err(damaged("an entry has not the size that it declares")),
        }
    }

    /// Hashes a blob as it passes; one that may be a recipe is held.
    fn blob(&mut self, size: u64) -> Result<Content, StoreError> {
        if size > self.limits.blob_bytes {
            return Err(too_large("a content in the received pack", self.limits.blob_bytes));
        }
        let mut hasher = ObjectHasher::new(ObjectKind::Blob, size);
        let mut passing = std::mem::take(&mut self.passing);
        let mut rest = size;
        let mut recipe = Vec::new();
        let hashed = loop {
            let (made, end) = self.inflate(&mut passing)?;
            hasher.update(&passing[..made]);
            let begins = rest == size && size <= recipe::LONGEST as u64 && recipe::begins_as_one(&passing[..made]);
            if begins || !recipe.is_empty() {
                recipe.extend_from_slice(&passing[..made]);
            }
            rest = rest
                .checked_sub(made as u64)
                .filter(|&rest| !end || rest == 0)
                .ok_or_else(|| damaged("an entry has not the size that it declares"))?;
            if end {
                break hasher.finish();
            }
        };
        self.passing = passing;
        Ok(if recipe.is_empty() { Content::Hashed(hashed) } else { Content::Held(recipe) })
    }

    /// Inflates the next bytes into `out`; answers with how many there were, and whether they were the last.
    fn inflate(&mut self, out: &mut [u8]) -> Result<(usize, bool), StoreError> {
        let mut made = 0;
        loop {
            let at_end = self.fill(1)?.is_empty();
            let input = &self.buffer[self.start..self.end];
            let step = step(&mut self.inflate, input, &mut out[made..])?;
            self.consume(step.taken);
            made += step.made;
            match step.end {
                true => return Ok((made, true)),
                _ if made == out.len() => return Ok((made, false)),
                _ if at_end => return Err(damaged("it is cut off")),
                _ => {}
            }
        }
    }

    /// The checksum at the end, which must be right, and where it stands; there must be nothing behind it.
    pub(super) fn trailer(&mut self) -> Result<(u64, [u8; checksum::LEN]), StoreError> {
        self.settle()?;
        let sum = self.checksum.clone().finish().map_err(|error| hostile("the received pack", error))?;
        let end = self.offset;
        let trailer = self.fill(checksum::LEN + 1)?;
        if trailer.len() != checksum::LEN {
            return Err(damaged("it does not end with its checksum"));
        }
        if trailer != sum {
            return Err(damaged("its checksum is wrong"));
        }
        Ok((end, sum))
    }
}

struct Step {
    taken: usize,
    made: usize,
    end: bool,
}

fn step(inflate: &mut Decompress, input: &[u8], out: &mut [u8]) -> Result<Step, StoreError> {
    let (ins, outs) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, out, FlushDecompress::None).map_err(damaged)?;
    Ok(Step {
        taken: usize::try_from(inflate.total_in() - ins).expect("no more than there was"),
        made: usize::try_from(inflate.total_out() - outs).expect("no more than there was room"),
        end: status == Status::StreamEnd,
    })
}

impl OnDisk<'_> {
    pub(super) fn read(&self, buffer: &mut [u8], at: u64) -> Result<usize, StoreError> {
        self.file.read_at(buffer, at).map_err(StoreError::io("read", self.path))
    }

    /// The entry at `offset`, which has been received before, with what is deflated in it: up to `limit` bytes.
    pub(super) fn entry(&self, offset: u64, limit: usize) -> Result<(EntryKind, Vec<u8>), StoreError> {
        let mut buffer = vec![0; 16 << 10];
        let mut at = offset;
        let mut len = self.read(&mut buffer, at)?;
        let header = EntryHeader::parse(&buffer[..len]).map_err(damaged)?;
        let size = usize::try_from(header.size).ok().filter(|&size| size <= limit);
        let size = size.ok_or_else(|| too_large("an object that others are made of", limit as u64))?;
        let mut content = vec![0; size + 1];
        let (mut start, mut made) = (header.len, 0);
        let mut inflate = Decompress::new(true);
        loop {
            if start == len {
                at += len as u64;
                len = self.read(&mut buffer, at)?;
                start = 0;
            }
            let step = step(&mut inflate, &buffer[start..len], &mut content[made..])?;
            start += step.taken;
            made += step.made;
            if step.end && made == size {
                content.truncate(size);
                return Ok((header.kind, content));
            }
            if step.end || len == 0 || made > size {
                return Err(damaged("an entry changed on disk"));
            }
        }
    }
}
