//! The exchange with one peer: both sides come to hold the same revisions, the same head and the same files.
//!
//! The driver of the protocol (`crate::protocol`, whose header is its specification). Five threads a side, all of which
//! end with the exchange: this one reads; one writes; one cuts bundles and sends them; one checks what arrived and
//! admits it; one says now and then that this side is alive, and breaks the connection off when the other side has said
//! nothing for too long. The folder's lock is held while this side captures, and again while it merges and applies;
//! never while bytes travel, so that a slow peer keeps nobody from the folder. What the folder became meanwhile is
//! merged like all else.
//!
//! After a kill or a cut at any point: bundles that were acknowledged are kept (a ref under `refs/foldersync/incoming`,
//! or `instalment` for parts of one large revision, says so) and not sent again; nothing else has changed, or the head
//! has moved and the next work finishes the checkout. The last known revision of the other side moves only when it has
//! said that it holds it on disk.

use std::ffi::OsString;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crate::engine::arrival::{Arriving, Filling, arrival};
use crate::engine::error::{EngineError, Failure};
use crate::engine::folder::{Context, Folder, InitOptions};
use crate::engine::outbox::Outbox;
use crate::engine::peers::Remembered;
use crate::engine::place;
use crate::engine::report::{ExchangeReport, Held};
use crate::id::{CommitId, DeviceId, FolderId};
use crate::monitor::{Monitor, Silent, Stage};
use crate::protocol::{
    BundleBegin, Fault, FaultCode, Hello, Locate, Merged, Message, Offer, PREREQUISITE_LIMIT, Party, ProtocolError,
    Session, Stored, VERSION, WINDOW,
};
use crate::store::Wait;
use crate::store::bundle::{Bundle, BundleOptions, BundleWriter, Cut};
use crate::store::pack::reader::Packs;
use crate::store::quarantine::{self, Limits, VerifiedPack};
use crate::store::{Expected, Graph, Objects, RefEdit, RefName, StoreError};
use crate::transport::ssh::SshTarget;
use crate::transport::{self, ChildCommand, Connection, Control};

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Another folder on this computer, or on a mounted disk.
    Path(PathBuf),
    /// A program, with its arguments, that speaks the protocol on its standard input and output.
    Command(OsString, Vec<OsString>),
    /// A folder on a host that this program (`ssh`) leads to.
    Ssh(SshTarget, OsString),
}

/// A peer, and what may be done with it.
#[derive(Debug, Clone)]
pub struct PeerTarget {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// Whether revisions are sent to it.
    pub send: bool,
    /// Whether revisions are received from it.
    pub receive: bool,
    /// Whether two folders with histories of their own may be joined.
    pub join: bool,
}

/// How this side takes part in an exchange.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeOptions {
    /// Whether revisions are sent.
    pub send: bool,
    /// Whether revisions are received.
    pub receive: bool,
    /// Whether two folders with histories of their own may be joined.
    pub join: bool,
    /// Whether to wait for somebody else who works on the folder.
    pub wait: bool,
    /// Whether to look first for what changed on disk. A daemon that watches the folder has no need to.
    pub capture: bool,
    /// The key that the other side has proved to have, which it must not deny.
    pub device: Option<DeviceId>,
    /// How long the other side may say nothing before it is taken for dead.
    pub patience: Duration,
    /// Bundles that are sent are cut at about this many bytes; each has one revision at least.
    pub bundle_limit: u64,
    /// What one revision brings beyond this many bytes is sent ahead of it, in bundles of about as many.
    pub instalment: u64,
}

impl Default for ExchangeOptions {
    fn default() -> Self {
        Self {
            send: true,
            receive: true,
            join: false,
            wait: false,
            capture: true,
            device: None,
            patience: PATIENCE,
            bundle_limit: BUNDLE_LIMIT,
            instalment: INSTALMENT,
        }
    }
}

/// Bundles are cut at about this many bytes. A kill of the receiving side costs three of them again (one that arrives,
/// one that is taken apart, one that is checked), a cut of the connection one.
const BUNDLE_LIMIT: u64 = 5 << 20;
/// What one revision brings beyond this many bytes goes ahead of it, in bundles of about as many: what a cut costs.
const INSTALMENT: u64 = 64 << 20;
/// How long a side may say nothing, and how often in that time it says that it is alive.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
const SIGNS_OF_LIFE: u32 = 6;
/// How long to wait for somebody else's work in the folder before what has come is merged.
const JOIN_PATIENCE: Duration = Duration::from_mins(10);
/// After so many bytes it is looked at again whether there is room for more.
const LOOK_EVERY: u64 = 1 << 20;
/// How many commits a sample of the history has.
const SAMPLE: usize = 128;
/// How many times a coarse sample is refined.
const SEARCH_ROUNDS: usize = 4;

impl Folder {
    /// One exchange with a peer. Where the disk fills up meanwhile, what is new here is sent all the same.
    pub fn exchange(&self, peer: &PeerTarget, wait: bool) -> Result<ExchangeReport, EngineError> {
        match self.exchange_once(peer, wait) {
            Err(EngineError::NearlyFull { why }) if peer.receive && peer.send => {
                let mut report = self.exchange_once(&PeerTarget { receive: false, ..peer.clone() }, wait)?;
                report.no_room = Some(why);
                Ok(report)
            }
            exchanged => exchanged,
        }
    }

    fn exchange_once(&self, peer: &PeerTarget, wait: bool) -> Result<ExchangeReport, EngineError> {
        let role = Role::Dials { name: &peer.name };
        let (send, receive, join) = (peer.send, peer.receive, peer.join);
        let options = ExchangeOptions { send, receive, join, wait, ..ExchangeOptions::default() };
        self.with_peer(peer, wait, |connection| self.side(connection, &role, options))
    }

