//! `foldersync revert`

use std::ffi::OsString;

use clap::ValueHint;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::paths::{Places, shown};
use crate::cli::reports;
use crate::cli::session::Session;

/// Bring files back to a revision, as a new revision; nothing else changes
///
/// What stands there now is captured first, so it is not lost. History is never rewritten: the old content comes back
/// as the newest revision. A revision is `@3`, `@-1` (the one before the newest), a date or a span (`@2026-11-01`,
/// `@yesterday`, `"@2 hours ago"`) or a commit id.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync revert notes.txt@3\n  foldersync revert notes.txt@-1 plan.md@yesterday"
)]
pub(crate) struct Args {
    /// Files and the revisions that they shall have
    #[arg(value_name = "FILE@REV", value_hint = ValueHint::FilePath, required = true)]
    files: Vec<OsString>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let folder = session.folder()?;
    let current = Session::current_dir()?;
    let places = Places::new(folder.root(), &current);
    let specs = args.files.iter().map(|file| {
        let spec = places.file_rev(file)?;
        if spec.rev.is_none() {
            let file = shown(file);
            return Err(CommandError::usage(format!("{file}: no revision is named"))
                .with_hint(format!("`{file}@-1` is the one before the newest; `foldersync log {file}` lists them")));
        }
        Ok(spec)
    });
    let specs: Vec<_> = specs.collect::<Result<_, _>>()?;
    Ok(reports::reverted(session.ui(), &folder.revert(&specs)?)?)
}
