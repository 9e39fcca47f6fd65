//! Bringing the index up to a head.
//!
//! The commits that lack are found by walking from the head until commits that are in the index, and go in parents first.
//! What is in the index is always closed under ancestry and belongs to `state.head`, so a walk from a descendant of that
//! head comes across it; where it does not, the head has moved somewhere else, and the index is emptied first.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::touched::{Recent, Trees};
use super::{HistoryIndex, KINDS, Key, Verb, id_at, is_damage, is_unwritable};
use crate::entry::Entry;
use crate::id::{CommitId, TreeId};
use crate::monitor::{Monitor, Stage};
use crate::path::SyncPath;
use crate::store::commit::Commit;
use crate::store::error::StoreError;
use crate::store::objects::{ObjectKind, Objects};
use crate::store::tree::{self, At};

/// Commits in one transaction: what a kill costs at most.
const BATCH: usize = 4096;
/// How often another process may work on the index towards another head before this one gives up.
const OVERTAKEN: u32 = 8;
/// How many commits' keys and trees are kept for their children.
const PARENTS: usize = 4096;

/// What bringing the index up to a head took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Commits that were put in.
    pub commits: u64,
    /// Their revisions.
    pub revisions: u64,
    /// Whether what was there before had to be thrown away.
    pub rebuilt: bool,
}

/// What a child needs of its parent.
#[derive(Clone, Copy)]
struct Parent {
    key: Key,
    tree: TreeId,
}

impl HistoryIndex {
    /// Puts in the commits that `head` reaches and that are not in yet. Afterwards the index has just those that `head`
    /// reaches: where it had others (the head was moved to something that does not descend from the last one) it is made
    /// anew, which takes its time, so a `head` that may be out of date should be read again first.
    ///
    /// What is done stays done through a kill. A damaged index is begun anew, one that cannot be written is continued in
    /// a temporary file; `monitor` is told.
    pub fn catch_up(&mut self, objects: &Objects, head: CommitId, monitor: &dyn Monitor) -> Result<Stats, StoreError> {
        if let Some(notice) = self.notice.take() {
            monitor.notice(&notice);
        }
        let mut begun_anew = false;
        let mut overtaken = 0;
        loop {
            match self.try_catch_up(objects, head, monitor) {
                Err(StoreError::Index(error)) if is_damage(&error) && !begun_anew => {
                    begun_anew = true;
                    monitor.notice("the history index was damaged and is made anew");
                    self.begin_anew()?;
                }
                Err(StoreError::Index(error)) if is_unwritable(&error) && !self.temporary => {
                    monitor.notice(&format!("the history index cannot be written, it is kept for this time: {error}"));
                    self.leave_file()?;
                }
                Err(StoreError::RefMoved { .. }) if overtaken < OVERTAKEN => overtaken += 1,
                result => return result.map(|stats| Stats { rebuilt: stats.rebuilt || begun_anew, ..stats }),
            }
        }
    }

    fn try_catch_up(&mut self, objects: &Objects, head: CommitId, monitor: &dyn Monitor) -> Result<Stats, StoreError> {
        let mut stats = Stats::default();
        if self.head()? == Some(head) {
            return Ok(stats);
        }
        let before = target(&self.db)?;
        let mut walk = walk(&self.db, objects, head, before.map(|before| before.head))?;
        stats.rebuilt = before.is_some() && !walk.came_across;
        let transaction = begin(&mut self.db, before)?;
        let mut now = Target { head, emptied: before.map_or(0, |before| before.emptied) };
        if stats.rebuilt {
            transaction.execute_batch("DELETE FROM revisions; DELETE FROM commits; DELETE FROM paths;")?;
            now.emptied += 1;
        }
        transaction
            .execute("INSERT OR REPLACE INTO state VALUES (0, ?1, ?2)", params![head.as_bytes(), now.emptied])?;
        if stats.rebuilt {
            transaction.commit()?;
            walk = self::walk(&self.db, objects, head, None)?;
        } else if walk.missing.len() <= BATCH {
            // The usual case, a few new commits, is one transaction.
            index(&transaction, &mut Indexing::new(objects), &walk.missing, &mut stats, monitor)?;
            transaction.commit()?;
            return Ok(stats);
        } else {
            transaction.commit()?;
        }
        monitor.begin(Stage::Index, Some(walk.missing.len() as u64));
        let mut indexing = Indexing::new(objects);
        for batch in walk.missing.chunks(BATCH) {
            let transaction = begin(&mut self.db, Some(now))?;
            index(&transaction, &mut indexing, batch, &mut stats, monitor)?;
            transaction.commit()?;
        }
        monitor.end(Stage::Index);
        Ok(stats)
    }
}

