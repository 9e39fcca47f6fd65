//! Bringing the disk to a new state: the only place where users' files are written or removed.
//!
//! **What it promises.** At every moment, also after a kill or a power cut, each path holds its old content or its
//! new content, complete. Nothing is replaced or removed unless it is what the table recorded, which by contract is
//! in history; what is anything else is put back and reported as a surprise. Nothing is written outside the folder.
//!
//! **How.** In batches: new files are written to the [stage](super::stage), a journal of what is about to happen is
//! written, all is synced at once, and then each file takes its place (while the next
//! batches are staged and synced):
//! - where nothing should be, by a rename that fails if something is there;
//! - in place of a file, by an exchange: then the old file is in the stage, *after* the new one took its place, and
//!   can be checked at leisure. If it was changed at the last moment, it is exchanged back. So there is no gap in
//!   which an edit could be lost. (On file systems without this, a look just before a plain rename must do.)
//! - what is removed is moved to the stage, checked there, and only then unlinked.
//!
//! A displaced file that is not what the table recorded can be the only copy of what a person wrote. It stays in the
//! stage for the moment between exchange and check only; if that is when the process is killed, the journal, which
//! was synced before, tells the next run to put it back before it does anything else.
//!
//! **In which order.** Removals of what is in the way, then what is new or changed, then the other removals; then
//! folders that this left empty are removed. A folder that still holds ignored or unknown files stays.
//!
//! What stops it (a full disk, a content that cannot be had) leaves all other paths as they were; what was done until
//! then is returned with the error.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_OMIT, Uid, fchmod, fchown, fstat, ftruncate,
    futimens, openat, seek, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::error::WorktreeError;
use super::folders::{Blocked, Folders};
use super::plan::{Action, ApplyPlan, Expect, Refused, Replaced, Step, WhyRefused};
use super::root::{FILE, Form, MAX_PATH, Root, Status, announce, errno_of, status_of};
use super::stage::{At, Line, Ours, Stage, beside, is_expected, put_back, slot, sync_all, sync_dir};
use crate::clock::Timestamp;
use crate::disk;
use crate::entry::{Entry, Fingerprint, Kind};
use crate::monitor::{self, Monitor};
use crate::page_cache::WriteBehind;
use crate::path::SyncPath;
use crate::table::TableEdit;

/// How many files a batch has at most.
const BATCH_FILES: usize = if cfg!(test) { 8 } else { 4096 };
/// After how many bytes a batch ends.
const BATCH_BYTES: u64 = 64 << 20;
/// From so many files on, batches are staged, synced and placed at the same time.
const PIPELINE: usize = if cfg!(test) { 9 } else { 16 };
/// From so many bytes on (of the size as the fingerprint has it: what lies beyond 4 GiB is cut off), a file is worth
/// being asked for what stays the same in it.
const CLONE_FROM: u32 = if cfg!(test) { 1 } else { 1 << 20 };
/// How many small writes are gathered before they go to the file.
const BUFFER: usize = 128 * 1024;

/// Where the content of new files comes from.
pub trait Content: Sync {
    /// Writes the content of `entry` (the target, of a symlink) to `out`; returns how many bytes that were. Whatever
    /// error `out` gives is to be passed on.
    ///
    /// An error of the kind `InvalidData` says that there is no such content and never will be: the path is refused.
    fn copy_to(&self, entry: &Entry, out: &mut dyn Write) -> io::Result<u64>;

    /// Makes `file`, which is empty, the content of the file `entry` from that of `old`, which `fill` gives it, not to be
    /// trusted. Returns how many bytes it has; `None`, where that is not possible or not worth it, for whatever reason:
    /// then what is in the file is worth nothing.
    fn change(&self, old: &Entry, entry: &Entry, file: &File, fill: &mut dyn FnMut() -> io::Result<()>) -> Option<u64> {
        let _ = (old, entry, file, fill);
        None
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// What the table has to learn.
    pub edits: Vec<TableEdit>,
    /// Where the disk was not what the plan saw: nothing was done there. To be captured, then planned again.
    pub surprises: Vec<SyncPath>,
    /// Where nothing could be done: those of the plan, and more.
    pub refused: Vec<Refused>,
    /// Files and symlinks that were written, folders that were made for their own sake.
    pub written: u64,
    /// Files and symlinks that were removed.
    pub removed: u64,
    /// Bytes that were written.
    pub bytes: u64,
}

/// What stopped the work, and what was done until then.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct ApplyError {
    /// What was done: the table has to learn of it all the same.
    pub applied: Box<Applied>,
    /// What stopped it.
    pub source: WorktreeError,
}

/// Does what is planned.
///
/// `stage` is a folder of our own, best on the file system of the root; it is made if it is missing, and nobody else
/// may use it meanwhile. What a killed run left there is settled first.
pub fn apply(
    plan: ApplyPlan,
    root: &Root,
    stage: &Path,
    content: &dyn Content,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Applied, ApplyError> {
    apply_with(
        plan,
        root,
        stage,
        content,
        threads,
        monitor,
        &Hooks { at: &|_, _| {}, plain: false, clone: &clone_file },
    )
}

/// The moments at which a test may change the disk, or end the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A file has been staged.
    Staged,
    /// The journal of a batch has been written.
    Journaled,
    /// The batch has been synced.
    Synced,
    /// The target has been looked at, and is as expected.
    Looked,
    /// The new file stands; what it displaced is in its slot, unchecked. Or what is removed is.
    Swapped,
    /// What was displaced has been checked and is gone.
    Done,
    /// All is done, before the last sync.
    Ending,
}

struct Hooks<'a> {
    at: &'a (dyn Fn(Moment, &[u8]) + Sync),
    /// Whether to do without the renames that only some file systems have.
    plain: bool,
    /// Gives the second file the content of the first.
    clone: &'a (dyn Fn(BorrowedFd<'_>, BorrowedFd<'_>) -> rustix::io::Result<()> + Sync),
}

fn apply_with(
    plan: ApplyPlan,
    root: &Root,
    stage: &Path,
    content: &dyn Content,
    threads: usize,
    monitor: &dyn Monitor,
    hooks: &Hooks<'_>,
) -> Result<Applied, ApplyError> {
    let ApplyPlan { steps, surprises: _, refused } = plan;
    let mut applied = Applied { refused, ..Applied::default() };
    let threads = threads.max(1);
    monitor.begin(monitor::Stage::Apply, Some(u64::try_from(steps.len()).unwrap_or(u64::MAX)));
    let stage = match Stage::open(stage, threads, root) {
        Ok(stage) => stage,
        Err(source) => return Err(ApplyError { applied: Box::new(applied), source }),
    };
    let kept = steps.iter().filter(|step| matches!(step.action, Action::MakeFolder));
    let kept = kept.map(|step| step.path.as_bytes().to_vec()).collect();
    let mut run = Run {
        shared: Shared { root, stage: &stage, content, monitor, hooks },
        folders: Folders::new(root),
        applied: &mut applied,
        kept,
        emptied: BTreeSet::new(),
        put_back: false,
    };
    let done = run.all(steps, threads);
    monitor.end(monitor::Stage::Apply);
    match done {
        Ok(()) => Ok(applied),
        Err(source) => Err(ApplyError { applied: Box::new(applied), source }),
    }
}

/// What all threads of a run share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    root: &'a Root,
    stage: &'a Stage,
    content: &'a dyn Content,
    monitor: &'a dyn Monitor,
    hooks: &'a Hooks<'a>,
}

struct Run<'a> {
    shared: Shared<'a>,
    folders: Folders<'a>,
    applied: &'a mut Applied,
    /// Folders that stay though they are empty.
    kept: BTreeSet<Vec<u8>>,
    /// Folders in which something was removed.
    emptied: BTreeSet<Vec<u8>>,
    /// Whether something was put back of which a journal still tells.
    put_back: bool,
}

/// A new file in its slot.
struct Staged {
    thread: usize,
    status: Status,
    bytes: u64,
}

impl Staged {
    fn ours(&self) -> Ours {
        match self.status.form {
            Form::Leaf(kind) => Ours::Staged(kind, self.status.fingerprint),
            _ => Ours::Nothing,
        }
    }
}

/// Why one step is not done.
enum Skip {
    Surprise,
    Refused(WhyRefused),
    /// Nor is any after it.
    Stop(WorktreeError),
}

impl Skip {
    fn stop(root: &Root, path: &SyncPath, errno: Errno) -> Self {
        Self::Stop(WorktreeError::of("write", &root.show(path.as_bytes()), errno))
    }

    /// What an error at a target means: a full or failing disk stops the work, all else is about that path.
    fn at(root: &Root, path: &SyncPath, errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::IO => Self::stop(root, path, errno),
            errno => Self::Refused(WhyRefused::System(errno.raw_os_error())),
        }
    }
}

