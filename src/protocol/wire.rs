//! How messages lie in frames: the only place that knows CBOR.
//!
//! The types here are the format, and separate from the messages so that a change of either is a decision. Field
//! numbers are never used again for something else; new fields are optional. What is decoded has passed
//! [`Message::check`]; so has what is encoded.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::error::{Party, ProtocolError};
use super::frame::{DATA_LIMIT, HEADER, Kind, write_header};
use super::message::{self, BadField, Message};
use crate::id::{CommitId, DeviceId, FolderId, ReplicaId};

type Commit = ByteArray<20>;

#[derive(Encode, Decode)]
#[cbor(map)]
#[expect(clippy::struct_excessive_bools, reason = "as in the message")]
struct Hello {
    #[n(0)]
    version_min: u16,
    #[n(1)]
    version_max: u16,
    #[n(2)]
    software: String,
    #[n(3)]
    device: ByteArray<32>,
    #[n(4)]
    device_name: String,
    #[n(5)]
    replica: ByteArray<16>,
    #[n(6)]
    folder: Option<ByteArray<16>>,
    #[n(7)]
    joinable: bool,
    #[n(8)]
    has_history: bool,
    #[n(9)]
    head: Option<Commit>,
    #[n(10)]
    have: ByteVec,
    #[n(11)]
    sends: bool,
    #[n(12)]
    receives: bool,
    #[n(13)]
    bundle_limit: u64,
    #[n(14)]
    wanted: Option<ByteVec>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Locate {
    #[n(0)]
    newer: Commit,
    #[n(1)]
    older: Option<Commit>,
}

/// `Located` and `Common`.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Have {
    #[n(0)]
    have: ByteVec,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Offer {
    #[n(0)]
    bundles: Option<u32>,
    #[n(1)]
    revisions: u64,
    #[n(2)]
    bytes: Option<u64>,
    #[n(3)]
    head: Option<Commit>,
    #[n(4)]
    restored: Option<Commit>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct BundleBegin {
    #[n(0)]
    number: u32,
    #[n(1)]
    prerequisites: ByteVec,
    #[n(2)]
    tip: Commit,
    #[n(3)]
    revisions: u64,
    #[n(4)]
    bytes_hint: Option<u64>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct BundleEnd {
    #[n(0)]
    bytes: u64,
    #[n(1)]
    sha256: ByteArray<32>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Stored {
    #[n(0)]
    number: u32,
    #[n(1)]
    tip: Commit,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Rejected {
    #[n(0)]
    number: u32,
    #[n(1)]
    code: u16,
    #[n(2)]
    text: String,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SentAll {
    #[n(0)]
    head: Option<Commit>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Merged {
    #[n(0)]
    head: Option<Commit>,
    #[n(1)]
    applied: u64,
    #[n(2)]
    conflicts: u64,
    #[n(3)]
    left_out: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Fault {
    #[n(0)]
    code: u16,
    #[n(1)]
    text: String,
    #[n(2)]
    retry: bool,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Notice {
    #[n(0)]
    text: String,
}

/// `Bye` and `Working`.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Empty {}

fn commit(id: CommitId) -> Commit {
    Commit::from(*id.as_bytes())
}

fn commit_id(commit: Commit) -> CommitId {
    CommitId::from_bytes(commit.into())
}

fn commits(ids: &[CommitId]) -> ByteVec {
    ids.iter().flat_map(CommitId::as_bytes).copied().collect::<Vec<u8>>().into()
}

fn commit_ids(field: &'static str, bytes: &ByteVec) -> Result<Vec<CommitId>, BadField> {
    let (ids, rest) = bytes.as_chunks::<20>();
    if !rest.is_empty() {
        let why = format!("is {} bytes long, which is no whole number of commit ids", bytes.len());
        return Err(BadField { field, why });
    }
    Ok(ids.iter().map(|id| CommitId::from_bytes(*id)).collect())
}

/// Why a payload gives no message.
enum Unreadable {
    Payload(String),
    Field(BadField),
}

impl From<minicbor::decode::Error> for Unreadable {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Payload(error.to_string())
    }
}

impl From<BadField> for Unreadable {
    fn from(bad: BadField) -> Self {
        Self::Field(bad)
    }
}

/// The map that a payload is, and nothing after it.
fn map<'b, T: Decode<'b, ()>>(payload: &'b [u8]) -> Result<T, Unreadable> {
    let mut decoder = minicbor::Decoder::new(payload);
    let value = decoder.decode()?;
    match payload.len() - decoder.position() {
        0 => Ok(value),
        left => Err(Unreadable::Payload(format!("{left} bytes follow its end"))),
    }
}

impl Message {
    /// The whole frame that says it.
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        let mut frame = Vec::new();
        encode(self, &mut frame)?;
        Ok(frame)
    }

    /// What the payload of a frame of this kind says.
    pub fn decode(kind: Kind, payload: Vec<u8>) -> Result<Self, ProtocolError> {
        decode(kind, payload)
    }
}

/// The message in the payload of a frame.
pub(super) fn decode(kind: Kind, payload: Vec<u8>) -> Result<Message, ProtocolError> {
    read(kind, payload).map_err(|unreadable| match unreadable {
        Unreadable::Payload(reason) => ProtocolError::Malformed { kind, reason },
        Unreadable::Field(BadField { field, why }) => ProtocolError::BadField { who: Party::Them, kind, field, why },
    })
}

fn read(kind: Kind, payload: Vec<u8>) -> Result<Message, Unreadable> {
    let message = match kind {
        Kind::Hello => {
            let hello: Hello = map(&payload)?;
            Message::Hello(Box::new(message::Hello {
                version_min: hello.version_min,
                version_max: hello.version_max,
                software: hello.software,
                device: DeviceId::from_bytes(hello.device.into()),
                device_name: hello.device_name,
                replica: ReplicaId::from_bytes(hello.replica.into()),
                folder: hello.folder.map(|id| FolderId::from_bytes(id.into())),
                joinable: hello.joinable,
                has_history: hello.has_history,
                head: hello.head.map(commit_id),
                have: commit_ids("have", &hello.have)?,
                sends: hello.sends,
                receives: hello.receives,
                bundle_limit: hello.bundle_limit,
                wanted: hello.wanted.map_or(Ok(Vec::new()), |wanted| commit_ids("wanted", &wanted))?,
            }))
        }
        Kind::Locate => {
            let Locate { newer, older } = map(&payload)?;
            Message::Locate(message::Locate { newer: commit_id(newer), older: older.map(commit_id) })
        }
        Kind::Located => Message::Located(commit_ids("have", &map::<Have>(&payload)?.have)?),
        Kind::Common => Message::Common(commit_ids("have", &map::<Have>(&payload)?.have)?),
        Kind::Offer => {
            let Offer { bundles, revisions, bytes, head, restored } = map(&payload)?;
            let (head, restored) = (head.map(commit_id), restored.map(commit_id));
            Message::Offer(message::Offer { bundles, revisions, bytes, head, restored })
        }
        Kind::BundleBegin => {
            let BundleBegin { number, prerequisites, tip, revisions, bytes_hint } = map(&payload)?;
            Message::BundleBegin(message::BundleBegin {
                number,
                prerequisites: commit_ids("prerequisites", &prerequisites)?,
                tip: commit_id(tip),
                revisions,
                bytes_hint,
            })
        }
        Kind::BundleData => Message::BundleData(payload),
        Kind::BundleEnd => {
            let BundleEnd { bytes, sha256 } = map(&payload)?;
            Message::BundleEnd(message::BundleEnd { bytes, sha256: sha256.into() })
        }
        Kind::Stored => {
            let Stored { number, tip } = map(&payload)?;
            Message::Stored(message::Stored { number, tip: commit_id(tip) })
        }
        Kind::Rejected => {
            let Rejected { number, code, text } = map(&payload)?;
            Message::Rejected(message::Rejected { number, code: code.into(), text })
        }
        Kind::SentAll => Message::SentAll(map::<SentAll>(&payload)?.head.map(commit_id)),
        Kind::Merged => {
            let Merged { head, applied, conflicts, left_out } = map(&payload)?;
            Message::Merged(message::Merged { head: head.map(commit_id), applied, conflicts, left_out })
        }
        Kind::Bye => map::<Empty>(&payload).map(|_| Message::Bye)?,
        Kind::Fault => {
            let Fault { code, text, retry } = map(&payload)?;
            Message::Fault(message::Fault { code: code.into(), text, retry })
        }
        Kind::Notice => Message::Notice(map::<Notice>(&payload)?.text),
        Kind::Working => map::<Empty>(&payload).map(|_| Message::Working)?,
    };
    message.check()?;
    Ok(message)
}

/// Appends the whole frame of a message to `out`; nothing when the message may not be sent.
pub(super) fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let kind = message.kind();
    message.check().map_err(|BadField { field, why }| ProtocolError::BadField { who: Party::Us, kind, field, why })?;
    match message {
        Message::Hello(hello) => frame(
            kind,
            &Hello {
                version_min: hello.version_min,
                version_max: hello.version_max,
                software: hello.software.clone(),
                device: (*hello.device.as_bytes()).into(),
                device_name: hello.device_name.clone(),
                replica: (*hello.replica.as_bytes()).into(),
                folder: hello.folder.map(|id| (*id.as_bytes()).into()),
                joinable: hello.joinable,
                has_history: hello.has_history,
                head: hello.head.map(commit),
                have: commits(&hello.have),
                sends: hello.sends,
                receives: hello.receives,
                bundle_limit: hello.bundle_limit,
                wanted: (!hello.wanted.is_empty()).then(|| commits(&hello.wanted)),
            },
            out,
        ),
        Message::Locate(locate) => {
            frame(kind, &Locate { newer: commit(locate.newer), older: locate.older.map(commit) }, out);
        }
        Message::Located(have) | Message::Common(have) => frame(kind, &Have { have: commits(have) }, out),
        Message::Offer(message::Offer { bundles, revisions, bytes, head, restored }) => {
            let (head, restored) = (head.map(commit), restored.map(commit));
            let offer = Offer { bundles: *bundles, revisions: *revisions, bytes: *bytes, head, restored };
            frame(kind, &offer, out);
        }
        Message::BundleBegin(begin) => frame(
            kind,
            &BundleBegin {
                number: begin.number,
                prerequisites: commits(&begin.prerequisites),
                tip: commit(begin.tip),
                revisions: begin.revisions,
                bytes_hint: begin.bytes_hint,
            },
            out,
        ),
        Message::BundleData(data) => encode_data(data, out),
        Message::BundleEnd(end) => frame(kind, &BundleEnd { bytes: end.bytes, sha256: end.sha256.into() }, out),
        Message::Stored(stored) => {
            frame(kind, &Stored { number: stored.number, tip: commit(stored.tip) }, out);
        }
        Message::Rejected(message::Rejected { number, code, text }) => {
            frame(kind, &Rejected { number: *number, code: (*code).into(), text: text.clone() }, out);
        }
        Message::SentAll(head) => frame(kind, &SentAll { head: head.map(commit) }, out),
        Message::Merged(message::Merged { head, applied, conflicts, left_out }) => {
            let (applied, conflicts, left_out) = (*applied, *conflicts, *left_out);
            frame(kind, &Merged { head: head.map(commit), applied, conflicts, left_out }, out);
        }
        Message::Fault(message::Fault { code, text, retry }) => {
            frame(kind, &Fault { code: (*code).into(), text: text.clone(), retry: *retry }, out);
        }
        Message::Notice(text) => frame(kind, &Notice { text: text.clone() }, out),
        Message::Bye | Message::Working => frame(kind, &Empty {}, out),
    }
    Ok(())
}

/// Appends bytes of a bundle in as few frames as they fit.
pub(super) fn encode_data(data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + HEADER * data.len().div_ceil(DATA_LIMIT));
    for piece in data.chunks(DATA_LIMIT) {
        write_header(Kind::BundleData, piece.len(), out);
        out.extend_from_slice(piece);
    }
}

fn frame(kind: Kind, payload: &impl Encode<()>, out: &mut Vec<u8>) {
    let payload = minicbor::to_vec(payload).expect("writing to memory does not fail");
    write_header(kind, payload.len(), out);
    out.extend_from_slice(&payload);
}

#[cfg(test)]
mod tests {
    use minicbor::Encoder;
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    fn round_trip(message: &Message) -> Message {
        let mut frame = Vec::new();
        encode(message, &mut frame).unwrap();
        assert_eq!(frame[0], message.kind() as u8);
        decode(message.kind(), frame[HEADER..].to_vec()).unwrap()
    }

    /// A payload made by hand.
    fn payload(write: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        write(&mut encoder);
        encoder.into_writer()
    }

    #[test]
    fn the_largest_message_of_each_kind_fits_its_limit() {
        for message in samples::largest() {
            let mut frame = Vec::new();
            encode(&message, &mut frame).unwrap();
            let (length, limit) = (frame.len() - HEADER, message.kind().limit());
            assert!(length <= limit, "{}: {length} > {limit}", message.kind());
            assert!(length * 4 >= limit || limit <= 4 << 10, "{}: {length} of {limit} is too generous", message.kind());
            assert_eq!(round_trip(&message), message);
        }
    }

    #[test]
    fn fields_of_later_versions_are_skipped_wherever_they_stand() {
        let bytes = payload(|e| {
            e.map(4).unwrap().u8(77).unwrap().array(2).unwrap().map(1).unwrap().str("a").unwrap().null().unwrap();
            e.begin_array().unwrap().f64(0.5).unwrap().end().unwrap();
            e.u8(0).unwrap().bytes(&[7; 20]).unwrap().u8(1).unwrap().null().unwrap();
            e.u32(70_000).unwrap().bool(true).unwrap();
        });
        let located = message::Locate { newer: CommitId::from_bytes([7; 20]), older: None };
        assert_eq!(decode(Kind::Locate, bytes), Ok(Message::Locate(located)));
    }

    #[test]
    fn ids_of_a_wrong_length_are_refused() {
        let short = payload(|e| {
            e.map(1).unwrap().u8(0).unwrap().bytes(&[7; 19]).unwrap();
        });
        assert!(matches!(
            decode(Kind::Locate, short.clone()),
            Err(ProtocolError::Malformed { kind: Kind::Locate, .. })
        ));
        let error = decode(Kind::Common, short).unwrap_err().to_string();
        assert_eq!(
            error,
            "the other side made a Common whose field have is 19 bytes long, which is no whole number of commit ids"
        );
    }

    #[test]
    fn too_many_commits_are_refused_on_both_ways() {
        let many = vec![CommitId::from_bytes([1; 20]); message::HAVE_LIMIT + 1];
        let mut out = Vec::new();
        let error = encode(&Message::Common(many.clone()), &mut out).unwrap_err();
        assert_eq!(
            error.to_string(),
            "this side made a Common whose field have lists 257 commits, at most 256 are allowed"
        );
        assert!(out.is_empty());
        let bytes = minicbor::to_vec(Have { have: commits(&many) }).unwrap();
        assert!(matches!(decode(Kind::Common, bytes), Err(ProtocolError::BadField { who: Party::Them, .. })));
    }

    #[test]
    fn a_device_name_that_is_a_path_or_moves_the_cursor_is_refused() {
        for name in ["", "a/b", "..\\b", "a\nb", "\x1b[2J"] {
            let hello = Message::Hello(Box::new(message::Hello { device_name: name.to_owned(), ..samples::hello() }));
            assert!(encode(&hello, &mut Vec::new()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn bytes_after_the_map_and_missing_fields_are_refused() {
        let reason = |bytes: &[u8]| decode(Kind::SentAll, bytes.to_vec()).unwrap_err().to_string();
        assert_eq!(decode(Kind::SentAll, vec![0xa0]), Ok(Message::SentAll(None)));
        assert!(reason(&[0xa0, 0]).ends_with("1 bytes follow its end"));
        assert!(reason(&[]).contains("SentAll"));
        assert!(matches!(decode(Kind::Stored, vec![0xa0]), Err(ProtocolError::Malformed { .. })));
    }

    #[test]
    fn long_data_is_cut_into_frames() {
        let mut out = Vec::new();
        encode_data(&vec![1; DATA_LIMIT * 2 + 1], &mut out);
        assert_eq!(out.len(), DATA_LIMIT * 2 + 1 + 3 * HEADER);
        assert_eq!(&out[out.len() - HEADER - 1..], &[Kind::BundleData as u8, 0, 0, 0, 1, 1]);
    }

    proptest! {
        #[test]
        fn every_message_comes_back_as_it_was(message in samples::any_message()) {
            prop_assert_eq!(round_trip(&message), message);
        }

        #[test]
        fn garbage_never_panics(kind in prop::sample::select(Kind::ALL), garbage in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(decode(kind, garbage));
        }

        #[test]
        fn damaged_messages_never_panic(
            message in samples::any_message(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
        ) {
            let mut frame = Vec::new();
            encode(&message, &mut frame).unwrap();
            let mut payload = frame.split_off(HEADER);
            let at = at.index(payload.len());
            payload[at] = byte;
            drop(decode(message.kind(), payload.clone()));
            payload.truncate(cut.index(payload.len()));
            drop(decode(message.kind(), payload));
        }
    }
}
