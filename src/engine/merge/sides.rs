//! What counts for a path: its last revisions, among the commits that some tips have and others lack.
//!
//! A commit with one parent is a revision of the paths at which the two differ. A merge is one only where it was a
//! choice: where it holds something else than its parents' last revisions agree on. (So a merge that just took what
//! one side had changed is transparent: that side's revision still counts, and who goes on from it is in no conflict
//! with the merge. A merge that chose between two, by hand or by rule, counts as a revision that follows both.)
//!
//! Each tip has last revisions of a path, all with the value that the tip has there. One of them is *superseded* if
//! some other tip follows it and yet has others. Revisions that all tips follow are superseded by any other; that is
//! why only the commits that the tips do not share are walked, from each tip down, with the paths still looked for.
//! And a choice that merging made by its rules is superseded by a person's revision that went on from the same content
//! elsewhere: two devices that merge the same at the same time, and one edit after it, are in no conflict.
//!
//! Everything here is a function of the commits alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use crate::change::Change;
use crate::entry::Entry;
use crate::id::{CommitId, TreeId};
use crate::path::SyncPath;
use crate::store::commit::Commit;
use crate::store::{Graph, Objects, StoreError, tree};

/// So many commits, and changes of commits, are remembered at a time.
const REMEMBERED: usize = 1 << 16;

/// A revision of one path: the commit that made it, and what it left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Revision {
    pub(super) value: Option<Entry>,
    pub(super) commit: CommitId,
}

/// Answers questions on the revisions of paths, and remembers what it has read for the next.
pub(super) struct Sides<'a> {
    objects: &'a Objects,
    graph: &'a Graph,
    commits: HashMap<CommitId, Rc<Commit>>,
    /// What commits differ in from a parent (or from nothing), sorted by path.
    changes: HashMap<(CommitId, Option<CommitId>), Rc<[Change]>>,
    /// What the parents of merges bring, by path.
    choices: HashMap<CommitId, HashMap<SyncPath, Rc<[Revision]>>>,
    bases: HashMap<Vec<CommitId>, Vec<CommitId>>,
}

/// The result of one walk: an answer, or the merges whose parents' revisions have to be known first.
enum Walk {
    Done(Vec<Rc<[Revision]>>),
    Needs(BTreeMap<CommitId, BTreeSet<SyncPath>>),
}

impl<'a> Sides<'a> {
    pub(super) fn new(objects: &'a Objects, graph: &'a Graph) -> Self {
        Self {
            objects,
            graph,
            commits: HashMap::new(),
            changes: HashMap::new(),
            choices: HashMap::new(),
            bases: HashMap::new(),
        }
    }

    pub(super) fn commit(&mut self, id: CommitId) -> Result<Rc<Commit>, StoreError> {
        if let Some(commit) = self.commits.get(&id) {
            return Ok(Rc::clone(commit));
        }
        if self.commits.len() >= REMEMBERED {
            self.commits.clear();
        }
        let commit = Rc::new(self.objects.commit(id)?);
        self.commits.insert(id, Rc::clone(&commit));
        Ok(commit)
    }

    /// What stands at a path in a revision, if it is a file, a link or an empty folder.
    pub(super) fn value(&mut self, id: CommitId, path: &SyncPath) -> Result<Option<Entry>, StoreError> {
        Ok(match tree::lookup(self.objects, self.commit(id)?.tree, path)? {
            tree::At::Leaf(entry) => Some(entry),
            _ => None,
        })
    }

    /// The last revisions of the folder that all of `tips` follow.
    pub(super) fn bases(&mut self, tips: &[CommitId]) -> Result<Vec<CommitId>, StoreError> {
        if let Some(bases) = self.bases.get(tips) {
            return Ok(bases.clone());
        }
        let bases = self.graph.merge_bases(tips)?;
        self.bases.insert(tips.to_vec(), bases.clone());
        Ok(bases)
    }

