//! What is new on disk: the folder compared with the table of what it last held.
//!
//! It only reads, and only names and `stat`s: content is for whoever captures. A folder costs one open and its
//! listing, a file one `stat`; a file that is as recorded costs no memory. Folders are shared between threads.
//!
//! What it promises: a path is reported [`What::Gone`] only where its folder could be read and does not have it.
//! Where something stands in the way of seeing (no right to read, a nested repository, a special file), that is said
//! in [`Scan::left_out`] and nothing at or below it is gone. What vanishes or changes its kind while it is looked at
//! is left for the next scan. What the rules ignore is neither new, nor changed, nor gone.
//!
//! Empty folders are leaves ([`Kind::EmptyFolder`]): a folder in which nothing counts, be it that it has no entry at
//! all or only such as are ignored or left out. A folder that is itself ignored is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::error::WorktreeError;
use super::ignore::{self, Above};
use super::root::{FOLDER, Form, MAX_PATH, Names, Root, Status, order, says_nothing_there, status_of};
use super::stage;
use crate::clock::Timestamp;
use crate::entry::{Fingerprint, Kind};
use crate::monitor::{Monitor, Stage};
use crate::path::{self, SyncPath, check_name};
use crate::table::DiskTable;

/// How to scan.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// How many threads look at folders; 0 is taken for 1.
    pub threads: usize,
    /// The files and folders to look at, with all that is below them; everything, if there are none.
    pub only: Vec<SyncPath>,
    /// The text of a list of ignore rules that stand above all `.gitignore`s (git's `info/exclude`).
    pub exclude: Vec<u8>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// What is not as the table has it, in the order of the paths' bytes, each path once.
    pub found: Vec<Found>,
    /// What could not be looked at, or is never versioned, in the order of the paths.
    pub left_out: Vec<LeftOut>,
    /// How much was looked at.
    pub stats: Stats,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files and symlinks.
    pub files: u64,
    /// Folders that were read.
    pub folders: u64,
}

/// One path that is not as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub path: SyncPath,
    /// What became of it.
    pub what: What,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It stands there, and the table has no row of it.
    New {
        /// What it is.
        kind: Kind,
        /// What the disk says of it; all zero for an empty folder.
        fingerprint: Fingerprint,
        /// When it was last written.
        mtime: Timestamp,
        /// Its bytes; none for an empty folder.
        size: u64,
    },
    /// It stands there, and is not, or not surely, what the table has: its content has to be read to know.
    Suspect {
        /// What it is.
        kind: Kind,
        /// What the disk says of it; all zero for an empty folder.
        fingerprint: Fingerprint,
        /// When it was last written.
        mtime: Timestamp,
        /// Its bytes; none for an empty folder.
        size: u64,
    },
    /// The table has it, the disk has not. This is also said of the row of an empty folder that is empty no more,
    /// and of a file in whose place a folder stands: what is in that folder is found by its own path.
    Gone,
}

impl What {
    /// What stands there now, if anything.
    pub const fn kind(&self) -> Option<Kind> {
        match self {
            Self::New { kind, .. } | Self::Suspect { kind, .. } => Some(*kind),
            Self::Gone => None,
        }
    }

    /// The bytes of what stands there now.
    pub const fn size(&self) -> u64 {
        match self {
            Self::New { size, .. } | Self::Suspect { size, .. } => *size,
            Self::Gone => 0,
        }
    }
}

/// Something that is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its path; its names need not be such as git accepts.
    pub path: Vec<u8>,
    /// Why.
    pub why: Why,
}

/// Why something is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A folder with a repository of its own; copying a live repository file by file would damage it.
    NestedRepository,
    /// A socket, a fifo or a device: the words for it.
    Special(&'static str),
    /// A name that git refuses.
    Name(path::NameError),
    /// A path longer than the system takes.
    TooLong,
    /// The system refused to have it read: the number of its error.
    Unreadable(i32),
    /// A folder whose `.gitignore` cannot be read: what it would leave out must not be captured by mistake.
    UnreadableRules(i32),
    /// A name that foldersync keeps for files that it is about to put in place.
    Reserved,
}

/// As a clause: `a nested git repository`.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |errno: &i32| std::io::Error::from_raw_os_error(*errno);
        match self {
            Self::NestedRepository => f.write_str("a nested git repository"),
            Self::Special(what) => f.write_str(what),
            Self::Name(error) => write!(f, "{error}"),
            Self::TooLong => f.write_str("a path longer than the system takes"),
            Self::Unreadable(errno) => write!(f, "cannot be read: {}", said(errno)),
            Self::UnreadableRules(errno) => write!(f, "its .gitignore cannot be read: {}", said(errno)),
            Self::Reserved => f.write_str("a name that foldersync keeps for files it is writing"),
        }
    }
}

/// Compares the folder with `table`. Fails only where the folder itself, or the exclude file, cannot be read.
pub fn scan(
    root: &Root,
    table: &DiskTable,
    options: &ScanOptions,
    monitor: &dyn Monitor,
) -> Result<Scan, WorktreeError> {
    let rules = ignore::exclude(&options.exclude);
    let total = options.only.is_empty().then(|| u64::try_from(table.len()).unwrap_or_default());
    monitor.begin(Stage::Scan, total.filter(|&rows| rows > 0));
    let scanner = Scanner { root, table, monitor };
    let mut scan = if options.only.is_empty() {
        let everything = Task { path: Vec::new(), rows: 0..table.len(), rules };
        scanner.walk(everything, options.threads)
    } else {
        scanner.walk_only(&options.only, &rules, options.threads)
    }
    .map_err(|errno| WorktreeError::of("read", root.path(), errno))?;
    scan.found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    scan.left_out.sort_by(|a, b| a.path.cmp(&b.path));
    scan.left_out.dedup();
    monitor.end(Stage::Scan);
    Ok(scan)
}

struct Scanner<'a> {
    root: &'a Root,
    table: &'a DiskTable,
    monitor: &'a dyn Monitor,
}

