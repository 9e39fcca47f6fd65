//! `foldersync accept`

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::registry;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::cli::tell;
use crate::cli::ui::format::{count, list};
use crate::engine::report::DecisionReport;

/// Apply a mass change of a peer that is held back
///
/// What a peer sends is not applied where it would delete or rewrite more than a share of this folder (`brake`, half of
/// it unless set otherwise) at once or within an hour: it is held back, and `foldersync status` tells of it. `accept`
/// applies it; `foldersync reject` gives back what it takes away. Meanwhile what changes here is still sent. What was
/// there before stays in the history whatever is chosen.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync accept\n  foldersync accept nas")]
pub(crate) struct Args {
    /// The peer that sent it; without it, all that is held back
    #[arg(value_name = "PEER")]
    peer: Option<String>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let folder = session.folder()?;
    let report = folder.accept(args.peer.as_deref())?;
    let peers = decided(&report);
    let text = format!("accepted what came from {peers}: wrote {}", count(report.applied, "file"));
    tell_decision(session, folder.root(), &report, &text)
}

/// The peers of whom was decided.
pub(super) fn decided(report: &DecisionReport) -> String {
    list(&report.decided.iter().map(|held| held.peer.clone()).collect::<Vec<_>>())
}

/// Tells what was decided, people and a running daemon.
pub(super) fn tell_decision(
    session: &Session,
    root: &std::path::Path,
    report: &DecisionReport,
    text: &str,
) -> Result<ExitCode, CommandError> {
    if let Some(name) = registry::name_of(&session.config()?, root) {
        tell::look(session, name);
    }
    let ui = session.ui();
    if ui.is_json() {
        ui.json(report)?;
    } else {
        let mut out = ui.out();
        reports::changes(ui, &mut out, &report.changes)?;
        out.finish()?;
        ui.status(text);
        reports::left_out(ui, &report.left_out);
        reports::conflicts(ui, &report.conflicts);
        for held in &report.held {
            ui.warning(&format!("still held back from {}", reports::held(held)));
        }
    }
    Ok(ExitCode::left_out_if(!report.left_out.is_empty() || !report.conflicts.is_empty()))
}
