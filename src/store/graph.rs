//! Exact questions on the graph of commits: who is whose ancestor, what does one side have that the other lacks.
//!
//! Clocks lie, so no answer depends on dates: walks go by *generation* (one more than the highest of the parents), in
//! which every commit is met after all its descendants. Generations are kept in a derived file, `graph`, for histories
//! of a million commits. The file holds only facts about commits, which never change: when it is missing, damaged or
//! behind, what it lacks is read from the commits themselves, and whoever had to read many writes it anew when it is
//! dropped (beside, then renamed over; it is not synced, since a torn one is noticed by its checksum). It is never the
//! truth. All who ask at one time share one copy of it in memory.
//!
//! The file: `FSGRAPH1`, then as little-endian `u32` the number of commits and of further parents; the ids, sorted; a
//! generation each; two parents each, as places in that order; the further parents; CRC-32 of all that. No parent is
//! `NONE`; a second parent with the bit `MORE` says where among the further parents the rest begin, of which the
//! last has that bit.

use std::cell::RefCell;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::error::StoreError;
use super::objects::{ObjectKind, Objects};
use crate::id::CommitId;

const MAGIC: &[u8; 8] = b"FSGRAPH1";
const HEADER: usize = 16;
const NONE: u32 = u32::MAX;
const MORE: u32 = 1 << 31;
/// The file is worth writing for so many commits outside it, and for this share of those in it: reading a commit takes
/// some hundred times as long as writing what the file says of one.
const WORTH_SAVING: usize = 256;
const WORTH_SAVING_SHARE: usize = 1024;

/// The graph of commits of one repository; for one thread, as its [`Objects`].
pub struct Graph {
    objects: Objects,
    file: Option<Arc<GraphFile>>,
    state: RefCell<State>,
}

/// The file that keeps the graph of one repository, in memory for as long as somebody needs it.
#[derive(Debug)]
pub struct GraphFile {
    path: PathBuf,
    read: Mutex<Weak<Filed>>,
}

/// Commits are numbered: first those in the file, in its order, then those read since.
#[derive(Default)]
struct State {
    opened: bool,
    filed: Arc<Filed>,
    young: Young,
}

/// What the file holds.
#[derive(Debug, Default)]
struct Filed {
    bytes: Vec<u8>,
    count: usize,
}

/// What was read from commits.
#[derive(Default)]
struct Young {
    ids: Vec<CommitId>,
    generations: Vec<u32>,
    parents: Vec<[u32; 2]>,
    further: Vec<u32>,
    /// From the first bytes of an id to the youngest commit that begins so; `next` leads to the others.
    by_prefix: HashMap<u32, u32>,
    next: Vec<u32>,
}

impl GraphFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    /// What it holds. Missing, unreadable and damaged come to the same: the commits are read instead.
    fn load(&self) -> Arc<Filed> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.upgrade().unwrap_or_else(|| {
            let filed = Arc::new(fs::read(&self.path).ok().and_then(Filed::parse).unwrap_or_default());
            *read = Arc::downgrade(&filed);
            filed
        })
    }

    fn save(&self, state: &State) -> Result<(), StoreError> {
        let path = &self.path;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(StoreError::io("write", path))?;
        let mut out = BufWriter::new(file.as_file_mut());
        state.write(&mut out).and_then(|()| out.flush()).map_err(StoreError::io("write", path))?;
        drop(out);
        file.persist(path).map_err(|error| error.error).map_err(StoreError::io("write", path))?;
        // Who asks from now on reads the new one, also while somebody still holds the old.
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Weak::new();
        Ok(())
    }
}

