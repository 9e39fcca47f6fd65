//! What the daemon is doing at this moment, for who asks: `status`, `peer list`, progress bars.
//!
//! Written by the threads that do the work, read through the control socket. Holds nothing that matters after the
//! daemon has ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::Name;
use crate::engine::report::Held;
use crate::id::{CommitId, DeviceId};
use crate::monitor::{Monitor, Stage};

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its process.
    pub process: u32,
    /// Its version.
    pub version: String,
    /// Since when it has run.
    pub since: Timestamp,
    /// The key of its device.
    pub device: DeviceId,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// The relay that it is reached through.
    pub relay: Option<String>,
    /// Why it cannot be reached over the network, if so.
    pub network_trouble: Option<String>,
    /// Its folders.
    pub folders: BTreeMap<Name, FolderState>,
    /// Its peers.
    pub peers: BTreeMap<Name, PeerState>,
}

/// What a folder's thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    /// It begins.
    #[default]
    Starting,
    /// It looks at everything.
    Scanning,
    /// It captures what changed.
    Capturing,
    /// It waits for changes.
    Watching,
    /// A person has paused it.
    Paused,
    /// The folder cannot be used; it is tried again.
    Waiting,
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FolderState {
    /// Where it is.
    pub path: PathBuf,
    /// What goes on.
    pub doing: Doing,
    /// What a person should know.
    pub trouble: Option<String>,
    /// The newest revision.
    pub head: Option<CommitId>,
    /// Long work under way.
    pub progress: Vec<Progress>,
}

/// How far long work has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which work.
    pub stage: Stage,
    /// Things done; see [`Stage`].
    pub items: u64,
    /// Of so many, where that is known.
    pub total: Option<u64>,
    /// Bytes done.
    pub bytes: u64,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerState {
    /// How it is connected; none if it is not, or needs no standing connection.
    pub link: Option<LinkState>,
    /// What went wrong last with the connection.
    pub trouble: Option<String>,
    /// When the connection is tried again.
    pub next_try: Option<Timestamp>,
    /// Whether a person has paused it.
    pub paused: bool,
    /// The folders that it has part in.
    pub folders: BTreeMap<Name, PairState>,
}

/// A connection with a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// `direct`, `local` or `relay`.
    pub kind: String,
    /// Where the peer is.
    pub remote: String,
    /// There and back, in microseconds.
    pub rtt_us: Option<u64>,
}

/// How a folder stands with a peer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PairState {
    /// The newest revision there, as far as was heard.
    pub head: Option<CommitId>,
    /// Whether both have the same revision.
    pub in_step: bool,
    /// Whether an exchange is under way.
    pub exchanging: bool,
    /// When the peer last said where the folder stands there.
    #[serde(default)]
    pub heard: Option<Timestamp>,
    /// When an exchange last ended well.
    pub last: Option<Timestamp>,
    /// Why the last exchange failed, if it did.
    pub trouble: Option<String>,
    /// Why the two are not in step, where that is by what each may do.
    pub note: Option<String>,
    /// When the next exchange is tried or due.
    pub next_try: Option<Timestamp>,
    /// What came from the peer and is held back until a person has decided.
    #[serde(default)]
    pub held: Option<Held>,
}

#[derive(Default)]
struct State {
    folders: BTreeMap<Name, FolderState>,
    peers: BTreeMap<Name, PeerState>,
    network_trouble: Option<String>,
    /// How often anything has changed.
    changes: u64,
}

