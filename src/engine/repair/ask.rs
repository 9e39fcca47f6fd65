//! Asking a peer for what is lost.
//!
//! One session of the ordinary protocol, in which this side has nothing and sends nothing: it names the revisions that
//! brought what is lost (`wanted` in its `Hello`), and gets ordinary bundles with what these bring. So there is no second
//! way for objects to come in, none for them to be asked for by their ids (which would make the other side prove, for
//! each, that it may be had), and a peer that knows nothing of repairs gives the same, and more. What arrives is checked
//! as any bundle is, in the quarantine, and goes into a folder beside the repository: what of it is needed is copied from
//! there when the repair ends, the rest goes.
//!
//! Revisions that are lost altogether come with all that leads up to them from what is complete here (`Common`).

use std::sync::atomic::AtomicU64;
use std::sync::mpsc;

use super::Repair;
use crate::engine::error::EngineError;
use crate::engine::exchange::{Arrival, BreaksOff, ExchangeOptions, Here, PATIENCE, Talk, WAITING, receive};
use crate::engine::folder::Folder;
use crate::id::{CommitId, DeviceId};
use crate::protocol::{HAVE_LIMIT, Hello, Merged, Message, Offer, ProtocolError, Stored, WANTED_LIMIT};
use crate::store::damage::Sound;
use crate::store::quarantine::Limits;
use crate::store::{Graph, ObjectKind};
use crate::transport::Connection;

/// What is asked for.
struct Request {
    wanted: Vec<CommitId>,
    /// What is complete here.
    have: Vec<CommitId>,
}

impl Repair<'_> {
    pub(super) fn ask_once(&self, connection: Connection, device: Option<DeviceId>) -> Result<(), EngineError> {
        let sound = &self.examination.sound;
        let mut wanted: Vec<CommitId> =
            self.examination.introducers().into_iter().map(|introducer| introducer.commit).collect();
        wanted.truncate(WANTED_LIMIT);
        let revisions_are_lost = self.examination.walked.lost.values().any(|lost| lost.kind == ObjectKind::Commit);
        let mut have = if revisions_are_lost { sound.complete()? } else { Vec::new() };
        have.truncate(HAVE_LIMIT);
        let request = Request { wanted, have };
        self.folder.converse(connection, PATIENCE, |talk| self.folder.request(talk, &request, sound, device))
    }
}

impl Folder {
    fn request(
        &self,
        talk: &mut Talk<'_>,
        request: &Request,
        sound: &Sound,
        device: Option<DeviceId>,
    ) -> Result<(), EngineError> {
        let objects = sound.objects();
        let here = Here { head: None, objects: objects.clone(), graph: Graph::new(objects.clone()) };
        let options = ExchangeOptions { send: false, receive: true, join: false, ..ExchangeOptions::default() };
        let (wanted, have) = (request.wanted.clone(), request.have.clone());
        let ours = Hello { wanted, have, has_history: true, ..self.hello(&here, options)? };
        talk.link.say(&Message::Hello(Box::new(ours)))?;
        let theirs = talk.hello()?;
        if device.is_some_and(|device| device != theirs.device) {
            return Err(talk.broke("it says that it is another device than its key proves"));
        }
        if theirs.folder != Some(self.id()) {
            return Err(talk.broke("it keeps another folder"));
        }
        if !theirs.sends {
            return Err(talk.broke("it gives nothing to this device"));
        }
        talk.link.say(&Message::Common(request.have.clone()))?;
        loop {
            match talk.next()? {
                Message::Locate(_) => talk.link.say(&Message::Located(Vec::new()))?,
                Message::Common(_) => break,
                other => return Err(talk.unexpected(&other)),
            }
        }
        let nothing = Offer { bundles: Some(0), revisions: 0, bytes: None, head: None, restored: None };
        talk.link.say(&Message::Offer(nothing))?;
        talk.link.say(&Message::SentAll(None))?;
        let link = talk.link;
        let pack_dir = sound.pack_dir().unwrap_or_else(|| self.store.pack_dir());
        let (arrived, arrivals) = mpsc::sync_channel::<Arrival>(WAITING);
        std::thread::scope(|scope| {
            let objects = objects.clone();
            let admitting = scope.spawn(move || {
                let _guard = BreaksOff(link);
                let admitted = arrivals.into_iter().try_for_each(|Arrival { begin, content }| {
                    let cut = content.cut_off();
                    let pack = self.check(content, &objects, &Limits::default());
                    let pack = pack.map_err(|error| if cut.happened() { ProtocolError::Over.into() } else { error })?;
                    pack.admit(&pack_dir)?;
                    link.say(&Message::Stored(Stored { number: begin.number, tip: begin.tip }))
                });
                if let Err(error) = &admitted {
                    link.give_up(error);
                }
                admitted
            });
            let received = receive(talk, true, &arrived, &AtomicU64::new(0), &|| self.room_for(0));
            drop(arrived);
            let admitted = admitting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            admitted.and(received.map(drop))
        })?;
        talk.link.say(&Message::Merged(Merged { head: None, applied: 0, conflicts: 0, left_out: 0 }))?;
        talk.merged()?;
        talk.link.say(&Message::Bye)
    }
}
