//! The system's watcher, folder by folder: what can be asked of it, and how it refuses.

use std::fs;
use std::path::Path;

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;

/// Where the system is told which folders to watch.
pub(super) trait Notices: Send {
    /// Watches one folder, not what is below it. A folder that is watched already is watched as it is now.
    fn add(&mut self, folder: &Path) -> Result<(), NotAdded>;
    /// Watches it no more.
    fn remove(&mut self, folder: &Path);
}

/// Why a folder is not watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotAdded {
    /// The user watches as many folders as the system permits.
    Limit,
    /// It is not there, or must not be read.
    NotThere,
    /// Something else.
    Failed(String),
}

/// Whether the system watches all that is below a folder along with it, and cannot do otherwise cheaply.
const RECURSIVE: bool = cfg!(target_os = "macos");

/// The real one.
pub(super) struct System {
    watcher: RecommendedWatcher,
    any: bool,
}

impl System {
    /// A watcher that gives its events to `handler`, on a thread of its own.
    pub(super) fn open(handler: impl notify::EventHandler) -> notify::Result<Self> {
        Ok(Self { watcher: notify::recommended_watcher(handler)?, any: false })
    }
}

impl Notices for System {
    fn add(&mut self, folder: &Path) -> Result<(), NotAdded> {
        if RECURSIVE && self.any {
            return Ok(()); // The top came first.
        }
        let mode = if RECURSIVE { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        self.watcher.watch(folder, mode).map_err(|error| match &error.kind {
            ErrorKind::MaxFilesWatch => NotAdded::Limit,
            ErrorKind::PathNotFound => NotAdded::NotThere,
            ErrorKind::Io(io) => match Errno::from_io_error(io) {
                Some(Errno::NOSPC) => NotAdded::Limit,
                Some(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => NotAdded::NotThere,
                _ => NotAdded::Failed(io.to_string()),
            },
            _ => NotAdded::Failed(error.to_string()),
        })?;
        self.any = true;
        Ok(())
    }

    fn remove(&mut self, folder: &Path) {
        if !RECURSIVE {
            // It may have ended by itself, as with the folder.
            drop(self.watcher.unwatch(folder));
        }
    }
}

/// None at all, where the system gives no watcher.
pub(super) struct Blind;

impl Notices for Blind {
    fn add(&mut self, _: &Path) -> Result<(), NotAdded> {
        Ok(())
    }

    fn remove(&mut self, _: &Path) {}
}

/// Whether this says that the user has as many watchers, or the process as many descriptors, as the system permits.
pub(super) fn is_instance_limit(error: &notify::Error) -> bool {
    let ErrorKind::Io(io) = &error.kind else { return false };
    matches!(Errno::from_io_error(io), Some(Errno::MFILE | Errno::NFILE))
}

/// A limit that the system has, as `sysctl` names it.
pub(super) fn limit(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok()?.trim().parse().ok()
}
