//! `foldersync man`, hidden: prints the manual page.

use std::io::Write;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::man;
use crate::cli::session::Session;

/// Print the manual page
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {}

pub(crate) fn run(session: &Session, _: &Args) -> Result<ExitCode, CommandError> {
    let mut out = session.ui().out();
    out.write_all(&man::page()?)?;
    out.finish()?;
    Ok(ExitCode::Done)
}
