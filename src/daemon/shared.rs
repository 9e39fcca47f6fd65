//! What the threads of the daemon share: the configuration, the open folders, each other's inboxes.
//!
//! Locks in here are held for moments, and never one inside another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::board::Board;
use super::pairing::Offers;
use super::peer::ToPeer;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Home, Name};
use crate::engine::{Context, EngineError, Folder};
use crate::guard::Guards;
use crate::id::{CommitId, DeviceId, FolderId};
use crate::monitor::Monitor;
use crate::transport::network::{Gate, Network};
use crate::transport::throttle::Limiter;

/// How long a revision counts as being fetched.
const FETCHING: Duration = Duration::from_secs(30);

/// What the thread of a folder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToFolder {
    /// The watcher has seen something.
    Wake,
    /// Look at everything.
    Look,
    /// End.
    Stop,
}

/// Where to reach the threads.
#[derive(Default)]
pub(super) struct Inboxes {
    pub(super) folders: BTreeMap<Name, Sender<ToFolder>>,
    pub(super) peers: BTreeMap<Name, Sender<ToPeer>>,
}

/// A folder that is in use.
#[derive(Clone)]
struct Open {
    folder: Arc<Folder>,
    head: Option<CommitId>,
    /// The device that made that head known.
    by: DeviceId,
}

#[derive(Default)]
struct Folders {
    open: BTreeMap<Name, Open>,
    /// Those that are looked at for the first time since they were taken up.
    awaited: HashSet<Name>,
}

impl Folders {
    fn with(&self, id: FolderId) -> Option<(&Name, &Open)> {
        self.open.iter().find(|(_, open)| open.folder.id() == id)
    }
}

/// What all threads share.
pub(super) struct Shared {
    pub(super) home: Home,
    /// This device.
    pub(super) device: DeviceId,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) zone: jiff::tz::TimeZone,
    pub(super) threads: usize,
    /// Drawn when the daemon started.
    pub(super) instance: u64,
    pub(super) board: Arc<Board>,
    /// Tickets that were given out.
    pub(super) offers: Offers,
    inboxes: Mutex<Inboxes>,
    pub(super) network: RwLock<Option<Network>>,
    /// For all peers together.
    pub(super) upload: Arc<Limiter>,
    pub(super) download: Arc<Limiter>,
    pub(super) stopping: AtomicBool,
    /// The exchanges that are under way, and that one of them has ended.
    exchanges: Mutex<HashSet<Exchange>>,
    ended: Condvar,
    config: RwLock<Arc<Config>>,
    folders: Mutex<Folders>,
    /// That a folder can be used, or that it cannot.
    looked_at: Condvar,
    /// Revisions that are being fetched, by whom.
    fetching: Mutex<HashMap<(Name, CommitId), (Name, Instant)>>,
}