    /// Talks with a peer, wherever it is; where that is this computer, its side is done here as well.
    pub(super) fn with_peer<T>(
        &self,
        peer: &PeerTarget,
        wait: bool,
        talk: impl FnOnce(Connection) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        match &peer.address {
            Address::Path(path) => {
                let unreachable = |why: &dyn std::fmt::Display| EngineError::Unreachable {
                    peer: peer.name.clone(),
                    why: why.to_string(),
                };
                let cx = Context { monitor: Arc::new(Silent), ..self.cx.clone() };
                let other = match Folder::open(path, cx) {
                    Err(error @ EngineError::Store(StoreError::Damaged { .. })) => return Err(error),
                    opened => opened.map_err(|error| unreachable(&error))?,
                };
                let (here, there) = transport::pipe(&peer.name);
                std::thread::scope(|scope| {
                    let served = scope.spawn(move || {
                        let options = ExchangeOptions { join: peer.join, wait, ..ExchangeOptions::default() };
                        other.serve(there, None, options)
                    });
                    let report = talk(here);
                    // What happened there was told to this side, if it was still there to hear.
                    let served = served.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    match (report, served) {
                        (
                            Err(EngineError::Protocol(_) | EngineError::Transport(_) | EngineError::PeerFault { .. }),
                            Err(cause),
                        ) => Err(EngineError::PeerFault {
                            peer: peer.name.clone(),
                            text: cause.to_string(),
                            failure: cause.failure(),
                        }),
                        (report, _) => report,
                    }
                })
            }
            Address::Command(program, args) => talk(ChildCommand::new(program, args.iter().cloned()).connect()?),
            Address::Ssh(target, program) => talk(target.connect(program)?),
        }
    }

    /// Serves the other side of an exchange on this process's own standard input and output.
    pub fn serve_stdio(&self, options: ExchangeOptions) -> Result<ExchangeReport, EngineError> {
        self.serve(transport::stdio()?, None, options)
    }

    /// Serves the other side of an exchange that a peer began: the peer `name`, if it is known which it is.
    pub fn serve(
        &self,
        connection: Connection,
        name: Option<&str>,
        options: ExchangeOptions,
    ) -> Result<ExchangeReport, EngineError> {
        self.side(connection, &Role::Serves { name }, options)
    }

    /// One exchange with the peer `name`, over a connection that leads to it.
    pub fn exchange_over(
        &self,
        connection: Connection,
        name: &str,
        options: ExchangeOptions,
    ) -> Result<ExchangeReport, EngineError> {
        self.side(connection, &Role::Dials { name }, options)
    }

    /// Makes `dir` a copy of the folder that `source` has, or goes on where a kill ended that.
    pub fn clone_from(
        source: &PeerTarget,
        dir: &Path,
        options: &InitOptions,
        cx: Context,
    ) -> Result<(Self, ExchangeReport), EngineError> {
        let begun = place::begun(dir, options, &cx)?;
        if begun.is_none() && !place::is_free(dir)? {
            return Err(EngineError::NotEmpty { path: dir.to_owned() });
        }
        let (was_begun, existed) = (begun.is_some(), dir.exists());
        std::fs::create_dir_all(dir).map_err(EngineError::io("create", dir))?;
        let folder = begun.map_or_else(|| Self::create(dir, options, cx), Ok)?;
        let copied = folder.exchange(source, true).and_then(|report| match &report.no_room {
            Some(why) => Err(EngineError::NearlyFull { why: why.clone() }),
            None => Ok(report),
        });
        match copied {
            Ok(report) => Ok((Self::open(dir, folder.cx.clone())?, report)),
            Err(error) if was_begun => Err(error),
            Err(error) => {
                // Nothing came: nothing stays. What came is kept, and an exchange goes on from it.
                let mut came = folder.head()?.is_some();
                for brought in RefName::unmerged(&source.name)? {
                    came |= folder.store.refs().read(&brought)?.is_some();
                }
                if !came {
                    let git_dir = folder.store.git_dir().to_owned();
                    drop(folder);
                    let removed = std::fs::remove_dir_all(&git_dir);
                    removed
                        .and_then(|()| if existed { Ok(()) } else { std::fs::remove_dir(dir) })
                        .map_err(EngineError::io("remove", &git_dir))?;
                }
                Err(error)
            }
        }
    }

    /// Goes on with a clone of this device that was killed after revisions had come: `None` where there is no such copy.
    pub fn go_on_with_clone(
        source: &PeerTarget,
        dir: &Path,
        options: &InitOptions,
        cx: &Context,
    ) -> Result<Option<(Self, ExchangeReport)>, EngineError> {
        let Some(folder) = place::made_here(dir, options, cx)? else { return Ok(None) };
        if folder.head()?.is_none() {
            return Ok(None);
        }
        // That it is a copy of another folder is said there.
        let report = folder.exchange(source, true)?;
        Ok(Some((folder, report)))
    }

    fn side(
        &self,
        connection: Connection,
        role: &Role<'_>,
        options: ExchangeOptions,
    ) -> Result<ExchangeReport, EngineError> {
        self.converse(connection, options.patience, |talk| self.run(talk, role, options))
    }

