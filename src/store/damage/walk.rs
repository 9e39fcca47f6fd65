//! Walks over everything that history needs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::sound::{Sound, Unsound};
use crate::entry::Kind;
use crate::id::{CommitId, ObjectId, TreeId};
use crate::monitor::{Monitor, Stage};
use crate::store::commit::Commit;
use crate::store::large::Recipe;
use crate::store::large::recipe::{LONGEST, begins_as_one};
use crate::store::objects::ObjectKind;
use crate::store::tree;

/// How deep folders may lie in each other; what is deeper is damage.
const DEEPEST: usize = 1024;

/// Something that history needs and that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// What it is.
    pub kind: ObjectKind,
    /// Why it cannot be had.
    pub why: Unsound,
    /// What the first that needs it is: a ref or a revision.
    pub needed_by: String,
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walked {
    seen: HashSet<ObjectId>,
    /// Objects looked at.
    pub objects: u64,
    /// Revisions reached.
    pub revisions: u64,
    /// What is lost.
    pub lost: BTreeMap<ObjectId, Lost>,
    /// Recipes of which a chunk is lost, or that make no sense, and what is wrong.
    pub recipes: BTreeMap<ObjectId, String>,
    /// The chunks that are needed and here.
    pub chunks: BTreeSet<ObjectId>,
}

impl Walked {
    /// Whether history needs an object, and has it.
    pub fn has(&self, id: &ObjectId) -> bool {
        self.seen.contains(id) && !self.lost.contains_key(id)
    }

    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.recipes.is_empty()
    }

    fn lose(&mut self, kind: ObjectKind, id: ObjectId, why: Unsound, needed_by: &str) {
        self.lost.insert(id, Lost { kind, why, needed_by: needed_by.to_owned() });
    }
}

/// Goes on with a walk: reads every object that these commits need, and was not seen yet, and compares it with its id.
pub fn walk(sound: &Sound, walked: &mut Walked, tips: &[(CommitId, String)], monitor: &dyn Monitor) {
    let mut pending: Vec<(CommitId, String)> = tips.to_vec();
    let mut buffer = Vec::new();
    while let Some((id, needed_by)) = pending.pop() {
        if !walked.seen.insert(id.into()) {
            continue;
        }
        walked.objects += 1;
        monitor.advance(Stage::Check, 1, 0);
        if let Err(why) = sound.read(ObjectKind::Commit, &id.into(), &mut buffer) {
            walked.lose(ObjectKind::Commit, id.into(), why, &needed_by);
            continue;
        }
        walked.revisions += 1;
        let Ok(commit) = Commit::parse(id, &buffer) else { continue };
        pending.extend(commit.parents.iter().map(|&parent| (parent, format!("revision {}", id.short()))));
        folder(sound, walked, commit.tree, 0, &format!("revision {}", id.short()), monitor);
    }
}

/// Looks once more for what is lost, after something was put where it can be found, and goes on from there.
pub fn retry(sound: &Sound, walked: &mut Walked, monitor: &dyn Monitor) {
    let (lost, recipes) = (std::mem::take(&mut walked.lost), std::mem::take(&mut walked.recipes));
    for id in lost.keys().chain(recipes.keys()) {
        walked.seen.remove(id);
    }
    for (id, Lost { kind, needed_by, .. }) in lost {
        match kind {
            ObjectKind::Commit => walk(sound, walked, &[(id.as_commit(), needed_by)], monitor),
            ObjectKind::Tree => folder(sound, walked, id.as_tree(), 0, &needed_by, monitor),
            ObjectKind::Blob if walked.seen.insert(id) => blob(sound, walked, id, Kind::File, &needed_by, monitor),
            ObjectKind::Blob => {}
        }
    }
    for id in recipes.into_keys() {
        if walked.seen.insert(id) {
            blob(sound, walked, id, Kind::File, "a large file", monitor);
        }
    }
}

