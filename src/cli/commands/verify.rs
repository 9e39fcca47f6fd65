//! `foldersync verify`

use std::io::Write;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::ui::format::count;

/// Check that the folder's repository is whole
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync verify\n  foldersync verify --content")]
pub(crate) struct Args {
    /// Read all content and check it against its ids
    #[arg(long)]
    content: bool,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let report = session.folder()?.verify(args.content)?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        let mut out = ui.out();
        for problem in &report.problems {
            out.text(problem)?;
            writeln!(out)?;
        }
        out.finish()?;
        let found = match report.problems.len() as u64 {
            0 => "all is well".to_owned(),
            problems => count(problems, "problem"),
        };
        let objects = count(report.objects, "object");
        ui.status(&format!("checked {} and {objects}: {found}", count(report.revisions, "revision")));
    }
    Ok(if report.problems.is_empty() { ExitCode::Done } else { ExitCode::Damaged })
}
