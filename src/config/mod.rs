//! The settings of one person on one computer: the device, its folders, its peers.
//!
//! Owns the files of the home (`~/.config/foldersync` unless told otherwise): `config.toml`, which people may edit
//! too, and `device.key`. Files are replaced whole, by a synced temporary file and a rename, under a lock: after a
//! crash they hold what they held before or what they should hold, and two writers never lose each other's change.
//! A key that is not known, or a value of the wrong kind, is an error with file, line and column; nothing is guessed.
//!
//! Used by the command line and the daemon alone. Nothing inside a synced folder is ever read as configuration.

mod address;
mod check;
mod device;
mod edit;
pub mod env;
mod error;
mod file;
mod home;
mod host;
mod key;
mod name;
mod pause;
pub mod period;
mod rate;
mod schedule;
mod schema;
mod view;

pub use address::{Address, AddressError, DeviceAddress, KeyError, SshAddress, parse_key};
pub use check::Flaw;
pub use device::{CertificateError, DEFAULT_PORT, DEFAULT_QUIET, DeviceSettings, Relay, RelayCertificate, RelayError};
pub use edit::Editor;
pub use error::ConfigError;
pub use home::{Home, host_name};
pub use host::{HostError, HostPort};
pub use key::DeviceKey;
pub use name::{Name, NameError};
pub use pause::{Pause, PauseError};
pub use rate::{Limit, Rate, RateError, RateSettings, Rates};
pub use schedule::{DayError, Days, Schedule, ScheduleSettings, TimeError, Window, parse_time, print_time};
pub use schema::{Config, Direction, DirectionError, ExchangeSettings, FolderSettings, PeerSettings};
pub use view::Due;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn fixtures(kind: &str) -> Vec<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(kind);
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 3, "there are fixtures");
        files
    }

    fn load(fixture: &Path) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(fixture, dir.path().join("config.toml")).unwrap();
        Home::at(dir.path().to_owned()).load()
    }

    #[test]
    fn every_valid_fixture_is_read() {
        for fixture in fixtures("valid") {
            load(&fixture).unwrap_or_else(|error| panic!("{}: {error}", fixture.display()));
        }
        let full = load(&fixtures("valid")[1]).unwrap();
        let nas = &full.peers[&Name::new("nas").unwrap()];
        assert!(nas.join && nas.direction == Direction::Both);
        assert_eq!(nas.address, Address::Path("/mnt/nas/docs".into()));
        assert_eq!(full.device_name().as_str(), "laptop");
    }

    #[test]
    fn every_invalid_fixture_is_refused_with_what_its_first_line_says() {
        let mut wrong = Vec::new();
        for fixture in fixtures("invalid") {
            let text = fs::read_to_string(&fixture).unwrap();
            let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: ")).expect("a first line");
            let error = load(&fixture).expect_err(expected).to_string();
            let (_, found) = error.split_once("config.toml:").expect("it names the file");
            if found != expected {
                wrong.push(format!("{}: {found}", fixture.display()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