impl Filed {
    /// The file's content, if it is whole.
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let body = bytes.len().checked_sub(4).filter(|&body| body >= HEADER)?;
        let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let (count, further) = (number(8)? as usize, number(12)? as usize);
        let whole = &bytes[..8] == MAGIC
            && body == HEADER + count * 32 + further * 4
            && crc32fast::hash(&bytes[..body]) == number(body)?;
        whole.then_some(Self { bytes, count })
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.bytes[at..at + 4].try_into().expect("four bytes were taken");
        u32::from_le_bytes(bytes)
    }

    fn id(&self, node: usize) -> CommitId {
        let at = HEADER + node * 20;
        CommitId::from_slice(&self.bytes[at..at + 20]).expect("twenty bytes were taken")
    }

    fn find(&self, id: CommitId) -> Option<u32> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.id(middle).cmp(&id) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return u32::try_from(middle).ok(),
            }
        }
        None
    }

    fn generation(&self, node: usize) -> u32 {
        self.number(HEADER + self.count * 20 + node * 4)
    }

    fn parents(&self, node: usize) -> [u32; 2] {
        let at = HEADER + self.count * 24 + node * 8;
        [self.number(at), self.number(at + 4)]
    }

    fn further(&self, index: usize) -> u32 {
        self.number(HEADER + self.count * 32 + index * 4)
    }
}

impl Young {
    fn prefix(id: CommitId) -> u32 {
        let [a, b, c, d, ..] = *id.as_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn find(&self, id: CommitId) -> Option<usize> {
        let mut at = *self.by_prefix.get(&Self::prefix(id))?;
        while at != NONE {
            if self.ids[at as usize] == id {
                return Some(at as usize);
            }
            at = self.next[at as usize];
        }
        None
    }

    /// Makes room for a commit, of which nothing but the id is known yet.
    fn push(&mut self, id: CommitId) -> usize {
        let index = self.ids.len();
        let number = u32::try_from(index).expect("a history has fewer than 2^31 commits");
        let before = self.by_prefix.insert(Self::prefix(id), number);
        self.ids.push(id);
        self.generations.push(0);
        self.parents.push([NONE; 2]);
        self.next.push(before.unwrap_or(NONE));
        index
    }

    /// Forgets all but the first `length` commits.
    fn truncate(&mut self, length: usize, further: usize) {
        while self.ids.len() > length {
            let (Some(id), Some(next)) = (self.ids.pop(), self.next.pop()) else { break };
            match next {
                NONE => self.by_prefix.remove(&Self::prefix(id)),
                next => self.by_prefix.insert(Self::prefix(id), next),
            };
        }
        self.generations.truncate(length);
        self.parents.truncate(length);
        self.further.truncate(further);
    }
}

impl State {
    fn open(&mut self, file: Option<&GraphFile>) {
        if !self.opened {
            self.opened = true;
            self.filed = file.map(GraphFile::load).unwrap_or_default();
        }
    }

    fn number(&self, young: usize) -> u32 {
        u32::try_from(self.filed.count + young).expect("a history has fewer than 2^31 commits")
    }

    fn young(&self, node: u32) -> Result<usize, usize> {
        (node as usize).checked_sub(self.filed.count).ok_or(node as usize)
    }

    fn find(&self, id: CommitId) -> Option<u32> {
        self.young.find(id).map(|young| self.number(young)).or_else(|| self.filed.find(id))
    }

    fn id(&self, node: u32) -> CommitId {
        self.young(node).map_or_else(|filed| self.filed.id(filed), |young| self.young.ids[young])
    }

    fn generation(&self, node: u32) -> u32 {
        self.young(node).map_or_else(|filed| self.filed.generation(filed), |young| self.young.generations[young])
    }

    fn parents(&self, node: u32) -> Vec<u32> {
        let young = self.young(node);
        let [first, second] = young.map_or_else(|filed| self.filed.parents(filed), |young| self.young.parents[young]);
        if second == NONE || second & MORE == 0 {
            return [first, second].into_iter().filter(|&parent| parent != NONE).collect();
        }
        let mut parents = vec![first];
        for index in (second ^ MORE) as usize.. {
            let parent = if young.is_ok() { self.young.further[index] } else { self.filed.further(index) };
            parents.push(parent & !MORE);
            if parent & MORE != 0 {
                break;
            }
        }
        parents
    }

