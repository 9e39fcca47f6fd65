//! `foldersync completions`

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync completions bash > ~/.local/share/bash-completion/completions/foldersync\n  foldersync completions zsh > ~/.zfunc/_foldersync\n  foldersync completions fish > ~/.config/fish/completions/foldersync.fish"
)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    // Into memory first: the generator knows no reader that leaves.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "foldersync", &mut script);
    let mut out = session.ui().out();
    out.write_all(&script)?;
    out.finish()?;
    Ok(ExitCode::Done)
}
