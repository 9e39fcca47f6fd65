//! Where a device may be: addresses and names as people write them, and what they lead to.
//!
//! Text in, socket addresses out; the only I/O is the look-up of names by the operating system.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The UDP port of a device that names none.
pub const DEFAULT_PORT: u16 = 44996;

/// How long a name may be, in bytes.
const NAME_LIMIT: usize = 253;

/// An address with a port, or a name to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Address(SocketAddr),
    Name(String, u16),
}

impl Place {
    /// Reads `HOST[:PORT]`; IPv6 addresses with a port stand in brackets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self::Address(address));
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Some(Self::Address(SocketAddr::new(ip, DEFAULT_PORT)));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0)?),
            None => (text, DEFAULT_PORT),
        };
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
        let fits = !name.is_empty() && name.len() <= NAME_LIMIT && name.chars().all(allowed);
        fits.then(|| Self::Name(name.to_owned(), port))
    }

    /// The addresses that it stands for.
    pub(super) async fn resolve(self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Address(address) => Ok(vec![address]),
            Self::Name(name, port) => {
                let found: Vec<_> = tokio::net::lookup_host((name, port)).await?.collect();
                if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// Whether an address means nothing outside of one's own network.
pub(super) fn is_local(ip: IpAddr) -> bool {
    let unique_local = |ip: Ipv6Addr| ip.segments()[0] & 0xfe00 == 0xfc00;
    let link_local = |ip: Ipv6Addr| ip.segments()[0] & 0xffc0 == 0xfe80;
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || unique_local(ip) || link_local(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_with_and_without_a_port() {
        for (text, shown) in [
            ("192.168.1.5", "192.168.1.5:44996"),
            ("192.168.1.5:99", "192.168.1.5:99"),
            ("fe80::1", "[fe80::1]:44996"),
            ("[2001:db8::1]", "[2001:db8::1]:44996"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("nas.dyn.example", "nas.dyn.example:44996"),
            (" nas:1 ", "nas:1"),
        ] {
            assert_eq!(Place::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in ["", ":5", "nas:", "nas:0", "nas:70000", "a b", "http://x", "[::1", "x/y", &"n".repeat(254)] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_local_is_told_from_what_is_not() {
        for local in
            ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.1.1", "::1", "fe80::1", "fd00::1", "::ffff:10.0.0.1"]
        {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for far in ["8.8.8.8", "100.64.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!is_local(far.parse().unwrap()), "{far}");
        }
    }
}
