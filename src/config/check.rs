//! What can be wrong between settings each of which is right by itself.

use std::collections::BTreeMap;

use super::address::Address;
use super::device::Relay;
use super::name::Name;
use super::schedule::ScheduleSettings;
use super::schema::{Config, PeerSettings};

/// Something wrong, and the key that it is about: the tables around it first, numbers in lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}`: {message}", keys.join("."))]
pub struct Flaw {
    /// The key.
    pub keys: Vec<String>,
    /// What is wrong.
    pub message: String,
}

impl Flaw {
    fn new(keys: &[&str], message: impl Into<String>) -> Self {
        Self { keys: keys.iter().map(|&key| key.to_owned()).collect(), message: message.into() }
    }

    /// The same, seen from further out.
    fn within(mut self, keys: &[&str]) -> Self {
        self.keys.splice(0..0, keys.iter().map(|&key| key.to_owned()));
        self
    }
}

impl Config {
    /// The first thing that is wrong between settings.
    pub(super) fn flaw(&self) -> Option<Flaw> {
        let device = &self.device;
        if device.relay_certificate.is_some() && !matches!(device.relay, Some(Relay::Own(_))) {
            return Some(Flaw::new(&["device", "relay_certificate"], "it needs a `relay` of your own"));
        }
        if let Some(flaw) = self.exchange.schedule.flaw() {
            return Some(flaw.within(&["exchange"]));
        }
        let mut owners = BTreeMap::new();
        for (name, peer) in &self.peers {
            let flaw = peer.flaw().or_else(|| self.unknown_folder(peer));
            if let Some(flaw) = flaw {
                return Some(flaw.within(&["peer", name.as_str()]));
            }
            // The key decides who may do what: it must not be a matter of order.
            if let Some(other) = peer.key().and_then(|key| owners.insert(*key, name)) {
                let key = if peer.key.is_some() { "key" } else { "address" };
                return Some(Flaw::new(&["peer", name.as_str(), key], format!("peer `{other}` has this device key")));
            }
        }
        None
    }

    fn unknown_folder(&self, peer: &PeerSettings) -> Option<Flaw> {
        let (at, folder) = peer.folders.iter().enumerate().find(|(_, folder)| !self.folders.contains_key(*folder))?;
        Some(Flaw::new(&["folders", &at.to_string()], no_folder(folder)))
    }
}

fn no_folder(folder: &Name) -> String {
    format!("no folder is named `{folder}`")
}

impl PeerSettings {
    /// The first thing that is wrong between settings of the peer.
    pub fn flaw(&self) -> Option<Flaw> {
        if let (Some(key), Address::Device(device)) = (&self.key, &self.address)
            && *key != device.key
        {
            return Some(Flaw::new(&["key"], "the address has another key"));
        }
        if !self.addresses.is_empty() && self.key().is_none() {
            return Some(Flaw::new(&["addresses"], "they need the device's `key`, or an address with it"));
        }
        if let Some(folder) = self.directions.keys().find(|folder| !self.folders.contains(folder)) {
            return Some(Flaw::new(&["directions", folder.as_str()], format!("`{folder}` is none of its folders")));
        }
        self.schedule.flaw()
    }
}

impl ScheduleSettings {
    fn flaw(&self) -> Option<Flaw> {
        match (self.from, self.to) {
            (Some(_), None) => Some(Flaw::new(&["from"], "it needs `to`")),
            (None, Some(_)) => Some(Flaw::new(&["to"], "it needs `from`")),
            _ => None,
        }
    }
}
