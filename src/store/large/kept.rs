//! The branch that keeps chunks alive: no tree of the folder's history names them, and git would collect them.
//!
//! `refs/heads/foldersync/chunks` is one commit without parents, of a fixed author and time, over a tree that has every
//! kept chunk at `ab/cdef...`, by the digits of its id: the same set of chunks is the same commit everywhere. It is each
//! copy's own, and tells what it has; an exchange does not send it. A bundle for a person carries one of the chunks in
//! it, so that plain git keeps these, too.
//!
//! [`Store::keep_chunks`] is to be called when the chunks are safe on disk, and before a recipe that names them is part of the history.
//! A kill in between leaves chunks that nothing needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;

use crate::entry::Kind;
use crate::id::{CommitId, ObjectId, TreeId};
use crate::store::commit::{Commit, Signature};
use crate::store::durable;
use crate::store::error::StoreError;
use crate::store::objects::{ObjectKind, Objects, object_id};
use crate::store::pack::PackWriter;
use crate::store::pack::writer::Order;
use crate::store::quarantine::{Admitted, VerifiedPack};
use crate::store::refs::{Expected, RefEdit, RefName};
use crate::store::repository::Store;
use crate::store::tree::{TREE_MODE, entries, tree_of};

/// How often it is tried again when somebody else keeps chunks at the same moment.
const TRIES: usize = 20;
/// How the names of notes begin that say which chunks come with a pack.
const NOTE: &str = "arriving-";

impl Store {
    /// Keeps these chunks, durably, besides those that are kept already.
    pub fn keep_chunks(&self, chunks: &BTreeSet<ObjectId>) -> Result<(), StoreError> {
        if chunks.is_empty() {
            return Ok(());
        }
        let refs = self.refs();
        for _ in 0..TRIES {
            let before = refs.read(&RefName::CHUNKS)?;
            if before.is_none() {
                self.set_git_filter()?;
            }
            let Some(new) = self.with_chunks(before, chunks)? else { return Ok(()) };
            let edit = RefEdit { name: RefName::CHUNKS, expected: Expected::from(before), new: Some(new) };
            match refs.update(&[edit]) {
                Err(StoreError::RefMoved { .. }) => {}
                done => return done,
            }
        }
        Err(StoreError::RefMoved { name: RefName::CHUNKS.to_string() })
    }

    /// Makes a pack part of the repository, and keeps the chunks of the large files in it.
    ///
    /// A recipe is visible before its chunks are kept, so which they are is noted before: after a kill in between, the
    /// pack is here, nobody sends it again, and whoever takes the folder's lock next keeps them.
    pub fn admit(&self, pack: VerifiedPack) -> Result<Admitted, StoreError> {
        let note = if pack.chunks().is_empty() {
            None
        } else {
            let mut temp = durable::Temp::new_in(&self.private_dir())?;
            let random =
                temp.path().file_name().unwrap_or_default().to_string_lossy().replace(durable::TEMP_PREFIX, "");
            let path = self.private_dir().join(format!("{NOTE}{random}"));
            let ids = pack.chunks().iter().fold(String::new(), |text, id| text + &format!("{id}\n"));
            durable::fill(temp.file(), &path, ids.as_bytes())?;
            durable::publish(temp, &path)?;
            Some(path)
        };
        let admitted = pack.admit(&self.pack_dir())?;
        self.keep_chunks(&admitted.chunks)?;
        if let Some(note) = note {
            durable::remove(&note)?;
        }
        Ok(admitted)
    }

