//! One folder of the daemon: a thread that watches it, captures what changed, and says so.
//!
//! Everything that the disk shows goes through this thread, one capture at a time; exchanges run in threads of the
//! peers and take the folder's lock only to merge. A folder that cannot be used (its disk is not mounted, it was
//! deleted or replaced) is left alone and tried again: nothing in it is ever taken for deleted. Keeps nothing that has
//! to survive: after a kill, the capture at the start finds all that changed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::board::{Doing, OnBoard};
use super::shared::{Shared, ToFolder};
use crate::clock::receive;
use crate::config::{Name, Pause};
use crate::engine::report::CaptureReport;
use crate::engine::{Delays, EngineError, Failure, Folder, Quiet, Ready, Wait, WatchTrouble};
use crate::guard::Guards;
use crate::path::SyncPath;

/// How often a folder that cannot be used is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often everything is looked at, whatever the watcher says.
const RESCAN: Duration = Duration::from_hours(1);
/// How soon a capture is tried again that could not have the folder.
const BUSY: Duration = Duration::from_millis(100);
/// How long other work in the folder is waited for.
const LOCK: Duration = Duration::from_secs(20);

/// The thread of a folder.
pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Name,
    pub(super) path: std::path::PathBuf,
    pub(super) paused: Pause,
    pub(super) guards: Guards,
    pub(super) inbox: Receiver<ToFolder>,
}

/// Why a round of work in a folder has ended.
enum End {
    /// The daemon stops, or the folder is no longer shared.
    Stop,
    /// It cannot be used at the moment.
    Unusable(String),
}

impl Actor {
    /// Works until it is told to stop.
    pub(super) fn run(self) {
        self.shared.board.folder(&self.name, |state| state.path.clone_from(&self.path));
        loop {
            let end = match self.rest_while_paused() {
                Some(end) => end,
                None => self.work().unwrap_or_else(|error| End::Unusable(error.to_string())),
            };
            self.shared.close_folder(&self.name);
            let End::Unusable(why) = end else { return };
            tracing::warn!(folder = %self.name, "cannot be used, tried again: {}", why.escape_debug());
            self.shared.board.folder(&self.name, |state| {
                state.doing = Doing::Waiting;
                state.trouble = Some(why);
            });
            let until = self.shared.instant() + RETRY;
            loop {
                match self.receive(until) {
                    Ok(ToFolder::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(ToFolder::Wake) => {}
                    Ok(ToFolder::Look) | Err(RecvTimeoutError::Timeout) => break,
                }
            }
        }
    }

    /// What the thread is told next, until then.
    fn receive(&self, until: Instant) -> Result<ToFolder, RecvTimeoutError> {
        let rest = until.saturating_duration_since(self.shared.instant());
        receive(&*self.shared.clock, &self.inbox, rest)
    }

    /// Does nothing for as long as a person has paused the folder.
    fn rest_while_paused(&self) -> Option<End> {
        let mut told = false;
        while self.paused.holds(self.shared.now()) {
            if !told {
                self.shared.close_folder(&self.name);
                self.shared.board.folder(&self.name, |state| {
                    state.doing = Doing::Paused;
                    state.trouble = None;
                });
                told = true;
            }
            let rest = match self.paused {
                Pause::Until(until) => self.shared.until(until),
                _ => RESCAN,
            };
            let told = self.receive(self.shared.instant() + rest);
            if matches!(told, Ok(ToFolder::Stop) | Err(RecvTimeoutError::Disconnected)) {
                return Some(End::Stop);
            }
        }
        None
    }

    /// Watches and captures until something ends it.
    fn work(&self) -> Result<End, EngineError> {
        let monitor = OnBoard { board: Arc::clone(&self.shared.board), folder: self.name.clone() };
        let folder = Arc::new(Folder::open(&self.path, self.shared.context(Arc::new(monitor), self.guards))?);
        let wake = self.shared.inboxes().folders.get(&self.name).cloned();
        let watch = folder.watch(Arc::new(move || {
            // Nobody listens any more when the folder is being closed.
            wake.as_ref().and_then(|wake| wake.send(ToFolder::Wake).ok());
        }))?;
        self.shared.board.folder(&self.name, |state| {
            state.doing = Doing::Scanning;
            state.trouble = None;
        });
        self.capture(&folder, &[])?;
        folder.watch_again(&watch)?;
        self.shared.open_folder(&self.name, &folder)?;

        let began = self.shared.instant();
        let mut quiet = Quiet::new(Delays::with_quiet(self.shared.config().device.quiet()));
        let mut rescan = began + RESCAN;
        loop {
            self.shared.board.folder(&self.name, |state| state.doing = Doing::Watching);
            let until = quiet.next_look().map_or(rescan, |at| rescan.min(began + at));
            match self.receive(until) {
                Ok(ToFolder::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(End::Stop),
                Ok(ToFolder::Look) => rescan = self.shared.instant(),
                Ok(ToFolder::Wake) | Err(RecvTimeoutError::Timeout) => {}
            }
            let dirty = watch.take();
            if let Some(WatchTrouble::RootGone) = dirty.trouble {
                return Ok(End::Unusable(WatchTrouble::RootGone.to_string()));
            }
            let trouble = dirty.trouble.as_ref().map(|trouble| match trouble.hint() {
                Some(hint) => format!("{trouble}; {hint}"),
                None => trouble.to_string(),
            });
            self.shared.board.folder(&self.name, |state| state.trouble = trouble);
            let now = self.shared.instant();
            quiet.note(now - began, dirty);
            let mut ready = quiet.ready(now - began);
            if rescan <= now {
                rescan = now + RESCAN;
                ready = Ready::Everything;
            }
            let paths = match &ready {
                Ready::Nothing => continue,
                Ready::Paths(paths) => &paths[..],
                Ready::Everything => &[],
            };
            self.shared.board.folder(&self.name, |state| state.doing = Doing::Capturing);
            match self.capture(&folder, paths) {
                Ok(()) => {
                    self.say_head()?;
                    if ready == Ready::Everything {
                        folder.watch_again(&watch)?;
                    }
                }
                Err(error) if error.failure() == Failure::Busy => {
                    quiet.put_back(self.shared.since(began) + BUSY, ready);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Captures these paths; everything, if there are none.
    fn capture(&self, folder: &Folder, paths: &[SyncPath]) -> Result<(), EngineError> {
        let report: CaptureReport = folder.capture_when_free(paths, Wait::AtMost(LOCK))?;
        if report.revisions() > 0 {
            tracing::debug!(folder = %self.name, revisions = report.revisions(), "captured");
        }
        for left_out in &report.left_out {
            tracing::warn!(folder = %self.name, "left out: {}: {}", left_out.path.escape_debug(), left_out.why.escape_debug());
        }
        Ok(())
    }

    /// Tells all peers of the head, if it is another than before.
    fn say_head(&self) -> Result<(), EngineError> {
        self.shared.head_moved(&self.name, self.shared.device).map(drop)
    }
}