    fn set_parents(&mut self, young: usize, parents: &[u32]) {
        self.young.parents[young] = match *parents {
            [] => [NONE; 2],
            [one] => [one, NONE],
            [one, two] => [one, two],
            [one, ref rest @ .., last] => {
                let at = u32::try_from(self.young.further.len()).expect("a history has fewer than 2^31 parents");
                self.young.further.extend_from_slice(rest);
                self.young.further.push(last | MORE);
                [one, at | MORE]
            }
        };
    }

    /// The number of a commit; it and what it follows are read where they are not known yet.
    fn node(&mut self, objects: &Objects, id: CommitId) -> Result<u32, StoreError> {
        if let Some(node) = self.find(id) {
            return Ok(node);
        }
        let (length, further) = (self.young.ids.len(), self.young.further.len());
        let read = self.read(objects, id);
        if read.is_err() {
            self.young.truncate(length, further);
        }
        read
    }

    fn read(&mut self, objects: &Objects, id: CommitId) -> Result<u32, StoreError> {
        let first = self.young.push(id);
        let mut buffer = Vec::new();
        let mut at = first;
        while at < self.young.ids.len() {
            let id = self.young.ids[at];
            objects.read(ObjectKind::Commit, &id.into(), &mut buffer)?;
            let mut parents = Vec::new();
            for parent in parents_in(id, &buffer) {
                let parent = parent?;
                let known = self.find(parent);
                parents.push(known.unwrap_or_else(|| {
                    let young = self.young.push(parent);
                    self.number(young)
                }));
            }
            self.set_parents(at, &parents);
            at += 1;
        }
        let root = self.number(first);
        let mut stack = vec![root];
        while let Some(&node) = stack.last() {
            let parents = self.parents(node);
            if let Some(&unknown) = parents.iter().find(|&&parent| self.generation(parent) == 0) {
                stack.push(unknown);
                continue;
            }
            let highest = parents.iter().map(|&parent| self.generation(parent)).max().unwrap_or(0);
            if let Ok(young) = self.young(node) {
                self.young.generations[young] = highest + 1;
            }
            stack.pop();
        }
        Ok(root)
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = self.filed.count + self.young.ids.len();
        let total = self.number(self.young.ids.len());
        let mut young: Vec<u32> = (self.number(0)..total).collect();
        young.sort_unstable_by_key(|&node| self.id(node));
        let mut order: Vec<u32> = Vec::with_capacity(count);
        let (mut next, filed) = (0, self.number(0));
        for node in young {
            let (from, id) = (next, self.id(node));
            while next < filed && self.id(next) < id {
                next += 1;
            }
            order.extend(from..next);
            order.push(node);
        }
        order.extend(next..filed);
        let mut place = vec![0; count];
        for (at, &node) in (0..).zip(&order) {
            place[node as usize] = at;
        }
        let mut further: Vec<u32> = Vec::new();
        let mut parents = Vec::with_capacity(count);
        for &node in &order {
            let all: Vec<u32> = self.parents(node).into_iter().map(|parent| place[parent as usize]).collect();
            parents.push(match all[..] {
                [] => [NONE; 2],
                [one] => [one, NONE],
                [one, two] => [one, two],
                [one, ref rest @ .., last] => {
                    let at = u32::try_from(further.len()).map_err(io::Error::other)?;
                    further.extend_from_slice(rest);
                    further.push(last | MORE);
                    [one, at | MORE]
                }
            });
        }
        let mut out = Summed { out, sum: crc32fast::Hasher::new() };
        out.write_all(MAGIC)?;
        out.write_all(&total.to_le_bytes())?;
        out.write_all(&u32::try_from(further.len()).map_err(io::Error::other)?.to_le_bytes())?;
        order.iter().try_for_each(|&node| out.write_all(self.id(node).as_bytes()))?;
        order.iter().try_for_each(|&node| out.write_all(&self.generation(node).to_le_bytes()))?;
        parents.iter().flatten().chain(&further).try_for_each(|parent| out.write_all(&parent.to_le_bytes()))?;
        let sum = out.sum.finalize();
        out.out.write_all(&sum.to_le_bytes())
    }
}

/// Sums what passes through.
struct Summed<'a> {
    out: &'a mut dyn Write,
    sum: crc32fast::Hasher,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sum.update(bytes);
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The parents that the bytes of a commit name, without taking the rest apart.
fn parents_in(id: CommitId, bytes: &[u8]) -> impl Iterator<Item = Result<CommitId, StoreError>> + '_ {
    let lines = bytes.split(|&byte| byte == b'\n').skip(1);
    lines.map_while(|line| line.strip_prefix(b"parent ")).map(move |hex| {
        let parent = std::str::from_utf8(hex).ok().and_then(|hex| hex.parse().ok());
        parent.ok_or_else(|| StoreError::damaged(format!("commit {id}"), "a parent's id cannot be read"))
    })
}

