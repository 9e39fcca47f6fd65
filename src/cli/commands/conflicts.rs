//! `foldersync conflicts`

use std::ffi::OsString;
use std::io::Write;

use clap::ValueHint;
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::paths::Places;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::engine::report::{Conflict, Resolution};

/// List files in conflict, or end a conflict
///
/// Where two sides changed a file in ways that cannot be put together, the newer version keeps the name and the other
/// stands beside it as a conflict copy. Without a command, lists them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync conflicts\n  foldersync conflicts resolve notes.txt --theirs")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List files in conflict
    #[command(after_long_help = "Example:\n  foldersync conflicts list")]
    List,
    Resolve(Resolve),
}

/// End a conflict; all versions stay in history
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync conflicts resolve notes.txt --ours\n  foldersync conflicts resolve notes.txt --both"
)]
struct Resolve {
    /// The file that is in conflict
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: OsString,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct How {
    /// Keep what stands under the name; the conflict copy goes
    #[arg(long)]
    ours: bool,
    /// Take what the conflict copy has; the copy goes
    #[arg(long)]
    theirs: bool,
    /// Keep both; the conflict copy becomes an ordinary file
    #[arg(long)]
    both: bool,
}

impl How {
    const fn resolution(&self) -> Resolution {
        match (self.theirs, self.both) {
            (true, _) => Resolution::Theirs,
            (_, true) => Resolution::Both,
            _ => Resolution::Ours,
        }
    }
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    conflicts: &'a [Conflict],
}

pub(crate) fn run(session: &Session, args: Args) -> Result<ExitCode, CommandError> {
    match args.command.unwrap_or(Command::List) {
        Command::List => list(session),
        Command::Resolve(args) => {
            let folder = session.folder()?;
            let path = Places::new(folder.root(), &Session::current_dir()?).file(&args.file)?;
            Ok(reports::reverted(session.ui(), &folder.resolve_conflict(&path, args.how.resolution())?)?)
        }
    }
}

fn list(session: &Session) -> Result<ExitCode, CommandError> {
    let conflicts = session.folder()?.conflicts()?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&Document { conflicts: &conflicts })?;
        return Ok(ExitCode::Done);
    }
    let mut out = ui.out();
    for conflict in &conflicts {
        out.path(&conflict.path)?;
        write!(out, ": the version of ")?;
        out.text(&conflict.device)?;
        let time = out.time(conflict.time);
        write!(out, " of {time} is ")?;
        out.path(&conflict.copy)?;
        writeln!(out)?;
    }
    out.finish()?;
    if conflicts.is_empty() {
        ui.status("no conflicts");
    }
    Ok(ExitCode::Done)
}
