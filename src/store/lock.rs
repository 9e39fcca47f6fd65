//! Locks: ours on the whole folder, and git's on single files.
//!
//! **[`FolderLock`]** keeps two foldersync processes (or threads) from working on one folder. It is an advisory lock
//! of the operating system (`flock`) on `foldersync/lock` in the repository, so it ends with its process however that
//! dies: there are no stale locks. What the file says (process, command; its mtime is the time of taking) is for
//! people only. Whoever changes anything in the repository holds it.
//!
//! **`GitLock`** is git's own protocol: `<file>.lock`, made exclusively, becomes `<file>`. It keeps us and a git that
//! runs at the same moment apart. Such a file outlives a kill, and blocks git and us until somebody removes it. So ours
//! carry a mark that is set in the same instant as they are made and that git's never have: executable for the owner
//! alone. A marked one on which nobody holds an advisory lock is what a killed foldersync left; it is removed. One
//! without the mark is git's: it is waited for a little, then named in the error, and never touched. (On a file system
//! without modes, where every file may look so, the mark says nothing and all count as git's.)

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::durable;
use super::error::StoreError;

/// What to do while somebody else has the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Give up at once.
    No,
    /// Give up after this long.
    AtMost(Duration),
    /// Wait for as long as it takes.
    Forever,
}

/// The right to change the folder and its repository; ends when it is dropped.
///
/// It is not re-entrant: who holds it and asks for it again waits for itself.
#[must_use = "the folder is locked only while this is kept"]
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

/// How often a lock that somebody else has is tried again, at first and at last.
const POLL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

impl FolderLock {
    /// Takes the lock in the file `path`, for the command `what` (`exchange`).
    pub fn acquire(path: &Path, what: &str, wait: Wait) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        loop {
            let mut file = options.open(path).map_err(StoreError::io("open", path))?;
            wait_for(&mut file, path, wait)?;
            // Somebody may have removed the file meanwhile: a lock on a file without a name keeps nobody away.
            if is_at(&file, path) {
                let text = format!("{} {what}\n", std::process::id());
                let written =
                    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
                // A full disk is no reason not to lock: it may be what the lock is needed for.
                drop(written);
                return Ok(Self { file });
            }
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a program that is being started at this moment (by another thread, for
        // whatever reason) has a copy of it for an instant, and would hold the lock for as long.
        drop(self.file.unlock());
    }
}

fn wait_for(file: &mut File, path: &Path, wait: Wait) -> Result<(), StoreError> {
    let started = Instant::now();
    let mut pause = POLL.0;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", path)(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        match wait {
            Wait::Forever => return file.lock().map_err(StoreError::io("lock", path)),
            Wait::AtMost(limit) if started.elapsed() < limit => {
                thread::sleep(pause.min(limit.saturating_sub(started.elapsed())));
                pause = (pause * 2).min(POLL.1);
            }
            Wait::No | Wait::AtMost(_) => return Err(StoreError::Locked { holder: holder(file) }),
        }
    }
}

/// Who holds the lock, as its file says: `` `foldersync exchange` (process 123, since 2026-11-20 10:31:02 UTC) ``.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(256).read_to_string(&mut text));
    let since = file.metadata().and_then(|data| data.modified()).ok();
    let since = since.and_then(|since| jiff::Timestamp::try_from(since).ok());
    let since = since.map_or_else(String::new, |since| format!(", since {} UTC", since.strftime("%F %T")));
    match text.trim_end().split_once(' ') {
        Some((process, what)) if read.is_ok() => format!("`foldersync {what}` (process {process}{since})"),
        // It was just taken, and says nothing yet.
        _ => "another foldersync".to_owned(),
    }
}

/// Whether `path` is (still) the name of this open file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

/// The mode of our lock files while they are locks: executable for the owner, which no file of git's is.
const MARKED: u32 = 0o744;
/// What it becomes with its name (before the umask, which the file had at its making).
const MARK: u32 = 0o100;
/// How long a lock of git's is waited for: git keeps them for milliseconds, except while a person is asked for a
/// message.
const GIT_PATIENCE: Duration = Duration::from_millis(500);

/// Git's lock on one file of the repository, which is also the file's next content. Dropped without being
/// published, it is removed, and the file stays as it was.
#[must_use = "the file is locked only while this is kept"]
#[derive(Debug)]
pub(crate) struct GitLock {
    target: PathBuf,
    path: PathBuf,
    file: File,
    published: bool,
}

impl GitLock {
    /// Locks `target`, whose folder must be there.
    pub(crate) fn take(target: &Path) -> Result<Self, StoreError> {
        let path = lock_path(target);
        let started = Instant::now();
        let mut pause = POLL.0;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(MARKED);
        loop {
            match options.open(&path) {
                Ok(file) => {
                    // Only so that others see that its owner lives; where there are no such locks, they see the folder's.
                    drop(file.try_lock());
                    return Ok(Self { target: target.to_owned(), path, file, published: false });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::io("make", &path)(error)),
            }
            if remove_leftover(target)? {
                continue;
            }
            if started.elapsed() >= GIT_PATIENCE {
                let holder = format!("git (if no git is running here, remove `{}`)", path.display());
                return Err(StoreError::Locked { holder });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(POLL.1);
        }
    }

    /// Writes the next content and makes it last, still without its name.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        durable::fill(&mut self.file, &self.path, bytes)?;
        durable::sync_file(&self.file, &self.path)
    }