impl Shared {
    pub(super) fn new(home: Home, device: DeviceId, context: &Context, config: Config, instance: u64) -> Self {
        let folders = Folders { awaited: config.folders.keys().cloned().collect(), ..Folders::default() };
        Self {
            offers: Offers::load(home.clone()),
            home,
            device,
            clock: Arc::clone(&context.clock),
            zone: context.zone.clone(),
            threads: context.threads,
            instance,
            board: Arc::default(),
            inboxes: Mutex::default(),
            network: RwLock::default(),
            upload: Arc::new(Limiter::new(None)),
            download: Arc::new(Limiter::new(None)),
            stopping: AtomicBool::new(false),
            exchanges: Mutex::default(),
            ended: Condvar::new(),
            config: RwLock::new(Arc::new(config)),
            folders: Mutex::new(folders),
            looked_at: Condvar::new(),
            fetching: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The moment now, to measure from.
    pub(super) fn instant(&self) -> Instant {
        self.clock.instant()
    }

    /// How long ago that was.
    pub(super) fn since(&self, then: Instant) -> Duration {
        self.instant().saturating_duration_since(then)
    }

    /// The time now, in the zone of the person.
    pub(super) fn zoned_now(&self) -> jiff::Zoned {
        super::zoned(self.now(), &self.zone)
    }

    /// The time after this pause.
    pub(super) fn after(&self, pause: Duration) -> Option<Timestamp> {
        self.zoned_now().checked_add(pause).ok().map(|then| then.timestamp().into())
    }

    /// How long it is until then, by the clock.
    pub(super) fn until(&self, then: Timestamp) -> Duration {
        let now = self.now();
        let nanos = |time: Timestamp| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
        u64::try_from(nanos(then) - nanos(now)).map_or(Duration::ZERO, Duration::from_nanos)
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// What the engine needs.
    pub(super) fn context(&self, monitor: Arc<dyn Monitor>, guards: Guards) -> Context {
        Context { clock: Arc::clone(&self.clock), monitor, threads: self.threads, zone: self.zone.clone(), guards }
    }

    pub(super) fn network(&self) -> Option<Network> {
        self.network.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_network(&self, network: Option<Network>) {
        *self.network.write().unwrap_or_else(PoisonError::into_inner) = network;
    }

    // Folders.

    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A folder is taken up: it is soon known whether it can be used.
    pub(super) fn await_folder(&self, name: &Name) {
        self.folders().awaited.insert(name.clone());
    }

    /// A folder can be used from now on.
    pub(super) fn open_folder(&self, name: &Name, folder: &Arc<Folder>) -> Result<(), EngineError> {
        let head = folder.head()?;
        self.board.folder(name, |state| state.head = head);
        {
            let mut folders = self.folders();
            folders.awaited.remove(name);
            folders.open.insert(name.clone(), Open { folder: Arc::clone(folder), head, by: self.device });
        }
        self.looked_at.notify_all();
        // Peers that are connected have not been told of it yet.
        self.tell_peers_of(name, &|| ToPeer::Ours(name.clone()));
        Ok(())
    }

    /// It cannot be used, or not any more.
    pub(super) fn close_folder(&self, name: &Name) {
        {
            let mut folders = self.folders();
            folders.awaited.remove(name);
            folders.open.remove(name);
        }
        self.looked_at.notify_all();
    }

    /// A folder that is in use.
    pub(super) fn folder(&self, name: &Name) -> Option<Arc<Folder>> {
        self.folders().open.get(name).map(|open| Arc::clone(&open.folder))
    }

    /// The name of the folder with this identity, if it is in use.
    pub(super) fn folder_with(&self, id: FolderId) -> Option<Name> {
        self.folders().with(id).map(|(name, _)| name.clone())
    }

    /// The folder with this identity, if it is in use. Waits, at most this long, while some of those that it may be have
    /// not been looked at yet.
    pub(super) fn awaited_folder(&self, id: FolderId, may_be: &[Name], limit: Duration) -> Option<(Name, Arc<Folder>)> {
        let is_unknown = |folders: &mut Folders| {
            folders.with(id).is_none() && may_be.iter().any(|name| folders.awaited.contains(name))
        };
        let waited = self.looked_at.wait_timeout_while(self.folders(), limit, is_unknown);
        let (folders, _) = waited.unwrap_or_else(PoisonError::into_inner);
        folders.with(id).map(|(name, open)| (name.clone(), Arc::clone(&open.folder)))
    }

    /// The head of a folder that is in use, and who made it known.
    pub(super) fn head_of(&self, name: &Name) -> Option<(Option<CommitId>, DeviceId)> {
        self.folders().open.get(name).map(|open| (open.head, open.by))
    }

    /// The head of a folder may have moved, which `by` made known. If it has, all its peers are told.
    ///
    /// The head is read here, under the lock: two who finish at the same time cannot set it back.
    pub(super) fn head_moved(&self, name: &Name, by: DeviceId) -> Result<Option<CommitId>, EngineError> {
        let (head, moved) = {
            let mut folders = self.folders();
            let Some(open) = folders.open.get_mut(name) else { return Ok(None) };
            let head = open.folder.head()?;
            let moved = open.head != head;
            if moved {
                open.head = head;
                open.by = by;
            }
            (head, moved)
        };
        if moved {
            self.board.folder(name, |state| state.head = head);
            self.tell_peers_of(name, &|| ToPeer::Ours(name.clone()));
        }
        Ok(head)
    }

    // Threads.

    pub(super) fn inboxes(&self) -> MutexGuard<'_, Inboxes> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every peer that has part in a folder.
    fn tell_peers_of(&self, folder: &Name, message: &dyn Fn() -> ToPeer) {
        let config = self.config();
        let inboxes = self.inboxes();
        for (peer, _) in config.peers_of(folder) {
            if let Some(inbox) = inboxes.peers.get(peer) {
                // A thread that has ended needs no news.
                drop(inbox.send(message()));
            }
        }
    }

    /// Tells one peer's thread.
    pub(super) fn tell_peer(&self, peer: &Name, message: ToPeer) {
        if let Some(inbox) = self.inboxes().peers.get(peer) {
            drop(inbox.send(message));
        }
    }

    /// Tells one folder's thread.
    pub(super) fn tell_folder(&self, folder: &Name, message: ToFolder) {
        if let Some(inbox) = self.inboxes().folders.get(folder) {
            inbox.send(message).ok();
        }
    }

    /// The peer with this key.
    pub(super) fn peer_with(&self, device: DeviceId) -> Option<Name> {
        self.config().peer_with_key(&device).map(|(name, _)| name.clone())
    }

    /// The relay that both sides meet at.
    pub(super) fn relay_url(&self) -> Option<String> {
        super::relay::url(&self.config().device, self.network().as_ref())
    }

    // Exchanges under way.

    /// This side begins an exchange of this folder with this peer, unless the peer has begun one.
    ///
    /// Of two that begin at the same moment, the one of the lower key goes on, or all would be sent twice.
    pub(super) fn begins(self: &Arc<Self>, folder: &Name, peer: &Name) -> Option<Exchanging> {
        self.exchanging(folder, peer, Side::Ours, Some(Side::Theirs))
    }

    /// The peer begins one, unless this side has and goes on with it.
    pub(super) fn serves(self: &Arc<Self>, folder: &Name, peer: &Name, device: DeviceId) -> Option<Exchanging> {
        self.exchanging(folder, peer, Side::Theirs, (self.device < device).then_some(Side::Ours))
    }

    /// Notes an exchange until what this returns is dropped; none if there is one already, or one that is to go on
    /// instead of it, or the daemon is stopping.
    fn exchanging(
        self: &Arc<Self>,
        folder: &Name,
        peer: &Name,
        side: Side,
        unless: Option<Side>,
    ) -> Option<Exchanging> {
        let of = |side| (folder.clone(), peer.clone(), side);
        let mut exchanges = self.exchanges();
        let yields = self.is_stopping() || unless.is_some_and(|other| exchanges.contains(&of(other)));
        (!yields && exchanges.insert(of(side))).then(|| Exchanging(Arc::clone(self), of(side)))
    }

    fn exchanges(&self) -> MutexGuard<'_, HashSet<Exchange>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no exchange is under way, at most this long.
    pub(super) fn wait_for_exchanges(&self, limit: Duration) {
        drop(self.ended.wait_timeout_while(self.exchanges(), limit, |exchanges| !exchanges.is_empty()));
    }

    // What is being fetched.

    /// Whether another peer than `peer` is being asked for this revision.
    pub(super) fn is_fetched_elsewhere(&self, folder: &Name, head: CommitId, peer: &Name) -> bool {
        let fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = fetching.get(&(folder.clone(), head));
        asked.is_some_and(|(from, since)| from != peer && self.since(*since) < FETCHING)
    }

    /// Notes that this peer is being asked for this revision.
    pub(super) fn fetches(&self, folder: &Name, head: CommitId, peer: &Name) {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, (_, since)| self.since(*since) < FETCHING);
        fetching.insert((folder.clone(), head), (peer.clone(), self.instant()));
    }

    /// Notes that this peer is no longer asked for anything of this folder.
    pub(super) fn fetches_no_more(&self, folder: &Name, peer: &Name) {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|(of, _), (from, _)| of != folder || from != peer);
    }
}

/// Who has begun an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Ours,
    Theirs,
}

/// An exchange: the folder, the peer, and who has begun it.
type Exchange = (Name, Name, Side);

/// An exchange is under way as long as this is there.
pub(super) struct Exchanging(Arc<Shared>, Exchange);

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.0.exchanges().remove(&self.1);
        self.0.ended.notify_all();
    }
}

