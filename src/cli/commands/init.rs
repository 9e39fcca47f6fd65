//! `foldersync init`

use std::path::{Path, PathBuf};

use clap::ValueHint;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::registry;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::cli::ui::format::size;
use crate::engine::{Folder, InitOptions};

/// Version a folder: one revision for each file in it
///
/// Makes a git repository in the folder (`.git`), captures every file, link and empty folder in it, and registers the
/// folder in the configuration. Where that was cut off, the same command goes on. What `.gitignore` names is left out,
/// and so are repositories inside the folder. A folder that already is a git repository is refused, unless
/// `--alongside` is given.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync init ~/docs\n  foldersync init --alongside ~/src/project")]
pub(crate) struct Args {
    /// The folder; without it, the current directory
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Leave somebody's `.git` alone and use `.foldersync` next to it
    #[arg(long)]
    alongside: bool,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let dir = args.dir.as_deref().or(session.named_folder()).unwrap_or(Path::new("."));
    let dir = Session::absolute(dir)?;
    let options = InitOptions { alongside: args.alongside, device: session.device()?, folder_id: None };
    // A kill may have come before the folder was registered, which is last.
    let begun = match registry::name_of(&session.config()?, &dir) {
        Some(_) => None,
        None => Folder::go_on_with_init(&dir, &options, &session.context())?,
    };
    let nothing = if begun.is_some() { "nothing new in it" } else { "nothing in it yet" };
    let (folder, report) = match begun {
        Some(done) => done,
        None => Folder::init(&dir, &options, session.context())?,
    };
    let name = registry::register_folder(session, folder.root())?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        let capture = &report.capture;
        let made = if capture.revisions() == 0 { nothing.to_owned() } else { reports::captured(capture) };
        ui.status(&format!("{} is versioned as `{name}`: {made}, {} read", report.folder, size(capture.bytes)));
        reports::left_out(ui, &capture.left_out);
    }
    Ok(ExitCode::left_out_if(!report.capture.left_out.is_empty()))
}
