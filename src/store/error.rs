//! What can go wrong with a repository.

use std::io;
use std::path::{Path, PathBuf};

use crate::id::ObjectId;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("failed to {what} `{}`: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `sync`.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An object that must be there is not.
    #[error("object {id} is missing from the repository")]
    Missing {
        /// Which.
        id: ObjectId,
    },
    /// An object, a pack or a file of the repository does not hold what it must.
    #[error("{what} is damaged: {detail}")]
    Damaged {
        /// What is damaged: `object 4b82…`, `pack pack-….pack`.
        what: String,
        /// In which way.
        detail: String,
    },
    /// Somebody else's data was refused.
    #[error("{what} was refused: {detail}")]
    Hostile {
        /// What was refused.
        what: String,
        /// Why.
        detail: String,
    },
    /// A bundle needs commits that are not here.
    #[error("the bundle needs {} revisions that this folder lacks, {} first", missing.len(), missing.first().map_or_else(String::new, ObjectId::short))]
    Prerequisites {
        /// Those that lack.
        missing: Vec<ObjectId>,
    },
    /// Something is larger than the limit for it.
    #[error("{what} is larger than allowed ({limit} bytes)")]
    TooLarge {
        /// What.
        what: String,
        /// The most it may have.
        limit: u64,
    },
    /// A ref did not have the value that it was expected to have.
    #[error("{name} was moved by somebody else meanwhile; try again")]
    RefMoved {
        /// The ref.
        name: String,
    },
    /// Another process holds the folder.
    #[error("the folder is in use by {holder}")]
    Locked {
        /// Who, as its lock file says.
        holder: String,
    },
    /// The repository is not one that this program may use.
    #[error("{reason}")]
    Unfit {
        /// Why not, and what to do.
        reason: String,
    },
    /// The derived index failed.
    #[error("the history index failed: {0}")]
    Index(#[from] rusqlite::Error),
}

impl StoreError {
    /// For `map_err` on calls of the operating system.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    /// Damage of something with a name.
    #[expect(clippy::needless_pass_by_value, reason = "so that errors and texts alike can be passed")]
    pub(crate) fn damaged(what: impl Into<String>, detail: impl ToString) -> Self {
        Self::Damaged { what: what.into(), detail: detail.to_string() }
    }
}
