//! Contents for the disk: reading many blobs in bounded memory.
//!
//! Most blobs lie whole in packs. Those are read with positioned reads and inflated at once where they are small, as a
//! stream where they are large; nothing is mapped, so that what has been read does not stay resident. Everything else
//! (deltas, loose objects, packs that came later) is left to [`Objects`]. Reads only; what it reads was checked when it
//! was let in, and is not hashed again.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix_pack::index;
use libdeflater::Decompressor;

use super::error::StoreError;
use super::objects::{ObjectKind, Objects, to_gix};
use super::pack::entry::{EntryHeader, EntryKind};
use crate::id::ObjectId;

/// Blobs of up to this many bytes are inflated at once.
const AT_ONCE: u64 = 4 << 20;
/// The first read of an entry: its header, and all of most small ones.
const FIRST_READ: usize = 8 << 10;

struct Pack {
    path: PathBuf,
    index: index::File,
    data: File,
}

/// Reads contents; one a thread.
pub struct Contents {
    packs: Arc<Vec<Pack>>,
    objects: Objects,
    decompressor: Decompressor,
    entry: Vec<u8>,
    content: Vec<u8>,
}

impl Contents {
    /// The contents in the packs of `pack_dir`, and whatever else `objects` has.
    pub fn open(pack_dir: &Path, objects: Objects) -> Result<Self, StoreError> {
        let mut packs = Vec::new();
        for entry in fs::read_dir(pack_dir).map_err(StoreError::io("list", pack_dir))? {
            let path = entry.map_err(StoreError::io("list", pack_dir))?.path();
            if path.extension().is_none_or(|extension| extension != "idx") {
                continue;
            }
            let damaged =
                |error: &dyn ToString| StoreError::damaged(format!("pack index {}", path.display()), error.to_string());
            let index = index::File::at(&path, gix_hash::Kind::Sha1).map_err(|error| damaged(&error))?;
            let path = path.with_extension("pack");
            let data = File::open(&path).map_err(StoreError::io("open", &path))?;
            packs.push(Pack { path, index, data });
        }
        Ok(Self::with(Arc::new(packs), objects))
    }

    fn with(packs: Arc<Vec<Pack>>, objects: Objects) -> Self {
        Self { packs, objects, decompressor: Decompressor::new(), entry: Vec::new(), content: Vec::new() }
    }

    /// Another reader of the same packs, for another thread.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::with(Arc::clone(&self.packs), self.objects.clone())
    }

    /// Writes the content of a blob to `out`; returns its size in bytes.
    pub fn copy(&mut self, id: &ObjectId, out: &mut dyn Write) -> Result<u64, StoreError> {
        let packs = Arc::clone(&self.packs);
        for pack in packs.iter() {
            if let Some(at) = pack.index.lookup(to_gix(id))
                && let Some(copied) = self.copy_entry(pack, pack.index.pack_offset_at_index(at), id, out)?
            {
                return Ok(copied);
            }
        }
        self.objects.copy_blob(id, out)
    }

    /// Copies an entry; `None` if it is not a whole blob.
    fn copy_entry(
        &mut self,
        pack: &Pack,
        offset: u64,
        id: &ObjectId,
        out: &mut dyn Write,
    ) -> Result<Option<u64>, StoreError> {
        let failed = StoreError::io("read", &pack.path);
        let damaged =
            |detail: &str| StoreError::damaged(format!("pack {}", pack.path.display()), format!("blob {id} {detail}"));
        self.entry.resize(FIRST_READ, 0);
        let read = read_at(&pack.data, &mut self.entry, offset).map_err(failed)?;
        let header = EntryHeader::parse(&self.entry[..read]).map_err(|_| damaged("cannot be read"))?;
        if header.kind != EntryKind::Whole(ObjectKind::Blob) {
            return Ok(None);
        }
        let size = usize::try_from(header.size).map_err(|_| damaged("is too large"))?;
        let wrote = |source| StoreError::Io { what: "write", path: format!("the content of blob {id}").into(), source };
        if header.size > AT_ONCE {
            let stream = Stream { file: &pack.data, offset: offset + header.len as u64 };
            let inflated = flate2::bufread::ZlibDecoder::new(BufReader::with_capacity(256 << 10, stream));
            let copied = io::copy(&mut inflated.take(header.size), out).map_err(wrote)?;
            return if copied == header.size { Ok(Some(copied)) } else { Err(damaged("is cut off")) };
        }
        // Deflated, it is hardly ever larger than it is, and never by more than this.
        let most = header.len + size + size / 1000 + 64;
        if most > read && read == FIRST_READ {
            self.entry.resize(most, 0);
            let more = read_at(&pack.data, &mut self.entry[read..], offset + read as u64);
            let length = read + more.map_err(StoreError::io("read", &pack.path))?;
            self.entry.truncate(length);
        } else {
            self.entry.truncate(read);
        }
        self.content.resize(size, 0);
        let inflated = self.decompressor.zlib_decompress(&self.entry[header.len..], &mut self.content);
        match inflated {
            Ok(made) if made == size => {}
            _ => return Err(damaged("cannot be inflated")),
        }
        out.write_all(&self.content).map_err(wrote)?;
        Ok(Some(header.size))
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
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
