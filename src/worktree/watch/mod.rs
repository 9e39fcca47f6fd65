//! Watching a folder: what may have changed since one last asked, as paths to look at. The only importer of notify.
//!
//! Each folder that counts is watched by itself, so that our own repository, nested repositories and ignored folders
//! cost nothing and wake nobody. What is reported is a hint for whoever scans, never the truth: it may name what has
//! not changed, and where events were lost it names more than has. It never names less, but for what the system does
//! not tell at all (writes on another computer to a network disk, disks that are mounted inside the folder, links
//! from outside): for these, and in trouble, the folder has to be scanned from time to time.
//!
//! It must not wait, and must not keep the folder's disk from being unmounted: between two events nothing is open.
//! At rest it does not wake. Two threads belong to a watch: one that notes events (the system's watcher, see
//! `events.rs`), one that looks at what they mean (`tree.rs`). Nothing of it is on disk: after a crash, the first that
//! is reported is that everything has to be looked at.

mod dirty;
mod events;
mod system;
mod tree;

use std::fmt;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use self::events::Notes;
use self::system::{Blind, Notices, System, is_instance_limit};
use self::tree::Tree;
use super::error::WorktreeError;

pub use self::dirty::{Dirty, Last, Seen};

/// What keeps the watcher from seeing all that changes. The folder has to be scanned from time to time meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchTrouble {
    /// The folder was deleted, moved, replaced or unmounted. This watch has ended: start another when it is back.
    RootGone,
    /// The system watches no more folders for this user: the rest of them has to be scanned.
    FolderLimit {
        /// Folders that are watched.
        watched: u64,
        /// Folders that are not.
        lacking: u64,
        /// The user's limit, over all programs.
        limit: Option<u64>,
    },
    /// The system has no watcher for this folder: all of it has to be scanned.
    WatcherLimit {
        /// The user's limit, over all programs.
        limit: Option<u64>,
    },
    /// Some folders cannot be watched.
    Unwatched {
        /// How many.
        folders: u64,
        /// What the system said of the last.
        why: String,
    },
    /// The watcher has failed and sees nothing any more. Start another.
    Failed,
}

impl WatchTrouble {
    /// Whether this watch will never report anything again.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::RootGone | Self::Failed)
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::RootGone => {
                Some("put the folder back, or mount its disk: nothing is taken for deleted meanwhile".to_owned())
            }
            Self::FolderLimit { watched, lacking, limit } => {
                let needed = limit.unwrap_or(*watched).max(*watched) + lacking;
                Some(format!(
                    "`sysctl fs.inotify.max_user_watches={needed}` as root is enough (or more, for what is to come)"
                ))
            }
            Self::WatcherLimit { limit } => {
                let needed = limit.unwrap_or(128) * 2;
                Some(format!(
                    "`sysctl fs.inotify.max_user_instances={needed}` as root, or more open files (`ulimit -n`), or fewer programs that watch"
                ))
            }
            Self::Unwatched { .. } | Self::Failed => None,
        }
    }
}

/// As a clause: `only 10 of 12 folders are watched: ...`.
impl fmt::Display for WatchTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootGone => f.write_str("the folder is gone: it was deleted, moved, replaced or unmounted"),
            Self::FolderLimit { watched, lacking, limit } => {
                write!(f, "only {watched} of {} folders are watched: the limit", watched + lacking)?;
                limit.map_or(Ok(()), |limit| write!(f, " of {limit}"))?;
                f.write_str(" for this user (fs.inotify.max_user_watches) is reached")
            }
            Self::WatcherLimit { limit } => {
                f.write_str("the folder is not watched: the limit")?;
                limit.map_or(Ok(()), |limit| write!(f, " of {limit} watchers"))?;
                f.write_str(" for this user (fs.inotify.max_user_instances), or that of open files, is reached")
            }
            Self::Unwatched { folders, why } => write!(f, "{folders} folders cannot be watched: {why}"),
            Self::Failed => f.write_str("the watcher has failed"),
        }
    }
}

/// What is called when there is something to [`Watch::take`], from a thread of the watch; it must not wait.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A watched folder. Dropping it ends the watch.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads of a watch share.
struct Shared {
    notes: Mutex<Notes>,
    /// Wakes the thread that digests the notes.
    poke: PipeWriter,
    told: Mutex<Told>,
    wake: Wake,
    stop: AtomicBool,
}

