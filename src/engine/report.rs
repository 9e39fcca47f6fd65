//! What the engine's work reports: plain values, ready for a terminal or for JSON.
//!
//! Field names are the stable schema of `--json`; add fields, never rename or remove them.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::entry::Kind;
use crate::id::{CommitId, DeviceId, FolderId, ObjectId, ReplicaId};
use crate::path::SyncPath;

/// A path that could not be captured or written, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftOut {
    /// The path, quoted as git quotes (it need not be one that git accepts).
    pub path: String,
    /// Why, as a clause: `a nested git repository`, `a socket`, `changes while it is read`.
    pub why: String,
}

/// One path in a list of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathChange {
    /// `add`, `change` or `delete`.
    pub verb: &'static str,
    /// Where.
    pub path: SyncPath,
}

/// What `init` did.
#[derive(Debug, Clone, Serialize)]
pub struct InitReport {
    /// The folder, as an absolute path.
    pub folder: String,
    /// Its new identity.
    pub folder_id: FolderId,
    /// Its first capture.
    pub capture: CaptureReport,
}

/// What a capture did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CaptureReport {
    /// The head after it; none in a folder without any revision.
    pub head: Option<CommitId>,
    /// The revisions it made: the first [`CaptureReport::LISTED`] of them.
    pub changes: Vec<PathChange>,
    /// How many files, links and folders were added.
    pub added: u64,
    /// How many were changed.
    pub changed: u64,
    /// How many were deleted.
    pub deleted: u64,
    /// Files looked at.
    pub scanned: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What was left out, and why.
    pub left_out: Vec<LeftOut>,
}

impl CaptureReport {
    /// How many changes a report lists by name.
    pub const LISTED: usize = 1000;

    /// How many revisions it made.
    pub fn revisions(&self) -> u64 {
        self.added + self.changed + self.deleted
    }
}

/// What `status` found.
#[derive(Debug, Clone, Serialize)]
pub struct StatusReport {
    /// The folder, as an absolute path.
    pub folder: String,
    /// Its identity.
    pub folder_id: FolderId,
    /// The newest revision.
    pub head: Option<CommitId>,
    /// What a capture would record.
    pub changes: Vec<PathChange>,
    /// What it would leave out.
    pub left_out: Vec<LeftOut>,
    /// Files that are in conflict: the conflict copies that still stand.
    pub conflicts: Vec<Conflict>,
    /// Revisions made but not yet written to the folder (an interrupted exchange; the next command finishes it).
    pub pending: bool,
    /// What came from peers and is held back until a person has decided.
    pub held: Vec<Held>,
    /// What is known of the other sides.
    pub peers: Vec<PeerStatus>,
}

/// What is known of one other side of a folder.
#[derive(Debug, Clone, Serialize)]
pub struct PeerStatus {
    /// The peer's name.
    pub name: String,
    /// Its last known revision.
    pub last_known: Option<CommitId>,
    /// How many revisions it lacks, as far as is known here.
    pub lacks: u64,
    /// How many files differ between its last known revision and ours; not known before there is one.
    pub lacks_files: Option<u64>,
    /// When an exchange with it last ended well.
    pub last_seen: Option<Timestamp>,
    /// What came from it and is held back.
    pub held: Option<Held>,
}

/// A conflict copy that still stands beside its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The file that kept the name.
    pub path: SyncPath,
    /// The copy beside it.
    pub copy: SyncPath,
    /// The device whose version the copy is.
    pub device: String,
    /// When that version was written (its mtime).
    pub time: Timestamp,
}

/// Which version stays when a conflict is resolved. Ours is what stands under the name, theirs the conflict copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The file keeps what it has; the copy goes.
    Ours,
    /// The file takes what the copy has; the copy goes.
    Theirs,
    /// Both stay; the copy becomes an ordinary file under a plain name.
    Both,
}

/// One revision of a file, or of the folder.
#[derive(Debug, Clone, Serialize)]
pub struct Revision {
    /// Its number among the revisions of its path, from 1; none in a log of the whole folder.
    pub number: Option<u64>,
    /// The commit that made it.
    pub commit: CommitId,
    /// `add`, `change`, `delete` or `merge`.
    pub verb: String,
    /// The path it touched.
    pub path: SyncPath,
    /// What stands there since; none after a deletion.
    pub kind: Option<Kind>,
    /// The content's id.
    pub content: Option<ObjectId>,
    /// Bytes of the content, where it is known without reading it.
    pub size: Option<u64>,
    /// The file's own time (mtime).
    pub modified: Timestamp,
    /// When it was captured.
    pub captured: Timestamp,
    /// The device that captured it.
    pub device: String,
    /// The commit's subject line.
    pub subject: String,
    /// Where it was renamed from.
    pub renamed_from: Option<SyncPath>,
}

/// What differs between two revisions of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffReport {
    /// The one side: `notes.txt@2`.
    pub from_label: String,
    /// The other side: `notes.txt (in the folder)`.
    pub to_label: String,
    /// Bytes of the one; none where nothing stood there.
    pub from_size: Option<u64>,
    /// Bytes of the other.
    pub to_size: Option<u64>,
    /// Bytes of the other in chunks that the one has not, where both are large files.
    pub changed: Option<u64>,
    /// A unified diff, empty where nothing differs; none where one of them is binary, or too large to compare.
    pub text: Option<Vec<u8>>,
}

/// What `revert`, `restore` or `conflicts resolve` did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RevertReport {
    /// The head after it.
    pub head: Option<CommitId>,
    /// The paths that changed.
    pub changes: Vec<PathChange>,
    /// What was captured before, so that it is not lost.
    pub captured_first: Vec<PathChange>,
    /// What could not be written.
    pub left_out: Vec<LeftOut>,
}