/// The colours that a walk has painted a commit with: a set of small numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Colours(Vec<u64>);

impl Colours {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn all(count: usize) -> Self {
        let mut all = Self::none(count);
        (0..count).for_each(|colour| all.add(colour));
        all
    }

    fn add(&mut self, colour: usize) {
        self.0[colour / 64] |= 1 << (colour % 64);
    }

    fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, others)| *mine |= others);
    }

    /// Whether the colour is among them.
    pub fn has(&self, colour: usize) -> bool {
        self.0.get(colour / 64).is_some_and(|word| word & 1 << (colour % 64) != 0)
    }
}

/// A walk down from seeds, each of another colour, that meets every commit after all its descendants, and so with all
/// the colours that it will ever have. It is over when only *settled* commits, whose colours bring nothing new, are
/// left to meet.
struct Painting<'a> {
    state: &'a State,
    settled: &'a dyn Fn(&Colours) -> bool,
    painted: HashMap<u32, Colours>,
    queue: BinaryHeap<(u32, u32)>,
    unsettled: usize,
}

impl<'a> Painting<'a> {
    /// Paints from `seeds` down. `visit` may add to a commit's colours, which are then passed on to its parents.
    fn paint(
        state: &'a State,
        seeds: impl IntoIterator<Item = (u32, usize)>,
        colours: usize,
        settled: &'a dyn Fn(&Colours) -> bool,
        visit: &mut dyn FnMut(u32, &mut Colours),
    ) {
        let mut walk = Self { state, settled, painted: HashMap::new(), queue: BinaryHeap::new(), unsettled: 0 };
        for (seed, colour) in seeds {
            let mut own = Colours::none(colours);
            own.add(colour);
            walk.reach(seed, &own);
        }
        while walk.unsettled > 0
            && let Some((_, node)) = walk.queue.pop()
            && let Some(mut colours) = walk.painted.remove(&node)
        {
            walk.unsettled -= usize::from(!settled(&colours));
            visit(node, &mut colours);
            state.parents(node).into_iter().for_each(|parent| walk.reach(parent, &colours));
        }
    }

    fn reach(&mut self, node: u32, colours: &Colours) {
        if let Some(known) = self.painted.get_mut(&node) {
            let before = (self.settled)(known);
            known.add_all(colours);
            self.unsettled -= usize::from(!before && (self.settled)(known));
        } else {
            self.unsettled += usize::from(!(self.settled)(colours));
            self.painted.insert(node, colours.clone());
            self.queue.push((self.state.generation(node), node));
        }
    }
}

impl Graph {
    /// The graph of the commits in `objects`, kept in memory only.
    pub fn new(objects: Objects) -> Self {
        Self::open(objects, None)
    }

    /// The graph of the commits in `objects`, with what `file` has kept of it.
    pub fn open(objects: Objects, file: Option<Arc<GraphFile>>) -> Self {
        Self { objects, file, state: RefCell::default() }
    }

    /// Whether a file of a graph is damaged. One that is, is as good as none.
    pub fn is_damaged(file: &Path) -> bool {
        fs::read(file).is_ok_and(|bytes| Filed::parse(bytes).is_none())
    }