fn folder(sound: &Sound, walked: &mut Walked, id: TreeId, depth: usize, needed_by: &str, monitor: &dyn Monitor) {
    if id == TreeId::EMPTY || !walked.seen.insert(id.into()) {
        return;
    }
    walked.objects += 1;
    monitor.advance(Stage::Check, 1, 0);
    let mut content = Vec::new();
    if let Err(why) = sound.read(ObjectKind::Tree, &id.into(), &mut content) {
        return walked.lose(ObjectKind::Tree, id.into(), why, needed_by);
    }
    if depth > DEEPEST {
        let why = Unsound::Damaged("folders lie too deep in each other".to_owned());
        return walked.lose(ObjectKind::Tree, id.into(), why, needed_by);
    }
    // A tree with its own id is what somebody has written, whatever it is.
    for entry in tree::entries(&content).flatten() {
        if entry.is_tree() {
            folder(sound, walked, entry.id.as_tree(), depth + 1, needed_by, monitor);
        } else if let Some(leaf) = entry.leaf()
            && walked.seen.insert(entry.id)
        {
            blob(sound, walked, entry.id, leaf.kind, needed_by, monitor);
        }
    }
}

fn blob(sound: &Sound, walked: &mut Walked, id: ObjectId, kind: Kind, needed_by: &str, monitor: &dyn Monitor) {
    walked.objects += 1;
    monitor.advance(Stage::Check, 1, 0);
    let size = match sound.blob(&id) {
        Ok(size) => size,
        Err(why) => return walked.lose(ObjectKind::Blob, id, why, needed_by),
    };
    let Some(recipe) = (if kind.is_file() { recipe(sound, &id, size) } else { None }) else { return };
    for chunk in recipe.chunks() {
        if !walked.seen.insert(chunk.id) {
            if walked.lost.contains_key(&chunk.id) {
                walked.recipes.insert(id, "a chunk of it is lost".to_owned());
            } else {
                walked.chunks.insert(chunk.id);
            }
            continue;
        }
        walked.objects += 1;
        monitor.advance(Stage::Check, 1, 0);
        match sound.blob(&chunk.id) {
            Ok(len) if len == u64::from(chunk.len) => drop(walked.chunks.insert(chunk.id)),
            Ok(len) => {
                let why = format!("its chunk {} has {len} bytes, and not {}", chunk.id, chunk.len);
                walked.recipes.insert(id, why);
            }
            Err(why) => {
                walked.lose(ObjectKind::Blob, chunk.id, why, needed_by);
                walked.recipes.insert(id, "a chunk of it is lost".to_owned());
            }
        }
    }
}

/// The recipe that a blob is, if it is one.
pub(super) fn recipe(sound: &Sound, id: &ObjectId, size: u64) -> Option<Recipe> {
    if size > LONGEST as u64 {
        return None;
    }
    let mut bytes = Vec::new();
    sound.read(ObjectKind::Blob, id, &mut bytes).ok()?;
    if begins_as_one(&bytes) { Recipe::parse(&bytes).ok() } else { None }
}

/// A revision that brought something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introducer {
    /// Which.
    pub commit: CommitId,
    /// Its subject.
    pub subject: String,
    /// What it brought, and where: of a commit's own folder the path is empty.
    pub brought: Vec<(Vec<u8>, ObjectId)>,
}

/// The revisions that brought these objects (commits, folders, contents), those before others first: where a parent
/// holds something else at that path, or cannot be asked.
pub fn introducers(sound: &Sound, tips: &[CommitId], wanted: &BTreeSet<ObjectId>) -> Vec<Introducer> {
    let mut found = Vec::new();
    for id in parents_first(sound, tips) {
        let Some(commit) = read(sound, id) else {
            let brought = vec![(Vec::new(), ObjectId::from(id))];
            found.push(Introducer { commit: id, subject: String::new(), brought });
            continue;
        };
        let olds: Vec<TreeId> =
            commit.parents.iter().filter_map(|&parent| read(sound, parent)).map(|parent| parent.tree).collect();
        let mut brought = Vec::new();
        if !olds.contains(&commit.tree) {
            compare(sound, &olds, commit.tree, &mut Vec::new(), wanted, &mut brought, 0);
        }
        if !brought.is_empty() {
            found.push(Introducer { commit: id, subject: commit.message().subject, brought });
        }
    }
    found
}

fn read(sound: &Sound, id: CommitId) -> Option<Commit> {
    let mut buffer = Vec::new();
    sound.read(ObjectKind::Commit, &id.into(), &mut buffer).ok()?;
    Commit::parse(id, &buffer).ok()
}

/// All commits that these reach, those that cannot be read too, each behind its parents.
fn parents_first(sound: &Sound, tips: &[CommitId]) -> Vec<CommitId> {
    let (mut order, mut entered) = (Vec::new(), HashSet::new());
    let mut stack: Vec<(CommitId, bool)> = tips.iter().map(|&tip| (tip, false)).collect();
    while let Some((id, leaves)) = stack.pop() {
        if leaves {
            order.push(id);
        } else if entered.insert(id) {
            stack.push((id, true));
            stack.extend(read(sound, id).into_iter().flat_map(|commit| commit.parents).map(|parent| (parent, false)));
        }
    }
    order
}