/// A mass change that came from a peer, and is not merged before a person has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The peer that brought it.
    pub peer: String,
    /// The revision that is held back.
    pub revision: CommitId,
    /// Since when.
    pub since: Option<Timestamp>,
    /// How many files it deletes.
    pub deleted: u64,
    /// How many files it gives another content.
    pub rewritten: u64,
    /// Of so many files and folders.
    pub of: u64,
    /// Some of the files.
    pub examples: Vec<SyncPath>,
}

/// What `accept` or `reject` did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DecisionReport {
    /// The head after it.
    pub head: Option<CommitId>,
    /// What was decided on.
    pub decided: Vec<Held>,
    /// The paths that were given back.
    pub changes: Vec<PathChange>,
    /// Files that were rewritten here before it was held back, and stay as they are.
    pub rewritten_before: u64,
    /// What was captured before, so that it is not lost.
    pub captured_first: Vec<PathChange>,
    /// Files written or removed here.
    pub applied: u64,
    /// Conflict copies that the merge made.
    pub conflicts: Vec<Conflict>,
    /// What could not be written.
    pub left_out: Vec<LeftOut>,
    /// What is still held back.
    pub held: Vec<Held>,
}

/// What one exchange with one peer did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ExchangeReport {
    /// The folder, as an absolute path.
    pub folder: String,
    /// The peer's name.
    pub peer: String,
    /// Revisions captured here before.
    pub captured: u64,
    /// Revisions sent.
    pub sent: u64,
    /// Revisions received.
    pub received: u64,
    /// Bytes sent, as on the wire.
    pub bytes_sent: u64,
    /// Bytes received, as on the wire.
    pub bytes_received: u64,
    /// Files written or removed here.
    pub applied: u64,
    /// Conflict copies that the merge made.
    pub conflicts: Vec<Conflict>,
    /// What was left out here.
    pub left_out: Vec<LeftOut>,
    /// The head here after it.
    pub head: Option<CommitId>,
    /// The head there after it.
    pub peer_head: Option<CommitId>,
    /// Whether both sides hold the same revision now.
    pub in_step: bool,
    /// What came and is held back until a person has decided.
    #[serde(default)]
    pub held: Option<Box<Held>>,
    /// Why nothing was received, though there was something: the disk is nearly full.
    #[serde(default)]
    pub no_room: Option<String>,
    /// What a person should know: `the peer's copy is older than what it had (restored from a backup?)`.
    pub notes: Vec<String>,
}

/// What `bundle create` wrote, `bundle verify` found or `bundle apply` took.
#[derive(Debug, Clone, Serialize)]
pub struct BundleReport {
    /// The revision it brings.
    pub tip: CommitId,
    /// Revisions that whoever applies it must have.
    pub prerequisites: Vec<CommitId>,
    /// Those of them that this folder lacks.
    pub missing: Vec<CommitId>,
    /// Revisions in it.
    pub revisions: u64,
    /// Objects in it.
    pub objects: u64,
    /// Bytes of it, compressed.
    pub bytes: u64,
    /// Files written or removed by applying it.
    pub applied: u64,
    /// Conflict copies that applying it made.
    pub conflicts: Vec<Conflict>,
    /// What was left out here.
    pub left_out: Vec<LeftOut>,
    /// What it brings is held back until a person has decided.
    pub held: Option<Held>,
}

/// What `verify` found in a repository.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyReport {
    /// Objects read and checked.
    pub objects: u64,
    /// Revisions reached.
    pub revisions: u64,
    /// What is wrong, one line each; empty where all is well.
    pub problems: Vec<String>,
    /// What was found, damage and what was made anew by itself.
    pub findings: Vec<Finding>,
}

/// Something in a repository that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, in the folder; none where something is missing of which no file tells.
    pub file: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What that means, as a clause: `nothing is lost`.
    pub effect: String,
    /// The revisions that cannot be had: the first [`Finding::LISTED`] of them.
    pub affects: Vec<Affected>,
    /// Whether it is made anew by whoever needs it, so that nobody need do anything.
    pub derived: bool,
}

impl Finding {
    /// How many revisions a finding lists.
    pub const LISTED: usize = 1000;
}

/// A revision of which something is lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Affected {
    /// The file; none where the revision itself is lost, and nothing tells which file it changed.
    pub path: Option<SyncPath>,
    /// The number of the revision; none where the history cannot be counted, and for a folder.
    pub number: Option<u64>,
    /// The commit that made it.
    pub commit: CommitId,
}

impl std::fmt::Display for Affected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.path, self.number) {
            (Some(path), Some(number)) => write!(f, "{path}@{number}"),
            (Some(path), None) => write!(f, "{path}@{}", self.commit.short()),
            (None, _) => write!(f, "revision {}", self.commit.short()),
        }
    }
}

/// What `repair` did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RepairReport {
    /// What was mended, one line each.
    pub mended: Vec<String>,
    /// The peers that were asked.
    pub asked: Vec<AskedPeer>,
    /// What could not be decided, and what a person can choose.
    pub choices: Vec<String>,
    /// What is found afterwards.
    pub after: VerifyReport,
}

/// A peer that was asked for what is lost here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AskedPeer {
    /// Its name.
    pub peer: String,
    /// Objects that it brought.
    pub brought: u64,
    /// Why it brought no more.
    pub failed: Option<String>,
}

/// What `gc` did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GcReport {
    /// Packs before.
    pub packs_before: u64,
    /// Packs after.
    pub packs_after: u64,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
}

/// A device and a copy: who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The device's key.
    pub device: DeviceId,
    /// Its name.
    pub device_name: String,
    /// The copy of the folder.
    pub replica: ReplicaId,
}
