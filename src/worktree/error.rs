//! What can go wrong with a whole folder, or end a piece of work in it. What is wrong with one path only is no
//! error: it is left out or refused, by name, and the rest goes on.

use std::io;
use std::path::{Path, PathBuf};

/// Why work on a folder could not begin or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorktreeError {
    /// There is nothing at the folder's path.
    #[error("the folder {} does not exist (is its disk mounted?)", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The folder's path leads to something else.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// What was named.
        path: PathBuf,
    },
    /// The folder, or something in it that is needed, must not be read or written by this user.
    #[error("no right to {verb} {}: change its owner or permissions", path.display())]
    Denied {
        /// What was tried: `read`, `write`.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk, or this user's share of it, is full.
    #[error("no space is left on the disk to {verb} {}: make room and try again", path.display())]
    Full {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is mounted for reading only.
    #[error("cannot {verb} {}: its disk is mounted read-only", path.display())]
    ReadOnly {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused for another reason.
    #[error("failed to {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content that was to be written could not be had.
    #[error("failed to get the content of {path}: {source}")]
    Content {
        /// The path that it was for, quoted as git quotes.
        path: String,
        /// What its keeper said.
        source: io::Error,
    },
}

impl WorktreeError {
    /// The error for `source`, which came of trying to `verb` the thing at `path`.
    pub(super) fn of(verb: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.to_owned(), source.into());
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { verb, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { verb, path, source },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { verb, path, source },
            _ => Self::Io { verb, path, source },
        }
    }
}