/// What is to be told.
#[derive(Default)]
struct Told {
    dirty: Dirty,
    /// Whether it was said that there is something.
    said: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Watches the folder at `root`, but for `own` in it (our repository) and for what its `.gitignore`s and `exclude`
    /// (the text of git's `info/exclude`) leave out.
    ///
    /// It returns when all is watched. The first that is reported is that everything has to be looked at: what is
    /// scanned from then on is either found, or reported. Fails only if the folder cannot be opened; what the system
    /// does not let us watch is told as [`Dirty::trouble`].
    pub fn start(root: &Path, own: &Path, exclude: &[u8], wake: Wake) -> Result<Self, WorktreeError> {
        let failed = |source| WorktreeError::of("watch", root, source);
        let tree = Tree::new(root, own, exclude)?;
        let (poked, poke) = std::io::pipe().map_err(failed)?;
        // Opened before anything is watched, so that no change is missed.
        let mounts = if cfg!(target_os = "linux") { File::open("/proc/self/mountinfo").ok() } else { None };
        let (notes, told) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { notes, poke, told, wake, stop: AtomicBool::new(false) });
        let to = Arc::clone(&shared);
        let handler = move |event| {
            if events::counts(&event) {
                to.note(|notes| notes.take(event));
            }
        };
        let (notices, blind): (Box<dyn Notices>, _) = match System::open(handler) {
            Ok(system) => (Box::new(system), None),
            Err(error) if is_instance_limit(&error) => {
                let limit = system::limit("fs.inotify.max_user_instances");
                (Box::new(Blind), Some(WatchTrouble::WatcherLimit { limit }))
            }
            Err(error) => return Err(failed(std::io::Error::other(error))),
        };
        let mut worker = Worker { tree, notices, blind, poked, mounts, shared: Arc::clone(&shared) };
        worker.begin();
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || worker.run()).map_err(failed)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What changed since it was last asked for. It never waits.
    pub fn take(&self) -> Dirty {
        let mut told = lock(&self.shared.told);
        told.said = false;
        let rest = Dirty { trouble: told.dirty.trouble.clone(), ..Dirty::default() };
        std::mem::replace(&mut told.dirty, rest)
    }

    /// Looks at all folders again, under these rules of the exclude file, and watches those that are not watched yet
    /// (which are reported): for after a full scan, or when a limit was raised.
    pub fn look_again(&self, exclude: Vec<u8>) {
        self.shared.note(|notes| notes.again = Some(exclude));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.poke();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            drop(thread.join()); // A panic there has been told as trouble.
        }
    }
}

impl Shared {
    /// Notes something, and wakes who digests it if nobody has yet.
    fn note(&self, note: impl FnOnce(&mut Notes)) {
        let mut notes = lock(&self.notes);
        let first = notes.is_empty();
        note(&mut notes);
        let first = first && !notes.is_empty();
        drop(notes);
        if first {
            self.poke();
        }
    }

    /// One byte each time the notes begin, and one at the end: the pipe is never full.
    fn poke(&self) {
        // Without a reader the watch has ended.
        drop((&self.poke).write(&[0]));
    }

    /// Tells what is dirty, and how things stand.
    fn tell(&self, dirty: Dirty) {
        let mut told = lock(&self.told);
        let news = dirty.trouble != told.dirty.trouble;
        told.dirty.trouble.clone_from(&dirty.trouble);
        if dirty.trouble.as_ref().is_some_and(WatchTrouble::is_final) {
            (told.dirty.paths, told.dirty.everything) = (dirty.paths, dirty.everything);
        } else {
            told.dirty.merge(dirty);
        }
        let wake = !told.said && (news || !told.dirty.is_empty());
        told.said |= wake;
        drop(told);
        if wake {
            (self.wake)();
        }
    }
}

/// The thread that finds out what events mean.
struct Worker {
    tree: Tree,
    notices: Box<dyn Notices>,
    /// Why nothing is watched at all.
    blind: Option<WatchTrouble>,
    poked: PipeReader,
    /// Readable, in its way, when a disk is mounted or unmounted.
    mounts: Option<File>,
    shared: Arc<Shared>,
}

/// What woke the worker.
struct Woken {
    poked: bool,
    mounts: bool,
}

impl Worker {
    /// Watches everything.
    fn begin(&mut self) {
        if self.blind.is_none() {
            self.tree.watch_all(&mut *self.notices, &self.shared.stop);
        }
    }

    fn run(mut self) {
        let _says = SaysWhenItFails(Arc::clone(&self.shared));
        self.shared.tell(Dirty { everything: true, trouble: self.trouble(), ..Dirty::default() });
        while let Ok(woken) = self.wait() {
            if self.shared.stop.load(Ordering::Relaxed) {
                return;
            }
            if !self.work(&woken) {
                self.shared.tell(Dirty { trouble: Some(WatchTrouble::RootGone), ..Dirty::default() });
                return;
            }
        }
        self.shared.tell(Dirty { everything: true, trouble: Some(WatchTrouble::Failed), ..Dirty::default() });
    }

    fn trouble(&self) -> Option<WatchTrouble> {
        self.blind.clone().or_else(|| self.tree.trouble())
    }

    /// Does what there is to do; `false` if the folder is gone.
    fn work(&mut self, woken: &Woken) -> bool {
        if woken.mounts && !self.tree.stands() {
            return false;
        }
        let notes = std::mem::take(&mut *lock(&self.shared.notes));
        if notes.is_empty() || self.blind.is_some() {
            return self.tree.stands();
        }
        let Some(dirty) = self.tree.digest(notes, &mut *self.notices, &self.shared.stop) else { return false };
        self.shared.tell(Dirty { trouble: self.trouble(), ..dirty });
        true
    }

    /// Waits for events, for mounts, or for the end.
    fn wait(&mut self) -> rustix::io::Result<Woken> {
        let poked = PollFd::new(&self.poked, PollFlags::IN);
        let mut fds = vec![poked];
        fds.extend(self.mounts.as_ref().map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let is_set = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
        let woken = Woken { poked: is_set(fds.first()), mounts: is_set(fds.get(1)) };
        if woken.poked {
            let mut bytes = [0; 16];
            self.poked.read(&mut bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        Ok(woken)
    }
}

/// Says so if the thread panics: nobody may believe that nothing changes.
struct SaysWhenItFails(Arc<Shared>);

impl Drop for SaysWhenItFails {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.tell(Dirty { everything: true, trouble: Some(WatchTrouble::Failed), ..Dirty::default() });
        }
    }
}

#[cfg(test)]
mod tests;
