//! `foldersync commit`

use std::ffi::OsString;

use clap::ValueHint;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::paths::Places;
use crate::cli::reports;
use crate::cli::session::Session;

/// Capture what changed: one revision for each file
///
/// `exchange`, `revert` and the other commands capture by themselves what they would replace; this captures
/// everything, or the named paths, now.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync commit\n  foldersync commit notes.txt photos")]
pub(crate) struct Args {
    /// Files and folders to capture; without them, everything
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<OsString>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let folder = session.folder()?;
    let current = Session::current_dir()?;
    let places = Places::new(folder.root(), &current);
    let paths: Vec<_> = args.paths.iter().map(|path| places.path(path)).collect::<Result<_, _>>()?;
    // The top of the folder among them means everything.
    let paths = paths.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default();
    let report = folder.capture(&paths)?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        let mut out = ui.out();
        reports::changes(ui, &mut out, &report.changes)?;
        out.finish()?;
        match report.revisions() {
            0 => ui.status("nothing to capture"),
            _ => ui.status(&reports::captured(&report)),
        }
        reports::left_out(ui, &report.left_out);
    }
    Ok(ExitCode::left_out_if(!report.left_out.is_empty()))
}
