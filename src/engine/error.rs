//! What can go wrong with a folder as a whole, how badly, and what a person can do about it.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::history::HistoryError;
use crate::engine::merge::MergeError;
use crate::engine::revspec::RevError;
use crate::path::SyncPath;
use crate::protocol::ProtocolError;
use crate::store::StoreError;
use crate::transport::TransportError;
use crate::worktree::WorktreeError;

/// The kinds of failure that a script can tell apart by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// Anything else.
    Failed,
    /// The request makes no sense.
    Usage,
    /// A peer could not be reached, or the connection was lost.
    Unreachable,
    /// A repository or a bundle is damaged.
    Damaged,
    /// Refused: rights, a different folder, a hostile peer.
    Refused,
    /// Somebody else is at work; try again.
    Busy,
}

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The repository failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bundle could not be taken.
    #[error("bundle `{}`: {source}", file.display())]
    Bundle {
        /// Its file.
        file: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The folder failed.
    #[error(transparent)]
    Worktree(#[from] WorktreeError),
    /// The other side broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The way to the other side failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The merge failed.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A revision cannot be understood.
    #[error(transparent)]
    Revision(#[from] RevError),
    /// A question about history has no answer.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// There is no such revision, file or conflict.
    #[error("{what}")]
    NotFound {
        /// What was looked for, and what there is instead.
        what: String,
    },
    /// No folder of foldersync here.
    #[error("`{}` is not in a foldersync folder", path.display())]
    NoFolder {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A folder that must be empty is not.
    #[error("`{}` is not empty", path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// Two folders that were made apart.
    #[error("`{peer}` keeps another folder ({theirs}) than this one ({ours}), and both have a history")]
    Unrelated {
        /// The peer.
        peer: String,
        /// Our folder.
        ours: String,
        /// Theirs.
        theirs: String,
    },
    /// The peer cannot be reached.
    #[error("peer `{peer}` cannot be reached: {why}")]
    Unreachable {
        /// The peer.
        peer: String,
        /// Why.
        why: String,
    },
    /// The other side ended the exchange with an error of its own.
    #[error("peer `{peer}` stopped the exchange: {text}")]
    PeerFault {
        /// The peer.
        peer: String,
        /// What it said.
        text: String,
        /// What kind of failure it is.
        failure: Failure,
    },
    /// A path that cannot be changed.
    #[error("`{path}` was not changed: {why}")]
    NotApplied {
        /// Which.
        path: SyncPath,
        /// Why.
        why: String,
    },
    /// The disk has hardly any room left.
    #[error("{why}")]
    NearlyFull {
        /// Which disk, and how much room it has.
        why: String,
    },
    /// A file of ours cannot be read or written.
    #[error("failed to {what} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl EngineError {
    /// The kind of failure, which decides the exit code.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Store(error)
            | Self::Bundle { source: error, .. }
            | Self::Merge(MergeError::Store(error))
            | Self::History(HistoryError::Store(error)) => match error {
                StoreError::Missing { .. } | StoreError::Damaged { .. } => Failure::Damaged,
                StoreError::Hostile { .. } | StoreError::TooLarge { .. } | StoreError::Unfit { .. } => Failure::Refused,
                StoreError::Locked { .. } | StoreError::RefMoved { .. } => Failure::Busy,
                _ => Failure::Failed,
            },
            Self::Transport(TransportError::Refused { .. }) => Failure::Refused,
            Self::Unreachable { .. }
            | Self::Transport(_)
            | Self::Protocol(ProtocolError::Cut { .. } | ProtocolError::Over) => Failure::Unreachable,
            Self::Unrelated { .. } | Self::Protocol(_) => Failure::Refused,
            Self::Revision(_)
            | Self::History(HistoryError::Rev(_))
            | Self::NoFolder { .. }
            | Self::NotEmpty { .. }
            | Self::Worktree(WorktreeError::Missing { .. } | WorktreeError::NotAFolder { .. }) => Failure::Usage,
            Self::PeerFault { failure, .. } => *failure,
            _ => Failure::Failed,
        }
    }

    /// What to do next, where that can be said.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store(StoreError::Io { source, .. })
            | Self::Bundle { source: StoreError::Io { source, .. }, .. }
            | Self::Io { source, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "make room on the disk, then run the command again: it goes on where this one stopped"
                }
                ErrorKind::ReadOnlyFilesystem => "mount the disk for writing, then run the command again",
                ErrorKind::PermissionDenied => "change the owner or the permissions, or run it as who owns the folder",
                _ => return None,
            },
            Self::Protocol(ProtocolError::NotFoldersync { .. }) => {
                "does the shell at the other side print something at login (in its `.bashrc`, for one)? it must print \
                 nothing where nobody sits at a terminal"
            }
            Self::NoFolder { .. } => {
                "say `foldersync init DIR` to make a folder, or name one with `--folder DIR`; if it should be one, \
                                       is its disk mounted?"
            }
            Self::NotEmpty { .. } => {
                "to join two copies that exist already, say `foldersync init` in both and `foldersync peer add NAME DIR --join`"
            }
            Self::Unrelated { .. } => {
                "if they are copies of the same files, say `foldersync peer set NAME join=true` and exchange again"
            }
            Self::NearlyFull { .. } => {
                "make room on the disk, or set `free_space` in the configuration, and exchange again: what arrived whole \
                 is kept, and what is new here is still sent"
            }
            Self::Store(StoreError::Locked { .. }) => "wait for it to end, or say `--wait`",
            Self::Store(StoreError::Missing { .. } | StoreError::Damaged { .. })
            | Self::Merge(MergeError::Store(StoreError::Missing { .. } | StoreError::Damaged { .. }))
            | Self::History(HistoryError::Store(StoreError::Missing { .. } | StoreError::Damaged { .. })) => {
                "say `foldersync verify` to see what is damaged, and which files that affects, and `foldersync repair` to \
                 mend it with what the peers have; nothing was changed"
            }
            Self::PeerFault { failure: Failure::Damaged, .. } => {
                "say `foldersync verify` in the folder there, and `foldersync repair` to mend it; here nothing is lost"
            }
            Self::Bundle { source: StoreError::Damaged { .. } | StoreError::Missing { .. }, .. } => {
                "nothing of it was taken; copy it again from where it was made, or make it again"
            }
            Self::Bundle { source: StoreError::Hostile { .. } | StoreError::TooLarge { .. }, .. } => {
                "nothing of it was taken: foldersync makes no such bundle; find out where it comes from"
            }
            Self::Store(StoreError::Prerequisites { .. })
            | Self::Bundle { source: StoreError::Prerequisites { .. }, .. } => {
                "apply the bundles before this one first, or make one with an earlier `--since`"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}
