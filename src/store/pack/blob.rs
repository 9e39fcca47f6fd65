//! Deflating: contents made ready for a pack, on whichever thread has the time.
//!
//! Content that does not get smaller is *stored* (a deflate stream of plain blocks): deflating random bytes costs more
//! time than all else and makes them larger. Small things are stored too: bundles compress them better, many at a
//! time, than deflate does one by one.

use libdeflater::{CompressionLvl, Compressor, Decompressor};

use super::delta;
use super::entry::{EntryKind, MAX_ENTRY_HEADER, write_header};
use crate::id::ObjectId;
use crate::store::objects::{ObjectKind, object_id};

/// What has fewer bytes is stored, not deflated.
const STORE_BELOW: usize = 256;
/// Contents with more bytes are tried on a sample first.
const PROBE_ABOVE: usize = 64 << 10;
/// How much of a content is tried, at a time.
const PROBE: usize = 4 << 10;
/// Deflating: level 1 is five times as fast as git's own 6, for a tenth more bytes.
const LEVEL: i32 = 1;

/// Deflates; keeps its buffers, so one a thread.
pub struct Deflater {
    deflate: Compressor,
    out: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self {
            deflate: Compressor::new(CompressionLvl::new(LEVEL).expect("libdeflate has levels 0 to 12")),
            out: Vec::new(),
        }
    }
}

impl Deflater {
    /// Appends `content` as a zlib stream: deflated, or stored where that would not pay.
    pub fn deflate(&mut self, content: &[u8], out: &mut Vec<u8>) {
        if content.len() >= STORE_BELOW && self.pays(content) {
            let bound = self.deflate.zlib_compress_bound(content.len());
            let start = out.len();
            out.resize(start + bound, 0);
            if let Ok(len) = self.deflate.zlib_compress(content, &mut out[start..])
                && len < content.len()
            {
                out.truncate(start + len);
                return;
            }
            out.truncate(start);
        }
        store(content, out);
    }

    /// Whether deflating this content would make it noticeably smaller, by samples where it is large.
    pub fn pays(&mut self, content: &[u8]) -> bool {
        content.len() <= PROBE_ABOVE || self.saves(content, 1, 20)
    }

    /// Whether deflating makes samples of this content smaller by this part of them.
    fn saves(&mut self, content: &[u8], part: usize, of: usize) -> bool {
        if content.len() < 4 * PROBE {
            return true;
        }
        // The beginning is left out: many formats have headers of text before their compressed parts.
        let samples = [1, 2, 3].map(|quarter| &content[content.len() / 4 * quarter..][..PROBE]);
        let (mut before, mut after) = (0, 0);
        for sample in samples {
            self.out.resize(self.deflate.zlib_compress_bound(sample.len()), 0);
            before += sample.len();
            after += self.deflate.zlib_compress(sample, &mut self.out).unwrap_or(sample.len());
        }
        after * of < before * (of - part)
    }
}

/// Appends `content` as a zlib stream of stored blocks.
pub fn store(content: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x78, 0x01]);
    let mut rest = content;
    loop {
        let (block, after) = rest.split_at(rest.len().min(usize::from(u16::MAX)));
        let len = u16::try_from(block.len()).expect("split there");
        out.push(u8::from(after.is_empty()));
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    out.extend_from_slice(&libdeflater::adler32(content).to_be_bytes());
}

/// A blob as it will lie in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedBlob {
    pub(super) id: ObjectId,
    pub(super) form: Form,
}

/// What of a blob lies in the pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// All of it: the entry, with its header, and its checksum.
    Whole { crc: u32, entry: Box<[u8]> },
    /// A delta of `size` bytes against another blob: the zlib stream.
    Delta { base: ObjectId, size: u64, deflated: Box<[u8]> },
}

impl PackedBlob {
    /// Hashes and deflates a content.
    pub fn deflate(deflater: &mut Deflater, content: &[u8]) -> Self {
        Self::whole(deflater, object_id(ObjectKind::Blob, content), content)
    }

