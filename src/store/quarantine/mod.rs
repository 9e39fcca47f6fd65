//! Receiving a pack from somebody who is not trusted: received, indexed, checked, and only then admitted.
//!
//! Owns the file that a pack is received into, until [`VerifiedPack::admit`] makes it a pack of the repository. The
//! three steps are three types: what was not checked cannot be admitted. Whatever fails, and wherever a kill comes,
//! nothing of the pack is visible to anybody; dropped, it leaves nothing behind (a kill leaves a `tmp_foldersync_…`).
//!
//! # What is checked
//!
//! - The pack itself: checksum, count, sizes, deltas, no object twice, nothing behind it. Every object's id is computed
//!   here (and attempts at SHA-1 collisions are noticed); deltas against objects that the repository has are completed.
//! - Every tree: names that git and [`crate::path`] accept, modes that foldersync keeps, the order of names, no name
//!   twice. What a tree shares with the tree that it is a delta against was checked there.
//! - Every reference of a tree or a commit: an object of the right kind, in the pack or the repository.
//! - That the prerequisites are here, and the tips are commits.
//!
//! # What it may cost
//!
//! Whatever the pack: less than 128 MiB of memory, and on disk the pack. Sizes are compared with [`Limits`] before anything
//! is allocated; large contents are hashed as they pass.
//!
//! # Whether the pack is an ordered one
//!
//! It is (see [`super::pack`]) if each of its commits follows the one before it, they follow all prerequisites, and
//! nothing refers to what stands behind it. Bases that complete it come behind the last commit. Other packs are admitted without the marker.

mod intake;
mod spool;
mod trees;

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use tempfile::NamedTempFile;

use self::intake::{Entry, Indexed, Intake, NewCommit};
use self::spool::{Content, OnDisk, Received, Spool};
use super::bundle::BundleHeader;
use super::error::StoreError;
use super::objects::{ObjectKind, Objects};
use super::pack::writer::{Order, publish, temporary};
use crate::id::{CommitId, ObjectId};

/// How much of what a pack may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The bytes of the pack: what it may take on disk.
    pub pack_bytes: u64,
    /// The objects in it.
    pub objects: u32,
    /// The bytes of an object that has to be held in memory: trees, commits, deltas, what these are made against.
    pub held_bytes: usize,
    /// The bytes of a content.
    pub blob_bytes: u64,
    /// The deltas from an object back to a whole one.
    pub chain: usize,
    /// How deep folders may lie in each other, as far as inner ones come before outer ones, as they do from foldersync.
    /// Whoever walks a tree has a limit of its own.
    pub depth: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pack_bytes: 64 << 30,
            objects: 500_000,
            held_bytes: 8 << 20,
            blob_bytes: 1 << 40,
            chain: 512,
            depth: 1024,
        }
    }
}

fn damaged(detail: impl ToString) -> StoreError {
    StoreError::damaged("the received pack", detail)
}

#[expect(clippy::needless_pass_by_value, reason = "so that errors and texts alike can be passed")]
fn hostile(what: impl Into<String>, detail: impl ToString) -> StoreError {
    StoreError::Hostile { what: what.into(), detail: detail.to_string() }
}

fn too_large(what: &str, limit: u64) -> StoreError {
    StoreError::TooLarge { what: what.to_owned(), limit }
}

/// A pack that lies on disk with all its ids known, but is not checked.
pub struct QuarantinedPack {
    header: BundleHeader,
    file: NamedTempFile,
    indexed: Indexed,
}

/// A pack that was checked.
pub struct VerifiedPack {
    file: NamedTempFile,
    entries: Vec<Entry>,
    checksum: [u8; 20],
    commits: Vec<CommitId>,
    tips: Vec<CommitId>,
    ordered: bool,
    unreferenced: u64,
    chunks: BTreeSet<ObjectId>,
}

/// A pack that is part of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its name; `None` if there was nothing in it.
    pub pack: Option<String>,
    /// Its commits, parents first.
    pub commits: Vec<CommitId>,
    /// The tips that it was sent with; the main one is the first.
    pub tips: Vec<CommitId>,
    /// How many objects it has.
    pub objects: u64,
    /// The bytes of the pack.
    pub bytes: u64,
    /// The chunks that the large files in it are made of: to be kept (see [`super::large`]).
    pub chunks: BTreeSet<ObjectId>,
}

/// Where the entries of a pack end, and the checksum behind them.
type End = (u64, [u8; 20]);