    /// Holds a session of the protocol over a connection, to its end.
    pub(super) fn converse<T>(
        &self,
        connection: Connection,
        patience: Duration,
        run: impl FnOnce(&mut Talk<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let about = connection.about.clone();
        let (mut reader, mut writer, control) = connection.split();
        let link = Link::new(Arc::clone(&control));
        let report = std::thread::scope(|scope| {
            let link = &link;
            let writing = scope.spawn(move || {
                // A failure to write shows as a cut on the reading side, which says more. The writer is dropped at the
                // end, so that the other side sees it.
                drop(link.outbox.drain(&mut *writer));
            });
            let (running, ended) = mpsc::channel();
            scope.spawn(move || link.keep_alive(&ended, patience));
            let monitor = &*self.cx.monitor;
            let mut talk = Talk { link, reader: &mut *reader, input: Vec::new(), taken: 0, about: &about, monitor };
            let report = run(&mut talk);
            if let Err(error) = &report {
                link.give_up(error);
            }
            drop(running);
            link.outbox.close();
            writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            report
        });
        drop(reader);
        match (report, control.finish()) {
            // What the program at the other end said before it ended tells more than that it ended.
            (Err(EngineError::Protocol(ProtocolError::Cut { .. } | ProtocolError::Over)), Err(ended)) => {
                Err(ended.into())
            }
            (report, _) => report,
        }
    }

    fn run(
        &self,
        talk: &mut Talk<'_>,
        role: &Role<'_>,
        options: ExchangeOptions,
    ) -> Result<ExchangeReport, EngineError> {
        let wait = if options.wait { Wait::Forever } else { Wait::No };
        let _turn = match role {
            Role::Dials { name } => Some(self.store.turn(name, wait)?),
            Role::Serves { .. } => None,
        };
        let mut report = ExchangeReport { folder: self.root().display().to_string(), ..Default::default() };
        if options.capture {
            let mut work = self.begin("exchange", wait)?;
            report.captured = work.capture(&[])?.revisions();
            if report.captured > 0 {
                work.gather_if_due()?;
            }
            report.add(work.done());
            work.finish()?;
        }

        // Whoever has no room for more still sends.
        let full = if options.receive { self.room_for(0).err() } else { None };
        let options = ExchangeOptions { receive: options.receive && full.is_none(), ..options };
        let _under_way = self.store.under_way()?;
        let here = Here { head: self.head()?, objects: self.store.objects(), graph: self.graph() };
        let ours = self.hello(&here, options)?;
        talk.link.say(&Message::Hello(Box::new(ours.clone())))?;
        let theirs = talk.hello()?;
        if options.device.is_some_and(|device| device != theirs.device) {
            return Err(talk.broke("it says that it is another device than its key proves"));
        }
        report.peer = role.peer_name(self, &theirs);
        let name = report.peer.clone();
        let adopts = self.meet(&name, &ours, &theirs, options)?.filter(|_| theirs.wanted.is_empty());
        let last_known = self.last_known(&name)?;
        // What the other side once had, and has no more.
        let restored = match (last_known, theirs.head) {
            (Some(last), Some(head)) if last != head && here.objects.is_commit(head) => {
                here.graph.is_ancestor(head, last)?.then_some(last)
            }
            _ => None,
        };

        let peer_has = agree(talk, &here, &ours, &theirs)?;
        let sends = options.send && theirs.receives;
        let receives = options.receive && theirs.sends;
        if options.send && !theirs.receives && here.head.is_some_and(|head| !peer_has.contains(&head)) {
            report.notes.push(format!("what is new here was not sent: `{name}` takes nothing from this device"));
        }
        let has_news = theirs.sends && theirs.head.is_some_and(|head| !here.objects.is_commit(head));
        if let Some(full) = full {
            report.no_room = has_news.then(|| full.to_string());
        } else if !options.receive && has_news {
            report.notes.push(format!("`{name}` has something new, which was not taken: nothing is received from it"));
        }
        let has = Has { ours: &peer_has, said: &theirs.have, wanted: &theirs.wanted };
        let ours = Outgoing { head: here.head, restored, peer_has: sends.then_some(has) };
        let (sent, incoming) = self.transfer(talk, ours, &name, receives, options)?;
        report.sent = sent.revisions;
        report.bytes_sent = sent.bytes;
        report.received = incoming.revisions;
        report.bytes_received = incoming.bytes;

        report.head = self.head()?;
        let theirs_head = incoming.head.filter(|_| receives);
        // What this side once had, if the other side is right.
        let had = match (incoming.restored, report.head) {
            (Some(had), Some(head)) if head != had && here.objects.is_commit(had) => {
                here.graph.is_ancestor(head, had)?.then_some(had)
            }
            _ => None,
        };
        if let Some(brought) = theirs_head {
            if !here.objects.is_commit(brought) {
                return Err(talk.broke("it did not send the revision that it said it had"));
            }
            let contained = match report.head {
                Some(head) => here.graph.is_ancestor(brought, head)?,
                None => false,
            };
            self.claim_hold(&name, theirs.replica)?;
            report.held = self.still_held(&name, brought)?.map(Box::new);
            if !contained && report.held.is_none() {
                let mut work = self.begin("exchange", Wait::AtMost(JOIN_PATIENCE))?;
                if let Some(id) = adopts {
                    self.adopt(id)?;
                }
                match work.take_in(&name, brought, had) {
                    Err(full @ EngineError::NearlyFull { .. }) => {
                        // All is here: the next exchange merges it.
                        let name = RefName::incoming(&name)?;
                        self.store.refs().update(&[RefEdit { name, expected: Expected::Any, new: theirs_head }])?;
                        report.no_room = Some(full.to_string());
                    }
                    taken => report.held = taken?.map(Box::new),
                }
                report.add(work.done());
                report.head = work.head;
                work.drop_ended_holds()?;
                work.finish()?;
            }
            if let Some(held) = &report.held {
                let device = &self.identity.device_name;
                let text = format!(
                    "`{device}` holds back what was sent to it ({}), until somebody says `foldersync accept` or \
                     `foldersync reject` there",
                    held.words()
                );
                talk.link.say(&Message::Notice(text))?;
            }
        }
        if let Some(full) = &report.no_room {
            let device = &self.identity.device_name;
            talk.link.say(&Message::Notice(format!("`{device}` takes nothing just now: {full}")))?;
        }
        let last_is_gone = match (restored, last_known, theirs.head) {
            (Some(_), ..) => true,
            // It has gone on from there, by captures of its own.
            (None, Some(last), Some(head)) => here.objects.is_commit(head) && !self.has_still(last, head)?,
            _ => false,
        };
        if last_is_gone {
            report.notes.push(format!(
                "`{name}` is older than it was (restored from a backup?); it is brought up to date, nothing is deleted"
            ));
        }
        if had.is_some() {
            report.notes.push(format!(
                "this copy is older than `{name}` knew it (restored from a backup?); it is brought up to date, nothing \
                 is deleted"
            ));
        }
        if let (Some(id), None, None) = (adopts, report.head, theirs.head) {
            // There is nothing to join yet; what either side makes belongs to both.
            let _lock = self.store.lock("exchange", Wait::AtMost(JOIN_PATIENCE))?;
            if self.head()?.is_none() {
                self.adopt(id)?;
            }
        }
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        talk.link.say(&Message::Merged(Merged {
            head: report.head,
            applied: report.applied,
            conflicts: count(report.conflicts.len()),
            left_out: count(report.left_out.len()),
        }))?;
        let merged = talk.merged()?;
        report.peer_head = merged.head;
        report.in_step = merged.head == report.head;
        if merged.left_out > 0 {
            report.notes.push(format!("{} paths could not be written at `{name}`", merged.left_out));
        }
        let mut edits = Vec::new();
        let known = merged.head.filter(|head| here.objects.is_commit(*head));
        if known != last_known && known.is_some() {
            edits.push(RefEdit { name: RefName::peer(&name)?, expected: Expected::Any, new: known });
        }
        let keeps = report.no_room.is_some();
        for done in RefName::unmerged(&name)?.into_iter().filter(|_| !keeps) {
            if self.store.refs().read(&done)?.is_some() {
                edits.push(RefEdit { name: done, expected: Expected::Any, new: None });
            }
        }
        if !edits.is_empty() {
            self.store.refs().update(&edits)?;
        }
        let seen = Remembered {
            replica: theirs.replica,
            device: theirs.device,
            device_name: theirs.device_name.clone(),
            last_seen: self.cx.clock.now(),
        };
        self.saw_peer(&name, seen)?;
        talk.link.say(&Message::Bye)?;
        Ok(report)
    }

    /// What is held back of a peer, if that is this revision, and the brake is not released.
    fn still_held(&self, peer: &str, brought: CommitId) -> Result<Option<Held>, EngineError> {
        let is_on = self.guards().brake.percent().is_some();
        Ok(self.held_of(peer)?.filter(|held| is_on && held.revision == brought))
    }

    /// Whether a head has what `last` has; merges that nobody had built on may be made anew with more.
    pub(super) fn has_still(&self, last: CommitId, head: CommitId) -> Result<bool, EngineError> {
        let (objects, graph) = (self.store.objects(), self.graph());
        let mut asked = vec![last];
        while let Some(last) = asked.pop() {
            if graph.is_ancestor(last, head)? {
                continue;
            }
            let commit = objects.commit(last)?;
            if commit.message().derived.is_none() {
                return Ok(false);
            }
            asked.extend(commit.parents);
        }
        Ok(true)
    }

    pub(super) fn hello(&self, here: &Here, options: ExchangeOptions) -> Result<Hello, EngineError> {
        let mut have: Vec<CommitId> = here.head.into_iter().collect();
        for prefix in ["refs/foldersync/incoming/", "refs/foldersync/instalment/", RefName::HELD, "refs/remotes/"] {
            have.extend(self.store.refs().list(prefix)?.into_iter().map(|(_, commit)| commit));
        }
        have.dedup();
        have.truncate(crate::protocol::HAVE_LIMIT);
        Ok(Hello {
            version_min: VERSION,
            version_max: VERSION,
            software: concat!("foldersync ", env!("CARGO_PKG_VERSION")).to_owned(),
            device: self.identity.device,
            device_name: self.identity.device_name.clone(),
            replica: self.identity.replica,
            folder: Some(self.id()),
            joinable: options.join,
            has_history: here.head.is_some(),
            head: here.head,
            have,
            sends: options.send,
            receives: options.receive,
            bundle_limit: Limits::default().pack_bytes,
            wanted: Vec::new(),
        })
    }

    /// Whether the two are copies of one folder; the identity that this side takes over, if it does.
    fn meet(
        &self,
        peer: &str,
        ours: &Hello,
        theirs: &Hello,
        options: ExchangeOptions,
    ) -> Result<Option<FolderId>, EngineError> {
        let (here, there) = (self.id(), theirs.folder);
        let Some(there) = there.filter(|there| *there != here) else { return Ok(None) };
        match (ours.has_history, theirs.has_history) {
            (true, false) => Ok(None),
            (false, true) => Ok(Some(there)),
            (false, false) => Ok((there < here).then_some(there)),
            (true, true) if options.join || theirs.joinable => Ok((there < here).then_some(there)),
            (true, true) => {
                Err(EngineError::Unrelated { peer: peer.to_owned(), ours: here.to_string(), theirs: there.to_string() })
            }
        }
    }

    /// Sends what the other side lacks, and receives what it sends, both at once.
    fn transfer(
        &self,
        talk: &mut Talk<'_>,
        ours: Outgoing<'_>,
        peer: &str,
        receives: bool,
        options: ExchangeOptions,
    ) -> Result<(Transferred, Transferred), EngineError> {
        let link = talk.link;
        let limit = link.session().peer().map_or(u64::MAX, |theirs| theirs.bundle_limit);
        let cut = BundleOptions {
            limit: options.bundle_limit.min(limit),
            instalment: Some(options.instalment.min(limit)),
            ..BundleOptions::default()
        };
        let offered = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || {
                let _guard = BreaksOff(link);
                let sent = self.send(link, ours, cut);
                if let Err(error) = &sent {
                    link.give_up(error);
                }
                link.all_sent();
                sent
            });
            let (arrived, arrivals) = mpsc::sync_channel::<Arrival>(WAITING);
            let offered = &offered;
            let admitting = scope.spawn(move || {
                let _guard = BreaksOff(link);
                self.admit(link, peer, arrivals, offered)
            });
            let room = || self.room_for(0);
            let received = receive(talk, receives, &arrived, offered, &room);
            drop(arrived);
            // Whoever sends waits for answers now and then: they are heard while it sends.
            let received = received.and_then(|received| talk.answers().map(|()| received));
            let admitted = admitting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            if received.is_err() {
                link.abandon();
                link.outbox.break_off();
            }
            let sent = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // The first cause counts: what was told to the other side comes back as its fault, or as a cut.
            match (admitted, sent, received) {
                (Ok(()), Ok(sent), Ok(received)) => Ok((sent, received)),
                (admitted, sent, received) => {
                    let mut errors: Vec<_> =
                        [admitted.err(), sent.err(), received.err()].into_iter().flatten().collect();
                    let is_cause = |error: &EngineError| !matches!(error, EngineError::Protocol(ProtocolError::Over));
                    Err(errors.swap_remove(errors.iter().position(is_cause).unwrap_or(errors.len() - 1)))
                }
            }
        })
    }

    /// Cuts and sends bundles.
    fn send(&self, link: &Link, ours: Outgoing<'_>, options: BundleOptions) -> Result<Transferred, EngineError> {
        let Outgoing { head, restored, peer_has } = ours;
        let mut sent = Transferred::default();
        let (Some(head), Some(peer_has)) = (head, peer_has) else {
            link.say(&Message::Offer(Offer { bundles: Some(0), revisions: 0, bytes: None, head: None, restored }))?;
            link.say(&Message::SentAll(None))?;
            return Ok(sent);
        };
        let monitor = &*self.cx.monitor;
        let objects = self.store.objects();
        let (commits, options) = if peer_has.wanted.is_empty() {
            (self.graph().range(&[head], peer_has.ours)?, options)
        } else {
            // Each for itself: what a commit brings is found by comparing it with those that it follows.
            (self.once_more(head, &peer_has)?, BundleOptions { thorough: true, ..options })
        };
        let revisions = commits.len() as u64;
        link.say(&Message::Offer(Offer { bundles: None, revisions, bytes: None, head: Some(head), restored }))?;
        if revisions > 0 {
            monitor.begin(Stage::Send, Some(revisions));
            let packs = Packs::open(&self.store.pack_dir())?;
            let mut series = BundleWriter::new(&objects, &packs, &commits, options).with_received(peer_has.said);
            let mut number = 0;
            while let Some(cut) = series.cut()? {
                number += 1;
                sent.revisions += cut.commits();
                sent.bytes += self.send_bundle(link, number, &series, cut)?;
            }
            monitor.end(Stage::Send);
        }
        link.say(&Message::SentAll(Some(head)))?;
        Ok(sent)
    }

    /// What a side is sent that has lost something: the commits that it wants, and those before them that it has not;
    /// none but what this side's head reaches, which it may have anyway.
    fn once_more(&self, head: CommitId, has: &Has<'_>) -> Result<Vec<CommitId>, EngineError> {
        let (graph, objects) = (self.graph(), self.store.objects());
        let mut known = Vec::new();
        for &wanted in has.wanted {
            let is_new = !known.contains(&wanted);
            if is_new && objects.is_commit(wanted) && graph.is_ancestor(wanted, head)? {
                known.push(wanted);
            }
        }
        let lacks = graph.range(&known, has.ours)?;
        let mut commits = known;
        commits.retain(|id| !lacks.contains(id));
        commits.extend(lacks);
        Ok(commits)
    }

    /// Sends one bundle, while it is written; answers with its bytes.
    fn send_bundle(
        &self,
        link: &Link,
        number: u32,
        series: &BundleWriter<'_>,
        bundle: Cut,
    ) -> Result<u64, EngineError> {
        link.wait_for_window()?;
        let (header, revisions) = (bundle.header(), bundle.commits());
        link.say(&Message::BundleBegin(BundleBegin {
            number,
            prerequisites: header.prerequisites.iter().copied().take(PREREQUISITE_LIMIT).collect(),
            tip: header.tip(),
            revisions,
            bytes_hint: None,
        }))?;
        link.answered.notify_all();
        let mut data = BufWriter::with_capacity(DATA, BundleData { link, monitor: &*self.cx.monitor, failed: None });
        let written = series.write(bundle, &mut data).map_err(EngineError::from);
        let written = written.and_then(|_| data.flush().map_err(EngineError::io("send", Path::new("a bundle"))));
        // What has kept it from being sent says more than that it was not written.
        let (data, _) = data.into_parts();
        data.failed.map_or(written, Err)?;
        let bytes = link.end_bundle()?;
        self.cx.monitor.advance(Stage::Send, revisions, 0);
        Ok(bytes)
    }

    /// Checks what arrived, and admits it: what is acknowledged is safe on disk. While one bundle is checked and admitted,
    /// the next is taken apart.
    fn admit(
        &self,
        link: &Link,
        peer: &str,
        arrivals: mpsc::Receiver<Arrival>,
        offered: &AtomicU64,
    ) -> Result<(), EngineError> {
        let objects = self.store.objects();
        let (mut revisions, mut told) = (0, Ok(()));
        std::thread::scope(|scope| {
            let (begun, incoming) = mpsc::sync_channel(0);
            scope.spawn(move || {
                for Arrival { begin, content } in arrivals {
                    let cut = content.cut_off();
                    let pack = self.take_apart(scope, content);
                    let is_over = pack.is_err();
                    if begun.send((begin, pack, cut)).is_err() || is_over {
                        break;
                    }
                }
            });
            let admitted = incoming.iter().try_for_each(|(begin, pack, cut)| {
                let pack = pack.and_then(|pack| Ok(pack.index(&objects)?));
                // What was cut off is no fault of the bundle's, and whoever reads the connection says why it was.
                let pack = pack.map_err(|error| if cut.happened() { ProtocolError::Over.into() } else { error })?;
                let admitted = self.store.admit(pack.verify(&objects)?)?;
                let lacks = if admitted.tips.first() != Some(&begin.tip) {
                    Some("it does not bring the revision that was announced")
                } else if begin.revisions > admitted.commits.len() as u64 {
                    Some("it does not bring as many revisions as were announced")
                } else {
                    None
                };
                if let Some(detail) = lacks {
                    let what = format!("bundle {}", begin.number);
                    return Err(StoreError::Hostile { what, detail: detail.to_owned() }.into());
                }
                // The last one is merged at once; the others are held against loss until then.
                revisions += begin.revisions;
                if begin.revisions == 0 || revisions < offered.load(Ordering::Relaxed) {
                    // An instalment has no revision: it keeps contents until theirs has come.
                    let held = if begin.revisions == 0 { RefName::instalment } else { RefName::incoming };
                    let edit = RefEdit { name: held(peer)?, expected: Expected::Any, new: Some(begin.tip) };
                    self.store.refs().update(&[edit])?;
                }
                self.cx.monitor.advance(Stage::Receive, begin.revisions, 0);
                // What has arrived is kept, also when nobody is there any more to be told.
                if told.is_ok() {
                    told = link.say(&Message::Stored(Stored { number: begin.number, tip: begin.tip }));
                }
                Ok(())
            });
            let admitted = admitted.and(told);
            // The other side has to hear of it, so that no more arrives, and who waits for that ends.
            if let Err(error) = &admitted {
                link.give_up(error);
            }
            drop(incoming);
            admitted
        })
    }

    /// Begins to take a bundle apart.
    fn take_apart<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        content: Arriving,
    ) -> Result<quarantine::Incoming<'scope>, EngineError> {
        let (header, pack) = Bundle::open(content)?.into_parts();
        Ok(quarantine::begin(scope, &self.store.private_dir(), header, pack, &Limits::default())?)
    }

    /// Checks a bundle, every object of it, against what is here. Nothing of it is visible before it is admitted.
    pub(crate) fn check(
        &self,
        content: impl Read + Send,
        objects: &Objects,
        limits: &Limits,
    ) -> Result<VerifiedPack, EngineError> {
        let (header, mut pack) = Bundle::open(content)?.into_parts();
        Ok(quarantine::receive(&self.store.private_dir(), header, &mut pack, objects, limits)?.verify(objects)?)
    }
}

