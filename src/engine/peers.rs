//! What this copy of the folder remembers of the other copies.
//!
//! The last known revision of a peer is a ref (`refs/remotes/<peer>/main`), moved only after durable storage was
//! confirmed. What else is remembered (which copy a name stands for, when it was last seen) lies in a small file in our
//! private folder; without it an exchange works all the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::engine::report::PeerStatus;
use crate::id::{CommitId, DeviceId, ReplicaId};
use crate::store::durable;
use crate::store::tree;
use crate::store::{Expected, FolderLock, RefEdit, RefName, Wait};

/// What is remembered of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) replica: ReplicaId,
    pub(crate) device: DeviceId,
    pub(crate) device_name: String,
    pub(crate) last_seen: Timestamp,
}

pub(crate) type Peers = BTreeMap<String, Remembered>;

/// What the last line of the file begins with: the CRC-32 of what stands before it.
const SUM: &str = "# crc32 ";

/// What is remembered, by the bytes of the file; `None` if they are damaged. (Before 0.2 there was no last line.)
fn parse(bytes: &[u8]) -> Option<Peers> {
    let Some(at) = bytes.windows(SUM.len()).rposition(|part| part == SUM.as_bytes()) else {
        return serde_json::from_slice(bytes).ok();
    };
    let json = bytes[..at].strip_suffix(b"\n")?;
    let says = std::str::from_utf8(&bytes[at + SUM.len()..]).ok()?.strip_suffix('\n')?;
    let is_whole = says == format!("{:08x}", crc32fast::hash(json));
    serde_json::from_slice(json).ok().filter(|_| is_whole)
}

impl Folder {
    fn peers_file(&self) -> PathBuf {
        self.store.private_dir().join("peers.json")
    }

    /// What is remembered; nothing where the file is missing or cannot be read (it is only a memory aid).
    pub(crate) fn peers(&self) -> Peers {
        std::fs::read(self.peers_file()).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default()
    }

    /// The file of what is remembered, if it is damaged. Nothing needs it, and the next exchange writes it anew.
    pub(crate) fn damaged_peers_file(&self) -> Option<PathBuf> {
        let file = self.peers_file();
        std::fs::read(&file).is_ok_and(|bytes| parse(&bytes).is_none()).then_some(file)
    }

    /// Keeps two exchanges from remembering at once.
    fn lock_peers(&self) -> Result<FolderLock, EngineError> {
        Ok(FolderLock::acquire(&self.store.private_dir().join("peers.lock"), "exchange", Wait::Forever)?)
    }

    /// After a power cut it is the old file or the new one, never a part of it: without their names, peers that dial
    /// would be taken for others. Which of the two matters only where a name has changed.
    fn save_peers(&self, peers: &Peers, renamed: bool) -> Result<(), EngineError> {
        let file = self.peers_file();
        let mut bytes = serde_json::to_vec_pretty(peers).expect("names and ids are valid JSON");
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(format!("\n{SUM}{sum:08x}\n").as_bytes());
        // Always the same, so that what a kill leaves is used by the next.
        let temp = file.with_extension("json.new");
        let mut open = File::create(&temp).map_err(EngineError::io("write", &temp))?;
        durable::fill(&mut open, &temp, &bytes)?;
        durable::sync_file(&open, &temp)?;
        durable::rename(&temp, &file)?;
        if renamed {
            durable::sync_dir(&self.store.private_dir())?;
        }
        Ok(())
    }

    /// Remembers that a peer was seen.
    pub(crate) fn saw_peer(&self, name: &str, remembered: Remembered) -> Result<(), EngineError> {
        let _lock = self.lock_peers()?;
        let mut peers = self.peers();
        peers.insert(name.to_owned(), remembered);
        self.save_peers(&peers, false)
    }

    /// The name under which the copy `replica` is known here, or one to know it by: its device's name.
    pub(crate) fn name_for(&self, replica: ReplicaId, device_name: &str) -> String {
        let peers = self.peers();
        if let Some((name, _)) = peers.iter().find(|(_, peer)| peer.replica == replica) {
            return name.clone();
        }
        let plain: String = device_name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' })
            .take(60)
            .collect();
        let plain = if plain.is_empty() { "peer".to_owned() } else { plain };
        let names = std::iter::once(plain.clone()).chain((2..).map(|n| format!("{plain}-{n}")));
        names.into_iter().find(|name| !peers.contains_key(name)).expect("there is always a next number")
    }

