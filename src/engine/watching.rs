//! Watching a folder with the rules that its captures go by.

use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::worktree::watch::{Wake, Watch};

impl Folder {
    /// Watches the folder for changes: what [`Watch::take`] names is what [`Folder::capture`] takes.
    pub fn watch(&self, wake: Wake) -> Result<Watch, EngineError> {
        Ok(Watch::start(self.root(), self.store.git_dir(), &self.store.own_excludes()?, wake)?)
    }

    /// Has the watch look at all folders again, with the rules as they are now: for after a full capture.
    pub fn watch_again(&self, watch: &Watch) -> Result<(), EngineError> {
        watch.look_again(self.store.own_excludes()?);
        Ok(())
    }
}
