//! Status: what a capture would record, without recording it. Takes no lock and changes nothing.

use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::engine::report::{LeftOut, PathChange, StatusReport};
use crate::entry::Entry;
use crate::id::TreeId;
use crate::store::RefName;
use crate::store::tree;
use crate::worktree::{Root, ScanOptions};

impl Folder {
    /// What is new in the folder, what is in conflict, and what is known of these peers.
    pub fn status(&self, peers: &[String]) -> Result<StatusReport, EngineError> {
        let root = Root::open(self.root())?;
        let objects = self.store.objects();
        let table = self.store.load_table()?.table;
        let head = self.head()?;
        let applied = self.store.refs().read(&RefName::APPLIED)?;
        let options = ScanOptions { threads: self.cx.threads, only: Vec::new(), exclude: self.store.own_excludes()? };
        let scan = crate::worktree::scan(&root, &table, &options, &*self.cx.monitor)?;
        let tree = match applied {
            Some(applied) => objects.commit(applied)?.tree,
            None => TreeId::EMPTY,
        };
        let paths: Vec<_> = scan.found.iter().map(|found| &found.path).collect();
        let bases = tree::lookup_many(&objects, tree, &paths)?;
        let mut changes = Vec::new();
        for (found, base) in scan.found.iter().zip(bases) {
            let verb = match (base.leaf(), found.what.kind()) {
                (None, Some(_)) => "add",
                (Some(_), None) => "delete",
                (Some(base), Some(_)) if super::checkout::holds(&objects, &root, &found.path, base)?.is_none() => {
                    "change"
                }
                _ => continue,
            };
            changes.push(PathChange { verb, path: found.path.clone() });
        }
        // An empty folder that got something in it is told by what it got.
        let filled = |change: &PathChange| {
            let below = |other: &PathChange| other.verb == "add" && other.path.is_below(&change.path);
            change.verb == "delete"
                && table.get(change.path.as_bytes()).is_some_and(|row| row.entry == Entry::EMPTY_FOLDER)
                && changes.iter().any(below)
        };
        let changes = changes.iter().filter(|change| !filled(change)).cloned().collect();
        Ok(StatusReport {
            folder: self.root().display().to_string(),
            folder_id: self.id(),
            head,
            changes,
            left_out: scan.left_out.iter().map(LeftOut::from).collect(),
            conflicts: super::conflicts::in_table(&table),
            pending: head != applied,
            held: self.held()?,
            peers: self.known_of(peers)?,
        })
    }
}

impl From<&crate::worktree::LeftOut> for LeftOut {
    fn from(left_out: &crate::worktree::LeftOut) -> Self {
        Self { path: crate::path::quote(&left_out.path), why: left_out.why.to_string() }
    }
}
