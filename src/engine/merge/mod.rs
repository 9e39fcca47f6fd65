//! Merging: many heads become one, the same everywhere.
//!
//! The head that [`merge()`] answers with is a function of the *set of authored tips* under the heads that it is given,
//! and of the options, of nothing else: not of the order, not of who merges, not of the clock, not of what was merged
//! before. So peers that hold the same commits come to the same commit id without talking, and merging is commutative,
//! associative and idempotent. That holds only as long as all peers compute alike: **every rule in this module, down
//! to the text of a message, is part of the format.** Options must be the same on all copies of a folder.
//!
//! 1. `tips`: heads that merging itself has made, and that nobody has built on, are dissolved into the tips under
//!    them; tips that others follow are dropped. If one is left, that is the answer: a fast-forward.
//! 2. `sides`: for each path at which the tips differ, its last revisions.
//! 3. `rename`, `resolve`: what becomes of each path. `text`: merging by lines.
//! 4. The canonical commits: the merge, without the conflict copies, and on top of it one commit for each copy
//!    (`copies`), so that every commit but the merge changes one path.
//!
//! It reads objects and hands new ones to a sink, blobs and trees before the commits that need them; it moves no ref
//! and writes no file. A crash leaves objects that nothing refers to, and the same merge can be made again.
//! Nothing is lost by it: every tip is an ancestor of the result.

mod copies;
mod draft;
mod rename;
mod resolve;
mod sides;
mod text;
mod tips;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

pub use copies::parse_copy_name;

use self::copies::copy_path;
use self::draft::Draft;
use self::resolve::{Resolved, Side, TextMerge, resolve};
use self::sides::{Revision, Sides};
use super::report::Conflict;
use crate::clock::Timestamp;
use crate::entry::{Entry, Kind};
use crate::id::{CommitId, ObjectId};
use crate::message::{Derived, Message};
use crate::path::SyncPath;
use crate::store::commit::{Commit, Signature};
use crate::store::graph::Colours;
use crate::store::tree::At;
use crate::store::{Graph, ObjectKind, Objects, StoreError};

/// Who the canonical commits are by.
const NAME: &str = "foldersync";
const EMAIL: &str = "merge@foldersync";
/// How the recipes of large files begin: they are text, but not to be merged as such.
const RECIPE: &[u8] = b"foldersync-recipe ";

/// What a merge could not be made for.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The repository failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There was nothing to merge.
    #[error("no revision was given to merge")]
    NoHeads,
}

/// What merging depends on besides the commits. It must be the same on every copy of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeOptions {
    /// Patterns, with `*` and `?`, of the names of files that are merged by lines; upper and lower case are alike.
    pub text_patterns: Vec<String>,
    /// The most bytes of a file that is merged by lines.
    pub text_limit: u64,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self { text_patterns: ["*.txt", "*.md", "*.org"].map(str::to_owned).to_vec(), text_limit: 1 << 20 }
    }
}

/// What merging came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The revision that follows all heads, but for those that merging had made: of these, the tips under them.
    pub head: CommitId,
    /// The commits that were made for it, parents first: the merge, then one for each conflict copy. Empty for a
    /// fast-forward.
    pub new_commits: Vec<CommitId>,
    /// The versions that did not get their name, each with the copy that keeps it. Empty for a fast-forward.
    pub conflicts: Vec<Conflict>,
}

/// Takes a new object and answers with its id.
pub type Sink<'s> = dyn FnMut(ObjectKind, &[u8]) -> Result<ObjectId, StoreError> + 's;