/// A pack that is being received, by a thread of its own: taken apart, and written to the disk.
pub struct Incoming<'scope> {
    header: BundleHeader,
    file: NamedTempFile,
    limits: Limits,
    entries: Receiver<Vec<Received>>,
    spooling: ScopedJoinHandle<'scope, Result<Option<End>, StoreError>>,
}

/// Receives the pack behind a bundle's header into `dir`, which is on the file system of the packs, and indexes it.
/// `objects` is the repository that its deltas may stand on.
pub fn receive(
    dir: &Path,
    header: BundleHeader,
    pack: &mut (dyn Read + Send),
    objects: &Objects,
    limits: &Limits,
) -> Result<QuarantinedPack, StoreError> {
    std::thread::scope(|scope| begin(scope, dir, header, pack, limits)?.index(objects))
}

/// Begins to receive a pack, while others are still being checked that it builds on.
pub fn begin<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    dir: &Path,
    header: BundleHeader,
    mut pack: R,
    limits: &Limits,
) -> Result<Incoming<'scope>, StoreError> {
    let (file, limits) = (temporary(dir)?, *limits);
    let (own, path) =
        (file.as_file().try_clone().map_err(StoreError::io("open", file.path()))?, file.path().to_owned());
    let (send, entries) = sync_channel(BATCHES);
    let spooling = scope.spawn(move || {
        let mut spool = Spool::new(&mut pack, OnDisk { file: &own, path: &path }, &limits);
        let taken = spool_all(&mut spool, &send)?;
        drop(send);
        if taken { spool.trailer().map(Some) } else { Ok(None) }
    });
    Ok(Incoming { header, file, limits, entries, spooling })
}

/// How many batches of entries may wait to be checked, and how many bytes are a batch.
const BATCHES: usize = 32;
const BATCH_BYTES: usize = 256 << 10;

impl Incoming<'_> {
    /// Makes the objects of the pack, and checks each; `objects` is the repository that its deltas may stand on.
    pub fn index(self, objects: &Objects) -> Result<QuarantinedPack, StoreError> {
        let Self { header, file, limits, entries, spooling } = self;
        let to = OnDisk { file: file.as_file(), path: file.path() };
        let taken = missing(&header, objects).and_then(|()| {
            let mut intake = Intake::new(to, objects.clone(), &limits);
            entries.iter().try_for_each(|entries| intake.take(entries)).map(|()| intake)
        });
        // Whoever still spools ends when nobody listens.
        drop(entries);
        let spooled = spooling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let intake = taken?;
        let (end, checksum) = spooled?.ok_or_else(|| damaged("it was not read to its end"))?;
        let indexed = intake.finish(end, checksum)?;
        Ok(QuarantinedPack { header, file, indexed })
    }
}

/// Fails if the repository lacks a prerequisite.
fn missing(header: &BundleHeader, objects: &Objects) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    for prerequisite in &header.prerequisites {
        let id = ObjectId::from(*prerequisite);
        if !matches!(objects.header(&id)?, Some((ObjectKind::Commit, _))) {
            missing.push(id);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(StoreError::Prerequisites { missing }) }
}

/// Sends all entries, in batches, each once it is on disk. `false`: nobody takes them any more.
fn spool_all(spool: &mut Spool<'_>, send: &SyncSender<Vec<Received>>) -> Result<bool, StoreError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let count = spool.count()?;
    for left in (0..count).rev() {
        let entry = spool.entry()?;
        bytes += 100 + if let Content::Held(content) = &entry.content { content.len() } else { 0 };
        batch.push(entry);
        if left == 0 || bytes >= BATCH_BYTES {
            spool.settle()?;
            if send.send(std::mem::take(&mut batch)).is_err() {
                return Ok(false);
            }
            bytes = 0;
        }
    }
    Ok(true)
}

fn wrong_kind(id: ObjectId, kind: ObjectKind) -> StoreError {
    hostile(format!("object {id}"), format!("something refers to it as a {}, which it is not", kind.word()))
}

impl QuarantinedPack {
    /// Where each object stands in the pack: for the index of one that is here already.
    pub(crate) fn into_index(self) -> Vec<super::pack::index::IndexEntry> {
        self.indexed.entries.into_iter().map(|entry| entry.index).collect()
    }

