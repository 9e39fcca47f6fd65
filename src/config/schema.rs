//! What `config.toml` can say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::name::Name;

/// All that `config.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This device.
    #[serde(default)]
    pub device: DeviceSettings,
    /// The folders of this device, by name.
    #[serde(default, rename = "folder")]
    pub folders: BTreeMap<Name, FolderSettings>,
    /// The other sides, by name.
    #[serde(default, rename = "peer")]
    pub peers: BTreeMap<Name, PeerSettings>,
}

/// What is set for this device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSettings {
    /// What revisions say who made them; by default the host's name.
    pub name: Option<Name>,
}

/// What is set for one folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderSettings {
    /// Where it is.
    #[serde(deserialize_with = "absolute")]
    pub path: PathBuf,
}

/// What is set for one peer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSettings {
    /// Where it is.
    pub address: Address,
    /// The folders that are exchanged with it.
    pub folders: Vec<Name>,
    /// Which way revisions go.
    #[serde(default)]
    pub direction: Direction,
    /// Whether a folder with a history of its own may be joined with the one there.
    #[serde(default)]
    pub join: bool,
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

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum Address {
    /// A folder on this computer or on a mounted disk: an absolute path.
    Path(PathBuf),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It names a way of transport that this version does not have.
    #[error("`{scheme}://` addresses are not supported by this version; an address is the path of a folder")]
    Scheme {
        /// The way of transport.
        scheme: String,
    },
    /// It is a path that depends on where it is used.
    #[error("`{text}` is not an absolute path")]
    Relative {
        /// The text.
        text: String,
    },
}

impl Address {
    /// The way of transport that a text names, if it is not simply a path.
    pub fn scheme(text: &str) -> Option<&str> {
        let (scheme, _) = text.split_once("://")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(plain)).then_some(scheme)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        if let Some(scheme) = Self::scheme(&text) {
            return Err(AddressError::Scheme { scheme: scheme.to_owned() });
        }
        if Path::new(&text).is_absolute() { Ok(Self::Path(text.into())) } else { Err(AddressError::Relative { text }) }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
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
    fn an_address_is_an_absolute_path_for_now() {
        let parse = |text: &str| Address::try_from(text.to_owned());
        assert_eq!(parse("/mnt/usb"), Ok(Address::Path("/mnt/usb".into())));
        assert_eq!(parse("ssh://me@nas/srv"), Err(AddressError::Scheme { scheme: "ssh".to_owned() }));
        assert_eq!(parse("mnt/usb"), Err(AddressError::Relative { text: "mnt/usb".to_owned() }));
        assert_eq!(parse("/odd://name"), Ok(Address::Path("/odd://name".into())));
    }

    #[test]
    fn directions_print_and_parse_themselves() {
        for direction in [Direction::Both, Direction::Send, Direction::Receive] {
            assert_eq!(direction.to_string().parse(), Ok(direction));
        }
        assert!("up".parse::<Direction>().is_err());
        assert!(Direction::Send.sends() && !Direction::Send.receives());
    }
}
