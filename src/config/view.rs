//! What holds for one peer when its own settings and those for all are put together.

use jiff::Zoned;

use super::name::Name;
use super::pause::Pause;
use super::rate::Rates;
use super::schedule::Schedule;
use super::schema::{Config, Direction, PeerSettings};
use crate::clock::Timestamp;
use crate::guard::Guards;
use crate::id::DeviceId;

/// Whether a peer is to be exchanged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is.
    Now,
    /// It is not yet, but at this time; `None`: never, by its schedule.
    Later(Option<Timestamp>),
    /// It is not, until it is resumed, or until its pause is over.
    Paused(Pause),
}

impl Config {
    /// When a peer is exchanged with; what it sets itself wins over what is set for all.
    pub fn schedule_of(&self, peer: &Name) -> Schedule {
        let own = self.peers.get(peer).map(|peer| peer.schedule);
        own.unwrap_or_default().over(&self.exchange.schedule)
    }

    /// How fast bytes may go to and from a peer at this moment. Those of [`Self::rates_in_all`] hold as well.
    pub fn rates_of(&self, peer: &Name, now: &Zoned) -> Rates {
        self.peers.get(peer).map(|peer| peer.rates.at(now)).unwrap_or_default()
    }

    /// How fast bytes may go at this moment to and from all peers together.
    pub fn rates_in_all(&self, now: &Zoned) -> Rates {
        self.exchange.rates.at(now)
    }

    /// When next one of the limits may change; `None`: never.
    pub fn next_rate_change(&self, now: &Zoned) -> Option<Zoned> {
        let peers = self.peers.values().map(|peer| &peer.rates);
        peers.chain([&self.exchange.rates]).filter_map(|rates| rates.next_change(now)).min()
    }

    /// Which way revisions of a folder go between this side and a peer; `None` where they do not at all.
    pub fn direction_of(&self, peer: &Name, folder: &Name) -> Option<Direction> {
        let peer = self.peers.get(peer)?;
        peer.folders.contains(folder).then(|| peer.direction_of(folder))
    }

    /// Whether a peer is to be exchanged with, when the last exchange was at `last`. A folder's own pause is not heeded.
    pub fn is_due(&self, peer: &Name, last: Option<Timestamp>, now: &Zoned) -> Due {
        let paused = self.peers.get(peer).map(|peer| peer.paused).unwrap_or_default();
        match paused.at(now.timestamp().into()) {
            Pause::No => {}
            pause => return Due::Paused(pause),
        }
        let schedule = self.schedule_of(peer);
        if schedule.is_due(last, now) {
            return Due::Now;
        }
        Due::Later(schedule.next_due(last, now).map(|time| time.timestamp().into()))
    }

    /// What is left at this moment of a folder's pause.
    pub fn pause_of(&self, folder: &Name, now: Timestamp) -> Pause {
        self.folders.get(folder).map(|folder| folder.paused.at(now)).unwrap_or_default()
    }

    /// What a folder is guarded against; what is set for itself wins over what is set for the device.
    pub fn guards_of(&self, folder: Option<&Name>) -> Guards {
        let own = folder.and_then(|folder| self.folders.get(folder));
        Guards {
            brake: own.and_then(|own| own.brake).or(self.device.brake).unwrap_or_default(),
            free_space: own.and_then(|own| own.free_space).or(self.device.free_space).unwrap_or_default(),
        }
    }

