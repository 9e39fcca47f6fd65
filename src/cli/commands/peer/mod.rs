//! `foldersync peer`: the other sides, and what is known of them.

mod add;
mod list;
mod remove;
mod rename;
mod set;

use std::ffi::OsStr;
use std::path::Path;

use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::config::{Address, AddressError, Config, ConfigError, Direction, Name, PeerSettings};
use crate::engine::Folder;

/// Add, list and change peers: other copies of folders
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(add::Args),
    List(list::Args),
    Set(set::Args),
    Rename(rename::Args),
    Remove(remove::Args),
}

pub(crate) fn run(session: &Session, args: Args) -> Result<ExitCode, CommandError> {
    match args.command {
        Command::Add(args) => add::run(session, &args),
        Command::List(args) => list::run(session, &args),
        Command::Set(args) => set::run(session, &args),
        Command::Rename(args) => rename::run(session, &args),
        Command::Remove(args) => remove::run(session, &args),
    }
}

/// A peer's settings as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct PeerDocument<'a> {
    name: &'a Name,
    address: &'a Address,
    folders: &'a [Name],
    direction: Direction,
    join: bool,
}

impl<'a> PeerDocument<'a> {
    /// The settings of this peer.
    pub(crate) fn new(name: &'a Name, peer: &'a PeerSettings) -> Self {
        let PeerSettings { address, folders, direction, join } = peer;
        Self { name, address, folders, direction: *direction, join: *join }
    }
}

/// The address that an argument names; a path is made absolute.
pub(crate) fn address(argument: &OsStr) -> Result<Address, CommandError> {
    let text = argument.to_str().ok_or_else(|| ConfigError::NotText { path: Path::new(argument).to_owned() })?;
    if let Some(scheme) = Address::scheme(text) {
        return Err(CommandError::usage(AddressError::Scheme { scheme: scheme.to_owned() }.to_string()));
    }
    Ok(Address::Path(Session::absolute(Path::new(text))?))
}

/// The peer of this name.
pub(crate) fn known<'a>(config: &'a Config, name: &Name) -> Result<&'a PeerSettings, ConfigError> {
    let unknown = || ConfigError::UnknownPeer { name: name.to_string(), known: config.peers.keys().cloned().collect() };
    config.peers.get(name).ok_or_else(unknown)
}

/// That a peer of this name, which is there, is another one.
pub(crate) fn taken(config: &Config, name: &Name) -> ConfigError {
    ConfigError::PeerTaken { name: name.clone(), address: config.peers[name].address.clone() }
}

/// Does something in the repository of each folder of a peer. A folder that cannot be opened now is only warned of:
/// what its repository knows of a peer is found again by the next exchange.
fn in_each_folder(
    session: &Session,
    config: &Config,
    peer: &PeerSettings,
    work: impl Fn(&Folder) -> Result<(), CommandError>,
) {
    for folder in peer.folders.iter().filter_map(|name| config.folders.get(name)) {
        let done = Folder::open(&folder.path, session.context()).map_err(CommandError::from).and_then(|it| work(&it));
        if let Err(error) = done {
            session.ui().warning(&format!("{}: {}", folder.path.display(), error.message()));
        }
    }
}
