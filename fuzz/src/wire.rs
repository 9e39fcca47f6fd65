//! What another device says: frames, messages, whole sessions, tickets.

use std::mem::discriminant;

use foldersync::clock::Timestamp;
use foldersync::id::{CommitId, DeviceId, FolderId, ReplicaId};
use foldersync::protocol::link::{FRAME_LIMIT, LENGTH, News, Opening};
use foldersync::protocol::pairing::{Channel, Event, Grant, Joiner, Offer as PairingOffer, Secret, Sharer, accept};
use foldersync::protocol::{Hello, Kind, Merged, Message, Offer, ProtocolError, Session, Stored};
use foldersync::transport::ticket::Ticket;
use iroh_tickets::Ticket as _;

/// Type and length.
const HEADER: usize = 5;

/// A frame, of which the type and the payload count.
pub fn message(data: &[u8]) {
    let Some((&byte, rest)) = data.split_first() else { return };
    let kind = Kind::ALL.iter().find(|kind| **kind as u8 == byte).copied();
    let kind = kind.unwrap_or(Kind::ALL[usize::from(byte) % Kind::ALL.len()]);
    let payload = rest.get(HEADER - 1..).unwrap_or_default();
    let payload = payload[..payload.len().min(kind.limit())].to_vec();
    let Ok(message) = Message::decode(kind, payload) else { return };
    assert_eq!(message.kind(), kind);
    let frame = message.encode().expect("what is heard may be said");
    assert!(frame.len() <= HEADER + kind.limit(), "{kind}");
    let again = Message::decode(kind, frame[HEADER..].to_vec()).expect("what is said may be heard");
    assert_eq!(again, message);
    assert_eq!(again.encode(), Ok(frame), "there is one way to say it");
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        software: String::new(),
        device: DeviceId::from_bytes([0xaa; 32]),
        device_name: "this".to_owned(),
        replica: ReplicaId::from_bytes([0xaa; 16]),
        folder: Some(FolderId::from_bytes([0xf0; 16])),
        joinable: false,
        has_history: false,
        head: None,
        have: Vec::new(),
        sends: true,
        receives: true,
        bundle_limit: 1 << 20,
        wanted: Vec::new(),
    }
}

/// What an honest side says to a message. It has nothing to send.
fn answers(heard: &Message, bundle: &mut (u32, CommitId), offered: &mut bool) -> Vec<Message> {
    match heard {
        Message::Hello(_) => vec![Message::Common(Vec::new())],
        Message::Locate(_) => vec![Message::Located(Vec::new())],
        Message::Common(_) if !std::mem::replace(offered, true) => {
            let nothing = Offer { bundles: Some(0), revisions: 0, bytes: None, head: None, restored: None };
            vec![Message::Offer(nothing), Message::SentAll(None)]
        }
        Message::BundleBegin(begin) => {
            *bundle = (begin.number, begin.tip);
            Vec::new()
        }
        Message::BundleEnd(_) => vec![Message::Stored(Stored { number: bundle.0, tip: bundle.1 })],
        Message::SentAll(_) => vec![Message::Merged(Merged { head: None, applied: 0, conflicts: 0, left_out: 0 })],
        Message::Merged(_) => vec![Message::Bye],
        _ => Vec::new(),
    }
}

/// All that a session makes of a stream that comes in pieces of this size.
fn converse(stream: &[u8], piece: usize) -> (Vec<Message>, Option<ProtocolError>) {
    let mut session = Session::new(hello()).expect("an honest hello");
    let (mut heard, mut bundle, mut offered) = (Vec::new(), (0, CommitId::from_bytes([0; 20])), false);
    for mut input in stream.chunks(piece) {
        loop {
            match session.receive(&mut input) {
                Ok(Some(message)) => {
                    for answer in answers(&message, &mut bundle, &mut offered) {
                        session.send(&answer).expect("an honest side is never out of order");
                    }
                    heard.push(message);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(session.receive(&mut &b""[..]), Err(ProtocolError::Over), "an error ends it");
                    return (heard, Some(error));
                }
            }
        }
        assert!(input.is_empty(), "bytes were left lying");
    }
    let succeeded = session.succeeded();
    let ended = session.end();
    assert!(ended.is_err() || succeeded, "an end is a success only after both have merged");
    (heard, ended.err())
}