    /// The peer that has this device key.
    pub fn peer_with_key(&self, key: &DeviceId) -> Option<(&Name, &PeerSettings)> {
        self.peers.iter().find(|(_, peer)| peer.key() == Some(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn config(text: &str) -> Config {
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.flaw(), None);
        config
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// 2026-11-20, a Friday.
    fn at(time: &str) -> Zoned {
        format!("2026-11-20T{time}").parse::<jiff::civil::DateTime>().unwrap().to_zoned(TimeZone::UTC).unwrap()
    }

    fn stamp(time: &str) -> Timestamp {
        at(time).timestamp().into()
    }

    const TEXT: &str = r#"
        [exchange]
        every = "10m"
        from = "22:00"
        to = "06:00"
        upload = "2MB/s"
        limits = [{ from = "08:00", to = "18:00", upload = "200kB/s" }]
        [folder.docs]
        path = "/docs"
        [device]
        brake = "30%"
        [folder.photos]
        path = "/photos"
        brake = "off"
        free_space = "2GiB"
        paused = "2026-11-20T12:00:00Z"
        [peer.nas]
        address = "/nas"
        folders = ["docs", "photos"]
        direction = "receive"
        directions = { docs = "send" }
        download = "1MB/s"
        [peer.live]
        address = "me@live:docs"
        folders = ["docs"]
        every = "0s"
        from = "00:00"
        to = "24:00"
        paused = "2026-11-20T12:00:00Z"
        [peer.off]
        address = "/off"
        folders = []
        paused = true
    "#;

    #[test]
    fn a_peer_is_due_by_its_own_schedule_over_that_of_all() {
        let config = config(TEXT);
        let due = |peer: &str, last: Option<&str>, now: &str| config.is_due(&name(peer), last.map(stamp), &at(now));
        assert_eq!(due("nas", None, "23:00"), Due::Now);
        assert_eq!(due("nas", None, "13:00"), Due::Later(Some(stamp("22:00"))));
        assert_eq!(due("nas", Some("22:55"), "23:00"), Due::Later(Some(stamp("23:05"))));
        assert_eq!(due("live", Some("13:00"), "13:00"), Due::Now);
        assert_eq!(due("live", None, "11:00"), Due::Paused(Pause::Until(stamp("12:00"))));
        assert_eq!(due("off", None, "23:00"), Due::Paused(Pause::Forever));
        assert_eq!(config.schedule_of(&name("nas")).to_string(), "every 10m, 22:00-06:00");
        assert_eq!(config.pause_of(&name("photos"), stamp("11:59")), Pause::Until(stamp("12:00")));
        assert_eq!(config.pause_of(&name("photos"), stamp("12:00")), Pause::No);
        assert_eq!(config.pause_of(&name("docs"), stamp("11:59")), Pause::No);
    }

    #[test]
    fn limits_of_all_and_of_a_peer_stand_side_by_side() {
        let config = config(TEXT);
        let told = |rates: Rates| format!("{} {}", rates.upload, rates.download);
        assert_eq!(told(config.rates_in_all(&at("07:00"))), "2MB/s unlimited");
        assert_eq!(told(config.rates_in_all(&at("12:00"))), "200kB/s unlimited");
        assert_eq!(told(config.rates_of(&name("nas"), &at("12:00"))), "unlimited 1MB/s");
        assert_eq!(config.next_rate_change(&at("12:00")), Some(at("18:00")));
    }

    #[test]
    fn a_folder_is_guarded_by_its_own_settings_over_those_of_the_device() {
        let config = config(TEXT);
        let guards = |folder: Option<&str>| config.guards_of(folder.map(name).as_ref());
        let told = |guards: Guards| format!("{} {}", guards.brake, guards.free_space);
        assert_eq!(told(guards(Some("docs"))), "30% default");
        assert_eq!(told(guards(Some("photos"))), "off 2GiB");
        assert_eq!(told(guards(None)), "30% default");
        assert_eq!(Config::default().guards_of(None), Guards::default());
    }

    #[test]
    fn directions_are_per_folder() {
        let config = config(TEXT);
        let direction = |peer: &str, folder: &str| config.direction_of(&name(peer), &name(folder));
        assert_eq!(direction("nas", "docs"), Some(Direction::Send));
        assert_eq!(direction("nas", "photos"), Some(Direction::Receive));
        assert_eq!(direction("live", "docs"), Some(Direction::Both));
        assert_eq!(direction("live", "photos"), None);
        assert_eq!(direction("nobody", "docs"), None);
    }
}
