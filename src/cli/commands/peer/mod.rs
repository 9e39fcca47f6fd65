//! `foldersync peer`: the other sides, and what is known of them.

mod add;
mod list;
mod remove;
mod rename;
mod set;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::config::{
    Address, AddressError, Config, ConfigError, Days, Direction, HostPort, Limit, Name, Pause, PeerSettings, Rate,
    RateSettings, ScheduleSettings, period, print_time,
};
use crate::engine::Folder;
use crate::id::DeviceId;

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

/// A peer's settings as JSON. What is not set is null, or an empty list.
#[derive(Debug, Serialize)]
pub(crate) struct PeerDocument<'a> {
    name: &'a Name,
    address: &'a Address,
    addresses: &'a [HostPort],
    key: Option<&'a DeviceId>,
    folders: &'a [Name],
    direction: Direction,
    directions: &'a BTreeMap<Name, Direction>,
    join: bool,
    #[serde(flatten)]
    schedule: ScheduleDocument,
    #[serde(flatten)]
    rates: RatesDocument<'a>,
    paused: Pause,
}

impl<'a> PeerDocument<'a> {
    /// Which way revisions of a folder go.
    fn direction_of(&self, folder: &Name) -> Direction {
        self.directions.get(folder).copied().unwrap_or(self.direction)
    }

    /// The settings of this peer.
    pub(crate) fn new(name: &'a Name, peer: &'a PeerSettings) -> Self {
        Self {
            name,
            address: &peer.address,
            addresses: &peer.addresses,
            key: peer.key(),
            folders: &peer.folders,
            direction: peer.direction,
            directions: &peer.directions,
            join: peer.join,
            schedule: ScheduleDocument::new(&peer.schedule),
            rates: RatesDocument::new(&peer.rates),
            paused: peer.paused,
        }
    }
}

/// When exchanges are, as it is set, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ScheduleDocument {
    every: Option<String>,
    from: Option<String>,
    to: Option<String>,
    days: Option<Days>,
}

impl ScheduleDocument {
    pub(crate) fn new(settings: &ScheduleSettings) -> Self {
        let ScheduleSettings { every, from, to, days } = *settings;
        Self { every: every.map(period::print), from: from.map(print_time), to: to.map(print_time), days }
    }

    /// Those that are set, as text.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let days = self.days.map(|days| days.to_string());
        let all = [("every", &self.every), ("from", &self.from), ("to", &self.to), ("days", &days)];
        all.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }
}

/// How fast bytes go, as it is set, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RatesDocument<'a> {
    upload: Option<Rate>,
    download: Option<Rate>,
    limits: &'a [Limit],
}

impl<'a> RatesDocument<'a> {
    pub(crate) fn new(settings: &'a RateSettings) -> Self {
        Self { upload: settings.upload, download: settings.download, limits: &settings.limits }
    }

    /// Those that are set, as text.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let rates = [("upload", self.upload), ("download", self.download)];
        let mut rows: Vec<_> = rates.into_iter().filter_map(|(key, rate)| Some((key, rate?.to_string()))).collect();
        if !self.limits.is_empty() {
            rows.push(("limits", self.limits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")));
        }
        rows
    }
}

/// The settings of a peer that are in effect, as text: those that are always there, then those that are set.
pub(crate) fn rows(peer: &PeerSettings) -> Vec<(String, String)> {
    let join = |texts: Vec<String>| texts.join(",");
    let mut rows = vec![("address".to_owned(), peer.address.to_string())];
    if !peer.addresses.is_empty() {
        rows.push(("addresses".to_owned(), join(peer.addresses.iter().map(ToString::to_string).collect())));
    }
    rows.extend(peer.key().map(|key| ("key".to_owned(), key.to_string())));
    rows.push(("folders".to_owned(), join(peer.folders.iter().map(ToString::to_string).collect())));
    rows.push(("direction".to_owned(), peer.direction.to_string()));
    rows.extend(peer.directions.iter().map(|(folder, it)| (format!("directions.{folder}"), it.to_string())));
    rows.push(("join".to_owned(), peer.join.to_string()));
    let set = [ScheduleDocument::new(&peer.schedule).rows(), RatesDocument::new(&peer.rates).rows()];
    rows.extend(set.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)));
    if peer.paused != Pause::No {
        rows.push(("paused".to_owned(), peer.paused.to_string()));
    }
    rows
}

/// The address that an argument names. A path is made absolute; what is there, or has a slash before its first colon,
/// is a path, as scp and git have it.
pub(crate) fn address(argument: &OsStr) -> Result<Address, CommandError> {
    let text = argument.to_str().ok_or_else(|| ConfigError::NotText { path: Path::new(argument).to_owned() })?;
    let is_there = || Address::scheme(text).is_none() && Path::new(text).symlink_metadata().is_ok();
    if Address::is_path(text) || is_there() {
        return Ok(Address::Path(Session::absolute(Path::new(text))?));
    }
    text.parse().map_err(|error: AddressError| CommandError::usage(error.to_string()))
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
