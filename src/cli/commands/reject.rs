//! `foldersync reject`

use super::accept::{decided, tell_decision};
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::ui::format::count;

/// Give back what a mass change of a peer that is held back takes away
///
/// What the peer sent becomes part of the history, as all that was ever sent, and each file that it deletes or rewrites
/// gets a new revision with what it has here: so it comes back on every other device as well. Files that were deleted
/// here in the same hour, before it was noticed, come back too. What the peer has added stays. A device that
/// had rewritten most of the folder is asked in its turn before its files are written anew.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync reject\n  foldersync reject nas")]
pub(crate) struct Args {
    /// The peer that sent it; without it, all that is held back
    #[arg(value_name = "PEER")]
    peer: Option<String>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let folder = session.folder()?;
    let report = folder.reject(args.peer.as_deref())?;
    let given_back = count(report.changes.len() as u64, "file");
    let text = format!("rejected what came from {}: {given_back} given back", decided(&report));
    let code = tell_decision(session, folder.root(), &report, &text)?;
    if report.rewritten_before > 0 && !session.ui().is_json() {
        let rewritten = count(report.rewritten_before, "file");
        session.ui().warning(&format!("{rewritten} that peers had rewritten here before that keep what they have now"));
        session.ui().hint("`foldersync restore --at TIME` gives back what the folder had then");
    }
    Ok(code)
}
