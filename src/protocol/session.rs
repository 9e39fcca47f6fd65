//! A session: who has said what, what may be said next, and whether the bundles are what they should be.
//!
//! The rules are written once, for "a side" and "the other": [`Session::send`] holds this side to them, and
//! [`Session::receive`] the other. Holds at most one frame of input, and as output whatever the driver has not taken.
//! Does no I/O and knows no time.

use std::collections::VecDeque;
use std::fmt;

use sha2::{Digest, Sha256};

use super::error::{Party, ProtocolError};
use super::frame::{Kind, PREAMBLE, Reader};
use super::message::{BundleBegin, BundleEnd, Hello, Message, printable};
use super::wire;
use crate::id::CommitId;

/// The version of the protocol that is written down in the protocol module's header.
pub const VERSION: u16 = 1;
/// How many bundles of one direction may wait for an answer.
pub const WINDOW: usize = 64;
/// How many times a side may ask for finer samples.
pub const SEARCHES: usize = 64;
/// How many texts for people a side may send.
pub const NOTICES: usize = 256;

/// How far one side has come. A later phase is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It has not said `Hello`.
    Silent,
    /// It has said `Hello`, and searches.
    Negotiating,
    /// It has said `Common`.
    Agreed,
    /// It has said `Offer`, and sends bundles.
    Sending,
    /// It has said `SentAll`, and merges once the other side has, too.
    Merging,
    /// It has said `Merged`.
    Merged,
    /// It has said `Bye`, or given up.
    Done,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "before Hello",
            Self::Negotiating => "while looking for the common revision",
            Self::Agreed => "after agreeing on the common revision",
            Self::Sending => "while sending revisions",
            Self::Merging => "while merging",
            Self::Merged => "after merging",
            Self::Done => "after the end",
        })
    }
}

/// A bundle under way.
#[derive(Debug)]
struct OpenBundle {
    number: u32,
    tip: CommitId,
    bytes: u64,
    hash: Sha256,
}

/// What one side has said.
#[derive(Debug)]
struct Side {
    phase: Phase,
    hello: Option<Box<Hello>>,
    /// Its `Locate` is not answered yet.
    asks: bool,
    searches: usize,
    notices: usize,
    /// The bundle that it is sending.
    open: Option<OpenBundle>,
    /// How many bundles it has sent.
    sent: u32,
    /// The tips of the bundles that it has sent and that are not answered: the last ones of `sent`.
    unanswered: VecDeque<CommitId>,
}

impl Side {
    const fn new() -> Self {
        Self {
            phase: Phase::Silent,
            hello: None,
            asks: false,
            searches: 0,
            notices: 0,
            open: None,
            sent: 0,
            unanswered: VecDeque::new(),
        }
    }

    /// The number of the bundle whose answer is due.
    fn due(&self) -> Option<u32> {
        let waiting = u32::try_from(self.unanswered.len()).expect("no more than the window");
        (waiting > 0).then(|| self.sent - waiting + 1)
    }
}

/// One side's view of an exchange. How to drive it is the end of the protocol module's header.
#[derive(Debug)]
pub struct Session {
    us: Side,
    them: Side,
    version: Option<u16>,
    reader: Reader,
    output: Vec<u8>,
    failed: bool,
}

impl Session {
    /// A session that says `hello` at once.
    pub fn new(hello: Hello) -> Result<Self, ProtocolError> {
        let mut session = Self::accept();
        session.send(&Message::Hello(Box::new(hello)))?;
        Ok(session)
    }

    /// A session that waits for the other side's `Hello`, to learn which folder is meant; it sends its own
    /// ([`Message::Hello`]) later. Only for the side that did not open the channel.
    pub fn accept() -> Self {
        Self {
            us: Side::new(),
            them: Side::new(),
            version: None,
            reader: Reader::new(),
            output: PREAMBLE.to_vec(),
            failed: false,
        }
    }

