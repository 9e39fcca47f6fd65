//! Putting files on disk so that they survive: every fsync of the store is here, and nowhere else.
//!
//! **The promise.** When one of these functions returns, what it wrote is still there after a power cut, as far as
//! the disk keeps its word. Until then the old content stands whole: content is written to a file of another name,
//! synced, renamed over the old one, and the folder is synced. There is no moment at which a name holds half of it.
//!
//! **What a kill can leave** is a file `.tmp-…` in the repository's private folder ([`Temp`]), which
//! [`remove_leftovers`] removes under the folder's lock; or a lock file of git's kind, see [`super::lock`].
//!
//! The number of syncs is part of the promise, since they are what small work waits for: one for each file and one
//! for each folder that changed. Tests count them, and cut the work off before each step (see [`crate::disk`]).
//!
//! Must not: know what the files mean.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use crate::disk::{Step, step};

/// How the names of files that are not finished begin.
pub const TEMP_PREFIX: &str = ".tmp-";
/// How the names of unfinished packs and their indexes begin: so that `git gc` would remove them too.
pub const PACK_TEMP_PREFIX: &str = "tmp_foldersync_";

/// A file that is being written in the private folder, to be published under its name when it is whole. Dropped
/// before that, it is removed.
#[derive(Debug)]
pub struct Temp(tempfile::NamedTempFile);

impl Temp {
    /// A new, empty file `.tmp-…` in `dir`, which must be on the file system of where it will be published.
    pub fn new_in(dir: &Path) -> Result<Self, StoreError> {
        step(Step::Write, || dir).map_err(StoreError::io("write", dir))?;
        let mut builder = tempfile::Builder::new();
        // The mode is still cut by the umask, as with git's own files.
        let builder = builder.prefix(TEMP_PREFIX).permissions(Permissions::from_mode(0o666));
        builder.tempfile_in(dir).map(Self).map_err(StoreError::io("write in", dir))
    }

    /// The file, to write to.
    pub fn file(&mut self) -> &mut File {
        self.0.as_file_mut()
    }

    /// Where it is until it is published.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives it its name, over whatever had it, though it may be lost in a power cut: for what can be made anew.
    pub(crate) fn rename_to(self, to: &Path) -> Result<(), StoreError> {
        persist(self.0, to)
    }
}

/// Makes a file's content last.
pub fn sync_file(file: &File, path: &Path) -> Result<(), StoreError> {
    step(Step::Sync, || path).and_then(|()| file.sync_all()).map_err(StoreError::io("sync", path))
}

/// Makes the names in a folder last. File systems that know no such thing say so, and are believed.
pub fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    let synced = step(Step::SyncDir, || dir).and_then(|()| File::open(dir)).and_then(|dir| match dir.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    });
    synced.map_err(StoreError::io("sync", dir))
}

/// Makes a folder, and those above it that are missing, and makes their names last. `top`, which lies above it, is not
/// made: where that is gone (a disk was unmounted), nothing shall come in its place.
pub fn create_dirs(top: &Path, dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    let gone = || StoreError::io("find", top)(io::ErrorKind::NotFound.into());
    let parent = dir.parent().filter(|_| dir != top).ok_or_else(gone)?;
    create_dirs(top, parent)?;
    match step(Step::CreateDir, || dir).and_then(|()| fs::create_dir(dir)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(StoreError::io("make the folder", dir)(error)),
        Ok(()) => sync_dir(parent),
    }
}

/// Gives a file its name, over whatever had it; lasting only once the folder is synced.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    step(Step::Rename, || to).and_then(|()| fs::rename(from, to)).map_err(StoreError::io("rename a file to", to))
}

/// Gives a temporary file its name, over whatever had it; lasting only once the folder is synced.
pub(crate) fn persist(file: tempfile::NamedTempFile, to: &Path) -> Result<(), StoreError> {
    let renamed = step(Step::Rename, || to).and_then(|()| file.persist(to).map_err(|error| error.error));
    renamed.map(drop).map_err(StoreError::io("rename a file to", to))
}

/// Removes a file if it is there; lasting only once the folder is synced. Returns whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, StoreError> {
    match step(Step::Remove, || path).and_then(|()| fs::remove_file(path)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(StoreError::io("remove", path)(error)),
    }
}

/// Writes all of `bytes` to a file that was just opened.
pub(crate) fn fill(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    step(Step::Write, || path).and_then(|()| file.write_all(bytes)).map_err(StoreError::io("write", path))
}

/// Gives a finished file its name.
pub fn publish(temp: Temp, to: &Path) -> Result<(), StoreError> {
    publish_all(vec![(temp, to.to_owned())])
}

