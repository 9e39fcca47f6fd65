//! The entries of a pack: their headers, and the numbers in them.
//!
//! Format: `gitformat-pack(5)`. Everything here works on bytes in memory that may come from a peer; nothing is
//! allocated by what they declare.

use crate::id::ObjectId;
use crate::store::objects::ObjectKind;

/// The bytes in front of the first entry: `PACK`, version, number of entries.
pub const HEADER_LEN: u64 = 12;
/// The bytes behind the last entry: the SHA-1 of all before.
pub const TRAILER_LEN: u64 = 20;
/// The most bytes that the header of an entry can have, with the reference to its base.
pub const MAX_ENTRY_HEADER: usize = 10 + 20;

/// What an entry holds: a whole object, or a delta against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A whole object.
    Whole(ObjectKind),
    /// A delta against the entry that begins so many bytes before this one.
    OffsetDelta(u64),
    /// A delta against the object with this id.
    IdDelta(ObjectId),
}

/// The header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    /// What it holds.
    pub kind: EntryKind,
    /// The bytes that are deflated in it: the object's, or the delta's.
    pub size: u64,
    /// The bytes of the header itself.
    pub len: usize,
}

/// Why bytes are no header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There are too few bytes.
    #[error("it is cut off")]
    Cut,
    /// There is no such kind of entry, or none that foldersync takes (annotated tags).
    #[error("an entry has the kind {0}, which foldersync does not know")]
    Kind(u8),
    /// A number has more bits than fit.
    #[error("a number is too large")]
    Number,
}

const fn code(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Commit => 1,
        ObjectKind::Tree => 2,
        ObjectKind::Blob => 3,
    }
}

/// The header of a pack with so many entries.
pub fn pack_header(count: u32) -> [u8; 12] {
    let mut header = *b"PACK\0\0\0\x02\0\0\0\0";
    header[8..].copy_from_slice(&count.to_be_bytes());
    header
}

fn write_kind_and_size(out: &mut Vec<u8>, code: u8, mut size: u64) {
    let mut byte = code << 4 | (size & 15) as u8;
    size >>= 4;
    while size > 0 {
        out.push(byte | 0x80);
        byte = (size & 0x7f) as u8;
        size >>= 7;
    }
    out.push(byte);
}

/// Appends the header of an entry.
pub fn write_header(out: &mut Vec<u8>, kind: EntryKind, size: u64) {
    match kind {
        EntryKind::Whole(kind) => write_kind_and_size(out, code(kind), size),
        EntryKind::IdDelta(base) => {
            write_kind_and_size(out, 7, size);
            out.extend_from_slice(base.as_bytes());
        }
        EntryKind::OffsetDelta(distance) => {
            write_kind_and_size(out, 6, size);
            let mut bytes = [0; 10];
            let mut at = bytes.len() - 1;
            let mut rest = distance;
            bytes[at] = (rest & 0x7f) as u8;
            while rest > 0x7f {
                rest = (rest >> 7) - 1;
                at -= 1;
                bytes[at] = 0x80 | (rest & 0x7f) as u8;
            }
            out.extend_from_slice(&bytes[at..]);
        }
    }
}

impl EntryHeader {
    /// The header that `bytes` begin with.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut rest = bytes.iter().copied();
        let mut next = || rest.next().ok_or(HeaderError::Cut);
        let mut byte = next()?;
        let mut len = 1;
        let code = byte >> 4 & 7;
        let mut size = u64::from(byte & 15);
        let mut shift = 4;
        while byte & 0x80 != 0 {
            byte = next()?;
            len += 1;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || bits << shift >> shift != bits {
                return Err(HeaderError::Number);
            }
            size |= bits << shift;
            shift += 7;
        }
        let kind = match code {
            1 => EntryKind::Whole(ObjectKind::Commit),
            2 => EntryKind::Whole(ObjectKind::Tree),
            3 => EntryKind::Whole(ObjectKind::Blob),
            6 => {
                let mut byte = next()?;
                len += 1;
                let mut distance = u64::from(byte & 0x7f);
                while byte & 0x80 != 0 {
                    byte = next()?;
                    len += 1;
                    if distance >= 1 << 56 {
                        return Err(HeaderError::Number);
                    }
                    distance = (distance + 1) << 7 | u64::from(byte & 0x7f);
                }
                EntryKind::OffsetDelta(distance)
            }
            7 => {
                let id = bytes.get(len..len + 20).and_then(ObjectId::from_slice).ok_or(HeaderError::Cut)?;
                len += 20;
                EntryKind::IdDelta(id)
            }
            other => return Err(HeaderError::Kind(other)),
        };
        Ok(Self { kind, size, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::Whole(ObjectKind::Commit)),
            Just(EntryKind::Whole(ObjectKind::Tree)),
            Just(EntryKind::Whole(ObjectKind::Blob)),
            (0u64..1 << 56).prop_map(EntryKind::OffsetDelta),
            (0u64..1 << 10).prop_map(EntryKind::OffsetDelta),
            any::<[u8; 20]>().prop_map(|id| EntryKind::IdDelta(ObjectId::from_bytes(id))),
        ]
    }

    proptest! {
        #[test]
        fn reads_the_headers_that_it_writes(kind in kinds(), size: u64, size_bits in 0u32..64) {
            let size = size >> size_bits;
            let mut bytes = Vec::new();
            write_header(&mut bytes, kind, size);
            let len = bytes.len();
            prop_assert!(len <= MAX_ENTRY_HEADER);
            prop_assert_eq!(EntryHeader::parse(&bytes[..len - 1]), Err(HeaderError::Cut));
            bytes.push(0xff);
            prop_assert_eq!(EntryHeader::parse(&bytes), Ok(EntryHeader { kind, size, len }));
        }

        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(header) = EntryHeader::parse(&bytes) {
                prop_assert!(header.len <= bytes.len());
            }
        }
    }

    #[test]
    fn refuses_endless_numbers() {
        assert_eq!(EntryHeader::parse(&[0xff; 40]), Err(HeaderError::Number));
        assert_eq!(EntryHeader::parse(&[&[0x60][..], &[0xff; 40]].concat()), Err(HeaderError::Number));
        assert_eq!(EntryHeader::parse(&[0x40]), Err(HeaderError::Kind(4)));
    }
}
