//! The command line: arguments in, text or JSON out, one exit code.
//!
//! Owns everything that talks to people. A command resolves what was typed (paths, names, settings) into what the
//! engine takes, lets the engine do the work, and prints its report; it decides nothing about files or history.
//! Nothing below this module knows of a terminal, an environment or a home directory.

mod alone;
mod commands;
mod error;
mod exit;
mod foreground;
mod global;
mod live;
mod man;
mod paths;
mod registry;
mod reports;
mod session;
mod tell;
mod ui;

use std::ffi::{OsStr, OsString};

use clap::{CommandFactory, FromArgMatches, Parser};

pub use self::error::{CommandError, Kind};
pub use self::exit::ExitCode;
use self::global::Global;
use self::session::Session;
use self::ui::Ui;

/// Keep folders in step between computers, with every version of every file
///
/// foldersync versions a folder, one revision a file, in a git repository of its own, and exchanges the revisions with
/// other copies of the folder. Every revision of every file can be listed, shown, compared and brought back.
#[derive(Debug, Parser)]
#[command(
    name = "foldersync",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_long_help = "Examples:\n  foldersync init ~/docs\n  foldersync log notes.txt\n  foldersync revert notes.txt@3\n  foldersync peer add usb /media/usb/docs\n  foldersync exchange"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: commands::Command,
}

/// Does what the arguments say, the program's name first among them.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    match Cli::command().try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => {
            let session = Session::new(cli.global);
            commands::run(&session, cli.command).unwrap_or_else(|error| {
                error.print(session.ui());
                error.kind.exit_code()
            })
        }
        Err(error) => refuse(&error, &arguments),
    }
}

/// Help, the version, or what is wrong with the arguments.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    // Options were not understood, so `--json` is looked for by hand: a script shall get its document also here.
    let json =
        arguments.iter().take_while(|argument| *argument != OsStr::new("--")).any(|argument| argument == "--json");
    if error.use_stderr() && json {
        let ui = Ui::new(&Global { json: true, ..Global::default() });
        let text = error.render().to_string();
        let told = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").trim();
        CommandError::usage(told).print(&ui);
    } else {
        // A reader that left is no error.
        drop(error.print());
    }
    if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    fn every_command(command: &clap::Command, seen: &mut Vec<clap::Command>) {
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            seen.push(inner.clone());
            every_command(inner, seen);
        }
    }

    #[test]
    fn every_command_has_help_in_house_style() {
        let mut commands = Vec::new();
        every_command(&Cli::command(), &mut commands);
        assert!(commands.len() > 20);
        for command in commands {
            let about = command.get_about().unwrap_or_else(|| panic!("{} has help", command.get_name())).to_string();
            assert!(about.starts_with(char::is_uppercase) && !about.ends_with('.'), "{about:?}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let id = argument.get_id();
                let help = argument.get_help().unwrap_or_else(|| panic!("{id} of {} has help", command.get_name()));
                assert!(!help.to_string().ends_with('.'), "{help}");
            }
            if !command.has_subcommands() {
                assert!(command.get_after_long_help().is_some(), "{} has an example", command.get_name());
            }
        }
    }
}