/// Merges `heads` into one. New objects go to `sink`; if one of the heads is the answer, there are none.
pub fn merge(
    objects: &Objects,
    graph: &Graph,
    heads: &[CommitId],
    options: &MergeOptions,
    sink: &mut Sink<'_>,
) -> Result<Merged, MergeError> {
    if heads.is_empty() {
        return Err(MergeError::NoHeads);
    }
    let heads = graph.heads_of(heads)?;
    let mut merger = Merger { objects, graph, options, sides: Sides::new(objects, graph) };
    let as_it_is = |head: CommitId| Merged { head, new_commits: Vec::new(), conflicts: Vec::new() };
    if let [head] = heads[..]
        && !tips::may_be_unfinished(&merger.sides.commit(head)?.message())
    {
        return Ok(as_it_is(head));
    }
    let mut tips = tips::Tips::new();
    let authored = tips.authored(&mut merger, &heads)?;
    if let [head] = authored[..] {
        return Ok(as_it_is(head));
    }
    let known = tips.recomputed(&authored);
    if let Some(head) = known.and_then(|commits| commits.last()).filter(|last| heads.contains(last)) {
        return Ok(as_it_is(*head));
    }
    let (commits, conflicts) = merger.canonical(&authored, sink)?;
    let known_already = commits.iter().rposition(|commit| heads.contains(commit)).map_or(0, |last| last + 1);
    let head = *commits.last().ok_or(MergeError::NoHeads)?;
    Ok(Merged { head, new_commits: commits[known_already..].to_vec(), conflicts })
}

/// What one merge works with.
struct Merger<'a> {
    objects: &'a Objects,
    graph: &'a Graph,
    options: &'a MergeOptions,
    sides: Sides<'a>,
}

/// A path at which tips differ, or to which something moves.
struct Contested {
    /// What each tip has there.
    values: Vec<Option<Entry>>,
    revisions: Rc<[Revision]>,
    /// Versions of files that were renamed to here, each with what it is a change of.
    arrived: Vec<(Side, Entry)>,
    /// Versions that went with a file that was renamed.
    left: Vec<Revision>,
}

impl Contested {
    const fn new(values: Vec<Option<Entry>>, revisions: Rc<[Revision]>) -> Self {
        Self { values, revisions, arrived: Vec::new(), left: Vec::new() }
    }

    /// The revisions that have not gone with a rename.
    fn staying(&self) -> impl Iterator<Item = Revision> {
        self.revisions.iter().copied().filter(|revision| !self.left.contains(revision))
    }
}

/// What stands at each contested path in the end.
type Finals = BTreeMap<SyncPath, Option<Entry>>;

/// A version that does not get the name.
struct Loser {
    path: SyncPath,
    side: Side,
    entry: Entry,
}

