//! What a running daemon says of folders and peers, as commands show it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::session::Session;
use super::tell;
use crate::clock::Timestamp;
use crate::config::Name;
use crate::daemon::control::{Answer, Ask};
use crate::daemon::{DaemonStatus, Doing, LinkState};
use crate::engine::report::Held;
use crate::id::CommitId;

/// What the daemon that runs says; `None`: none runs, or it says nothing, which is warned of.
pub(crate) fn ask(session: &Session) -> Option<DaemonStatus> {
    let told = tell::ask(session, &Ask::Status).and_then(|client| match client {
        Some(mut client) => tell::next(&mut client).map(Some),
        None => Ok(None),
    });
    match told {
        Ok(Some(Answer::Progress(status))) => Some(*status),
        Ok(_) => None,
        Err(error) => {
            session.ui().warning(error.message());
            None
        }
    }
}

/// How a folder stands with a peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PairLive {
    /// How the peer is connected; none if it is not, or needs no standing connection.
    pub(crate) connected: Option<LinkState>,
    /// The newest revision there, as far as was heard.
    pub(crate) head: Option<CommitId>,
    /// Whether both sides have the same revision.
    pub(crate) in_step: bool,
    /// Whether an exchange is under way.
    pub(crate) exchanging: bool,
    /// Whether a person has paused the peer.
    pub(crate) paused: bool,
    /// When an exchange last ended well since the daemon runs.
    pub(crate) last: Option<Timestamp>,
    /// Why the last exchange, or the connection, failed.
    pub(crate) trouble: Option<String>,
    /// When it is tried next, or due.
    pub(crate) next_try: Option<Timestamp>,
    /// What came from the peer and is held back here.
    pub(crate) held: Option<Held>,
}

impl PairLive {
    /// How this folder stands with this peer; none where the daemon knows of no such pair.
    pub(crate) fn of(status: &DaemonStatus, folder: &Name, peer: &Name) -> Option<Self> {
        let state = status.peers.get(peer)?;
        let pair = state.folders.get(folder)?;
        let ours = status.folders.get(folder).and_then(|folder| folder.head);
        Some(Self {
            connected: state.link.clone(),
            head: pair.head,
            in_step: ours.is_some() && ours == pair.head,
            exchanging: pair.exchanging,
            paused: state.paused,
            last: pair.last,
            trouble: pair.trouble.clone().or_else(|| state.trouble.clone()),
            next_try: pair.next_try.or(state.next_try),
            held: pair.held.clone(),
        })
    }

    /// In a few words: whether it is in step, or what it waits for.
    pub(crate) fn words(&self, time: impl Fn(Timestamp) -> String) -> String {
        let next = self.next_try.map(time);
        if self.exchanging {
            return "exchanging".to_owned();
        }
        if self.paused {
            return "paused".to_owned();
        }
        if let Some(held) = &self.held {
            return format!("held back here: {}", held.words());
        }
        match (&self.trouble, next) {
            (Some(trouble), Some(next)) => format!("{trouble}; next try at {next}"),
            (Some(trouble), None) => trouble.clone(),
            (None, _) if self.in_step => "in step".to_owned(),
            (None, Some(next)) => format!("due at {next}"),
            (None, None) => "waits for an exchange".to_owned(),
        }
    }
}

/// How a daemon deals with a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FolderLive {
    /// The daemon's process.
    pub(crate) process: u32,
    /// Since when it has run.
    pub(crate) since: Timestamp,
    /// What it does with the folder; none if it does not know it.
    pub(crate) doing: Option<Doing>,
    /// Why the folder cannot be used, or not in full, or not be reached by devices.
    pub(crate) trouble: Option<String>,
    /// The peers of the folder.
    pub(crate) peers: BTreeMap<Name, PairLive>,
}

impl FolderLive {
    /// How it deals with the folder of this name.
    pub(crate) fn of(status: &DaemonStatus, folder: Option<&Name>) -> Self {
        let state = folder.and_then(|folder| status.folders.get(folder));
        let pairs = status.peers.keys().filter_map(|peer| Some((peer.clone(), PairLive::of(status, folder?, peer)?)));
        Self {
            process: status.process,
            since: status.since,
            doing: state.map(|state| state.doing),
            trouble: state.and_then(|state| state.trouble.clone()).or_else(|| {
                let why = status.network_trouble.as_ref()?;
                Some(format!("no device can reach this one: {why}"))
            }),
            peers: pairs.collect(),
        }
    }

    /// In one line.
    pub(crate) fn words(&self) -> String {
        let text = match self.doing {
            None => "the daemon that runs does not know this folder".to_owned(),
            Some(Doing::Paused) => "paused: the daemon leaves it alone".to_owned(),
            Some(Doing::Waiting) => "the daemon cannot use it, and waits".to_owned(),
            Some(Doing::Starting | Doing::Scanning) => {
                "the daemon keeps it in step, and looks through it now".to_owned()
            }
            Some(Doing::Capturing | Doing::Watching) => "the daemon keeps it in step".to_owned(),
        };
        self.trouble.as_ref().map_or_else(|| text.clone(), |trouble| format!("{text}: {trouble}"))
    }
}

/// What is said where no daemon runs.
pub(crate) const NO_DAEMON: &str = "no daemon keeps it in step";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{FolderState, PairState, PeerState};
    use crate::id::DeviceId;

    fn head(n: u8) -> CommitId {
        CommitId::from_bytes([n; 20])
    }

    fn status(pair: PairState, peer: PeerState) -> DaemonStatus {
        let name = |text: &str| Name::new(text).unwrap();
        let folder = FolderState { head: Some(head(1)), doing: Doing::Watching, ..FolderState::default() };
        DaemonStatus {
            process: 7,
            version: String::new(),
            since: Timestamp::default(),
            device: DeviceId::from_bytes([0; 32]),
            addresses: Vec::new(),
            relay: None,
            network_trouble: None,
            folders: [(name("docs"), folder)].into(),
            peers: [(name("nas"), PeerState { folders: [(name("docs"), pair)].into(), ..peer })].into(),
        }
    }

    fn words(pair: PairState, peer: PeerState) -> String {
        let (folder, nas) = (Name::new("docs").unwrap(), Name::new("nas").unwrap());
        let live = PairLive::of(&status(pair, peer), &folder, &nas).unwrap();
        live.words(|time| format!("@{}", time.secs))
    }

    #[test]
    fn a_pair_is_in_step_or_waits_for_something() {
        let there = |n| PairState { head: Some(head(n)), ..PairState::default() };
        let at = Some(Timestamp::new(5, 0));
        assert_eq!(words(there(1), PeerState::default()), "in step");
        assert_eq!(words(there(2), PeerState::default()), "waits for an exchange");
        assert_eq!(words(PairState { next_try: at, ..there(2) }, PeerState::default()), "due at @5");
        assert_eq!(words(PairState { exchanging: true, ..there(2) }, PeerState::default()), "exchanging");
        assert_eq!(words(there(1), PeerState { paused: true, ..PeerState::default() }), "paused");
        let lost = PeerState { trouble: Some("nobody is there".to_owned()), next_try: at, ..PeerState::default() };
        assert_eq!(words(there(1), lost), "nobody is there; next try at @5");
    }

    #[test]
    fn a_folder_that_the_daemon_does_not_know_is_said_so() {
        let status = status(PairState::default(), PeerState::default());
        let docs = Name::new("docs").unwrap();
        assert_eq!(FolderLive::of(&status, Some(&docs)).words(), "the daemon keeps it in step");
        assert_eq!(FolderLive::of(&status, None).words(), "the daemon that runs does not know this folder");
    }
}
