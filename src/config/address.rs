//! Where a peer is: a path, a folder that ssh leads to, or a device that is dialed by its key.

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::host::{HostError, HostPort, port};
use crate::id::DeviceId;

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum Address {
    /// A folder on this computer or on a mounted disk: an absolute path.
    Path(PathBuf),
    /// A folder on a host that ssh leads to.
    Ssh(SshAddress),
    /// A device that listens by itself.
    Device(DeviceAddress),
}

/// A folder on a host that ssh leads to: `ssh://[user@]host[:port]/path`, or `[user@]host:path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// Who to log in as; none: as ssh has it.
    pub user: Option<String>,
    /// The host, or an alias of ssh's; an IPv6 address has no brackets. Never begins with `-`.
    pub host: String,
    /// The port; none: as ssh has it.
    pub port: Option<u16>,
    /// The folder there; relative to the home directory if it does not begin with `/`.
    pub path: String,
}

/// A device that listens by itself: `foldersync://KEY[@HOST[:PORT]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceAddress {
    /// Its key.
    pub key: DeviceId,
    /// Where it may be found; none: wherever it is seen.
    pub host: Option<HostPort>,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It names a way of transport that this version does not have.
    #[error(
        "`{scheme}://` addresses are not supported by this version; an address is the path of a folder, \
         `ssh://[USER@]HOST[:PORT]/PATH`, `USER@HOST:PATH` or `foldersync://KEY[@HOST[:PORT]]`"
    )]
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
    /// Something in an address of ssh's.
    #[error("`{}` is not an address for ssh: {why}", text.escape_debug())]
    Ssh {
        /// The text.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The key in an address.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The host in an address.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A text is no device key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no device key: it takes the 64 digits that `foldersync id` prints there", .0.escape_debug())]
pub struct KeyError(String);

/// The device key in a text: hexadecimal, and a point on the curve, which a mistyped one often is not.
pub fn parse_key(text: &str) -> Result<DeviceId, KeyError> {
    let key: DeviceId = text.parse().map_err(|_| KeyError(text.to_owned()))?;
    match VerifyingKey::from_bytes(key.as_bytes()) {
        Ok(point) if !point.is_weak() => Ok(key),
        _ => Err(KeyError(text.to_owned())),
    }
}

/// The scheme of a device's address.
const DEVICE: &str = "foldersync";

impl Address {
    /// The way of transport that a text names, if it is not simply a path.
    pub fn scheme(text: &str) -> Option<&str> {
        let (scheme, _) = text.split_once("://")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(plain)).then_some(scheme)
    }

    /// Whether a text can only be a path: it names no way of transport, and has no colon before its first slash.
    pub fn is_path(text: &str) -> bool {
        let before = text.split('/').next().unwrap_or_default();
        Self::scheme(text).is_none() && !(before.contains(':') || before.starts_with('['))
    }

    /// The key of the device, where the address has it.
    pub const fn key(&self) -> Option<&DeviceId> {
        match self {
            Self::Device(device) => Some(&device.key),
            Self::Path(_) | Self::Ssh(_) => None,
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        match Self::scheme(&text) {
            Some("ssh") => SshAddress::from_url(&text).map(Self::Ssh),
            Some(DEVICE) => text[DEVICE.len() + 3..].parse().map(Self::Device),
            Some(scheme) => Err(AddressError::Scheme { scheme: scheme.to_owned() }),
            None if Path::new(&text).is_absolute() => Ok(Self::Path(text.into())),
            None if Self::is_path(&text) => Err(AddressError::Relative { text }),
            None => SshAddress::from_short(&text).map(Self::Ssh),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        text.to_owned().try_into()
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
            Self::Ssh(ssh) => ssh.fmt(f),
            Self::Device(device) => device.fmt(f),
        }
    }
}

impl SshAddress {
    fn from_url(text: &str) -> Result<Self, AddressError> {
        let wrong = |why| AddressError::Ssh { text: text.to_owned(), why };
        let rest = &text["ssh://".len()..];
        let slash = rest.find('/').ok_or_else(|| wrong("it names no folder"))?;
        let (who, path) = rest.split_at(slash);
        let path = decode(path).ok_or_else(|| wrong("`%` is not followed by two hexadecimal digits"))?;
        // As git has it: `/~/docs` lies in the home directory.
        let path = if path.starts_with("/~") { &path[1..] } else { &path };
        Self::new(who, path, true).map_err(wrong)
    }

    fn from_short(text: &str) -> Result<Self, AddressError> {
        let wrong = |why| AddressError::Ssh { text: text.to_owned(), why };
        let host = text.find('[').filter(|at| *at == 0 || text[..*at].ends_with('@'));
        let from = host.and_then(|at| text[at..].find(']').map(|end| at + end)).unwrap_or(0);
        let colon = text[from..].find(':').ok_or_else(|| wrong("it names no folder"))?;
        let (who, path) = text.split_at(from + colon);
        Self::new(who, &path[1..], false).map_err(wrong)
    }

    fn new(who: &str, path: &str, with_port: bool) -> Result<Self, &'static str> {
        let (user, host) = match who.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, who),
        };
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '@' | ':' | '/');
        if user.is_some_and(|user| user.is_empty() || user.starts_with('-') || user.contains(odd)) {
            return Err("its user is no name");
        }
        let HostPort { host, port } =
            host.parse().map_err(|_| "its host is no name or address, or its port no port")?;
        if port.is_some() && !with_port {
            return Err("a port stands in `ssh://HOST:PORT/PATH` only");
        }
        if path.contains(char::is_control) {
            return Err("its path has control characters");
        }
        let path = match path.strip_prefix('~') {
            Some("" | "/") => ".",
            Some(rest) => rest.strip_prefix('/').ok_or("the home directory of somebody is named by its path")?,
            None if path.is_empty() => ".",
            None => path,
        };
        if path.starts_with('-') {
            return Err("its path begins with `-`; put `./` before it");
        }
        Ok(Self { user: user.map(str::to_owned), host, port, path: path.to_owned() })
    }
}