    /// Gives what was written its name, and returns the open file. Lasting once the folder is synced.
    pub(crate) fn publish(mut self) -> Result<File, StoreError> {
        durable::rename(&self.path, &self.target)?;
        self.published = true;
        let file = self.file.try_clone().map_err(StoreError::io("open", &self.target))?;
        let mode = file.metadata().map_err(StoreError::io("read", &self.target))?.permissions().mode();
        let unmarked = fs::Permissions::from_mode(mode & 0o777 & !MARK);
        // The mark is harmless once the file is no lock any more; a file system without modes may refuse this.
        drop(file.set_permissions(unmarked));
        Ok(file)
    }
}

impl Drop for GitLock {
    fn drop(&mut self) {
        drop(self.file.unlock());
        if !self.published {
            // What cannot be removed now is a marked leftover for the next who comes.
            drop(durable::remove(&self.path));
        }
    }
}

/// Where git's lock on `target` is.
pub(crate) fn lock_path(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn is_marked(data: &fs::Metadata) -> bool {
    data.is_file() && data.permissions().mode() & 0o111 == MARK
}

/// Takes the mark from a file that is no lock: power may have been lost before that lasted. Returns whether it has none
/// now; where it stays, the file system has no modes, and marks say nothing.
fn unmark(target: &Path) -> bool {
    match fs::symlink_metadata(target) {
        Ok(data) if is_marked(&data) => {
            let unmarked = fs::Permissions::from_mode(data.permissions().mode() & 0o777 & !MARK);
            drop(fs::set_permissions(target, unmarked));
            !fs::symlink_metadata(target).is_ok_and(|data| is_marked(&data))
        }
        _ => true,
    }
}

/// Removes the lock on `target` if it is one that a killed foldersync left. Returns whether it is gone.
pub(crate) fn remove_leftover(target: &Path) -> Result<bool, StoreError> {
    let path = lock_path(target);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Ok(data) if is_marked(&data) && unmark(target) => {}
        _ => return Ok(false),
    }
    let Ok(file) = File::open(&path) else { return Ok(!path.exists()) };
    // Whoever removes it holds the advisory lock on it: the name cannot go to a new lock between look and removal.
    if file.try_lock().is_err() || !is_at(&file, &path) {
        return Ok(false);
    }
    durable::remove(&path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::record;

    #[test]
    fn the_second_is_told_who_is_running() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FolderLock::acquire(&path, "exchange", Wait::No).unwrap();
        let error = FolderLock::acquire(&path, "commit", Wait::No).unwrap_err().to_string();
        let process = std::process::id();
        assert!(
            error.starts_with(&format!("the folder is in use by `foldersync exchange` (process {process}, since 2")),
            "{error}"
        );
        let soon = Wait::AtMost(Duration::from_millis(5));
        assert!(matches!(FolderLock::acquire(&path, "commit", soon), Err(StoreError::Locked { .. })));
        drop(first);
        let _second = FolderLock::acquire(&path, "commit", Wait::No).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with(" commit\n"));
    }

    #[test]
    fn who_waits_gets_it_when_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        for wait in [Wait::Forever, Wait::AtMost(Duration::from_mins(1))] {
            let first = FolderLock::acquire(&path, "exchange", Wait::No).unwrap();
            thread::scope(|scope| {
                let waiting = scope.spawn(|| FolderLock::acquire(&path, "commit", wait).map(drop));
                drop(first);
                waiting.join().unwrap().unwrap();
            });
        }
    }

    #[test]
    fn what_a_dead_process_wrote_in_the_file_does_not_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, "1 exchange\n").unwrap();
        drop(FolderLock::acquire(&path, "commit", Wait::No).unwrap());
    }

    #[test]
    fn a_lock_file_removed_by_hand_does_not_let_two_in_through_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let old = File::create(&path).unwrap();
        old.lock().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| FolderLock::acquire(&path, "commit", Wait::Forever));
            fs::remove_file(&path).unwrap();
            drop(old);
            let _held = waiting.join().unwrap().unwrap();
            assert!(matches!(FolderLock::acquire(&path, "exchange", Wait::No), Err(StoreError::Locked { .. })));
        });
    }

    #[test]
    fn a_git_lock_becomes_the_file_and_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index");
        let mut lock = GitLock::take(&target).unwrap();
        lock.write(b"new").unwrap();
        assert!(!target.exists());
        drop(lock.publish().unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o111, 0);
        assert!(!lock_path(&target).exists());
        drop(GitLock::take(&target).unwrap());
        assert!(!lock_path(&target).exists());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn the_lock_of_a_living_git_is_respected_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index");
        fs::write(lock_path(&target), "").unwrap();
        let error = GitLock::take(&target).unwrap_err().to_string();
        assert!(error.contains("git (if no git is running here, remove"), "{error}");
        assert!(error.contains("index.lock"), "{error}");
        assert!(lock_path(&target).exists());
    }

    #[test]
    fn what_a_killed_foldersync_left_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index");
        fs::write(&target, "old").unwrap();
        for allowed in 0..3 {
            let (result, _) = record::kill_after(allowed, || {
                let mut lock = GitLock::take(&target)?;
                lock.write(b"new")?;
                lock.publish()
            });
            assert!(result.is_err());
            assert!(lock_path(&target).exists(), "a kill cannot clean up");
            assert_eq!(fs::read(&target).unwrap(), b"old");
        }
        let mut lock = GitLock::take(&target).unwrap();
        assert!(!remove_leftover(&target).unwrap(), "its owner lives");
        lock.write(b"new").unwrap();
        drop(lock.publish().unwrap());
        assert!(remove_leftover(&target).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_mark_that_power_loss_left_on_the_file_keeps_no_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index");
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(MARKED)).unwrap();
        let (result, _) = record::kill_after(1, || GitLock::take(&target)?.write(b"new"));
        assert!(result.is_err() && lock_path(&target).exists());
        drop(GitLock::take(&target).unwrap());
        assert!(!lock_path(&target).exists());
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, MARKED & !MARK);
    }
}