    /// In what two revisions differ, sorted by path.
    pub(super) fn changes(&mut self, old: Option<CommitId>, new: CommitId) -> Result<Rc<[Change]>, StoreError> {
        if let Some(changes) = self.changes.get(&(new, old)) {
            return Ok(Rc::clone(changes));
        }
        let old_tree: Option<TreeId> = old.map(|old| self.commit(old)).transpose()?.map(|old| old.tree);
        let new_tree = self.commit(new)?.tree;
        let mut changes = Vec::new();
        tree::diff(self.objects, old_tree, Some(new_tree), &mut |change| {
            changes.push(change);
            Ok(())
        })?;
        changes.sort_unstable();
        // A file that became an empty folder, or the other way round, is told as two.
        changes.dedup_by(|later, change| {
            let one = later.path == change.path;
            if one {
                (change.old, change.new) = (change.old.or(later.old), change.new.or(later.new));
            }
            one
        });
        if self.changes.len() >= REMEMBERED {
            self.changes.clear();
        }
        let changes: Rc<[Change]> = changes.into();
        self.changes.insert((new, old), Rc::clone(&changes));
        Ok(changes)
    }

    /// The last revisions, superseded ones left out, that `tips` bring of each path, sorted. Where the tips do not
    /// all have the same at a path, there is at least one.
    pub(super) fn of(&mut self, tips: &[CommitId], paths: &[SyncPath]) -> Result<Vec<Rc<[Revision]>>, StoreError> {
        // Merges inside are settled first; how deep they lie in each other is not for the call stack to bear.
        let mut waiting: Vec<(CommitId, Vec<SyncPath>)> = Vec::new();
        loop {
            let walk = match waiting.last() {
                Some((merge, paths)) => {
                    let parents = self.graph.parents(*merge)?;
                    self.walk(&parents, paths)?
                }
                None => self.walk(tips, paths)?,
            };
            match walk {
                Walk::Needs(merges) => {
                    waiting.extend(merges.into_iter().map(|(merge, paths)| (merge, paths.into_iter().collect())));
                }
                Walk::Done(found) => match waiting.pop() {
                    Some((merge, paths)) => self.choices.entry(merge).or_default().extend(paths.into_iter().zip(found)),
                    None => return Ok(found),
                },
            }
        }
    }

    fn walk(&mut self, tips: &[CommitId], paths: &[SyncPath]) -> Result<Walk, StoreError> {
        let region = self.graph.unshared(tips)?;
        let places: HashMap<CommitId, usize> = region.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
        let numbers: HashMap<&SyncPath, usize> = paths.iter().zip(0..).collect();
        let mut needs: BTreeMap<CommitId, BTreeSet<SyncPath>> = BTreeMap::new();
        // By path, then by tip: the places of its last revisions.
        let mut last: Vec<HashMap<usize, BTreeMap<usize, Option<Entry>>>> = vec![HashMap::new(); paths.len()];
        for (tip, id) in tips.iter().enumerate() {
            let mut wanted: BTreeMap<usize, HashSet<usize>> = BTreeMap::new();
            if let Some(&place) = places.get(id) {
                wanted.insert(place, (0..paths.len()).collect());
            }
            // Later commits have higher places: none is met before all that lead to it.
            while let Some((place, mut here)) = wanted.pop_last() {
                let id = region[place].0;
                let parents = self.graph.parents(id)?;
                let changes: Vec<Rc<[Change]>> = if parents.is_empty() {
                    vec![self.changes(None, id)?]
                } else {
                    parents.iter().map(|&parent| self.changes(Some(parent), id)).collect::<Result<_, _>>()?
                };
                let mut differing: BTreeMap<usize, (usize, Option<Entry>)> = BTreeMap::new();
                for changes in &changes {
                    let hits = intersect(changes, &here, paths, &numbers);
                    for (path, value) in hits {
                        differing.entry(path).or_insert((0, value)).0 += 1;
                    }
                }
                for (path, (count, value)) in differing {
                    here.remove(&path);
                    let mut found = vec![(place, value)];
                    if count < changes.len() {
                        // The parents differ, and it has what one of them has: taken, or chosen?
                        let Some(brought) = self.choices.get(&id).and_then(|known| known.get(&paths[path])) else {
                            needs.entry(id).or_default().insert(paths[path].clone());
                            continue;
                        };
                        if brought.iter().all(|revision| revision.value == value) {
                            let inside = |revision: &Revision| Some((*places.get(&revision.commit)?, revision.value));
                            found = brought.iter().filter_map(inside).collect();
                        }
                    }
                    last[path].entry(tip).or_default().extend(found);
                }
                if here.is_empty() {
                    continue;
                }
                let mut below: Vec<usize> = parents.iter().filter_map(|parent| places.get(parent).copied()).collect();
                let own = below.pop();
                for place in below {
                    wanted.entry(place).or_default().extend(&here);
                }
                if let Some(place) = own {
                    let there = wanted.entry(place).or_default();
                    if there.is_empty() {
                        *there = here;
                    } else {
                        there.extend(here);
                    }
                }
            }
        }
        if !needs.is_empty() {
            return Ok(Walk::Needs(needs));
        }
        let mut settled = Vec::with_capacity(paths.len());
        for (by_tip, path) in last.into_iter().zip(paths) {
            let all: BTreeMap<usize, Option<Entry>> =
                by_tip.values().flatten().map(|(&at, &value)| (at, value)).collect();
            let counts = |at: usize| {
                (0..tips.len()).all(|tip| {
                    !region[at].1.has(tip) || by_tip.get(&tip).is_some_and(|revisions| revisions.contains_key(&at))
                })
            };
            let kept = all.into_iter().filter(|&(at, _)| counts(at));
            let mut kept: Vec<_> = kept.map(|(at, value)| Revision { value, commit: region[at].0 }).collect();
            self.retain_said(&mut kept, path)?;
            kept.sort_unstable();
            settled.push(kept.into());
        }
        Ok(Walk::Done(settled))
    }

