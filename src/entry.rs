//! What stands at a path: its kind, its content's id, and what the disk says of it.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::{ObjectId, TreeId};

/// What a path can be, as git keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An ordinary file.
    File,
    /// A file that its owner may execute.
    Executable,
    /// A symbolic link; its content is its target.
    Symlink,
    /// A folder with nothing in it, kept as git's empty tree.
    EmptyFolder,
}

impl Kind {
    /// The mode that git gives it in trees.
    pub const fn mode(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Symlink => 0o120_000,
            Self::EmptyFolder => 0o040_000,
        }
    }

    /// The kind of a leaf with this mode in a tree (`100664`, of old gits, is a file); `None` for anything else,
    /// submodules among it. A tree's mode is a leaf only where the tree is empty: that is the caller's to know.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        match mode {
            0o100_644 | 0o100_664 => Some(Self::File),
            0o100_755 => Some(Self::Executable),
            0o120_000 => Some(Self::Symlink),
            0o040_000 => Some(Self::EmptyFolder),
            _ => None,
        }
    }

    /// Whether it is a file, executable or not.
    pub const fn is_file(self) -> bool {
        matches!(self, Self::File | Self::Executable)
    }
}

/// What a tree says of one path that is not a folder with something in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// File, executable, symlink or empty folder.
    pub kind: Kind,
    /// The blob of its content; the empty tree for an empty folder.
    pub id: ObjectId,
}

impl Entry {
    /// The entry of an empty folder.
    pub const EMPTY_FOLDER: Self =
        Self { kind: Kind::EmptyFolder, id: ObjectId::from_bytes(*TreeId::EMPTY.as_bytes()) };
}

/// What the disk said of a file when it was last looked at: enough to tell, without reading it, that it has not
/// changed since. The fields and their widths are those of git's index, which keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// Change time: seconds (modulo 2^32), nanoseconds.
    pub ctime: (u32, u32),
    /// Modification time: seconds (modulo 2^32), nanoseconds.
    pub mtime: (u32, u32),
    /// Device, modulo 2^32.
    pub dev: u32,
    /// Inode, modulo 2^32.
    pub ino: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes, modulo 2^32.
    pub size: u32,
}

impl Fingerprint {
    /// Whether the file may have been written within the same tick as a record made at `recorded` (git's racy
    /// rule): then equal fingerprints prove nothing, and the content has to be read.
    pub fn is_racy(&self, recorded: Timestamp) -> bool {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as git's index keeps it")]
        let recorded = (recorded.secs as u32, recorded.nanos);
        self.mtime >= recorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_git() {
        for kind in [Kind::File, Kind::Executable, Kind::Symlink, Kind::EmptyFolder] {
            assert_eq!(Kind::from_mode(kind.mode()), Some(kind));
        }
        assert_eq!(Kind::from_mode(0o160_000), None);
    }

    #[test]
    fn a_file_written_in_the_tick_of_the_record_is_racy() {
        let written_at = |secs, nanos| Fingerprint { mtime: (secs, nanos), ..Fingerprint::default() };
        let recorded = Timestamp::new(100, 50);
        assert!(!written_at(100, 49).is_racy(recorded));
        assert!(written_at(100, 50).is_racy(recorded));
        assert!(written_at(101, 0).is_racy(recorded));
    }
}
