//! Renames: an edit follows the file to its new name.
//!
//! A deletion was a rename if its commit says so and the new name held the same content in it; or, in people's own
//! commits, if the same commit added that content under one other name, and only there. If one side has renamed a
//! file and another has changed it, the change is taken as one of the file under its new name.

use std::collections::{BTreeMap, HashMap};

use super::sides::Revision;
use super::{Contested, Merger};
use crate::entry::{Entry, Kind};
use crate::id::CommitId;
use crate::path::SyncPath;
use crate::store::StoreError;
use crate::store::graph::Colours;

/// The most renames, one after the other, that an edit follows.
const MOST_HOPS: usize = 64;

/// Takes edits of renamed files to the new names.
pub(super) fn follow(
    merger: &mut Merger<'_>,
    tips: &[CommitId],
    reach: &HashMap<CommitId, Colours>,
    contested: &mut BTreeMap<SyncPath, Contested>,
) -> Result<(), StoreError> {
    let mut moves = Vec::new();
    for (path, contest) in contested.iter() {
        let (edits, deletions): (Vec<Revision>, Vec<_>) = {
            let others = contest.revisions.iter().filter(|revision| revision.value != Some(Entry::EMPTY_FOLDER));
            others.partition(|revision| revision.value.is_some())
        };
        let mut targets = BTreeMap::new();
        for deletion in deletions.into_iter().filter(|_| !edits.is_empty()) {
            let Some(colours) = reach.get(&deletion.commit) else { continue };
            let Some(tip) = (0..tips.len()).find(|&tip| colours.has(tip)) else { continue };
            for origin in merger.sides.origins(deletion, path)? {
                if let Some(target) = new_name(merger, path, origin, tips[tip])? {
                    targets.entry(target).or_insert(deletion);
                }
            }
        }
        // Renamed twice, to different names: the first of them takes the edit. What was not changed, but written
        // anew, is no edit: it has nothing in common with what was renamed, or was deleted in between. And who has
        // a file of its own under the new name keeps both.
        for edit in edits {
            for (target, deletion) in &targets {
                if let Some(base) = merger.base(path, &[*deletion, edit], tips, reach)?
                    && !was_deleted(merger, path, edit.commit, deletion.commit)?
                    && !stands_beside(merger, target, edit, tips, reach)?
                {
                    moves.push((path.clone(), edit, target.clone(), base));
                    break;
                }
            }
        }
    }
    for (path, edit, target, base) in moves {
        if !contested.contains_key(&target) {
            let values = tips.iter().map(|&tip| merger.sides.value(tip, &target)).collect::<Result<_, _>>()?;
            let revisions = merger.sides.of(tips, std::slice::from_ref(&target))?.swap_remove(0);
            contested.insert(target.clone(), Contested::new(values, revisions));
        }
        let side = merger.speaker(edit, &path)?;
        if let Some(contest) = contested.get_mut(&target) {
            contest.arrived.push((side, base));
        }
        if let Some(contest) = contested.get_mut(&path) {
            contest.left.push(edit);
        }
    }
    Ok(())
}

/// Whether nothing stood at `path` after some commit that `edit` follows and `other` does not.
fn was_deleted(merger: &mut Merger<'_>, path: &SyncPath, edit: CommitId, other: CommitId) -> Result<bool, StoreError> {
    for commit in merger.graph.range(&[edit], &[other])? {
        for parent in merger.graph.parents(commit)? {
            let changes = merger.sides.changes(Some(parent), commit)?;
            if changes.binary_search_by(|change| change.path.cmp(path)).is_ok_and(|at| changes[at].new.is_none()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether some tip has something at `target` besides the edit.
fn stands_beside(
    merger: &mut Merger<'_>,
    target: &SyncPath,
    edit: Revision,
    tips: &[CommitId],
    reach: &HashMap<CommitId, Colours>,
) -> Result<bool, StoreError> {
    let Some(colours) = reach.get(&edit.commit) else { return Ok(false) };
    for tip in (0..tips.len()).filter(|&tip| colours.has(tip)) {
        if merger.sides.value(tips[tip], target)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the file went that `deletion` took away from `path`, if it still stands at `tip`.
fn new_name(
    merger: &mut Merger<'_>,
    path: &SyncPath,
    deletion: CommitId,
    tip: CommitId,
) -> Result<Option<SyncPath>, StoreError> {
    let (mut path, mut deletion) = (path.clone(), deletion);
    for _ in 0..MOST_HOPS {
        let Some(target) = renamed_to(merger, deletion, &path)? else { return Ok(None) };
        if merger.sides.value(tip, &target)?.is_some_and(|entry| entry.kind != Kind::EmptyFolder) {
            return Ok(Some(target));
        }
        // It has gone from there too: to yet another name?
        let later = merger.sides.of(&[tip, deletion], std::slice::from_ref(&target))?.swap_remove(0);
        let Some(gone) = later.iter().find(|revision| revision.value.is_none()) else { return Ok(None) };
        (path, deletion) = (target, gone.commit);
    }
    Ok(None)
}

/// The new name that a commit gave to the file at `path`.
fn renamed_to(merger: &mut Merger<'_>, deletion: CommitId, path: &SyncPath) -> Result<Option<SyncPath>, StoreError> {
    let commit = merger.sides.commit(deletion)?;
    let [parent] = commit.parents[..] else { return Ok(None) };
    let Some(renamed) = merger.sides.value(parent, path)?.filter(|entry| entry.kind != Kind::EmptyFolder) else {
        return Ok(None);
    };
    let alike = |entry: Entry| entry.id == renamed.id && entry.kind.is_file() == renamed.kind.is_file();
    if let Some(target) = commit.message().renamed_to {
        let there = merger.sides.value(deletion, &target)?;
        return Ok((target != *path && there.is_some_and(alike)).then_some(target));
    }
    let changes = merger.sides.changes(Some(parent), deletion)?;
    let gone = changes.iter().filter(|change| change.new.is_none() && change.old.is_some_and(alike)).count();
    let mut came = changes.iter().filter(|change| change.old.is_none() && change.new.is_some_and(alike));
    Ok(match (came.next(), came.next()) {
        (Some(only), None) if gone == 1 => Some(only.path.clone()),
        _ => None,
    })
}
