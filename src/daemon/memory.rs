//! What the daemon remembers from one run to the next: where peers were last found.
//!
//! A file in the home's `state` folder, replaced whole. Only a memory aid: without it, peers are looked for at their
//! configured addresses and in the local network.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Name;

/// How many addresses of one peer are kept.
const KEPT: usize = 4;

type Addresses = BTreeMap<Name, Vec<String>>;

fn file(state: &Path) -> PathBuf {
    state.join("addresses.json")
}

fn load(state: &Path) -> Addresses {
    let bytes = std::fs::read(file(state)).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Where this peer was, as the folder `state` of the home has it, the latest first.
pub(super) fn addresses(state: &Path, peer: &Name) -> Vec<String> {
    load(state).remove(peer).unwrap_or_default()
}

/// Remembers that this peer was there.
pub(super) fn remember_address(state: &Path, peer: &Name, address: &str) {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut all = load(state);
    let known = all.entry(peer.clone()).or_default();
    if known.first().is_some_and(|first| first == address) {
        return;
    }
    known.retain(|known| known != address);
    known.insert(0, address.to_owned());
    known.truncate(KEPT);
    let write = || -> io::Result<()> {
        let path = file(state);
        std::fs::create_dir_all(state)?;
        let new = path.with_extension("json.new");
        std::fs::write(&new, serde_json::to_vec_pretty(&all).map_err(io::Error::other)?)?;
        std::fs::rename(&new, &path)
    };
    if let Err(error) = write() {
        tracing::debug!("addresses are not remembered: {error}");
    }
}
