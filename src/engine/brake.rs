//! The brake: a mass change that comes from a peer is held back until a person says what becomes of it.
//!
//! Somebody's `rm -rf`, a script gone wrong, or a program that encrypts files is, to a folder that is kept in step, an
//! edit like any other. Nothing is lost by it, since the history has all; but it should not be on every disk within a
//! second. So each device looks, before it merges what came, at what that would do to *its own* folder.
//!
//! # What is measured
//!
//! - **Losses**: paths that the folder holds and that the merge would delete, or give another content. Adding a file,
//!   giving it another mode or time, and anything about empty folders is none. A content that stands under a new name
//!   afterwards was moved: a renamed folder is no loss. One's own changes are none either: the head has them already.
//!   A first exchange, a clone and a join lose nothing, whatever they bring.
//! - **The share** of all paths in the folder. More than [`Brake`](crate::guard::Brake) percent (the default: half) is
//!   a mass change. Half, for deletions and rewrites together, because ordinary work stays below: another branch
//!   checked out in a source tree, an album that gets new tags, an archive unpacked over its older self, a year moved
//!   away. What rewrites or empties *most* of a folder is rare, and asking once is no burden. Fewer than [`FLOOR`]
//!   losses are never held, so that small folders can be turned upside down.
//! - **The window.** A daemon sends an `rm -rf` in many small exchanges, each of them harmless. So a device remembers
//!   for [`WINDOW`] what peers have taken from it (`lost`), and some states that the folder has had (`marks`: one
//!   every few minutes, and one whenever the folder has grown by a quarter). A loss counts against a mark if the mark
//!   has the path and the merge does not have it as it was there; what was made and removed between two marks, or
//!   came back, does not count. The first half of a slow deletion is therefore applied before the brake holds, and
//!   `reject` gives that back, too. A deletion that takes longer than the window for half of the folder passes.
//!
//! By content and not by sender: a peer that has merged what is held here brings it under another head, and is held
//! for the same losses. A copy restored from a backup is told by its peer which revision it had: it is measured from
//! there, since what it had already it need not be asked about.
//!
//! # What is held, and what goes on
//!
//! What came is admitted, checked and safe on disk; it is only not merged. `refs/foldersync/held/<peer>` keeps it from
//! being collected, and says that it need not be sent again. Captures go on, and are sent to all, also to that peer.
//! More from the same peer moves the ref on; where the peer has undone the change, the merge loses little, is made,
//! and the hold ends by itself. Nothing is forgotten by time while something is held. All devices meet again (I4) when
//! the person has decided: `accept` merges; `reject` merges, too, and gives back, in commits of one path each on top
//! of the merge, what the folder held (I1, I2), so that it comes back everywhere. What was
//! rewritten comes back, where that was done, as a mass rewrite once more: there a person is asked in turn.
//!
//! # After a kill
//!
//! `accept` and `reject` each move `main` once, to a state that is complete; before that, nothing has happened, and
//! after it the next work finishes the disk. A hold whose revision is part of `main` is over, whether or not its ref is
//! gone. `brake.json` (marks, losses, the figures of a hold) is a memory aid: without it, the window begins anew, and
//! `reject` gives back what has not been applied.
//!
//! Must not: hold back what this device captured itself, or drop a commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::clock::Timestamp;
use crate::engine::error::EngineError;
use crate::engine::folder::{Folder, Work};
use crate::engine::going_back::Step;
use crate::engine::order::commit_order;
use crate::engine::report::{DecisionReport, Held, PathChange, RevertReport};
use crate::entry::{Entry, Fingerprint, Kind};
use crate::id::{CommitId, ObjectId, ReplicaId, TreeId};
use crate::path::SyncPath;
use crate::store::durable::{self, Temp};
use crate::store::tree;
use crate::store::{Expected, Objects, RefEdit, RefName, StoreError, Wait};
use crate::table::Row;

