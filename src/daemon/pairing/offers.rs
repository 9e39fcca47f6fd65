//! The tickets that this device has given out, as far as it keeps them: never their secrets, only hashes.
//!
//! `state/offers.json` in the home, for its owner alone, replaced whole. An offer is there, durably, before its ticket
//! is shown, and is burnt, durably, before who came with it is answered. One that is over is kept for an hour more, so
//! that who comes late can be told why he is refused.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::{Home, Name};
use crate::id::{DeviceId, FolderId};
use crate::protocol::pairing::{self, Accepted, Grant, PairingError, Proof, Secret, SecretHash};

/// The file in the home's `state`.
const FILE: &str = "offers.json";
/// The version of its content.
const VERSION: u32 = 1;
/// How many offers there may be.
const MOST: usize = 64;
/// How long one that is over is remembered, in seconds.
const REMEMBERED: i64 = 3600;
/// So many wrong proofs in so long a time, and no stranger is heard for the rest of it.
const WRONG: usize = 5;
const WRONG_IN: Duration = Duration::from_mins(1);

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    offers: Vec<Kept>,
}

/// An offer as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    number: u64,
    /// Hexadecimal.
    secret_hash: String,
    expires: Timestamp,
    folder: Name,
    folder_id: FolderId,
    grant: Right,
    used: bool,
    /// What came of it, for who waits.
    #[serde(skip)]
    end: Option<End>,
}

/// What a joiner may do, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::daemon) enum Right {
    /// Send and receive.
    Both,
    /// Receive only.
    Read,
}

impl Right {
    const fn grant(self) -> Grant {
        match self {
            Self::Both => Grant::Both,
            Self::Read => Grant::Receive,
        }
    }
}

/// What came of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum End {
    /// A device has joined: its peer's name here, what it calls itself, its key.
    Joined(Name, String, DeviceId),
    /// Somebody came with it, and failed.
    Failed(String),
}

/// How it stands with an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum Standing {
    /// Nobody has come so far, or is just being heard.
    Open,
    /// It has come to an end.
    Ended(Name, End),
    /// It is over, and nobody has come; or there is none.
    Over,
}

/// An offer that was taken up.
pub(super) struct TakenUp {
    pub(super) number: u64,
    pub(super) folder: Name,
    pub(super) accepted: Accepted,
}

#[derive(Default)]
struct State {
    offers: Vec<Kept>,
    /// When the last wrong proofs were shown, the latest last.
    wrong: Vec<Instant>,
}

/// The offers.
pub(in crate::daemon) struct Offers {
    home: Home,
    state: Mutex<State>,
    changed: Condvar,
}

impl Kept {
    fn offer(&self) -> Option<pairing::Offer> {
        let bytes = bytes_of(&self.secret_hash)?;
        Some(pairing::Offer {
            secret: SecretHash::from_bytes(bytes),
            expires: self.expires,
            folder: self.folder_id,
            folder_name: self.folder.to_string(),
            grant: self.grant.grant(),
            used: self.used,
        })
    }

    fn is_remembered(&self, now: Timestamp) -> bool {
        now < Timestamp::new(self.expires.secs.saturating_add(REMEMBERED), self.expires.nanos)
    }
}

// 32 bytes in hexadecimal, as the key of a device is written.

fn hex(bytes: [u8; 32]) -> String {
    DeviceId::from_bytes(bytes).to_string()
}

fn bytes_of(hex: &str) -> Option<[u8; 32]> {
    hex.parse::<DeviceId>().ok().map(|id| *id.as_bytes())
}