    /// The last known revision of a peer.
    pub(crate) fn last_known(&self, peer: &str) -> Result<Option<CommitId>, EngineError> {
        Ok(self.store.refs().read(&RefName::peer(peer)?)?)
    }

    /// Whether this revision is part of the folder's history here.
    pub fn contains(&self, revision: CommitId) -> Result<bool, EngineError> {
        match self.head()? {
            Some(head) if self.store.objects().exists(&revision.into()) => {
                Ok(self.graph().is_ancestor(revision, head)?)
            }
            _ => Ok(false),
        }
    }

    /// Whether a peer is known to have this revision, which is here.
    pub fn peer_has(&self, peer: &str, revision: CommitId) -> Result<bool, EngineError> {
        match self.last_known(peer)? {
            Some(known) if known == revision => Ok(true),
            Some(known) if self.store.objects().exists(&known.into()) => {
                Ok(self.graph().is_ancestor(revision, known)?)
            }
            _ => Ok(false),
        }
    }

    /// Notes that a peer holds this revision, which is here, safe on its disk.
    pub fn saw_head(&self, peer: &str, head: CommitId) -> Result<(), EngineError> {
        if self.last_known(peer)? != Some(head) {
            self.store.refs().update(&[RefEdit {
                name: RefName::peer(peer)?,
                expected: Expected::Any,
                new: Some(head),
            }])?;
        }
        Ok(())
    }

    /// When an exchange with a peer last ended well.
    pub fn last_seen(&self, peer: &str) -> Option<Timestamp> {
        self.peers().get(peer).map(|peer| peer.last_seen)
    }

    /// What is known of these peers.
    pub fn known_of(&self, names: &[String]) -> Result<Vec<PeerStatus>, EngineError> {
        let peers = self.peers();
        let head = self.head()?;
        let graph = self.graph();
        let held = self.held()?;
        names
            .iter()
            .map(|name| {
                let last_known = self.last_known(name)?;
                let hidden: Vec<_> = last_known.into_iter().collect();
                let lacks = match head {
                    Some(head) => graph.range(&[head], &hidden)?.len() as u64,
                    None => 0,
                };
                let last_seen = peers.get(name).map(|peer| peer.last_seen);
                let lacks_files = match (last_known, head) {
                    (Some(known), Some(head)) => Some(self.files_between(known, head)?),
                    _ => None,
                };
                let held = held.iter().find(|held| held.peer == *name).cloned();
                Ok(PeerStatus { name: name.clone(), last_known, lacks, lacks_files, last_seen, held })
            })
            .collect()
    }

    /// How many files two revisions differ in.
    fn files_between(&self, old: CommitId, new: CommitId) -> Result<u64, EngineError> {
        if old == new {
            return Ok(0);
        }
        let objects = self.store.objects();
        let (old, new) = (objects.commit(old)?.tree, objects.commit(new)?.tree);
        let mut files = 0;
        tree::diff(&objects, Some(old), Some(new), &mut |_| {
            files += 1;
            Ok(())
        })?;
        Ok(files)
    }

    /// Calls a peer by another name.
    pub fn rename_peer(&self, old: &str, new: &str) -> Result<(), EngineError> {
        self.replace_peer(old, Some(new))
    }

    /// Forgets a peer. What it brought stays.
    pub fn forget_peer(&self, name: &str) -> Result<(), EngineError> {
        self.replace_peer(name, None)
    }

    fn replace_peer(&self, old: &str, new: Option<&str>) -> Result<(), EngineError> {
        let mut edits = Vec::new();
        for at in [RefName::peer, RefName::incoming, RefName::instalment, RefName::held] {
            if let Some(commit) = self.store.refs().read(&at(old)?)? {
                if let Some(new) = new {
                    edits.push(RefEdit { name: at(new)?, expected: Expected::Any, new: Some(commit) });
                }
                edits.push(RefEdit { name: at(old)?, expected: Expected::Is(commit), new: None });
            }
        }
        if !edits.is_empty() {
            self.store.refs().update(&edits)?;
        }
        let _lock = self.lock_peers()?;
        let mut peers = self.peers();
        if let Some(peer) = peers.remove(old) {
            peers.extend(new.map(|new| (new.to_owned(), peer)));
            self.save_peers(&peers, true)?;
        }
        Ok(())
    }
}
