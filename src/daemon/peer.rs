//! One peer of the daemon: a thread that keeps the connection with it, hears its news, and sees to it that exchanges
//! begin when they should.
//!
//! It decides (by [`super::rule`]); exchanges run in threads of their own, one at a time for each folder. A failure is
//! tried again, ever more rarely, for ever, and stands on the board meanwhile. Nothing here has to survive a kill: what
//! the peer has is in refs that exchanges move.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::board::LinkState;
use super::link::{DIAL, Live, options};
use super::memory;
use super::rule::{KeptBack, Known, Next, backoff};
use super::shared::Shared;
use crate::clock::{Timestamp, receive};
use crate::config::{Address, Due, Name, PeerSettings, SshAddress, env};
use crate::engine::report::ExchangeReport;
use crate::engine::{self, EngineError, ExchangeOptions, Failure, Folder, PeerTarget, SshTarget};
use crate::id::{CommitId, DeviceId, FolderId};
use crate::transport::TransportError;
use crate::transport::network::{Link, PathKind};
use crate::transport::throttle::Limiter;

/// How often a peer without a standing connection is asked for what is new, unless its schedule says otherwise.
const POLL: Duration = Duration::from_mins(1);
/// How long a link counts as young: of two young ones, the one that the lower key dialed stays.
const YOUNG: Duration = Duration::from_secs(5);
/// How soon an exchange is tried again for which somebody had no time.
const BUSY: Duration = Duration::from_millis(200);
/// Of how many folders that are not ready here it is remembered what the peer has.
const UNHEARD: usize = 1000;
/// How often the state of the connection is written on the board.
const GLANCE: Duration = Duration::from_secs(30);
/// How often at most, while it may get a better way.
const SOONEST_GLANCE: Duration = Duration::from_millis(20);

/// What went wrong, for who asked for it.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) failure: Failure,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self { failure: error.failure(), message: error.to_string(), hint: error.hint() }
    }
}

pub(super) type Outcome = Result<ExchangeReport, Trouble>;

/// Where the outcome of an exchange of a folder with a peer is told.
pub(super) type Reply = Sender<(Name, Name, Outcome)>;

/// What the thread of a peer is told.
pub(super) enum ToPeer {
    /// The head of a folder here has moved.
    Ours(Name),
    /// The peer has connected, or was reached.
    Linked(Link),
    /// It could not be reached.
    NotReached(TransportError),
    /// A link is gone.
    Lost(u64, String),
    /// The other side's first word on a link.
    Greeted(u64, u64),
    /// The head of a folder there.
    Theirs(FolderId, Option<CommitId>, DeviceId),
    /// An exchange that the peer began.
    Serving(Name),
    /// An exchange is over; who is to be told of it.
    Ended(Name, Box<Outcome>, Vec<Reply>),
    /// Somebody wants an exchange now, and its outcome.
    Exchange(Name, Reply),
    /// End.
    Stop,
}

/// The heads here and there.
type Heads = (Option<CommitId>, Option<CommitId>);

/// What is known of one folder of the peer.
struct Pair {
    theirs: Option<CommitId>,
    by: Option<DeviceId>,
    /// How often the peer has told of its head, and how often when the exchange that is under way began.
    news: u64,
    news_before: u64,
    /// Whether the peer has said anything of the folder since it is connected.
    heard: bool,
    /// Since when ours and theirs are what they are.
    since: Instant,
    /// How many exchanges are under way.
    running: u32,
    failures: u32,
    not_before: Instant,
    /// The heads for which an exchange has done all that it can: they are the same, or rights keep them apart.
    settled: Option<Heads>,
    /// When an exchange last ended well, for schedules.
    last: Option<Timestamp>,
    /// When one last began, for polling.
    polled: Option<Instant>,
    /// Who wants an exchange that has not begun yet.
    waiting: Vec<Reply>,
    /// What [`Driver::known`] found for these heads.
    cache: Option<(Heads, bool, bool)>,
}

impl Pair {
    fn new(now: Instant) -> Self {
        Self {
            theirs: None,
            by: None,
            news: 0,
            news_before: 0,
            heard: false,
            since: now,
            running: 0,
            failures: 0,
            not_before: now,
            settled: None,
            last: None,
            polled: None,
            waiting: Vec::new(),
            cache: None,
        }
    }