    /// Takes bytes that have come off the front of `input`, up to the end of the next message; all of them when that
    /// is not complete. Call it until it gives none.
    ///
    /// An error ends the session, a [`Message::Fault`] from the other side too: tell the other side
    /// ([`ProtocolError::to_fault`], which may still be sent) and close the channel.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ProtocolError> {
        if self.failed {
            return Err(ProtocolError::Over);
        }
        let received = self.take(input);
        self.failed = received.is_err();
        received
    }

    fn take(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ProtocolError> {
        let Some(message) = self.reader.read(input)? else { return Ok(None) };
        step(Party::Them, &mut self.them, &mut self.us, &message)?;
        match message {
            Message::Fault(fault) => return Err(ProtocolError::Fault(fault)),
            Message::Hello(_) => self.meet()?,
            _ => {}
        }
        Ok(Some(message))
    }

    /// The stream from the other side has ended: fine once both sides have merged, otherwise it was cut.
    pub fn end(&mut self) -> Result<(), ProtocolError> {
        if self.failed {
            return Err(ProtocolError::Over);
        }
        let within = !self.reader.is_between_frames();
        if self.succeeded() && !within {
            return Ok(());
        }
        self.failed = true;
        Err(ProtocolError::Cut { phase: self.them.phase, within: within && self.them.phase != Phase::Silent })
    }

    /// Appends a message to the output, if it may be sent now. After a failure only a [`Message::Fault`] may.
    ///
    /// An error leaves the session as it was, but for [`ProtocolError::VersionsDiffer`] and
    /// [`ProtocolError::SelfConnection`], which end it when this side's `Hello` is the second.
    pub fn send(&mut self, message: &Message) -> Result<(), ProtocolError> {
        if self.failed && !matches!(message, Message::Fault(_)) {
            return Err(ProtocolError::Over);
        }
        if let Message::BundleData(data) = message {
            return self.send_data(data);
        }
        let before = self.output.len();
        wire::encode(message, &mut self.output)?;
        if let Err(error) = step(Party::Us, &mut self.us, &mut self.them, message) {
            self.output.truncate(before);
            return Err(error);
        }
        match message {
            Message::Fault(_) => self.failed = true,
            Message::Hello(_) => {
                let met = self.meet();
                self.failed = met.is_err();
                return met;
            }
            _ => {}
        }
        Ok(())
    }

    /// Appends bytes of the bundle to the output, in frames as large as they may be; nothing for no bytes.
    pub fn send_data(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        if self.failed {
            return Err(ProtocolError::Over);
        }
        add_data(Party::Us, &mut self.us, &self.them, data)?;
        wire::encode_data(data, &mut self.output);
        Ok(())
    }

    /// Ends the bundle, with the length and the checksum of what was sent.
    pub fn end_bundle(&mut self) -> Result<BundleEnd, ProtocolError> {
        let open = self.us.open.as_ref();
        let open = open.ok_or(ProtocolError::OutsideBundle { who: Party::Us, kind: Kind::BundleEnd })?;
        let end = BundleEnd { bytes: open.bytes, sha256: open.hash.clone().finalize().into() };
        self.send(&Message::BundleEnd(end))?;
        Ok(end)
    }

    /// What is to be written to the channel, in this order; empty when there is nothing.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// The version that is spoken, once both sides have said `Hello`.
    pub const fn version(&self) -> Option<u16> {
        self.version
    }

    /// What the other side has said of itself.
    pub fn peer(&self) -> Option<&Hello> {
        self.them.hello.as_deref()
    }

    /// How far a side has come.
    pub const fn phase(&self, party: Party) -> Phase {
        match party {
            Party::Us => self.us.phase,
            Party::Them => self.them.phase,
        }
    }

    /// How many complete bundles of a side wait for an answer. This side may begin one while it has fewer than
    /// [`WINDOW`].
    pub fn unanswered(&self, party: Party) -> usize {
        match party {
            Party::Us => self.us.unanswered.len(),
            Party::Them => self.them.unanswered.len(),
        }
    }

    /// Whether both sides have merged: whatever becomes of the channel now, the exchange has succeeded.
    pub fn succeeded(&self) -> bool {
        !self.failed && self.us.phase >= Phase::Merged && self.them.phase >= Phase::Merged
    }

    /// Whether both sides have said `Bye`: the channel may be closed.
    pub fn is_finished(&self) -> bool {
        !self.failed && self.us.phase == Phase::Done && self.them.phase == Phase::Done
    }

    /// Once both sides have said `Hello`: whether they can talk to one another, and in which version.
    fn meet(&mut self) -> Result<(), ProtocolError> {
        let (Some(ours), Some(theirs)) = (&self.us.hello, &self.them.hello) else { return Ok(()) };
        let version = ours.version_max.min(theirs.version_max);
        if version < ours.version_min.max(theirs.version_min) {
            return Err(ProtocolError::VersionsDiffer {
                ours: (ours.version_min, ours.version_max),
                theirs: (theirs.version_min, theirs.version_max),
                software: printable(&theirs.software),
            });
        }
        if ours.replica == theirs.replica {
            return Err(ProtocolError::SelfConnection { replica: ours.replica });
        }
        self.version = Some(version);
        Ok(())
    }

    /// Bytes allocated for what was received.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.reader.held()
    }
}

