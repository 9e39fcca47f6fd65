//! What two daemons say to each other on the streams of a link, before and beside exchanges.
//!
//! This header is the specification. A **link** is a connection between two devices that have proved their keys; either
//! side opens streams on it. The side that opens a stream says first what it is for ([`Opening`]): an exchange of one
//! folder (the [exchange protocol](super) follows, both ways), or news (the opener's and the other's [`News`] follow,
//! both ways, until the link ends). The dialer of the link opens one stream for news; no side opens a second.
//!
//! A frame is the length of its payload (2 bytes, big-endian, at most [`FRAME_LIMIT`]) and a CBOR map with small
//! numbers as keys; number 0 tells the kind. Unknown keys are skipped, unknown kinds too, so that later versions may
//! say more. A frame that is too large or makes no sense ends the link.
//!
//! **News.** First [`News::Greeting`], with a number drawn anew whenever a daemon starts: a device that is linked twice
//! with different numbers is two devices with one key. Then [`News::Head`] for each folder that both have part in, and
//! again whenever it moves, to all links. It says what the sender holds *durably*, and which device made it known
//! first. It is a hint: whoever lacks the revision fetches it by an exchange, from whom it likes; who has it does
//! nothing. When both lack something of each other, the device with the lower key opens the exchange, so that not
//! both do. The acknowledgement of a head is the other side's news of the same head, or the end of an exchange.
//!
//! Folders are named by their id only; a side that has no part in a folder is told of it as if there were none.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::id::{CommitId, DeviceId, FolderId};

/// The most bytes that the payload of a frame may have.
pub const FRAME_LIMIT: usize = 1024;
/// Bytes before the payload.
pub const LENGTH: usize = 2;

/// What a stream is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// An exchange of this folder.
    Exchange(FolderId),
    /// News.
    News,
    /// Something of a later version.
    Unknown,
}

/// What is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The first thing that is said.
    Greeting {
        /// Drawn whenever a daemon starts.
        instance: u64,
    },
    /// The newest revision of a folder that the sender holds.
    Head {
        /// The folder.
        folder: FolderId,
        /// Its head; none while it has no revision.
        head: Option<CommitId>,
        /// The device that made it known first, as far as the sender knows.
        by: DeviceId,
    },
    /// Something of a later version.
    Unknown,
}

/// Why a frame is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Its length is above the limit.
    #[error("a message of {0} bytes on the link; at most {FRAME_LIMIT} are allowed")]
    TooLarge(usize),
    /// It makes no sense.
    #[error("a message on the link makes no sense ({0})")]
    Malformed(String),
}

#[derive(Encode, Decode, Default)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    kind: u8,
    #[n(1)]
    folder: Option<ByteArray<16>>,
    #[n(2)]
    head: Option<ByteArray<20>>,
    #[n(3)]
    device: Option<ByteArray<32>>,
    #[n(4)]
    instance: Option<u64>,
}

const EXCHANGE: u8 = 1;
const NEWS: u8 = 2;
const GREETING: u8 = 1;
const HEAD: u8 = 2;

impl Opening {
    /// The frame that says it.
    pub fn encode(&self) -> Vec<u8> {
        frame(&match self {
            Self::Exchange(folder) => {
                Wire { kind: EXCHANGE, folder: Some((*folder.as_bytes()).into()), ..Wire::default() }
            }
            Self::News => Wire { kind: NEWS, ..Wire::default() },
            Self::Unknown => Wire::default(),
        })
    }

    /// What the payload of a frame says.
    pub fn decode(payload: &[u8]) -> Result<Self, LinkError> {
        let wire = parse(payload)?;
        match wire.kind {
            EXCHANGE => Ok(Self::Exchange(FolderId::from_bytes(*need(wire.folder, "folder")?))),
            NEWS => Ok(Self::News),
            _ => Ok(Self::Unknown),
        }
    }
}

