//! `foldersync resume`

use super::pause;
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::config::{Name, Pause};

/// Go on with a folder or a peer that was paused
///
/// Without `--peer`, the folder goes on.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync resume\n  foldersync resume --peer nas")]
pub(crate) struct Args {
    /// Resume this peer, not the folder
    #[arg(long, value_name = "NAME")]
    peer: Option<Name>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    pause::set(session, args.peer.as_ref(), Pause::No)
}
