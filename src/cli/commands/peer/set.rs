//! `foldersync peer set`

use std::ffi::OsStr;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::config::{Config, Name, PeerSettings};

/// Change settings of a peer
///
/// KEY is `address`, `direction` (`both`, `send` or `receive`), `join` (`true` or `false`) or `folders` (names, with commas).
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync peer set nas direction=receive\n  foldersync peer set nas address=/mnt/nas/docs folders=docs,photos"
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
    session.home()?.edit(|config, editor| {
        let mut peer = super::known(config, &args.name)?.clone();
        for setting in &args.settings {
            set(config, &mut peer, setting)?;
        }
        editor.set_peer(&args.name, &peer);
        Ok::<_, CommandError>(ExitCode::Done)
    })
}

fn set(config: &Config, peer: &mut PeerSettings, setting: &str) -> Result<(), CommandError> {
    let (key, value) =
        setting.split_once('=').ok_or_else(|| CommandError::usage(format!("`{setting}` is not `KEY=VALUE`")))?;
    let wrong = |what: &dyn std::fmt::Display| CommandError::usage(format!("`{key}`: {what}"));
    match key {
        "address" => peer.address = super::address(OsStr::new(value))?,
        "direction" => peer.direction = value.parse().map_err(|error| wrong(&error))?,
        "join" => peer.join = value.parse().map_err(|_| wrong(&"it takes `true` or `false`"))?,
        "folders" => {
            let names = value.split(',').filter(|name| !name.is_empty()).map(|text| {
                let name: Name = text.parse().map_err(|error| wrong(&error))?;
                let known = config.folders.contains_key(&name);
                known.then_some(name).ok_or_else(|| wrong(&format!("no folder is named `{text}`")))
            });
            peer.folders = names.collect::<Result<_, _>>()?;
        }
        _ => {
            return Err(CommandError::usage(format!("a peer has no setting `{key}`"))
                .with_hint("settings are `address`, `direction`, `join` and `folders`"));
        }
    }
    Ok(())
}