impl News {
    /// The frame that says it.
    pub fn encode(&self) -> Vec<u8> {
        frame(&match self {
            Self::Greeting { instance } => Wire { kind: GREETING, instance: Some(*instance), ..Wire::default() },
            Self::Head { folder, head, by } => Wire {
                kind: HEAD,
                folder: Some((*folder.as_bytes()).into()),
                head: head.map(|head| (*head.as_bytes()).into()),
                device: Some((*by.as_bytes()).into()),
                ..Wire::default()
            },
            Self::Unknown => Wire::default(),
        })
    }

    /// What the payload of a frame says.
    pub fn decode(payload: &[u8]) -> Result<Self, LinkError> {
        let wire = parse(payload)?;
        match wire.kind {
            GREETING => Ok(Self::Greeting { instance: need(wire.instance, "instance")? }),
            HEAD => Ok(Self::Head {
                folder: FolderId::from_bytes(*need(wire.folder, "folder")?),
                head: wire.head.map(|head| CommitId::from_bytes(*head)),
                by: DeviceId::from_bytes(*need(wire.device, "device")?),
            }),
            _ => Ok(Self::Unknown),
        }
    }
}

/// The bytes of the payload that follows this length.
pub fn payload_len(length: [u8; LENGTH]) -> Result<usize, LinkError> {
    let len = usize::from(u16::from_be_bytes(length));
    if len > FRAME_LIMIT { Err(LinkError::TooLarge(len)) } else { Ok(len) }
}

fn frame(wire: &Wire) -> Vec<u8> {
    let payload = minicbor::to_vec(wire).expect("memory takes it");
    let len = u16::try_from(payload.len()).expect("far below the limit");
    [&len.to_be_bytes()[..], &payload].concat()
}

fn parse(payload: &[u8]) -> Result<Wire, LinkError> {
    let mut decoder = minicbor::Decoder::new(payload);
    let wire = decoder.decode().map_err(|error| LinkError::Malformed(error.to_string()))?;
    if decoder.position() == payload.len() { Ok(wire) } else { Err(LinkError::Malformed("bytes behind it".to_owned())) }
}

fn need<T>(field: Option<T>, name: &str) -> Result<T, LinkError> {
    field.ok_or_else(|| LinkError::Malformed(format!("it lacks its {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(frame: &[u8]) -> &[u8] {
        let len = payload_len([frame[0], frame[1]]).unwrap();
        assert_eq!(frame.len(), LENGTH + len);
        &frame[LENGTH..]
    }

    #[test]
    fn what_is_said_is_understood() {
        let folder = FolderId::from_bytes([1; 16]);
        for opening in [Opening::Exchange(folder), Opening::News, Opening::Unknown] {
            assert_eq!(Opening::decode(payload(&opening.encode())), Ok(opening));
        }
        let by = DeviceId::from_bytes([3; 32]);
        for news in [
            News::Greeting { instance: u64::MAX },
            News::Head { folder, head: Some(CommitId::from_bytes([2; 20])), by },
            News::Head { folder, head: None, by },
            News::Unknown,
        ] {
            assert_eq!(News::decode(payload(&news.encode())), Ok(news));
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let opening = Opening::Exchange(FolderId::from_bytes([7; 16])).encode();
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert_eq!(hex(&opening), format!("0015a2000101 50{}", "07".repeat(16)).replace(' ', ""));
        assert_eq!(hex(&News::Greeting { instance: 5 }.encode()), "0005a200010405");
    }

    #[test]
    fn lengths_and_lacking_fields_are_refused() {
        assert_eq!(payload_len([0xff, 0xff]), Err(LinkError::TooLarge(0xffff)));
        let lacking = frame(&Wire { kind: HEAD, ..Wire::default() });
        assert!(matches!(News::decode(payload(&lacking)), Err(LinkError::Malformed(_))));
        assert!(matches!(Opening::decode(b""), Err(LinkError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_a_message_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(Opening::decode(&bytes));
            drop(News::decode(&bytes));
        }
    }
}