    /// Drops what merging came to by its rules where a person went on from the very same: had they known of that merge
    /// as well, they would have seen there what they saw.
    fn retain_said(&mut self, revisions: &mut Vec<Revision>, path: &SyncPath) -> Result<(), StoreError> {
        if revisions.len() < 2 {
            return Ok(());
        }
        let mut by_rule = HashSet::new();
        for revision in &*revisions {
            if self.commit(revision.commit)?.message().derived.is_some() {
                by_rule.insert(revision.commit);
            }
        }
        if by_rule.is_empty() {
            return Ok(());
        }
        let mut gone_on_from = HashSet::new();
        for revision in revisions.iter().filter(|it| !by_rule.contains(&it.commit)) {
            for parent in self.graph.parents(revision.commit)? {
                gone_on_from.insert(self.value(parent, path)?);
            }
        }
        revisions.retain(|it| !by_rule.contains(&it.commit) || !gone_on_from.contains(&it.value));
        Ok(())
    }

    /// The commits that brought `revision` into being: itself, or, where it is a merge that chose among what others
    /// had made, those whose content it chose. Sorted.
    pub(super) fn origins(&mut self, revision: Revision, path: &SyncPath) -> Result<Vec<CommitId>, StoreError> {
        let mut origins = BTreeSet::new();
        let mut seen = HashSet::from([revision.commit]);
        let mut work = vec![revision.commit];
        while let Some(commit) = work.pop() {
            let parents = self.graph.parents(commit)?;
            let mut chosen = Vec::new();
            if parents.len() > 1 {
                let brought = self.of(&parents, std::slice::from_ref(path))?;
                let alike = brought[0].iter().filter(|brought| brought.value == revision.value);
                chosen.extend(alike.map(|brought| brought.commit));
            }
            if chosen.is_empty() {
                origins.insert(commit);
            }
            work.extend(chosen.into_iter().filter(|&commit| seen.insert(commit)));
        }
        Ok(origins.into_iter().collect())
    }
}

/// The changes at the paths that are wanted, with what each left there.
fn intersect(
    changes: &[Change],
    wanted: &HashSet<usize>,
    paths: &[SyncPath],
    numbers: &HashMap<&SyncPath, usize>,
) -> Vec<(usize, Option<Entry>)> {
    if changes.len() <= wanted.len() {
        let wanted = |change: &Change| {
            let number = *numbers.get(&change.path)?;
            wanted.contains(&number).then_some((number, change.new))
        };
        return changes.iter().filter_map(wanted).collect();
    }
    let hit = |&number: &usize| {
        let at = changes.binary_search_by(|change| change.path.cmp(&paths[number])).ok()?;
        Some((number, changes[at].new))
    };
    wanted.iter().filter_map(hit).collect()
}
