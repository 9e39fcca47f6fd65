//! `foldersync gc`

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::ui::format::{count, size};

/// Gather loose objects and small packs into one pack
///
/// It happens by itself after captures; nothing that a revision needs is ever removed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync gc")]
pub(crate) struct Args {}

pub(crate) fn run(session: &Session, _: &Args) -> Result<ExitCode, CommandError> {
    let report = session.folder()?.gc()?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        let (before, after) = (count(report.packs_before, "pack"), count(report.packs_after, "pack"));
        ui.status(&format!("{before} ({}) became {after} ({})", size(report.bytes_before), size(report.bytes_after)));
    }
    Ok(ExitCode::Done)
}