    /// Makes the commits known, then asks.
    fn ask<T>(
        &self,
        ids: impl IntoIterator<Item = CommitId>,
        question: impl FnOnce(&State, &[u32]) -> T,
    ) -> Result<T, StoreError> {
        let mut state = self.state.borrow_mut();
        state.open(self.file.as_deref());
        let nodes: Vec<u32> =
            ids.into_iter().map(|id| state.node(&self.objects, id)).collect::<Result<_, StoreError>>()?;
        Ok(question(&state, &nodes))
    }

    /// The revisions that a revision follows.
    pub fn parents(&self, id: CommitId) -> Result<Vec<CommitId>, StoreError> {
        self.ask([id], |state, nodes| state.parents(nodes[0]).into_iter().map(|parent| state.id(parent)).collect())
    }

    /// One more than the highest generation of the parents; 1 without parents.
    pub fn generation(&self, id: CommitId) -> Result<u32, StoreError> {
        self.ask([id], |state, nodes| state.generation(nodes[0]))
    }

    /// Whether `b` follows `a`, or is `a`.
    pub fn is_ancestor(&self, a: CommitId, b: CommitId) -> Result<bool, StoreError> {
        self.ask([a, b], |state, nodes| {
            let (a, b) = (nodes[0], nodes[1]);
            let floor = state.generation(a);
            let (mut stack, mut seen) = (vec![b], HashSet::new());
            while let Some(node) = stack.pop() {
                if node == a {
                    return true;
                }
                let above = |&parent: &u32| parent == a || state.generation(parent) > floor;
                stack.extend(state.parents(node).into_iter().filter(above).filter(|&parent| seen.insert(parent)));
            }
            false
        })
    }

    /// Every commit that some of `tips` follow (or are) but none of `hidden`: parents before children, in an order
    /// that depends on the commits alone.
    pub fn range(&self, tips: &[CommitId], hidden: &[CommitId]) -> Result<Vec<CommitId>, StoreError> {
        const HIDDEN: usize = 1;
        self.ask(tips.iter().chain(hidden).copied(), |state, nodes| {
            let seeds = nodes.iter().enumerate().map(|(at, &node)| (node, usize::from(at >= tips.len())));
            let mut found = Vec::new();
            Painting::paint(state, seeds, 2, &|colours| colours.has(HIDDEN), &mut |node, colours| {
                if !colours.has(HIDDEN) {
                    found.push(node);
                }
            });
            found.sort_by_cached_key(|&node| (state.generation(node), state.id(node)));
            found.into_iter().map(|node| state.id(node)).collect()
        })
    }

    /// Every commit that some of `tips` follow (or are) but not all of them, with the numbers of the tips that do;
    /// ordered as in [`Graph::range`].
    pub fn unshared(&self, tips: &[CommitId]) -> Result<Vec<(CommitId, Colours)>, StoreError> {
        self.ask(tips.iter().copied(), |state, nodes| {
            let seeds = nodes.iter().copied().zip(0..);
            let all = Colours::all(tips.len());
            let mut found = Vec::new();
            Painting::paint(state, seeds, tips.len(), &|colours| *colours == all, &mut |node, colours| {
                if *colours != all {
                    found.push((node, colours.clone()));
                }
            });
            found.sort_by_cached_key(|&(node, _)| (state.generation(node), state.id(node)));
            found.into_iter().map(|(node, colours)| (state.id(node), colours)).collect()
        })
    }

    /// The last commits that all of `tips` follow (or are), sorted: more than one where histories cross.
    pub fn merge_bases(&self, tips: &[CommitId]) -> Result<Vec<CommitId>, StoreError> {
        self.ask(tips.iter().copied(), |state, nodes| {
            let seeds = nodes.iter().copied().zip(0..);
            let below = tips.len();
            let mut bases = Vec::new();
            Painting::paint(state, seeds, tips.len() + 1, &|colours| colours.has(below), &mut |node, colours| {
                if !colours.has(below) && (0..tips.len()).all(|tip| colours.has(tip)) {
                    bases.push(state.id(node));
                    colours.add(below);
                }
            });
            bases.sort_unstable();
            bases
        })
    }

