//! Room: what peers send is not taken where it would fill the disk.
//!
//! Some of every disk stays free ([`FreeSpace`](crate::guard::FreeSpace)): a system whose disk is full loses what
//! people and programs write. Looked at before and while bytes arrive, and before what they make is written to the
//! folder. Whoever is refused has lost nothing: bundles that arrived whole stay, and the next exchange goes on.
//! One's own captures and what is sent are never refused.

use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::id::TreeId;
use crate::store::large::{self, Content};
use crate::store::{Objects, StoreError, space, tree};

/// `12.3 MiB`
fn bytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

impl Folder {
    /// Fails where the disk of the repository, or that of the folder with `more` bytes written to it, would have less
    /// room left than is to stay free.
    pub(crate) fn room_for(&self, more: u64) -> Result<(), EngineError> {
        for (path, more) in [(self.git_dir(), 0), (self.root(), more)] {
            let space = space::space(path)?;
            let reserve = self.guards().free_space.of(space.total);
            if reserve > 0 && space.free < reserve.saturating_add(more) {
                let more = if more == 0 { String::new() } else { format!(" and {} are to be written", bytes(more)) };
                let why = format!(
                    "the disk of `{}` is nearly full: {} are free, of which {} are to stay free{more}; so nothing is \
                     received",
                    path.display(),
                    bytes(space.free),
                    bytes(reserve)
                );
                return Err(EngineError::NearlyFull { why });
            }
        }
        Ok(())
    }

    /// Fails where there is no room for the files that differ between two trees.
    pub(crate) fn room_for_merge(&self, objects: &Objects, old: TreeId, new: TreeId) -> Result<(), EngineError> {
        let mut entries = Vec::new();
        tree::diff(objects, Some(old), Some(new), &mut |change| {
            entries.extend(change.new.filter(|new| change.old.is_none_or(|old| old.id != new.id)));
            Ok(())
        })?;
        let mut bytes = 0_u64;
        for entry in entries.iter().filter(|entry| entry.kind.is_file()) {
            bytes = bytes.saturating_add(match large::content(objects, &entry.id) {
                Ok(Content::Whole(size)) => size,
                Ok(Content::Chunks(recipe)) => recipe.size(),
                // It will not be written either.
                Err(StoreError::Hostile { .. }) => 0,
                Err(error) => return Err(error.into()),
            });
        }
        self.room_for(bytes)
    }
}