/// A folder to look at.
struct Task {
    path: Vec<u8>,
    /// The rows below it.
    rows: Range<usize>,
    /// The rules that hold in the folder above it.
    rules: Above,
}

/// Folders that wait for a thread. The last come first, so that few wait.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: Vec<Task>,
    at_work: usize,
    failed: Option<Errno>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, tasks: &mut Vec<Task>) {
        if tasks.is_empty() {
            return;
        }
        let several = tasks.len() > 1;
        self.lock().waiting.append(tasks);
        if several { self.changed.notify_all() } else { self.changed.notify_one() }
    }

    /// The next folder; waits while others are at work, who may bring more. `None` when all is done.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.waiting.pop() {
                state.at_work += 1;
                return Some(task);
            }
            if state.at_work == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A thread at work on a folder of the queue; the others learn when it ends, also by a panic.
struct AtWork<'a>(&'a Queue);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.at_work -= 1;
        if state.at_work == 0 && state.waiting.is_empty() {
            self.0.changed.notify_all();
        }
    }
}

/// Whether a folder is something in the folder above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Yes,
    /// It is left out.
    No,
}

/// What one thread has found, and memory that it uses again.
struct Worker<'a> {
    scanner: &'a Scanner<'a>,
    queue: &'a Queue,
    scan: Scan,
    spare: Vec<Names>,
}

impl Scanner<'_> {
    /// Scans from one folder down.
    fn walk(&self, task: Task, threads: usize) -> Result<Scan, Errno> {
        let queue = Queue::default();
        queue.push(&mut vec![task]);
        let work = || {
            let mut worker = Worker { scanner: self, queue: &queue, scan: Scan::default(), spare: Vec::new() };
            while let Some(task) = queue.next() {
                let _at_work = AtWork(&queue);
                worker.visit(task);
            }
            worker.scan
        };
        let mut scan = std::thread::scope(|scope| {
            // Deep trees of folders without files are walked by recursion, at most 2,048 deep.
            let spawn = |_| std::thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, work);
            let threads: Vec<_> = (0..threads.max(1)).map_while(|n| spawn(n).ok()).collect();
            if threads.is_empty() {
                return work();
            }
            let scans =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
            scans.reduce(Scan::with).unwrap_or_default()
        });
        scan.found.shrink_to_fit();
        let failed = queue.lock().failed;
        failed.map_or(Ok(scan), Err)
    }

    /// Scans some files and folders. The folders above them are not read, unless what is gone may have left one of
    /// them empty.
    fn walk_only(&self, only: &[SyncPath], exclude: &Above, threads: usize) -> Result<Scan, Errno> {
        let wanted: BTreeSet<&SyncPath> = only.iter().collect();
        let mut scan = Scan::default();
        let mut maybe_empty = BTreeMap::new();
        let mut last: Option<(&[u8], WayOrNot)> = None;
        for path in &wanted {
            if path.ancestors().any(|above| wanted.contains(&above)) {
                continue;
            }
            let way = match last.take() {
                Some((folder, way)) if folder == path.parent() => way,
                _ => self.way_to(path, exclude),
            };
            let way = match &last.insert((path.parent(), way)).1 {
                Ok(way) => way,
                Err(why_not) => {
                    scan.left_out.extend(why_not.clone());
                    continue;
                }
            };
            let part = self.walk_one(path, way, threads)?;
            let rows = self.rows_below(path.as_bytes()).len() + usize::from(self.table.get(path.as_bytes()).is_some());
            let gone = part.found.iter().filter(|found| found.what == What::Gone).count();
            if part.found.len() > gone || rows > gone {
                // What stands there makes the folders above it non-empty.
                let rows = way.folders.iter().filter(|(folder, _)| self.table.get(folder.as_bytes()).is_some());
                scan.found.extend(rows.map(|(folder, _)| Found { path: folder.clone(), what: What::Gone }));
            } else {
                maybe_empty.extend(way.folders.last().cloned());
            }
            scan = scan.with(part);
        }
        let mut gone: BTreeSet<SyncPath> = BTreeSet::new();
        gone.extend(scan.found.iter().filter(|found| found.what == What::Gone).map(|found| found.path.clone()));
        for (folder, rules) in maybe_empty {
            let rows = self.rows_below(folder.as_bytes());
            if rows.clone().all(|row| checked(self.table.path(row)).is_some_and(|path| gone.contains(&path))) {
                let whole = self.walk(Task { path: folder.as_bytes().to_vec(), rows, rules }, threads)?;
                scan.found.extend(whole.found.into_iter().filter(|found| found.path == folder));
            }
        }
        scan.found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        scan.found.dedup_by(|a, b| a.path == b.path);
        Ok(scan)
    }

    /// The folders above `path`, as far as they stand; or what leaves it out (nothing, if it is ignored).
    fn way_to(&self, path: &SyncPath, exclude: &Above) -> WayOrNot {
        let left_out = |folder: &[u8], why| Err(Some(LeftOut { path: folder.to_vec(), why }));
        let unreadable = |folder: &[u8], errno: Errno| left_out(folder, Why::UnreadableRules(errno.raw_os_error()));
        let mut way = Way { folders: Vec::new(), rules: exclude.clone(), complete: false };
        way.rules = match ignore::descend(self.root, b"", &way.rules) {
            Ok(rules) => rules,
            Err(errno) => return unreadable(b"", errno),
        };
        for folder in path.ancestors() {
            if ignore::is_ignored(&way.rules, folder.as_bytes(), true) {
                return Err(None);
            }
            match self.look_in(&folder) {
                Ok(None) => {}
                Ok(Some(why)) => return left_out(folder.as_bytes(), why),
                Err(errno) if says_nothing_there(errno) => return Ok(way),
                Err(errno) => return left_out(folder.as_bytes(), Why::Unreadable(errno.raw_os_error())),
            }
            let rules = match ignore::descend(self.root, folder.as_bytes(), &way.rules) {
                Ok(rules) => rules,
                Err(errno) => return unreadable(folder.as_bytes(), errno),
            };
            way.folders.push((folder, std::mem::replace(&mut way.rules, rules)));
        }
        way.complete = true;
        Ok(way)
    }

    /// Scans one path that is not left out by a folder above it.
    fn walk_one(&self, path: &SyncPath, way: &Way, threads: usize) -> Result<Scan, Errno> {
        let within = way.folders.last().map_or(&b""[..], |(folder, _)| folder.as_bytes());
        let queue = Queue::default();
        let mut worker = Worker { scanner: self, queue: &queue, scan: Scan::default(), spare: Vec::new() };
        let own = self.table.position(path.as_bytes()).ok();
        let rows = self.rows_below(path.as_bytes());
        let status = if way.complete { self.root.status(path) } else { Ok(None) };
        match status.map(|status| status.map(|status| (status, status.form))) {
            Err(errno) => {
                worker.leave_out(path.as_bytes(), Why::Unreadable(errno.raw_os_error()));
            }
            Ok(Some((_, Form::Special(what)))) => {
                worker.leave_out(path.as_bytes(), Why::Special(what));
            }
            Ok(Some((_, Form::Folder))) => {
                if !ignore::is_ignored(&way.rules, path.as_bytes(), true) {
                    return self.walk(Task { path: path.as_bytes().to_vec(), rows, rules: way.rules.clone() }, threads);
                }
            }
            Ok(Some((status, Form::Leaf(kind)))) => {
                worker.leaf(path.as_bytes(), own, &status, kind, &way.rules);
                worker.below_leaf(rows, path.as_bytes(), within, &way.rules);
            }
            Ok(None) => {
                worker.gone(own.map_or(0..0, |row| row..row + 1), within, &way.rules);
                worker.gone(rows, within, &way.rules);
            }
        }
        Ok(worker.scan)
    }

    fn rows_below(&self, path: &[u8]) -> Range<usize> {
        self.table.below(path, 0..self.table.len())
    }

    /// Why a folder is left out as a whole, if it is.
    fn look_in(&self, folder: &SyncPath) -> Result<Option<Why>, Errno> {
        let fd = self.root.open_at(folder.as_bytes(), FOLDER)?;
        let has = |name: &[u8]| statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        Ok((has(b".git") || has(path::ALONGSIDE.as_bytes())).then_some(Why::NestedRepository))
    }
}