fn compare(
    sound: &Sound,
    olds: &[TreeId],
    new: TreeId,
    path: &mut Vec<u8>,
    wanted: &BTreeSet<ObjectId>,
    brought: &mut Vec<(Vec<u8>, ObjectId)>,
    depth: usize,
) {
    if wanted.contains(&new.into()) {
        brought.push((path.clone(), new.into()));
    }
    let content = |id: TreeId| {
        let mut content = Vec::new();
        let read = id != TreeId::EMPTY && sound.read(ObjectKind::Tree, &id.into(), &mut content).is_ok();
        read.then_some(content)
    };
    let Some(new) = content(new).filter(|_| depth <= DEEPEST) else { return };
    let old_contents: Vec<Vec<u8>> = olds.iter().filter_map(|&old| content(old)).collect();
    let mut before: HashMap<&[u8], Vec<ObjectId>> = HashMap::new();
    for entry in old_contents.iter().flat_map(|content| tree::entries(content)).flatten() {
        before.entry(entry.name).or_default().push(entry.id);
    }
    for entry in tree::entries(&new).flatten() {
        let there = before.get(entry.name).map_or(&[][..], Vec::as_slice);
        if there.contains(&entry.id) {
            continue;
        }
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(entry.name);
        if entry.is_tree() {
            let olds: Vec<TreeId> = there.iter().map(|id| id.as_tree()).collect();
            compare(sound, &olds, entry.id.as_tree(), path, wanted, brought, depth + 1);
        } else if wanted.contains(&entry.id) {
            brought.push((path.clone(), entry.id));
        }
        path.truncate(length);
    }
}

impl Sound {
    /// Of the commits that are here, those whose ancestors are all here, and that no other of these follows.
    pub fn complete(&self) -> Result<Vec<CommitId>, crate::store::StoreError> {
        let mut parents: HashMap<CommitId, Option<Vec<CommitId>>> = HashMap::new();
        let all = self.commits()?;
        let mut complete = HashSet::new();
        for id in parents_first(self, &all) {
            let parents = parents.entry(id).or_insert_with(|| read(self, id).map(|commit| commit.parents));
            if parents.as_ref().is_some_and(|parents| parents.iter().all(|parent| complete.contains(parent))) {
                complete.insert(id);
            }
        }
        let followed: HashSet<CommitId> = parents
            .iter()
            .filter(|(id, _)| complete.contains(id))
            .flat_map(|(_, parents)| parents.iter().flatten().copied())
            .collect();
        let mut tips: Vec<CommitId> = complete.into_iter().filter(|id| !followed.contains(id)).collect();
        tips.sort_unstable();
        Ok(tips)
    }

    /// Of the commits that are here, those that follow `from`, or are it, and that no other one here follows.
    pub fn newest_after(&self, from: CommitId) -> Result<Vec<CommitId>, crate::store::StoreError> {
        let all = self.commits()?;
        let mut after = HashSet::from([from]);
        let mut followed = HashSet::new();
        for id in parents_first(self, &all) {
            let Some(commit) = read(self, id) else { continue };
            // Those that bring a part of another one are in nobody's history.
            if commit.author.email == "instalment@foldersync" {
                continue;
            }
            if commit.parents.iter().any(|parent| after.contains(parent)) {
                after.insert(id);
                followed.extend(commit.parents);
            }
        }
        let mut newest: Vec<CommitId> = after.into_iter().filter(|id| !followed.contains(id)).collect();
        newest.sort_unstable();
        Ok(newest)
    }
}

impl Sound {
    /// The chunks that the branch with this commit keeps; `None` if it cannot be read.
    pub fn kept_chunks(&self, commit: CommitId) -> Option<HashSet<ObjectId>> {
        let content = |id: TreeId| {
            let mut content = Vec::new();
            self.read(ObjectKind::Tree, &id.into(), &mut content).ok().map(|()| content)
        };
        let mut kept = HashSet::new();
        let root = content(read(self, commit)?.tree)?;
        for folder in tree::entries(&root).flatten() {
            kept.extend(tree::entries(&content(folder.id.as_tree())?).flatten().map(|entry| entry.id));
        }
        Some(kept)
    }
}