/// A side says a message: checks that it may, then notes that it has. Changes nothing on an error.
fn step(who: Party, side: &mut Side, other: &mut Side, message: &Message) -> Result<(), ProtocolError> {
    let kind = message.kind();
    let out_of_order = Err(ProtocolError::OutOfOrder { who, kind, phase: side.phase });
    if side.phase == Phase::Done {
        return out_of_order;
    }
    let met = side.hello.is_some() && other.hello.is_some();
    match message {
        Message::Fault(_) => side.phase = Phase::Done,
        Message::Hello(hello) => {
            if side.hello.is_some() {
                return Err(ProtocolError::SecondHello { who });
            }
            side.hello = Some(hello.clone());
            side.phase = Phase::Negotiating;
        }
        Message::Notice(_) if side.hello.is_none() => return out_of_order,
        Message::Notice(_) => count(who, &mut side.notices, "notices", NOTICES)?,
        Message::Working => {}
        _ if !met => return out_of_order,
        Message::Locate(_) => {
            if side.phase != Phase::Negotiating || side.asks {
                return out_of_order;
            }
            count(who, &mut side.searches, "searches", SEARCHES)?;
            side.asks = true;
        }
        Message::Located(_) => {
            if !other.asks {
                return out_of_order;
            }
            other.asks = false;
        }
        Message::Common(_) => {
            if side.phase != Phase::Negotiating || side.asks {
                return out_of_order;
            }
            side.phase = Phase::Agreed;
        }
        Message::Offer(_) => {
            if side.phase != Phase::Agreed || other.phase < Phase::Agreed {
                return out_of_order;
            }
            side.phase = Phase::Sending;
        }
        Message::BundleBegin(begin) => begin_bundle(who, side, other, begin)?,
        Message::BundleData(data) => add_data(who, side, other, data)?,
        Message::BundleEnd(end) => finish_bundle(who, side, *end)?,
        Message::Stored(stored) => answer(who, other, stored.number, Some(stored.tip))?,
        Message::Rejected(rejected) => answer(who, other, rejected.number, None)?,
        Message::SentAll(_) => {
            if let Some(open) = &side.open {
                return Err(ProtocolError::InsideBundle { who, kind, number: open.number });
            }
            if side.phase != Phase::Sending {
                return out_of_order;
            }
            side.phase = Phase::Merging;
        }
        Message::Merged(_) => {
            if side.phase != Phase::Merging || other.phase < Phase::Merging || !other.unanswered.is_empty() {
                return out_of_order;
            }
            side.phase = Phase::Merged;
        }
        Message::Bye => {
            if side.phase != Phase::Merged || other.phase < Phase::Merged {
                return out_of_order;
            }
            side.phase = Phase::Done;
        }
    }
    Ok(())
}

fn count(who: Party, counter: &mut usize, what: &'static str, limit: usize) -> Result<(), ProtocolError> {
    if *counter == limit {
        return Err(ProtocolError::TooMany { who, what, limit });
    }
    *counter += 1;
    Ok(())
}

/// The most that a side takes in one bundle.
fn bundle_limit(receiver: &Side) -> u64 {
    receiver.hello.as_ref().map_or(0, |hello| hello.bundle_limit)
}

fn begin_bundle(who: Party, side: &mut Side, other: &Side, begin: &BundleBegin) -> Result<(), ProtocolError> {
    let kind = Kind::BundleBegin;
    if let Some(open) = &side.open {
        return Err(ProtocolError::InsideBundle { who, kind, number: open.number });
    }
    if side.phase != Phase::Sending {
        return Err(ProtocolError::OutOfOrder { who, kind, phase: side.phase });
    }
    let number = begin.number;
    if side.sent.checked_add(1) != Some(number) {
        return Err(ProtocolError::WrongNumber { who, number, expected: side.sent.saturating_add(1) });
    }
    let sends = side.hello.as_ref().is_some_and(|hello| hello.sends);
    let receives = other.hello.as_ref().is_some_and(|hello| hello.receives);
    if !(sends && receives) {
        return Err(ProtocolError::DirectionOff { who });
    }
    if side.unanswered.len() >= WINDOW {
        return Err(ProtocolError::TooMany { who, what: "bundles without an answer", limit: WINDOW });
    }
    let limit = bundle_limit(other);
    if begin.bytes_hint.is_some_and(|bytes| bytes > limit) {
        return Err(ProtocolError::BundleTooLarge { who, number, limit });
    }
    side.open = Some(OpenBundle { number, tip: begin.tip, bytes: 0, hash: Sha256::new() });
    Ok(())
}

fn add_data(who: Party, side: &mut Side, other: &Side, data: &[u8]) -> Result<(), ProtocolError> {
    let open = side.open.as_mut().ok_or(ProtocolError::OutsideBundle { who, kind: Kind::BundleData })?;
    let (bytes, limit) = (open.bytes.saturating_add(data.len() as u64), bundle_limit(other));
    if bytes > limit {
        return Err(ProtocolError::BundleTooLarge { who, number: open.number, limit });
    }
    open.bytes = bytes;
    open.hash.update(data);
    Ok(())
}

fn finish_bundle(who: Party, side: &mut Side, end: BundleEnd) -> Result<(), ProtocolError> {
    let open = side.open.as_ref().ok_or(ProtocolError::OutsideBundle { who, kind: Kind::BundleEnd })?;
    let (number, tip) = (open.number, open.tip);
    if open.bytes != end.bytes {
        return Err(ProtocolError::WrongLength { who, number, said: end.bytes, counted: open.bytes });
    }
    if open.hash.clone().finalize()[..] != end.sha256 {
        return Err(ProtocolError::WrongChecksum { who, number });
    }
    side.open = None;
    side.sent = number;
    side.unanswered.push_back(tip);
    Ok(())
}