/// The way to a path, or what leaves it out; nothing to be said of, if it is ignored.
type WayOrNot = Result<Way, Option<LeftOut>>;

/// The way to a path.
struct Way {
    /// The folders above it that stand, with the rules that hold in the folder above each.
    folders: Vec<(SyncPath, Above)>,
    /// The rules that hold in the last of them.
    rules: Above,
    /// Whether all the folders above it stand.
    complete: bool,
}

impl Scan {
    fn with(mut self, mut other: Self) -> Self {
        if self.found.len() < other.found.len() {
            std::mem::swap(&mut self.found, &mut other.found);
        }
        self.found.append(&mut other.found);
        self.left_out.append(&mut other.left_out);
        self.stats.files += other.stats.files;
        self.stats.folders += other.stats.folders;
        self
    }
}

impl Worker<'_> {
    /// Looks at one folder, and queues those in it.
    fn visit(&mut self, task: Task) -> Counts {
        let mut names = self.spare.pop().unwrap_or_default();
        let counts = self.visit_with(task, &mut names);
        self.spare.push(names);
        counts
    }

    fn visit_with(&mut self, task: Task, names: &mut Names) -> Counts {
        let Scanner { root, table, monitor } = *self.scanner;
        let Task { path: folder, mut rows, rules } = task;
        let is_root = folder.is_empty();
        let fd = match root.open_at(&folder, FOLDER).and_then(|fd| names.read(fd.as_fd()).map(|()| fd)) {
            Ok(fd) => fd,
            Err(errno) if is_root => {
                self.queue.lock().failed = Some(errno);
                return Counts::No;
            }
            // It vanished, or became something else, since the folder above was read: the next scan will see.
            Err(errno) if says_nothing_there(errno) => return Counts::Yes,
            Err(errno) => return self.leave_out(&folder, Why::Unreadable(errno.raw_os_error())),
        };
        let has = |name: &[u8]| names.find(name, false).or_else(|| names.find(name, true)).is_some();
        if !is_root && (has(b".git") || has(path::ALONGSIDE.as_bytes())) {
            return self.leave_out(&folder, Why::NestedRepository);
        }
        let rules = match names.find(ignore::FILE_NAME, false) {
            Some(file) if names.is_regular(file) => match ignore::descend(root, &folder, &rules) {
                Ok(rules) => rules,
                Err(errno) => return self.leave_out(&folder, Why::UnreadableRules(errno.raw_os_error())),
            },
            _ => rules,
        };
        self.scan.stats.folders += 1;
        let files_before = self.scan.stats.files;

        let mut path = folder.clone();
        if !is_root {
            path.push(b'/');
        }
        let start = path.len();
        let mut counts = is_root;
        let mut below: Vec<Task> = Vec::new();
        for index in 0..names.len() {
            let name = names.name(index);
            let is_folder = names.is_folder(index);
            if name == b".git" || name == path::ALONGSIDE.as_bytes() {
                continue; // In the root; elsewhere they have made it a nested repository.
            }
            path.truncate(start);
            path.extend_from_slice(name);

            // The rows that come before it have nothing on disk.
            let own = loop {
                if rows.is_empty() {
                    break None;
                }
                let rest = &table.path(rows.start)[start..];
                if rest == name && !is_folder {
                    rows.start += 1;
                    break Some(rows.start - 1);
                }
                if order(first_name(rest), (name, is_folder)).is_ge() {
                    break None;
                }
                counts |= self.missing(&folder, &mut rows, names, &rules);
            };
            if is_folder {
                let below_it = table.below(&path, rows.clone());
                rows.start = rows.start.max(below_it.end);
                let own = table.position(&path).ok();
                counts |= !below_it.is_empty();
                if ignore::is_ignored(&rules, &path, true) {
                    // A row of it keeps standing, unless it is a file's, and one there would not be ignored.
                    let is_file = own.is_some_and(|row| table.row(row).entry.kind != Kind::EmptyFolder);
                    counts |= match own {
                        Some(row) if is_file => self.gone(row..row + 1, &folder, &rules),
                        own => own.is_some(),
                    };
                    continue;
                }
                // Whatever else becomes of it: it counts, or its row stays because it cannot be seen.
                counts |= own.is_some();
                match acceptable(name, &path) {
                    Ok(()) => below.push(Task { path: path.clone(), rows: below_it, rules: rules.clone() }),
                    Err(why) => {
                        self.leave_out(&path, why);
                    }
                }
                continue;
            }
            let status = match statat(&fd, names.c_name(index), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => Status::of(&found),
                Err(Errno::NOENT) => {
                    // It vanished since the listing.
                    if let Some(row) = own {
                        self.gone(row..row + 1, &folder, &rules);
                    }
                    continue;
                }
                Err(errno) => {
                    self.leave_out(&path, Why::Unreadable(errno.raw_os_error()));
                    counts |= own.is_some();
                    continue;
                }
            };
            match status.form {
                Form::Leaf(kind) => counts |= self.leaf(&path, own, &status, kind, &rules) == Counts::Yes,
                Form::Special(what) => {
                    if !ignore::is_ignored(&rules, &path, false) {
                        self.leave_out(&path, Why::Special(what));
                    }
                    counts |= own.is_some();
                }
                // It became a folder since the listing: the next scan will see.
                Form::Folder => counts = true,
            }
        }
        while !rows.is_empty() {
            counts |= self.missing(&folder, &mut rows, names, &rules);
        }
        drop(fd);
        monitor.advance(Stage::Scan, self.scan.stats.files - files_before, 0);

        // Whether a folder of folders is empty depends on whether one of them counts: look at them at once, until
        // one does.
        while !counts {
            let Some(task) = below.pop() else { break };
            counts = self.visit(task) == Counts::Yes;
        }
        self.queue.push(&mut below);
        self.compare_folder(&folder, counts);
        Counts::Yes
    }

    /// Compares a folder's own row with whether anything in it counts.
    fn compare_folder(&mut self, folder: &[u8], counts: bool) {
        let Scanner { root, table, .. } = *self.scanner;
        if folder.is_empty() {
            return; // The root has no row.
        }
        let row = table.get(folder).map(|row| row.entry.kind);
        match (counts, row) {
            (true, None) | (false, Some(Kind::EmptyFolder)) => return,
            (true, Some(_)) => return self.report(folder, What::Gone),
            (false, _) => {}
        }
        let status = root.open_at(folder, FOLDER).and_then(|fd| status_of(fd.as_fd()));
        let mtime = status.map_or_else(|_| Timestamp::default(), |status| status.mtime);
        let (kind, fingerprint, size) = (Kind::EmptyFolder, Fingerprint::default(), 0);
        let what = match row {
            None => What::New { kind, fingerprint, mtime, size },
            Some(_) => What::Suspect { kind, fingerprint, mtime, size },
        };
        self.report(folder, what);
    }

    /// Looks at a file or symlink that is there.
    fn leaf(&mut self, path: &[u8], row: Option<usize>, status: &Status, kind: Kind, rules: &Above) -> Counts {
        let table = self.scanner.table;
        self.scan.stats.files += 1;
        if row.is_some_and(|row| status.is(table.row(row), table)) {
            return Counts::Yes;
        }
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        if ignore::is_ignored(rules, path, false) {
            // What is ignored but has a row keeps it; a row of an empty folder only if that is ignored too.
            let Some(row) = row else { return Counts::No };
            let is_folder = table.row(row).entry.kind == Kind::EmptyFolder;
            if !is_folder || ignore::is_ignored(rules, path, true) {
                return Counts::Yes;
            }
            self.report(path, What::Gone);
            return Counts::No;
        }
        if let Err(why) = acceptable(name, path) {
            return self.leave_out(path, why);
        }
        let Status { fingerprint, mtime, size, .. } = *status;
        self.report(
            path,
            match row {
                None => What::New { kind, fingerprint, mtime, size },
                Some(_) => What::Suspect { kind, fingerprint, mtime, size },
            },
        );
        Counts::Yes
    }

    /// Takes off `rows` the first, or all below the same folder in `folder`: nothing on disk has their name. Returns
    /// whether anything of them stays nonetheless.
    fn missing(&mut self, folder: &[u8], rows: &mut Range<usize>, names: &Names, rules: &Above) -> bool {
        let table = self.scanner.table;
        let path = table.path(rows.start);
        let (name, is_folder) = first_name(&path[prefix(folder)..]);
        let path = &path[..prefix(folder) + name.len()];
        let end = if is_folder { table.below(path, rows.clone()).end } else { rows.start + 1 };
        let these = rows.start..end;
        rows.start = end;
        if !is_folder && names.find(name, true).is_some() {
            // A folder stands there: its own look compares it with the row.
            return false;
        }
        if is_folder && names.find(name, false).is_some() {
            // Below what cannot be looked at, nobody knows; below a file there is nothing.
            if self.scan.left_out.iter().any(|left| left.path == path) {
                return true;
            }
            return self.below_leaf(these, path, folder, rules);
        }
        self.gone(these, folder, rules)
    }

    /// Reports rows below `leaf` as gone, which is no folder. Ignored ones stay only if it is ignored itself: the two
    /// cannot both be in one tree.
    fn below_leaf(&mut self, rows: Range<usize>, leaf: &[u8], folder: &[u8], rules: &Above) -> bool {
        if ignore::is_ignored(rules, leaf, false) {
            return self.gone(rows, folder, rules);
        }
        let table = self.scanner.table;
        rows.for_each(|row| self.report(table.path(row), What::Gone));
        false
    }

    /// Reports rows below `folder` as gone, but for those that are ignored; returns whether there are such.
    fn gone(&mut self, rows: Range<usize>, folder: &[u8], rules: &Above) -> bool {
        let table = self.scanner.table;
        let mut kept = false;
        for row in rows {
            let is_folder = table.row(row).entry.kind == Kind::EmptyFolder;
            if ignore::is_ignored_below(rules, folder, table.path(row), is_folder) {
                kept = true;
            } else {
                self.report(table.path(row), What::Gone);
            }
        }
        kept
    }

    fn report(&mut self, path: &[u8], what: What) {
        if let Some(path) = checked(path) {
            self.scan.found.push(Found { path, what });
        }
    }

    fn leave_out(&mut self, path: &[u8], why: Why) -> Counts {
        self.scan.left_out.push(LeftOut { path: path.to_vec(), why });
        Counts::No
    }
}