    /// Those of `set` that no other of them follows, sorted, each once.
    pub fn heads_of(&self, set: &[CommitId]) -> Result<Vec<CommitId>, StoreError> {
        self.ask(set.iter().copied(), |state, nodes| {
            let mut heads: HashSet<u32> = nodes.iter().copied().collect();
            let floor = heads.iter().map(|&node| state.generation(node)).min().unwrap_or(0);
            let mut seen = heads.clone();
            let mut queue: BinaryHeap<_> = heads.iter().map(|&node| (state.generation(node), node)).collect();
            // One that is left above all the others has nobody left to be followed by it.
            while let Some((_, node)) = queue.pop()
                && heads.len() > 1
            {
                for parent in state.parents(node) {
                    heads.remove(&parent);
                    let generation = state.generation(parent);
                    if generation > floor && seen.insert(parent) {
                        queue.push((generation, parent));
                    }
                }
            }
            let mut heads: Vec<_> = heads.into_iter().map(|node| state.id(node)).collect();
            heads.sort_unstable();
            heads
        })
    }
}

impl Drop for Graph {
    /// Spares the next run the reading of many commits. Where nothing can be written, that run reads them again.
    fn drop(&mut self) {
        let state = self.state.take();
        let worth = WORTH_SAVING.max(state.filed.count / WORTH_SAVING_SHARE);
        if let Some(file) = &self.file
            && state.young.ids.len() >= worth
            && !std::thread::panicking()
        {
            drop(file.save(&state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TreeId;
    use crate::store::commit::{Commit, Signature};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A repository whose commits follow each other as told, with dates as told.
    struct Repository {
        folder: tempfile::TempDir,
        ids: Vec<CommitId>,
        parents: Vec<Vec<usize>>,
    }

    fn write_commit(folder: &Path, commit: &Commit) -> CommitId {
        let hex = commit.id().to_string();
        let bytes = commit.to_bytes();
        let path = folder.join(&hex[..2]).join(&hex[2..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = flate2::write::ZlibEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
        file.write_all(format!("commit {}\0", bytes.len()).as_bytes()).unwrap();
        file.write_all(&bytes).unwrap();
        file.finish().unwrap();
        commit.id()
    }

    impl Repository {
        fn new(parents: &[Vec<usize>], dates: &[i64]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut ids: Vec<CommitId> = Vec::new();
            for (number, (parents, &time)) in parents.iter().zip(dates).enumerate() {
                let who = Signature { name: "a".to_owned(), email: "a@b".to_owned(), time };
                let commit = Commit {
                    tree: TreeId::EMPTY,
                    parents: parents.iter().map(|&parent| ids[parent]).collect(),
                    author: who.clone(),
                    committer: who,
                    message: format!("{number}\n").into_bytes(),
                };
                ids.push(write_commit(folder.path(), &commit));
            }
            Self { folder, ids, parents: parents.to_vec() }
        }

        fn objects(&self) -> Objects {
            Objects::open(self.folder.path()).unwrap()
        }

        fn reachable(&self, from: &[usize]) -> BTreeSet<usize> {
            let mut found = BTreeSet::new();
            let mut stack = from.to_vec();
            while let Some(commit) = stack.pop() {
                if found.insert(commit) {
                    stack.extend(&self.parents[commit]);
                }
            }
            found
        }

        fn number(&self, id: CommitId) -> usize {
            self.ids.iter().position(|&known| known == id).unwrap()
        }

        fn pick(&self, of: &[prop::sample::Index]) -> Vec<usize> {
            of.iter().map(|index| index.index(self.ids.len())).collect()
        }

        fn ids(&self, of: &[usize]) -> Vec<CommitId> {
            of.iter().map(|&commit| self.ids[commit]).collect()
        }

        fn numbers(&self, ids: &[CommitId]) -> BTreeSet<usize> {
            let numbers: BTreeSet<_> = ids.iter().map(|&id| self.number(id)).collect();
            assert_eq!(numbers.len(), ids.len(), "each once");
            numbers
        }
    }

    /// Random parents (mostly one, of a recent commit) and dates that mean nothing.
    fn histories() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<i64>)> {
        let commit = (prop::collection::vec(0usize..6, 0..5), 0i64..1000);
        prop::collection::vec(commit, 1..40).prop_map(|commits| {
            let mut parents: Vec<Vec<usize>> = Vec::new();
            let mut dates = Vec::new();
            for (number, (back, date)) in commits.into_iter().enumerate() {
                let mut own: Vec<_> = back.into_iter().filter_map(|back| number.checked_sub(back + 1)).collect();
                own.sort_unstable();
                own.dedup();
                parents.push(own);
                dates.push(date);
            }
            (parents, dates)
        })
    }

    fn check(repository: &Repository, graph: &Graph, tips: &[usize], hidden: &[usize]) {
        let (a, b) = (tips[0], hidden[0]);
        let reachable = |from: &[usize]| repository.reachable(from);
        assert_eq!(graph.is_ancestor(repository.ids[a], repository.ids[b]).unwrap(), reachable(&[b]).contains(&a));

        let range = graph.range(&repository.ids(tips), &repository.ids(hidden)).unwrap();
        let expected: BTreeSet<_> = reachable(tips).difference(&reachable(hidden)).copied().collect();
        assert_eq!(repository.numbers(&range), expected);
        for (at, &id) in range.iter().enumerate() {
            let parents = &repository.parents[repository.number(id)];
            assert!(!range[at..].iter().any(|later| parents.contains(&repository.number(*later))), "parents first");
        }

        let all: Vec<_> = tips.iter().map(|&tip| reachable(&[tip])).collect();
        let shared = all.iter().skip(1).fold(all[0].clone(), |shared, more| &shared & more);
        let unshared = graph.unshared(&repository.ids(tips)).unwrap();
        let expected: BTreeSet<_> = reachable(tips).difference(&shared).copied().collect();
        assert_eq!(repository.numbers(&unshared.iter().map(|(id, _)| *id).collect::<Vec<_>>()), expected);
        for (id, colours) in unshared {
            let number = repository.number(id);
            assert!(all.iter().enumerate().all(|(tip, reach)| reach.contains(&number) == colours.has(tip)));
        }

        let maximal = |set: &BTreeSet<usize>| -> BTreeSet<usize> {
            let below = |&commit: &usize| set.iter().any(|&o| o != commit && reachable(&[o]).contains(&commit));
            set.iter().copied().filter(|commit| !below(commit)).collect()
        };
        assert_eq!(repository.numbers(&graph.merge_bases(&repository.ids(tips)).unwrap()), maximal(&shared));
        let heads = graph.heads_of(&repository.ids(tips)).unwrap();
        assert_eq!(repository.numbers(&heads), maximal(&tips.iter().copied().collect()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn answers_as_a_naive_walk_does_whatever_the_dates(
            (parents, dates) in histories(),
            tips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
            hidden in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
            filed in any::<prop::sample::Index>(),
        ) {
            let repository = Repository::new(&parents, &dates);
            let (tips, hidden) = (repository.pick(&tips), repository.pick(&hidden));
            let file = Arc::new(GraphFile::new(repository.folder.path().join("graph")));
            let graph = Graph::open(repository.objects(), Some(file.clone()));
            check(&repository, &graph, &tips, &hidden);

            // The same with some of it from the file, and with what then is in the file.
            let part = Graph::open(repository.objects(), Some(file.clone()));
            part.generation(repository.ids[filed.index(repository.ids.len())]).unwrap();
            file.save(&part.state.borrow()).unwrap();
            let graph = Graph::open(repository.objects(), Some(file.clone()));
            check(&repository, &graph, &tips, &hidden);
            file.save(&graph.state.borrow()).unwrap();
            let graph = Graph::open(repository.objects(), Some(file));
            check(&repository, &graph, &tips, &hidden);
        }
    }

    #[test]
    fn more_tips_than_a_word_has_bits() {
        let parents: Vec<_> = std::iter::once(vec![]).chain((0..70).map(|_| vec![0])).collect();
        let repository = Repository::new(&parents, &vec![0; 71]);
        let tips: Vec<_> = (1..71).collect();
        check(&repository, &Graph::new(repository.objects()), &tips, &[0]);
    }

    #[test]
    fn a_missing_parent_is_an_error_and_stays_one() {
        let repository = Repository::new(&[vec![], vec![0]], &[0, 0]);
        let root = repository.ids[0].to_string();
        fs::remove_file(repository.folder.path().join(&root[..2]).join(&root[2..])).unwrap();
        let graph = Graph::new(repository.objects());
        for _ in 0..2 {
            assert!(matches!(graph.generation(repository.ids[1]), Err(StoreError::Missing { .. })));
            assert!(matches!(graph.generation(repository.ids[0]), Err(StoreError::Missing { .. })));
        }
        assert!(graph.state.borrow().young.by_prefix.is_empty());
    }

    #[test]
    fn who_had_to_read_many_commits_leaves_a_file() {
        let chain = |count: usize| (0..count).map(|n| n.checked_sub(1).into_iter().collect()).collect::<Vec<_>>();
        let repository = Repository::new(&chain(700), &[0; 700]);
        let file = Arc::new(GraphFile::new(repository.folder.path().join("graph")));
        let filed_after = |reads: usize| {
            let graph = Graph::open(repository.objects(), Some(file.clone()));
            graph.generation(repository.ids[reads - 1]).unwrap();
            drop(graph);
            fs::read(&file.path).ok().and_then(Filed::parse).unwrap_or_default().count
        };
        assert_eq!([10, 300, 400, 700].map(filed_after), [0, 300, 300, 700]);
    }

    #[test]
    fn who_asks_at_one_time_shares_one_copy_until_a_newer_one_is_written() {
        let repository = Repository::new(&[vec![], vec![0]], &[0; 2]);
        let file = Arc::new(GraphFile::new(repository.folder.path().join("graph")));
        let graphs = [0, 1].map(|at| {
            let graph = Graph::open(repository.objects(), Some(file.clone()));
            graph.generation(repository.ids[at]).unwrap();
            graph
        });
        let filed = |graph: &Graph| graph.state.borrow().filed.clone();
        assert!(Arc::ptr_eq(&filed(&graphs[0]), &filed(&graphs[1])));
        file.save(&graphs[1].state.borrow()).unwrap();
        let later = Graph::open(repository.objects(), Some(file));
        later.generation(repository.ids[1]).unwrap();
        assert_eq!([filed(&later).count, filed(&graphs[0]).count], [2, 0]);
    }

    #[test]
    fn a_damaged_file_is_passed_over() {
        let parents: Vec<_> = (0..10usize).map(|n| n.checked_sub(1).into_iter().collect()).collect();
        let repository = Repository::new(&parents, &[0; 10]);
        let file = Arc::new(GraphFile::new(repository.folder.path().join("graph")));
        let tip = repository.ids[9];
        let graph = Graph::open(repository.objects(), Some(file.clone()));
        graph.generation(tip).unwrap();
        file.save(&graph.state.borrow()).unwrap();
        drop(graph);
        let whole = fs::read(&file.path).unwrap();
        let known = |bytes: &[u8]| {
            fs::write(&file.path, bytes).unwrap();
            let graph = Graph::open(repository.objects(), Some(file.clone()));
            assert_eq!(graph.generation(tip).unwrap(), 10);
            graph.state.take().filed.count
        };
        assert_eq!(known(&whole), 10);
        for cut in 0..whole.len() {
            assert_eq!(known(&whole[..cut]), 0);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x40;
            assert_eq!(known(&flipped), 0, "byte {at}");
        }
    }
}