    /// Checks that everything in it refers to what is there.
    pub fn verify(self, objects: &Objects) -> Result<VerifiedPack, StoreError> {
        let Self { header, file, indexed } = self;
        let Indexed { mut entries, table, checksum, commits, pending, mut ordered, chunks } = indexed;
        let mut prerequisites = Vec::new();
        for (id, kind) in pending {
            if let Some(found) = table.get(&id, |at| entries[at as usize].index.id) {
                let entry = &mut entries[found as usize];
                entry.referenced = true;
                ordered = false;
                if entry.kind != Some(kind) {
                    return Err(wrong_kind(id, kind));
                }
                continue;
            }
            match objects.header(&id)? {
                Some((found, _)) if found == kind => {}
                Some(_) => return Err(wrong_kind(id, kind)),
                None if kind == ObjectKind::Commit => prerequisites.push(id),
                None => return Err(StoreError::Missing { id }),
            }
        }
        if !prerequisites.is_empty() {
            prerequisites.sort_unstable();
            return Err(StoreError::Prerequisites { missing: prerequisites });
        }
        let mut tips = Vec::with_capacity(header.refs.len());
        for &(_, tip) in &header.refs {
            let id = ObjectId::from(tip);
            let kind = match table.get(&id, |at| entries[at as usize].index.id) {
                Some(found) => entries[found as usize].kind,
                None => objects.header(&id)?.map(|(kind, _)| kind),
            };
            match kind {
                Some(ObjectKind::Commit) => tips.push(tip),
                Some(_) => return Err(wrong_kind(id, ObjectKind::Commit)),
                None => return Err(StoreError::Missing { id }),
            }
        }
        // What builds on a commit that none of its own follows (an instalment) has something from elsewhere.
        ordered &= header.prerequisites.iter().all(|id| commits.iter().any(|commit| commit.parents.contains(id)));
        let commits = parents_first(&commits);
        let unreferenced = entries.iter().filter(|entry| !entry.referenced).count() as u64;
        Ok(VerifiedPack {
            ordered: ordered && !commits.is_empty(),
            file,
            entries,
            checksum,
            commits,
            tips,
            unreferenced,
            chunks,
        })
    }
}

/// The commits, each behind those of its parents that are among them.
fn parents_first(commits: &[NewCommit]) -> Vec<CommitId> {
    let at: HashMap<CommitId, usize> = commits.iter().enumerate().map(|(at, commit)| (commit.id, at)).collect();
    let mut done = vec![false; commits.len()];
    let mut sorted = Vec::with_capacity(commits.len());
    for start in 0..commits.len() {
        // Each with how many of its parents have been seen to.
        let mut stack = vec![(start, 0)];
        while let Some((top, seen)) = stack.last_mut() {
            let top = *top;
            if let Some(parent) = commits[top].parents.get(*seen).filter(|_| !done[top]) {
                *seen += 1;
                stack.extend(at.get(parent).filter(|&&parent| !done[parent]).map(|&parent| (parent, 0)));
            } else {
                stack.pop();
                if !std::mem::replace(&mut done[top], true) {
                    sorted.push(commits[top].id);
                }
            }
        }
    }
    sorted
}

impl VerifiedPack {
    /// The chunks that the large files in it are made of.
    pub(crate) const fn chunks(&self) -> &BTreeSet<ObjectId> {
        &self.chunks
    }

    /// The commits in it, parents first.
    pub fn commits(&self) -> &[CommitId] {
        &self.commits
    }

    /// The tips that it was sent with, the main one first.
    pub fn tips(&self) -> &[CommitId] {
        &self.tips
    }

    /// How many objects it has.
    pub fn objects(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many objects in it nothing in it refers to: none, if the sender is foldersync.
    pub const fn unreferenced(&self) -> u64 {
        self.unreferenced
    }

    /// Makes it a pack of the repository: synced, with its index, visible to all.
    pub fn admit(self, pack_dir: &Path) -> Result<Admitted, StoreError> {
        let Self { file, entries, checksum, commits, tips, ordered, chunks, .. } = self;
        if entries.is_empty() {
            return Ok(Admitted { pack: None, commits, tips, objects: 0, bytes: 0, chunks });
        }
        let mut entries: Vec<_> = entries.into_iter().map(|entry| entry.index).collect();
        let finished =
            publish(pack_dir, file, &checksum, &mut entries, if ordered { Order::Youngest } else { Order::None })?;
        let (objects, bytes) = (finished.objects, finished.bytes);
        Ok(Admitted { pack: Some(finished.name), commits, tips, objects, bytes, chunks })
    }
}

#[cfg(test)]
mod tests;
