//! Packs: the files that all objects of foldersync are kept in, written and read at the level of their entries.
//!
//! # Ordered packs
//!
//! Every pack that foldersync writes holds its entries in *commit order*: the objects that a commit brings (contents,
//! then trees, deepest first) stand directly before the commit itself. They are the commit's **run**. What a commit
//! refers to and its run lacks stands in the run of one of its ancestors, in this pack or another. So "what does this
//! range of history need" is answered by copying runs, without reading a tree.
//!
//! An empty file beside the pack, `pack-<checksum>.<sequence>.ordered`, says that the pack has this property, and the
//! how-many-th it is in this repository. Git ignores it (`git count-objects -v` calls it garbage). The name of the
//! pack is the checksum of all its bytes, so the marker cannot come to stand beside another pack. Entries behind the
//! last commit belong to no run: completed thin packs have their bases there, and packs of captures what changed files
//! and folders are deltas against (git wants each pack complete; once packs are gathered, the copy goes). A delta in a
//! run whose base stands in no earlier run of the pack has a base that one of the commit's ancestors brought.
//!
//! # After a crash
//!
//! A pack is written under a temporary name (`tmp_foldersync_…`, which the next who locks the folder removes), synced, and renamed: pack,
//! marker, then index. Git and foldersync see a pack only once its index is there, so a pack is there entirely or not
//! at all; a marker or a pack without an index is litter.

pub mod blob;
pub mod delta;
pub mod entry;
pub mod fetch;
pub mod ids;
pub mod index;
pub mod likeness;
pub mod packer;
pub mod reader;
pub mod writer;

/// The most deltas from an object back to a whole one.
///
/// As many as git itself makes. Each costs who reads the last version a pass over the content, and saves a whole one
/// in the pack: with 50, wholes are two parts in a hundred of what they were, and nobody notices the reading.
pub const MAX_CHAIN: u8 = 50;
/// As many may it become for a folder where packs or bundles are put together from several: the whole of a large one is
/// dear, and many versions may stand on the one that is the last allowed.
pub const MAX_JOINED_TREE_CHAIN: u8 = 200;

/// The most deltas that an object of this kind may stand on where packs are put together.
pub(crate) const fn max_joined_chain(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Tree => MAX_JOINED_TREE_CHAIN,
        ObjectKind::Blob | ObjectKind::Commit => MAX_CHAIN,
    }
}

pub use blob::{Deflater, PackedBlob};
pub use packer::Packer;
pub use reader::{Pack, Packs};
pub use writer::{Finished, PackWriter};

use crate::store::objects::ObjectKind;

#[cfg(test)]
pub(crate) mod testing {
    //! Real repositories, with git as the referee.

    use std::path::{Path, PathBuf};
    use std::process::Command;

    use tempfile::TempDir;

    /// What git prints; it must succeed.
    pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(dir)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env_remove("GIT_DIR")
            .output()
            .expect("git runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "git {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// A bare repository, and the folder of its packs.
    pub(crate) fn repository() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        git(folder.path(), &["init", "-q", "--bare", "-b", "main", "."]);
        let packs = folder.path().join("objects/pack");
        (folder, packs)
    }
}
