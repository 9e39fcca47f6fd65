//! Tickets: what one device tells another, by way of a person, so that they can pair.
//!
//! Text of the kind that iroh has: `foldersync` and base32, in either case. In it, in this order: version 1, the
//! secret, the device's key, the folder's name, the addresses, the relay, the hash of the relay's certificate, and a
//! CRC-32 of all that against typing errors. A ticket lets whoever has it pair once: it is not printed by accident.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use iroh_tickets::{ParseError, Ticket as _};

use crate::id::DeviceId;

/// The version that is written.
const VERSION: u8 = 1;
/// How many characters a ticket may have.
const TEXT_LIMIT: usize = 4096;
/// How many addresses a ticket has at most.
pub const TICKET_ADDRESSES: usize = 8;
/// How many bytes the folder's name has at most.
pub const TICKET_FOLDER: usize = 64;
/// How many bytes an address or a relay has at most.
const PLACE_LIMIT: usize = 255;

/// What is in front of an address: how it is written.
const AS_TEXT: u8 = 0;
const AS_V4: u8 = 4;
const AS_V6: u8 = 6;

/// A ticket.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The secret that is good for one pairing.
    pub secret: [u8; 16],
    /// The device that shares.
    pub device: DeviceId,
    /// What the folder is called there, for people.
    pub folder: String,
    /// Where the device may be: `HOST[:PORT]`.
    pub addresses: Vec<String>,
    /// The relay that it is reached through.
    pub relay: Option<String>,
    /// The SHA-256 of that relay's certificate, when it is pinned.
    pub relay_certificate: Option<[u8; 32]>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("device", &self.device)
            .field("folder", &self.folder)
            .field("addresses", &self.addresses)
            .field("relay", &self.relay)
            .finish_non_exhaustive()
    }
}

/// A text that is no ticket. It does not repeat the text, which may hold the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a ticket: {problem}")]
pub struct TicketError {
    problem: &'static str,
}

impl Ticket {
    /// The ticket as text, the secret included. What does not fit (addresses beyond the eighth, what is longer than
    /// it may be) is left out.
    pub fn to_text(&self) -> String {
        self.encode_string()
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > TEXT_LIMIT {
            return Err(TicketError { problem: "it is too long" });
        }
        Self::decode_string(&text.to_ascii_lowercase()).map_err(|error| TicketError {
            problem: match error {
                ParseError::Kind { .. } => "it does not begin with `foldersync`",
                ParseError::Verify { message, .. } => message,
                _ => "a part of it is missing or mistyped",
            },
        })
    }
}

impl iroh_tickets::Ticket for Ticket {
    const KIND: &'static str = "foldersync";

    fn encode_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.secret);
        bytes.extend(self.device.as_bytes());
        let end = (0..=TICKET_FOLDER).rev().find(|&end| self.folder.is_char_boundary(end.min(self.folder.len())));
        put_text(&mut bytes, &self.folder[..end.unwrap_or(0).min(self.folder.len())]);
        let fitting = self.addresses.iter().filter(|address| fits(address)).take(TICKET_ADDRESSES);
        let at = bytes.len();
        bytes.push(0);
        for address in fitting {
            bytes[at] += 1;
            put_address(&mut bytes, address);
        }
        put_text(&mut bytes, self.relay.as_deref().filter(|relay| fits(relay)).unwrap_or(""));
        bytes.push(self.relay_certificate.is_some().into());
        bytes.extend(self.relay_certificate.iter().flatten());
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_be_bytes());
        bytes
    }

    fn decode_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        decode(bytes).map_err(ParseError::verification_failed)
    }
}

fn fits(place: &str) -> bool {
    !place.is_empty() && place.len() <= PLACE_LIMIT
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).expect("it was cut to fit"));
    bytes.extend(text.as_bytes());
}

/// Addresses in few bytes, where that gives back the very text; names as they are.
fn put_address(bytes: &mut Vec<u8>, text: &str) {
    match text.parse::<SocketAddr>().ok().filter(|address| address.to_string() == text) {
        Some(SocketAddr::V4(address)) => {
            bytes.push(AS_V4);
            bytes.extend(address.ip().octets());
            bytes.extend(address.port().to_be_bytes());
        }
        Some(SocketAddr::V6(address)) if address.scope_id() == 0 => {
            bytes.push(AS_V6);
            bytes.extend(address.ip().octets());
            bytes.extend(address.port().to_be_bytes());
        }
        _ => {
            bytes.push(AS_TEXT);
            put_text(bytes, text);
        }
    }
}

/// What is left to be read.
struct Rest<'a>(&'a [u8]);

const CUT: &str = "a part of it is missing";

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| CUT)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        self.array().map(|[byte]| byte)
    }

    /// A text of so many bytes at most, without control characters.
    fn text(&mut self, limit: usize) -> Result<&'a str, &'static str> {
        let length = usize::from(self.byte()?);
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a name in it is no text")?;
        let plain = length <= limit && !text.contains(char::is_control);
        if plain { Ok(text) } else { Err("a name in it is none") }
    }

    fn address(&mut self) -> Result<String, &'static str> {
        let kind = self.byte()?;
        Ok(match kind {
            AS_TEXT => Some(self.text(PLACE_LIMIT)?.to_owned())
                .filter(|text| !text.is_empty())
                .ok_or("an address in it is none")?,
            AS_V4 => SocketAddr::from((self.array::<4>()?, u16::from_be_bytes(self.array()?))).to_string(),
            AS_V6 => SocketAddr::from((self.array::<16>()?, u16::from_be_bytes(self.array()?))).to_string(),
            _ => return Err("an address in it is none"),
        })
    }
}

