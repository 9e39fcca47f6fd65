//! Joining: revisions that came from elsewhere, and are safe on disk, become part of the folder.

use crate::engine::error::EngineError;
use crate::engine::folder::Work;
use crate::engine::merge::{MergeOptions, merge};
use crate::engine::report::{Conflict, ExchangeReport, LeftOut};
use crate::id::CommitId;
use crate::store::pack::PackWriter;
use crate::store::tree;

/// What work did to the folder.
pub(crate) struct Joined {
    /// Files written or removed.
    pub(crate) applied: u64,
    /// Conflict copies made.
    pub(crate) conflicts: Vec<Conflict>,
    /// What could not be written, or captured.
    pub(crate) left_out: Vec<LeftOut>,
}

impl Work<'_> {
    /// The head becomes `merged`, the disk is brought to it, and packs are gathered when it is time.
    pub(crate) fn follow(&mut self, merged: CommitId) -> Result<(), EngineError> {
        // What can never be written is refused while the head is still what it was: folders beyond all depth, a few
        // trees that make billions of files.
        let old = self.head.map(|head| self.tree_of(Some(head))).transpose()?;
        tree::diff(&self.objects, old, Some(self.tree_of(Some(merged))?), &mut |_| Ok(()))?;
        let applied = self.applied;
        self.move_refs(Some(merged), applied, Vec::new())?;
        self.settle()?;
        self.gather_if_due()
    }

    /// What the work has done so far, and not yet told.
    pub(crate) fn done(&mut self) -> Joined {
        Joined {
            applied: std::mem::take(&mut self.written),
            conflicts: std::mem::take(&mut self.conflicts),
            left_out: std::mem::take(&mut self.left_out),
        }
    }

    /// The head that the commits `heads` together make. What has to be made for it is safe on disk when this answers.
    pub(crate) fn merge(&mut self, heads: &[CommitId]) -> Result<CommitId, EngineError> {
        let mut writer = None;
        let pack_dir = self.folder.store.pack_dir();
        let merged = merge(&self.objects, &self.graph, heads, &MergeOptions::default(), &mut |kind, bytes| {
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(PackWriter::create(&pack_dir)?),
            };
            Ok(writer.put(kind, bytes)?.id)
        })?;
        if let Some(writer) = writer.filter(|_| !merged.new_commits.is_empty()) {
            writer.finish()?;
        }
        self.conflicts.extend(merged.conflicts);
        Ok(merged.head)
    }
}

impl ExchangeReport {
    /// Adds what a piece of work did. What was left out twice is told once.
    pub(crate) fn add(&mut self, joined: Joined) {
        self.applied += joined.applied;
        self.conflicts.extend(joined.conflicts);
        self.left_out.extend(joined.left_out);
        self.left_out.sort();
        self.left_out.dedup();
    }
}
