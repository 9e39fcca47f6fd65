//! One side of an exchange that says what it is told to say, in whatever order.

use std::io::{Read, Write};

use foldersync::id::{CommitId, DeviceId, ReplicaId};
use foldersync::protocol::{BundleBegin, BundleEnd, Hello, Kind, Merged, Message, Offer, PREAMBLE, Stored};
use foldersync::store::bundle::TIP_REF;
use foldersync::transport::Connection;
use sha2::{Digest as _, Sha256};

use crate::fuzzed::targets::forge::Forge;

/// The lying side.
pub(crate) struct Liar {
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    preamble: bool,
    bundles: u32,
}

impl Liar {
    pub(crate) fn over(connection: Connection) -> Self {
        Self::on(connection.reader, connection.writer)
    }

    pub(crate) fn on(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Self {
        let mut liar = Self { reader: Box::new(reader), writer: Box::new(writer), preamble: false, bundles: 0 };
        liar.raw(&PREAMBLE);
        liar
    }

    /// Says bytes. Whoever has heard enough has gone.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        drop(self.writer.write_all(bytes).and_then(|()| self.writer.flush()));
    }

    pub(crate) fn say(&mut self, message: &Message) {
        self.raw(&message.encode().expect("no field is beyond its limits"));
    }

    fn read(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The next thing that the other side says; nothing, when it has gone.
    pub(crate) fn hear(&mut self) -> Option<Message> {
        if !std::mem::replace(&mut self.preamble, true) {
            self.read(PREAMBLE.len())?;
        }
        let head = self.read(5)?;
        let kind = *Kind::ALL.iter().find(|kind| **kind as u8 == head[0]).expect("an honest side's message");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let payload = self.read(length as usize)?;
        Some(Message::decode(kind, payload).expect("an honest side's message"))
    }

    /// Hears until this is said; answers searches with nothing.
    pub(crate) fn until(&mut self, kind: Kind) -> Option<Message> {
        loop {
            let message = self.hear()?;
            if message.kind() == kind {
                return Some(message);
            }
            if message.kind() == Kind::Locate {
                self.say(&Message::Located(Vec::new()));
            }
        }
    }

    /// What it would say of itself: a copy of the folder that takes nothing.
    pub(crate) fn hello(&mut self) -> Hello {
        let Some(Message::Hello(theirs)) = self.until(Kind::Hello) else { panic!("an honest side says hello") };
        Hello {
            device: DeviceId::from_bytes([0xee; 32]),
            device_name: "mallory".to_owned(),
            replica: ReplicaId::from_bytes([0xee; 16]),
            head: Some(CommitId::from_bytes([0xee; 20])),
            have: Vec::new(),
            receives: false,
            ..*theirs
        }
    }

    /// Up to the moment at which bundles are sent.
    pub(crate) fn offers(&mut self, revisions: u64) {
        let hello = self.hello();
        self.say(&Message::Hello(Box::new(hello)));
        self.agrees(revisions);
    }

    /// The same, once it has said hello.
    pub(crate) fn agrees(&mut self, revisions: u64) {
        self.say(&Message::Common(Vec::new()));
        self.until(Kind::Common);
        self.say(&Message::Offer(Offer { bundles: None, revisions, bytes: None, head: None, restored: None }));
    }

    /// The beginning of the next bundle, whose tip this is.
    pub(crate) fn begin(&mut self, tip: CommitId) -> BundleBegin {
        self.bundles += 1;
        BundleBegin { number: self.bundles, prerequisites: Vec::new(), tip, revisions: 1, bytes_hint: None }
    }

    /// A bundle, from its beginning to its end.
    pub(crate) fn bundle(&mut self, begin: BundleBegin, content: &[u8]) {
        self.bundle_piecemeal(begin, content, |_| {});
    }

    /// The same, with something to be done after each piece, when so many bytes have been said; how many that are.
    pub(crate) fn bundle_piecemeal(&mut self, begin: BundleBegin, content: &[u8], mut each: impl FnMut(u64)) -> u64 {
        self.say(&Message::BundleBegin(begin));
        let mut said = 0;
        for piece in content.chunks(100_000) {
            self.say(&Message::BundleData(piece.to_vec()));
            said += piece.len() as u64;
            each(said);
        }
        let sha256 = Sha256::digest(content).into();
        self.say(&Message::BundleEnd(BundleEnd { bytes: content.len() as u64, sha256 }));
        said
    }

    /// The end of an exchange in which it has sent all that leads to `head`.
    pub(crate) fn ends(&mut self, head: CommitId) {
        self.say(&Message::SentAll(Some(head)));
        self.leaves(Some(head));
    }

    /// The end, from both having sent all.
    pub(crate) fn leaves(&mut self, head: Option<CommitId>) {
        self.until(Kind::Merged);
        self.say(&Message::Merged(Merged { head, applied: 0, conflicts: 0, left_out: 0 }));
        self.until(Kind::Bye);
        self.say(&Message::Bye);
    }

    /// Takes what the other side sends, and says so, until it has sent all.
    pub(crate) fn takes_all(&mut self) {
        let mut begun = None;
        while let Some(message) = self.hear() {
            match message {
                Message::BundleBegin(begin) => begun = Some(Stored { number: begin.number, tip: begin.tip }),
                Message::BundleEnd(_) => self.say(&Message::Stored(begun.take().expect("begun"))),
                Message::SentAll(_) => return,
                _ => {}
            }
        }
    }
}

/// A bundle of what was forged.
pub(crate) fn bundle(prerequisites: &[CommitId], tip: CommitId, forge: &Forge) -> Vec<u8> {
    let mut text = "# v2 git bundle\n".to_owned();
    text.extend(prerequisites.iter().map(|id| format!("-{id}\n")));
    text.push_str(&format!("{tip} {TIP_REF}\n\n"));
    [text.into_bytes(), forge.seal(0)].concat()
}