fn decode(bytes: &[u8]) -> Result<Ticket, &'static str> {
    let (bytes, sum) = bytes.split_last_chunk::<4>().ok_or(CUT)?;
    if crc32fast::hash(bytes).to_be_bytes() != *sum {
        return Err("a part of it is missing or mistyped");
    }
    let mut rest = Rest(bytes);
    if rest.byte()? != VERSION {
        return Err("it is of a later version of foldersync");
    }
    let secret = rest.array()?;
    let device = DeviceId::from_bytes(rest.array()?);
    let folder = rest.text(TICKET_FOLDER)?.to_owned();
    let count = usize::from(rest.byte()?);
    if count > TICKET_ADDRESSES {
        return Err("it has too many addresses");
    }
    let addresses = (0..count).map(|_| rest.address()).collect::<Result<_, _>>()?;
    let relay = Some(rest.text(PLACE_LIMIT)?.to_owned()).filter(|relay| !relay.is_empty());
    let relay_certificate = match rest.byte()? {
        0 => None,
        1 => Some(rest.array()?),
        _ => return Err("the certificate in it is none"),
    };
    if !rest.0.is_empty() {
        return Err("there is more in it than there should be");
    }
    Ok(Ticket { secret, device, folder, addresses, relay, relay_certificate })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Ticket {
        Ticket {
            secret: [0xa5; 16],
            device: DeviceId::from_bytes([7; 32]),
            folder: "docs".to_owned(),
            addresses: ["192.168.1.5:44996", "[2001:db8::1]:44996", "nas.dyn.example"].map(str::to_owned).to_vec(),
            relay: Some("https://relay.example:3340/".to_owned()),
            relay_certificate: Some([9; 32]),
        }
    }

    #[test]
    fn a_ticket_is_what_it_was() {
        let text = sample().to_text();
        assert!(text.starts_with("foldersync") && text.bytes().all(|c| c.is_ascii_alphanumeric()), "{text}");
        assert_eq!(text.parse(), Ok(sample()));
        // As a QR code has it, and with what comes along when it is copied.
        assert_eq!(format!(" {}\n", text.to_ascii_uppercase()).parse(), Ok(sample()));
    }

    #[test]
    fn every_byte_counts() {
        let text = sample().to_text();
        for at in 10..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            assert!(String::from_utf8(wrong).unwrap().parse::<Ticket>().is_err(), "{at}");
            assert!(text[..at].parse::<Ticket>().is_err(), "{at}");
        }
        let error = "iroh".parse::<Ticket>().unwrap_err();
        assert_eq!(error.to_string(), "this is not a ticket: it does not begin with `foldersync`");
        let long = format!("{text}{}", "a".repeat(TEXT_LIMIT));
        assert_eq!(long.parse::<Ticket>().unwrap_err().problem, "it is too long");
    }

    #[test]
    fn a_later_version_is_told_from_a_typing_error() {
        let mut bytes = sample().encode_bytes();
        bytes[0] = 2;
        let end = bytes.len() - 4;
        let sum = crc32fast::hash(&bytes[..end]);
        bytes.splice(end.., sum.to_be_bytes());
        assert_eq!(decode(&bytes).unwrap_err(), "it is of a later version of foldersync");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut ticket = sample();
        ticket.folder = "ö".repeat(100);
        ticket.addresses = (0..20).map(|n| format!("host{n}")).chain(["x".repeat(300)]).collect();
        ticket.relay = Some("x".repeat(300));
        let read: Ticket = ticket.to_text().parse().unwrap();
        assert_eq!(read.folder, "ö".repeat(32));
        assert_eq!(read.addresses, ticket.addresses[..8]);
        assert_eq!(read.relay, None);
    }

    #[test]
    fn the_secret_is_not_printed() {
        let shown = format!("{:?}", sample());
        assert!(!shown.contains("165") && !shown.contains("a5a5") && !shown.contains("secret"), "{shown}");
    }

    prop_compose! {
        fn tickets()(
            secret in any::<[u8; 16]>(),
            device in any::<[u8; 32]>(),
            folder in "[^\\p{Cc}]{0,16}",
            addresses in prop::collection::vec(prop_oneof![
                any::<SocketAddr>().prop_map(|address| address.to_string()),
                "[a-z.]{1,40}(:[0-9]{1,5})?",
            ], 0..=8),
            relay in prop::option::of("https://[a-z.]{1,40}"),
            relay_certificate in any::<Option<[u8; 32]>>(),
        ) -> Ticket {
            Ticket { secret, device: DeviceId::from_bytes(device), folder, addresses, relay, relay_certificate }
        }
    }

    proptest! {
        #[test]
        fn all_tickets_survive(ticket in tickets()) {
            prop_assert_eq!(ticket.to_text().parse::<Ticket>(), Ok(ticket));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in "\\PC*", bytes in any::<Vec<u8>>(), inner in any::<Vec<u8>>()) {
            drop(text.parse::<Ticket>());
            drop(format!("foldersync{text}").parse::<Ticket>());
            prop_assert!(decode(&bytes).is_err());
            // With a sum that is right.
            let mut summed = inner;
            let sum = crc32fast::hash(&summed);
            summed.extend(sum.to_be_bytes());
            drop(decode(&summed));
        }
    }
}