    /// Keeps the chunks of packs that were admitted when a kill came. Only while nobody admits one.
    pub(crate) fn keep_noted_chunks(&self) -> Result<(), StoreError> {
        let dir = self.private_dir();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", &dir))? {
            let entry = entry.map_err(StoreError::io("read", &dir))?;
            if !entry.file_name().as_encoded_bytes().starts_with(NOTE.as_bytes()) {
                continue;
            }
            let text = fs::read_to_string(entry.path()).map_err(StoreError::io("read", &entry.path()))?;
            let objects = self.objects();
            let ids = text.lines().filter_map(|line| line.parse::<ObjectId>().ok());
            self.keep_chunks(&ids.filter(|id| objects.exists(id)).collect())?;
            durable::remove(&entry.path())?;
        }
        Ok(())
    }

    /// The chunks that are kept.
    pub fn kept_chunks(&self) -> Result<HashSet<ObjectId>, StoreError> {
        let mut kept = HashSet::new();
        if let Some(commit) = self.refs().read(&RefName::CHUNKS)? {
            let objects = self.objects();
            for folder in read(&objects, objects.commit(commit)?.tree)?.into_values() {
                kept.extend(read(&objects, folder.as_tree())?.into_values());
            }
        }
        Ok(kept)
    }

    /// The commit over what `before` has and these; `None` if it has them all.
    fn with_chunks(
        &self,
        before: Option<CommitId>,
        chunks: &BTreeSet<ObjectId>,
    ) -> Result<Option<CommitId>, StoreError> {
        let objects = self.objects();
        let root = match before {
            Some(before) => objects.commit(before)?.tree,
            None => TreeId::EMPTY,
        };
        let mut folders = read(&objects, root)?;
        let mut writer = PackWriter::create(&self.pack_dir())?;
        for (folder, names) in by_folder(chunks) {
            let there = folders.get(&folder).map_or(TreeId::EMPTY, |id| id.as_tree());
            let mut kept = read(&objects, there)?;
            let before = kept.len();
            kept.extend(names);
            if kept.len() > before {
                let placed = writer.put(ObjectKind::Tree, &tree_of(Kind::File.mode(), &kept))?;
                folders.insert(folder, placed.id);
            }
        }
        if writer.objects() == 0 {
            return Ok(None);
        }
        let tree = writer.put(ObjectKind::Tree, &tree_of(TREE_MODE, &folders))?.id.as_tree();
        let id = writer.put(ObjectKind::Commit, &commit_over(tree).to_bytes())?.id.as_commit();
        writer.finish_as(Order::None)?;
        Ok(Some(id))
    }
}

fn commit_over(tree: TreeId) -> Commit {
    let who = Signature { name: "foldersync".to_owned(), email: "chunks@foldersync".to_owned(), time: 0 };
    let message = b"Chunks of large files\n".to_vec();
    Commit { tree, parents: Vec::new(), author: who.clone(), committer: who, message }
}

/// The folders of the branch that these chunks lie in, and their names there.
fn by_folder(chunks: &BTreeSet<ObjectId>) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, ObjectId>> {
    let mut folders: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, ObjectId>> = BTreeMap::new();
    for &chunk in chunks {
        let mut folder = chunk.to_string().into_bytes();
        let name = folder.split_off(2);
        folders.entry(folder).or_default().insert(name, chunk);
    }
    folders
}

/// The objects of a branch that keeps just these chunks, the commit last.
pub(crate) fn branch_of(chunks: &BTreeSet<ObjectId>) -> Vec<(ObjectId, ObjectKind, Vec<u8>)> {
    let folders = by_folder(chunks);
    let tree = |content: Vec<u8>| (object_id(ObjectKind::Tree, &content), ObjectKind::Tree, content);
    let mut objects: Vec<_> = folders.values().map(|names| tree(tree_of(Kind::File.mode(), names))).collect();
    let root = tree(tree_of(TREE_MODE, &folders.into_keys().zip(objects.iter().map(|(id, ..)| *id)).collect()));
    let commit = commit_over(root.0.as_tree()).to_bytes();
    objects.push(root);
    objects.push((object_id(ObjectKind::Commit, &commit), ObjectKind::Commit, commit));
    objects
}

/// The names in a tree, and what they stand for.
fn read(objects: &Objects, id: TreeId) -> Result<BTreeMap<Vec<u8>, ObjectId>, StoreError> {
    let mut content = Vec::new();
    objects.tree(id, &mut content)?;
    let mut found = BTreeMap::new();
    for entry in entries(&content) {
        let entry = entry.map_err(|error| StoreError::damaged(format!("tree {id}"), error))?;
        found.insert(entry.name.to_vec(), entry.id);
    }
    Ok(found)
}