impl Merger<'_> {
    /// The commits that follow `tips`, which are authored, sorted, more than one, and none an ancestor of another:
    /// the merge, then the conflict copies.
    fn canonical(
        &mut self,
        tips: &[CommitId],
        sink: &mut Sink<'_>,
    ) -> Result<(Vec<CommitId>, Vec<Conflict>), StoreError> {
        let parents: Vec<Rc<Commit>> = tips.iter().map(|&tip| self.sides.commit(tip)).collect::<Result<_, _>>()?;
        let reach: HashMap<CommitId, Colours> = self.graph.unshared(tips)?.into_iter().collect();
        let mut contested = self.contested(tips)?;
        rename::follow(self, tips, &reach, &mut contested)?;
        let (finals, losers) = self.settle(tips, &reach, &contested, sink)?;

        let mut draft = Draft::new(self.objects, parents[0].tree);
        let changed = || finals.iter().filter(|(path, value)| contested[*path].values[0] != **value);
        for (path, _) in changed() {
            draft.remove(path)?;
        }
        for (path, value) in changed() {
            let Some(entry) = *value else { continue };
            if entry.kind != Kind::EmptyFolder || !matches!(draft.at(path)?, At::Folder(_)) {
                draft.put(path, entry)?;
            }
        }
        let write_tree = |draft: &mut Draft<'_>, sink: &mut Sink<'_>| {
            draft.write(&mut |content| sink(ObjectKind::Tree, content).map(ObjectId::as_tree))
        };
        let tree = write_tree(&mut draft, sink)?;

        let time = parents.iter().map(|parent| parent.committer.time).max().unwrap_or(0);
        let by = Signature { name: NAME.to_owned(), email: EMAIL.to_owned(), time };
        let message = Message {
            subject: format!("merge {} revisions", tips.len()),
            conflicts: losers.iter().map(|loser| loser.path.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
            derived: Some(Derived::Merge),
            ..Message::default()
        };
        let merge = Commit {
            tree,
            parents: tips.to_vec(),
            author: by.clone(),
            committer: by.clone(),
            message: message.to_bytes(),
        };
        let mut commits = vec![sink(ObjectKind::Commit, &merge.to_bytes())?.as_commit()];

        let (copies, conflicts) = self.copies(&mut draft, losers)?;
        for (copy, loser) in copies {
            draft.put(&copy, loser.entry)?;
            let tree = write_tree(&mut draft, sink)?;
            let message = Message {
                mtime: Some(loser.side.mtime),
                conflict_of: Some(loser.path),
                derived: Some(Derived::ConflictCopy),
                ..Message::about("add", &copy)
            };
            let commit = Commit {
                tree,
                parents: commits.last().copied().into_iter().collect(),
                author: self.sides.commit(loser.side.origin)?.author.clone(),
                committer: by.clone(),
                message: message.to_bytes(),
            };
            commits.push(sink(ObjectKind::Commit, &commit.to_bytes())?.as_commit());
        }
        Ok((commits, conflicts))
    }

    /// The paths at which the tips differ.
    fn contested(&mut self, tips: &[CommitId]) -> Result<BTreeMap<SyncPath, Contested>, StoreError> {
        let mut values: BTreeMap<SyncPath, Vec<Option<Entry>>> = BTreeMap::new();
        for (number, &tip) in tips.iter().enumerate().skip(1) {
            for change in self.sides.changes(Some(tips[0]), tip)?.iter() {
                let values = values.entry(change.path.clone()).or_insert_with(|| vec![change.old; tips.len()]);
                values[number] = change.new;
            }
        }
        let paths: Vec<SyncPath> = values.keys().cloned().collect();
        let revisions = self.sides.of(tips, &paths)?;
        let contested = values
            .into_iter()
            .zip(revisions)
            .map(|((path, values), revisions)| (path, Contested::new(values, revisions)));
        Ok(contested.collect())
    }

    /// What stands at each contested path in the end, and what does not get its name, in the order of paths.
    fn settle(
        &mut self,
        tips: &[CommitId],
        reach: &HashMap<CommitId, Colours>,
        contested: &BTreeMap<SyncPath, Contested>,
        sink: &mut Sink<'_>,
    ) -> Result<(Finals, Vec<Loser>), StoreError> {
        let mut finals = Finals::new();
        let mut speakers: HashMap<&SyncPath, Side> = HashMap::new();
        let mut losers = Vec::new();
        for (path, contest) in contested {
            let mut values = contest.staying().map(|revision| revision.value);
            let first = values.next().unwrap_or(contest.values[0]);
            if contest.arrived.is_empty() && values.all(|value| value == first) {
                finals.insert(path.clone(), first);
                continue;
            }
            let mut sides = self.speak_for(path, contest, tips)?;
            let base = match &contest.arrived[..] {
                [] => {
                    let standing: Vec<_> = contest.staying().filter(|revision| revision.value.is_some()).collect();
                    self.base(path, &standing, tips, reach)?
                }
                [(_, base), others @ ..] => Some(*base).filter(|base| others.iter().all(|(_, other)| other == base)),
            };
            if !contest.arrived.is_empty() {
                // Who has the file as it was renamed has not changed it.
                sides.retain(|side| base.is_none() || side.value != base);
                sides.extend(contest.arrived.iter().map(|(side, _)| *side));
            }
            let mut text = Text { objects: self.objects, options: self.options, path, sink: &mut *sink };
            match resolve(&sides, base, &mut text)? {
                Resolved::One(side) => {
                    finals.insert(path.clone(), side.and_then(|side| side.value));
                    speakers.extend(side.map(|side| (path, side)));
                }
                Resolved::Conflict(sides) => {
                    let mut sides = sides.into_iter();
                    let winner = sides.next();
                    finals.insert(path.clone(), winner.and_then(|side| side.value));
                    speakers.extend(winner.map(|side| (path, side)));
                    losers
                        .extend(sides.filter_map(|side| Some(Loser { path: path.clone(), side, entry: side.value? })));
                }
            }
        }
        // A folder keeps its name against a file; with something in it, it is no empty folder.
        let standing = finals.iter().filter(|(_, value)| value.is_some());
        let folders: BTreeSet<SyncPath> = standing.flat_map(|(path, _)| path.ancestors()).collect();
        for path in folders {
            let Some(Some(entry)) = finals.get(&path).copied() else { continue };
            if let Some((path, contest)) = contested.get_key_value(&path).filter(|_| entry.kind != Kind::EmptyFolder) {
                let side = match speakers.get(path) {
                    Some(side) => Some(*side),
                    None => self.speak_for(path, contest, tips)?.into_iter().find(|side| side.value == Some(entry)),
                };
                losers.extend(side.map(|side| Loser { path: path.clone(), side, entry }));
            }
            finals.insert(path, None);
        }
        Ok((finals, losers))
    }

    /// What the sides have made of a path, each value with the latest of the revisions that speak for it.
    fn speak_for(&mut self, path: &SyncPath, contest: &Contested, tips: &[CommitId]) -> Result<Vec<Side>, StoreError> {
        let mut sides: Vec<Side> = Vec::new();
        for revision in contest.staying() {
            let side = self.speaker(revision, path)?;
            match sides.iter_mut().find(|known| known.value == side.value) {
                Some(known) if (known.mtime, known.origin) < (side.mtime, side.origin) => *known = side,
                Some(_) => {}
                None => sides.push(side),
            }
        }
        if sides.is_empty() {
            // All tips share it, as something that was there before them.
            sides.push(self.side(contest.values[0], tips[0])?);
        }
        Ok(sides)
    }

    /// A revision, with the latest of the commits that brought its content about.
    fn speaker(&mut self, revision: Revision, path: &SyncPath) -> Result<Side, StoreError> {
        let mut latest = self.side(revision.value, revision.commit)?;
        for (number, origin) in self.sides.origins(revision, path)?.into_iter().enumerate() {
            let side = self.side(revision.value, origin)?;
            if number == 0 || (latest.mtime, latest.origin) < (side.mtime, side.origin) {
                latest = side;
            }
        }
        Ok(latest)
    }

    fn side(&mut self, value: Option<Entry>, origin: CommitId) -> Result<Side, StoreError> {
        let commit = self.sides.commit(origin)?;
        let mtime = commit.message().mtime.unwrap_or(Timestamp::new(commit.author.time, 0));
        Ok(Side { value, origin, mtime })
    }

    /// What the last revision of a path was that these of its last revisions have in common, if there is one such.
    fn base(
        &mut self,
        path: &SyncPath,
        revisions: &[Revision],
        tips: &[CommitId],
        reach: &HashMap<CommitId, Colours>,
    ) -> Result<Option<Entry>, StoreError> {
        let lowest = |revision: &Revision| {
            let colours = reach.get(&revision.commit)?;
            (0..tips.len()).find(|&tip| colours.has(tip))
        };
        let with: BTreeSet<usize> = revisions.iter().filter_map(lowest).collect();
        let bases = self.sides.bases(&with.into_iter().map(|tip| tips[tip]).collect::<Vec<_>>())?;
        let values: Vec<Option<Entry>> =
            bases.iter().map(|&base| self.sides.value(base, path)).collect::<Result<_, _>>()?;
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(values.first().copied().flatten());
        }
        let revisions = self.sides.of(&bases, std::slice::from_ref(path))?;
        let one = revisions[0].windows(2).all(|pair| pair[0].value == pair[1].value);
        Ok(revisions[0].first().filter(|_| one).and_then(|revision| revision.value))
    }

    /// Names the copies that keep the losers: those to be added, sorted by path, and all conflicts for the report.
    fn copies(
        &mut self,
        draft: &mut Draft<'_>,
        mut losers: Vec<Loser>,
    ) -> Result<(BTreeMap<SyncPath, Loser>, Vec<Conflict>), StoreError> {
        losers.sort_unstable_by(|a, b| {
            (&a.path, a.side.mtime, a.entry, a.side.origin).cmp(&(&b.path, b.side.mtime, b.entry, b.side.origin))
        });
        let same = |a: Entry, b: Entry| a.id == b.id && a.kind.is_file() == b.kind.is_file();
        let mut copies: BTreeMap<SyncPath, Loser> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for loser in losers {
            let device = self.sides.commit(loser.side.origin)?.author.name.clone();
            for number in 1.. {
                let copy = copy_path(&loser.path, &device, loser.side.mtime, number);
                let there = match draft.at(&copy)? {
                    At::Folder(_) => continue,
                    At::Leaf(entry) => Some(entry),
                    At::Nothing => copies.get(&copy).map(|other| other.entry),
                };
                if there.is_some_and(|entry| !same(entry, loser.entry)) {
                    continue;
                }
                conflicts.push(Conflict {
                    path: loser.path.clone(),
                    copy: copy.clone(),
                    device,
                    time: loser.side.mtime,
                });
                if there.is_none() {
                    copies.insert(copy, loser);
                }
                break;
            }
        }
        Ok((copies, conflicts))
    }
}