/// Gives some finished files their names, in this order: all are synced, all are renamed, and each folder that got a
/// name is synced once.
pub fn publish_all(files: Vec<(Temp, PathBuf)>) -> Result<(), StoreError> {
    for (temp, _) in &files {
        sync_file(temp.0.as_file(), temp.path())?;
    }
    let mut dirs = Dirs::default();
    for (temp, to) in files {
        persist(temp.0, &to)?;
        dirs.changed(&to);
    }
    dirs.sync()
}

/// Replaces a file in the private folder, or makes it: temporary file beside it, sync, rename, sync of the folder.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_file_by_way_of(path.parent().unwrap_or(Path::new("")), path, bytes)
}

/// The same for a file elsewhere in the repository, with its temporary file in `private`, where it is swept up.
pub(crate) fn write_file_by_way_of(private: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut temp = Temp::new_in(private)?;
    temp.file().write_all(bytes).map_err(StoreError::io("write", path))?;
    publish(temp, path)
}

/// The folders in which names changed: each is synced once.
#[derive(Debug, Default)]
pub(crate) struct Dirs(Vec<PathBuf>);

impl Dirs {
    /// Notes that the name of `path` came, went or was moved to.
    pub(crate) fn changed(&mut self, path: &Path) {
        let dir = path.parent().unwrap_or(Path::new(""));
        if !self.0.iter().any(|known| known == dir) {
            self.0.push(dir.to_owned());
        }
    }

    /// Makes it all last.
    pub(crate) fn sync(self) -> Result<(), StoreError> {
        self.0.iter().try_for_each(|dir| sync_dir(dir))
    }
}

/// Removes what a killed process left unfinished in `dir`. Only for who holds the folder's lock, since the files of a
/// living process look the same.
pub fn remove_leftovers(dir: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(StoreError::io("read", dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io("read", dir))?;
        let ours = |prefix: &str| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
        if ours(TEMP_PREFIX) || ours(PACK_TEMP_PREFIX) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::record;

    fn name(step: Step, name: &str) -> (Step, String) {
        (step, name.to_owned())
    }

    #[test]
    fn a_file_is_written_beside_synced_renamed_and_its_folder_synced() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        let path = sub.join("file");
        fs::create_dir(&sub).unwrap();
        fs::write(&path, "old").unwrap();
        let (result, steps) = record::steps(|| write_file(&path, b"new"));
        result.unwrap();
        let expected =
            [(Step::Write, "sub"), (Step::Sync, TEMP_PREFIX), (Step::Rename, "file"), (Step::SyncDir, "sub")];
        assert_eq!(steps, expected.map(|(step, path)| name(step, path)));
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&sub).unwrap().count(), 1);
    }

    #[test]
    fn files_published_together_cost_one_sync_each_and_one_for_their_folder() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a.pack", "a.idx"].map(|file| (Temp::new_in(dir.path()).unwrap(), dir.path().join(file)));
        let (result, steps) = record::steps(|| publish_all(files.into()));
        result.unwrap();
        let kinds: Vec<_> = steps.iter().map(|(step, _)| *step).collect();
        assert_eq!(kinds, [Step::Sync, Step::Sync, Step::Rename, Step::Rename, Step::SyncDir]);
    }

    #[test]
    fn cut_off_before_any_step_the_old_content_stands_whole() {
        for allowed in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            fs::write(&path, "old").unwrap();
            let (result, cut) = record::kill_after(allowed, || write_file(&path, b"new"));
            let content = fs::read(&path).unwrap();
            if result.is_ok() {
                assert_eq!(content, b"new");
                break;
            }
            assert!(cut);
            // Before the rename it is the old one; after it, the new one is there but not yet promised.
            assert_eq!(content, if allowed < 3 { b"old" } else { b"new" });
        }
    }

    #[test]
    fn folders_are_made_with_those_above_and_their_names_last() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        let (result, steps) = record::steps(|| create_dirs(dir.path(), &deep));
        result.unwrap();
        assert_eq!(steps.iter().filter(|(step, _)| *step == Step::SyncDir).count(), 2);
        assert!(deep.is_dir());
        assert!(record::steps(|| create_dirs(dir.path(), &deep)).1.is_empty());
        let gone = dir.path().join("gone");
        create_dirs(&gone, &gone.join("a/b")).unwrap_err();
        assert!(!gone.exists());
    }

    #[test]
    fn leftovers_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".tmp-abc"), "half").unwrap();
        fs::write(dir.path().join("lock"), "").unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert!(!dir.path().join(".tmp-abc").exists());
        assert!(dir.path().join("lock").exists());
        remove_leftovers(&dir.path().join("missing")).unwrap();
    }
}