/// All that one side says in an exchange: it is the same in whatever pieces it comes.
pub fn session(data: &[u8]) {
    let (messages, error) = converse(data, data.len().max(1));
    let (in_pieces, other_error) = converse(data, 1 + data.len() % 13);
    assert_eq!(messages, in_pieces);
    // How much is shown of what is not ours depends on how much had come.
    assert_eq!(error.as_ref().map(discriminant), other_error.as_ref().map(discriminant));
    if let Some(fault) = error.and_then(|error| error.to_fault()) {
        Message::Fault(fault).encode().expect("a fault can always be told");
    }
}

/// The payload of a frame on a link between daemons.
pub fn link(data: &[u8]) {
    let data = &data[..data.len().min(FRAME_LIMIT)];
    if let Ok(opening) = Opening::decode(data) {
        let frame = opening.encode();
        assert!(frame.len() <= LENGTH + FRAME_LIMIT);
        assert_eq!(Opening::decode(&frame[LENGTH..]), Ok(opening));
    }
    if let Ok(news) = News::decode(data) {
        let frame = news.encode();
        assert!(frame.len() <= LENGTH + FRAME_LIMIT);
        assert_eq!(News::decode(&frame[LENGTH..]), Ok(news));
    }
}

/// Bytes of a pairing: as they are, at either side; and as damage to an honest one.
pub fn pairing(data: &[u8]) {
    let secret = Secret::new([0x17; Secret::LENGTH]);
    let (joins, shares) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([2; 32]));
    let channel = || Channel { joiner: joins, sharer: shares, keying: [3; 32] };
    let joiner = || Joiner::new(&secret, channel(), "joins".to_owned()).expect("a good name");
    for piece in [data.len().max(1), 1 + data.len() % 7] {
        let (mut joiner, mut sharer) = (joiner(), Sharer::new(channel()));
        for bytes in data.chunks(piece) {
            drop(joiner.receive(bytes));
            drop(sharer.receive(bytes));
        }
        assert!(joiner.next_event().is_none(), "nobody can prove what only the ticket says");
    }

    let (mut joiner, mut sharer) = (joiner(), Sharer::new(channel()));
    let mut offers = [PairingOffer::new(
        &secret,
        Timestamp::new(10, 0),
        FolderId::from_bytes([4; 16]),
        "docs".to_owned(),
        Grant::Both,
    )];
    let mut damage = data.iter();
    let mut damaged = |mut bytes: Vec<u8>| {
        bytes.iter_mut().zip(&mut damage).for_each(|(byte, flip)| *byte ^= flip);
        bytes
    };
    let (mut joined, mut shared) = (false, false);
    for _ in 0..8 {
        drop(sharer.receive(&damaged(joiner.take_output())));
        while let Some(event) = sharer.next_event() {
            match event {
                Event::Knocked(proof) => match accept(&mut offers, Timestamp::new(1, 0), &proof) {
                    Ok(accepted) => drop(sharer.welcome(accepted, "shares")),
                    Err(error) => sharer.refuse(error),
                },
                Event::Named(_) => sharer.agree().expect("due"),
                Event::Agreed => sharer.done().expect("due"),
                Event::Paired => shared = true,
                Event::Welcomed(_) => unreachable!("only who joins is welcomed"),
            }
        }
        drop(joiner.receive(&damaged(sharer.take_output())));
        while let Some(event) = joiner.next_event() {
            match event {
                Event::Welcomed(_) => joiner.agree().expect("due"),
                Event::Agreed => joiner.done().expect("due"),
                Event::Paired => joined = true,
                Event::Knocked(_) | Event::Named(_) => unreachable!("only who shares hears that"),
            }
        }
    }
    assert!(data.iter().any(|&flip| flip != 0) || (joined && shared), "an honest pairing succeeds");
}

/// A ticket as text, or what is in one, to which the checksum is added.
pub fn ticket(data: &[u8]) {
    if let Some(ticket) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Ticket>().ok()) {
        assert_eq!(ticket.to_text().parse(), Ok(ticket));
    }
    let summed = [data, &crc32fast::hash(data).to_be_bytes()].concat();
    if let Ok(ticket) = Ticket::decode_bytes(&summed) {
        assert_eq!(Ticket::decode_bytes(&ticket.encode_bytes()).expect("what is in a ticket fits one"), ticket);
        assert_eq!(ticket.to_text().parse(), Ok(ticket));
    }
}
