//! The messages of a pairing, and how they lie in frames.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::error::{PairingError, Refusal};
use super::offer::Grant;
use crate::id::FolderId;

/// The largest payload, in bytes.
pub const LIMIT: usize = 1024;

/// How many messages of unknown types are skipped.
pub const SKIPPED: usize = 16;

/// The longest name, in bytes.
const NAME_LIMIT: usize = 255;

/// From here up, types that are not known are skipped.
const SKIPPABLE: u8 = 0x80;

const HEADER: usize = 3;

#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Message {
    Knock { version_min: u16, version_max: u16, proof: [u8; 32] },
    Welcome { version: u16, proof: [u8; 32], folder: FolderId, folder_name: String, device_name: String, grant: Grant },
    Name { device_name: String },
    Agree,
    Done,
    Refuse(Refusal),
}

impl Message {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Knock { .. } => "Knock",
            Self::Welcome { .. } => "Welcome",
            Self::Name { .. } => "Name",
            Self::Agree => "Agree",
            Self::Done => "Done",
            Self::Refuse(_) => "Refuse",
        }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Knock {
    #[n(0)]
    version_min: u16,
    #[n(1)]
    version_max: u16,
    #[n(2)]
    proof: ByteArray<32>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Welcome {
    #[n(0)]
    version: u16,
    #[n(1)]
    proof: ByteArray<32>,
    #[n(2)]
    folder: ByteArray<16>,
    #[n(3)]
    folder_name: String,
    #[n(4)]
    device_name: String,
    #[n(5)]
    grant: u8,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Name {
    #[n(0)]
    device_name: String,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Empty {}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Refuse {
    #[n(0)]
    code: u16,
}

/// Whether a text may be a name.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_LIMIT).contains(&text.len()) && !text.contains(|c: char| c.is_control() || matches!(c, '/' | '\\'))
}

fn name(text: String) -> Result<String, PairingError> {
    if is_name(&text) { Ok(text) } else { Err(garbage("a name that is none")) }
}

fn garbage(why: impl Into<String>) -> PairingError {
    PairingError::Garbage(why.into())
}

fn map<'b, T: Decode<'b, ()>>(payload: &'b [u8]) -> Result<T, PairingError> {
    let mut decoder = minicbor::Decoder::new(payload);
    let value = decoder.decode().map_err(|error| garbage(error.to_string()))?;
    if decoder.position() == payload.len() { Ok(value) } else { Err(garbage("bytes after the end of a message")) }
}

/// The message of this type; `None` where it may be skipped.
fn decode(kind: u8, payload: &[u8]) -> Result<Option<Message>, PairingError> {
    Ok(Some(match kind {
        0x01 => {
            let Knock { version_min, version_max, proof } = map(payload)?;
            if version_min == 0 || version_min > version_max {
                return Err(garbage("versions that are no range"));
            }
            Message::Knock { version_min, version_max, proof: proof.into() }
        }
        0x02 => {
            let Welcome { version, proof, folder, folder_name, device_name, grant } = map(payload)?;
            Message::Welcome {
                version,
                proof: proof.into(),
                folder: FolderId::from_bytes(folder.into()),
                folder_name: name(folder_name)?,
                device_name: name(device_name)?,
                grant: Grant::from_number(grant).ok_or_else(|| garbage("a grant that is none"))?,
            }
        }
        0x03 => Message::Name { device_name: name(map::<Name>(payload)?.device_name)? },
        0x04 => map::<Empty>(payload).map(|_| Message::Agree)?,
        0x05 => map::<Empty>(payload).map(|_| Message::Done)?,
        0x7f => Message::Refuse(Refusal::from_code(map::<Refuse>(payload)?.code)),
        SKIPPABLE.. => return Ok(None),
        _ => return Err(garbage(format!("the unknown type {kind:#04x}"))),
    }))
}

/// Appends the whole frame of a message.
pub(super) fn encode(message: &Message, out: &mut Vec<u8>) {
    fn frame(kind: u8, payload: &impl Encode<()>, out: &mut Vec<u8>) {
        let payload = minicbor::to_vec(payload).expect("writing to memory does not fail");
        let length = u16::try_from(payload.len()).expect("limits are far below 64 KiB");
        debug_assert!(payload.len() <= LIMIT);
        out.push(kind);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&payload);
    }
    match message {
        Message::Knock { version_min, version_max, proof } => {
            let (version_min, version_max) = (*version_min, *version_max);
            frame(0x01, &Knock { version_min, version_max, proof: (*proof).into() }, out);
        }
        Message::Welcome { version, proof, folder, folder_name, device_name, grant } => {
            let welcome = Welcome {
                version: *version,
                proof: (*proof).into(),
                folder: (*folder.as_bytes()).into(),
                folder_name: folder_name.clone(),
                device_name: device_name.clone(),
                grant: grant.number(),
            };
            frame(0x02, &welcome, out);
        }
        Message::Name { device_name } => frame(0x03, &Name { device_name: device_name.clone() }, out),
        Message::Agree => frame(0x04, &Empty {}, out),
        Message::Done => frame(0x05, &Empty {}, out),
        Message::Refuse(refusal) => frame(0x7f, &Refuse { code: refusal.code() }, out),
    }
}

/// Puts messages together from bytes that come in any pieces. Holds at most one frame.
#[derive(Debug, Default)]
pub(super) struct Reader {
    frame: Vec<u8>,
    skipped: usize,
}

impl Reader {
    /// The next message of the input, which is advanced; `None` where more is needed.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, PairingError> {
        loop {
            if !self.fill(HEADER, input) {
                return Ok(None);
            }
            let length = usize::from(u16::from_be_bytes([self.frame[1], self.frame[2]]));
            if length > LIMIT {
                return Err(garbage(format!("{length} bytes, at most {LIMIT} are allowed")));
            }
            if !self.fill(HEADER + length, input) {
                return Ok(None);
            }
            let message = decode(self.frame[0], &self.frame[HEADER..])?;
            self.frame.clear();
            if message.is_some() {
                return Ok(message);
            }
            self.skipped += 1;
            if self.skipped > SKIPPED {
                return Err(garbage("too many messages of unknown types"));
            }
        }
    }

    /// Takes of the input what the frame lacks to this length; whether it has it then.
    fn fill(&mut self, length: usize, input: &mut &[u8]) -> bool {
        let missing = length.saturating_sub(self.frame.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.frame.extend_from_slice(taken);
        *input = rest;
        self.frame.len() >= length
    }
}
