//! The authored tips under heads.
//!
//! Canonical merges and their conflict copies hold nothing of their own. As long as nobody has built on them they are
//! dissolved into the tips that they were made of, so that it cannot matter in which groups peers have merged. The
//! trailer in a message is only the hint when to try: what does not come out the same when it is made again is an
//! authored commit like any other, whatever it says of itself.

use std::collections::{BTreeSet, HashMap};

use super::{EMAIL, Merger, NAME};
use crate::id::CommitId;
use crate::message::{Derived, Message};
use crate::store::{StoreError, object_id};

/// Whether a lone head may have to be completed: the copies of its conflicts may not all be there.
pub(super) fn may_be_unfinished(message: &Message) -> bool {
    match message.derived {
        None => false,
        Some(Derived::Merge) => !message.conflicts.is_empty(),
        Some(Derived::ConflictCopy) => true,
    }
}

/// What is known of heads, and of the merges that were made again.
pub(super) struct Tips {
    /// The tips under a derived commit; nothing for an authored one.
    under: HashMap<CommitId, Option<Vec<CommitId>>>,
    /// The canonical commits on top of tips.
    recomputed: HashMap<Vec<CommitId>, Vec<CommitId>>,
}

impl Tips {
    pub(super) fn new() -> Self {
        Self { under: HashMap::new(), recomputed: HashMap::new() }
    }

    /// The authored tips under `heads`, without those that others follow, sorted.
    pub(super) fn authored(
        &mut self,
        merger: &mut Merger<'_>,
        heads: &[CommitId],
    ) -> Result<Vec<CommitId>, StoreError> {
        let mut tips = BTreeSet::new();
        for &head in heads {
            self.look_under(merger, head)?;
            match self.under.get(&head) {
                Some(Some(under)) => tips.extend(under),
                _ => drop(tips.insert(head)),
            }
        }
        merger.graph.heads_of(&tips.into_iter().collect::<Vec<_>>())
    }

    /// The canonical commits on top of `tips`, if they have been made again on the way.
    pub(super) fn recomputed(&self, tips: &[CommitId]) -> Option<&Vec<CommitId>> {
        self.recomputed.get(tips)
    }

    /// Finds out whether a commit is derived. The parents of a canonical merge are authored, so they are looked at
    /// first; how long a chain of such claims is does not matter.
    fn look_under(&mut self, merger: &mut Merger<'_>, head: CommitId) -> Result<(), StoreError> {
        let mut stack = vec![head];
        while let Some(&commit) = stack.last() {
            if !self.under.contains_key(&commit) {
                let under = match claimed_parents(merger, commit)? {
                    None => None,
                    Some(parents) => {
                        let waiting = stack.len();
                        stack.extend(parents.iter().filter(|parent| !self.under.contains_key(parent)));
                        if stack.len() > waiting {
                            continue;
                        }
                        self.try_again(merger, commit, parents)?
                    }
                };
                self.under.insert(commit, under);
            }
            stack.pop();
        }
        Ok(())
    }

    fn try_again(
        &mut self,
        merger: &mut Merger<'_>,
        commit: CommitId,
        parents: Vec<CommitId>,
    ) -> Result<Option<Vec<CommitId>>, StoreError> {
        let authored = parents.iter().all(|parent| matches!(self.under.get(parent), Some(None)));
        if !authored || merger.graph.heads_of(&parents)? != parents {
            return Ok(None);
        }
        if !self.recomputed.contains_key(&parents) {
            let (commits, _) = merger.canonical(&parents, &mut |kind, content| Ok(object_id(kind, content)))?;
            self.recomputed.insert(parents.clone(), commits);
        }
        let made_again = self.recomputed.get(&parents).is_some_and(|commits| commits.contains(&commit));
        Ok(made_again.then_some(parents))
    }
}

/// The parents of the merge that a commit claims to be, or to be on top of as a conflict copy.
fn claimed_parents(merger: &Merger<'_>, mut id: CommitId) -> Result<Option<Vec<CommitId>>, StoreError> {
    loop {
        let commit = merger.objects.commit(id)?;
        if commit.committer.name != NAME || commit.committer.email != EMAIL {
            return Ok(None);
        }
        match (commit.message().derived, &commit.parents[..]) {
            (Some(Derived::ConflictCopy), [below]) => id = *below,
            (Some(Derived::Merge), [_, _, ..]) => return Ok(Some(commit.parents)),
            _ => return Ok(None),
        }
    }
}
