//! The commands, one file each. A command's documentation is its help.

mod accept;
mod bundle;
mod clone;
mod commit;
mod completions;
mod config;
mod conflicts;
mod diff;
mod exchange;
mod gc;
mod git_filter;
mod id;
mod init;
mod join;
mod log;
mod man;
mod pause;
mod peer;
mod reject;
mod repair;
mod restore;
mod resume;
mod revert;
mod serve;
mod service;
mod share;
mod show;
mod status;
mod verify;
mod wait;
mod watch;

use clap::Subcommand;

use super::error::CommandError;
use super::exit::ExitCode;
use super::session::Session;

/// What the command is asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Args),
    Clone(clone::Args),
    Commit(commit::Args),
    Status(status::Args),
    Log(log::Args),
    Show(show::Args),
    Diff(diff::Args),
    Revert(revert::Args),
    Restore(restore::Args),
    Conflicts(conflicts::Args),
    Accept(accept::Args),
    Reject(reject::Args),
    Share(share::Args),
    Join(join::Args),
    Peer(peer::Args),
    Exchange(exchange::Args),
    Wait(wait::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Bundle(bundle::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Gc(gc::Args),
    Config(config::Args),
    Id(id::Args),
    Serve(serve::Args),
    Watch(watch::Args),
    Service(service::Args),
    GitFilter(git_filter::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Does what was asked.
pub(crate) fn run(session: &Session, command: Command) -> Result<ExitCode, CommandError> {
    match command {
        Command::Init(args) => init::run(session, &args),
        Command::Clone(args) => clone::run(session, &args),
        Command::Commit(args) => commit::run(session, &args),
        Command::Status(args) => status::run(session, &args),
        Command::Log(args) => log::run(session, &args),
        Command::Show(args) => show::run(session, &args),
        Command::Diff(args) => diff::run(session, &args),
        Command::Revert(args) => revert::run(session, &args),
        Command::Restore(args) => restore::run(session, &args),
        Command::Accept(args) => accept::run(session, &args),
        Command::Reject(args) => reject::run(session, &args),
        Command::Conflicts(args) => conflicts::run(session, args),
        Command::Share(args) => share::run(session, &args),
        Command::Join(args) => join::run(session, &args),
        Command::Peer(args) => peer::run(session, args),
        Command::Exchange(args) => exchange::run(session, &args),
        Command::Wait(args) => wait::run(session, &args),
        Command::Pause(args) => pause::run(session, &args),
        Command::Resume(args) => resume::run(session, &args),
        Command::Bundle(args) => bundle::run(session, args),
        Command::Verify(args) => verify::run(session, &args),
        Command::Repair(args) => repair::run(session, &args),
        Command::Gc(args) => gc::run(session, &args),
        Command::Config(args) => config::run(session, &args),
        Command::Id(args) => id::run(session, &args),
        Command::Serve(args) => serve::run(session, &args),
        Command::Watch(args) => watch::run(session, &args),
        Command::Service(args) => service::run(session, &args),
        Command::GitFilter(args) => git_filter::run(session, &args),
        Command::Completions(args) => completions::run(session, &args),
        Command::Man(args) => man::run(session, &args),
    }
}