impl Run<'_> {
    fn all(&mut self, steps: Vec<Step>, threads: usize) -> Result<(), WorktreeError> {
        let is_removal =
            |step: &Step| matches!(step.action, Action::Remove { .. } | Action::RemoveFolder { .. } | Action::Gone);
        let is_first = |step: &Step| {
            matches!(step.action, Action::Remove { first: true, .. } | Action::RemoveFolder { first: true })
        };
        let (removals, others): (Vec<_>, Vec<_>) = steps.into_iter().partition(is_removal);
        let (first, last): (Vec<_>, Vec<_>) = removals.into_iter().partition(is_first);
        self.remove_all(&first)?;
        self.make_all(&others, threads)?;
        self.remove_all(&last)?;
        (self.shared.hooks.at)(Moment::Ending, b"");
        sync(self.shared.root.fd(), self.shared.root.path())
    }

    fn edit(&mut self, path: &SyncPath, row: Option<(Entry, Fingerprint)>) {
        self.applied.edits.push(TableEdit { path: path.clone(), row });
    }

    /// Notes what became of a step; fails if it stops the work.
    fn note(&mut self, path: &SyncPath, done: Result<(), Skip>) -> Result<(), WorktreeError> {
        self.shared.monitor.advance(monitor::Stage::Apply, 1, 0);
        match done {
            Ok(()) => {}
            Err(Skip::Surprise) => self.applied.surprises.push(path.clone()),
            Err(Skip::Refused(why)) => self.applied.refused.push(Refused { path: path.clone(), why }),
            Err(Skip::Stop(error)) => return Err(error),
        }
        Ok(())
    }

    // Making.

    fn make_all(&mut self, steps: &[Step], threads: usize) -> Result<(), WorktreeError> {
        let (writes, others): (Vec<&Step>, Vec<&Step>) =
            steps.iter().partition(|step| matches!(step.action, Action::Write { .. }));
        self.write_all(&writes, threads)?;
        for step in others {
            let done = match step.action {
                Action::MakeFolder => self.make_folder(&step.path),
                Action::Touch { entry, mtime, before } => self.touch(&step.path, entry, mtime, before),
                Action::Record(entry) => {
                    self.edit(&step.path, entry.map(|entry| (entry, Fingerprint::default())));
                    Ok(())
                }
                _ => Ok(()),
            };
            self.note(&step.path, done)?;
        }
        Ok(())
    }

    /// Stages, syncs and places, batch by batch. Where there are many, one is staged while another is synced and a
    /// third takes its places.
    fn write_all(&mut self, steps: &[&Step], threads: usize) -> Result<(), WorktreeError> {
        let shared = self.shared;
        if steps.len() < PIPELINE {
            let mut first = 0;
            while first < steps.len() {
                let batch = Batch::stage(&shared, &steps[first..], first, threads);
                first += batch.staged.len();
                self.place(steps, batch.sync(&shared, steps))?;
            }
            return Ok(());
        }
        std::thread::scope(|scope| {
            let (staged, to_sync) = mpsc::sync_channel::<Batch>(0);
            let (synced, to_place) = mpsc::sync_channel::<Synced>(0);
            let staging = scope.spawn(move || {
                let mut first = 0;
                while first < steps.len() {
                    let batch = Batch::stage(&shared, &steps[first..], first, threads);
                    first += batch.staged.len();
                    if let Err(mpsc::SendError(batch)) = staged.send(batch) {
                        remove_staged(&shared, &batch.lines(steps));
                        break;
                    }
                }
            });
            let syncing = scope.spawn(move || {
                for batch in to_sync {
                    if let Err(mpsc::SendError(batch)) = synced.send(batch.sync(&shared, steps)) {
                        batch.remove(&shared);
                        break;
                    }
                }
            });
            let placed = to_place.iter().try_for_each(|batch| self.place(steps, batch));
            // What was staged and not placed only takes room, which may be what is lacking: who holds it removes it.
            drop(to_place);
            for thread in [staging, syncing] {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
            placed
        })
    }

    /// Has the files of a batch take their places.
    fn place(&mut self, steps: &[&Step], batch: Synced) -> Result<(), WorktreeError> {
        let Synced { batch, lines, journal, outcome } = batch;
        let shared = self.shared;
        let place = || {
            outcome?;
            for (at, (step, staged)) in steps[batch.first..].iter().zip(batch.staged).enumerate() {
                let done = staged.and_then(|staged| self.write(step, batch.first + at, &staged));
                self.note(&step.path, done)?;
            }
            Ok(())
        };
        let placed = place();
        if placed.is_err() {
            // What was displaced and could not be put back is not touched: the journal stays, and the next run goes
            // by it.
            remove_staged(&shared, &lines);
        } else if !lines.is_empty() {
            self.settled(&journal)?;
        }
        placed
    }

    /// A batch is done, and its journal goes. What was put back is safe before: until then, power that is lost may bring
    /// it back to a slot of which only the journal tells.
    fn settled(&mut self, journal: &str) -> Result<(), WorktreeError> {
        let Shared { root, stage, .. } = self.shared;
        if std::mem::take(&mut self.put_back) {
            sync(root.fd(), root.path())?;
        }
        stage.remove_journal(journal)
    }

    /// Has a staged file take its place.
    fn write(&mut self, step: &Step, index: usize, staged: &Staged) -> Result<(), Skip> {
        let Shared { root, stage, .. } = self.shared;
        let Action::Write { entry, expect, .. } = step.action else { return Ok(()) };
        let name = slot(index);
        let own = At { folder: stage.slots(staged.thread), name: &name };
        let mut placed = self.place_one(&step.path, expect, own, staged);
        let mut bytes = staged.bytes;
        if placed.is_err() {
            own.remove_ours(staged.ours()).map_err(|errno| Skip::stop(root, &step.path, errno))?;
        }
        if matches!(placed, Err(Placing::OtherDisk)) {
            let staged = self.stage_beside(step, index)?;
            bytes = staged.bytes;
            let folder = self.enter(&step.path, true)?.try_clone_to_owned();
            let folder = folder.map_err(|error| Skip::stop(root, &step.path, errno_of(&error)))?;
            let name = beside(index);
            let own = At { folder: folder.as_fd(), name: &name };
            placed = self.place_one(&step.path, expect, own, &staged);
            if placed.is_err() {
                own.remove_ours(staged.ours()).map_err(|errno| Skip::stop(root, &step.path, errno))?;
            }
            if !matches!(placed, Err(Placing::Skip(Skip::Stop(_)))) {
                done_beside(stage, folder.as_fd(), &root.show(step.path.parent())).map_err(Skip::Stop)?;
            }
        }
        let placed = match placed {
            Ok(placed) => placed,
            Err(Placing::Skip(skip)) => return Err(skip),
            Err(Placing::OtherDisk | Placing::Stale) => return Err(Skip::Surprise),
        };
        self.applied.written += 1;
        self.applied.bytes += bytes;
        self.shared.monitor.advance(monitor::Stage::Apply, 0, bytes);
        self.edit(&step.path, Some((entry, placed.unwrap_or_default())));
        // What came to stand there the moment after is not ours.
        if placed.is_some() { Ok(()) } else { Err(Skip::Surprise) }
    }

    /// Renames a staged file to its place. Returns its fingerprint there; none, if something else stands there
    /// already when that is taken.
    fn place_one(
        &mut self,
        path: &SyncPath,
        expect: Expect,
        own: At<'_>,
        staged: &Staged,
    ) -> Result<Option<Fingerprint>, Placing> {
        match self.place_once(path, expect, own, staged) {
            Err(Placing::Stale) => {
                self.folders.close();
                self.place_once(path, expect, own, staged)
            }
            placed => placed,
        }
    }

    fn place_once(
        &mut self,
        path: &SyncPath,
        expect: Expect,
        own: At<'_>,
        staged: &Staged,
    ) -> Result<Option<Fingerprint>, Placing> {
        let Shared { root, hooks, .. } = self.shared;
        let failed = |errno| match errno {
            Errno::XDEV => Placing::OtherDisk,
            Errno::EXIST | Errno::NOTEMPTY => Placing::Skip(Skip::Surprise),
            // The file was removed since it was looked at; or the open folder was, and another has its name.
            Errno::NOENT => Placing::Stale,
            errno => Placing::Skip(Skip::at(root, path, errno)),
        };
        let target = At { folder: self.enter(path, true).map_err(Placing::Skip)?, name: path.file_name() };
        let now = target.status().map_err(failed)?;
        let is_as_expected = match (expect, now) {
            (Expect::Nothing, now) => now.is_none(),
            (Expect::Leaf(kind, fingerprint), Some(now)) => {
                now.form == Form::Leaf(kind) && now.fingerprint == fingerprint
            }
            (Expect::EmptyFolder, Some(now)) => now.form == Form::Folder,
            (_, None) => false,
        };
        if !is_as_expected {
            return Err(Placing::Skip(Skip::Surprise));
        }
        (hooks.at)(Moment::Looked, path.as_bytes());
        let moved = match expect {
            Expect::Nothing => own.move_to_free(target, hooks.plain),
            _ if hooks.plain => Err(Errno::INVAL),
            _ => own.exchange(target),
        };
        match moved {
            Err(Errno::INVAL | Errno::NOSYS) if expect != Expect::Nothing => {
                replace_plainly(own, target, expect).map_err(failed)?;
            }
            moved => moved.map_err(failed)?,
        }
        (hooks.at)(Moment::Swapped, path.as_bytes());

        // From here on what fails stops the work: what is in the slot is told of by the journal only.
        let failed = |errno| Placing::Skip(Skip::stop(root, path, errno));
        if let Some(displaced) = own.status().map_err(failed)? {
            let removed = if is_expected(&displaced, expect) { own.remove() } else { Err(Errno::NOTEMPTY) };
            match removed {
                Ok(()) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    put_back(own, target, staged.ours()).map_err(failed)?;
                    self.put_back = true;
                    return Err(Placing::Skip(Skip::Surprise));
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        (hooks.at)(Moment::Done, path.as_bytes());
        let now = target.status().map_err(failed)?;
        let Form::Leaf(kind) = staged.status.form else { return Ok(None) };
        let ours = now.filter(|now| now.is_renamed(kind, &staged.status.fingerprint));
        Ok(ours.map(|now| now.fingerprint))
    }

    /// Opens the folder that holds `path`.
    fn enter(&mut self, path: &SyncPath, create: bool) -> Result<BorrowedFd<'_>, Skip> {
        let root = self.shared.root;
        self.folders.enter(path.parent(), create).map_err(|blocked| skip(root, path, &blocked))
    }

    /// Stages a file beside its target, for targets on another file system than the stage. It is synced.
    fn stage_beside(&mut self, step: &Step, index: usize) -> Result<Staged, Skip> {
        let shared = self.shared;
        let Action::Write { expect, .. } = step.action else { return Err(Skip::Surprise) };
        let name = beside(index);
        let folder = self.enter(&step.path, true)?;
        let at = At { folder, name: &name };
        if at.status().map_err(|errno| Skip::at(shared.root, &step.path, errno))?.is_some() {
            return Err(Skip::Refused(WhyRefused::InTheWay(name.clone())));
        }
        let mut line = Line { thread: None, index, ours: Ours::Unfinished, expect, path: step.path.clone() };
        shared.stage.write_journal("unfinished", std::iter::once(&line), false).map_err(Skip::Stop)?;
        let staged = stage_one(&shared, at, step, 0, &mut Vec::new(), true);
        let staged = match staged {
            Ok(staged) => {
                line.ours = staged.ours();
                shared.stage.write_journal("beside", std::iter::once(&line), true).map_err(Skip::Stop)?;
                Ok(staged)
            }
            Err(skip) => {
                at.remove().map_err(|errno| Skip::stop(shared.root, &step.path, errno))?;
                Err(skip)
            }
        };
        // Before anything is displaced: it says that whatever is in the slot is ours.
        shared.stage.remove_journal("unfinished").map_err(Skip::Stop)?;
        staged
    }

    fn make_folder(&mut self, path: &SyncPath) -> Result<(), Skip> {
        let root = self.shared.root;
        self.folders.enter(path.as_bytes(), true).map_err(|blocked| skip(root, path, &blocked))?;
        self.applied.written += 1;
        self.edit(path, Some((Entry::EMPTY_FOLDER, Fingerprint::default())));
        Ok(())
    }

    /// Sets a file's time, or whether it can be executed.
    ///
    /// An edit may come between the look and the setting of the time, which would hide it: so the row is written
    /// without a fingerprint, and the next scan reads the file.
    fn touch(
        &mut self,
        path: &SyncPath,
        entry: Entry,
        mtime: Option<Timestamp>,
        before: (Kind, Fingerprint),
    ) -> Result<(), Skip> {
        let (root, moment) = (self.shared.root, self.shared.hooks.at);
        let folder = self.enter(path, false)?;
        let failed = |errno| match errno {
            Errno::NOENT | Errno::LOOP => Skip::Surprise,
            errno => Skip::at(root, path, errno),
        };
        let is_as_before = |now: Status| now.form == Form::Leaf(before.0) && now.fingerprint == before.1;
        if before.0 == Kind::Symlink {
            let target = At { folder, name: path.file_name() };
            if !target.status().map_err(failed)?.is_some_and(is_as_before) {
                return Err(Skip::Surprise);
            }
            moment(Moment::Looked, path.as_bytes());
            if let Some(mtime) = mtime {
                utimensat(folder, path.file_name(), &times(mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            }
        } else {
            let file = openat(folder, path.file_name(), FILE, Mode::empty()).map_err(failed)?;
            let now = status_of(file.as_fd()).map_err(failed)?;
            if !is_as_before(now) {
                return Err(Skip::Surprise);
            }
            moment(Moment::Looked, path.as_bytes());
            if entry.kind != before.0 {
                fchmod(&file, Mode::from_raw_mode(mode_like(now.mode, entry.kind))).map_err(failed)?;
            }
            if let Some(mtime) = mtime {
                futimens(&file, &times(mtime)).map_err(failed)?;
            }
        }
        self.applied.written += 1;
        self.edit(path, Some((entry, Fingerprint::default())));
        Ok(())
    }

    // Removing.

    fn remove_all(&mut self, steps: &[Step]) -> Result<(), WorktreeError> {
        // The slots of removals come after those of writes, whose names they must not have.
        let mut index = 1 << 32;
        for steps in steps.chunks(BATCH_FILES) {
            let line = |(at, step): (usize, &Step)| match step.action {
                Action::Remove { kind, fingerprint, .. } => Some(Line {
                    thread: Some(0),
                    index: index + at,
                    ours: Ours::Nothing,
                    expect: Expect::Leaf(kind, fingerprint),
                    path: step.path.clone(),
                }),
                _ => None,
            };
            let lines: Vec<Line> = steps.iter().enumerate().filter_map(line).collect();
            if !lines.is_empty() {
                self.shared.stage.write_journal("batch", lines.iter(), true)?;
                (self.shared.hooks.at)(Moment::Journaled, b"");
            }
            for (at, step) in steps.iter().enumerate() {
                let done = match step.action {
                    Action::Remove { kind, fingerprint, .. } => self.remove(&step.path, index + at, kind, fingerprint),
                    Action::Gone => {
                        self.gone(&step.path);
                        Ok(())
                    }
                    _ => {
                        self.emptied.insert(step.path.as_bytes().to_vec());
                        self.edit(&step.path, None);
                        Ok(())
                    }
                };
                self.note(&step.path, done)?;
            }
            self.prune();
            if !lines.is_empty() {
                self.settled("batch")?;
            }
            index += steps.len();
        }
        Ok(())
    }

    fn remove(&mut self, path: &SyncPath, index: usize, kind: Kind, fingerprint: Fingerprint) -> Result<(), Skip> {
        let Shared { root, stage, hooks, .. } = self.shared;
        let failed = |errno| Skip::at(root, path, errno);
        let folder = match self.folders.enter(path.parent(), false) {
            Ok(folder) => folder,
            Err(Blocked::Missing | Blocked::Leaf(_)) => {
                self.gone(path);
                return Ok(());
            }
            Err(blocked) => return Err(skip(root, path, &blocked)),
        };
        let target = At { folder, name: path.file_name() };
        let Some(now) = target.status().map_err(failed)? else {
            self.gone(path);
            return Ok(());
        };
        if now.form != Form::Leaf(kind) || now.fingerprint != fingerprint {
            return Err(Skip::Surprise);
        }
        (hooks.at)(Moment::Looked, path.as_bytes());
        let (name, name_beside) = (slot(index), beside(index));
        let mut own = At { folder: stage.slots(0), name: &name };
        announce(disk::Step::Rename, own.folder, own.name).map_err(failed)?;
        let moved = match rustix::fs::renameat(folder, target.name, own.folder, own.name) {
            Err(Errno::XDEV) => {
                let expect = Expect::Leaf(kind, fingerprint);
                let line = Line { thread: None, index, ours: Ours::Nothing, expect, path: path.clone() };
                stage.write_journal("beside", std::iter::once(&line), true).map_err(Skip::Stop)?;
                own = At { folder, name: &name_beside };
                rustix::fs::renameat(folder, target.name, own.folder, own.name)
            }
            moved => moved,
        };
        match moved {
            Ok(()) => {}
            Err(Errno::NOENT) => {
                self.gone(path);
                return Ok(());
            }
            Err(errno) => return Err(failed(errno)),
        }
        (hooks.at)(Moment::Swapped, path.as_bytes());
        let failed = |errno| Skip::stop(root, path, errno);
        let displaced = own.status().map_err(failed)?;
        let as_expected = displaced.is_some_and(|displaced| displaced.is_renamed(kind, &fingerprint));
        if as_expected {
            own.remove().map_err(failed)?;
        } else {
            self.put_back = true;
            put_back(own, target, Ours::Nothing).map_err(failed)?;
        }
        if own.name == name_beside {
            done_beside(stage, folder, &root.show(path.parent())).map_err(Skip::Stop)?;
        }
        (hooks.at)(Moment::Done, path.as_bytes());
        if !as_expected {
            return Err(Skip::Surprise);
        }
        self.applied.removed += 1;
        self.gone(path);
        Ok(())
    }

    /// Notes that nothing stands at a path any more. Who removed it, a run that was ended among them, may not have come
    /// to the folders that this left empty.
    fn gone(&mut self, path: &SyncPath) {
        self.emptied.insert(path.parent().to_vec());
        self.edit(path, None);
    }

    /// Removes the folders that were left empty, the deepest first, and those that this leaves empty.
    fn prune(&mut self) {
        while let Some(folder) = self.emptied.pop_last() {
            let Ok(path) = SyncPath::new(folder) else { continue };
            if self.kept.contains(path.as_bytes()) {
                continue;
            }
            let is_gone = match self.folders.enter(path.parent(), false) {
                Ok(parent) => {
                    let removed = announce(disk::Step::Remove, parent, path.file_name())
                        .and_then(|()| unlinkat(parent, path.file_name(), AtFlags::REMOVEDIR));
                    matches!(removed, Ok(()) | Err(Errno::NOENT))
                }
                Err(blocked) => matches!(blocked, Blocked::Missing),
            };
            if is_gone {
                self.emptied.insert(path.parent().to_vec());
            }
        }
        self.folders.close();
    }
}

/// Why a file could not take its place.
enum Placing {
    /// The target is on another file system than the slot.
    OtherDisk,
    /// The folder that is held open may be one that was removed.
    Stale,
    Skip(Skip),
}

fn skip(root: &Root, path: &SyncPath, blocked: &Blocked) -> Skip {
    match *blocked {
        Blocked::Missing | Blocked::Leaf(_) => Skip::Surprise,
        Blocked::System(_, errno) => Skip::at(root, path, errno),
    }
}

/// What must do where files cannot be exchanged: the target was looked at just before.
fn replace_plainly(own: At<'_>, target: At<'_>, expect: Expect) -> rustix::io::Result<()> {
    if expect == Expect::EmptyFolder {
        unlinkat(target.folder, target.name, AtFlags::REMOVEDIR)?;
        return own.move_to_free(target, true);
    }
    rustix::fs::renameat(own.folder, own.name, target.folder, target.name)
}

/// Files that are staged, and wait for their places.
struct Batch {
    /// The number of the first of them among all.
    first: usize,
    /// One for each of the steps that were taken on, in their order.
    staged: Vec<Result<Staged, Skip>>,
}

impl Batch {
    /// Stages the first of `steps` with several threads.
    fn stage(shared: &Shared<'_>, steps: &[&Step], first: usize, threads: usize) -> Self {
        let steps = &steps[..steps.len().min(BATCH_FILES)];
        let next = AtomicUsize::new(0);
        let bytes = AtomicU64::new(0);
        let stopped = AtomicBool::new(false);
        let work = |thread: usize| {
            let mut buffer = Vec::with_capacity(BUFFER);
            let mut done = Vec::new();
            while !stopped.load(Ordering::Relaxed) && bytes.load(Ordering::Relaxed) < BATCH_BYTES {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(step) = steps.get(at) else { break };
                let name = slot(first + at);
                let slot = At { folder: shared.stage.slots(thread), name: &name };
                let staged = stage_one(shared, slot, step, thread, &mut buffer, !cfg!(target_os = "linux"));
                match &staged {
                    Ok(staged) => {
                        bytes.fetch_add(staged.bytes, Ordering::Relaxed);
                        (shared.hooks.at)(Moment::Staged, step.path.as_bytes());
                    }
                    Err(skip) => {
                        slot.remove().ok();
                        stopped.fetch_or(matches!(skip, Skip::Stop(_)), Ordering::Relaxed);
                    }
                }
                done.push((at, staged));
            }
            done
        };
        let threads = threads.min(steps.len().div_ceil(16));
        let mut parts = std::thread::scope(|scope| {
            let work = &work;
            let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            let mut parts = work(0);
            for other in others {
                parts.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            parts
        });
        // Each took the next one that was free, so that the first ones were taken, without a gap.
        parts.sort_unstable_by_key(|(at, _)| *at);
        Self { first, staged: parts.into_iter().map(|(_, done)| done).collect() }
    }

    /// Writes their journal, and makes both last.
    fn sync(mut self, shared: &Shared<'_>, steps: &[&Step]) -> Synced {
        let lines = self.lines(steps);
        let journal = format!("batch-{}", self.first);
        let stopped = self.staged.iter().position(|done| matches!(done, Err(Skip::Stop(_))));
        let outcome = match stopped.map(|at| self.staged.swap_remove(at)) {
            Some(Err(Skip::Stop(error))) => Err(error),
            _ if lines.is_empty() => Ok(()),
            _ => {
                let Shared { stage, hooks, .. } = shared;
                let written = stage.write_journal(&journal, lines.iter(), !cfg!(target_os = "linux"));
                written.and_then(|()| {
                    (hooks.at)(Moment::Journaled, b"");
                    sync(stage.fd(), stage.path())?;
                    (hooks.at)(Moment::Synced, b"");
                    Ok(())
                })
            }
        };
        Synced { batch: self, lines, journal, outcome }
    }

    /// What a journal has to say of them.
    fn lines(&self, steps: &[&Step]) -> Vec<Line> {
        let line = |(at, (step, staged)): (usize, (&&Step, &Result<Staged, Skip>))| {
            let (Ok(staged), Action::Write { expect, .. }) = (staged, &step.action) else { return None };
            let (thread, ours) = (Some(staged.thread), staged.ours());
            Some(Line { thread, index: self.first + at, ours, expect: *expect, path: step.path.clone() })
        };
        steps[self.first..].iter().zip(&self.staged).enumerate().filter_map(line).collect()
    }
}

/// A batch that may take its places, unless an error says why not.
struct Synced {
    batch: Batch,
    lines: Vec<Line>,
    journal: String,
    outcome: Result<(), WorktreeError>,
}

impl Synced {
    /// Removes what was staged, and the journal that tells of it: nothing has been displaced for it.
    fn remove(&self, shared: &Shared<'_>) {
        remove_staged(shared, &self.lines);
        shared.stage.remove_journal(&self.journal).ok();
    }
}

/// Removes what is ours in the slots that `lines` tell of.
fn remove_staged(shared: &Shared<'_>, lines: &[Line]) {
    for line in lines {
        let folder = shared.stage.slots(line.thread.unwrap_or_default());
        At { folder, name: &slot(line.index) }.remove_ours(line.ours).ok();
    }
}

/// Writes one new file or symlink to its slot.
fn stage_one(
    shared: &Shared<'_>,
    slot: At<'_>,
    step: &Step,
    thread: usize,
    buffer: &mut Vec<u8>,
    synced: bool,
) -> Result<Staged, Skip> {
    let Action::Write { entry, mtime, expect, replaces } = &step.action else { return Err(Skip::Surprise) };
    let cannot_write = |errno| Skip::stop(shared.root, &step.path, errno);
    let no_content = |source| Skip::Stop(WorktreeError::Content { path: step.path.to_string(), source });
    if entry.kind == Kind::Symlink {
        let mut target = LinkTarget(Vec::new());
        let bytes = shared.content.copy_to(entry, &mut target);
        let target = target.0;
        if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
            bytes.map_err(|error| {
                if target.len() > MAX_PATH { Skip::Refused(WhyRefused::LinkTarget) } else { no_content(error) }
            })?;
            return Err(Skip::Refused(WhyRefused::LinkTarget));
        }
        let bytes = bytes.map_err(no_content)?;
        match symlinkat(&target[..], slot.folder, slot.name) {
            Ok(()) => {}
            Err(errno @ (Errno::PERM | Errno::NOTSUP | Errno::NAMETOOLONG | Errno::INVAL | Errno::NOSYS)) => {
                return Err(Skip::Refused(WhyRefused::System(errno.raw_os_error())));
            }
            Err(errno) => return Err(cannot_write(errno)),
        }
        if let Some(mtime) = mtime {
            utimensat(slot.folder, slot.name, &times(*mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(cannot_write)?;
        }
        let status = slot.status().map_err(cannot_write)?.ok_or_else(|| cannot_write(Errno::NOENT))?;
        return Ok(Staged { thread, status, bytes });
    }
    announce(disk::Step::Write, slot.folder, slot.name).map_err(cannot_write)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fresh = if entry.kind == Kind::Executable { 0o777 } else { 0o666 };
    let fd = openat(slot.folder, slot.name, flags, Mode::from_raw_mode(fresh)).map_err(cannot_write)?;
    let file = File::from(fd);
    let bytes = match change_clone(shared, step, &file).map_err(cannot_write)? {
        Some(bytes) => bytes,
        None => write_all(shared, step, entry, &file, buffer)?,
    };
    if let Expect::Leaf(_, replaced) = expect {
        let fresh = Status::of(&fstat(&file).map_err(cannot_write)?);
        if (fresh.fingerprint.uid, fresh.fingerprint.gid) != (replaced.uid, replaced.gid) {
            // Only root can; whoever else replaces a file of somebody else owns the new one.
            fchown(&file, Some(Uid::from_raw(replaced.uid)), Some(Gid::from_raw(replaced.gid))).ok();
        }
        if let Some(Replaced { mode, .. }) = replaces {
            fchmod(&file, Mode::from_raw_mode(mode_like(*mode, entry.kind))).map_err(cannot_write)?;
        }
    }
    if let Some(mtime) = mtime {
        futimens(&file, &times(*mtime)).map_err(cannot_write)?;
    }
    if synced {
        announce(disk::Step::Sync, slot.folder, slot.name).map_err(cannot_write)?;
        file.sync_all().map_err(|error| cannot_write(errno_of(&error)))?;
    }
    let status = status_of(file.as_fd()).map_err(cannot_write)?;
    Ok(Staged { thread, status, bytes })
}

/// Writes the content of a file.
fn write_all(shared: &Shared<'_>, step: &Step, entry: &Entry, file: &File, buffer: &mut Vec<u8>) -> Result<u64, Skip> {
    let mut sink = Sink { file, buffer, bytes: 0, behind: WriteBehind::default(), error: None };
    sink.buffer.clear();
    let copied = shared.content.copy_to(entry, &mut sink).and_then(|_| sink.flush());
    match (copied, sink.error) {
        (Ok(()), None) => Ok(sink.bytes),
        (_, Some(Errno::FBIG)) => Err(Skip::Refused(WhyRefused::System(Errno::FBIG.raw_os_error()))),
        (_, Some(errno)) => Err(Skip::stop(shared.root, &step.path, errno)),
        (Err(source), None) if source.kind() == io::ErrorKind::InvalidData => {
            Err(Skip::Refused(WhyRefused::Content(source.to_string())))
        }
        (Err(source), None) => Err(Skip::Stop(WorktreeError::Content { path: step.path.to_string(), source })),
    }
}

/// Makes the content of a file from a clone of the one that it replaces, so that what stays the same is on disk once.
/// `None`, and an empty file, where that cannot be.
fn change_clone(shared: &Shared<'_>, step: &Step, file: &File) -> rustix::io::Result<Option<u64>> {
    let Action::Write { entry, expect: Expect::Leaf(_, expect), replaces: Some(old), .. } = &step.action else {
        return Ok(None);
    };
    if expect.size < CLONE_FROM {
        return Ok(None);
    }
    let mut fill = || {
        let replaced = shared.root.open_at(step.path.as_bytes(), FILE)?;
        (shared.hooks.clone)(replaced.as_fd(), file.as_fd())?;
        let is_as_expected = status_of(replaced.as_fd())?.fingerprint == *expect;
        is_as_expected.then_some(()).ok_or_else(|| io::ErrorKind::StaleNetworkFileHandle.into())
    };
    let changed = shared.content.change(&old.entry, entry, file, &mut fill);
    if changed.is_none() {
        ftruncate(file, 0)?;
        seek(file, SeekFrom::Start(0))?;
    }
    Ok(changed)
}

/// Gives `to` the content of `from` without copying it, where the file system can (Btrfs, XFS, ZFS, bcachefs).
fn clone_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    #[cfg(target_os = "linux")]
    let cloned = rustix::fs::ioctl_ficlone(to, from);
    #[cfg(not(target_os = "linux"))]
    let cloned = {
        let _ = (from, to);
        Err(Errno::NOTSUP)
    };
    cloned
}

/// The permissions of the file that is replaced, as they are for one of this kind: who may read it may execute it,
/// or nobody may. Never set-user-id.
fn mode_like(mode: u32, kind: Kind) -> u32 {
    let mode = mode & 0o777;
    if kind == Kind::Executable { mode | (mode & 0o444) >> 2 | 0o100 } else { mode & !0o111 }
}

fn times(mtime: Timestamp) -> Timestamps {
    let nanos = mtime.nanos.min(999_999_999);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: nanos.into() },
    }
}

/// Syncs the file system that holds `folder`, with all that is on it.
fn sync(folder: BorrowedFd<'_>, path: &Path) -> Result<(), WorktreeError> {
    sync_all(folder).map_err(|errno| WorktreeError::of("sync", path, errno))
}

/// What was staged or displaced in `folder`, beside its place, is settled: that is made to last, and its journal goes.
fn done_beside(stage: &Stage, folder: BorrowedFd<'_>, path: &Path) -> Result<(), WorktreeError> {
    sync_dir(folder).map_err(|errno| WorktreeError::of("sync", path, errno))?;
    stage.remove_journal("beside")
}

/// Gathers small writes, counts, and remembers which errors were the file's own.
struct Sink<'a> {
    file: &'a File,
    buffer: &'a mut Vec<u8>,
    bytes: u64,
    behind: WriteBehind,
    error: Option<Errno>,
}

impl Sink<'_> {
    fn pass_on(&mut self, bytes: Option<&[u8]>) -> io::Result<()> {
        let written = match bytes {
            Some(bytes) => self.file.write_all(bytes),
            None => self.file.write_all(self.buffer),
        };
        written.inspect_err(|error| self.error = Some(errno_of(error)))
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            self.pass_on(Some(bytes))?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.bytes += u64::try_from(bytes.len()).unwrap_or_default();
        self.behind.reached(self.file, self.bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.pass_on(None)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// Takes the target of a symlink, and no more than a target can be.
struct LinkTarget(Vec<u8>);

impl Write for LinkTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (MAX_PATH + 1).saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Target, plan};
    use super::super::scan::tests::{capture, id_of, make};
    use super::super::scan::{ScanOptions, scan};
    use super::super::stage::settle;
    use super::*;
    use crate::monitor::Silent;
    use crate::table::DiskTable;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap};
    use std::fs;
    use std::io::{Read as _, Seek as _};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;
    use std::sync::Mutex;

    #[test]
    fn a_full_or_failing_disk_stops_the_work_and_all_else_is_about_one_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let stops = |errno| matches!(Skip::at(&root, &SyncPath::new("a").unwrap(), errno), Skip::Stop(_));
        assert!([Errno::NOSPC, Errno::DQUOT, Errno::IO].into_iter().all(stops));
        assert!(![Errno::ACCESS, Errno::NAMETOOLONG, Errno::ISDIR].into_iter().any(stops));
    }

    /// Contents by the ids that stand for them.
    #[derive(Default)]
    struct Contents(HashMap<crate::id::ObjectId, Vec<u8>>);

    impl Content for Contents {
        fn copy_to(&self, entry: &Entry, out: &mut dyn Write) -> io::Result<u64> {
            let content = self.0.get(&entry.id).ok_or(io::ErrorKind::NotFound)?;
            out.write_all(content)?;
            Ok(content.len() as u64)
        }

        /// Only for what says so of itself.
        fn change(
            &self,
            old: &Entry,
            entry: &Entry,
            mut file: &File,
            fill: &mut dyn FnMut() -> io::Result<()>,
        ) -> Option<u64> {
            let (old, new) = (self.0.get(&old.id)?, self.0.get(&entry.id)?);
            if !(old.starts_with(b"large") && new.starts_with(b"large")) {
                return None;
            }
            let filled = fill();
            let mut found = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut found)).unwrap();
            if filled.is_err() || found != *old {
                return None;
            }
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(new)).unwrap();
            file.write_all(b", changed").unwrap();
            Some(new.len() as u64 + 9)
        }
    }

    /// What [`clone_file`] does, on any file system.
    #[expect(clippy::unnecessary_wraps, reason = "the other one can fail")]
    fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
        let (mut from, mut to) = (copy(from).unwrap(), copy(to).unwrap());
        io::copy(&mut from, &mut to).unwrap();
        Ok(())
    }

    /// A folder, what is known of it, and a stage.
    struct Setup {
        dir: tempfile::TempDir,
        table: DiskTable,
        contents: Contents,
        stage: PathBuf,
        plain: bool,
    }

    type Hook<'a> = &'a (dyn Fn(Moment, &[u8]) + Sync);

    #[test]
    fn a_file_is_made_from_a_clone_of_what_it_replaces() {
        let mut setup = Setup::new(&["a", "b", "c"]);
        let large = [("a", Some("large 1")), ("b", Some("large 1")), ("c", Some("large 1"))];
        setup.apply(&large);
        let applied = setup.apply(&[("a", Some("large 2")), ("b", Some("*large 2")), ("c", Some("small"))]);
        assert_eq!(applied.bytes, 16 + 16 + 5);
        assert_eq!(["a", "b", "c"].map(|name| setup.read(name)), ["large 2, changed", "large 2, changed", "small"]);
    }

    #[test]
    fn a_clone_of_something_else_is_not_used() {
        let mut setup = Setup::new(&["a", "b"]);
        setup.apply(&[("a", Some("large 1")), ("b", Some("large 1"))]);
        // There is no cloning here.
        let plan = setup.plan(&[("a", Some("large 2"))]);
        let applied = setup.apply_cloning(plan, &|_, _| {}, &|_, _| Err(Errno::OPNOTSUPP)).unwrap();
        setup.table.edit(applied.edits);
        assert_eq!(setup.read("a"), "large 2");
        // What is to be replaced changes at just this moment.
        let plan = setup.plan(&[("b", Some("large 2"))]);
        let path = setup.at("b");
        let change = |from: BorrowedFd<'_>, to: BorrowedFd<'_>| {
            copy_file(from, to)?;
            fs::write(&path, "edited here").unwrap();
            Ok(())
        };
        let applied = setup.apply_cloning(plan, &|_, _| {}, &change).unwrap();
        assert_eq!((applied.written, applied.surprises.len()), (0, 1));
        assert_eq!(setup.read("b"), "edited here");
    }

    impl Setup {
        /// With these files and folders in it, as [`make`] makes them, all recorded.
        fn new(entries: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("root")).unwrap();
            for entry in entries {
                make(&dir.path().join("root"), entry);
            }
            let stage = dir.path().join("stage");
            let (table, contents) = (DiskTable::default(), Contents::default());
            let mut setup = Self { dir, table, contents, stage, plain: false };
            setup.capture();
            setup
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join("root")
        }

        fn at(&self, name: &str) -> PathBuf {
            self.root().join(name)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.at(name)).unwrap()
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.at(name), content).unwrap();
        }

        fn capture(&mut self) {
            capture(&self.root(), &mut self.table);
        }

        /// The entry of a new content: `name/` is an empty folder, `-> target` a symlink, `*content` executable.
        fn entry(&mut self, new: &str) -> Entry {
            let (kind, content) = match new.strip_prefix("-> ") {
                Some(target) => (Kind::Symlink, target),
                None if new == "/" => return Entry::EMPTY_FOLDER,
                None => match new.strip_prefix('*') {
                    Some(content) => (Kind::Executable, content),
                    None => (Kind::File, new),
                },
            };
            let id = id_of(content.as_bytes());
            self.contents.0.insert(id, content.as_bytes().to_vec());
            Entry { kind, id }
        }

        /// Targets from what is recorded to this; nothing, where it says so.
        fn targets(&mut self, targets: &[(&str, Option<&str>)]) -> Vec<Target> {
            let target = |&(path, new): &(&str, Option<&str>)| {
                let path = SyncPath::try_from(path).unwrap();
                let old = self.table.get(path.as_bytes()).map(|row| row.entry);
                let new = new.map(|new| self.entry(new));
                Target { path, old, new, mtime: None }
            };
            targets.iter().map(target).collect()
        }

        fn plan(&mut self, targets: &[(&str, Option<&str>)]) -> ApplyPlan {
            let targets = self.targets(targets);
            plan(&Root::open(&self.root()).unwrap(), &self.table, b"", targets).unwrap()
        }

        fn apply_with(&mut self, plan: ApplyPlan, hook: Hook<'_>) -> Result<Applied, ApplyError> {
            self.apply_cloning(plan, hook, &copy_file)
        }

        fn apply_cloning(
            &mut self,
            plan: ApplyPlan,
            hook: Hook<'_>,
            clone: &(dyn Fn(BorrowedFd<'_>, BorrowedFd<'_>) -> rustix::io::Result<()> + Sync),
        ) -> Result<Applied, ApplyError> {
            let root = Root::open(&self.root()).unwrap();
            let hooks = Hooks { at: hook, plain: self.plain, clone };
            apply_with(plan, &root, &self.stage, &self.contents, 2, &Silent, &hooks)
        }

        fn apply(&mut self, targets: &[(&str, Option<&str>)]) -> Applied {
            let plan = self.plan(targets);
            assert_eq!(plan.surprises, []);
            let applied = self.apply_with(plan, &|_, _| {}).unwrap();
            self.table.edit(applied.edits.clone());
            applied
        }

        fn settle(&self) {
            settle(&Root::open(&self.root()).unwrap(), &self.stage, &self.table).unwrap();
        }

        /// What a scan finds, as texts.
        fn found(&self) -> Vec<String> {
            let root = Root::open(&self.root()).unwrap();
            let scan = scan(&root, &self.table, &ScanOptions::default(), &Silent).unwrap();
            assert_eq!(scan.left_out, []);
            scan.found.iter().map(|found| format!("{} {:?}", found.path, found.what)).collect()
        }

        /// All that stands, by path: contents, `-> target`s, and `/` for folders with nothing in them.
        fn disk(&self) -> BTreeMap<String, String> {
            let mut disk = BTreeMap::new();
            let mut folders = vec![String::new()];
            while let Some(folder) = folders.pop() {
                let mut empty = true;
                for entry in fs::read_dir(self.at(&folder)).unwrap() {
                    let entry = entry.unwrap();
                    let name = entry.file_name().into_string().unwrap();
                    let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                    empty = false;
                    let file_type = entry.file_type().unwrap();
                    if file_type.is_dir() {
                        folders.push(path);
                    } else if file_type.is_symlink() {
                        let target = fs::read_link(entry.path()).unwrap();
                        disk.insert(path, format!("-> {}", target.to_str().unwrap()));
                    } else {
                        let executable = entry.metadata().unwrap().mode() & 0o100 != 0;
                        let star = if executable { "*" } else { "" };
                        disk.insert(path.clone(), format!("{star}{}", self.read(&path)));
                    }
                }
                if empty && !folder.is_empty() {
                    disk.insert(folder, "/".to_owned());
                }
            }
            disk
        }

        fn stage_is_empty(&self) -> bool {
            let entries = fs::read_dir(&self.stage).unwrap().map(|entry| entry.unwrap());
            entries.into_iter().all(|entry| fs::read_dir(entry.path()).is_ok_and(|mut slots| slots.next().is_none()))
        }
    }

    fn names(paths: &[SyncPath]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    fn refusals(refused: &[Refused]) -> Vec<String> {
        refused.iter().map(|refused| format!("{}: {}", refused.path, refused.why)).collect()
    }

    #[test]
    fn makes_files_links_and_folders() {
        let mut setup = Setup::new(&["kept"]);
        let new = [
            ("a/b/c", Some("one")),
            ("a/x", Some("*two")),
            ("empty/inner", Some("/")),
            ("link", Some("-> a/x")),
            ("z", Some("")),
        ];
        let applied = setup.apply(&new);
        let expected =
            [("a/b/c", "one"), ("a/x", "*two"), ("empty/inner", "/"), ("kept", "kept"), ("link", "-> a/x"), ("z", "")];
        assert_eq!(setup.disk(), expected.map(|(path, what)| (path.to_owned(), what.to_owned())).into());
        assert_eq!((applied.written, applied.removed, applied.bytes), (5, 0, 9));
        assert_eq!(setup.found(), Vec::<String>::new(), "the table knows");
        assert!(setup.stage_is_empty());
    }

    #[rstest::rstest]
    fn replaces_files_and_keeps_their_permissions(#[values(true, false)] plain: bool) {
        let mut setup = Setup { plain, ..Setup::new(&["a", "b", "c", "link -> a", "d"]) };
        let chmod = |name: &str, mode| fs::set_permissions(setup.at(name), fs::Permissions::from_mode(mode)).unwrap();
        chmod("a", 0o640);
        chmod("b", 0o4754);
        chmod("c", 0o664);
        setup.capture();
        let new = [
            ("a", Some("*new a")),
            ("b", Some("new b")),
            ("c", Some("new c")),
            ("link", Some("-> b")),
            ("d", Some("-> a")),
        ];
        setup.apply(&new);
        let mode = |name: &str| fs::metadata(setup.at(name)).unwrap().mode() & 0o7777;
        assert_eq!([mode("a"), mode("b"), mode("c")], [0o750, 0o644, 0o664]);
        assert_eq!(
            (setup.read("a"), setup.read("b"), setup.read("c")),
            ("new a".into(), "new b".into(), "new c".into())
        );
        assert_eq!(fs::read_link(setup.at("link")).unwrap(), PathBuf::from("b"));
        assert_eq!(setup.read("d"), "new a", "through a link");
        assert_eq!(setup.found(), Vec::<String>::new());
    }

    #[test]
    fn a_program_that_anybody_may_start_stays_one() {
        let mut setup = Setup::new(&["a"]);
        fs::set_permissions(setup.at("a"), fs::Permissions::from_mode(0o755)).unwrap();
        setup.capture();
        setup.apply(&[("a", Some("*new a"))]);
        assert_eq!(fs::metadata(setup.at("a")).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn a_file_of_somebody_else_stays_theirs() {
        let mut setup = Setup::new(&["a"]);
        if let Err(error) = std::os::unix::fs::chown(setup.at("a"), Some(1234), Some(1235)) {
            eprintln!("SKIPPED a_file_of_somebody_else_stays_theirs: this user may not give files away: {error}");
            return;
        }
        setup.capture();
        setup.apply(&[("a", Some("new a"))]);
        let meta = fs::metadata(setup.at("a")).unwrap();
        assert_eq!((setup.read("a"), meta.uid(), meta.gid()), ("new a".to_owned(), 1234, 1235));
    }

    /// A content that comes in pieces.
    struct InPieces<'a>(&'a [Vec<u8>]);

    impl Content for InPieces<'_> {
        fn copy_to(&self, _: &Entry, out: &mut dyn Write) -> io::Result<u64> {
            self.0.iter().try_for_each(|piece| out.write_all(piece))?;
            Ok(self.0.iter().map(|piece| piece.len() as u64).sum())
        }
    }

    #[rstest::rstest]
    #[case::small_and_large(&[1, BUFFER, 1])]
    #[case::just_not_full(&[BUFFER - 1, 1, 1])]
    #[case::more_than_fits(&[BUFFER - 1, 2, BUFFER - 1])]
    #[case::large_ones(&[3, BUFFER + 1, 2 * BUFFER, 0, 5])]
    fn pieces_of_any_size_make_the_whole_content(#[case] sizes: &[usize]) {
        let mut setup = Setup::new(&[]);
        let pieces: Vec<Vec<u8>> = sizes.iter().zip(b'a'..).map(|(&size, byte)| vec![byte; size]).collect();
        let plan = setup.plan(&[("a", Some("in pieces"))]);
        let root = Root::open(&setup.root()).unwrap();
        let applied = apply(plan, &root, &setup.stage, &InPieces(&pieces), 2, &Silent).unwrap();
        assert!(fs::read(setup.at("a")).unwrap() == pieces.concat(), "{sizes:?}");
        assert_eq!(applied.bytes, sizes.iter().sum::<usize>() as u64);
    }

    #[rstest::rstest]
    #[case(Timestamp::new(-2, 999_999_995))]
    #[case(Timestamp::new(1_600_000_000, 123_456_789))]
    #[case(Timestamp::new(0, 0))]
    fn sets_times_to_the_nanosecond(#[case] mtime: Timestamp) {
        let mut setup = Setup::new(&["old", "touched", "touched-link -> x"]);
        let mut targets = setup.targets(&[
            ("new", Some("x")),
            ("old", Some("y")),
            ("link", Some("-> x")),
            ("touched", Some("touched")),
            ("touched-link", Some("-> x")),
        ]);
        for target in &mut targets {
            target.mtime = Some(mtime);
        }
        let root = Root::open(&setup.root()).unwrap();
        let planned = plan(&root, &setup.table, b"", targets.clone()).unwrap();
        assert_eq!(planned.len(), 5);
        let applied = setup.apply_with(planned, &|_, _| {}).unwrap();
        setup.table.edit(applied.edits);
        for name in ["new", "old", "link", "touched", "touched-link"] {
            let meta = fs::symlink_metadata(setup.at(name)).unwrap();
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (mtime.secs, mtime.nanos.into()), "{name}");
        }
        setup.capture();
        for target in &mut targets {
            target.old = target.new;
        }
        assert!(plan(&root, &setup.table, b"", targets).unwrap().is_empty(), "nothing is left to do");
    }

    #[test]
    fn makes_a_file_executable_where_it_stands() {
        let mut setup = Setup::new(&["a"]);
        let inode = fs::metadata(setup.at("a")).unwrap().ino();
        setup.apply(&[("a", Some("*a"))]);
        let meta = fs::metadata(setup.at("a")).unwrap();
        assert_eq!((meta.ino(), meta.mode() & 0o100), (inode, 0o100));
    }

    #[test]
    fn what_was_edited_or_removed_meanwhile_is_not_touched() {
        let mut setup = Setup::new(&["edited", "fine", "gone"]);
        let plan = setup.plan(&[("edited", Some("*edited")), ("fine", Some("*fine")), ("gone", Some("*gone"))]);
        assert_eq!(plan.surprises, []);
        setup.write("edited", "by a person");
        fs::remove_file(setup.at("gone")).unwrap();
        let applied = setup.apply_with(plan, &|_, _| {}).unwrap();
        assert_eq!((names(&applied.surprises), applied.written), (vec!["edited".to_owned(), "gone".to_owned()], 1));
        let expected = [("edited", "by a person"), ("fine", "*fine")];
        assert_eq!(setup.disk(), expected.map(|(path, what)| (path.to_owned(), what.to_owned())).into());
    }

    #[test]
    fn removes_files_and_the_folders_they_leave_empty() {
        let mut setup = Setup::new(&["a/b/c/x", "a/b/y", "d/x", "d/ignored.o", "e/x", "f/", "g/x", "h/x"]);
        setup.table = DiskTable::default();
        setup.write(".gitignore", "*.o\n");
        setup.capture();
        let gone = [
            ("a/b/c/x", None),
            ("a/b/y", None),
            ("d/x", None),
            ("e/x", None),
            ("f", None),
            ("g/x", None),
            ("g", Some("/")),
        ];
        let applied = setup.apply(&gone);
        let left: Vec<_> = setup.disk().into_keys().collect();
        assert_eq!(left, [".gitignore", "d/ignored.o", "g", "h/x"]);
        assert_eq!(applied.removed, 5);
        assert!(setup.stage_is_empty());
        setup.write("h/new", "unknown");
        setup.apply(&[("h/x", None)]);
        assert_eq!(setup.read("h/new"), "unknown");
    }

    #[test]
    fn what_is_gone_already_is_only_recorded() {
        let mut setup = Setup::new(&["a", "b/c"]);
        fs::remove_file(setup.at("a")).unwrap();
        fs::remove_dir_all(setup.at("b")).unwrap();
        let applied = setup.apply(&[("a", None), ("b/c", None)]);
        assert_eq!(applied.edits.len(), 2);
        assert!(setup.table.is_empty());
    }

    /// Power was lost, and of a removal it was the file's that lasted, and not, or not all of, that of its folders.
    #[test]
    fn of_what_is_gone_already_the_empty_folders_go_too() {
        let mut setup = Setup::new(&["a/b/c/x", "a/b/y", "d/e/", "f/x", "g/"]);
        fs::remove_dir_all(setup.at("a/b/c")).unwrap();
        fs::remove_file(setup.at("a/b/y")).unwrap();
        fs::remove_dir(setup.at("d/e")).unwrap();
        fs::remove_file(setup.at("f/x")).unwrap();
        setup.apply(&[("a/b/c/x", None), ("a/b/y", None), ("d/e", None), ("f/x", None)]);
        assert_eq!(setup.disk(), BTreeMap::from([("g".to_owned(), "/".to_owned())]));
    }

    #[test]
    fn the_folders_above_one_that_is_gone_already_go_too() {
        let mut setup = Setup::new(&["a/b/c/d/x", "kept"]);
        fs::remove_dir_all(setup.at("a/b")).unwrap();
        setup.apply(&[("a/b/c/d/x", None)]);
        assert_eq!(setup.disk().into_keys().collect::<Vec<_>>(), ["kept"]);
        assert!(!setup.at("a").exists());
    }

    #[test]
    fn what_is_not_as_recorded_is_a_surprise() {
        let mut setup =
            Setup::new(&["changed", "removed", "kind", "deleted", "vanished", "to-folder", "fine", "f/x", "f/y"]);
        setup.write("changed", "edited");
        setup.write("deleted", "edited");
        setup.write("appeared", "unknown");
        setup.write("blocking", "unknown");
        setup.write("f/unknown", "unknown");
        fs::create_dir_all(setup.at("f/hollow")).unwrap();
        for name in ["vanished", "kind", "to-folder"] {
            fs::remove_file(setup.at(name)).unwrap();
        }
        make(&setup.root(), "kind -> x");
        make(&setup.root(), "to-folder/x");
        let before = setup.disk();
        let plan = setup.plan(&[
            ("changed", Some("new")),
            ("deleted", None),
            ("appeared", Some("new")),
            ("vanished", Some("new")),
            ("kind", Some("new")),
            ("blocking/x", Some("new")),
            ("to-folder", Some("new")),
            ("f", Some("new")),
            ("f/x", None),
            ("f/y", None),
        ]);
        let surprises =
            ["appeared", "blocking", "changed", "deleted", "f/hollow", "f/unknown", "kind", "to-folder", "vanished"];
        assert_eq!(names(&plan.surprises), surprises);
        assert_eq!(refusals(&plan.refused), Vec::<String>::new());
        assert_eq!(plan.len(), 2, "f/x and f/y can go");
        assert_eq!(setup.disk(), before, "a plan only reads");
    }

    #[test]
    fn where_a_killed_run_has_made_room_already_what_is_of_another_form_is_made() {
        let mut setup = Setup::new(&["file", "folder/"]);
        fs::remove_file(setup.at("file")).unwrap();
        fs::remove_dir(setup.at("folder")).unwrap();
        setup.apply(&[("file", Some("/")), ("folder", Some("new"))]);
        let expected = [("file", "/"), ("folder", "new")].map(|(path, now)| (path.to_owned(), now.to_owned()));
        assert_eq!(setup.disk(), expected.into());
    }

    #[test]
    fn what_cannot_be_captured_is_refused_and_the_rest_goes_on() {
        let mut setup = Setup::new(&[".gitignore", "known.o", "gone.o", "n/x", "f/x"]);
        setup.write(".gitignore", "*.o\nign/\n");
        setup.capture();
        setup.write("known.o", "edited");
        setup.write("gone.o", "edited");
        setup.write("unknown.o", "");
        setup.write("f/in.o", "");
        make(&setup.root(), "n/.git");
        make(&setup.root(), "ign/x");
        rustix::fs::mkfifoat(rustix::fs::CWD, setup.at("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let long = "n".repeat(300);
        let deep = vec!["d".repeat(200); 21].join("/");
        let plan = setup.plan(&[
            ("known.o", Some("new")),
            ("gone.o", None),
            ("unknown.o", Some("new")),
            ("f", Some("new")),
            ("f/x", None),
            ("n/x", Some("new")),
            ("n/y", Some("new")),
            ("fifo", Some("new")),
            ("fifo/below", Some("new")),
            (&long, Some("new")),
            (&deep, Some("new")),
            ("fine", Some("new")),
            ("ign", Some("new")),
            ("a/.foldersync-stage-1", Some("new")),
        ]);
        let expected = vec![
            "a/.foldersync-stage-1: a name that foldersync keeps for files it is writing".to_owned(),
            format!("{deep}: a path longer than 4095 bytes"),
            "f: f/in.o is in the way: move it away".to_owned(),
            "fifo: a fifo stands there".to_owned(),
            "fifo/below: a fifo stands there".to_owned(),
            "ign: ign/x is in the way: move it away".to_owned(),
            "known.o: what stands there is ignored here and in no revision: move it away".to_owned(),
            "n/x: it lies in a nested git repository".to_owned(),
            "n/y: it lies in a nested git repository".to_owned(),
            format!("{long}: a name longer than 255 bytes"),
            "unknown.o: what stands there is ignored here and in no revision: move it away".to_owned(),
        ];
        assert_eq!(refusals(&plan.refused), expected);
        assert_eq!(names(&plan.surprises), Vec::<String>::new());
        let applied = setup.apply_with(plan, &|_, _| {}).unwrap();
        assert_eq!(applied.refused.len(), expected.len());
        assert_eq!(setup.read("fine"), "new");
        assert_eq!(setup.read("known.o"), "edited");
        assert_eq!(setup.read("gone.o"), "edited", "removed from the table, but not from the disk");
        assert_eq!(applied.edits.iter().filter(|edit| edit.row.is_none()).count(), 2);
    }

    #[test]
    fn a_link_that_no_disk_can_hold_is_refused() {
        let mut setup = Setup::new(&[]);
        let long = format!("-> {}", "x".repeat(5000));
        let plan = setup.plan(&[
            ("empty", Some("-> ")),
            ("long", Some(&long)),
            ("nul", Some("-> a\0b")),
            ("ok", Some("-> x")),
        ]);
        let applied = setup.apply_with(plan, &|_, _| {}).unwrap();
        let refused: Vec<_> =
            applied.refused.iter().map(|refused| (refused.path.to_string(), refused.why.clone())).collect();
        assert_eq!(refused, ["empty", "long", "nul"].map(|name| (name.to_owned(), WhyRefused::LinkTarget)));
        assert_eq!(setup.disk().len(), 1);
    }

    #[test]
    fn a_link_as_long_as_a_disk_can_hold_is_not_refused_for_that() {
        let mut setup = Setup::new(&[]);
        let targets = [4095, 4096].map(|length| format!("-> {}", "x".repeat(length)));
        let applied = setup.apply(&[("a", Some(&targets[0])), ("b", Some(&targets[1]))]);
        let refused = applied.refused.iter().filter(|refused| refused.why == WhyRefused::LinkTarget);
        assert_eq!(refused.map(|refused| refused.path.to_string()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn where_all_is_refused_nothing_is_left_over() {
        let mut setup = Setup::new(&[]);
        let applied = setup.apply(&[("empty", Some("-> "))]);
        assert_eq!((applied.refused.len(), applied.written), (1, 0));
        assert!(setup.disk().is_empty() && setup.stage_is_empty());
    }

    /// Contents of which some make no sense.
    struct Senseless<'a>(&'a Contents, crate::id::ObjectId);

    impl Content for Senseless<'_> {
        fn copy_to(&self, entry: &Entry, out: &mut dyn Write) -> io::Result<u64> {
            if entry.id == self.1 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no such content"));
            }
            self.0.copy_to(entry, out)
        }
    }

    #[test]
    fn a_content_that_will_never_be_is_refused_and_the_rest_goes_on() {
        let mut setup = Setup::new(&["a", "b"]);
        let plan = setup.plan(&[("a", Some("senseless")), ("b", Some("new b"))]);
        let root = Root::open(&setup.root()).unwrap();
        let content = Senseless(&setup.contents, id_of(b"senseless"));
        let applied = apply(plan, &root, &setup.stage, &content, 2, &Silent).unwrap();
        let refused: Vec<_> =
            applied.refused.iter().map(|refused| (refused.path.to_string(), refused.why.clone())).collect();
        assert_eq!(refused, [("a".to_owned(), WhyRefused::Content("there is no such content".to_owned()))]);
        assert_eq!((setup.read("a"), setup.read("b")), ("a".to_owned(), "new b".to_owned()));
        assert!(setup.stage_is_empty());
    }

    #[test]
    fn a_name_that_is_no_text_is_written_as_it_is() {
        let mut setup = Setup::new(&[]);
        let new = setup.entry("x");
        let path = SyncPath::new(b"d/caf\xe9 \n").unwrap();
        let target = Target { path: path.clone(), old: None, new: Some(new), mtime: None };
        let plan = plan(&Root::open(&setup.root()).unwrap(), &setup.table, b"", vec![target]).unwrap();
        let applied = setup.apply_with(plan, &|_, _| {}).unwrap();
        setup.table.edit(applied.edits);
        assert_eq!(setup.table.path(0), path.as_bytes());
        assert_eq!(setup.found(), Vec::<String>::new());
    }

    #[test]
    fn files_and_folders_change_places() {
        let mut setup = Setup::new(&["a", "b/x", "b/y/z", "c/", "d", "e/", "f -> x", "g/h/"]);
        setup.apply(&[
            ("a", None),
            ("a/x/y", Some("in a")),
            ("b/x", None),
            ("b/y/z", None),
            ("b", Some("file b")),
            ("c", Some("file c")),
            ("d", Some("/")),
            ("e", None),
            ("e/x", Some("in e")),
            ("f", None),
            ("f/x", Some("in f")),
            ("g/h", None),
            ("g", Some("-> x")),
        ]);
        let expected = [
            ("a/x/y", "in a"),
            ("b", "file b"),
            ("c", "file c"),
            ("d", "/"),
            ("e/x", "in e"),
            ("f/x", "in f"),
            ("g", "-> x"),
        ];
        assert_eq!(setup.disk(), expected.map(|(path, what)| (path.to_owned(), what.to_owned())).into());
        assert_eq!(setup.found(), Vec::<String>::new());
        assert!(setup.stage_is_empty());
    }

    // What comes in between.

    /// Plans, has something happen at a moment of each path, and applies.
    fn interfere(setup: &mut Setup, targets: &[(&str, Option<&str>)], when: Moment, act: impl Fn() + Sync) -> Applied {
        let plan = setup.plan(targets);
        assert_eq!(plan.surprises, []);
        let once = Mutex::new(false);
        let hook = |moment: Moment, _: &[u8]| {
            let mut done = once.lock().unwrap();
            if moment == when && !*done {
                *done = true;
                act();
            }
        };
        let applied = setup.apply_with(plan, &hook).unwrap();
        assert!(*once.lock().unwrap(), "the moment has come");
        applied
    }

    #[rstest::rstest]
    fn a_file_that_appears_at_the_last_moment_is_kept(#[values(true, false)] plain: bool) {
        let mut setup = Setup { plain, ..Setup::new(&[]) };
        let file = setup.at("d/new");
        let appear = || {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "theirs").unwrap();
        };
        for moment in [Moment::Synced, Moment::Looked] {
            let applied = interfere(&mut setup, &[("d/new", Some("ours"))], moment, appear);
            assert_eq!((names(&applied.surprises), applied.edits.len()), (vec!["d/new".to_owned()], 0));
            assert_eq!(setup.read("d/new"), "theirs");
            assert!(setup.stage_is_empty());
            fs::remove_file(setup.at("d/new")).unwrap();
        }
    }

    #[rstest::rstest]
    fn an_edit_at_the_last_moment_is_kept(
        #[values(Moment::Synced, Moment::Journaled, Moment::Looked)] moment: Moment,
        #[values(0, 1, 2, 3)] edit: u8,
        #[values(Some("ours"), None)] new: Option<&str>,
    ) {
        if moment == Moment::Synced && new.is_none() {
            return; // What is only removed needs no sync before.
        }
        let mut setup = Setup::new(&["d/file"]);
        let file = setup.at("d/file");
        let edit = || match edit {
            0 => fs::write(&file, "edited").unwrap(),
            1 => {
                fs::write(file.with_extension("tmp"), "edited").unwrap();
                fs::rename(file.with_extension("tmp"), &file).unwrap();
            }
            2 => fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b" edited").unwrap(),
            _ => {
                fs::remove_file(&file).unwrap();
                fs::create_dir(&file).unwrap();
                fs::write(file.join("edited"), "").unwrap();
            }
        };
        let applied = interfere(&mut setup, &[("d/file", new)], moment, edit);
        assert_eq!((names(&applied.surprises), applied.edits.len()), (vec!["d/file".to_owned()], 0));
        assert!(setup.stage_is_empty());
        let disk = setup.disk();
        assert_eq!(disk.len(), 1, "{disk:?}");
        assert!(disk.iter().any(|(path, content)| path.contains("edited") || content.contains("edited")), "{disk:?}");
    }

    #[rstest::rstest]
    fn an_edit_before_the_last_look_is_kept_where_files_cannot_be_exchanged(
        #[values(Moment::Staged, Moment::Journaled, Moment::Synced)] moment: Moment,
    ) {
        let mut setup = Setup { plain: true, ..Setup::new(&["d/file"]) };
        let file = setup.at("d/file");
        let applied =
            interfere(&mut setup, &[("d/file", Some("ours"))], moment, || fs::write(&file, "edited").unwrap());
        assert_eq!((names(&applied.surprises), applied.edits.len()), (vec!["d/file".to_owned()], 0));
        assert_eq!(setup.read("d/file"), "edited");
        assert!(setup.stage_is_empty());
    }

    #[test]
    fn a_folder_that_was_made_anew_meanwhile_is_written_to() {
        let mut setup = Setup::new(&[]);
        let folder = setup.at("d");
        let plan = setup.plan(&[("d/a", Some("1")), ("d/b", Some("2"))]);
        let hook = |moment: Moment, path: &[u8]| {
            if (moment, path) == (Moment::Done, b"d/a") {
                fs::remove_dir_all(&folder).unwrap();
                fs::create_dir(&folder).unwrap();
            }
        };
        let applied = setup.apply_with(plan, &hook).unwrap();
        // The one of which nothing stands any more is looked at again.
        assert_eq!(names(&applied.surprises), ["d/a"]);
        assert_eq!(setup.disk(), BTreeMap::from([("d/b".to_owned(), "2".to_owned())]));
    }

    #[test]
    fn a_file_that_is_removed_at_the_last_moment_stays_removed() {
        let mut setup = Setup::new(&["file"]);
        let file = setup.at("file");
        let applied =
            interfere(&mut setup, &[("file", Some("ours"))], Moment::Looked, || fs::remove_file(&file).unwrap());
        assert_eq!(names(&applied.surprises), ["file"]);
        assert!(setup.disk().is_empty() && setup.stage_is_empty());
    }

    #[test]
    fn a_folder_that_fills_at_the_last_moment_is_kept() {
        let mut setup = Setup::new(&["d/"]);
        let file = setup.at("d/theirs");
        let applied =
            interfere(&mut setup, &[("d", Some("ours"))], Moment::Looked, || fs::write(&file, "theirs").unwrap());
        assert_eq!(names(&applied.surprises), ["d"]);
        assert_eq!(setup.read("d/theirs"), "theirs");
        assert!(setup.stage_is_empty());
    }

    /// Else power that is lost could bring it back to its slot, of which nothing would tell.
    #[rstest::rstest]
    fn what_was_put_back_is_safe_before_its_journal_goes(#[values(Some("ours"), None)] new: Option<&str>) {
        use crate::disk::{Step, record};
        let mut setup = Setup::new(&["file"]);
        let file = setup.at("file");
        let plan = setup.plan(&[("file", new)]);
        let edit = |moment, _: &[u8]| {
            if moment == Moment::Looked {
                fs::write(&file, "edited").unwrap();
            }
        };
        let (applied, steps) = record::steps(|| setup.apply_with(plan, &edit));
        assert_eq!(
            (names(&applied.unwrap().surprises), setup.read("file")),
            (vec!["file".to_owned()], "edited".to_owned())
        );
        let last = |of: &dyn Fn(&Step, &str) -> bool| steps.iter().rposition(|(step, name)| of(step, name)).unwrap();
        let put_back = last(&|step, name| *step == Step::Rename && name == "file");
        let gone = last(&|step, name| *step == Step::Remove && name.starts_with("journal-"));
        assert!(steps[put_back..gone].iter().any(|(step, _)| *step == Step::SyncAll), "{steps:?}");
    }

    #[test]
    fn two_edits_in_a_row_are_both_kept() {
        let mut setup = Setup::new(&["file"]);
        let file = setup.at("file");
        let plan = setup.plan(&[("file", Some("ours"))]);
        let replace = |content: &str| {
            fs::write(file.with_extension("tmp"), content).unwrap();
            fs::rename(file.with_extension("tmp"), &file).unwrap();
        };
        let hook = |moment: Moment, _: &[u8]| match moment {
            Moment::Looked => replace("first"),
            Moment::Swapped => replace("second"),
            _ => {}
        };
        let applied = setup.apply_with(plan, &hook).unwrap();
        assert_eq!(names(&applied.surprises), ["file"]);
        assert_eq!(setup.read("file"), "second");
        assert_eq!(setup.read("file (recovered 1)"), "first");
        assert!(setup.stage_is_empty());
    }

    #[test]
    fn an_edit_right_after_is_not_taken_for_ours() {
        let mut setup = Setup::new(&["file"]);
        let file = setup.at("file");
        let applied =
            interfere(&mut setup, &[("file", Some("ours"))], Moment::Done, || fs::write(&file, "theirs").unwrap());
        assert_eq!(names(&applied.surprises), ["file"]);
        assert_eq!(applied.edits[0].row.unwrap().1, Fingerprint::default());
        setup.table.edit(applied.edits);
        assert_eq!(setup.found().len(), 1);
    }

    #[rstest::rstest]
    fn a_folder_swapped_for_a_link_leads_nowhere(
        #[values(Moment::Staged, Moment::Synced, Moment::Looked)] moment: Moment,
        #[values("d/file", "d/deep/new", "d/gone")] path: &str,
    ) {
        let mut setup = Setup::new(&["d/file", "d/gone", "d/deep/x"]);
        let outside = setup.dir.path().join("outside");
        fs::create_dir_all(outside.join("deep")).unwrap();
        fs::write(outside.join("file"), "outside").unwrap();
        fs::write(outside.join("gone"), "outside").unwrap();
        let folder = setup.at("d");
        let swap = || {
            fs::rename(&folder, folder.with_extension("moved")).unwrap();
            symlink(&outside, &folder).unwrap();
        };
        let new = if path == "d/gone" { None } else { Some("ours") };
        if new.is_some() {
            drop(interfere(&mut setup, &[(path, new)], moment, swap));
        } else {
            let plan = setup.plan(&[(path, new)]);
            swap();
            drop(setup.apply_with(plan, &|_, _| {}).unwrap());
        }
        let content = |name: &str| fs::read_to_string(outside.join(name)).unwrap();
        assert_eq!((content("file"), content("gone")), ("outside".to_owned(), "outside".to_owned()));
        assert_eq!(fs::read_dir(outside.join("deep")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 3);
    }

    #[test]
    fn a_link_in_place_of_a_folder_is_a_surprise() {
        let mut setup = Setup::new(&["d/file"]);
        let outside = setup.dir.path().join("outside");
        fs::rename(setup.at("d"), &outside).unwrap();
        symlink(&outside, setup.at("d")).unwrap();
        let plan = setup.plan(&[("d/file", Some("ours")), ("d/new", Some("ours"))]);
        assert!(plan.is_empty());
        assert_eq!(names(&plan.surprises), ["d"]);
    }

    // What stops it.

    #[test]
    fn a_content_that_cannot_be_had_stops_it_and_leaves_the_files_alone() {
        let mut setup = Setup::new(&["a", "b"]);
        let plan = setup.plan(&[("a", Some("new a")), ("b", Some("new b"))]);
        setup.contents.0.remove(&id_of(b"new b"));
        let error = setup.apply_with(plan, &|_, _| {}).unwrap_err();
        assert!(matches!(error.source, WorktreeError::Content { ref path, .. } if path == "b"), "{error}");
        assert_eq!((setup.read("a"), setup.read("b")), ("a".to_owned(), "b".to_owned()));
        assert!(error.applied.edits.is_empty() && setup.stage_is_empty());
    }

    #[test]
    fn what_was_made_ready_before_it_stopped_takes_no_room() {
        let mut setup = Setup::new(&[]);
        let files: Vec<String> = (10..10 + 4 * BATCH_FILES).map(|number| format!("file {number}")).collect();
        let targets: Vec<_> = files.iter().map(|file| (&**file, Some(&**file))).collect();
        let plan = setup.plan(&targets);
        setup.contents.0.remove(&id_of(b"file 13"));
        let error = setup.apply_with(plan, &|_, _| {}).unwrap_err();
        assert!(matches!(error.source, WorktreeError::Content { ref path, .. } if path == "file 13"), "{error}");
        assert!(error.applied.edits.is_empty() && setup.disk().is_empty() && setup.stage_is_empty());
    }

    #[test]
    fn a_stage_that_cannot_be_made_stops_it() {
        let mut setup = Setup::new(&["a"]);
        fs::write(&setup.stage, "a file").unwrap();
        let plan = setup.plan(&[("a", Some("new"))]);
        let error = setup.apply_with(plan, &|_, _| {}).unwrap_err();
        assert!(error.to_string().contains("stage"), "{error}");
        assert_eq!(setup.read("a"), "a");
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn a_stage_or_a_folder_without_the_right_to_write() {
        let mut setup = Setup::new(&["a", "shut/x"]);
        fs::create_dir(&setup.stage).unwrap();
        let shut = fs::Permissions::from_mode(0o500);
        fs::set_permissions(setup.at("shut"), shut.clone()).unwrap();
        if fs::write(setup.at("shut/probe"), "").is_ok() {
            eprintln!("SKIPPED a_stage_or_a_folder_without_the_right_to_write: this user (root?) may write everywhere");
            return;
        }
        let plan = setup.plan(&[("a", Some("new")), ("shut/x", Some("new")), ("shut/y", Some("new"))]);
        let applied = setup.apply_with(plan, &|_, _| {}).unwrap();
        let refused = ["shut/x: Permission denied (os error 13)", "shut/y: Permission denied (os error 13)"];
        assert_eq!(refusals(&applied.refused), refused);
        setup.table.edit(applied.edits);
        let plan = setup.plan(&[("a", Some("newer"))]);
        fs::set_permissions(&setup.stage, shut).unwrap();
        let error = setup.apply_with(plan, &|_, _| {}).unwrap_err();
        for folder in [setup.at("shut"), setup.stage.clone()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
        assert!(matches!(error.source, WorktreeError::Denied { .. }), "{error}");
        assert_eq!((setup.read("a"), setup.read("shut/x")), ("new".to_owned(), "shut/x".to_owned()));
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn a_stage_on_another_disk_still_serves() {
        let mut setup = Setup::new(&["a", "gone", "edited", "link -> a", "d/"]);
        let other = tempfile::Builder::new().tempdir_in("/dev/shm");
        let here = fs::metadata(setup.root()).unwrap().dev();
        let Some(other) = other.ok().filter(|other| fs::metadata(other.path()).unwrap().dev() != here) else {
            eprintln!("SKIPPED a_stage_on_another_disk_still_serves: /dev/shm is no other file system");
            return;
        };
        setup.stage = other.path().join("stage");
        setup.apply(&[
            ("a", Some("new")),
            ("gone", None),
            ("sub/new", Some("new")),
            ("link", Some("-> b")),
            ("d", Some("file")),
        ]);
        let expected = [("a", "new"), ("d", "file"), ("edited", "edited"), ("link", "-> b"), ("sub/new", "new")];
        assert_eq!(setup.disk(), expected.map(|(path, what)| (path.to_owned(), what.to_owned())).into());
        assert_eq!(setup.found(), Vec::<String>::new());
        assert!(setup.stage_is_empty());

        let file = setup.at("edited");
        for new in [Some("ours"), None] {
            let applied =
                interfere(&mut setup, &[("edited", new)], Moment::Looked, || fs::write(&file, "theirs").unwrap());
            assert_eq!(names(&applied.surprises), ["edited"]);
            assert_eq!(setup.read("edited"), "theirs");
            assert_eq!(setup.disk().len(), 5);
            assert!(setup.stage_is_empty());
            setup.capture();
        }
    }

    // Kills.

    /// Applies, and is killed at the `kill`th moment; returns whether it came to that.
    fn killed(setup: &mut Setup, targets: &[(&str, Option<&str>)], kill: usize, act: Hook<'_>) -> bool {
        let plan = setup.plan(targets);
        assert_eq!(plan.surprises, []);
        let count = AtomicUsize::new(0);
        let hook = |moment: Moment, path: &[u8]| {
            act(moment, path);
            if count.fetch_add(1, Ordering::Relaxed) == kill {
                std::panic::resume_unwind(Box::new("killed"));
            }
        };
        catch_unwind(AssertUnwindSafe(|| setup.apply_with(plan, &hook))).is_err()
    }

    const BEFORE: &[&str] = &["a", "b/x", "b/y/z", "c/", "d", "e", "f -> x", "same", "gone/x", "gone/y"];
    const TARGETS: &[(&str, Option<&str>)] = &[
        ("a", None),
        ("a/x", Some("in a")),
        ("b/x", None),
        ("b/y/z", None),
        ("b", Some("file b")),
        ("c", Some("file c")),
        ("d", Some("/")),
        ("e", Some("*new e")),
        ("f", Some("-> y")),
        ("gone/x", None),
        ("gone/y", None),
        ("n1", Some("1")),
        ("n2", Some("2")),
        ("n/3", Some("3")),
        ("n/4", Some("4")),
        ("n/5", Some("5")),
        ("n/6", Some("6")),
    ];

    #[rstest::rstest]
    fn a_kill_at_any_moment_leaves_each_path_old_or_new_and_the_next_run_ends_it(
        #[values(true, false)] elsewhere: bool,
    ) {
        let finished = {
            let mut setup = Setup::new(BEFORE);
            setup.apply(TARGETS);
            setup.disk()
        };
        let other = tempfile::Builder::new().tempdir_in("/dev/shm");
        for kill in 0.. {
            let mut setup = Setup::new(BEFORE);
            if let (true, Ok(other)) = (elsewhere, &other) {
                setup.stage = other.path().join("stage");
            }
            let before = setup.disk();
            if !killed(&mut setup, TARGETS, kill, &|_, _| {}) {
                assert!(kill > 30, "{kill}");
                break;
            }
            for (path, content) in setup.disk() {
                let is_old = before.get(&path) == Some(&content);
                let is_new = finished.get(&path) == Some(&content);
                // A folder that is not yet filled, or no longer.
                let is_between = content == "/";
                assert!(
                    is_old || is_new || is_between || path.contains(".foldersync-stage-"),
                    "{kill}: {path}: {content}"
                );
            }
            // The engine captures what it finds, and plans again from there.
            setup.settle();
            setup.capture();
            let mut rounds = 0;
            loop {
                let plan = setup.plan(TARGETS);
                let applied = setup.apply_with(plan, &|_, _| {}).unwrap();
                setup.table.edit(applied.edits);
                setup.capture();
                rounds += 1;
                if setup.disk() == finished {
                    break;
                }
                assert!(rounds < 3, "{kill}: {:?}", setup.disk());
            }
            assert_eq!(setup.found(), Vec::<String>::new());
            assert!(setup.stage_is_empty());
        }
    }

    #[rstest::rstest]
    fn a_kill_between_an_unseen_edit_and_its_return_loses_nothing(
        #[values(Some("ours"), None)] new: Option<&str>,
        #[values(true, false)] elsewhere: bool,
    ) {
        let other = tempfile::Builder::new().tempdir_in("/dev/shm");
        for kill in 0.. {
            let mut setup = Setup::new(&["file"]);
            if let (true, Ok(other)) = (elsewhere, &other) {
                setup.stage = other.path().join("stage");
            }
            let file = setup.at("file");
            let edit = |moment, _: &[u8]| {
                if moment == Moment::Looked && setup_is_unedited(&file) {
                    fs::write(&file, "edited").unwrap();
                }
            };
            let was_killed = killed(&mut setup, &[("file", new)], kill, &edit);
            setup.settle();
            assert!(setup.disk().len() == 1, "{kill}: {:?}", setup.disk());
            let content = setup.read("file");
            assert!(content == "edited" || (was_killed && content == "file"), "{kill}: {content}");
            assert!(setup.stage_is_empty());
            if !was_killed {
                assert!(kill >= 3, "{kill}");
                break;
            }
        }
    }

    #[rstest::rstest]
    fn after_a_kill_whichever_of_the_files_was_edited_unseen_comes_back(
        #[values(Some("ours"), None)] new: Option<&str>,
        #[values("a", "b", "c")] edited: &str,
    ) {
        for kill in 0.. {
            let mut setup = Setup::new(&["a", "b", "c"]);
            let (file, is_edited) = (setup.at(edited), AtomicBool::new(false));
            let edit = |moment, path: &[u8]| {
                if moment == Moment::Looked && path == edited.as_bytes() {
                    fs::write(&file, "edited").unwrap();
                    is_edited.store(true, Ordering::Relaxed);
                }
            };
            let was_killed = killed(&mut setup, &[("a", new), ("b", new), ("c", new)], kill, &edit);
            setup.settle();
            let expected = if is_edited.load(Ordering::Relaxed) { "edited" } else { edited };
            assert_eq!(setup.disk().get(edited).map(|content| &**content), Some(expected), "{kill}");
            assert!(setup.stage_is_empty());
            if !was_killed {
                assert!(kill >= 9, "{kill}");
                break;
            }
        }
    }

    fn setup_is_unedited(file: &Path) -> bool {
        fs::read_to_string(file).unwrap() == "file"
    }

    // Any state to any other.

    fn tree() -> impl Strategy<Value = BTreeMap<String, String>> {
        let leaf = prop_oneof![Just("/"), Just("one"), Just("two"), Just("*one"), Just("-> x"), Just("")];
        proptest::collection::btree_map("[ab](-|/[ab](/[ab])?)?", leaf.prop_map(str::to_owned), 0..9).prop_map(|tree| {
            // No leaf may stand where a folder must.
            let is_above = |path: &str| tree.keys().any(|other| other.starts_with(&format!("{path}/")));
            tree.iter().filter(|(path, _)| !is_above(path)).map(|(path, what)| (path.clone(), what.clone())).collect()
        })
    }

    fn changes<'a>(
        old: &'a BTreeMap<String, String>,
        new: &'a BTreeMap<String, String>,
    ) -> Vec<(&'a str, Option<&'a str>)> {
        let gone = old.keys().filter(|path| !new.contains_key(*path)).map(|path| (&**path, None));
        gone.chain(
            new.iter().filter(|(path, what)| old.get(*path) != Some(what)).map(|(path, what)| (&**path, Some(&**what))),
        )
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]
        #[test]
        fn any_state_becomes_any_other(one in tree(), two in tree(), plain in any::<bool>(), kill in proptest::option::of(0usize..40)) {
            let mut setup = Setup { plain, ..Setup::new(&[]) };
            setup.apply(&changes(&BTreeMap::new(), &one));
            prop_assert_eq!(setup.disk(), one.clone());
            let targets = changes(&one, &two);
            if let Some(kill) = kill {
                if killed(&mut setup, &targets, kill, &|_, _| {}) {
                    setup.settle();
                    let stands_nowhere = |path: &String| !one.contains_key(path) && !two.contains_key(path);
                    prop_assert_eq!(setup.disk().into_keys().find(stands_nowhere), None);
                    setup.capture();
                    let now = setup.disk();
                    drop(setup.apply(&changes(&now, &two)));
                }
            } else {
                drop(setup.apply(&targets));
            }
            setup.capture(); // What was only touched has to be read once.
            prop_assert_eq!(setup.disk(), two);
            prop_assert_eq!(setup.found(), Vec::<String>::new());
            prop_assert!(setup.stage_is_empty());
        }
    }
}
