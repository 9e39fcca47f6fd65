//! `foldersync serve`

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use crate::cli::error::{CommandError, Kind};
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::engine::{Folder, ServeOptions};

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

pub(super) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    debug_assert!(args.stdio, "clap requires it");
    // What is written belongs to the protocol, unbuffered by lines; nothing may be shown around it.
    let folder = Folder::open(&session.root()?, session.silent_context())?;
    let reader = own(io::stdin().as_fd())?;
    let writer = own(io::stdout().as_fd())?;
    let report = folder.serve(Box::new(reader), Box::new(writer), &ServeOptions::default())?;
    Ok(ExitCode::left_out_if(!report.left_out.is_empty()))
}

fn own(stream: std::os::fd::BorrowedFd<'_>) -> Result<File, CommandError> {
    let failed = |error| CommandError::new(Kind::Failed, format!("cannot use standard input and output: {error}"));
    stream.try_clone_to_owned().map(File::from).map_err(failed)
}
