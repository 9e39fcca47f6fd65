//! What is set for this device.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::host::HostPort;
use super::name::Name;
use super::{address, period};
use crate::guard::{Brake, FreeSpace};

/// The UDP port on which a device listens.
pub const DEFAULT_PORT: u16 = 44996;

/// How long a file is quiet before it is captured.
pub const DEFAULT_QUIET: Duration = Duration::from_millis(50);

/// The longest time for which a file may have to be quiet.
const LONGEST_QUIET: Duration = Duration::from_hours(1);

/// What is set for this device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSettings {
    /// What revisions say who made them; by default the host's name.
    pub name: Option<Name>,
    /// The UDP port to listen on.
    #[serde(default, deserialize_with = "address::read_port")]
    pub port: Option<u16>,
    /// The relay through which devices meet that cannot reach each other directly; none: no relay.
    pub relay: Option<Relay>,
    /// What the relay's certificate must be; none: one that the system trusts.
    pub relay_certificate: Option<RelayCertificate>,
    /// Whether devices are looked for, and told of, on the local network; by default they are.
    pub local_discovery: Option<bool>,
    /// How long a file must be quiet before it is captured.
    #[serde(default, deserialize_with = "read_quiet")]
    pub quiet: Option<Duration>,
    /// The share of a folder beyond which what a peer deletes and rewrites is held back.
    pub brake: Option<Brake>,
    /// How much of a disk stays free of what peers send.
    pub free_space: Option<FreeSpace>,
}

impl DeviceSettings {
    /// The UDP port to listen on: as it is set, otherwise the usual one.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }

    /// Whether devices are looked for on the local network.
    pub fn local_discovery(&self) -> bool {
        self.local_discovery.unwrap_or(true)
    }

    /// How long a file must be quiet before it is captured.
    pub fn quiet(&self) -> Duration {
        self.quiet.unwrap_or(DEFAULT_QUIET)
    }
}

fn read_quiet<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let quiet = period::read(deserializer)?;
    if quiet.is_some_and(|quiet| quiet > LONGEST_QUIET) {
        return Err(serde::de::Error::custom(format!("at most {}", period::print(LONGEST_QUIET))));
    }
    Ok(quiet)
}

/// A relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Relay {
    /// Those that iroh's makers offer to everybody.
    Public,
    /// One of the person's own: its `https://` URL.
    Own(String),
}

/// A text is no relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no relay: it takes `https://HOST[:PORT]`, or `public`", .0.escape_debug())]
pub struct RelayError(String);

impl std::str::FromStr for Relay {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        if text == "public" {
            return Ok(Self::Public);
        }
        let host = text.strip_prefix("https://").map(|host| host.strip_suffix('/').unwrap_or(host));
        match host.and_then(|host| host.parse::<HostPort>().ok()) {
            Some(host) => Ok(Self::Own(format!("https://{host}"))),
            None => Err(RelayError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Relay {
    type Error = RelayError;

    fn try_from(text: String) -> Result<Self, RelayError> {
        text.parse()
    }
}

impl From<Relay> for String {
    fn from(relay: Relay) -> Self {
        relay.to_string()
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Own(url) => url,
        })
    }
}

/// What the certificate of a relay must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RelayCertificate {
    /// Its DER form has this SHA-256.
    Sha256([u8; 32]),
    /// It is in this file (PEM or DER): an absolute path.
    File(PathBuf),
}

/// A text is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no certificate: it takes 64 hexadecimal digits (its SHA-256) or the absolute path of its file", .0.escape_debug())]
pub struct CertificateError(String);

impl std::str::FromStr for RelayCertificate {
    type Err = CertificateError;

    fn from_str(text: &str) -> Result<Self, CertificateError> {
        if Path::new(text).is_absolute() {
            return Ok(Self::File(text.into()));
        }
        // As openssl prints it, too: in pairs with colons.
        let digits = text.strip_prefix("sha256:").unwrap_or(text).replace(':', "");
        super::key::from_hex(&digits).map(Self::Sha256).ok_or_else(|| CertificateError(text.to_owned()))
    }
}

impl TryFrom<String> for RelayCertificate {
    type Error = CertificateError;

    fn try_from(text: String) -> Result<Self, CertificateError> {
        text.parse()
    }
}

impl From<RelayCertificate> for String {
    fn from(certificate: RelayCertificate) -> Self {
        certificate.to_string()
    }
}

impl fmt::Display for RelayCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(sum) => sum.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn what_is_not_set_is_as_usual() {
        let settings = DeviceSettings::default();
        assert_eq!((settings.port(), settings.local_discovery(), settings.quiet()), (44996, true, DEFAULT_QUIET));
    }

    #[rstest]
    #[case("public", "public")]
    #[case("https://relay.example:3340", "https://relay.example:3340")]
    #[case("https://relay.example/", "https://relay.example")]
    #[case("https://[fd00::5]:3340", "https://[fd00::5]:3340")]
    fn relays(#[case] text: &str, #[case] printed: &str) {
        assert_eq!(text.parse::<Relay>().unwrap().to_string(), printed);
    }

    #[rstest]
    #[case("")]
    #[case("Public")]
    #[case("http://relay.example")]
    #[case("relay.example")]
    #[case("https://")]
    #[case("https://relay.example/path")]
    fn what_is_no_relay_is_refused(#[case] text: &str) {
        assert!(text.parse::<Relay>().is_err());
    }

    #[test]
    fn certificates() {
        let sum = "0f".repeat(32);
        let colons = vec!["0F"; 32].join(":");
        for text in [sum.clone(), colons, format!("sha256:{sum}")] {
            assert_eq!(text.parse::<RelayCertificate>().unwrap().to_string(), sum);
        }
        assert_eq!("/etc/relay.pem".parse(), Ok(RelayCertificate::File("/etc/relay.pem".into())));
        assert!("relay.pem".parse::<RelayCertificate>().is_err());
    }
}
