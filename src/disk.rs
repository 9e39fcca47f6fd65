//! The moments at which the disk is about to change, or a change is about to be made to last.
//!
//! The store and the worktree announce each such [`Step`] before they take it. Nobody listens, but for tests
//! (`record`) and for the simulation (`examples/simulate`), which registers a [`Watcher`] for a folder: it looks at the
//! disk at that moment, and lets the step fail as a killed process or a full disk would.
//!
//! Must not: change what a step does, or cost anything where nobody listens.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A step that changes the disk or makes a change last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A file gets content.
    Write,
    /// A file's content is made to last.
    Sync,
    /// A file is renamed to this.
    Rename,
    /// A folder is made.
    CreateDir,
    /// The names in a folder are made to last.
    SyncDir,
    /// All that is on the file system is made to last.
    SyncAll,
    /// A file or a folder is removed.
    Remove,
}

/// Is told of each step in a folder before it is taken; an error is what comes of the step.
pub type Watcher = dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync;

static WATCHED: AtomicBool = AtomicBool::new(false);
static WATCHERS: RwLock<Vec<(PathBuf, Arc<Watcher>)>> = RwLock::new(Vec::new());

/// Has `watcher` told of the steps in and below `folder`, until what this answers with is dropped.
pub fn watch(folder: &Path, watcher: Arc<Watcher>) -> Watching {
    let mut watchers = WATCHERS.write().unwrap_or_else(PoisonError::into_inner);
    watchers.push((folder.to_owned(), Arc::clone(&watcher)));
    WATCHED.store(true, Ordering::Release);
    Watching(watcher)
}

/// A watcher that is told of steps.
#[must_use = "nobody is told of anything once it is dropped"]
pub struct Watching(Arc<Watcher>);

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watchers = WATCHERS.write().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|(_, watcher)| !Arc::ptr_eq(watcher, &self.0));
        WATCHED.store(!watchers.is_empty(), Ordering::Release);
    }
}

/// Announces a step; `path` is what it is about.
pub(crate) fn step<P: AsRef<Path>>(step: Step, path: impl FnOnce() -> P) -> io::Result<()> {
    if !cfg!(test) && !WATCHED.load(Ordering::Acquire) {
        return Ok(());
    }
    let path = path();
    let path = path.as_ref();
    #[cfg(test)]
    record::step(step, path)?;
    let watchers = WATCHERS.read().unwrap_or_else(PoisonError::into_inner);
    let found = watchers.iter().find(|(folder, _)| path.starts_with(folder)).map(|(_, watcher)| Arc::clone(watcher));
    drop(watchers);
    found.map_or(Ok(()), |watcher| watcher(step, path))
}

/// Watching the steps, and cutting the work off before one of them as a kill would. It sees the steps of the thread
/// that asks, so tests may run beside each other.
#[cfg(test)]
pub(crate) mod record {
    use std::cell::RefCell;
    use std::io;
    use std::path::Path;

    use super::Step;

    #[derive(Default)]
    struct Recorder {
        steps: Vec<(Step, String)>,
        allowed: Option<usize>,
    }

    thread_local!(static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) });

    /// Called before each step.
    pub(super) fn step(step: Step, path: &Path) -> io::Result<()> {
        RECORDER.with_borrow_mut(|recorder| {
            let Some(recorder) = recorder else { return Ok(()) };
            if recorder.allowed == Some(recorder.steps.len()) {
                return Err(io::Error::other("killed by a test"));
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // The rest of such a name is random.
            let name = if name.starts_with(".tmp-") { ".tmp-".into() } else { name };
            recorder.steps.push((step, name.into_owned()));
            Ok(())
        })
    }

    /// The result of `work`, and its steps with the last name of the path of each.
    pub(crate) fn steps<T>(work: impl FnOnce() -> T) -> (T, Vec<(Step, String)>) {
        run(None, work)
    }

    /// The result of `work` when only the first `allowed` steps happen, and whether there were more.
    pub(crate) fn kill_after<T>(allowed: usize, work: impl FnOnce() -> T) -> (T, bool) {
        let (result, steps) = run(Some(allowed), work);
        (result, steps.len() >= allowed)
    }

    fn run<T>(allowed: Option<usize>, work: impl FnOnce() -> T) -> (T, Vec<(Step, String)>) {
        RECORDER.set(Some(Recorder { allowed, ..Recorder::default() }));
        let result = work();
        (result, RECORDER.take().expect("set above").steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_watcher_hears_of_the_steps_in_its_folder_and_can_let_them_fail() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&heard);
        let watching = watch(
            Path::new("/here"),
            Arc::new(move |step, path| {
                sink.lock().unwrap().push((step, path.to_owned()));
                if step == Step::Sync { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            }),
        );
        step(Step::Write, || Path::new("/here/a")).unwrap();
        step(Step::Write, || Path::new("/hereabouts/a")).unwrap();
        assert_eq!(step(Step::Sync, || Path::new("/here/a")).unwrap_err().kind(), io::ErrorKind::StorageFull);
        drop(watching);
        step(Step::Sync, || Path::new("/here/a")).unwrap();
        assert_eq!(*heard.lock().unwrap(), [Step::Write, Step::Sync].map(|step| (step, PathBuf::from("/here/a"))));
    }
}
