//! The index of a pack (`.idx`, version 2), byte for byte as `git index-pack` writes it.

use std::io::{self, Write};

use crate::id::ObjectId;
use crate::store::checksum::Summing;

/// What the index says of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The object's id.
    pub id: ObjectId,
    /// CRC-32 of the entry as it lies in the pack.
    pub crc: u32,
    /// Where in the pack the entry begins.
    pub offset: u64,
}

/// Writes the index of the pack with this checksum; sorts the entries by id.
pub fn write_index(entries: &mut [IndexEntry], pack_checksum: &[u8; 20], out: &mut impl Write) -> io::Result<()> {
    entries.sort_unstable_by(|a, b| a.id.cmp(&b.id).then(a.offset.cmp(&b.offset)));
    let mut out = Summing::new(out);
    let mut chunk = Vec::with_capacity(64 << 10);
    let mut put = |bytes: &[u8], flush: bool| -> io::Result<()> {
        chunk.extend_from_slice(bytes);
        if flush || chunk.len() > (64 << 10) - 64 {
            out.write_all(&chunk)?;
            chunk.clear();
        }
        Ok(())
    };
    put(b"\xfftOc\0\0\0\x02", false)?;
    let mut at = 0;
    for first in 0..=255u8 {
        at += entries[at..].partition_point(|entry| entry.id.as_bytes()[0] <= first);
        put(&u32::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?.to_be_bytes(), false)?;
    }
    for entry in &*entries {
        put(entry.id.as_bytes(), false)?;
    }
    for entry in &*entries {
        put(&entry.crc.to_be_bytes(), false)?;
    }
    let mut large = Vec::new();
    for entry in &*entries {
        let offset = match u32::try_from(entry.offset) {
            Ok(offset) if offset < 1 << 31 => offset,
            _ => {
                large.extend_from_slice(&entry.offset.to_be_bytes());
                u32::try_from(large.len() / 8 - 1).map_err(|_| io::ErrorKind::InvalidInput)? | 1 << 31
            }
        };
        put(&offset.to_be_bytes(), false)?;
    }
    put(&large, false)?;
    put(pack_checksum, true)?;
    out.out.write_all(&out.checksum.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_offsets_beyond_two_gib_in_a_table_of_their_own() {
        let entry = |n: u8, offset| IndexEntry { id: ObjectId::from_bytes([n; 20]), crc: u32::from(n), offset };
        let mut entries = [entry(9, 1 << 31), entry(3, 12), entry(200, 1 << 40), entry(100, (1 << 31) - 1)];
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pack-1.idx");
        write_index(&mut entries, &[7; 20], &mut std::fs::File::create(&path).expect("a file")).expect("written");
        let index = gix_pack::index::File::at(&path, gix_hash::Kind::Sha1).expect("an index");
        assert_eq!(index.num_objects(), 4);
        for entry in entries {
            let at = index.lookup(crate::store::objects::to_gix(&entry.id)).expect("found");
            assert_eq!(index.pack_offset_at_index(at), entry.offset);
            assert_eq!(index.crc32_at_index(at), Some(entry.crc));
        }
        assert_eq!(index.pack_checksum().as_bytes(), [7; 20]);
    }
}
