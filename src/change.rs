//! Changes: what became of one path, and of many.

use crate::entry::Entry;
use crate::path::SyncPath;

/// What became of one path between two states: it stands in `old`, in `new`, or differs in them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Where.
    pub path: SyncPath,
    /// What stood there before.
    pub old: Option<Entry>,
    /// What stands there after.
    pub new: Option<Entry>,
}

impl Change {
    /// The word for it: `add`, `change` or `delete`.
    pub const fn verb(&self) -> &'static str {
        match (self.old.is_some(), self.new.is_some()) {
            (false, _) => "add",
            (true, true) => "change",
            (true, false) => "delete",
        }
    }
}

/// One edit of a tree: what shall stand at a path (nothing: it is removed, with the folders that it leaves empty).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edit {
    /// Where.
    pub path: SyncPath,
    /// What shall stand there.
    pub entry: Option<Entry>,
}

impl From<Change> for Edit {
    fn from(change: Change) -> Self {
        Self { path: change.path, entry: change.new }
    }
}