/// The head that the index is at, or on its way to, and how often it was emptied: where neither is another, what was in
/// it still is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Target {
    head: CommitId,
    emptied: i64,
}

fn target(db: &Connection) -> rusqlite::Result<Option<Target>> {
    let mut select = db.prepare_cached("SELECT head, emptied FROM state")?;
    select.query_row([], |row| Ok(Target { head: id_at(row, 0)?.as_commit(), emptied: row.get(1)? })).optional()
}

/// A transaction in an index that is still on its way to this: no other process has begun towards another head.
fn begin(db: &mut Connection, still: Option<Target>) -> Result<Transaction<'_>, StoreError> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if target(&transaction)? == still {
        Ok(transaction)
    } else {
        Err(StoreError::RefMoved { name: "the head of the history index".to_owned() })
    }
}

/// The commits that lack, parents first, and whether the walk came across a certain one.
struct Walk {
    missing: Vec<CommitId>,
    came_across: bool,
}

fn walk(db: &Connection, objects: &Objects, head: CommitId, across: Option<CommitId>) -> Result<Walk, StoreError> {
    enum Step {
        Enter(CommitId),
        Leave(CommitId),
    }
    let mut known = db.prepare_cached("SELECT 1 FROM commits WHERE oid = ?1")?;
    let mut walk = Walk { missing: Vec::new(), came_across: false };
    let mut seen = HashSet::new();
    let mut steps = vec![Step::Enter(head)];
    let mut buffer = Vec::new();
    while let Some(step) = steps.pop() {
        match step {
            Step::Leave(commit) => walk.missing.push(commit),
            Step::Enter(commit) => {
                walk.came_across |= across == Some(commit);
                if !seen.insert(commit) || known.exists([commit.as_bytes()])? {
                    continue;
                }
                steps.push(Step::Leave(commit));
                objects.read(ObjectKind::Commit, &commit.into(), &mut buffer)?;
                let parents = Commit::parse(commit, &buffer)?.parents;
                steps.extend(parents.into_iter().rev().map(Step::Enter));
            }
        }
    }
    Ok(walk)
}

struct Indexing<'a> {
    objects: &'a Objects,
    trees: Trees<'a>,
    parents: Recent<CommitId, Parent>,
    buffer: Vec<u8>,
}

impl<'a> Indexing<'a> {
    fn new(objects: &'a Objects) -> Self {
        Self { objects, trees: Trees::new(objects), parents: Recent::new(PARENTS), buffer: Vec::new() }
    }

    fn commit(&mut self, id: CommitId) -> Result<Commit, StoreError> {
        self.objects.read(ObjectKind::Commit, &id.into(), &mut self.buffer)?;
        Commit::parse(id, &self.buffer)
    }

    fn parent(&mut self, db: &Connection, id: CommitId) -> Result<Parent, StoreError> {
        if let Some(parent) = self.parents.get(&id, |_| 1) {
            return Ok(parent);
        }
        let mut select = db.prepare_cached("SELECT date, generation FROM commits WHERE oid = ?1")?;
        let key = select
            .query_row([id.as_bytes()], |row| Ok(Key { date: row.get(0)?, generation: row.get(1)?, commit: id }))?;
        Ok(Parent { key, tree: self.commit(id)?.tree })
    }
}