/// Tells the other side of a connection that no exchange will be, and why; it learns nothing else.
pub fn refuse(connection: Connection, why: &str) {
    turn_away(connection, &Fault::new(FaultCode::Refused, why, false));
}

/// Tells the other side of a connection that no exchange will be just now, and why.
pub fn put_off(connection: Connection, why: &str) {
    turn_away(connection, &Fault::new(FaultCode::Busy, why, true));
}

fn turn_away(mut connection: Connection, fault: &Fault) {
    let mut session = Session::accept();
    // A text that is too long is cut, and one fault may always be sent.
    drop(session.send(&Message::Fault(fault.clone())));
    // Who does not listen needs no answer.
    drop(connection.writer.write_all(&session.take_output()).and_then(|()| connection.writer.flush()));
    drop(connection.writer);
    // Reading to the end lets what was written arrive before the connection goes.
    drop(io::copy(&mut connection.reader.take(1 << 20), &mut io::sink()));
}

/// This side's history, as it was when the exchange began.
pub(super) struct Here {
    pub(super) head: Option<CommitId>,
    pub(super) objects: Objects,
    pub(super) graph: Graph,
}

/// What the other side has.
#[derive(Clone, Copy)]
struct Has<'a> {
    /// Of this side's commits.
    ours: &'a [CommitId],
    /// All that it has said, also what this side does not know.
    said: &'a [CommitId],
    /// What it has lost, and wants in place of what is new.
    wanted: &'a [CommitId],
}