impl Offers {
    /// Those that were kept. What cannot be read counts as none: tickets can be made anew.
    pub(in crate::daemon) fn load(home: Home) -> Self {
        let read = home.read_state(FILE).map(|bytes| bytes.map(|bytes| serde_json::from_slice::<Document>(&bytes)));
        let offers = match read {
            Ok(None) => Vec::new(),
            Ok(Some(Ok(Document { version: VERSION, offers }))) => offers,
            Ok(Some(_)) => {
                tracing::warn!("the tickets in state/{FILE} cannot be read, and do not serve any more");
                Vec::new()
            }
            Err(error) => {
                tracing::warn!("the tickets do not serve any more: {error}");
                Vec::new()
            }
        };
        let state = State { offers, wrong: Vec::new() };
        Self { home, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether strangers are heard: while there is an offer, or was one not long ago.
    pub(in crate::daemon) fn hear_strangers(&self, now: Timestamp) -> bool {
        let state = self.lock();
        let wrong = state.wrong.iter().filter(|at| at.elapsed() < WRONG_IN).count();
        wrong < WRONG && state.offers.iter().any(|offer| offer.is_remembered(now))
    }

    fn save(&self, offers: &[Kept]) -> Result<(), String> {
        let document = Document { version: VERSION, offers: offers.to_vec() };
        let content = serde_json::to_vec_pretty(&document).map_err(|error| error.to_string())?;
        self.home.write_state(FILE, &content).map_err(|error| error.to_string())
    }

    /// Makes an offer that lasts.
    pub(super) fn add(
        &self,
        now: Timestamp,
        secret: &Secret,
        expires: Timestamp,
        (folder, folder_id): (Name, FolderId),
        grant: Right,
    ) -> Result<u64, String> {
        let mut state = self.lock();
        let mut offers: Vec<Kept> = state.offers.iter().filter(|offer| offer.is_remembered(now)).cloned().collect();
        if offers.len() >= MOST {
            return Err(format!("{MOST} tickets are on offer, and there may be no more; some must expire first"));
        }
        // So that a number of before this start never means another offer.
        let number = offers.iter().map(|offer| offer.number + 1).fold(now.secs.unsigned_abs() << 8, u64::max);
        let secret_hash = hex(*secret.hash().as_bytes());
        offers.push(Kept { number, secret_hash, expires, folder, folder_id, grant, used: false, end: None });
        self.save(&offers)?;
        state.offers = offers;
        Ok(number)
    }

    /// The offer that a proof is of, burnt durably. `Internal`: that could not be made durable.
    pub(super) fn take_up(&self, now: Timestamp, proof: &Proof) -> Result<TakenUp, PairingError> {
        let mut state = self.lock();
        let mut numbered: Vec<_> =
            state.offers.iter().enumerate().filter_map(|(at, kept)| Some((at, kept.offer()?))).collect();
        let accepted = match pairing::accept(numbered.iter_mut().map(|(_, offer)| offer), now, proof) {
            Ok(accepted) => accepted,
            Err(error) => {
                if error == PairingError::WrongSecret {
                    state.wrong.retain(|at| at.elapsed() < WRONG_IN);
                    state.wrong.push(Instant::now());
                }
                return Err(error);
            }
        };
        let burnt = numbered.iter().find(|(at, offer)| offer.used && !state.offers[*at].used).map(|(at, _)| *at);
        let at = burnt.ok_or(PairingError::Internal)?;
        state.offers[at].used = true;
        if let Err(error) = self.save(&state.offers) {
            tracing::error!("a ticket is refused, for that it was used cannot be written: {error}");
            return Err(PairingError::Internal);
        }
        let Kept { number, folder, .. } = state.offers[at].clone();
        Ok(TakenUp { number, folder, accepted })
    }

    /// What came of an offer that was taken up.
    pub(super) fn ended(&self, number: u64, end: End) {
        if let Some(offer) = self.lock().offers.iter_mut().find(|offer| offer.number == number) {
            offer.end = Some(end);
        }
        self.changed.notify_all();
    }

    /// How it stands with an offer; waits for its end, at most this long.
    pub(super) fn wait(&self, number: u64, now: Timestamp, limit: Duration) -> Standing {
        let find = |state: &State| state.offers.iter().find(|offer| offer.number == number).cloned();
        let waits = |state: &mut State| find(state).is_some_and(|offer| offer.end.is_none());
        let state = self.changed.wait_timeout_while(self.lock(), limit, waits);
        match find(&state.unwrap_or_else(PoisonError::into_inner).0) {
            Some(Kept { end: Some(end), folder, .. }) => Standing::Ended(folder, end),
            // Whoever came in time is being heard.
            Some(offer) if now < offer.expires || (offer.used && offer.is_remembered(now)) => Standing::Open,
            _ => Standing::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::pairing::{Channel, Event, Joiner, Sharer};
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: Timestamp = Timestamp::new(1_000_000, 0);

    fn at(secs: i64) -> Timestamp {
        Timestamp::new(NOW.secs + secs, 0)
    }

    fn proof(secret: u8) -> Proof {
        let channel =
            Channel { joiner: DeviceId::from_bytes([1; 32]), sharer: DeviceId::from_bytes([2; 32]), keying: [3; 32] };
        let mut joiner = Joiner::new(&Secret::new([secret; 16]), channel.clone(), "laptop".to_owned()).unwrap();
        let mut sharer = Sharer::new(channel);
        sharer.receive(&joiner.take_output()).unwrap();
        match sharer.next_event() {
            Some(Event::Knocked(proof)) => proof,
            other => panic!("{other:?}"),
        }
    }

    struct Place {
        _dir: tempfile::TempDir,
        home: Home,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        Place { _dir: dir, home }
    }

    /// An offer that holds for 100 s.
    fn add(offers: &Offers, secret: u8) -> u64 {
        let folder = (Name::new("docs").unwrap(), FolderId::from_bytes([4; 16]));
        offers.add(NOW, &Secret::new([secret; 16]), at(100), folder, Right::Read).unwrap()
    }

    #[test]
    fn an_offer_is_burnt_for_good_and_survives_a_restart() {
        let place = place();
        let offers = Offers::load(place.home.clone());
        assert!(!offers.hear_strangers(NOW));
        let number = add(&offers, 0xa5);
        assert!(offers.hear_strangers(NOW));
        let file = place.home.dir().join("state/offers.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&file).unwrap().contains("a5a5"));

        let offers = Offers::load(place.home.clone());
        let up = offers.take_up(at(99), &proof(0xa5)).unwrap();
        assert_eq!((up.number, up.folder.as_str(), up.accepted.grant()), (number, "docs", Grant::Receive));
        for offers in [offers, Offers::load(place.home.clone())] {
            assert_eq!(offers.take_up(at(99), &proof(0xa5)).err(), Some(PairingError::Used));
        }
    }

    #[test]
    fn who_comes_late_is_told_for_an_hour() {
        let place = place();
        let offers = Offers::load(place.home.clone());
        let number = add(&offers, 1);
        assert_eq!(offers.wait(number, at(99), Duration::ZERO), Standing::Open);
        assert_eq!(offers.wait(number, at(100), Duration::ZERO), Standing::Over);
        assert_eq!(offers.take_up(at(100), &proof(1)).err(), Some(PairingError::Expired));
        assert!(offers.hear_strangers(at(100 + REMEMBERED - 1)));
        assert!(!offers.hear_strangers(at(100 + REMEMBERED)));
    }

    #[test]
    fn an_offer_that_cannot_be_burnt_durably_is_refused() {
        let place = place();
        let offers = Offers::load(place.home.clone());
        add(&offers, 1);
        std::fs::remove_dir_all(place.home.dir()).unwrap();
        std::fs::write(place.home.dir(), "in the way").unwrap();
        assert_eq!(offers.take_up(NOW, &proof(1)).err(), Some(PairingError::Internal));
        assert_eq!(offers.take_up(NOW, &proof(1)).err(), Some(PairingError::Used));
    }

    #[test]
    fn who_guesses_is_not_heard_for_a_while_and_burns_nothing() {
        let place = place();
        let offers = Offers::load(place.home.clone());
        add(&offers, 1);
        for wrong in 0..WRONG {
            assert!(offers.hear_strangers(NOW), "{wrong}");
            assert_eq!(offers.take_up(NOW, &proof(9)).err(), Some(PairingError::WrongSecret));
        }
        assert!(!offers.hear_strangers(NOW));
        assert!(offers.take_up(NOW, &proof(1)).is_ok());
    }

    #[test]
    fn who_waits_hears_of_the_end() {
        let place = place();
        let offers = Offers::load(place.home.clone());
        let number = add(&offers, 1);
        let end = End::Failed("no".to_owned());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| offers.wait(number, NOW, Duration::from_mins(1)));
            offers.ended(number, end.clone());
            assert_eq!(waiting.join().unwrap(), Standing::Ended(Name::new("docs").unwrap(), end));
        });
        assert_eq!(offers.wait(number + 1, NOW, Duration::ZERO), Standing::Over);
    }

    #[test]
    fn a_file_that_cannot_be_read_offers_nothing() {
        let place = place();
        for content in ["", "{}", "{\"version\": 9, \"offers\": []}"] {
            place.home.write_state(FILE, content.as_bytes()).unwrap();
            assert!(!Offers::load(place.home.clone()).hear_strangers(NOW));
        }
    }
}
