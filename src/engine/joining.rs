//! Joining: revisions that came from elsewhere, and are safe on disk, become part of the folder.

use crate::engine::error::EngineError;
use crate::engine::folder::Work;
use crate::engine::merge::{MergeOptions, merge};
use crate::engine::report::{Conflict, ExchangeReport, LeftOut};
use crate::id::CommitId;
use crate::store::pack::PackWriter;

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
    /// Merges `theirs` (if anything came) into the head, brings the disk to it, and gathers packs when it is time.
    pub(crate) fn join(&mut self, theirs: Option<CommitId>) -> Result<Joined, EngineError> {
        if let Some(theirs) = theirs {
            let heads: Vec<CommitId> = self.head.into_iter().chain([theirs]).collect();
            let merged = self.merge(&heads)?;
            let applied = self.applied;
            self.move_refs(Some(merged), applied, Vec::new())?;
        }
        self.settle()?;
        self.gather_if_due()?;
        Ok(self.done())
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
