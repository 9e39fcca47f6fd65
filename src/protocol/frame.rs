//! Preamble and frames: where one message ends and the next begins.
//!
//! Owns the types of frames and their size limits. Holds at most one frame, and allocates for it only after its length
//! has been found to be allowed for its type.

use std::fmt;

use super::error::ProtocolError;
use super::message::Message;
use super::wire;

/// What each side sends first.
pub const PREAMBLE: [u8; 16] = *b"foldersync/1\r\n\xff\n";

/// How much of the preamble is the name alone: what differs after it was mangled, or is of another form.
const NAME: usize = "foldersync/".len();

/// How much of what is not a preamble is kept to be shown.
const SHOWN: usize = 64;

/// Type and length.
pub(super) const HEADER: usize = 5;

/// From here up, types that are not known are skipped.
const SKIPPABLE: u8 = 0x80;

/// The largest payload of a frame that is skipped.
const SKIPPED_LIMIT: u32 = 64 << 10;

/// The largest payload of `BundleData`.
pub(super) const DATA_LIMIT: usize = 256 << 10;

macro_rules! kinds {
    ($($name:ident = $byte:literal, $limit:expr;)*) => {
        /// The type of a message; its number is the frame's first byte.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $(
                #[doc = concat!("See [`Message::", stringify!($name), "`].")]
                $name = $byte,
            )*
        }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The largest payload of a frame of this kind, in bytes.
            pub const fn limit(self) -> usize {
                match self {
                    $(Self::$name => $limit,)*
                }
            }
        }
    };
}

kinds! {
    Hello = 0x01, 16 << 10;
    Locate = 0x02, 1 << 10;
    Located = 0x03, 8 << 10;
    Common = 0x04, 8 << 10;
    Offer = 0x05, 1 << 10;
    BundleBegin = 0x10, 32 << 10;
    BundleData = 0x11, DATA_LIMIT;
    BundleEnd = 0x12, 1 << 10;
    Stored = 0x13, 1 << 10;
    Rejected = 0x14, 4 << 10;
    SentAll = 0x15, 1 << 10;
    Merged = 0x20, 1 << 10;
    Bye = 0x21, 1 << 10;
    Fault = 0x7f, 4 << 10;
    Notice = 0x80, 4 << 10;
    Working = 0x81, 1 << 10;
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Appends the header of a frame.
pub(super) fn write_header(kind: Kind, length: usize, out: &mut Vec<u8>) {
    debug_assert!(length <= kind.limit());
    out.push(kind as u8);
    out.extend_from_slice(&u32::try_from(length).expect("limits are far below 4 GiB").to_be_bytes());
}

/// Puts messages together from bytes that come in any pieces.
#[derive(Debug, Default)]
pub(super) enum Reader {
    /// So many bytes of the preamble have come, all of them right.
    Preamble(usize),
    /// Between frames, or in the header of one.
    Header { bytes: [u8; HEADER], filled: usize },
    /// In a payload, of which all of `payload` has come.
    Payload { kind: Kind, length: usize, payload: Vec<u8> },
    /// In a payload that nobody needs.
    Skip { left: usize },
    /// Nothing to be read; only while the state changes.
    #[default]
    Nothing,
}

/// Takes up to `count` bytes off the front.
fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken
}

impl Reader {
    /// At the very beginning.
    pub(super) const fn new() -> Self {
        Self::Preamble(0)
    }

    const fn between_frames() -> Self {
        Self::Header { bytes: [0; HEADER], filled: 0 }
    }

    /// Whether the stream may end here: not within a frame or the preamble, and not before anything has come.
    pub(super) const fn is_between_frames(&self) -> bool {
        matches!(self, Self::Header { filled: 0, .. })
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        if let Self::Payload { payload, .. } = self { payload.capacity() } else { 0 }
    }

