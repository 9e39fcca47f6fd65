//! What is remembered from one run to the next: where peers were last found.
//!
//! A file in the home's `state` folder, replaced whole. Only a memory aid: without it, peers are looked for at their
//! configured addresses and in the local network.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::config::{Home, Name, PeerSettings};
use crate::transport::network::{Hints, LinkPath, PathKind};

/// The file in `state`.
const FILE: &str = "addresses.json";
/// How many addresses of one peer are kept.
const KEPT: usize = 4;

type Addresses = BTreeMap<Name, Vec<String>>;

fn load(home: &Home) -> Addresses {
    let bytes = home.read_state(FILE).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Where this peer may be: as it is configured, and where it was, the latest first.
pub(super) fn hints(home: &Home, peer: &Name, settings: &PeerSettings, relay: Option<String>) -> Hints {
    let mut addresses: Vec<String> = settings.hosts().map(ToString::to_string).collect();
    for last in load(home).remove(peer).unwrap_or_default() {
        if !addresses.contains(&last) {
            addresses.push(last);
        }
    }
    Hints { addresses, relay, relay_certificate: None }
}

/// Remembers that this peer was there, if the way leads straight to it.
pub(super) fn remember(home: &Home, peer: &Name, path: &LinkPath) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if !matches!(path.kind, PathKind::Direct | PathKind::Local) {
        return;
    }
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = load(home);
    let known = all.entry(peer.clone()).or_default();
    if known.first() == Some(&path.remote) {
        return;
    }
    known.retain(|known| *known != path.remote);
    known.insert(0, path.remote.clone());
    known.truncate(KEPT);
    let text = serde_json::to_vec_pretty(&all).expect("names and addresses are valid JSON");
    if let Err(error) = home.write_state(FILE, &text) {
        tracing::debug!("addresses are not remembered: {error}");
    }
}
