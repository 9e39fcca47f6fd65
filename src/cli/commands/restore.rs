//! `foldersync restore`

use std::ffi::OsString;

use clap::ValueHint;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::paths::Places;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::engine::revspec::RevSpec;

/// Bring a folder, or a deleted file, back as it was at a time
///
/// Each file that differs gets a new revision; what stands there now is captured first. Files that were not there at
/// that time are deleted, and stay in history.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync restore --at yesterday\n  foldersync restore --at 2026-11-01 photos\n  foldersync restore --at \"2 hours ago\" plan.md"
)]
pub(crate) struct Args {
    /// The time: a date, `yesterday`, `2 hours ago`, or a commit id
    #[arg(long, value_name = "TIME")]
    at: String,
    /// The file or folder; without it, everything
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    path: Option<OsString>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let at = RevSpec::parse(args.at.strip_prefix('@').unwrap_or(&args.at))?;
    let folder = session.folder()?;
    let path = match &args.path {
        Some(path) => Places::new(folder.root(), &Session::current_dir()?).path(path)?,
        None => None,
    };
    Ok(reports::reverted(session.ui(), &folder.restore(&at, path.as_ref())?)?)
}