fn index(
    db: &Connection,
    indexing: &mut Indexing<'_>,
    commits: &[CommitId],
    stats: &mut Stats,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let mut insert_path = db.prepare_cached("INSERT OR IGNORE INTO paths (path) VALUES (?1)")?;
    let mut select_path = db.prepare_cached("SELECT id FROM paths WHERE path = ?1")?;
    let mut insert_commit = db.prepare_cached("INSERT OR IGNORE INTO commits VALUES (?1, ?2, ?3, ?4)")?;
    let mut child = db.prepare_cached("UPDATE commits SET until = ?2 WHERE oid = ?1 AND until > ?2")?;
    let mut insert_revision =
        db.prepare_cached("INSERT OR IGNORE INTO revisions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for &id in commits {
        let commit = indexing.commit(id)?;
        let parents: Vec<Parent> =
            commit.parents.iter().map(|&parent| indexing.parent(db, parent)).collect::<Result<_, _>>()?;
        let key = Key {
            date: parents.iter().map(|parent| parent.key.date).fold(commit.committer.time, i64::max),
            generation: parents.iter().map(|parent| parent.key.generation).fold(0, i64::max) + 1,
            commit: id,
        };
        let trees: Vec<TreeId> = parents.iter().map(|parent| parent.tree).collect();
        let message = commit.message();
        let mut record = |path: &[u8], verb: Verb, entry: Option<Entry>| -> Result<(), StoreError> {
            let path_id: i64 = match select_path.query_row([path], |row| row.get(0)).optional()? {
                Some(path_id) => path_id,
                None => insert_path.insert([path])?,
            };
            let kind = entry.and_then(|entry| KINDS.iter().position(|&kind| kind == entry.kind));
            let copy = verb == Verb::Add && message.conflict_of.is_some();
            let inserted = insert_revision.execute(params![
                path_id,
                key.date,
                key.generation,
                id.as_bytes(),
                verb as u8,
                kind.and_then(|kind| u8::try_from(kind).ok()),
                entry.map(|entry| *entry.id.as_bytes()),
                copy,
            ])?;
            stats.revisions += inserted as u64;
            Ok(())
        };
        let is_merge = trees.len() > 1;
        indexing.trees.touched(commit.tree, &trees, &mut |path, old, new| {
            let verb = match (is_merge, old, new) {
                (true, _, _) => Verb::Merge,
                (false, None, _) => Verb::Add,
                (false, Some(_), Some(_)) => Verb::Change,
                (false, Some(_), None) => Verb::Delete,
            };
            record(path, verb, new)
        })?;
        if is_merge {
            for path in &message.conflicts {
                let entry = leaf(indexing.objects, commit.tree, path)?;
                let mut known = entry.is_some();
                for &tree in &trees {
                    known = known || leaf(indexing.objects, tree, path)?.is_some();
                }
                // A message may say anything; where no side has anything there is nothing to have a revision of.
                if known {
                    record(path.as_bytes(), Verb::Merge, entry)?;
                }
            }
        }
        insert_commit.execute(params![id.as_bytes(), key.date, key.generation, i64::MAX])?;
        for parent in &commit.parents {
            child.execute(params![parent.as_bytes(), key.date])?;
        }
        indexing.parents.put(id, Parent { key, tree: commit.tree }, 1);
        stats.commits += 1;
        monitor.advance(Stage::Index, 1, 0);
    }
    Ok(())
}

fn leaf(objects: &Objects, tree: TreeId, path: &SyncPath) -> Result<Option<Entry>, StoreError> {
    Ok(match tree::lookup(objects, tree, path)? {
        At::Leaf(entry) => Some(entry),
        At::Nothing | At::Folder(_) => None,
    })
}
