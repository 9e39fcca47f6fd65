//! Hosts and ports as people write them: `nas.example`, `192.168.1.5:44996`, `[fd00::5]:44996`, `fd00::5`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A host, with a port where it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port; none: the usual one.
    pub port: Option<u16>,
}

/// A text is no host with or without a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no host: it takes a name, an IPv4 address or an IPv6 address in brackets, and `:PORT` behind it if need be", .0.escape_debug())]
pub struct HostError(String);

/// Whether a text is the name of a host, or the alias of one, that no program takes for an option.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=253).contains(&text.len())
        && text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
        && text.chars().all(plain)
}

/// A port, from 1.
pub(super) fn port(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

impl std::str::FromStr for HostPort {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let parse = || {
            let (host, after) = match text.strip_prefix('[') {
                Some(inner) => {
                    let (host, after) = inner.split_once(']')?;
                    host.parse::<Ipv6Addr>().ok()?;
                    (host, after)
                }
                None if text.parse::<Ipv6Addr>().is_ok() => (text, ""),
                None => {
                    let (host, after) = text.split_at(text.find(':').unwrap_or(text.len()));
                    // What has digits and points only is an address, and may be a wrong one.
                    let digits = host.bytes().all(|c| c.is_ascii_digit() || c == b'.');
                    if !is_name(host) || (digits && host.parse::<Ipv4Addr>().is_err()) {
                        return None;
                    }
                    (host, after)
                }
            };
            let port = match after {
                "" => None,
                _ => Some(port(after.strip_prefix(':')?)?),
            };
            Some(Self { host: host.to_owned(), port })
        };
        parse().ok_or_else(|| HostError(text.to_owned()))
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(host: HostPort) -> Self {
        host.to_string()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("nas", "nas", None)]
    #[case("nas.dyn.example:44996", "nas.dyn.example", Some(44996))]
    #[case("192.168.1.5", "192.168.1.5", None)]
    #[case("192.168.1.5:1", "192.168.1.5", Some(1))]
    #[case("[fd00::5]:65535", "fd00::5", Some(65535))]
    #[case("[fd00::5]", "fd00::5", None)]
    fn reads_and_prints(#[case] text: &str, #[case] host: &str, #[case] port: Option<u16>) {
        let parsed: HostPort = text.parse().unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port), (host, port));
        assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn brackets_may_be_left_out_where_there_is_no_port() {
        assert_eq!("fd00::5".parse::<HostPort>().unwrap().to_string(), "[fd00::5]");
    }

    #[rstest]
    #[case("")]
    #[case(":1")]
    #[case("nas:")]
    #[case("nas:0")]
    #[case("nas:65536")]
    #[case("nas:+80")]
    #[case("-oProxyCommand=x")]
    #[case("a b")]
    #[case("a/b")]
    #[case("me@nas")]
    #[case("300.1.1.1")]
    #[case("1.2.3")]
    #[case("[nas]")]
    #[case("[fd00::5")]
    #[case("[fd00::5]1")]
    fn refuses(#[case] text: &str) {
        assert!(text.parse::<HostPort>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_printed_so_that_it_is_read_again(text in r"[\[\]a-z0-9:.-]{0,20}") {
            if let Ok(host) = text.parse::<HostPort>() {
                prop_assert_eq!(host.to_string().parse(), Ok(host));
            }
        }
    }
}
