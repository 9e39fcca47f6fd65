//! `foldersync serve`

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::engine::{Folder, ExchangeOptions};

/// Answer one exchange that another foldersync began
///
/// Speaks the exchange protocol on standard input and output, about the folder of `--folder` or of the current
/// directory, until the other side is done. This is what runs at the far end of a connection; people rarely type it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync serve --stdio --folder ~/docs")]
pub(crate) struct Args {
    /// Speak on standard input and output
    #[arg(long, required = true)]
    stdio: bool,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    debug_assert!(args.stdio, "clap requires it");
    // Standard output belongs to the protocol, and standard error to the side that began: nothing is shown here.
    let folder = Folder::open(&session.root()?, Session::silent_context())?;
    let report = folder.serve_stdio(ExchangeOptions::default())?;
    Ok(ExitCode::left_out_if(!report.left_out.is_empty()))
}