/// The first name of a path, and whether more follows it.
fn first_name(path: &[u8]) -> (&[u8], bool) {
    path.iter().position(|&byte| byte == b'/').map_or((path, false), |slash| (&path[..slash], true))
}

/// How many bytes of a path lead into `folder`.
fn prefix(folder: &[u8]) -> usize {
    if folder.is_empty() { 0 } else { folder.len() + 1 }
}

/// The path, which has been put together from checked names; `None` for a row that git alone let in.
fn checked(path: &[u8]) -> Option<SyncPath> {
    SyncPath::new(path).ok()
}

fn acceptable(name: &[u8], path: &[u8]) -> Result<(), Why> {
    if stage::is_beside(name) {
        return Err(Why::Reserved);
    }
    if path.len() > MAX_PATH {
        return Err(Why::TooLong);
    }
    check_name(name).map_err(Why::Name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::entry::Entry;
    use crate::id::ObjectId;
    use crate::monitor::Silent;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    /// Later than any file of a test.
    const LATER: Timestamp = Timestamp::new(4_000_000_000, 0);

    /// An id that stands for a content.
    pub(in crate::worktree) fn id_of(content: &[u8]) -> ObjectId {
        let mut bytes = [0u8; 20];
        for (at, byte) in content.iter().enumerate() {
            bytes[at % 20] = bytes[at % 20].rotate_left(3) ^ byte;
        }
        bytes[19] ^= u8::try_from(content.len() % 251).unwrap();
        ObjectId::from_bytes(bytes)
    }

    fn entry(root: &Root, path: &SyncPath, kind: Kind) -> Entry {
        if kind == Kind::EmptyFolder {
            return Entry::EMPTY_FOLDER;
        }
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut root.open_leaf(path).unwrap().unwrap(), &mut content).unwrap();
        Entry { kind, id: id_of(&content) }
    }

    fn options() -> ScanOptions {
        ScanOptions { threads: 2, ..ScanOptions::default() }
    }

    fn look(dir: &Path, table: &DiskTable) -> Scan {
        scan(&Root::open(dir).unwrap(), table, &options(), &Silent).unwrap()
    }

    /// What a capture would record of all that a scan finds.
    pub(in crate::worktree) fn capture(dir: &Path, table: &mut DiskTable) {
        let root = Root::open(dir).unwrap();
        let scan = scan(&root, table, &options(), &Silent).unwrap();
        let edit = |Found { path, what }: Found| match what {
            What::Gone => crate::table::TableEdit { path, row: None },
            What::New { kind, fingerprint, .. } | What::Suspect { kind, fingerprint, .. } => {
                let row = Some((entry(&root, &path, kind), fingerprint));
                crate::table::TableEdit { path, row }
            }
        };
        table.edit(scan.found.into_iter().map(edit).collect());
        table.recorded = LATER;
    }

    fn recorded(dir: &Path) -> DiskTable {
        let mut table = DiskTable::default();
        capture(dir, &mut table);
        table
    }

    /// Findings as one text each: `+` new, `~` suspect, `-` gone.
    fn told(scan: &Scan) -> Vec<String> {
        let tell = |found: &Found| match found.what {
            What::New { kind: Kind::EmptyFolder, .. } => format!("+{}/", found.path),
            What::New { .. } => format!("+{}", found.path),
            What::Suspect { kind: Kind::EmptyFolder, .. } => format!("~{}/", found.path),
            What::Suspect { .. } => format!("~{}", found.path),
            What::Gone => format!("-{}", found.path),
        };
        scan.found.iter().map(tell).collect()
    }

    fn left_out(scan: &Scan) -> Vec<String> {
        scan.left_out.iter().map(|left| format!("{}: {}", path::quote(&left.path), left.why)).collect()
    }

    /// A folder with these in it: `name/` a folder, `name -> target` a link, `name` a file that holds its name.
    fn tree(entries: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for entry in entries {
            make(dir.path(), entry);
        }
        dir
    }

    pub(in crate::worktree) fn make(dir: &Path, entry: &str) {
        let (name, target) = entry.split_once(" -> ").map_or((entry, None), |(name, target)| (name, Some(target)));
        let at = dir.join(name);
        if name.ends_with('/') {
            return fs::create_dir_all(at).unwrap();
        }
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        match target {
            Some(target) => symlink(target, at).unwrap(),
            None => fs::write(at, name).unwrap(),
        }
    }

    #[test]
    fn finds_everything_where_nothing_is_recorded() {
        let dir =
            tree(&["b", "a/x", "a.b", "a-b", "empty/", "outer/inner/", "link -> a", "dangling -> none", ".hidden"]);
        fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o700)).unwrap();
        let scan = look(dir.path(), &DiskTable::default());
        let expected = ["+.hidden", "+a-b", "+a.b", "+a/x", "+b", "+dangling", "+empty/", "+link", "+outer/inner/"];
        assert_eq!(told(&scan), expected);
        assert_eq!(scan.stats, Stats { files: 7, folders: 5 });
        assert!(scan.left_out.is_empty());
        let kind =
            |name: &str| match scan.found.iter().find(|found| found.path.as_bytes() == name.as_bytes()).unwrap().what {
                What::New { kind, size, .. } => (kind, size),
                _ => unreachable!(),
            };
        assert_eq!(kind("b"), (Kind::Executable, 1));
        assert_eq!(kind("dangling"), (Kind::Symlink, 4));
        assert_eq!(kind("empty"), (Kind::EmptyFolder, 0));
    }

    #[test]
    fn finds_nothing_where_nothing_changed() {
        let dir = tree(&["b", "a/x", "a-b", "a0", "empty/", "outer/inner/", "link -> a", "f/.gitignore"]);
        fs::write(dir.path().join("f/.gitignore"), "*.o").unwrap();
        make(dir.path(), "f/x.o");
        let scan = look(dir.path(), &recorded(dir.path()));
        assert_eq!((told(&scan), left_out(&scan)), (vec![], vec![]));
    }

    #[test]
    fn tells_new_from_changed_from_gone() {
        let dir = tree(&[
            "same",
            "changed",
            "gone",
            "d/gone/x",
            "mode",
            "linked",
            "kept/x",
            "to-folder",
            "to-file/x",
            "hollow/x",
        ]);
        let table = recorded(dir.path());
        let at = |name: &str| dir.path().join(name);
        fs::write(at("changed"), "other").unwrap();
        fs::remove_file(at("gone")).unwrap();
        fs::remove_dir_all(at("d")).unwrap();
        fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(at("linked")).unwrap();
        make(dir.path(), "linked -> same");
        fs::remove_file(at("to-folder")).unwrap();
        make(dir.path(), "to-folder/x");
        fs::remove_dir_all(at("to-file")).unwrap();
        make(dir.path(), "to-file");
        make(dir.path(), "new");
        fs::remove_file(at("hollow/x")).unwrap();
        let expected = [
            "~changed",
            "-d/gone/x",
            "-gone",
            "+hollow/",
            "-hollow/x",
            "~linked",
            "~mode",
            "+new",
            "+to-file",
            "-to-file/x",
            "-to-folder",
            "+to-folder/x",
        ];
        assert_eq!(told(&look(dir.path(), &table)), expected);
    }

    #[test]
    fn empty_folders_come_and_go() {
        let dir = tree(&["stays/", "filled/", "removed/", "to-file/", "was-file", "x"]);
        let table = recorded(dir.path());
        make(dir.path(), "filled/x");
        make(dir.path(), "fresh/deep/");
        fs::remove_dir(dir.path().join("removed")).unwrap();
        fs::remove_dir(dir.path().join("to-file")).unwrap();
        make(dir.path(), "to-file");
        fs::remove_file(dir.path().join("was-file")).unwrap();
        make(dir.path(), "was-file/");
        let expected = ["-filled", "+filled/x", "+fresh/deep/", "-removed", "~to-file", "~was-file/"];
        assert_eq!(told(&look(dir.path(), &table)), expected);
    }

    #[test]
    fn a_file_of_the_tick_of_the_record_is_suspect() {
        let dir = tree(&["x"]);
        let mut table = recorded(dir.path());
        let fingerprint = table.row(0).fingerprint;
        table.recorded = Timestamp::new(fingerprint.mtime.0.into(), fingerprint.mtime.1);
        assert_eq!(told(&look(dir.path(), &table)), ["~x"]);
        table.recorded.secs += 1;
        assert!(look(dir.path(), &table).found.is_empty());
    }

    #[test]
    fn a_time_set_to_before_1970_or_the_future_does_not_make_a_file_suspect_for_ever() {
        let dir = tree(&["old", "new"]);
        let set =
            |name: &str, time| fs::File::options().write(true).open(dir.path().join(name)).unwrap().set_modified(time);
        set("old", std::time::UNIX_EPOCH - std::time::Duration::new(1, 5)).unwrap();
        set("new", std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_100_000_000)).unwrap();
        let scan = look(dir.path(), &DiskTable::default());
        assert!(matches!(scan.found[1].what, What::New { mtime: Timestamp { secs: -2, nanos: 999_999_995 }, .. }));
        assert!(look(dir.path(), &recorded(dir.path())).found.is_empty());
    }

    #[test]
    fn a_row_without_a_fingerprint_is_suspect() {
        let dir = tree(&["x"]);
        let mut table = DiskTable::default();
        table.recorded = LATER;
        assert!(table.push(b"x", Entry { kind: Kind::File, id: id_of(b"x") }, Fingerprint::default()));
        assert_eq!(told(&look(dir.path(), &table)), ["~x"]);
    }

    #[test]
    fn what_is_ignored_and_recorded_is_neither_changed_nor_gone() {
        let dir = tree(&["a.o", "b.o", "build/x", "build/y", "d/x.o", "gone/x.o", "gone/y", "keep", "e/"]);
        let table = recorded(dir.path());
        fs::write(dir.path().join(".gitignore"), "*.o\nbuild/\ne/\n").unwrap();
        fs::write(dir.path().join("a.o"), "changed").unwrap();
        fs::remove_file(dir.path().join("b.o")).unwrap();
        fs::remove_file(dir.path().join("build/x")).unwrap();
        fs::remove_dir_all(dir.path().join("gone")).unwrap();
        fs::remove_dir(dir.path().join("e")).unwrap();
        make(dir.path(), "build/new");
        make(dir.path(), "new.o");
        assert_eq!(told(&look(dir.path(), &table)), ["+.gitignore", "-gone/y"]);
        fs::remove_dir_all(dir.path().join("build")).unwrap();
        assert_eq!(told(&look(dir.path(), &table)), ["+.gitignore", "-gone/y"]);
    }

    #[test]
    fn a_folder_with_nothing_but_what_is_left_out_is_an_empty_one() {
        let dir = tree(&["a/x.o", "b/.git/HEAD", "c/nested/.git/HEAD", "c/nested/x", "ignored/x"]);
        fs::write(dir.path().join(".gitignore"), "*.o\nignored\n").unwrap();
        let scan = look(dir.path(), &DiskTable::default());
        assert_eq!(told(&scan), ["+.gitignore", "+a/", "+c/"]);
        assert_eq!(left_out(&scan), ["b: a nested git repository", "c/nested: a nested git repository"]);
    }

    #[test]
    fn a_folder_that_still_holds_an_ignored_row_is_not_an_empty_one() {
        let dir = tree(&["a/x.o", "a/y"]);
        let table = recorded(dir.path());
        fs::write(dir.path().join(".gitignore"), "*.o").unwrap();
        fs::remove_file(dir.path().join("a/y")).unwrap();
        assert_eq!(told(&look(dir.path(), &table)), ["+.gitignore", "-a/y"]);
    }

    #[test]
    fn the_exclude_file_stands_above_all_rules() {
        let dir = tree(&["a.x", "b.x", "d/c.x"]);
        fs::write(dir.path().join("d/.gitignore"), "!c.x").unwrap();
        let options = ScanOptions { exclude: b"*.x\n".to_vec(), ..options() };
        let found = scan(&Root::open(dir.path()).unwrap(), &DiskTable::default(), &options, &Silent).unwrap();
        assert_eq!(told(&found), ["+d/.gitignore", "+d/c.x"]);
        let options = ScanOptions { exclude: Vec::new(), ..options };
        let found = scan(&Root::open(dir.path()).unwrap(), &DiskTable::default(), &options, &Silent).unwrap();
        assert_eq!(found.found.len(), 4);
    }

    #[test]
    fn nothing_below_a_nested_repository_is_gone() {
        let dir = tree(&["n/a", "n/b/c", "m/x", ".git/HEAD", ".foldersync/HEAD"]);
        let table = recorded(dir.path());
        assert_eq!(table.len(), 3);
        fs::remove_file(dir.path().join("n/a")).unwrap();
        make(dir.path(), "n/.git");
        make(dir.path(), "m/.foldersync/HEAD");
        let scan = look(dir.path(), &table);
        assert_eq!(told(&scan), Vec::<String>::new());
        assert_eq!(left_out(&scan), ["m: a nested git repository", "n: a nested git repository"]);
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn nothing_below_an_unreadable_folder_is_gone() {
        let dir = tree(&["shut/x", "shut/y/z", "rules/x", "o"]);
        let table = recorded(dir.path());
        fs::write(dir.path().join("rules/.gitignore"), "x").unwrap();
        fs::set_permissions(dir.path().join("rules/.gitignore"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(dir.path().join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read_dir(dir.path().join("shut")).is_ok() {
            eprintln!("SKIPPED nothing_below_an_unreadable_folder_is_gone: this user (root?) may read everything");
            return;
        }
        let scan = look(dir.path(), &table);
        fs::set_permissions(dir.path().join("shut"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(told(&scan), Vec::<String>::new());
        let expected = [
            "rules: its .gitignore cannot be read: Permission denied (os error 13)",
            "shut: cannot be read: Permission denied (os error 13)",
        ];
        assert_eq!(left_out(&scan), expected);
    }

    #[test]
    fn special_files_and_names_that_git_refuses_are_reported() {
        let dir = tree(&["x", "s", "d/.GIT/x", "git~1", ".foldersync-stage-1"]);
        let table = recorded(dir.path());
        fs::remove_file(dir.path().join("s")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let scan = look(dir.path(), &table);
        assert_eq!(told(&scan), Vec::<String>::new(), "what a socket hides is not gone");
        let expected = [
            ".foldersync-stage-1: a name that foldersync keeps for files it is writing",
            "d/.GIT: a name is `.git`, or what some file systems take for it",
            "fifo: a fifo",
            "git~1: a name is `.git`, or what some file systems take for it",
            "s: a socket",
        ];
        assert_eq!(left_out(&scan), expected);
    }

    #[test]
    fn names_need_not_be_text() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9 \n")), "").unwrap();
        let scan = look(dir.path(), &DiskTable::default());
        assert_eq!(scan.found[0].path.as_bytes(), b"caf\xe9 \n");
    }

    #[test]
    fn a_very_deep_tree_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut fd = root.open_at(b"", FOLDER).unwrap();
        for _ in 0..2100 {
            rustix::fs::mkdirat(&fd, "d", rustix::fs::Mode::RWXU).unwrap();
            fd = rustix::fs::openat(&fd, "d", FOLDER, rustix::fs::Mode::empty()).unwrap();
        }
        let scan = look(dir.path(), &DiskTable::default());
        assert_eq!(scan.left_out.len(), 1);
        assert_eq!(scan.left_out[0].why, Why::TooLong);
        assert_eq!(scan.found.len(), 1, "the last folder that can be named is empty");
    }

    fn look_only(dir: &Path, table: &DiskTable, only: &[&str]) -> Vec<String> {
        let only = only.iter().map(|&path| SyncPath::try_from(path).unwrap()).collect();
        told(&scan(&Root::open(dir).unwrap(), table, &ScanOptions { only, ..options() }, &Silent).unwrap())
    }

    #[test]
    fn looks_only_where_it_is_told() {
        let dir = tree(&["a/x", "a/y", "b/x", "b/c/x", "gone/x", "hollow/", "z"]);
        let table = recorded(dir.path());
        for name in ["a/x", "b/c/x", "b/new", "other", "hollow/x", "z/below"] {
            if name == "z/below" {
                fs::remove_file(dir.path().join("z")).unwrap();
            }
            make(dir.path(), name);
            fs::File::open(dir.path().join(name)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        fs::remove_dir_all(dir.path().join("gone")).unwrap();
        assert_eq!(look_only(dir.path(), &table, &["a/x"]), ["~a/x"]);
        assert_eq!(look_only(dir.path(), &table, &["a/y", "none", "none/below"]), Vec::<String>::new());
        assert_eq!(look_only(dir.path(), &table, &["b", "b/c/x"]), ["~b/c/x", "+b/new"]);
        assert_eq!(look_only(dir.path(), &table, &["gone/x"]), ["-gone/x"]);
        assert_eq!(look_only(dir.path(), &table, &["gone"]), ["-gone/x"]);
        assert_eq!(look_only(dir.path(), &table, &["hollow/x"]), ["-hollow", "+hollow/x"]);
        assert_eq!(look_only(dir.path(), &table, &["z"]), ["-z", "+z/below"]);
        assert_eq!(look_only(dir.path(), &table, &["z/below"]), ["-z", "+z/below"]);
        fs::remove_file(dir.path().join("a/x")).unwrap();
        assert_eq!(look_only(dir.path(), &table, &["a/x"]), ["-a/x"]);
        fs::remove_file(dir.path().join("a/y")).unwrap();
        assert_eq!(look_only(dir.path(), &table, &["a/x", "a/y"]), ["+a/", "-a/x", "-a/y"]);
        make(dir.path(), "a/new");
        assert_eq!(look_only(dir.path(), &table, &["a/x", "a/y"]), ["-a/x", "-a/y"]);
    }

    #[test]
    fn the_rules_above_hold_for_what_is_looked_at_alone() {
        let dir = tree(&["a/b/x.o", "a/b/y", "ign/x", "nested/.git/HEAD", "nested/x", "link -> a"]);
        fs::write(dir.path().join(".gitignore"), "*.o\nign/").unwrap();
        let only = ["a/b/x.o", "a/b/y", "ign/x", "ign", "nested/x", "link/b/y"];
        assert_eq!(look_only(dir.path(), &DiskTable::default(), &only), ["+a/b/y"]);
    }

    /// What stands on disk, leaf by leaf, seen the slow way.
    fn leaves(root: &Path, folder: &str, rules: &Above, into: &mut BTreeMap<SyncPath, (Kind, Vec<u8>)>) {
        let rules = ignore::descend(&Root::open(root).unwrap(), folder.as_bytes(), rules).unwrap();
        let mut any = false;
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let file_type = entry.file_type().unwrap();
            if ignore::is_ignored(&rules, path.as_bytes(), file_type.is_dir()) {
                continue;
            }
            any = true;
            let key = SyncPath::try_from(&*path).unwrap();
            if file_type.is_dir() {
                leaves(root, &path, &rules, into);
            } else if file_type.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes();
                into.insert(key, (Kind::Symlink, target));
            } else {
                let executable = entry.metadata().unwrap().permissions().mode() & 0o100 != 0;
                let kind = if executable { Kind::Executable } else { Kind::File };
                into.insert(key, (kind, fs::read(entry.path()).unwrap()));
            }
        }
        if !any && !folder.is_empty() {
            into.insert(SyncPath::try_from(folder).unwrap(), (Kind::EmptyFolder, Vec::new()));
        }
    }

    fn act(dir: &Path, path: &str, action: u8) {
        let at = dir.join(path);
        let remove = || match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&at),
            Ok(_) => fs::remove_file(&at),
            Err(_) => Ok(()),
        };
        let parent = at.parent().unwrap();
        if fs::symlink_metadata(parent).is_ok_and(|meta| !meta.is_dir()) || fs::create_dir_all(parent).is_err() {
            return; // Below a file or a link.
        }
        match action {
            0 => remove().unwrap(),
            1..=3 => {
                remove().unwrap();
                fs::write(&at, vec![action; usize::from(action)]).unwrap();
            }
            4 => {
                remove().unwrap();
                symlink("nowhere", &at).unwrap();
            }
            5 => {
                remove().unwrap();
                fs::create_dir(&at).unwrap();
            }
            6 if at.is_file() => fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap(),
            _ => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
        #[test]
        fn the_table_follows_the_disk(first in proptest::collection::vec(("[abi]([-./][abi]){0,3}", 0u8..7), 0..25),
                                      then in proptest::collection::vec(("[abi]([-./][abi]){0,3}", 0u8..7), 0..12),
                                      rules in proptest::option::of("(!?/?[ai](/[bi])?/?\n){1,2}"), threads in 1usize..4) {
            let dir = tempfile::tempdir().unwrap();
            let safe = |path: &str| SyncPath::try_from(path).is_ok();
            for (path, action) in first.iter().filter(|(path, _)| safe(path)) {
                act(dir.path(), path, *action);
            }
            let mut table = recorded(dir.path());
            let mut before = BTreeMap::new();
            leaves(dir.path(), "", &None, &mut before);
            for (path, action) in then.iter().filter(|(path, _)| safe(path)) {
                act(dir.path(), path, *action);
            }
            if let Some(rules) = &rules {
                fs::write(dir.path().join(".gitignore"), rules).unwrap();
            }
            let root = Root::open(dir.path()).unwrap();
            let options = ScanOptions { threads, ..ScanOptions::default() };
            let found = scan(&root, &table, &options, &Silent).unwrap();
            prop_assert!(found.found.is_sorted_by(|a, b| a.path < b.path), "{:?}", told(&found));
            capture(dir.path(), &mut table);

            let mut expected = BTreeMap::new();
            leaves(dir.path(), "", &None, &mut expected);
            let rules = ignore::descend(&root, b"", &None).unwrap();
            for (path, leaf) in before {
                // What has become ignored keeps its row as it was, if there is room for it.
                let ignored = ignore::is_ignored_below(&rules, b"", path.as_bytes(), leaf.0 == Kind::EmptyFolder);
                let blocks = |other: &SyncPath, kind| kind != Kind::EmptyFolder && path.is_below(other);
                let room = |(other, (kind, _)): (&SyncPath, &(Kind, Vec<u8>))| {
                    *other != path && !blocks(other, *kind) && !other.is_below(&path)
                };
                if ignored && expected.iter().all(room) {
                    expected.retain(|other, _| !path.is_below(other));
                    expected.insert(path, leaf);
                }
            }
            let rows: Vec<_> = table.iter().map(|(path, row)| (SyncPath::new(path).unwrap(), row.entry)).collect();
            let entry = |kind, content: &[u8]| match kind {
                Kind::EmptyFolder => Entry::EMPTY_FOLDER,
                kind => Entry { kind, id: id_of(content) },
            };
            let expected: Vec<_> = expected.into_iter().map(|(path, (kind, content))| (path, entry(kind, &content))).collect();
            prop_assert_eq!(rows, expected);
            prop_assert_eq!(told(&look(dir.path(), &table)), Vec::<String>::new());
        }
    }
}
