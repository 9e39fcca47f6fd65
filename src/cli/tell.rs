//! What commands say to a daemon that runs on the same home, and ask of it.

use std::io;

use super::error::{CommandError, Kind};
use super::session::Session;
use crate::config::Name;
use crate::daemon::control::{Answer, Ask, Client, Refusal};

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        let told = Self::new(refusal.failure.into(), refusal.message);
        refusal.hint.into_iter().fold(told, Self::with_hint)
    }
}

/// The socket failed.
pub(crate) fn lost(error: &io::Error) -> CommandError {
    CommandError::new(Kind::Failed, format!("the daemon does not answer: {error}"))
        .with_hint("look at its log; `foldersync serve` starts it anew")
}

/// Asks a running daemon. `None`: none runs.
pub(crate) fn ask(session: &Session, ask: &Ask) -> Result<Option<Client>, CommandError> {
    Client::ask(&session.home()?, ask).map_err(|error| lost(&error))
}

/// No daemon runs, and one is needed.
pub(crate) fn no_daemon() -> CommandError {
    CommandError::new(Kind::Failed, "no daemon runs")
        .with_hint("start it with `foldersync serve`, or for good with `foldersync service install`")
}

/// The next answer; a refusal is an error.
pub(crate) fn next(client: &mut Client) -> Result<Answer, CommandError> {
    match client.next().map_err(|error| lost(&error))? {
        Answer::Error(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

/// Has a running daemon look at a folder that a command has changed. One that does not answer finds it later.
pub(crate) fn look(session: &Session, folder: &Name) {
    if let Ok(Some(mut client)) = ask(session, &Ask::Look { folder: folder.clone() }) {
        drop(next(&mut client));
    }
}

/// Tells a running daemon that the configuration has changed, so that it reads it again. What it makes of it is its
/// matter; a daemon that does not answer finds it when it starts.
pub(crate) fn tell_daemon(session: &Session) {
    let told =
        ask(session, &Ask::Reload).and_then(|client| client.map_or(Ok(None), |mut client| next(&mut client).map(Some)));
    if let Err(error) = told {
        session.ui().warning(&format!("the running daemon was not told: {}", error.message()));
    }
}