/// What is to be sent.
#[derive(Clone, Copy)]
struct Outgoing<'a> {
    head: Option<CommitId>,
    /// What the other side once had, where it is older now.
    restored: Option<CommitId>,
    /// Nothing is sent where this is not told.
    peer_has: Option<Has<'a>>,
}

/// Which end of the exchange this is.
enum Role<'a> {
    Dials { name: &'a str },
    Serves { name: Option<&'a str> },
}

impl Role<'_> {
    fn peer_name(&self, folder: &Folder, theirs: &Hello) -> String {
        match self {
            Self::Dials { name } | Self::Serves { name: Some(name) } => (*name).to_owned(),
            Self::Serves { name: None } => folder.name_for(theirs.replica, &theirs.device_name),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Transferred {
    pub(super) revisions: u64,
    bytes: u64,
    head: Option<CommitId>,
    /// The revision that this side once had, where the other side says that it is older now.
    restored: Option<CommitId>,
}

/// A bundle that arrives.
pub(super) struct Arrival {
    pub(super) begin: BundleBegin,
    pub(super) content: Arriving,
}

/// How many bundles may begin to arrive while one is admitted and one is taken apart.
pub(super) const WAITING: usize = 1;

/// The data of a bundle that is being sent.
struct BundleData<'a> {
    link: &'a Link,
    monitor: &'a dyn Monitor,
    failed: Option<EngineError>,
}

impl Write for BundleData<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(DATA)];
        self.link.data(bytes).map_err(|error| {
            self.failed = Some(error);
            io::ErrorKind::BrokenPipe
        })?;
        self.monitor.advance(Stage::Send, 0, bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a bundle that go into one frame.
const DATA: usize = 256 << 10;

/// The session and what it has to say, shared by the threads of one side.
pub(super) struct Link {
    session: Mutex<Session>,
    answered: Condvar,
    /// Nothing more will be answered.
    over: AtomicBool,
    /// Nothing more will be sent that needs an answer.
    sent: AtomicBool,
    /// Since when this side has waited for the other to say something.
    waiting: Mutex<Option<Instant>>,
    /// The other side has said nothing for so long that the connection was broken off.
    given_up: AtomicBool,
    control: Arc<dyn Control>,
    outbox: Outbox,
}

impl Link {
    fn new(control: Arc<dyn Control>) -> Self {
        let link = Self {
            control,
            session: Mutex::new(Session::accept()),
            answered: Condvar::new(),
            over: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            waiting: Mutex::new(None),
            given_up: AtomicBool::new(false),
            outbox: Outbox::default(),
        };
        link.outbox.push(link.session().take_output());
        link
    }

    /// Says that this side is alive, until the exchange has ended; ends it when the other side does not.
    fn keep_alive(&self, ended: &mpsc::Receiver<()>, patience: Duration) {
        while ended.recv_timeout(patience / SIGNS_OF_LIFE) == Err(mpsc::RecvTimeoutError::Timeout) {
            // A session that has ended has nothing to say.
            drop(self.say(&Message::Working));
            if self.waiting().is_some_and(|since| since.elapsed() >= patience) {
                self.given_up.store(true, Ordering::Relaxed);
                self.abandon();
                self.outbox.break_off();
                self.control.abort();
                return;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&self, message: &Message) -> Result<(), EngineError> {
        let mut session = self.session();
        let said = session.send(message);
        self.outbox.push(session.take_output());
        Ok(said?)
    }

    fn data(&self, bytes: &[u8]) -> Result<(), EngineError> {
        if !self.outbox.wait_for_room() || self.over.load(Ordering::Relaxed) {
            return Err(ProtocolError::Over.into());
        }
        let mut session = self.session();
        session.send_data(bytes)?;
        self.outbox.push(session.take_output());
        Ok(())
    }

    fn end_bundle(&self) -> Result<u64, EngineError> {
        let mut session = self.session();
        let end = session.end_bundle()?;
        self.outbox.push(session.take_output());
        Ok(end.bytes)
    }

    /// Waits until another bundle may be begun.
    fn wait_for_window(&self) -> Result<(), EngineError> {
        let mut session = self.session();
        while session.unanswered(Party::Us) >= WINDOW {
            if self.over.load(Ordering::Relaxed) {
                return Err(ProtocolError::Over.into());
            }
            session = self.answered.wait(session).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Nothing more will be sent that needs an answer.
    fn all_sent(&self) {
        let _session = self.session();
        self.sent.store(true, Ordering::Relaxed);
        self.answered.notify_all();
    }

    /// Waits until an answer is due; whether one is, or there will be none.
    fn awaits_answer(&self) -> bool {
        let mut session = self.session();
        while session.unanswered(Party::Us) == 0 {
            if self.sent.load(Ordering::Relaxed) || self.over.load(Ordering::Relaxed) {
                return false;
            }
            session = self.answered.wait(session).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Nothing more will be answered: whoever waits for it, or still sends, ends.
    fn abandon(&self) {
        let _session = self.session();
        self.over.store(true, Ordering::Relaxed);
        self.answered.notify_all();
    }

    /// Tells the other side that this one gives up, and why.
    pub(super) fn give_up(&self, error: &EngineError) {
        let fault = match error {
            EngineError::Protocol(error) => error.to_fault(),
            error => {
                let code = match error.failure() {
                    Failure::Busy => FaultCode::Busy,
                    Failure::Damaged => FaultCode::Damaged,
                    Failure::Refused if matches!(error, EngineError::Unrelated { .. }) => FaultCode::Unrelated,
                    Failure::Refused => FaultCode::Refused,
                    _ => FaultCode::Internal,
                };
                Some(Fault::new(code, &error.to_string(), error.failure() == Failure::Busy))
            }
        };
        if let Some(fault) = fault {
            // It may be too late to be heard.
            drop(self.say(&Message::Fault(fault)));
        }
        self.abandon();
    }
}

/// A thread that dies of a fault in the program takes the connection with it, so that nobody waits for ever.
pub(super) struct BreaksOff<'a>(pub(super) &'a Link);

impl Drop for BreaksOff<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandon();
            self.0.outbox.break_off();
            self.0.control.abort();
        }
    }
}

/// The reading end.
pub(super) struct Talk<'a> {
    pub(super) link: &'a Link,
    reader: &'a mut dyn Read,
    input: Vec<u8>,
    taken: usize,
    about: &'a str,
    monitor: &'a dyn Monitor,
}

impl Talk<'_> {
    /// The next message, past those that are for people or mean only that the other side is alive.
    pub(super) fn next(&mut self) -> Result<Message, EngineError> {
        loop {
            while self.taken < self.input.len() {
                let mut rest = &self.input[self.taken..];
                let received = {
                    let mut session = self.link.session();
                    let received = session.receive(&mut rest);
                    self.link.outbox.push(session.take_output());
                    received
                };
                self.taken = self.input.len() - rest.len();
                match received {
                    Ok(Some(Message::Notice(text))) => self.monitor.notice(&text),
                    Ok(None | Some(Message::Working)) => {}
                    Ok(Some(message)) => {
                        self.link.answered.notify_all();
                        return Ok(message);
                    }
                    Err(error) => {
                        self.link.abandon();
                        return Err(self.fault(error));
                    }
                }
            }
            self.input.resize(DATA, 0);
            self.taken = 0;
            let since = Instant::now();
            *self.link.waiting() = Some(since);
            let read = loop {
                match self.reader.read(&mut self.input) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            *self.link.waiting() = None;
            if self.link.given_up.load(Ordering::Relaxed) {
                let why = format!("it has said nothing for {} seconds", since.elapsed().as_secs());
                return Err(EngineError::Unreachable { peer: self.about.to_owned(), why });
            }
            // A connection that fails is one that was cut.
            let read = read.unwrap_or(0);
            self.input.truncate(read);
            if read == 0 {
                let ended = self.link.session().end();
                self.link.abandon();
                return Err(ended.err().unwrap_or(ProtocolError::Over).into());
            }
        }
    }

    fn fault(&self, error: ProtocolError) -> EngineError {
        match error {
            ProtocolError::Fault(fault) => {
                let failure = match fault.code {
                    FaultCode::Busy => Failure::Busy,
                    FaultCode::Refused | FaultCode::Unrelated | FaultCode::Version => Failure::Refused,
                    FaultCode::Damaged => Failure::Damaged,
                    _ => Failure::Failed,
                };
                EngineError::PeerFault { peer: self.about.to_owned(), text: fault.text, failure }
            }
            error => error.into(),
        }
    }

    /// The other side did not keep its word.
    pub(super) fn broke(&self, text: &str) -> EngineError {
        EngineError::PeerFault { peer: self.about.to_owned(), text: text.to_owned(), failure: Failure::Refused }
    }

    pub(super) fn unexpected(&self, message: &Message) -> EngineError {
        self.broke(&format!("an unexpected {}", message.kind()))
    }

    pub(super) fn hello(&mut self) -> Result<Hello, EngineError> {
        match self.next()? {
            Message::Hello(hello) => Ok(*hello),
            other => Err(self.unexpected(&other)),
        }
    }

    pub(super) fn merged(&mut self) -> Result<Merged, EngineError> {
        loop {
            match self.next()? {
                Message::Merged(merged) => return Ok(merged),
                Message::Stored(_) => {}
                other => return Err(self.unexpected(&other)),
            }
        }
    }

    /// Hears the answers to the bundles that are sent, until all are acknowledged.
    fn answers(&mut self) -> Result<(), EngineError> {
        while self.link.awaits_answer() {
            match self.next()? {
                Message::Stored(_) => {}
                Message::Rejected(rejected) => return Err(self.broke(&rejected.text)),
                other => return Err(self.unexpected(&other)),
            }
        }
        Ok(())
    }
}

/// Finds which commits of this side's the other side has.
fn agree(talk: &mut Talk<'_>, here: &Here, ours: &Hello, theirs: &Hello) -> Result<Vec<CommitId>, EngineError> {
    let known =
        |ids: &[CommitId]| -> Vec<CommitId> { ids.iter().copied().filter(|id| here.objects.is_commit(*id)).collect() };
    // What it holds of an exchange that was cut off is among this.
    let they_hold = known(&theirs.have);
    let mut common = they_hold.clone();
    let mut rounds = SEARCH_ROUNDS;
    let mut asking = match theirs.head {
        Some(newer) if common.is_empty() && ours.has_history => Some(Locate { newer, older: None }),
        _ => None,
    };
    if let Some(locate) = asking {
        talk.link.say(&Message::Locate(locate))?;
    }
    let mut said = false;
    let mut peer_has = None;
    loop {
        if asking.is_none() && !said {
            talk.link.say(&Message::Common(common.clone()))?;
            said = true;
        }
        if said && let Some(peer_has) = peer_has.take() {
            return Ok(peer_has);
        }
        match talk.next()? {
            Message::Locate(locate) => {
                let sample = sample(here, locate)?;
                talk.link.say(&Message::Located(sample))?;
            }
            Message::Located(sample) => {
                asking = None;
                rounds -= 1;
                let found = sample.iter().position(|id| here.objects.is_commit(*id));
                if let Some(at) = found {
                    common = vec![sample[at]];
                    if let Some(newer) = at.checked_sub(1).map(|at| sample[at]).filter(|_| rounds > 0) {
                        let locate = Locate { newer, older: Some(sample[at]) };
                        talk.link.say(&Message::Locate(locate))?;
                        asking = Some(locate);
                    }
                }
            }
            // Only what is here can be left out of what is sent.
            Message::Common(ids) => {
                let mut both = known(&ids);
                both.extend(they_hold.iter().filter(|id| !ids.contains(id)));
                peer_has = Some(both);
            }
            other => return Err(talk.unexpected(&other)),
        }
    }
}

/// A sample of this side's history below `newer`: ever wider apart down to the first revision, or evenly spaced down
/// to `older`.
fn sample(here: &Here, locate: Locate) -> Result<Vec<CommitId>, EngineError> {
    let mut line = Vec::new();
    let mut at = here.objects.is_commit(locate.newer).then_some(locate.newer);
    while let Some(commit) = at.filter(|commit| Some(*commit) != locate.older) {
        line.push(commit);
        at = here.graph.parents(commit)?.first().copied();
    }
    let last = line.len().saturating_sub(1);
    let chosen: Vec<usize> = match locate.older {
        Some(_) => (1..=SAMPLE).map(|n| n * line.len() / (SAMPLE + 1)).collect(),
        None => {
            std::iter::successors(Some(1usize), |n| n.checked_mul(2)).take_while(|n| *n < last).chain([last]).collect()
        }
    };
    let mut sample: Vec<CommitId> = chosen.into_iter().filter_map(|n| line.get(n).copied()).collect();
    sample.dedup();
    Ok(sample)
}

/// Reads what the other side sends until it has sent all.
pub(super) fn receive(
    talk: &mut Talk<'_>,
    allowed: bool,
    arrived: &mpsc::SyncSender<Arrival>,
    offered: &AtomicU64,
    room: &dyn Fn() -> Result<(), EngineError>,
) -> Result<Transferred, EngineError> {
    // Whoever takes bundles apart, or admits them, has failed, and says why.
    let nobody_listens = || EngineError::from(ProtocolError::Over);
    let mut received = Transferred::default();
    let mut open: Option<(Filling, u64)> = None;
    loop {
        match talk.next()? {
            Message::Offer(offer) => {
                offered.store(offer.revisions, Ordering::Relaxed);
                received.restored = offer.restored;
                if offer.revisions > 0 {
                    talk.monitor.begin(Stage::Receive, Some(offer.revisions));
                }
            }
            Message::BundleBegin(_) if !allowed => {
                return Err(talk.broke("it sends revisions, though none are received from it"));
            }
            Message::BundleBegin(begin) => {
                room()?;
                let (filling, content) = arrival();
                open = Some((filling, begin.revisions));
                arrived.send(Arrival { begin, content }).map_err(|_| nobody_listens())?;
            }
            Message::BundleData(bytes) => {
                if let Some((filling, _)) = &open {
                    let before = received.bytes / LOOK_EVERY;
                    received.bytes += bytes.len() as u64;
                    if received.bytes / LOOK_EVERY != before {
                        room()?;
                    }
                    talk.monitor.advance(Stage::Receive, 0, bytes.len() as u64);
                    if !filling.put(bytes) {
                        return Err(nobody_listens());
                    }
                }
            }
            Message::BundleEnd(_) => {
                if let Some((filling, revisions)) = open.take() {
                    // It is compared with what the bundle brings when that is admitted.
                    received.revisions = received.revisions.saturating_add(revisions);
                    if !filling.end() {
                        return Err(nobody_listens());
                    }
                }
            }
            Message::Stored(_) => {}
            Message::Rejected(rejected) => return Err(talk.broke(&rejected.text)),
            Message::SentAll(head) => {
                received.head = head;
                talk.monitor.end(Stage::Receive);
                return Ok(received);
            }
            other => return Err(talk.unexpected(&other)),
        }
    }
}
