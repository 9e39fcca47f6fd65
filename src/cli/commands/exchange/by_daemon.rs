//! Exchanges that a running daemon does for the command.

use std::thread;
use std::time::Duration;

use super::{Outcome, Round, Task};
use crate::cli::error::{CommandError, Kind};
use crate::cli::session::Session;
use crate::cli::tell;
use crate::daemon::control::{Answer, Ask, Exchanged};

/// How soon it is asked again for what had to wait for somebody.
const AGAIN: Duration = Duration::from_millis(500);

/// Whether a daemon runs. It knows the configuration as it is now.
pub(super) fn is_there(session: &Session) -> Result<bool, CommandError> {
    match tell::ask(session, &Ask::Reload)? {
        Some(mut client) => tell::next(&mut client).map(|_| true),
        None => Ok(false),
    }
}

/// Has the daemon do these exchanges, all at once, and tells of each when it has ended.
pub(super) fn exchange<'a>(round: &mut Round<'a>, tasks: Vec<Task<'a>>, wait: bool) -> Result<(), CommandError> {
    let session = round.session;
    let mut open = tasks;
    while !open.is_empty() {
        let pairs = open.iter().map(|task| (task.folder.clone(), task.peer.clone())).collect();
        let mut client = tell::ask(session, &Ask::Exchange { pairs })?.ok_or_else(tell::no_daemon)?;
        let mut busy = Vec::new();
        loop {
            match tell::next(&mut client)? {
                Answer::Progress(status) => {
                    let folders = status.folders.iter();
                    let of_ours = folders.filter(|(name, _)| open.iter().any(|task| task.folder == *name));
                    let work: Vec<_> = of_ours.flat_map(|(_, folder)| folder.progress.iter().cloned()).collect();
                    session.ui().show_progress(&work);
                }
                Answer::Exchanged(exchanged) => {
                    let Exchanged { folder, peer, outcome } = *exchanged;
                    let Some(at) = open.iter().position(|task| *task.folder == folder && *task.peer == peer) else {
                        continue;
                    };
                    let task = open.remove(at);
                    match outcome.map_err(CommandError::from) {
                        Err(error) if error.kind == Kind::Busy && wait => busy.push(task),
                        result => {
                            session.ui().show_progress(&[]);
                            round.note(task, Outcome::new(result, wait))?;
                        }
                    }
                }
                _ => break,
            }
        }
        session.ui().show_progress(&[]);
        open = busy;
        if !open.is_empty() {
            thread::sleep(AGAIN);
        }
    }
    Ok(())
}
