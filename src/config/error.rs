//! What can be wrong with the configuration.

use std::io;
use std::path::PathBuf;

use super::address::Address;
use super::name::Name;

/// Why the configuration could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither an option nor the environment says where the configuration is.
    #[error("cannot tell where the configuration is: neither `FOLDERSYNC_HOME` nor `HOME` is set")]
    NoHome,
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not the TOML that it should be.
    #[error("{}:{line}:{column}: {}{message}", path.display(), key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// The key that it is about, with the tables around it.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// No peer has this name.
    #[error("no peer is named `{name}`")]
    UnknownPeer {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<Name>,
    },
    /// A peer of this name is there already, and another one.
    #[error("a peer named `{name}` is there already, with the address {address}")]
    PeerTaken {
        /// The name.
        name: Name,
        /// The address of the one that is there.
        address: Address,
    },
    /// A path cannot stand in a TOML file.
    #[error("{} is not UTF-8, and the configuration cannot hold it", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
    /// The device's key is not what was written.
    #[error("{} does not hold a device key", path.display())]
    DamagedKey {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the device's key.
    #[error("{} can be read by others (mode {mode:03o})", path.display())]
    ExposedKey {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system gave no random numbers.
    #[error("cannot draw random numbers for the device key")]
    NoRandom {
        /// Why.
        source: getrandom::Error,
    },
}

impl ConfigError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoHome => "set `FOLDERSYNC_HOME`, or give `--home DIR`".to_owned(),
            Self::UnknownPeer { known, .. } if known.is_empty() => {
                "no peers are there yet: `foldersync peer add NAME ADDRESS` adds one".to_owned()
            }
            Self::UnknownPeer { known, .. } => {
                let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                format!("peers are {}", known.join(", "))
            }
            Self::PeerTaken { name, .. } => {
                format!("take another name, or change it: `foldersync peer set {name} address=ADDRESS`")
            }
            Self::ExposedKey { path, .. } => format!("`chmod 600 {}`", path.display()),
            Self::DamagedKey { path } => {
                format!(
                    "put it back from a backup, or move {} away: the device then gets a new identity",
                    path.display()
                )
            }
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Invalid { .. }
            | Self::NotText { .. }
            | Self::NoRandom { .. } => {
                return None;
            }
        })
    }
}