/// The board.
#[derive(Default)]
pub(super) struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.changes += 1;
        self.changed.notify_all();
    }

    /// Writes about a folder.
    pub(super) fn folder(&self, name: &Name, write: impl FnOnce(&mut FolderState)) {
        self.change(|state| write(state.folders.entry(name.clone()).or_default()));
    }

    /// Writes about a peer.
    pub(super) fn peer(&self, name: &Name, write: impl FnOnce(&mut PeerState)) {
        self.change(|state| write(state.peers.entry(name.clone()).or_default()));
    }

    /// Writes about a folder and a peer.
    pub(super) fn pair(&self, peer: &Name, folder: &Name, write: impl FnOnce(&mut PairState)) {
        self.peer(peer, |state| write(state.folders.entry(folder.clone()).or_default()));
    }

    /// Writes why this device cannot be reached over the network, if so.
    pub(super) fn network(&self, trouble: Option<String>) {
        // It is found out again and again, and seldom news.
        if self.network_trouble() != trouble {
            self.change(|state| state.network_trouble = trouble);
        }
    }

    pub(super) fn network_trouble(&self) -> Option<String> {
        self.lock().network_trouble.clone()
    }

    pub(super) fn forget_folder(&self, name: &Name) {
        self.change(|state| drop(state.folders.remove(name)));
    }

    pub(super) fn forget_peer(&self, name: &Name) {
        self.change(|state| drop(state.peers.remove(name)));
    }

    /// All that is written.
    pub(super) fn read(&self) -> (BTreeMap<Name, FolderState>, BTreeMap<Name, PeerState>) {
        let state = self.lock();
        (state.folders.clone(), state.peers.clone())
    }

    /// How often anything has changed; to be handed to [`Self::wait`].
    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Waits until something has changed since `seen`, at most this long; answers with how often by now.
    pub(super) fn wait(&self, seen: u64, limit: Duration) -> u64 {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, limit, |state| state.changes == seen);
        waited.unwrap_or_else(PoisonError::into_inner).0.changes
    }
}

/// Puts the progress of a folder's work on the board.
pub(super) struct OnBoard {
    pub(super) board: Arc<Board>,
    pub(super) folder: Name,
}

impl OnBoard {
    fn progress(&self, stage: Stage, write: impl FnOnce(&mut Progress)) {
        let mut state = self.board.lock();
        let Some(folder) = state.folders.get_mut(&self.folder) else { return };
        if let Some(progress) = folder.progress.iter_mut().find(|progress| progress.stage == stage) {
            write(progress);
        }
    }
}

impl Monitor for OnBoard {
    fn begin(&self, stage: Stage, total: Option<u64>) {
        self.board.folder(&self.folder, |folder| {
            folder.progress.retain(|progress| progress.stage != stage);
            folder.progress.push(Progress { stage, items: 0, total, bytes: 0 });
        });
    }

    fn advance(&self, stage: Stage, items: u64, bytes: u64) {
        // Too often to wake anybody; who shows progress looks again by itself.
        self.progress(stage, |progress| {
            progress.items += items;
            progress.bytes += bytes;
        });
    }

    fn end(&self, stage: Stage) {
        self.board.folder(&self.folder, |folder| folder.progress.retain(|progress| progress.stage != stage));
    }

    fn notice(&self, text: &str) {
        tracing::info!(folder = %self.folder, "{}", text.escape_debug());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_hears_of_a_change() {
        let board = Board::default();
        let name = Name::new("docs").unwrap();
        let seen = board.changes();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| board.wait(seen, Duration::from_mins(1)));
            board.folder(&name, |folder| folder.doing = Doing::Watching);
            assert!(waiting.join().unwrap() > seen);
        });
        assert_eq!(board.read().0[&name].doing, Doing::Watching);
    }

    #[test]
    fn progress_shows_while_it_lasts() {
        let board = Arc::new(Board::default());
        let name = Name::new("docs").unwrap();
        let monitor = OnBoard { board: Arc::clone(&board), folder: name.clone() };
        monitor.begin(Stage::Send, Some(9));
        monitor.advance(Stage::Send, 2, 100);
        let shown = board.read().0[&name].progress.clone();
        assert_eq!(shown, [Progress { stage: Stage::Send, items: 2, total: Some(9), bytes: 100 }]);
        monitor.end(Stage::Send);
        assert_eq!(board.read().0[&name].progress, []);
    }
}
