//! `foldersync verify`

use std::io::{self, Write};

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::ui::Ui;
use crate::cli::ui::format::count;
use crate::engine::report::VerifyReport;

/// Check that the folder's repository is whole
///
/// Every file of the repository is looked at, and every object that the history needs is read and compared with its id.
/// What is damaged is named, with the files and revisions of which something is lost by that; `foldersync repair` mends
/// it. What is derived from the history is made anew by itself, and is no damage.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync verify\n  foldersync verify --content")]
pub(crate) struct Args {
    /// Read the files on disk too, and compare them with what was recorded
    #[arg(long)]
    content: bool,
}

/// How many revisions are named of one finding, unless more is asked for.
const NAMED: usize = 20;

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let report = session.folder()?.verify(args.content)?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        tell(ui, &report)?;
        if !report.problems.is_empty() {
            ui.hint("`foldersync repair` mends what can be mended, with what the peers have");
        }
    }
    Ok(if report.problems.is_empty() { ExitCode::Done } else { ExitCode::Damaged })
}

/// Prints what was found.
pub(super) fn tell(ui: &Ui, report: &VerifyReport) -> io::Result<()> {
    let mut out = ui.out();
    for finding in &report.findings {
        if let Some(file) = &finding.file {
            out.text(file)?;
            write!(out, ": ")?;
        }
        out.text(&finding.what)?;
        writeln!(out)?;
        write!(out, "    ")?;
        out.text(&finding.effect)?;
        writeln!(out)?;
        let named = if ui.is_verbose() { usize::MAX } else { NAMED };
        for affected in finding.affects.iter().take(named) {
            write!(out, "        ")?;
            out.text(&affected.to_string())?;
            writeln!(out)?;
        }
        if finding.affects.len() > named {
            writeln!(out, "        and {} more (`--verbose` names them)", finding.affects.len() - named)?;
        }
    }
    out.finish()?;
    let found = match report.problems.len() as u64 {
        0 => "all is well".to_owned(),
        problems => count(problems, "problem"),
    };
    let objects = count(report.objects, "object");
    ui.status(&format!("checked {} and {objects}: {found}", count(report.revisions, "revision")));
    Ok(())
}
