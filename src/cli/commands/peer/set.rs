//! `foldersync peer set`

use std::ffi::OsStr;
use std::fmt::Display;
use std::str::FromStr;

use jiff::Zoned;

use crate::cli::commands::pause;
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::tell::tell_daemon;
use crate::config::{Config, Days, Limit, Name, Pause, PeerSettings, parse_key, parse_time, period};

/// Change settings of a peer
///
/// KEY is `address`; `addresses` (where else the device may be, `HOST[:PORT]`, with commas); `key` (its device key);
/// `folders` (names, with commas); `direction` (`both`, `send` or `receive`); `directions.FOLDER` (the same, for one
/// folder); `join` (`true` or `false`); `every` (as `10m`; `0s`: at once), `from` and `to` (as `22:00`), `days` (as
/// `mon,tue`); `upload` and `download` (as `2MB/s`); `limits` (a list as the configuration has it); `paused` (`true`,
/// `false`, a length of time as `2h`, or a point in time). `KEY=` without a value takes the setting away.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync peer set nas direction=receive directions.docs=send\n  foldersync peer set nas address=/mnt/nas/docs folders=docs,photos\n  foldersync peer set nas every=10m from=22:00 to=06:00 upload=2MB/s\n  foldersync peer set nas every= paused=2h"
)]
pub(crate) struct Args {
    /// The peer
    #[arg(value_name = "NAME")]
    name: Name,
    /// What to set, and to what
    #[arg(value_name = "KEY=VALUE", required = true)]
    settings: Vec<String>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let now = Zoned::now();
    session.home()?.edit(|config, editor| {
        let mut peer = super::known(config, &args.name)?.clone();
        for setting in &args.settings {
            set(config, &mut peer, setting, &now)?;
        }
        if let Some(flaw) = peer.flaw() {
            return Err(CommandError::usage(flaw.to_string()));
        }
        editor.set_peer(&args.name, &peer);
        Ok::<_, CommandError>(())
    })?;
    tell_daemon(session);
    Ok(ExitCode::Done)
}

/// The settings, for a hint.
const KEYS: &str = "settings are `address`, `addresses`, `key`, `folders`, `direction`, `directions.FOLDER`, `join`, \
                    `every`, `from`, `to`, `days`, `upload`, `download`, `limits` and `paused`";

fn set(config: &Config, peer: &mut PeerSettings, setting: &str, now: &Zoned) -> Result<(), CommandError> {
    let (key, value) =
        setting.split_once('=').ok_or_else(|| CommandError::usage(format!("`{setting}` is not `KEY=VALUE`")))?;
    let wrong = |what: &dyn Display| CommandError::usage(format!("`{key}`: {what}"));
    let is_set = !value.is_empty();
    match key {
        "address" | "folders" if !is_set => return Err(wrong(&"a peer cannot be without it")),
        "address" => peer.address = super::address(OsStr::new(value))?,
        "addresses" => peer.addresses = list(value).map_err(|error| wrong(&error))?,
        "key" => peer.key = is_set.then(|| parse_key(value)).transpose().map_err(|error| wrong(&error))?,
        "direction" if !is_set => peer.direction = PeerSettings::new(peer.address.clone()).direction,
        "direction" => peer.direction = value.parse().map_err(|error| wrong(&error))?,
        "join" => peer.join = is_set && value.parse().map_err(|_| wrong(&"it takes `true` or `false`"))?,
        "folders" => {
            peer.folders = list(value).map_err(|error| wrong(&error))?;
            if let Some(unknown) = peer.folders.iter().find(|name| !config.folders.contains_key(*name)) {
                return Err(wrong(&format!("no folder is named `{unknown}`")));
            }
            let folders = &peer.folders;
            peer.directions.retain(|folder, _| folders.contains(folder));
        }
        "every" => {
            peer.schedule.every = is_set.then(|| period::parse(value)).transpose().map_err(|error| wrong(&error))?;
        }
        "from" | "to" => {
            let time = is_set.then(|| parse_time(value)).transpose().map_err(|error| wrong(&error))?;
            *(if key == "from" { &mut peer.schedule.from } else { &mut peer.schedule.to }) = time;
        }
        "days" => {
            let days = is_set.then(|| Days::named(value.split(',').map(str::trim)));
            peer.schedule.days = days.transpose().map_err(|error| wrong(&error))?;
        }
        "upload" | "download" => {
            let rate = is_set.then(|| value.parse()).transpose().map_err(|error| wrong(&error))?;
            *(if key == "upload" { &mut peer.rates.upload } else { &mut peer.rates.download }) = rate;
        }
        "limits" => {
            let limits = is_set.then(|| Limit::parse_list(value)).transpose();
            peer.rates.limits = limits.map_err(|error| wrong(&error))?.unwrap_or_default();
        }
        "paused" if !is_set => peer.paused = Pause::No,
        "paused" => peer.paused = pause::setting(value, now).map_err(|error| wrong(&error.message()))?,
        _ => {
            let Some(folder) = key.strip_prefix("directions.") else {
                return Err(CommandError::usage(format!("a peer has no setting `{key}`")).with_hint(KEYS));
            };
            let folder: Name = folder.parse().map_err(|error| wrong(&error))?;
            if is_set {
                peer.directions.insert(folder, value.parse().map_err(|error| wrong(&error))?);
            } else {
                peer.directions.remove(&folder);
            }
        }
    }
    Ok(())
}

/// The values of a list with commas.
fn list<T: FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::parse).collect()
}
