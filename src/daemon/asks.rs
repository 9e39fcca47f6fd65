//! Answering what commands ask: a thread that listens on the control socket, and one for each question.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::board::Doing;
use super::control::{Answer, Ask, Control, Exchanged, Refusal, answer, question};
use super::pairing;
use super::peer::{ToPeer, Trouble};
use super::shared::{Shared, ToFolder};
use super::{DaemonStatus, Order, status};
use crate::clock::Timestamp;
use crate::config::Name;
use crate::engine::{Failure, Wait};

/// How many questions may be under way.
const ASKING: usize = 64;
/// How often progress is told, at most and at least.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(1);
/// How long a folder that the daemon begins with is waited for.
const READY: Duration = Duration::from_secs(20);
/// How long other work in the folder is waited for.
const LOCK: Duration = Duration::from_mins(1);

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        let Trouble { failure, message, hint } = trouble;
        Self { failure, message, hint }
    }
}

impl From<crate::engine::EngineError> for Refusal {
    fn from(error: crate::engine::EngineError) -> Self {
        Trouble::from(error).into()
    }
}

fn refusal(failure: Failure, message: String) -> Refusal {
    Refusal { failure, message, hint: None }
}

/// Has the daemon read the configuration again.
pub(super) fn reload(orders: &mpsc::Sender<Order>) -> Result<(), Refusal> {
    let (told, hears) = mpsc::channel();
    let gone = || refusal(Failure::Busy, "the daemon is stopping".to_owned());
    orders.send(Order::Reload(Some(told))).map_err(|_| gone())?;
    hears.recv().unwrap_or_else(|_| Err(gone()))
}

/// Who answers.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) since: Timestamp,
}

impl Asked {
    /// Answers until the daemon stops.
    pub(super) fn run(&self, control: &Control) {
        let asking = Arc::new(AtomicUsize::new(0));
        while let Some(stream) = control.accept() {
            if self.shared.is_stopping() {
                return;
            }
            if asking.fetch_add(1, Ordering::Relaxed) >= ASKING {
                asking.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (asked, asking) = (self.clone(), Arc::clone(&asking));
            super::spawn("answer", move || {
                if let Err(error) = asked.answer(&stream) {
                    tracing::debug!("a command went away: {error}");
                }
                asking.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    fn status(&self) -> DaemonStatus {
        status(&self.shared, self.since)
    }

    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        let last = match question(stream)? {
            Ask::Status => return answer(stream, &Answer::Progress(Box::new(self.status()))),
            Ask::Watch => return self.watch(stream),
            Ask::Look { folder } => {
                self.shared.tell_folder(&folder, ToFolder::Look);
                Answer::Done
            }
            Ask::Reload => reload(&self.orders).map_or_else(Answer::Error, |()| Answer::Done),
            Ask::Exchange { pairs } => self.exchange(stream, pairs)?,
            Ask::Wait { folder, peers, path } => self.wait(stream, &folder, &peers, path.as_deref())?,
            Ask::Share { folder, read_only, expires } => {
                pairing::offer(&self.shared, &folder, read_only, expires).unwrap_or_else(Answer::Error)
            }
            Ask::Joined { offer } => {
                let mut alive = || answer(stream, &Answer::Progress(Box::new(self.status())));
                pairing::joined(&self.shared, offer, &mut alive)?.unwrap_or_else(Answer::Error)
            }
            Ask::Join { ticket, path } => {
                let mut tell = |news: Option<Answer>| {
                    answer(stream, &news.unwrap_or_else(|| Answer::Progress(Box::new(self.status()))))
                };
                pairing::join(&self.shared, &self.orders, &ticket.0, &path, &mut tell)?.unwrap_or_else(Answer::Error)
            }
        };
        answer(stream, &last)
    }

    /// Tells what goes on, whenever it changes, until nobody listens.
    fn watch(&self, stream: &UnixStream) -> io::Result<()> {
        let mut seen = self.shared.board.changes();
        while !self.shared.is_stopping() {
            answer(stream, &Answer::Progress(Box::new(self.status())))?;
            // Not for every single change, or who listens would hear of nothing else.
            std::thread::sleep(SOON);
            seen = self.shared.board.wait(seen, LATER);
        }
        Ok(())
    }

    fn exchange(&self, stream: &UnixStream, pairs: Vec<(Name, Name)>) -> io::Result<Answer> {
        let (told, hears) = mpsc::channel();
        let mut open = 0_usize;
        for (folder, peer) in pairs {
            if !self.is_open(&folder) {
                let state = self.shared.board.read().0.remove(&folder);
                let why = state.and_then(|state| state.trouble).unwrap_or_else(|| "it is not ready yet".to_owned());
                let trouble = refusal(Failure::Busy, format!("folder `{folder}` cannot be used at the moment: {why}"));
                answer(stream, &Answer::Exchanged(Box::new(Exchanged { folder, peer, outcome: Err(trouble) })))?;
                continue;
            }
            self.shared.tell_peer(&peer, ToPeer::Exchange(folder, told.clone()));
            open += 1;
        }
        drop(told);
        while open > 0 {
            match hears.recv_timeout(SOON) {
                Ok((folder, peer, outcome)) => {
                    open -= 1;
                    let outcome = outcome.map_err(Refusal::from);
                    answer(stream, &Answer::Exchanged(Box::new(Exchanged { folder, peer, outcome })))?;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    answer(stream, &Answer::Progress(Box::new(self.status())))?;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Ok(Answer::Error(refusal(Failure::Busy, "the daemon is stopping".to_owned())));
                }
            }
        }
        Ok(Answer::Done)
    }

    /// Whether a folder can be used: now, or in a moment if the daemon has just begun with it.
    fn is_open(&self, name: &Name) -> bool {
        let until = Instant::now() + READY;
        let mut seen = self.shared.board.changes();
        while self.shared.folder(name).is_none() {
            let doing = self.shared.board.read().0.remove(name).map(|state| state.doing);
            let begins = matches!(doing, Some(Doing::Starting | Doing::Scanning));
            if !begins || Instant::now() >= until || self.shared.is_stopping() {
                return false;
            }
            seen = self.shared.board.wait(seen, SOON);
        }
        true
    }

    /// Waits until what a folder holds now is safe on these peers.
    fn wait(&self, stream: &UnixStream, name: &Name, peers: &[Name], path: Option<&str>) -> io::Result<Answer> {
        let Some(folder) = self.is_open(name).then(|| self.shared.folder(name)).flatten() else {
            return Ok(Answer::Error(refusal(Failure::Busy, format!("folder `{name}` cannot be used at the moment"))));
        };
        let target = match folder.newest(path, Wait::AtMost(LOCK)) {
            Ok(target) => target,
            Err(error) => return Ok(Answer::Error(error.into())),
        };
        self.shared.tell_folder(name, ToFolder::Look);
        let Some(target) = target else { return Ok(Answer::Done) };
        let mut seen = self.shared.board.changes();
        loop {
            let mut lacking = 0;
            for peer in peers {
                match folder.peer_has(peer.as_str(), target) {
                    Ok(has) => lacking += usize::from(!has),
                    Err(error) => return Ok(Answer::Error(error.into())),
                }
            }
            if lacking == 0 {
                return Ok(Answer::Done);
            }
            answer(stream, &Answer::Progress(Box::new(self.status())))?;
            if self.shared.is_stopping() {
                return Ok(Answer::Error(refusal(Failure::Busy, "the daemon is stopping".to_owned())));
            }
            seen = self.shared.board.wait(seen, LATER);
        }
    }
}