/// An answer to the oldest bundle of `sender` that waits for one.
fn answer(who: Party, sender: &mut Side, number: u32, said: Option<CommitId>) -> Result<(), ProtocolError> {
    if sender.due() != Some(number) {
        return Err(ProtocolError::NeverSent { who, number });
    }
    match (sender.unanswered.front(), said) {
        (Some(&tip), Some(said)) if tip != said => Err(ProtocolError::WrongTip { who, number, said, tip }),
        _ => {
            sender.unanswered.pop_front();
            Ok(())
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::super::message::{
        Fault, FaultCode, HAVE_LIMIT, Locate, Merged, Offer, PREREQUISITE_LIMIT, RejectCode, Rejected, Stored,
    };
    use super::super::samples::{self, commit};
    use super::*;
    use crate::id::{DeviceId, ReplicaId};

    const LIMIT: u64 = 1 << 20;

    fn hello(side: u8) -> Hello {
        Hello {
            device: DeviceId::from_bytes([side; 32]),
            replica: ReplicaId::from_bytes([side; 16]),
            bundle_limit: LIMIT,
            ..samples::hello()
        }
    }

    fn begin(number: u32) -> Message {
        let tip = commit(u8::try_from(number % 256).unwrap());
        Message::BundleBegin(BundleBegin {
            number,
            prerequisites: vec![commit(1)],
            tip,
            revisions: 10,
            bytes_hint: None,
        })
    }

    fn stored(number: u32) -> Message {
        Message::Stored(Stored { number, tip: commit(u8::try_from(number % 256).unwrap()) })
    }

    fn locate() -> Message {
        Message::Locate(Locate { newer: commit(9), older: None })
    }

    fn common() -> Message {
        Message::Common(vec![commit(1)])
    }

    fn offer() -> Message {
        Message::Offer(Offer { bundles: None, revisions: 0, bytes: None, head: None, restored: None })
    }

    fn sent_all() -> Message {
        Message::SentAll(Some(commit(3)))
    }

    fn merged() -> Message {
        Message::Merged(Merged { head: Some(commit(4)), applied: 1, conflicts: 0, left_out: 0 })
    }

    /// Two sides, what travelled each way, and what each side heard.
    struct Talk {
        a: Session,
        b: Session,
        said: [Vec<u8>; 2],
        heard: [Vec<Message>; 2],
        piece: usize,
    }

    impl Talk {
        fn of(a: Hello, b: Hello) -> Self {
            let (a, b) = (Session::new(a).unwrap(), Session::new(b).unwrap());
            Self { a, b, said: [Vec::new(), Vec::new()], heard: [Vec::new(), Vec::new()], piece: usize::MAX }
        }

        /// Both have said hello.
        fn new() -> Self {
            let mut talk = Self::of(hello(0xa), hello(0xb));
            talk.carry().unwrap();
            talk
        }

        /// Both have offered.
        fn sending() -> Self {
            let mut talk = Self::new();
            for message in [common(), offer()] {
                talk.a(&message);
                talk.b(&message);
            }
            talk
        }

        /// Carries all that was said to the other side.
        fn carry(&mut self) -> Result<(), ProtocolError> {
            let sides = [(&mut self.a, 0, 1), (&mut self.b, 1, 0)];
            let mut under_way = Vec::new();
            for (session, from, to) in sides {
                let output = session.take_output();
                self.said[from].extend_from_slice(&output);
                under_way.push((output, to));
            }
            for (output, to) in under_way {
                let session = if to == 0 { &mut self.a } else { &mut self.b };
                for mut piece in output.chunks(self.piece.min(output.len().max(1))) {
                    while let Some(message) = session.receive(&mut piece)? {
                        self.heard[to].push(message);
                    }
                    assert!(piece.is_empty());
                }
            }
            Ok(())
        }

        fn a(&mut self, message: &Message) {
            self.a.send(message).unwrap();
            self.carry().unwrap();
        }

        fn b(&mut self, message: &Message) {
            self.b.send(message).unwrap();
            self.carry().unwrap();
        }

        fn bundle(&mut self, number: u32, data: &[u8]) {
            self.a.send(&begin(number)).unwrap();
            self.a.send_data(data).unwrap();
            self.a.end_bundle().unwrap();
            self.carry().unwrap();
        }

        /// What B makes of bytes that no session of ours would send.
        fn b_refuses(&mut self, message: &Message) -> ProtocolError {
            let mut frame = Vec::new();
            wire::encode(message, &mut frame).unwrap();
            let error = self.b.receive(&mut &frame[..]).expect_err("against the rules");
            assert_eq!(self.b.receive(&mut &[][..]), Err(ProtocolError::Over), "an error ends a session");
            error
        }
    }

    /// A whole exchange, delivered in pieces of a size: A has two bundles, B one and asks for finer samples.
    fn exchange(piece: usize) -> Talk {
        let mut t = Talk::of(hello(0xa), hello(0xb));
        t.piece = piece;
        t.carry().unwrap();
        t.b(&locate());
        t.a(&common());
        t.a(&Message::Located(vec![commit(8), commit(7)]));
        t.b(&Message::Working);
        t.b(&common());
        t.a(&Message::Offer(Offer {
            bundles: Some(2),
            revisions: 20,
            bytes: None,
            head: Some(commit(2)),
            restored: None,
        }));
        t.b(&offer());
        t.bundle(1, b"first");
        t.a.send(&begin(2)).unwrap();
        t.b(&stored(1));
        t.a.send_data(b"sec").unwrap();
        t.carry().unwrap();
        t.b.send(&begin(1)).unwrap();
        t.b.send_data(b"from b").unwrap();
        t.b.end_bundle().unwrap();
        t.carry().unwrap();
        t.a(&stored(1));
        t.a.send_data(b"ond").unwrap();
        t.a.end_bundle().unwrap();
        t.a(&sent_all());
        t.b(&Message::Rejected(Rejected::new(2, RejectCode::Unsafe, "a tree names `.git`")));
        t.b(&sent_all());
        t.b(&Message::Notice("merging takes a while".to_owned()));
        t.a(&merged());
        t.b(&merged());
        t.b(&Message::Bye);
        t.a(&Message::Bye);
        t
    }

    /// All that A says, all that B says, and what each hears, in one exchange.
    pub(in super::super) fn conversation() -> (Vec<u8>, Vec<u8>, [Vec<Message>; 2]) {
        let Talk { said: [a, b], heard, .. } = exchange(usize::MAX);
        (a, b, heard)
    }

    #[test]
    fn an_exchange_goes_through_and_ends() {
        let mut talk = exchange(usize::MAX);
        for session in [&mut talk.a, &mut talk.b] {
            assert_eq!(session.version(), Some(1));
            assert!(session.succeeded() && session.is_finished());
            assert_eq!(session.end(), Ok(()));
            assert!(session.take_output().is_empty());
        }
        assert_eq!(talk.a.peer(), Some(&hello(0xb)));
        let heard_by_b: Vec<_> = talk.heard[1].iter().map(|message| message.kind().to_string()).collect();
        assert_eq!(
            heard_by_b.join(" "),
            "Hello Common Located Offer BundleBegin BundleData BundleEnd BundleBegin BundleData Stored BundleData \
             BundleEnd SentAll Merged Bye"
        );
    }

    #[test]
    fn who_has_said_goodbye_waits_for_the_other() {
        let mut talk = Talk::sending();
        for message in [sent_all(), merged()] {
            talk.a(&message);
            talk.b(&message);
        }
        talk.b(&Message::Bye);
        assert!(talk.a.succeeded() && !talk.a.is_finished() && !talk.b.is_finished());
        talk.a(&Message::Bye);
        assert!(talk.a.is_finished() && talk.b.is_finished());
    }

    proptest! {
        #[test]
        fn an_exchange_in_pieces_of_any_size_is_the_same(piece in 1_usize..200) {
            let talk = exchange(piece);
            let (a, b, heard) = conversation();
            prop_assert_eq!(talk.heard, heard);
            prop_assert_eq!(talk.said, [a, b]);
        }

        #[test]
        fn garbage_in_the_middle_never_panics_and_claims_no_memory(
            phase in 0_usize..3, garbage in prop::collection::vec(any::<u8>(), 1..400),
        ) {
            let mut session = [Session::accept(), Talk::new().b, Talk::sending().b].into_iter().nth(phase).unwrap();
            let mut rest = &garbage[..];
            while let Ok(Some(_)) = session.receive(&mut rest) {}
            prop_assert!(session.held() <= Kind::BundleData.limit());
            drop(session.end());
        }

        #[test]
        fn what_may_be_sent_is_what_is_taken(actions in prop::collection::vec((any::<bool>(), 0..12_usize), 0..80)) {
            // What send lets through, receive takes; what it refuses leaves no byte behind, whatever the order.
            let mut talk = Talk::sending();
            let mut answered = [0, 0];
            for (by_a, action) in actions {
                let (us, next) = (if by_a { &mut talk.a } else { &mut talk.b }, &mut answered[usize::from(by_a)]);
                let sent = match action {
                    0..=2 => us.send(&begin(us.us.sent + 1)),
                    3 => us.send_data(b"some data"),
                    4..=6 => us.end_bundle().map(drop),
                    7..=8 => us.send(&stored(*next + 1)).map(|()| *next += 1),
                    9 => us.send(&sent_all()),
                    10 => us.send(&merged()),
                    _ => us.send(&Message::Bye),
                };
                if sent.is_err() {
                    prop_assert!(us.take_output().is_empty());
                }
                talk.carry().unwrap();
                prop_assert_eq!(talk.a.succeeded(), talk.b.succeeded());
                prop_assert_eq!(talk.a.phase(Party::Us), talk.b.phase(Party::Them));
            }
        }
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        let newer = Hello { version_min: 2, version_max: 9, ..hello(0xa) };
        let mut talk = Talk::of(newer.clone(), Hello { version_max: 4, ..hello(0xb) });
        talk.carry().unwrap();
        assert_eq!((talk.a.version(), talk.b.version()), (Some(4), Some(4)));

        let mut talk = Talk::of(newer, hello(0xb));
        let error = talk.carry().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the other side (foldersync 0.1.0) speaks versions 2-9 of the protocol, this side 1-1: update the older one"
        );
        assert_eq!(error.to_fault().unwrap().code, FaultCode::Version);
    }

    #[test]
    fn a_copy_does_not_exchange_with_itself() {
        let error = Talk::of(hello(0xa), hello(0xa)).carry().unwrap_err();
        assert!(matches!(error, ProtocolError::SelfConnection { .. }), "{error}");
    }

    #[test]
    fn a_side_may_hear_who_asks_before_it_says_who_it_is() {
        let mut dialer = Session::new(hello(0xa)).unwrap();
        let mut listener = Session::accept();
        assert!(matches!(dialer.send(&common()), Err(ProtocolError::OutOfOrder { who: Party::Us, .. })));
        let hears = |session: &mut Session, output: Vec<u8>| session.receive(&mut &output[..]);
        assert!(matches!(hears(&mut listener, dialer.take_output()), Ok(Some(Message::Hello(_)))));
        assert!(matches!(listener.send(&common()), Err(ProtocolError::OutOfOrder { who: Party::Us, .. })));
        assert_eq!(listener.version(), None);
        listener.send(&Message::Hello(Box::new(hello(0xb)))).unwrap();
        assert_eq!(listener.version(), Some(1));
        assert!(matches!(hears(&mut dialer, listener.take_output()), Ok(Some(Message::Hello(_)))));

        // It still tells the other side when they cannot talk.
        let mut listener = Session::accept();
        let mut dialer = Session::new(hello(0xa)).unwrap();
        hears(&mut listener, dialer.take_output()).unwrap();
        let later = Hello { version_min: 2, version_max: 2, ..hello(0xb) };
        let error = listener.send(&Message::Hello(Box::new(later))).unwrap_err();
        assert!(matches!(error, ProtocolError::VersionsDiffer { ours: (2, 2), theirs: (1, 1), .. }));
        listener.send(&Message::Fault(error.to_fault().unwrap())).unwrap();
        let output = listener.take_output();
        assert!(matches!(hears(&mut dialer, output), Err(ProtocolError::VersionsDiffer { .. })));
    }

    #[rstest]
    #[case::bundle(begin(1))]
    #[case::offer_before_common(offer())]
    #[case::sent_all(sent_all())]
    #[case::merged(merged())]
    #[case::bye(Message::Bye)]
    #[case::unasked_answer(Message::Located(Vec::new()))]
    fn what_comes_too_early_is_refused_on_both_ways(#[case] message: Message) {
        let mut talk = Talk::new();
        let (kind, phase) = (message.kind(), Phase::Negotiating);
        assert_eq!(talk.a.send(&message), Err(ProtocolError::OutOfOrder { who: Party::Us, kind, phase }));
        assert!(talk.a.take_output().is_empty());
        let error = talk.b_refuses(&message);
        assert_eq!(error, ProtocolError::OutOfOrder { who: Party::Them, kind, phase });
        assert_eq!(
            error.to_string(),
            format!("the other side sent a {kind} out of order: while looking for the common revision")
        );
    }

    #[test]
    fn hello_comes_first_and_once() {
        let mut session = Session::accept();
        let mut bytes = PREAMBLE.to_vec();
        wire::encode(&Message::Working, &mut bytes).unwrap();
        wire::encode(&Message::Notice("a text".to_owned()), &mut bytes).unwrap();
        let mut input = &bytes[..];
        // A sign of life may come before it: its sender may have much to capture first.
        assert_eq!(session.receive(&mut input), Ok(Some(Message::Working)));
        let kind = Kind::Notice;
        let error = ProtocolError::OutOfOrder { who: Party::Them, kind, phase: Phase::Silent };
        assert_eq!(session.receive(&mut input), Err(error));

        let again = Message::Hello(Box::new(hello(0xa)));
        assert_eq!(Talk::new().b_refuses(&again), ProtocolError::SecondHello { who: Party::Them });
    }

    #[test]
    fn a_search_asks_one_question_at_a_time_and_not_for_ever() {
        let mut talk = Talk::new();
        for _ in 0..SEARCHES {
            talk.a(&locate());
            assert!(matches!(talk.a.send(&locate()), Err(ProtocolError::OutOfOrder { .. })));
            assert!(matches!(talk.a.send(&common()), Err(ProtocolError::OutOfOrder { .. })));
            talk.b(&Message::Located(vec![commit(5)]));
        }
        let error = talk.b_refuses(&locate());
        assert_eq!(error.to_string(), "the other side exceeded the limit of 64 searches");
    }

    #[test]
    fn a_search_goes_on_while_the_other_side_is_done_with_its_own() {
        let mut talk = Talk::new();
        talk.a(&common());
        talk.b(&locate());
        talk.a(&Message::Located(Vec::new()));
        assert!(matches!(talk.a.send(&offer()), Err(ProtocolError::OutOfOrder { phase: Phase::Agreed, .. })));
        talk.b(&common());
        talk.a(&offer());
    }

    #[test]
    fn data_belongs_into_a_bundle() {
        let who = Party::Them;
        let data = Message::BundleData(vec![1]);
        let end = Message::BundleEnd(BundleEnd { bytes: 0, sha256: [0; 32] });
        for message in [&data, &end] {
            let error = Talk::sending().b_refuses(message);
            assert_eq!(error, ProtocolError::OutsideBundle { who, kind: message.kind() });
        }
        let mut talk = Talk::sending();
        talk.a(&begin(1));
        assert_eq!(talk.b_refuses(&sent_all()), ProtocolError::InsideBundle { who, kind: Kind::SentAll, number: 1 });
        let mut talk = Talk::sending();
        talk.a(&begin(1));
        assert!(matches!(talk.b_refuses(&begin(2)), ProtocolError::InsideBundle { number: 1, .. }));
        assert_eq!(Talk::sending().b_refuses(&begin(2)), ProtocolError::WrongNumber { who, number: 2, expected: 1 });
    }

    #[test]
    fn a_bundle_larger_than_its_receiver_takes_is_refused_at_the_first_byte_too_many() {
        let who = Party::Them;
        let too_large = ProtocolError::BundleTooLarge { who, number: 1, limit: LIMIT };
        let mut talk = Talk::sending();
        talk.a(&begin(1));
        talk.a.send_data(&vec![0; usize::try_from(LIMIT).unwrap()]).unwrap();
        talk.carry().unwrap();
        assert!(matches!(talk.a.send_data(&[0]), Err(ProtocolError::BundleTooLarge { who: Party::Us, .. })));
        assert_eq!(talk.b_refuses(&Message::BundleData(vec![0])), too_large);

        let Message::BundleBegin(announced) = begin(1) else { unreachable!() };
        let announced = Message::BundleBegin(BundleBegin { bytes_hint: Some(LIMIT + 1), ..announced });
        assert_eq!(Talk::sending().b_refuses(&announced), too_large);
        let Message::BundleBegin(announced) = begin(1) else { unreachable!() };
        Talk::sending().a(&Message::BundleBegin(BundleBegin { bytes_hint: Some(LIMIT), ..announced }));
    }

    #[test]
    fn a_bundle_that_is_not_what_was_sent_is_refused_and_may_be_sent_again() {
        let start = || {
            let mut talk = Talk::sending();
            talk.a(&begin(1));
            talk.a(&Message::BundleData(b"data".to_vec()));
            talk
        };
        let sha256 = Sha256::digest(b"data").into();
        let error = start().b_refuses(&Message::BundleEnd(BundleEnd { bytes: 5, sha256 }));
        assert_eq!(error.to_string(), "bundle 1 from the other side is 4 bytes long, but should be 5");
        assert!(error.may_retry());
        let error = start().b_refuses(&Message::BundleEnd(BundleEnd { bytes: 4, sha256: [0; 32] }));
        assert_eq!(error, ProtocolError::WrongChecksum { who: Party::Them, number: 1 });
        assert!(error.may_retry());
        assert_eq!(start().a.end_bundle(), Ok(BundleEnd { bytes: 4, sha256 }));
    }

    #[test]
    fn only_bundles_that_wait_for_an_answer_are_answered_and_in_order() {
        let who = Party::Them;
        let mut talk = Talk::sending();
        talk.b.send(&begin(1)).unwrap();
        talk.carry().unwrap();
        assert_eq!(talk.b_refuses(&stored(1)), ProtocolError::NeverSent { who, number: 1 });

        let mut talk = Talk::sending();
        talk.bundle(1, b"one");
        talk.bundle(2, b"two");
        assert!(matches!(talk.b.send(&stored(2)), Err(ProtocolError::NeverSent { who: Party::Us, number: 2 })));
        let wrong = Message::Stored(Stored { number: 1, tip: commit(9) });
        assert!(matches!(talk.b.send(&wrong), Err(ProtocolError::WrongTip { number: 1, .. })));
        assert_eq!(talk.a.unanswered(Party::Us), 2);
        talk.b(&stored(1));
        talk.b(&stored(2));
        assert_eq!((talk.a.unanswered(Party::Us), talk.b.unanswered(Party::Them)), (0, 0));
        assert!(matches!(talk.b.send(&stored(2)), Err(ProtocolError::NeverSent { number: 2, .. })));
    }

    #[test]
    fn no_more_bundles_are_under_way_than_the_window_holds() {
        let mut talk = Talk::sending();
        let next = u32::try_from(WINDOW).unwrap() + 1;
        (1..next).for_each(|number| talk.bundle(number, b"x"));
        assert!(matches!(talk.a.send(&begin(next)), Err(ProtocolError::TooMany { limit: WINDOW, .. })));
        talk.b(&stored(1));
        talk.bundle(next, b"x");
        let error = talk.b_refuses(&begin(next + 1));
        assert_eq!(error.to_string(), "the other side exceeded the limit of 64 bundles without an answer");
    }

    #[rstest]
    #[case::a_does_not_send(Hello { sends: false, ..hello(0xa) }, hello(0xb))]
    #[case::b_does_not_receive(hello(0xa), Hello { receives: false, ..hello(0xb) })]
    fn a_direction_that_is_switched_off_carries_no_bundle(#[case] a: Hello, #[case] b: Hello) {
        let mut talk = Talk::of(a, b);
        talk.carry().unwrap();
        for message in [common(), offer()] {
            talk.a(&message);
            talk.b(&message);
        }
        assert_eq!(talk.a.send(&begin(1)), Err(ProtocolError::DirectionOff { who: Party::Us }));
        talk.b(&begin(1));
        assert_eq!(talk.b_refuses(&begin(1)), ProtocolError::DirectionOff { who: Party::Them });
    }

    #[test]
    fn a_merge_waits_for_the_other_side_and_for_all_answers() {
        let mut talk = Talk::sending();
        talk.bundle(1, b"x");
        talk.b(&sent_all());
        assert!(matches!(talk.b.send(&merged()), Err(ProtocolError::OutOfOrder { phase: Phase::Merging, .. })));
        talk.a(&sent_all());
        assert!(matches!(talk.b.send(&merged()), Err(ProtocolError::OutOfOrder { phase: Phase::Merging, .. })));
        talk.b(&stored(1));
        talk.b(&merged());
        assert!(matches!(talk.b.send(&Message::Bye), Err(ProtocolError::OutOfOrder { phase: Phase::Merged, .. })));
        assert!(!talk.b.succeeded());
        talk.a(&merged());
        assert!(talk.a.succeeded() && talk.b.succeeded() && !talk.a.is_finished());
        assert_eq!(talk.a.end(), Ok(()), "a lost Bye is no failure");
    }

    #[test]
    fn a_stream_that_ends_early_says_where() {
        let text = |mut session: Session| session.end().unwrap_err().to_string();
        assert_eq!(text(Session::accept()), "the connection ended too early: before Hello");
        assert_eq!(text(Talk::sending().b), "the connection ended too early: while sending revisions");
        let mut talk = Talk::sending();
        talk.b.receive(&mut &[Kind::Offer as u8, 0][..]).unwrap();
        assert_eq!(text(talk.b), "the connection ended too early: while sending revisions, in the middle of a message");
    }

    #[test]
    fn a_transfer_that_is_cut_anywhere_is_an_error_that_may_be_retried() {
        let mut talk = Talk::sending();
        talk.a.send(&begin(1)).unwrap();
        talk.a.send_data(b"data").unwrap();
        talk.a.end_bundle().unwrap();
        talk.a.send(&sent_all()).unwrap();
        let said = talk.a.take_output();
        for cut in 0..=said.len() {
            let mut session = Talk::sending().b;
            let mut rest = &said[..cut];
            while session.receive(&mut rest).unwrap().is_some() {}
            let error = session.end().unwrap_err();
            assert!(matches!(error, ProtocolError::Cut { .. }) && error.may_retry(), "cut at {cut}: {error}");
        }
    }

    #[test]
    fn a_fault_ends_both_sides() {
        let mut talk = Talk::sending();
        let fault = Fault::new(FaultCode::Damaged, "object 4b825dc6 is missing", false);
        talk.a.send(&Message::Fault(fault.clone())).unwrap();
        assert_eq!(talk.a.send(&Message::Working), Err(ProtocolError::Over));
        assert_eq!(talk.a.send_data(b"x"), Err(ProtocolError::Over));
        assert!(talk.a.send(&Message::Fault(fault.clone())).is_err(), "one is enough");
        let error = talk.carry().unwrap_err();
        assert_eq!(error, ProtocolError::Fault(fault));
        assert_eq!(error.to_fault(), None);
        assert_eq!(talk.b.end(), Err(ProtocolError::Over));
        assert!(!talk.b.succeeded());
    }

    #[test]
    fn a_fault_may_come_before_any_hello() {
        let mut refused = Session::new(hello(0xa)).unwrap();
        let mut listener = Session::accept();
        listener.send(&Message::Fault(Fault::new(FaultCode::Busy, "try later", true))).unwrap();
        let error = refused.receive(&mut &listener.take_output()[..]).unwrap_err();
        assert_eq!(error.to_string(), "the other side gave up (busy): try later");
        assert!(error.may_retry());
    }

    #[test]
    fn notices_are_counted() {
        let mut talk = Talk::new();
        let notice = Message::Notice("disk nearly full".to_owned());
        (0..NOTICES).for_each(|_| talk.a(&notice));
        assert!(matches!(talk.b_refuses(&notice), ProtocolError::TooMany { what: "notices", .. }));
    }

    #[test]
    fn the_memory_that_a_peer_can_claim_is_one_frame() {
        let mut talk = Talk::sending();
        let mut most = 0;
        // Whatever it announces, in whatever phase, allowed or not: headers without the bytes behind them.
        for kind in Kind::ALL {
            for length in [0, 1, kind.limit(), kind.limit() + 1, u32::MAX as usize] {
                let mut session = Talk::sending().b;
                let length = u32::try_from(length).unwrap().to_be_bytes();
                let header = [&[*kind as u8][..], &length].concat();
                drop(session.receive(&mut &header[..]));
                most = most.max(session.held());
            }
        }
        // A bundle of the largest size, in the largest frames: nothing of it stays.
        talk.a(&begin(1));
        let data = vec![7; Kind::BundleData.limit()];
        for _ in 0..4 {
            talk.a.send_data(&data).unwrap();
            let output = talk.a.take_output();
            let mut rest = &output[..];
            while let Some(message) = talk.b.receive(&mut rest).unwrap() {
                assert_eq!(message, Message::BundleData(data.clone()));
                assert_eq!(talk.b.held(), 0);
            }
        }
        assert_eq!(most, Kind::BundleData.limit());
        // What else stays is counted: tips within the window, and one Hello.
        assert!(WINDOW * size_of::<CommitId>() < 2 << 10);
        assert!(HAVE_LIMIT * size_of::<CommitId>() < 8 << 10 && PREREQUISITE_LIMIT * size_of::<CommitId>() < 32 << 10);
    }
}