/// Fewer losses are never held.
pub(crate) const FLOOR: usize = 20;
/// How long what peers have taken away is remembered.
const WINDOW: Duration = Duration::from_hours(1);
/// How far apart marks are, unless the folder has grown.
const APART: Duration = Duration::from_mins(5);
/// How long the work of a daemon in the folder is waited for, which comes and goes while peers send more.
const PATIENCE: Wait = Wait::AtMost(Duration::from_mins(1));
/// How many paths of a hold are named.
const EXAMPLES: usize = 5;

/// A state that the folder has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    time: Timestamp,
    commit: CommitId,
    paths: u64,
}

/// What a person has been told of a hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Told {
    /// The state that it was measured against.
    base: Mark,
    held: Held,
}

/// What the brake remembers.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// Oldest first.
    marks: Vec<Mark>,
    /// What peers have deleted or rewritten, and when.
    lost: BTreeMap<SyncPath, Timestamp>,
    /// By the revision that is held.
    held: BTreeMap<CommitId, Told>,
}

impl Memory {
    /// Forgets what is older than the window.
    fn forget(&mut self, now: Timestamp) {
        // A clock that was set back makes nothing last for ever.
        let is_old = |time: &Timestamp| !(0..=secs(WINDOW)).contains(&(now.secs - time.secs));
        self.marks.retain(|mark| !is_old(&mark.time));
        self.lost.retain(|_, time| !is_old(time));
    }

    /// Marks a state, if the last one is another or long ago.
    fn mark(&mut self, mark: Mark) -> bool {
        let is_due = self.marks.last().is_none_or(|last| {
            mark.time.secs - last.time.secs >= secs(APART) || mark.paths.saturating_mul(4) > last.paths * 5
        });
        if is_due {
            self.marks.push(mark);
        }
        is_due
    }
}