/// Text with `%20` and the like replaced.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            let plain = digits.bytes().all(|c| c.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| plain)?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let host = HostPort { host: self.host.clone(), port: self.port };
        let path = self.path.replace('%', "%25");
        let lead = if path.starts_with('/') { "" } else { "/~/" };
        write!(f, "ssh://{user}{host}{lead}{path}")
    }
}

impl std::str::FromStr for DeviceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let (key, host) = match text.split_once('@') {
            Some((key, host)) => (key, Some(host.parse()?)),
            None => (text, None),
        };
        Ok(Self { key: parse_key(key)?, host })
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DEVICE}://{}", self.key)?;
        self.host.as_ref().map_or(Ok(()), |host| write!(f, "@{host}"))
    }
}

/// Reads the port of this device.
pub(super) fn read_port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let wrong = || serde::de::Error::custom(format!("`{number}` is no port: it takes a number from 1 to 65535"));
    port(&number.to_string()).map(Some).ok_or_else(wrong)
}

/// Reads a device key that may be there.
pub(super) fn read_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<DeviceId>, D::Error> {
    parse_key(&String::deserialize(deserializer)?).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    pub(crate) const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn ssh(user: &str, host: &str, port: Option<u16>, path: &str) -> Address {
        let user = (!user.is_empty()).then(|| user.to_owned());
        Address::Ssh(SshAddress { user, host: host.to_owned(), port, path: path.to_owned() })
    }

    #[rstest]
    #[case("/mnt/usb")]
    #[case("/odd://name")]
    #[case("/me@nas:docs")]
    fn an_absolute_path_is_a_path(#[case] text: &str) {
        assert_eq!(text.parse(), Ok(Address::Path(text.into())));
    }

    #[rstest]
    #[case("ssh://me@nas/srv/docs", ssh("me", "nas", None, "/srv/docs"), "ssh://me@nas/srv/docs")]
    #[case("ssh://nas:2222/srv/docs", ssh("", "nas", Some(2222), "/srv/docs"), "ssh://nas:2222/srv/docs")]
    #[case("ssh://nas/~/docs", ssh("", "nas", None, "docs"), "ssh://nas/~/docs")]
    #[case("ssh://nas/~", ssh("", "nas", None, "."), "ssh://nas/~/.")]
    #[case("ssh://me@[fd00::5]:22/srv", ssh("me", "fd00::5", Some(22), "/srv"), "ssh://me@[fd00::5]:22/srv")]
    #[case("ssh://nas/my%20docs%25", ssh("", "nas", None, "/my docs%"), "ssh://nas/my docs%25")]
    #[case("me@nas:docs", ssh("me", "nas", None, "docs"), "ssh://me@nas/~/docs")]
    #[case("nas:/srv/my docs", ssh("", "nas", None, "/srv/my docs"), "ssh://nas/srv/my docs")]
    #[case("nas:~/docs", ssh("", "nas", None, "docs"), "ssh://nas/~/docs")]
    #[case("nas:", ssh("", "nas", None, "."), "ssh://nas/~/.")]
    #[case("me@[fd00::5]:srv", ssh("me", "fd00::5", None, "srv"), "ssh://me@[fd00::5]/~/srv")]
    #[case("[fd00::5]:srv", ssh("", "fd00::5", None, "srv"), "ssh://[fd00::5]/~/srv")]
    #[case("nas:a:b", ssh("", "nas", None, "a:b"), "ssh://nas/~/a:b")]
    fn addresses_for_ssh(#[case] text: &str, #[case] address: Address, #[case] printed: &str) {
        assert_eq!(text.parse(), Ok(address.clone()));
        assert_eq!(address.to_string(), printed);
        assert_eq!(printed.parse(), Ok(address));
    }

    #[rstest]
    #[case("ssh://nas", "it names no folder")]
    #[case("ssh:///srv", "its host is no name or address, or its port no port")]
    #[case("ssh://-oProxyCommand=id/srv", "its host is no name or address, or its port no port")]
    #[case("-oProxyCommand:srv", "its host is no name or address, or its port no port")]
    #[case("ssh://-l@nas/srv", "its user is no name")]
    #[case("ssh://@nas/srv", "its user is no name")]
    #[case("ssh://me:secret@nas/srv", "its user is no name")]
    #[case("ssh://nas:0/srv", "its host is no name or address, or its port no port")]
    #[case("ssh://nas:ssh/srv", "its host is no name or address, or its port no port")]
    #[case("ssh://nas/a%0ab", "its path has control characters")]
    #[case("ssh://nas/a%zz", "`%` is not followed by two hexadecimal digits")]
    #[case("nas:~bob/docs", "the home directory of somebody is named by its path")]
    #[case("nas:--home=x", "its path begins with `-`; put `./` before it")]
    fn what_ssh_would_misread_is_refused(#[case] text: &str, #[case] expected: &str) {
        match text.parse::<Address>() {
            Err(AddressError::Ssh { why, .. }) => assert_eq!(why, expected),
            other => panic!("{other:?}"),
        }
    }

    #[rstest]
    #[case("", None)]
    #[case("@nas.example", Some(("nas.example", None)))]
    #[case("@192.168.1.5:44996", Some(("192.168.1.5", Some(44996))))]
    #[case("@[fd00::5]:1", Some(("fd00::5", Some(1))))]
    fn devices(#[case] after: &str, #[case] host: Option<(&str, Option<u16>)>) {
        let text = format!("foldersync://{KEY}{after}");
        let host = host.map(|(host, port)| HostPort { host: host.to_owned(), port });
        let address = Address::Device(DeviceAddress { key: KEY.parse().unwrap(), host });
        assert_eq!(text.parse(), Ok(address.clone()));
        assert_eq!(address.to_string(), text);
        assert_eq!(address.key().unwrap().to_string(), KEY);
    }

    #[test]
    fn a_key_that_is_mistyped_is_refused() {
        for key in [String::new(), KEY[1..].to_owned(), KEY.replace('d', "x"), "0".repeat(64), format!("{KEY}00")] {
            assert!(matches!(format!("foldersync://{key}").parse::<Address>(), Err(AddressError::Key(_))), "{key}");
        }
        assert!(matches!(format!("foldersync://{KEY}@nas:0").parse::<Address>(), Err(AddressError::Host(_))));
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        assert_eq!("mnt/usb".parse::<Address>(), Err(AddressError::Relative { text: "mnt/usb".to_owned() }));
        assert_eq!("./a:b".parse::<Address>(), Err(AddressError::Relative { text: "./a:b".to_owned() }));
        assert_eq!("s3://bucket".parse::<Address>(), Err(AddressError::Scheme { scheme: "s3".to_owned() }));
        assert!(Address::is_path("a/b:c") && Address::is_path("docs") && !Address::is_path("a:b/c"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_printed_so_that_it_is_read_again(
            text in r"(ssh://|foldersync://)?[-\[\]a-z0-9:.@/~% ]{0,24}",
        ) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
