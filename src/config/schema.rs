//! What `config.toml` can say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Time;
use serde::{Deserialize, Serialize};

use super::address::Address;
use super::device::DeviceSettings;
use super::host::HostPort;
use super::name::Name;
use super::pause::Pause;
use super::rate::{Limit, Rate, RateSettings};
use super::schedule::{Days, ScheduleSettings, read_time};
use super::{address, period};
use crate::guard::{Brake, FreeSpace};
use crate::id::DeviceId;

/// All that `config.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This device.
    #[serde(default)]
    pub device: DeviceSettings,
    /// Exchanges with all peers; what a peer itself sets wins.
    #[serde(default)]
    pub exchange: ExchangeSettings,
    /// The folders of this device, by name.
    #[serde(default, rename = "folder")]
    pub folders: BTreeMap<Name, FolderSettings>,
    /// The other sides, by name.
    #[serde(default, rename = "peer")]
    pub peers: BTreeMap<Name, PeerSettings>,
}

/// What is set for one folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderSettings {
    /// Where it is.
    #[serde(deserialize_with = "absolute")]
    pub path: PathBuf,
    /// Whether it is left alone for now.
    #[serde(default)]
    pub paused: Pause,
    /// What a peer may change in it without being held back, where that is another share than in all folders.
    pub brake: Option<Brake>,
    /// How much of its disk stays free, where that is not as for all folders.
    pub free_space: Option<FreeSpace>,
}

impl FolderSettings {
    /// A folder at this path, with everything else as it is by default.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, paused: Pause::No, brake: None, free_space: None }
    }
}

/// What is set for exchanges with all peers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "ExchangeText")]
pub struct ExchangeSettings {
    /// When they are.
    pub schedule: ScheduleSettings,
    /// How fast bytes go, to and from all peers together.
    pub rates: RateSettings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExchangeText {
    #[serde(default, deserialize_with = "period::read")]
    every: Option<Duration>,
    #[serde(default, deserialize_with = "read_time")]
    from: Option<Time>,
    #[serde(default, deserialize_with = "read_time")]
    to: Option<Time>,
    days: Option<Days>,
    upload: Option<Rate>,
    download: Option<Rate>,
    #[serde(default)]
    limits: Vec<Limit>,
}

impl From<ExchangeText> for ExchangeSettings {
    fn from(text: ExchangeText) -> Self {
        let ExchangeText { every, from, to, days, upload, download, limits } = text;
        Self { schedule: ScheduleSettings { every, from, to, days }, rates: RateSettings { upload, download, limits } }
    }
}

/// What is set for one peer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "PeerText")]
pub struct PeerSettings {
    /// Where it is.
    pub address: Address,
    /// Where else it may be, if it is a device that is dialed by its key.
    pub addresses: Vec<HostPort>,
    /// Its device key, which alone is spoken to, where the address does not tell it.
    pub key: Option<DeviceId>,
    /// The folders that are exchanged with it.
    pub folders: Vec<Name>,
    /// Which way revisions go.
    pub direction: Direction,
    /// Which way they go in folders where that is another.
    pub directions: BTreeMap<Name, Direction>,
    /// Whether a folder with a history of its own may be joined with the one there.
    pub join: bool,
    /// When exchanges with it are.
    pub schedule: ScheduleSettings,
    /// How fast bytes go, to and from it alone.
    pub rates: RateSettings,
    /// Whether it is left alone for now.
    pub paused: Pause,
}

impl PeerSettings {
    /// A peer at this address without folders, and everything else as it is by default.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            addresses: Vec::new(),
            key: None,
            folders: Vec::new(),
            direction: Direction::default(),
            directions: BTreeMap::new(),
            join: false,
            schedule: ScheduleSettings::default(),
            rates: RateSettings::default(),
            paused: Pause::No,
        }
    }

    /// Its device key, as its address or a setting of its own tells it.
    pub fn key(&self) -> Option<&DeviceId> {
        self.address.key().or(self.key.as_ref())
    }

    /// Where the device may be found: the host of its address first.
    pub fn hosts(&self) -> impl Iterator<Item = &HostPort> {
        let first = match &self.address {
            Address::Device(device) => device.host.as_ref(),
            Address::Path(_) | Address::Ssh(_) => None,
        };
        first.into_iter().chain(&self.addresses)
    }

    /// Which way revisions of a folder go.
    pub fn direction_of(&self, folder: &Name) -> Direction {
        self.directions.get(folder).copied().unwrap_or(self.direction)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerText {
    address: Address,
    #[serde(default)]
    addresses: Vec<HostPort>,
    #[serde(default, deserialize_with = "address::read_key")]
    key: Option<DeviceId>,
    folders: Vec<Name>,
    #[serde(default)]
    direction: Direction,
    #[serde(default)]
    directions: BTreeMap<Name, Direction>,
    #[serde(default)]
    join: bool,
    #[serde(default, deserialize_with = "period::read")]
    every: Option<Duration>,
    #[serde(default, deserialize_with = "read_time")]
    from: Option<Time>,
    #[serde(default, deserialize_with = "read_time")]
    to: Option<Time>,
    days: Option<Days>,
    upload: Option<Rate>,
    download: Option<Rate>,
    #[serde(default)]
    limits: Vec<Limit>,
    #[serde(default)]
    paused: Pause,
}

impl From<PeerText> for PeerSettings {
    fn from(text: PeerText) -> Self {
        let PeerText { address, addresses, key, folders, direction, directions, join, every, from, to, .. } = text;
        let PeerText { days, upload, download, limits, paused, .. } = text;
        Self {
            address,
            addresses,
            key,
            folders,
            direction,
            directions,
            join,
            schedule: ScheduleSettings { every, from, to, days },
            rates: RateSettings { upload, download, limits },
            paused,
        }
    }
}

/// Which way revisions go between this side and a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// From here to there only.
    Send,
    /// From there to here only.
    Receive,
}

impl Direction {
    /// Whether revisions go from here to there.
    pub const fn sends(self) -> bool {
        matches!(self, Self::Both | Self::Send)
    }

    /// Whether revisions come from there.
    pub const fn receives(self) -> bool {
        matches!(self, Self::Both | Self::Receive)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both",
            Self::Send => "send",
            Self::Receive => "receive",
        })
    }
}

/// A text is no direction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a direction is `both`, `send` or `receive`, not `{0}`")]
pub struct DirectionError(String);

impl std::str::FromStr for Direction {
    type Err = DirectionError;

    fn from_str(text: &str) -> Result<Self, DirectionError> {
        match text {
            "both" => Ok(Self::Both),
            "send" => Ok(Self::Send),
            "receive" => Ok(Self::Receive),
            _ => Err(DirectionError(text.to_owned())),
        }
    }
}

fn absolute<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(serde::de::Error::custom(format!("`{}` is not an absolute path", path.display())))
    }
}

impl Config {
    /// The folder that is at this path.
    pub fn folder_at(&self, path: &Path) -> Option<&Name> {
        self.folders.iter().find(|(_, folder)| folder.path == path).map(|(name, _)| name)
    }

    /// The peers that a folder is exchanged with.
    pub fn peers_of<'a>(&'a self, folder: &'a Name) -> impl Iterator<Item = (&'a Name, &'a PeerSettings)> {
        self.peers.iter().filter(move |(_, peer)| peer.folders.contains(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_print_and_parse_themselves() {
        for direction in [Direction::Both, Direction::Send, Direction::Receive] {
            assert_eq!(direction.to_string().parse(), Ok(direction));
        }
        assert!("up".parse::<Direction>().is_err());
        assert!(Direction::Send.sends() && !Direction::Send.receives());
    }
}