fn secs(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// What the brake has found.
enum Verdict {
    /// The merge may be made; it loses these.
    Passes(Vec<Change>),
    /// It is a mass change: these losses, against this state.
    Holds(Mark, Vec<Change>),
}

/// Whether a change takes a content from its path.
fn is_loss(change: &Change) -> bool {
    let content = |entry: Option<Entry>| entry.filter(|entry| entry.kind != Kind::EmptyFolder).map(|entry| entry.id);
    content(change.old).is_some_and(|old| content(change.new) != Some(old))
}

/// What is lost from `old` to `new`, of these paths: what stands under another name afterwards was moved.
fn losses(
    objects: &Objects,
    old: TreeId,
    new: TreeId,
    among: Option<&BTreeSet<SyncPath>>,
) -> Result<Vec<Change>, StoreError> {
    let mut lost = Vec::new();
    let mut gained: HashMap<ObjectId, usize> = HashMap::new();
    tree::diff(objects, Some(old), Some(new), &mut |change| {
        if let Some(entry) = change.new.filter(|new| change.old.is_none_or(|old| old.id != new.id)) {
            *gained.entry(entry.id).or_default() += 1;
        }
        if is_loss(&change) && among.is_none_or(|among| among.contains(&change.path)) {
            lost.push(change);
        }
        Ok(())
    })?;
    lost.retain(|change| {
        let moved = change.old.and_then(|old| gained.get_mut(&old.id)).filter(|left| **left > 0);
        moved.map(|left| *left -= 1).is_none()
    });
    Ok(lost)
}

impl Folder {
    fn brake_file(&self) -> PathBuf {
        self.store.private_dir().join("brake.json")
    }

    /// What the brake remembers; nothing where the file is missing or cannot be read (it is only a memory aid).
    fn brake_memory(&self) -> Memory {
        std::fs::read(self.brake_file()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn save_brake_memory(&self, memory: &Memory) -> Result<(), EngineError> {
        let file = self.brake_file();
        let bytes = serde_json::to_vec(memory).expect("paths, ids and times are valid JSON");
        let mut temp = Temp::new_in(&self.store.private_dir())?;
        durable::fill(temp.file(), &file, &bytes)?;
        Ok(temp.rename_to(&file)?)
    }

    /// What is held back, by the name of the peer that brought it.
    pub fn held(&self) -> Result<Vec<Held>, EngineError> {
        let mut refs = self.store.refs().list(RefName::HELD)?;
        if refs.is_empty() {
            return Ok(Vec::new());
        }
        let head = self.head()?;
        let memory = self.brake_memory();
        let mut held = Vec::new();
        refs.sort();
        for (name, revision) in refs {
            // It was accepted or undone, and only its ref is left.
            if head.map_or(Ok(false), |head| self.has_still(revision, head))? {
                continue;
            }
            let peer = name.as_str().strip_prefix(RefName::HELD).unwrap_or_default().to_owned();
            let told = memory.held.get(&revision).map(|told| told.held.clone());
            held.push(Held { peer, revision, ..told.unwrap_or_else(|| Held::unknown(revision)) });
        }
        Ok(held)
    }

    /// What is held back of a peer.
    pub fn held_of(&self, peer: &str) -> Result<Option<Held>, EngineError> {
        Ok(self.held()?.into_iter().find(|held| held.peer == peer))
    }

    /// What is held of a copy that was met under another name is held under this one from now on.
    pub(crate) fn claim_hold(&self, name: &str, replica: ReplicaId) -> Result<(), EngineError> {
        let peers = self.peers();
        for alias in
            peers.iter().filter(|(alias, peer)| *alias != name && peer.replica == replica).map(|(alias, _)| alias)
        {
            let old = RefName::held(alias)?;
            if let Some(held) = self.store.refs().read(&old)? {
                let new = RefEdit { name: RefName::held(name)?, expected: Expected::Any, new: Some(held) };
                self.store.refs().update(&[new, RefEdit { name: old, expected: Expected::Is(held), new: None }])?;
            }
        }
        Ok(())
    }

    /// Merges and applies what is held back: of this peer, or of all.
    pub fn accept(&self, peer: Option<&str>) -> Result<DecisionReport, EngineError> {
        let (mut work, chosen, captured_first) = self.begin_decision("accept", peer)?;
        for held in &chosen {
            let heads: Vec<CommitId> = work.head.into_iter().chain([held.revision]).collect();
            let merged = work.merge(&heads)?;
            work.follow(merged)?;
        }
        work.decided(DecisionReport { decided: chosen, captured_first, ..DecisionReport::default() })
    }

    /// Makes what is held back a part of the history, of this peer or of all, and gives back what it deletes or
    /// rewrites, as new revisions.
    pub fn reject(&self, peer: Option<&str>) -> Result<DecisionReport, EngineError> {
        let (mut work, chosen, captured_first) = self.begin_decision("reject", peer)?;
        let tips = chosen.iter().map(|held| held.revision);
        let merged = work.merge(&work.head.into_iter().chain(tips).collect::<Vec<_>>())?;
        let (steps, rewritten_before) = work.giving_back(&chosen, merged)?;
        let mut reverted = RevertReport::default();
        // What gives it back is there before `main` moves: there is no moment at which the loss would be applied.
        let head = work.commit_steps(Some(merged), steps, &mut reverted)?.unwrap_or(merged);
        work.follow(head)?;
        let changes = reverted.changes;
        work.decided(DecisionReport {
            decided: chosen,
            captured_first,
            changes,
            rewritten_before,
            ..DecisionReport::default()
        })
    }

    /// The right to decide, what is decided on, and what was captured before.
    fn begin_decision(
        &self,
        what: &str,
        peer: Option<&str>,
    ) -> Result<(Work<'_>, Vec<Held>, Vec<PathChange>), EngineError> {
        let mut work = self.begin(what, PATIENCE)?;
        // A kill may have come when it was decided, and before that was taken down.
        work.drop_ended_holds()?;
        let chosen = self.chosen(peer)?;
        let captured_first = work.capture(&[])?.changes;
        Ok((work, chosen, captured_first))
    }

    /// What a person decides on.
    fn chosen(&self, peer: Option<&str>) -> Result<Vec<Held>, EngineError> {
        let held = self.held()?;
        let names = held.iter().map(|held| format!("`{}`", held.peer)).collect::<Vec<_>>().join(", ");
        let chosen: Vec<Held> = held.into_iter().filter(|held| peer.is_none_or(|peer| held.peer == peer)).collect();
        match peer {
            _ if !chosen.is_empty() => Ok(chosen),
            Some(peer) if !names.is_empty() => {
                let what = format!("nothing is held back from `{peer}`, but something from {names}");
                Err(EngineError::NotFound { what })
            }
            _ => Err(EngineError::NotFound { what: "nothing is held back in this folder".to_owned() }),
        }
    }
}

impl Work<'_> {
    /// Merges `theirs`, which the peer `from` brought, and brings the disk to it; or holds it back, and says so.
    ///
    /// `restored` is the revision that this copy once had, where it was restored from a backup.
    pub(crate) fn take_in(
        &mut self,
        from: &str,
        theirs: CommitId,
        restored: Option<CommitId>,
    ) -> Result<Option<Held>, EngineError> {
        let before = self.conflicts.len();
        let heads: Vec<CommitId> = self.head.into_iter().chain([theirs]).collect();
        let merged = self.merge(&heads)?;
        let held = self.brake(from, theirs, merged, restored);
        if !matches!(held, Ok(None)) {
            // Its conflict copies have not been made yet.
            self.conflicts.truncate(before);
            return held;
        }
        self.follow(merged)?;
        Ok(None)
    }

    /// Looks at what the merge would do: holds back what came, fails where there is no room, or remembers it.
    fn brake(
        &self,
        from: &str,
        theirs: CommitId,
        merged: CommitId,
        restored: Option<CommitId>,
    ) -> Result<Option<Held>, EngineError> {
        let now = self.now();
        let mut memory = self.folder.brake_memory();
        let mut is_news = false;
        if let (Some(head), Some(percent)) = (self.head, self.folder.guards().brake.percent()) {
            let refs = self.folder.store.refs().list(RefName::HELD)?;
            memory.held.retain(|revision, _| refs.iter().any(|(_, held)| held == revision));
            if memory.held.is_empty() {
                memory.forget(now);
            }
            let here = Mark { time: now, commit: head, paths: self.table.len() as u64 };
            // What else comes of a change that is held is measured as that was.
            let before = refs.iter().find(|(name, _)| name.as_str().strip_prefix(RefName::HELD) == Some(from));
            let before = before.and_then(|(_, held)| Some(memory.held.get(held)?.base));
            let losses = match self.judge(&memory, before, here, merged, restored, u64::from(percent))? {
                Verdict::Holds(base, losses) => return self.hold(from, theirs, memory, base, &losses).map(Some),
                Verdict::Passes(losses) => losses,
            };
            is_news = memory.mark(here) || !losses.is_empty();
            memory.lost.extend(losses.into_iter().map(|change| (change.path, now)));
        }
        self.folder.room_for_merge(&self.objects, self.tree_of(self.head)?, self.tree_of(Some(merged))?)?;
        if is_news {
            self.folder.save_brake_memory(&memory)?;
        }
        Ok(None)
    }

    fn judge(
        &self,
        memory: &Memory,
        before: Option<Mark>,
        here: Mark,
        merged: CommitId,
        restored: Option<CommitId>,
        percent: u64,
    ) -> Result<Verdict, EngineError> {
        let new = self.tree_of(Some(merged))?;
        let of = |commit| self.tree_of(Some(commit));
        let here = Mark { commit: restored.unwrap_or(here.commit), ..here };
        let now_lost = losses(&self.objects, of(here.commit)?, new, None)?;
        let is_mass = |losses: usize, base: &Mark| {
            losses >= FLOOR && (losses as u64).saturating_mul(100) > percent * base.paths.max(here.paths)
        };
        if now_lost.is_empty() {
            return Ok(Verdict::Passes(now_lost));
        }
        let all: BTreeSet<SyncPath> =
            memory.lost.keys().chain(now_lost.iter().map(|change| &change.path)).cloned().collect();
        let since = |base: Mark| -> Result<Option<Verdict>, EngineError> {
            if !is_mass(all.len(), &base) {
                return Ok(None);
            }
            let lost = losses(&self.objects, of(base.commit)?, new, Some(&all))?;
            Ok(is_mass(lost.len(), &base).then_some(Verdict::Holds(base, lost)))
        };
        if let Some(verdict) = before.map(since).transpose()?.flatten() {
            return Ok(verdict);
        }
        // Against a mark first: then what was lost since, before it was noticed, is given back, too.
        let bases = memory.held.values().map(|told| &told.base).chain(&memory.marks).rev();
        for base in bases.filter(|_| restored.is_none()) {
            if let Some(verdict) = since(*base)? {
                return Ok(verdict);
            }
        }
        if is_mass(now_lost.len(), &here) {
            return Ok(Verdict::Holds(here, now_lost));
        }
        Ok(Verdict::Passes(now_lost))
    }

    fn hold(
        &self,
        from: &str,
        theirs: CommitId,
        mut memory: Memory,
        base: Mark,
        losses: &[Change],
    ) -> Result<Held, EngineError> {
        let deleted = losses.iter().filter(|change| change.new.is_none()).count() as u64;
        let name = RefName::held(from)?;
        let before = self.folder.store.refs().read(&name)?.and_then(|old| memory.held.remove(&old));
        let held = Held {
            peer: from.to_owned(),
            revision: theirs,
            since: Some(before.and_then(|told| told.held.since).unwrap_or_else(|| self.now())),
            deleted,
            rewritten: losses.len() as u64 - deleted,
            of: base.paths,
            examples: losses.iter().take(EXAMPLES).map(|change| change.path.clone()).collect(),
        };
        memory.held.insert(theirs, Told { base, held: held.clone() });
        self.folder.save_brake_memory(&memory)?;
        self.folder.store.refs().update(&[RefEdit { name, expected: Expected::Any, new: Some(theirs) }])?;
        Ok(held)
    }

    /// What gives back what `chosen` takes away, on top of the head that it makes; and how many files were rewritten
    /// before it was held. These stay as they are: who rewrote them may have meant it.
    fn giving_back(&self, chosen: &[Held], merged: CommitId) -> Result<(Vec<Step>, u64), EngineError> {
        let memory = self.folder.brake_memory();
        let (old, new) = (self.tree_of(self.head)?, self.tree_of(Some(merged))?);
        let mut taken: BTreeMap<SyncPath, Change> = BTreeMap::new();
        for held in chosen {
            if let Some(told) = memory.held.get(&held.revision) {
                let lost: BTreeSet<SyncPath> = memory.lost.keys().cloned().collect();
                let before = losses(&self.objects, self.tree_of(Some(told.base.commit))?, old, Some(&lost))?;
                taken.extend(before.into_iter().map(|change| (change.path.clone(), change)));
            }
        }
        let rewritten_before = taken.values().filter(|change| change.new.is_some()).count() as u64;
        taken.retain(|_, change| change.new.is_none());
        let held_back = losses(&self.objects, old, new, None)?;
        taken.extend(held_back.into_iter().map(|change| (change.path.clone(), change)));

        let paths: Vec<&SyncPath> = taken.keys().collect();
        let merged = tree::lookup_many(&self.objects, new, &paths)?;
        let changes = taken.iter().zip(merged).filter(|((_, change), at)| at.leaf() != change.old);
        let changes =
            changes.map(|((path, change), at)| Change { path: path.clone(), old: at.leaf(), new: change.old });
        let changes = commit_order(changes.collect());
        let times = self.times_of(&changes)?;
        let step = |change: Change| {
            let label = change.new.map(|_| format!("restore {}", change.path));
            let mtime = change.new.and_then(|_| times.get(&change.path).copied());
            Step { change, label, mtime }
        };
        Ok((changes.into_iter().map(step).collect(), rewritten_before))
    }

    /// The files' own times: as the disk has them, or as the history tells them of what is gone.
    fn times_of(&self, changes: &[Change]) -> Result<HashMap<SyncPath, Timestamp>, EngineError> {
        let mut times = HashMap::new();
        let mut gone = Vec::new();
        for change in changes {
            let Some(entry) = change.new.filter(|entry| entry.kind != Kind::EmptyFolder) else { continue };
            let known = |row: &&Row| row.entry == entry && row.fingerprint != Fingerprint::default();
            match self.table.get(change.path.as_bytes()).filter(known) {
                Some(row) => {
                    let (secs, nanos) = row.fingerprint.mtime;
                    times.insert(change.path.clone(), Timestamp::new(i64::from(secs), nanos));
                }
                None => gone.push((&change.path, entry)),
            }
        }
        if !gone.is_empty() {
            self.folder.ask(|history| {
                for (path, entry) in gone {
                    let revisions = history.log(Some(path), usize::MAX)?;
                    if let Some(then) = revisions.iter().find(|revision| revision.content == Some(entry.id)) {
                        times.insert(path.clone(), then.modified);
                    }
                }
                Ok(())
            })?;
        }
        Ok(times)
    }

    /// Ends a decision: the disk is brought to the head, the window begins anew, and what else is held is looked at
    /// again.
    fn decided(mut self, mut report: DecisionReport) -> Result<DecisionReport, EngineError> {
        self.forget_window()?;
        for held in self.folder.held()? {
            self.take_in(&held.peer, held.revision, None)?;
        }
        self.drop_ended_holds()?;
        let done = self.done();
        report.applied = done.applied;
        report.conflicts = done.conflicts;
        report.left_out = done.left_out;
        report.head = self.head;
        report.held = self.folder.held()?;
        self.finish()?;
        Ok(report)
    }

    fn forget_window(&self) -> Result<(), EngineError> {
        let mut memory = self.folder.brake_memory();
        memory.marks.clear();
        memory.lost.clear();
        self.folder.save_brake_memory(&memory)
    }

    /// Removes the refs of what is no longer held back, because the head has it.
    pub(crate) fn drop_ended_holds(&self) -> Result<(), EngineError> {
        let refs = self.folder.store.refs();
        let held: HashSet<CommitId> = self.folder.held()?.into_iter().map(|held| held.revision).collect();
        let ended = refs.list(RefName::HELD)?.into_iter().filter(|(_, revision)| !held.contains(revision));
        let edits: Vec<RefEdit> =
            ended.map(|(name, revision)| RefEdit { name, expected: Expected::Is(revision), new: None }).collect();
        if edits.is_empty() { Ok(()) } else { Ok(refs.update(&edits)?) }
    }
}

impl Held {
    /// A hold of which only the revision is known.
    fn unknown(revision: CommitId) -> Self {
        Self { peer: String::new(), revision, since: None, deleted: 0, rewritten: 0, of: 0, examples: Vec::new() }
    }

    /// In a few words: `17 files deleted and 4 rewritten, of 30`.
    pub fn words(&self) -> String {
        let files = |number: u64| if number == 1 { "1 file".to_owned() } else { format!("{number} files") };
        match (self.deleted, self.rewritten) {
            (0, 0) => "a mass change".to_owned(),
            (deleted, 0) => format!("{} of {} deleted", files(deleted), self.of),
            (0, rewritten) => format!("{} of {} rewritten", files(rewritten), self.of),
            (deleted, rewritten) => format!("{} of {} deleted, and {rewritten} rewritten", files(deleted), self.of),
        }
    }
}