/// Merges the texts of one path.
struct Text<'t, 's> {
    objects: &'t Objects,
    options: &'t MergeOptions,
    path: &'t SyncPath,
    sink: &'t mut Sink<'s>,
}

impl Text<'_, '_> {
    /// The content of a blob, if it is text that may be merged.
    fn read(&self, entry: Entry) -> Result<Option<Vec<u8>>, StoreError> {
        match self.objects.header(&entry.id)? {
            Some((ObjectKind::Blob, size)) if size <= self.options.text_limit => {}
            Some((ObjectKind::Blob, _)) => return Ok(None),
            _ => return Err(StoreError::Missing { id: entry.id }),
        }
        let mut text = Vec::new();
        self.objects.read(ObjectKind::Blob, &entry.id, &mut text)?;
        let is_text = !text.contains(&0) && !text.starts_with(RECIPE);
        Ok(is_text.then_some(text))
    }
}

impl TextMerge<StoreError> for Text<'_, '_> {
    fn merge_text(&mut self, base: Entry, sides: &[Entry]) -> Result<Option<ObjectId>, StoreError> {
        let name = self.path.file_name();
        if !self.options.text_patterns.iter().any(|pattern| matches(pattern.as_bytes(), name)) {
            return Ok(None);
        }
        let Some(base) = self.read(base)? else { return Ok(None) };
        let mut merged: Option<Vec<u8>> = None;
        for &side in sides {
            let Some(side) = self.read(side)? else { return Ok(None) };
            merged = match merged {
                None => Some(side),
                Some(so_far) => match text::merge(&base, &so_far, &side) {
                    None => return Ok(None),
                    both => both,
                },
            };
        }
        merged.map(|text| (self.sink)(ObjectKind::Blob, &text)).transpose()
    }
}

/// Whether a name is as a pattern with `*` (anything) and `?` (one byte) says.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut star) = ((0, 0), None);
    while at.1 < name.len() {
        match pattern.get(at.0) {
            Some(b'*') => {
                star = Some(at);
                at.0 += 1;
            }
            Some(&byte) if byte == b'?' || byte.eq_ignore_ascii_case(&name[at.1]) => at = (at.0 + 1, at.1 + 1),
            _ => {
                let Some((pattern_at, name_at)) = star else { return false };
                star = Some((pattern_at, name_at + 1));
                at = (pattern_at + 1, name_at + 1);
            }
        }
    }
    pattern[at.0..].iter().all(|&byte| byte == b'*')
}