/// Lets in the devices that are peers, and, while there is something to join, strangers to pair.
pub(super) struct Doorkeeper(pub(super) std::sync::Weak<Shared>);

impl Gate for Doorkeeper {
    fn admits(&self, device: DeviceId) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.peer_with(device).is_some())
    }

    fn pairs(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.offers.hear_strangers(shared.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// What a daemon shares whose key is all of this byte.
    fn shared(dir: &tempfile::TempDir, key: u8) -> Arc<Shared> {
        let zone = jiff::tz::TimeZone::UTC;
        let cx = Context {
            clock: Arc::new(SystemClock),
            monitor: Arc::new(crate::monitor::Silent),
            threads: 1,
            zone,
            guards: crate::guard::Guards::default(),
        };
        let home = Home::at(dir.path().to_owned());
        Arc::new(Shared::new(home, DeviceId::from_bytes([key; 32]), &cx, Config::default(), 1))
    }

    #[test]
    fn of_two_exchanges_that_begin_at_once_the_one_of_the_lower_key_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (low, high) = (shared(&dir, 1), shared(&dir, 2));
        let (docs, a, b) = (name("docs"), name("low"), name("high"));
        let (ours, theirs) = (low.begins(&docs, &b).unwrap(), high.begins(&docs, &a).unwrap());
        assert!(low.serves(&docs, &b, high.device).is_none(), "the lower goes on with its own");
        let served = high.serves(&docs, &a, low.device).expect("the higher makes way");
        drop(theirs);
        assert!(high.begins(&docs, &a).is_none(), "one at a time");
        assert!(high.begins(&name("photos"), &a).is_some(), "of a folder");
        drop((ours, served));
        assert!(high.begins(&docs, &a).is_some());
        assert!(low.serves(&docs, &b, high.device).is_some());
    }

    #[test]
    fn a_folder_that_is_being_taken_up_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(&dir, 1);
        let (docs, gone, root) = (name("docs"), name("gone"), dir.path().join("docs"));
        std::fs::create_dir(&root).unwrap();
        let device = crate::engine::Device { id: shared.device, name: "laptop".to_owned() };
        let options = crate::engine::InitOptions { alongside: false, device, folder_id: None };
        let cx = shared.context(Arc::new(crate::monitor::Silent), Guards::default());
        Folder::init(&root, &options, cx.clone()).unwrap();
        let folder = Arc::new(Folder::open(&root, cx).unwrap());
        let may_be = [docs.clone(), gone.clone()];
        let find = |limit| shared.awaited_folder(folder.id(), &may_be, limit).map(|(name, _)| name);
        let long = Duration::from_mins(1);
        assert_eq!(find(long), None, "nothing is awaited");
        for name in &may_be {
            shared.await_folder(name);
        }
        assert_eq!(find(Duration::ZERO), None);
        std::thread::scope(|scope| {
            let finding = scope.spawn(|| find(long));
            shared.open_folder(&docs, &folder).unwrap();
            assert_eq!(finding.join().unwrap(), Some(docs.clone()), "whatever becomes of the other");
        });
        shared.close_folder(&docs);
        std::thread::scope(|scope| {
            let finding = scope.spawn(|| find(long));
            shared.close_folder(&gone);
            assert_eq!(finding.join().unwrap(), None, "it is known that none can be used");
        });
    }

    #[test]
    fn who_stops_waits_for_what_is_under_way_and_begins_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(&dir, 1);
        let (docs, peer) = (name("docs"), name("peer"));
        let under_way = shared.begins(&docs, &peer).unwrap();
        shared.stopping.store(true, Ordering::Relaxed);
        assert!(shared.begins(&name("photos"), &peer).is_none());
        shared.wait_for_exchanges(Duration::ZERO);
        assert_eq!(shared.exchanges().len(), 1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| shared.wait_for_exchanges(Duration::from_mins(1)));
            drop(under_way);
            waiting.join().unwrap();
        });
        assert!(shared.exchanges().is_empty());
        assert!(shared.serves(&docs, &peer, DeviceId::from_bytes([2; 32])).is_none());
    }
}
