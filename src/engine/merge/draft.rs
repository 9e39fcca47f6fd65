//! A tree that is being edited: loaded folder by folder as far as it is touched, written once.

use std::collections::BTreeMap;

use crate::entry::{Entry, Kind};
use crate::id::{ObjectId, TreeId};
use crate::path::SyncPath;
use crate::store::tree::{self, At, TREE_MODE};
use crate::store::{Objects, StoreError};

/// A tree in memory, over one that is stored.
pub(super) struct Draft<'a> {
    objects: &'a Objects,
    root: Folder,
}

#[derive(Default)]
struct Folder {
    /// The id while nothing below has changed; to be written otherwise.
    id: Option<TreeId>,
    /// Loaded when first needed.
    entries: Option<BTreeMap<Vec<u8>, Node>>,
}

enum Node {
    /// A file, a link, an empty folder, or what foldersync does not keep and leaves as it is.
    Leaf(u32, ObjectId),
    Folder(Folder),
}

impl Folder {
    fn stored(id: TreeId) -> Self {
        Self { id: Some(id), entries: None }
    }

    fn entries(&mut self, objects: &Objects) -> Result<&mut BTreeMap<Vec<u8>, Node>, StoreError> {
        if self.entries.is_none() {
            let mut entries = BTreeMap::new();
            let id = self.id.unwrap_or(TreeId::EMPTY);
            let mut content = Vec::new();
            objects.tree(id, &mut content)?;
            for entry in tree::entries(&content) {
                let entry = entry.map_err(|error| StoreError::damaged(format!("tree {id}"), error))?;
                let node = match entry.leaf() {
                    None if entry.is_tree() => Node::Folder(Self::stored(entry.id.as_tree())),
                    _ => Node::Leaf(entry.mode, entry.id),
                };
                entries.insert(entry.name.to_vec(), node);
            }
            self.entries = Some(entries);
        }
        Ok(self.entries.get_or_insert_default())
    }

    fn put(&mut self, objects: &Objects, names: &[&[u8]], entry: Entry) -> Result<(), StoreError> {
        let Some((&name, below)) = names.split_first() else { return Ok(()) };
        let entries = self.entries(objects)?;
        if below.is_empty() {
            entries.insert(name.to_vec(), Node::Leaf(entry.kind.mode(), entry.id));
        } else {
            let node = entries.entry(name.to_vec()).or_insert_with(|| Node::Folder(Self::default()));
            if !matches!(node, Node::Folder(_)) {
                *node = Node::Folder(Self::default());
            }
            if let Node::Folder(folder) = node {
                folder.put(objects, below, entry)?;
            }
        }
        self.id = None;
        Ok(())
    }

    fn remove(&mut self, objects: &Objects, names: &[&[u8]]) -> Result<(), StoreError> {
        let Some((&name, below)) = names.split_first() else { return Ok(()) };
        let entries = self.entries(objects)?;
        match entries.get_mut(name) {
            Some(Node::Leaf(..)) if below.is_empty() => {
                entries.remove(name);
            }
            Some(Node::Folder(folder)) if !below.is_empty() => {
                folder.remove(objects, below)?;
                if folder.entries(objects)?.is_empty() {
                    entries.remove(name);
                }
            }
            _ => return Ok(()),
        }
        self.id = None;
        Ok(())
    }

    fn write(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<TreeId, StoreError>) -> Result<TreeId, StoreError> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let mut sorted = Vec::new();
        for (name, node) in self.entries.iter_mut().flatten() {
            let (mode, id) = match node {
                Node::Leaf(mode, id) => (*mode, *id),
                Node::Folder(folder) => (TREE_MODE, folder.write(sink)?.into()),
            };
            sorted.push((name, mode, id));
        }
        sorted.sort_by(|a, b| tree::name_order(a.0, a.1 == TREE_MODE, b.0, b.1 == TREE_MODE));
        let mut content = Vec::new();
        for (name, mode, id) in sorted {
            tree::write_entry(&mut content, mode, name, &id);
        }
        // Git wants even the empty tree to be stored where it is referred to.
        let id = sink(&content)?;
        self.id = Some(id);
        Ok(id)
    }
}

impl<'a> Draft<'a> {
    /// Begins with the tree `root`.
    pub(super) fn new(objects: &'a Objects, root: TreeId) -> Self {
        Self { objects, root: Folder::stored(root) }
    }

    /// What stands at a path; a folder is told with its id, as far as it has one yet.
    pub(super) fn at(&mut self, path: &SyncPath) -> Result<At, StoreError> {
        let mut folder = &mut self.root;
        let mut names = path.names().peekable();
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            match folder.entries(self.objects)?.get_mut(name) {
                Some(Node::Folder(below)) if last => return Ok(At::Folder(below.id.unwrap_or(TreeId::EMPTY))),
                Some(Node::Leaf(mode, id)) if last => {
                    return Ok(Kind::from_mode(*mode).map_or(At::Nothing, |kind| At::Leaf(Entry { kind, id: *id })));
                }
                Some(Node::Folder(below)) => folder = below,
                _ => break,
            }
        }
        Ok(At::Nothing)
    }

    /// Puts something at a path, in the place of whatever is in the way.
    pub(super) fn put(&mut self, path: &SyncPath, entry: Entry) -> Result<(), StoreError> {
        let names: Vec<_> = path.names().collect();
        self.root.put(self.objects, &names, entry)
    }

    /// Removes a file, a link or an empty folder, and the folders that have nothing left in them.
    pub(super) fn remove(&mut self, path: &SyncPath) -> Result<(), StoreError> {
        let names: Vec<_> = path.names().collect();
        self.root.remove(self.objects, &names)
    }

    /// Hands new trees to `sink`, innermost first, and tells the id of the whole. Editing may go on after.
    pub(super) fn write(
        &mut self,
        sink: &mut dyn FnMut(&[u8]) -> Result<TreeId, StoreError>,
    ) -> Result<TreeId, StoreError> {
        self.root.write(sink)
    }
}