    fn began(&mut self) {
        if self.running == 0 {
            self.news_before = self.news;
        }
        self.running += 1;
    }

    fn changed(&mut self, now: Instant) {
        self.since = now;
        self.cache = None;
    }
}

/// What the thread of a peer leaves to the next one, when the peer's settings change.
pub(super) struct Legacy {
    inbox: Receiver<ToPeer>,
    /// How many links there were.
    links: u64,
}

impl Legacy {
    /// There was none before.
    pub(super) const fn new(inbox: Receiver<ToPeer>) -> Self {
        Self { inbox, links: 0 }
    }
}

/// The thread of a peer.
pub(super) struct Driver {
    shared: Arc<Shared>,
    name: Name,
    settings: PeerSettings,
    inbox: Receiver<ToPeer>,
    pairs: BTreeMap<Name, Pair>,
    live: Option<Live>,
    links: u64,
    /// What the peer has said on this link of folders that cannot be used here yet.
    unheard: BTreeMap<FolderId, (Option<CommitId>, DeviceId)>,
    dialing: bool,
    failures: u32,
    next_dial: Instant,
    /// The numbers that daemons with this key have drawn, the latest last.
    instances: Vec<u64>,
    upload: Arc<Limiter>,
    download: Arc<Limiter>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, name: Name, settings: PeerSettings, legacy: Legacy) -> Self {
        let Legacy { inbox, links } = legacy;
        let began = shared.instant();
        let pairs = settings.folders.iter().map(|folder| (folder.clone(), Pair::new(began))).collect();
        Self {
            shared,
            name,
            settings,
            inbox,
            pairs,
            live: None,
            links,
            unheard: BTreeMap::new(),
            dialing: false,
            failures: 0,
            next_dial: began,
            instances: Vec::new(),
            upload: Arc::new(Limiter::new(None)),
            download: Arc::new(Limiter::new(None)),
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self) -> Legacy {
        self.shared.board.peer(&self.name, |state| {
            state.folders.retain(|folder, _| self.settings.folders.contains(folder));
        });
        for folder in self.settings.folders.clone() {
            self.shared.board.pair(&self.name, &folder, |_| {});
        }
        loop {
            let rest = self.step();
            match receive(&*self.shared.clock, &self.inbox, rest) {
                Ok(ToPeer::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.hear(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // What has come meanwhile belongs to the same step.
            while let Ok(message) = self.inbox.try_recv() {
                if matches!(message, ToPeer::Stop) {
                    return self.end();
                }
                self.hear(message);
            }
        }
        self.end()
    }

    fn end(self) -> Legacy {
        match self.live {
            // The network closes later, when last words have arrived.
            Some(live) if self.shared.is_stopping() => live.farewell(&self.shared),
            Some(live) => live.link.close("the peer was changed or removed"),
            None => {}
        }
        for (folder, pair) in self.pairs {
            let gone = Trouble {
                failure: Failure::Failed,
                message: "the daemon was told to stop, or the peer was changed".to_owned(),
                hint: None,
            };
            for waiting in pair.waiting {
                drop(waiting.send((folder.clone(), self.name.clone(), Err(gone.clone()))));
            }
        }
        Legacy { inbox: self.inbox, links: self.links }
    }

    fn is_device(&self) -> bool {
        matches!(self.settings.address, Address::Device(_))
    }

    fn hear(&mut self, message: ToPeer) {
        match message {
            ToPeer::Stop => {}
            ToPeer::Ours(folder) => {
                if let Some(pair) = self.pairs.get_mut(&folder) {
                    pair.changed(self.shared.instant());
                    self.note_held(&folder);
                }
                if let Some(live) = &self.live {
                    live.say_head(&self.shared, &folder);
                }
                if let Some(open) = self.shared.folder(&folder)
                    && let Some((head, by)) = self.unheard.remove(&open.id())
                {
                    self.heard(open.id(), head, by);
                }
            }
            ToPeer::Linked(link) => self.linked(link),
            ToPeer::NotReached(error) => self.not_reached(&error),
            ToPeer::Lost(number, why) => {
                if self.live.as_ref().is_some_and(|live| live.number == number) {
                    tracing::info!(peer = %self.name, "connection lost: {}", why.escape_debug());
                    self.unlinked(Some(why));
                }
            }
            ToPeer::Greeted(number, instance) => self.greeted(number, instance),
            ToPeer::Theirs(folder, head, by) => self.heard(folder, head, by),
            ToPeer::Serving(folder) => {
                if let Some(pair) = self.pairs.get_mut(&folder) {
                    pair.began();
                    self.shared.board.pair(&self.name, &folder, |state| state.exchanging = true);
                }
            }
            ToPeer::Ended(folder, outcome, replies) => {
                let outcome = *outcome;
                self.ended(&folder, outcome.clone());
                if let Some(pair) = self.pairs.get_mut(&folder)
                    && pair.running > 0
                    && outcome.as_ref().is_err_and(|trouble| trouble.failure == Failure::Busy)
                {
                    // It made way for the one that the other side has begun; what was asked for comes after it.
                    return pair.waiting.extend(replies);
                }
                for reply in replies {
                    drop(reply.send((folder.clone(), self.name.clone(), outcome.clone())));
                }
            }
            ToPeer::Exchange(folder, reply) => {
                if let Some(pair) = self.pairs.get_mut(&folder) {
                    pair.waiting.push(reply);
                    pair.not_before = self.shared.instant();
                    self.next_dial = self.shared.instant();
                } else {
                    let message = format!("peer `{}` has no part in folder `{folder}`", self.name);
                    let trouble = Trouble { failure: Failure::Usage, message, hint: None };
                    drop(reply.send((folder, self.name.clone(), Err(trouble))));
                }
            }
        }
    }

    // The link.

    fn linked(&mut self, link: Link) {
        self.dialing = false;
        if self.settings.key() != Some(&link.device()) {
            // It was dialed before the peer became another.
            link.close("the peer was changed");
            return;
        }
        if let Some(old) = self.live.take() {
            let lower = self.shared.device < link.device();
            // Dialed by the lower key.
            let by_lower = |link: &Link| link.is_ours() == lower;
            if !old.link.is_closed()
                && self.shared.since(old.since) < YOUNG
                && (by_lower(&old.link) || !by_lower(&link))
            {
                link.close("there is another connection");
                self.live = Some(old);
                return;
            }
            old.link.close("there is a newer connection");
        }
        self.links += 1;
        self.unheard.clear();
        self.failures = 0;
        tracing::info!(peer = %self.name, ours = link.is_ours(), "connected");
        for pair in self.pairs.values_mut() {
            pair.heard = false;
            pair.failures = 0;
            pair.not_before = self.shared.instant();
            pair.changed(self.shared.instant());
        }
        let limits = (
            vec![Arc::clone(&self.upload), Arc::clone(&self.shared.upload)],
            vec![Arc::clone(&self.download), Arc::clone(&self.shared.download)],
        );
        self.live = Some(Live::start(&self.shared, &self.name, &self.settings, link, self.links, limits));
        self.shared.board.peer(&self.name, |state| {
            state.trouble = None;
            state.next_try = None;
        });
    }

    fn unlinked(&mut self, why: Option<String>) {
        self.live = None;
        self.next_dial = self.shared.instant();
        self.shared.board.peer(&self.name, |state| {
            state.link = None;
            state.trouble = why;
        });
    }

    fn not_reached(&mut self, error: &TransportError) {
        self.dialing = false;
        if self.live.is_some() {
            return;
        }
        self.failures += 1;
        let pause = backoff(self.failures, chance());
        self.next_dial = self.shared.instant() + pause;
        tracing::debug!(peer = %self.name, "not reached: {}", error.to_string().escape_debug());
        let next = self.shared.after(pause);
        self.shared.board.peer(&self.name, |state| {
            state.trouble = Some(error.to_string());
            state.next_try = next;
        });
        let failure = match error {
            TransportError::Refused { .. } => Failure::Refused,
            _ => Failure::Unreachable,
        };
        let trouble =
            Trouble { failure, message: format!("peer `{}` cannot be reached: {error}", self.name), hint: None };
        for (folder, pair) in &mut self.pairs {
            for waiting in pair.waiting.drain(..) {
                drop(waiting.send((folder.clone(), self.name.clone(), Err(trouble.clone()))));
            }
        }
    }

    /// A daemon that starts anew draws a new number; one that comes back with an old number never went: there are two.
    fn greeted(&mut self, number: u64, instance: u64) {
        if self.live.as_ref().is_none_or(|live| live.number != number) {
            return;
        }
        let known = self.instances.iter().position(|known| *known == instance);
        if known.is_some_and(|at| at + 1 < self.instances.len()) {
            let trouble = format!("two devices use the key of `{}`: give one of them a key of its own", self.name);
            tracing::warn!(peer = %self.name, "{trouble}");
            self.shared.board.peer(&self.name, |state| state.trouble = Some(trouble));
        }
        self.instances.retain(|known| *known != instance);
        self.instances.push(instance);
        if self.instances.len() > 8 {
            self.instances.remove(0);
        }
    }

    fn dial(&mut self) {
        let (Some(network), Some(&device)) = (self.shared.network(), self.settings.key()) else {
            self.next_dial = self.shared.instant() + backoff(self.failures, 0.5);
            return;
        };
        self.dialing = true;
        let hints = memory::hints(&self.shared.home, &self.name, &self.settings, self.shared.relay_url());
        let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
        super::spawn(&format!("dial {name}"), move || {
            let told = match network.dial(device, &hints, DIAL) {
                Ok(link) => ToPeer::Linked(link),
                Err(error) => ToPeer::NotReached(error),
            };
            shared.tell_peer(&name, told);
        });
    }

    // What is known.

    fn heard(&mut self, folder: FolderId, head: Option<CommitId>, by: DeviceId) {
        let Some(name) = self.shared.folder_with(folder) else {
            // Bounded by what a person can have shared with one peer.
            if self.unheard.len() < UNHEARD || self.unheard.contains_key(&folder) {
                self.unheard.insert(folder, (head, by));
            }
            return;
        };
        let Some(pair) = self.pairs.get_mut(&name) else { return };
        pair.heard = true;
        pair.news += 1;
        if pair.theirs != head {
            pair.theirs = head;
            pair.failures = 0;
            pair.not_before = self.shared.instant();
            pair.changed(self.shared.instant());
        }
        pair.by = Some(by);
        let ours = self.shared.head_of(&name).and_then(|(head, _)| head);
        if ours == head
            && let Some(folder) = self.shared.folder(&name)
            && let Some(head) = head
            && let Err(error) = folder.saw_head(self.name.as_str(), head)
        {
            tracing::warn!(folder = %name, peer = %self.name, "{}", error.to_string().escape_debug());
        }
        let now = self.shared.now();
        self.shared.board.pair(&self.name, &name, |state| {
            state.head = head;
            state.heard = Some(now);
            state.in_step = ours == head;
        });
    }

    fn ended(&mut self, folder: &Name, outcome: Outcome) {
        let Some(pair) = self.pairs.get_mut(folder) else { return };
        pair.running = pair.running.saturating_sub(1);
        self.shared.fetches_no_more(folder, &self.name);
        pair.changed(self.shared.instant());
        match outcome {
            Ok(report) => {
                if report.no_room.is_none() {
                    pair.failures = 0;
                }
                // What the peer has said itself meanwhile is newer than what it said in the exchange.
                if pair.news == pair.news_before {
                    pair.theirs = report.peer_head;
                }
                pair.heard = true;
                // Otherwise one of the two has moved meanwhile, and there is more to exchange.
                let settled = report.in_step || (report.sent + report.received == 0 && report.no_room.is_none());
                pair.settled = settled.then_some((report.head, report.peer_head));
                if report.no_room.is_some() {
                    pair.failures += 1;
                    pair.not_before = self.shared.instant() + backoff(pair.failures, chance());
                }
                pair.last = Some(self.shared.now());
                let by = pair.by.filter(|_| report.head == report.peer_head).unwrap_or(self.shared.device);
                let last = pair.last;
                let (running, theirs) = (pair.running > 0, pair.theirs);
                if let Err(error) = self.shared.head_moved(folder, by) {
                    tracing::warn!(folder = %folder, "{error}");
                }
                self.shared.board.pair(&self.name, folder, |state| {
                    state.head = theirs;
                    state.exchanging = running;
                    state.last = last;
                    state.trouble.clone_from(&report.no_room);
                    state.next_try = None;
                });
                self.note_held(folder);
                if report.sent + report.received > 0 {
                    tracing::info!(
                        folder = %folder, peer = %self.name, sent = report.sent, received = report.received,
                        written = report.applied, "exchanged"
                    );
                }
                for note in report.notes.iter().chain(&report.no_room) {
                    tracing::warn!(folder = %folder, peer = %self.name, "{}", note.escape_debug());
                }
            }
            Err(trouble) => {
                let is_busy = trouble.failure == Failure::Busy;
                let pause = if is_busy {
                    BUSY
                } else {
                    pair.failures += 1;
                    backoff(pair.failures, chance())
                };
                pair.not_before = self.shared.instant() + pause;
                let running = pair.running > 0;
                if is_busy {
                    tracing::debug!(folder = %folder, peer = %self.name, "not now: {}", trouble.message.escape_debug());
                } else {
                    tracing::warn!(
                        folder = %folder, peer = %self.name, "exchange failed, tried again in {:.1} s: {}",
                        pause.as_secs_f64(), trouble.message.escape_debug()
                    );
                }
                let next = self.shared.after(pause);
                self.shared.board.pair(&self.name, folder, |state| {
                    state.exchanging = running;
                    if !is_busy {
                        state.trouble = Some(trouble.message.clone());
                    }
                    state.next_try = next;
                });
            }
        }
    }

    /// What is known of a folder, for the rule.
    fn known(&mut self, name: &Name, folder: &Folder, ours: Option<CommitId>) -> Result<Known, EngineError> {
        let direction = self.settings.direction_of(name);
        let lower = self.settings.key().is_some_and(|key| self.shared.device < *key);
        let pair = self.pairs.get_mut(name).expect("asked for a folder of the peer");
        let theirs = pair.theirs;
        let (have_theirs, they_have_ours) = match pair.cache {
            Some((heads, have, they)) if heads == (ours, theirs) => (have, they),
            _ => {
                let have = theirs.map_or(Ok(true), |theirs| folder.contains(theirs))?
                    || folder.held_of(self.name.as_str())?.is_some_and(|held| Some(held.revision) == theirs);
                let they = ours.map_or(Ok(true), |ours| folder.peer_has(self.name.as_str(), ours))?;
                pair.cache = Some(((ours, theirs), have, they));
                (have, they)
            }
        };
        let fetched_elsewhere = theirs.is_some_and(|theirs| self.shared.is_fetched_elsewhere(name, theirs, &self.name));
        Ok(Known {
            ours,
            theirs,
            have_theirs,
            they_have_ours,
            sends: direction.sends(),
            receives: direction.receives(),
            lower,
            fetched_elsewhere,
            since: self.shared.since(pair.since),
        })
    }

    // Deciding.

    /// Does what is due; answers with how long nothing else is.
    fn step(&mut self) -> Duration {
        let config = self.shared.config();
        let now = self.shared.zoned_now();
        let rates = config.rates_of(&self.name, &now);
        self.upload.set_rate(rates.upload.bytes_per_second());
        self.download.set_rate(rates.download.bytes_per_second());

        let mut rest = GLANCE;
        let forced = self.pairs.values().any(|pair| pair.running > 0 || !pair.waiting.is_empty());
        let paused = self.settings.paused.holds(self.shared.now());
        self.shared.board.peer(&self.name, |state| state.paused = paused);
        if paused && !forced {
            if let Some(live) = self.live.take() {
                live.link.close("paused");
                self.unlinked(None);
            }
            return rest;
        }
        if self.is_device() {
            if self.live.as_ref().is_some_and(|live| live.link.is_closed()) {
                self.unlinked(Some("the connection was closed".to_owned()));
            }
            if self.live.is_none() && !self.dialing {
                let wait = self.next_dial.saturating_duration_since(self.shared.instant());
                if wait.is_zero() {
                    self.dial();
                } else {
                    rest = rest.min(wait);
                }
            }
            rest = rest.min(self.tell_path());
        }
        let folders: Vec<Name> = self.pairs.keys().cloned().collect();
        for folder in folders {
            match self.decide(&folder, &config, &now) {
                Ok(wait) => rest = rest.min(wait),
                Err(error) => {
                    tracing::warn!(folder = %folder, peer = %self.name, "{}", error.to_string().escape_debug());
                    self.shared.board.pair(&self.name, &folder, |state| state.trouble = Some(error.to_string()));
                }
            }
        }
        // Shorter than this, only the clock would be looked at.
        rest.max(Duration::from_millis(5))
    }

    /// Begins an exchange of a folder if one should begin; answers with when to look again.
    fn decide(
        &mut self,
        name: &Name,
        config: &crate::config::Config,
        now: &jiff::Zoned,
    ) -> Result<Duration, EngineError> {
        let (Some(folder), Some((ours, _))) = (self.shared.folder(name), self.shared.head_of(name)) else {
            return Ok(GLANCE);
        };
        let is_device = self.is_device();
        let Some(pair) = self.pairs.get(name) else { return Ok(GLANCE) };
        if pair.running > 0 {
            return Ok(GLANCE);
        }
        if is_device && self.live.is_none() {
            return Ok(GLANCE);
        }
        if pair.waiting.is_empty() {
            let wait = pair.not_before.saturating_duration_since(self.shared.instant());
            if !wait.is_zero() {
                return Ok(wait);
            }
            let last = pair.last.or_else(|| folder.last_seen(self.name.as_str()));
            let scheduled = match config.is_due(&self.name, last, now) {
                Due::Now => config.schedule_of(&self.name).every.is_some(),
                Due::Later(when) => {
                    self.shared.board.pair(&self.name, name, |state| state.next_try = when);
                    return Ok(when.map_or(GLANCE, |when| self.shared.until(when).min(GLANCE)));
                }
                Due::Paused(_) => return Ok(GLANCE),
            };
            let (theirs, settled) = (pair.theirs, pair.settled);
            self.shared
                .board
                .pair(&self.name, name, |state| state.in_step = state.head.is_some() && ours == state.head);
            if is_device && settled == Some((ours, theirs)) {
                return Ok(GLANCE);
            }
            if is_device {
                if !pair.heard && !scheduled {
                    return Ok(GLANCE);
                }
                let known = self.known(name, &folder, ours)?;
                self.note(name, &known);
                match known.next() {
                    Next::InStep => return Ok(GLANCE),
                    Next::Wait(wait) => return Ok(wait),
                    Next::Begin => {}
                }
            } else if !scheduled {
                let moved = pair.settled.is_none_or(|(settled, _)| settled != ours);
                let polled = pair.polled.map(|polled| POLL.saturating_sub(self.shared.since(polled)));
                match polled {
                    Some(wait) if !moved && !wait.is_zero() => return Ok(wait.min(GLANCE)),
                    _ => {}
                }
            }
        }
        self.begin(name, &folder);
        Ok(GLANCE)
    }

    /// Tells on the board, and once in the log, what is kept back by the direction of the folder.
    fn note(&self, folder: &Name, known: &Known) {
        let note = known.kept_back().map(|kept| match kept {
            KeptBack::Ours => format!("what is new here is not sent to `{}`: it is only received from", self.name),
            KeptBack::Theirs => format!("`{}` has something new, which is not taken: it is only sent to", self.name),
        });
        let mut is_news = false;
        self.shared.board.pair(&self.name, folder, |state| {
            is_news = state.note != note;
            state.note.clone_from(&note);
        });
        if let (true, Some(note)) = (is_news, note) {
            tracing::warn!(folder = %folder, peer = %self.name, "{note}");
        }
    }

    /// Tells on the board, and once in the log, what is held back of the peer.
    fn note_held(&self, name: &Name) {
        let Some(folder) = self.shared.folder(name) else { return };
        let held = match folder.held_of(self.name.as_str()) {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(folder = %name, peer = %self.name, "{}", error.to_string().escape_debug());
                return;
            }
        };
        let mut is_news = false;
        self.shared.board.pair(&self.name, name, |state| {
            is_news = state.held != held;
            state.held.clone_from(&held);
        });
        if let Some(held) = held.filter(|_| is_news) {
            tracing::warn!(
                folder = %name, peer = %self.name,
                "held back until somebody says `foldersync accept` or `foldersync reject`: {}", held.words()
            );
        }
    }

    /// Begins an exchange.
    fn begin(&mut self, name: &Name, folder: &Arc<Folder>) {
        let Some(pair) = self.pairs.get_mut(name) else { return };
        let Some(under_way) = self.shared.begins(name, &self.name) else { return };
        // Who asks later means what changed later.
        let replies = std::mem::take(&mut pair.waiting);
        pair.began();
        pair.polled = Some(self.shared.instant());
        if let Some(theirs) = pair.theirs {
            self.shared.fetches(name, theirs, &self.name);
        }
        // The folder's thread captures what it sees; who asks for an exchange means what he sees.
        let options = ExchangeOptions { capture: !replies.is_empty(), ..options(&self.settings, name) };
        tracing::debug!(folder = %name, peer = %self.name, "an exchange begins");
        self.shared.board.pair(&self.name, name, |state| {
            state.exchanging = true;
            state.next_try = None;
        });
        let (shared, peer, name, folder) =
            (Arc::clone(&self.shared), self.name.clone(), name.clone(), Arc::clone(folder));
        let upload = vec![Arc::clone(&self.upload), Arc::clone(&self.shared.upload)];
        let download = vec![Arc::clone(&self.download), Arc::clone(&self.shared.download)];
        let link = self.live.as_ref().map(|live| live.link.clone());
        let target = target_of(&self.name, &self.settings, options);
        super::spawn(&format!("exchange {name}"), move || {
            let run = || match (link, target) {
                (Some(link), _) => {
                    let connection = super::link::open_exchange(&link, &folder)?;
                    folder.exchange_over(connection.limited(upload, download), peer.as_str(), options)
                }
                (None, Some(target)) => folder.exchange(&target, true),
                (None, None) => {
                    Err(EngineError::Unreachable { peer: peer.to_string(), why: "there is no connection".to_owned() })
                }
            };
            let outcome = run().map_err(Trouble::from);
            drop(under_way);
            shared.tell_peer(&peer, ToPeer::Ended(name, Box::new(outcome), replies));
        });
    }

    /// Writes on the board how the peer is connected, and remembers where it was; answers with when to look again.
    fn tell_path(&mut self) -> Duration {
        let Some(live) = &mut self.live else { return GLANCE };
        let path = live.link.path();
        let kind = match path.kind {
            PathKind::Direct => "direct",
            PathKind::Local => "local",
            PathKind::Relay => "relay",
            PathKind::Unknown => "unknown",
        };
        if live.remembered.as_ref() != Some(&path.remote) {
            memory::remember(&self.shared.home, &self.name, &path);
            live.remembered = Some(path.remote.clone());
        }
        let rtt_us = path.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
        let link = Some(LinkState { kind: kind.to_owned(), remote: path.remote, rtt_us });
        self.shared.board.peer(&self.name, |state| state.link = link);
        // The direct way is found soon after the other, or not at all.
        match path.kind {
            PathKind::Direct | PathKind::Local => GLANCE,
            PathKind::Relay | PathKind::Unknown => (self.shared.since(live.since) / 2).clamp(SOONEST_GLANCE, GLANCE),
        }
    }
}

/// A peer without a standing connection, as the engine reaches it.
fn target_of(name: &Name, settings: &PeerSettings, options: ExchangeOptions) -> Option<PeerTarget> {
    let address = engine_address(&settings.address)?;
    Some(PeerTarget {
        name: name.to_string(),
        address,
        send: options.send,
        receive: options.receive,
        join: options.join,
    })
}

/// An address as the engine takes it; none for a device, which is reached over a link.
pub fn engine_address(address: &Address) -> Option<engine::Address> {
    match address {
        Address::Path(path) => Some(engine::Address::Path(path.clone())),
        Address::Ssh(ssh) => {
            let SshAddress { user, host, port, path } = ssh.clone();
            Some(engine::Address::Ssh(SshTarget { user, host, port, path }, env::ssh()))
        }
        Address::Device(_) => None,
    }
}

/// A number from 0 to 1 that nobody else draws at the same time.
fn chance() -> f64 {
    let mut byte = [0; 1];
    // Without random numbers, all wait equally long.
    match getrandom::fill(&mut byte) {
        Ok(()) => f64::from(byte[0]) / 255.0,
        Err(_) => 0.5,
    }
}
