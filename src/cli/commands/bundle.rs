//! `foldersync bundle`

use std::path::PathBuf;

use clap::ValueHint;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::cli::ui::format::{count, size};
use crate::engine::report::BundleReport;
use crate::engine::revspec::RevSpec;

/// Write, check or take in revisions as a file
///
/// A bundle is a git bundle in a Snappy frame stream, by custom named `*.bundle.sz`: decompressed (`snzip -d`), plain
/// git can verify it and fetch from it.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(Create),
    Verify(Read),
    Apply(Apply),
}

/// Write a bundle of the folder's revisions
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync bundle create docs.bundle.sz\n  foldersync bundle create --since yesterday news.bundle.sz\n  foldersync bundle create --to nas for-nas.bundle.sz"
)]
struct Create {
    /// The file to write
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Leave out what was there at REV: a date, `yesterday`, or a commit id
    #[arg(long, value_name = "REV", conflicts_with = "to")]
    since: Option<String>,
    /// Leave out what PEER is known to have
    #[arg(long, value_name = "PEER")]
    to: Option<String>,
}

/// Check a bundle, and whether it can be applied here
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync bundle verify docs.bundle.sz")]
struct Read {
    /// The bundle
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

/// Take in the revisions of a bundle, and write what they change
///
/// A mass change is held back as if a peer had sent it, under the name `bundle`: see `foldersync accept`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync bundle apply docs.bundle.sz")]
struct Apply {
    /// The bundle
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

pub(crate) fn run(session: &Session, args: Args) -> Result<ExitCode, CommandError> {
    match args.command {
        Command::Create(args) => create(session, &args),
        Command::Verify(args) => verify(session, &args),
        Command::Apply(args) => apply(session, &args),
    }
}

fn create(session: &Session, args: &Create) -> Result<ExitCode, CommandError> {
    let since = args.since.as_deref().map(|since| RevSpec::parse(since.strip_prefix('@').unwrap_or(since)));
    let file = Session::absolute(&args.file)?;
    let report = session.folder()?.bundle_create(&file, since.transpose()?.as_ref(), args.to.as_deref())?;
    tell(session, &report, &format!("wrote {}: {}", file.display(), contents(&report)))?;
    Ok(ExitCode::Done)
}

fn verify(session: &Session, args: &Read) -> Result<ExitCode, CommandError> {
    let file = Session::absolute(&args.file)?;
    let report = session.folder()?.bundle_verify(&file)?;
    tell(session, &report, &format!("{} is whole: {}", file.display(), contents(&report)))?;
    if report.missing.is_empty() {
        return Ok(ExitCode::Done);
    }
    if !session.ui().is_json() {
        let missing = count(report.missing.len() as u64, "revision");
        session.ui().warning(&format!("it cannot be applied here: {missing} that it builds on is missing"));
    }
    Ok(ExitCode::Failed)
}

fn apply(session: &Session, args: &Apply) -> Result<ExitCode, CommandError> {
    let file = Session::absolute(&args.file)?;
    let report = session.folder()?.bundle_apply(&file)?;
    let wrote = count(report.applied, "file");
    tell(session, &report, &format!("took in {}: {}, wrote {wrote}", file.display(), contents(&report)))?;
    if !session.ui().is_json() {
        reports::left_out(session.ui(), &report.left_out);
        reports::conflicts(session.ui(), &report.conflicts);
    }
    if let Some(held) = &report.held {
        if session.ui().is_json() {
            return Ok(ExitCode::Refused);
        }
        return Err(reports::held_back(&held.peer, held));
    }
    Ok(ExitCode::left_out_if(!report.left_out.is_empty() || !report.conflicts.is_empty()))
}

fn contents(report: &BundleReport) -> String {
    let revisions = count(report.revisions, "revision");
    format!("{revisions}, {}, up to {}", size(report.bytes), report.tip.short())
}

fn tell(session: &Session, report: &BundleReport, text: &str) -> Result<(), CommandError> {
    let ui = session.ui();
    if ui.is_json() {
        ui.json(report)?;
    } else {
        ui.status(text);
    }
    Ok(())
}