    /// Deflates a content whose id has been computed already.
    pub(super) fn whole(deflater: &mut Deflater, id: ObjectId, content: &[u8]) -> Self {
        let mut entry = Vec::new();
        write_header(&mut entry, EntryKind::Whole(ObjectKind::Blob), content.len() as u64);
        deflater.deflate(content, &mut entry);
        Self::of_entry(id, entry)
    }

    /// A chunk of a large file, whose id has been computed already: deflated where that halves it. Less is not worth the
    /// time, which is several times that of everything else.
    pub(crate) fn chunk(id: ObjectId, deflater: &mut Deflater, content: &[u8]) -> Self {
        let mut entry = Vec::new();
        write_header(&mut entry, EntryKind::Whole(ObjectKind::Blob), content.len() as u64);
        if deflater.saves(content, 1, 2) {
            deflater.deflate(content, &mut entry);
        } else {
            store(content, &mut entry);
        }
        Self::of_entry(id, entry)
    }

    fn of_entry(id: ObjectId, entry: Vec<u8>) -> Self {
        Self { id, form: Form::Whole { crc: crc32fast::hash(&entry), entry: entry.into_boxed_slice() } }
    }

    /// A blob as the delta that makes it out of `base`.
    pub(super) fn delta(deflater: &mut Deflater, id: ObjectId, base: ObjectId, delta: &[u8]) -> Self {
        let mut deflated = Vec::new();
        deflater.deflate(delta, &mut deflated);
        let form = Form::Delta { base, size: delta.len() as u64, deflated: deflated.into_boxed_slice() };
        Self { id, form }
    }

    /// The blob's id.
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// The blob that it is a delta against; `None` if it is whole.
    pub const fn base(&self) -> Option<ObjectId> {
        match &self.form {
            Form::Whole { .. } => None,
            Form::Delta { base, .. } => Some(*base),
        }
    }

    /// The bytes that it takes in the pack, at most.
    pub const fn packed_len(&self) -> usize {
        match &self.form {
            Form::Whole { entry, .. } => entry.len(),
            Form::Delta { deflated, .. } => MAX_ENTRY_HEADER + deflated.len(),
        }
    }

    /// The content, if it is a delta against this content.
    pub(in crate::store) fn made_of(&self, base: &[u8]) -> Option<Vec<u8>> {
        let Form::Delta { size, deflated, .. } = &self.form else { return None };
        let mut delta = vec![0; usize::try_from(*size).ok()?];
        let made = Decompressor::new().zlib_decompress(deflated, &mut delta).ok()?;
        let content = delta::apply(base, &delta[..made], usize::MAX).ok()?;
        (object_id(ObjectKind::Blob, &content) == self.id).then_some(content)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use std::io::Read as _;

    /// Bytes without any pattern.
    pub(crate) fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .flatten()
        .take(len)
        .collect()
    }

    #[rstest]
    #[case::nothing(Vec::new(), false)]
    #[case::small(b"hello".to_vec(), false)]
    #[case::text(b"all work and no play ".repeat(50), true)]
    #[case::much_text(b"all work and no play ".repeat(50_000), true)]
    #[case::noise(noise(10_000), false)]
    #[case::much_noise(noise(300_000), false)]
    fn deflates_what_gets_smaller_and_stores_the_rest(#[case] content: Vec<u8>, #[case] smaller: bool) {
        let mut out = Vec::new();
        Deflater::default().deflate(&content, &mut out);
        let mut back = Vec::new();
        flate2::read::ZlibDecoder::new(&out[..]).read_to_end(&mut back).expect("a zlib stream");
        assert_eq!(back, content);
        assert_eq!(out.len() < content.len(), smaller);
        assert!(out.len() <= content.len() + 6 + 5 * (1 + content.len() / 65535));
    }
}
