//! `foldersync show`

use std::ffi::OsString;

use clap::ValueHint;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::paths::Places;
use crate::cli::session::Session;

/// Print a revision of a file
///
/// Writes the content to standard output, byte by byte as it was. With `--json`, what is known of the revision in
/// place of its content. A revision is `@3`, `@-1` (the one before the newest), `@latest`, a date or a span
/// (`@2026-11-01`, `@yesterday`, `"@2 hours ago"`) or a commit id; without one, the newest.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync show notes.txt@3\n  foldersync show notes.txt@yesterday > old-notes.txt\n  foldersync show -- 'odd@3'"
)]
pub(crate) struct Args {
    /// The file and its revision
    #[arg(value_name = "FILE@REV", value_hint = ValueHint::FilePath, required_unless_present = "literal")]
    file: Option<OsString>,
    /// A file whose newest revision is meant, whatever `@` is in its name
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, last = true, conflicts_with = "file")]
    literal: Option<OsString>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let folder = session.folder()?;
    let current = Session::current_dir()?;
    let places = Places::new(folder.root(), &current);
    let spec = match (&args.file, &args.literal) {
        (Some(file), _) => places.file_rev(file)?,
        (None, Some(literal)) => places.newest(literal)?,
        (None, None) => return Err(CommandError::usage("no file is named")),
    };
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&folder.resolve(&spec)?)?;
        return Ok(ExitCode::Done);
    }
    let mut out = ui.out();
    let shown = folder.show(&spec, &mut out);
    if out.is_broken() {
        return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
    }
    shown?;
    out.finish()?;
    Ok(ExitCode::Done)
}