    /// Takes bytes off `input` until a message is complete (the rest stays) or no bytes are left.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ProtocolError> {
        loop {
            *self = match std::mem::take(self) {
                Self::Preamble(seen) => Self::preamble(seen, input)?,
                Self::Header { mut bytes, filled } => {
                    let taken = take(input, HEADER - filled);
                    bytes[filled..filled + taken.len()].copy_from_slice(taken);
                    let filled = filled + taken.len();
                    if filled < HEADER { Self::Header { bytes, filled } } else { Self::payload(bytes)? }
                }
                Self::Payload { kind, length, mut payload } => {
                    payload.extend_from_slice(take(input, length - payload.len()));
                    if payload.len() == length {
                        *self = Self::between_frames();
                        return wire::decode(kind, payload).map(Some);
                    }
                    Self::Payload { kind, length, payload }
                }
                Self::Skip { left } => match left - take(input, left).len() {
                    0 => Self::between_frames(),
                    left => Self::Skip { left },
                },
                Self::Nothing => return Err(ProtocolError::Over),
            };
            if input.is_empty() && !self.is_complete() {
                return Ok(None);
            }
        }
    }

    /// Whether there is something to do without further bytes.
    fn is_complete(&self) -> bool {
        match self {
            Self::Payload { length, payload, .. } => payload.len() == *length,
            Self::Skip { left } => *left == 0,
            _ => false,
        }
    }

    fn preamble(seen: usize, input: &mut &[u8]) -> Result<Self, ProtocolError> {
        let expected = &PREAMBLE[seen..];
        let same = expected.iter().zip(*input).take_while(|(a, b)| a == b).count();
        if same < expected.len().min(input.len()) {
            let mut shown = PREAMBLE[..seen].to_vec();
            shown.extend_from_slice(take(input, SHOWN - seen));
            return Err(if seen + same < NAME {
                ProtocolError::NotFoldersync { seen: shown }
            } else {
                ProtocolError::Mangled { seen: shown }
            });
        }
        take(input, same);
        Ok(if same == expected.len() { Self::between_frames() } else { Self::Preamble(seen + same) })
    }

    fn payload([byte, length @ ..]: [u8; HEADER]) -> Result<Self, ProtocolError> {
        let length = u32::from_be_bytes(length);
        let Some(kind) = Kind::from_byte(byte) else {
            if byte < SKIPPABLE {
                return Err(ProtocolError::UnknownType { byte });
            }
            if length > SKIPPED_LIMIT {
                return Err(ProtocolError::SkippedTooLong { byte, length, limit: SKIPPED_LIMIT });
            }
            return Ok(Self::Skip { left: length as usize });
        };
        let length = length as usize;
        if length > kind.limit() {
            return Err(ProtocolError::TooLong { kind, length, limit: kind.limit() });
        }
        Ok(Self::Payload { kind, length, payload: Vec::with_capacity(length) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    fn all(mut bytes: &[u8], reader: &mut Reader) -> Result<Vec<Message>, ProtocolError> {
        let mut messages = Vec::new();
        while let Some(message) = reader.read(&mut bytes)? {
            messages.push(message);
        }
        assert!(bytes.is_empty(), "bytes were left lying");
        Ok(messages)
    }

    fn stream(messages: &[Message]) -> Vec<u8> {
        let mut bytes = PREAMBLE.to_vec();
        for message in messages {
            wire::encode(message, &mut bytes).unwrap();
        }
        bytes
    }

    fn error_on(bytes: &[u8]) -> ProtocolError {
        all(bytes, &mut Reader::new()).expect_err("not a stream of ours")
    }

    #[test]
    fn the_numbers_of_the_kinds_tell_them_apart() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_byte(*kind as u8), Some(*kind));
        }
        assert!(Kind::ALL.is_sorted());
    }

    #[test]
    fn the_specification_lists_every_kind_under_its_number() {
        let listed = include_str!("mod.rs").lines().filter_map(|line| {
            let (number, name) = line.strip_prefix("//! | ")?.split_once(" | ")?;
            let number = u8::from_str_radix(number, 16).ok()?;
            Some((number, name.split('`').nth(1)?.to_owned()))
        });
        let there = Kind::ALL.iter().map(|kind| (*kind as u8, kind.to_string()));
        assert_eq!(listed.collect::<Vec<_>>(), there.collect::<Vec<_>>());
    }

    #[test]
    fn text_in_place_of_the_protocol_is_told_apart_at_its_first_byte() {
        let error =
            error_on(b"Welcome to nas!\r\n\x1b[0m\nfoldersync/1\r\n\xff\n and a long rest that is not shown at all");
        assert_eq!(
            error.to_string(),
            "the other side does not speak foldersync: it began with \
             `Welcome to nas!\\r\\n\\x1b[0m\\nfoldersync/1\\r\\n\\xff\\n and a long rest that is n`"
        );
        assert!(matches!(error_on(b"W"), ProtocolError::NotFoldersync { seen } if seen == b"W"));
    }

    #[test]
    fn a_channel_that_changes_line_ends_is_named() {
        for mangled in
            [&b"foldersync/1\n\xff\n"[..], b"foldersync/1\r\n\xff\r\n", b"foldersync/1\r\n\x7f\n", b"foldersync/2"]
        {
            assert!(matches!(error_on(mangled), ProtocolError::Mangled { seen } if seen == mangled));
        }
    }

    #[test]
    fn what_does_not_fit_its_type_is_refused_before_it_is_read() {
        for kind in Kind::ALL {
            let mut bytes = PREAMBLE.to_vec();
            bytes.push(*kind as u8);
            let mut reader = Reader::new();
            let length = u32::try_from(kind.limit()).unwrap();
            bytes.extend_from_slice(&length.to_be_bytes());
            assert_eq!(all(&bytes, &mut reader).unwrap(), []);
            assert_eq!(reader.held(), kind.limit());
            let from = bytes.len() - 4;
            bytes[from..].copy_from_slice(&(length + 1).to_be_bytes());
            assert!(matches!(error_on(&bytes), ProtocolError::TooLong { kind: of, .. } if of == *kind));
        }
    }

    #[test]
    fn types_of_later_versions_are_skipped_only_where_that_is_safe() {
        let mut bytes = stream(&[Message::Bye]);
        bytes.extend_from_slice(b"\xfe\0\0\0\x05later\x99\0\0\0\0");
        wire::encode(&Message::Working, &mut bytes).unwrap();
        assert_eq!(all(&bytes, &mut Reader::new()).unwrap(), [Message::Bye, Message::Working]);

        let mut reader = Reader::new();
        assert!(all(&stream(&[]), &mut reader).unwrap().is_empty());
        assert!(matches!(all(b"\x60\0\0\0\0", &mut reader), Err(ProtocolError::UnknownType { byte: 0x60 })));

        let mut huge = PREAMBLE.to_vec();
        huge.extend_from_slice(b"\xfe\0\x01\0\x01");
        assert!(matches!(error_on(&huge), ProtocolError::SkippedTooLong { byte: 0xfe, length: 0x10001, .. }));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_messages(
            messages in prop::collection::vec(samples::any_message(), 0..8),
            pieces in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let bytes = stream(&messages);
            prop_assert_eq!(&all(&bytes, &mut Reader::new()).unwrap(), &messages);
            let (mut rest, mut pieces) = (&bytes[..], pieces.into_iter().cycle());
            let (mut reader, mut seen) = (Reader::new(), Vec::new());
            while !rest.is_empty() {
                seen.extend(all(take(&mut rest, pieces.next().unwrap()), &mut reader).unwrap());
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(reader.is_between_frames());
        }

        #[test]
        fn a_truncated_stream_gives_whole_messages_only(
            messages in prop::collection::vec(samples::any_message(), 1..4), cut in any::<prop::sample::Index>(),
        ) {
            let bytes = stream(&messages);
            let cut = cut.index(bytes.len());
            let mut reader = Reader::new();
            let seen = all(&bytes[..cut], &mut reader).unwrap();
            prop_assert_eq!(&seen[..], &messages[..seen.len()]);
            prop_assert!(seen.len() < messages.len());
            prop_assert_eq!(reader.is_between_frames(), stream(&seen).len() == cut);
        }

        #[test]
        fn garbage_is_an_error_and_never_more_than_a_frame(
            kind in prop::sample::select(Kind::ALL), garbage in prop::collection::vec(any::<u8>(), 0..600), framed: bool,
        ) {
            let mut bytes = PREAMBLE.to_vec();
            if framed && garbage.len() <= kind.limit() {
                write_header(kind, garbage.len(), &mut bytes);
            }
            bytes.extend_from_slice(&garbage);
            let mut reader = Reader::new();
            drop(all(&bytes, &mut reader));
            prop_assert!(reader.held() <= DATA_LIMIT);
        }
    }
}
