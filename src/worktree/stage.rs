//! The folder in which new files are made before they take their places, and in which old ones wait to be checked
//! before they go.
//!
//! For each step there is a *slot*: a name in the stage (or, where a rename from the stage is not possible because
//! the target is on another file system, a reserved name beside the target). A slot holds first the new file, then,
//! for a moment, what it displaced. So that a kill in that moment loses nothing, a *journal* is on disk before the
//! first file of a batch is displaced. It says of each slot what was staged in it, what is expected to stand at the
//! path, and the path. The next run goes by it before it does anything else:
//! - a slot that holds what was staged, or as much of it as came to the disk before a power cut, was never used: it is
//!   removed (its content is in history);
//! - one that holds what was expected holds what the table recorded, which is in history: removed;
//! - anything else was displaced unawares, and may be the only copy there is: it is put back at its path, or, where
//!   something else has come to stand there, beside it under a name of its own.
//!
//! Folders that were made for a file that never came, or that lost their last file and were not yet removed, are
//! removed then as well, if they are empty: they are nobody's.
//!
//! A journal without its last line was cut off while it was written, before anything was displaced: all that its
//! batch left is ours.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::error::WorktreeError;
use super::folders::{Blocked, Folders};
use super::plan::Expect;
use super::root::{FOLDER, Form, MAX_NAME, Names, Root, Status, announce};
use crate::disk::Step;
use crate::entry::{Fingerprint, Kind};
use crate::path::{SyncPath, quote, unquote};
use crate::table::DiskTable;

/// How the names begin of files that are staged beside their targets.
const BESIDE: &[u8] = b".foldersync-stage-";
/// How the names of journals begin.
const JOURNAL: &[u8] = b"journal-";
/// The first line of a journal.
const HEADER: &str = "foldersync-stage 1";

/// Whether a name is one of those that are staged beside their targets.
pub(super) fn is_beside(name: &[u8]) -> bool {
    name.starts_with(BESIDE)
}

/// The name of the slot beside the target of step `index`.
pub(super) fn beside(index: usize) -> Vec<u8> {
    [BESIDE, index.to_string().as_bytes()].concat()
}

/// The name of the slot of step `index` in the stage.
pub(super) fn slot(index: usize) -> Vec<u8> {
    index.to_string().into_bytes()
}

/// A name in an open folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) folder: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
}

impl At<'_> {
    /// What stands there.
    pub(super) fn status(self) -> rustix::io::Result<Option<Status>> {
        match statat(self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Status::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Removes what stands there: a file, or a folder with nothing in it.
    pub(super) fn remove(self) -> rustix::io::Result<()> {
        announce(Step::Remove, self.folder, self.name)?;
        match unlinkat(self.folder, self.name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(self.folder, self.name, AtFlags::REMOVEDIR),
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    }

    /// Removes what stands there, if it is what was staged: what is ours to remove, never what it has displaced.
    pub(super) fn remove_ours(self, ours: Ours) -> rustix::io::Result<()> {
        match self.status()? {
            Some(status) if ours.is(&status) => self.remove(),
            _ => Ok(()),
        }
    }

    /// Moves what stands there to `to`, where nothing stands: `EEXIST` if something does. With `plain`, or where the
    /// file system cannot do it in one step, a hard link does.
    pub(super) fn move_to_free(self, to: At<'_>, plain: bool) -> rustix::io::Result<()> {
        announce(Step::Rename, to.folder, to.name)?;
        if !plain {
            match renameat_with(self.folder, self.name, to.folder, to.name, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS) => {}
                done => return done,
            }
        }
        match linkat(self.folder, self.name, to.folder, to.name, AtFlags::empty()) {
            Ok(()) => unlinkat(self.folder, self.name, AtFlags::empty()),
            // A folder, or a file system without hard links: here alone something could slip in between.
            Err(Errno::PERM | Errno::NOTSUP | Errno::MLINK | Errno::NOSYS) => match to.status()? {
                Some(_) => Err(Errno::EXIST),
                None => renameat(self.folder, self.name, to.folder, to.name),
            },
            Err(errno) => Err(errno),
        }
    }

    /// Exchanges what stands here with what stands there, in one step.
    pub(super) fn exchange(self, with: At<'_>) -> rustix::io::Result<()> {
        announce(Step::Rename, with.folder, with.name)?;
        renameat_with(self.folder, self.name, with.folder, with.name, RenameFlags::EXCHANGE)
    }
}

/// Puts back what a slot holds and what is not in history: to `target` it goes. What is `ours` may stand at the
/// target, and then takes the slot, to be removed.
pub(super) fn put_back(slot: At<'_>, target: At<'_>, ours: Ours) -> rustix::io::Result<()> {
    if target.status()?.is_some_and(|status| ours.is(&status)) {
        match slot.exchange(target) {
            Ok(()) if slot.status()?.is_some_and(|status| ours.is(&status)) => return slot.remove(),
            // Something else has come to the target meanwhile: now it is in the slot.
            Ok(()) | Err(Errno::NOENT) => {}
            // Not possible on this file system: the new file is in history, so it may go.
            Err(Errno::INVAL | Errno::NOSYS) => target.remove()?,
            Err(errno) => return Err(errno),
        }
    }
    match slot.move_to_free(target, false) {
        Err(Errno::EXIST) => {}
        done => return done,
    }
    for number in 1.. {
        let end = format!(" (recovered {number})");
        let start = &target.name[..target.name.len().min(MAX_NAME - end.len())];
        let name = [start, end.as_bytes()].concat();
        match slot.move_to_free(At { folder: target.folder, name: &name }, false) {
            Err(Errno::EXIST) => {}
            done => return done,
        }
    }
    Err(Errno::EXIST)
}

/// The stage of one run.
#[derive(Debug)]
pub(super) struct Stage {
    path: PathBuf,
    fd: OwnedFd,
    /// One folder of slots for each thread.
    slots: Vec<OwnedFd>,
}

/// What a journal says of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The folder of the slot in the stage; none for a slot beside the target.
    pub(super) thread: Option<usize>,
    /// The step.
    pub(super) index: usize,
    pub(super) ours: Ours,
    pub(super) expect: Expect,
    pub(super) path: SyncPath,
}

/// What of ours is in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    /// Nothing: something is to be removed.
    Nothing,
    /// This file or symlink.
    Staged(Kind, Fingerprint),
    /// Whatever is in it: it is still being written.
    Unfinished,
}

impl Ours {
    /// Whether that is what `status` is of. The inode alone would not tell: its number may be used again.
    fn is(self, status: &Status) -> bool {
        match self {
            Self::Nothing => false,
            Self::Staged(kind, fingerprint) => status.is_renamed(kind, &fingerprint),
            Self::Unfinished => true,
        }
    }
}

impl Ours {
    /// Whether what a slot holds after a crash is what was staged in it, however much of that came to the disk before the
    /// power went. Here the number of the file does tell: what was displaced came into the slot in the same instant in
    /// which the staged file left it, so it has another.
    fn was_staged_as(self, status: &Status) -> bool {
        match self {
            Self::Staged(_, Fingerprint { dev, ino, .. }) => {
                (dev, ino) == (status.fingerprint.dev, status.fingerprint.ino) || self.is(status)
            }
            _ => self.is(status),
        }
    }
}

impl Stage {
    /// Opens (or makes) the stage, and cleans up what a run that was killed left there.
    pub(super) fn open(path: &Path, threads: usize, root: &Root) -> Result<Self, WorktreeError> {
        let failed = |errno: Errno| WorktreeError::of("write", path, errno);
        // What it lies in is not made: where that is gone (a disk was unmounted), nothing shall come in its place.
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(WorktreeError::of("write", path, error));
            }
            _ => {}
        }
        let fd = openat(CWD, path, FOLDER, Mode::empty()).map_err(failed)?;
        recover(&fd, root, None).map_err(failed)?;
        let slots = (0..threads).map(|thread| {
            let name = thread.to_string();
            mkdirat(&fd, &name, Mode::RWXU)?;
            openat(&fd, &name, FOLDER, Mode::empty())
        });
        let slots = slots.collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { path: path.to_owned(), fd, slots })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The folder of slots of one thread.
    pub(super) fn slots(&self, thread: usize) -> BorrowedFd<'_> {
        self.slots[thread].as_fd()
    }

    /// Writes the journal `name`, synced if asked for.
    pub(super) fn write_journal<'a>(
        &self,
        name: &str,
        lines: impl Iterator<Item = &'a Line>,
        synced: bool,
    ) -> Result<(), WorktreeError> {
        let write = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let name = [JOURNAL, name.as_bytes()].concat();
            announce(Step::Write, self.fd(), &name)?;
            let mut file = File::from(openat(&self.fd, &name[..], flags, Mode::RUSR | Mode::WUSR)?);
            let mut text = format!("{HEADER}\n").into_bytes();
            lines.for_each(|line| line.write(&mut text));
            text.extend_from_slice(b"end\n");
            file.write_all(&text)?;
            if synced {
                announce(Step::Sync, self.fd(), &name)?;
                file.sync_all()?;
                announce(Step::SyncDir, self.fd(), b"")?;
                rustix::fs::fsync(&self.fd)?;
            }
            Ok(())
        };
        write().map_err(|error: std::io::Error| WorktreeError::of("write", &self.path, error))
    }

    /// Removes a journal, which must have nothing left to tell of.
    pub(super) fn remove_journal(&self, name: &str) -> Result<(), WorktreeError> {
        let name = [JOURNAL, name.as_bytes()].concat();
        let removed = At { folder: self.fd.as_fd(), name: &name }.remove();
        removed.map_err(|errno| WorktreeError::of("write", &self.path, errno))
    }
}

impl Line {
    fn write(&self, text: &mut Vec<u8>) {
        let slot = self.thread.map_or("beside".to_owned(), |thread| thread.to_string());
        let ours = match self.ours {
            Ours::Nothing => "-".to_owned(),
            Ours::Staged(kind, fingerprint) => write_leaf(kind, &fingerprint),
            Ours::Unfinished => "*".to_owned(),
        };
        let expect = match self.expect {
            Expect::Nothing => "-".to_owned(),
            Expect::EmptyFolder => "folder".to_owned(),
            Expect::Leaf(kind, fingerprint) => write_leaf(kind, &fingerprint),
        };
        let path = quote(self.path.as_bytes());
        text.extend_from_slice(format!("{slot} {} {ours} {expect} {path}\n", self.index).as_bytes());
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(5, |&byte| byte == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let thread = match text()? {
            "beside" => None,
            thread => Some(thread.parse().ok()?),
        };
        let index = text()?.parse().ok()?;
        let ours = match text()? {
            "-" => Ours::Nothing,
            "*" => Ours::Unfinished,
            leaf => parse_leaf(leaf).map(|(kind, fingerprint)| Ours::Staged(kind, fingerprint))?,
        };
        let expect = match text()? {
            "-" => Expect::Nothing,
            "folder" => Expect::EmptyFolder,
            leaf => parse_leaf(leaf).map(|(kind, fingerprint)| Expect::Leaf(kind, fingerprint))?,
        };
        let path = SyncPath::new(unquote(fields.next()?)?).ok()?;
        Some(Self { thread, index, ours, expect, path })
    }
}

/// A fingerprint, without its change time: a rename moves that.
fn write_leaf(kind: Kind, fingerprint: &Fingerprint) -> String {
    let Fingerprint { ctime: _, mtime, dev, ino, uid, gid, size } = fingerprint;
    format!("{:o},{},{},{dev},{ino},{uid},{gid},{size}", kind.mode(), mtime.0, mtime.1)
}

fn parse_leaf(text: &str) -> Option<(Kind, Fingerprint)> {
    let mut fields = text.split(',');
    let kind = Kind::from_mode(u32::from_str_radix(fields.next()?, 8).ok()?)?;
    let mut number = || fields.next()?.parse::<u32>().ok();
    let mtime = (number()?, number()?);
    let (dev, ino, uid, gid, size) = (number()?, number()?, number()?, number()?, number()?);
    Some((kind, Fingerprint { ctime: (0, 0), mtime, dev, ino, uid, gid, size }))
}

/// The lines of a journal; `None` if it was cut off.
fn parse_journal(text: &[u8]) -> Option<Vec<Line>> {
    let mut lines = text.strip_suffix(b"\nend\n")?.split(|&byte| byte == b'\n');
    if lines.next() != Some(HEADER.as_bytes()) {
        return None;
    }
    lines.map(Line::parse).collect()
}

/// Settles what a run of [`apply`](super::apply()) that was killed left behind in `stage`, if there is anything.
///
/// To be called before a scan: it brings back what was displaced for a moment, and removes folders that were made
/// or emptied and then left; a scan would take them for somebody's. Those that `table` knows as empty folders stay.
pub fn settle(root: &Root, stage: &Path, table: &DiskTable) -> Result<(), WorktreeError> {
    let settled = match openat(CWD, stage, FOLDER, Mode::empty()) {
        Ok(fd) => recover(&fd, root, Some(table)),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    };
    settled.map_err(|errno| WorktreeError::of("settle what an interrupted write left in", stage, errno))
}

/// Syncs a folder: the names in it.
pub(super) fn sync_dir(folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
    announce(Step::SyncDir, folder, b"")?;
    rustix::fs::fsync(folder)
}

/// Syncs the file system that holds `folder`, with all that is on it.
pub(super) fn sync_all(folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
    announce(Step::SyncAll, folder, b"")?;
    #[cfg(target_os = "linux")]
    let synced = rustix::fs::syncfs(folder);
    #[cfg(not(target_os = "linux"))]
    let synced = {
        rustix::fs::sync();
        rustix::fs::fsync(folder)
    };
    synced
}

/// Settles what a run that was killed left in the stage, and empties it.
fn recover(stage: &OwnedFd, root: &Root, table: Option<&DiskTable>) -> rustix::io::Result<()> {
    let mut names = Names::default();
    names.read(stage.as_fd())?;
    let journals = (0..names.len()).filter(|&index| names.name(index).starts_with(JOURNAL));
    let mut is_told = false;
    for journal in journals.clone() {
        let mut text = Vec::new();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(stage, names.c_name(journal), flags, Mode::empty())?;
        File::from(file).read_to_end(&mut text).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        let mut folders = Folders::new(root);
        let lines = parse_journal(&text).unwrap_or_default();
        is_told |= !lines.is_empty();
        for line in &lines {
            settle_slot(line, stage, &mut folders)?;
            if line.thread.is_none()
                && let Ok(folder) = folders.enter(line.path.parent(), false)
            {
                sync_dir(folder)?;
            }
        }
        for line in lines.iter().rev().filter(|_| table.is_some()) {
            let mut folder = line.path.parent();
            while !folder.is_empty() && table.is_some_and(|table| table.get(folder).is_none()) {
                let (parent, name) = split(folder);
                let removed = match folders.enter(parent, false) {
                    Ok(parent) => unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok(),
                    Err(_) => true, // It is not there: nor need those above it be.
                };
                if !removed {
                    break;
                }
                folder = parent;
            }
            folders.close();
        }
    }
    // What the journals do not tell of was not finished when the run ended.
    for index in 0..names.len() {
        if names.is_folder(index) {
            let folder = openat(stage, names.c_name(index), FOLDER, Mode::empty())?;
            let mut slots = Names::default();
            slots.read(folder.as_fd())?;
            for slot in 0..slots.len() {
                At { folder: folder.as_fd(), name: slots.name(slot) }.remove()?;
            }
        }
    }
    // What was put back is safe before nothing tells of it any more.
    if is_told {
        sync_all(root.fd())?;
    }
    // Journals last: as long as there are slots, they are needed.
    for index in (0..names.len()).filter(|index| !journals.clone().any(|journal| journal == *index)) {
        At { folder: stage.as_fd(), name: names.name(index) }.remove()?;
    }
    for index in journals {
        At { folder: stage.as_fd(), name: names.name(index) }.remove()?;
    }
    // They must not come back when there is something else in the slots.
    if is_told { sync_dir(stage.as_fd()) } else { Ok(()) }
}

fn settle_slot(line: &Line, stage: &OwnedFd, folders: &mut Folders<'_>) -> rustix::io::Result<()> {
    let (own, name);
    let slot = if let Some(thread) = line.thread {
        own = match openat(stage, thread.to_string(), FOLDER, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        name = slot(line.index);
        At { folder: own.as_fd(), name: &name }
    } else {
        own = match folders.enter(line.path.parent(), false) {
            Ok(folder) => folder.try_clone_to_owned().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?,
            Err(_) => return Ok(()), // Where the folder is gone, so is the slot.
        };
        name = beside(line.index);
        At { folder: own.as_fd(), name: &name }
    };
    let Some(status) = slot.status()? else { return Ok(()) };
    if line.ours.was_staged_as(&status) || is_expected(&status, line.expect) {
        match slot.remove() {
            // An empty folder was expected; this one is not empty.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            removed => return removed,
        }
    }
    // Its place may have gone meanwhile, or become a file: then it comes back as near to it as can be.
    let mut folder = line.path.parent();
    loop {
        match folders.enter(folder, true) {
            Ok(folder) => return put_back(slot, At { folder, name: line.path.file_name() }, line.ours),
            Err(Blocked::System(_, errno)) => return Err(errno),
            Err(_) => folder = split(folder).0,
        }
    }
}

/// The folder that holds `path`, and its name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|&byte| byte == b'/').map_or((&[], path), |slash| (&path[..slash], &path[slash + 1..]))
}

/// Whether what was displaced is what was expected to be.
pub(super) fn is_expected(status: &Status, expect: Expect) -> bool {
    match expect {
        Expect::Nothing => false,
        Expect::Leaf(kind, fingerprint) => status.is_renamed(kind, &fingerprint),
        Expect::EmptyFolder => status.form == Form::Folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn line(thread: Option<usize>, ours: Ours, expect: Expect, path: &[u8]) -> Line {
        Line { thread, index: 7, ours, expect, path: SyncPath::new(path).unwrap() }
    }

    fn leaf(status: Status) -> Expect {
        Expect::Leaf(Kind::File, status.fingerprint)
    }

    fn staged(path: &Path) -> Ours {
        Ours::Staged(Kind::File, status(path).fingerprint)
    }

    fn status(path: &Path) -> Status {
        Status::of(&statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).unwrap())
    }

    #[test]
    fn a_journal_says_what_it_was_told_and_nothing_if_it_was_cut_off() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut lines = vec![
            line(Some(1), staged(file.path()), Expect::Nothing, b"a b/c \n\xff"),
            line(None, Ours::Unfinished, Expect::EmptyFolder, b"x"),
            line(Some(0), Ours::Nothing, leaf(status(file.path())), b"\"quoted\""),
        ];
        let mut text = format!("{HEADER}\n").into_bytes();
        for line in &lines {
            line.write(&mut text);
        }
        text.extend_from_slice(b"end\n");
        let (Ours::Staged(_, ours), Expect::Leaf(_, expect)) = (lines[0].ours, lines[2].expect) else { unreachable!() };
        lines[0].ours = Ours::Staged(Kind::File, Fingerprint { ctime: (0, 0), ..ours });
        lines[2].expect = Expect::Leaf(Kind::File, Fingerprint { ctime: (0, 0), ..expect });
        assert_eq!(parse_journal(&text), Some(lines));
        for cut in 0..text.len() {
            assert_eq!(parse_journal(&text[..cut]), None);
        }
    }

    /// A stage with one slot, and a folder beside it.
    struct Setup {
        dir: tempfile::TempDir,
        root: Root,
    }

    impl Setup {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("stage/0")).unwrap();
            fs::create_dir(dir.path().join("root")).unwrap();
            let root = Root::open(&dir.path().join("root")).unwrap();
            Self { dir, root }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Writes the journal, recovers, and tells what is in the folder then.
        fn recover(&self, line: &Line) -> Vec<(String, String)> {
            let mut text = format!("{HEADER}\n").into_bytes();
            line.write(&mut text);
            text.extend_from_slice(b"end\n");
            fs::write(self.at("stage/journal-0"), text).unwrap();
            Stage::open(&self.at("stage"), 0, &self.root).unwrap();
            assert_eq!(fs::read_dir(self.at("stage")).unwrap().count(), 0, "the stage is empty");
            let mut found: Vec<_> = fs::read_dir(self.at("root"))
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let content = fs::read_to_string(entry.path()).unwrap_or_else(|_| "folder".to_owned());
                    (entry.file_name().into_string().unwrap(), content)
                })
                .collect();
            found.sort();
            found
        }
    }

    #[test]
    fn what_was_staged_and_what_was_expected_is_removed() {
        let setup = Setup::new();
        fs::write(setup.at("root/x"), "stands").unwrap();
        fs::write(setup.at("stage/0/7"), "new").unwrap();
        let ours = staged(&setup.at("stage/0/7"));
        let stands = vec![("x".to_owned(), "stands".to_owned())];
        assert_eq!(setup.recover(&line(Some(0), ours, Expect::Nothing, b"x")), stands);

        fs::create_dir(setup.at("stage/0")).unwrap();
        fs::write(setup.at("stage/0/7"), "old").unwrap();
        let expect = leaf(status(&setup.at("stage/0/7")));
        assert_eq!(setup.recover(&line(Some(0), Ours::Nothing, expect, b"x")), stands);
    }

    #[test]
    fn what_was_displaced_unawares_comes_back() {
        let setup = Setup::new();
        fs::write(setup.at("root/x"), "new").unwrap();
        fs::write(setup.at("stage/0/7"), "edited").unwrap();
        let ours = staged(&setup.at("root/x"));
        let expect = leaf(status(&setup.at("root/x")));
        let found = setup.recover(&line(Some(0), ours, expect, b"x"));
        assert_eq!(found, [("x".to_owned(), "edited".to_owned())], "in place of ours");

        fs::create_dir(setup.at("stage/0")).unwrap();
        fs::write(setup.at("stage/0/7"), "edited too").unwrap();
        let found = setup.recover(&line(Some(0), Ours::Nothing, expect, b"y"));
        assert_eq!(found[1], ("y".to_owned(), "edited too".to_owned()), "where nothing stands");

        fs::create_dir(setup.at("stage/0")).unwrap();
        fs::write(setup.at("stage/0/7"), "third").unwrap();
        let found = setup.recover(&line(Some(0), ours, expect, b"x"));
        assert_eq!(found[1], ("x (recovered 1)".to_owned(), "third".to_owned()), "beside what else stands there");
        assert_eq!(found.len(), 3);

        fs::create_dir(setup.at("stage/0")).unwrap();
        fs::write(setup.at("stage/0/7"), "fourth").unwrap();
        let found = setup.recover(&line(Some(0), Ours::Nothing, expect, b"y/below/z"));
        assert_eq!(found[3], ("z".to_owned(), "fourth".to_owned()), "near its place, where that is blocked");
    }

    #[test]
    fn what_comes_back_is_safe_before_nothing_tells_of_it() {
        use crate::disk::record;
        let setup = Setup::new();
        fs::write(setup.at("stage/0/7"), "edited").unwrap();
        let of_slot = line(Some(0), Ours::Nothing, Expect::Nothing, b"x");
        let (found, steps) = record::steps(|| setup.recover(&of_slot));
        assert_eq!(found, [("x".to_owned(), "edited".to_owned())]);
        let at = |step: Step, name: &str| steps.iter().position(|it| *it == (step, name.to_owned())).unwrap();
        let synced = steps.iter().position(|(step, _)| *step == Step::SyncAll).unwrap();
        assert!(at(Step::Rename, "x") < synced && synced < at(Step::Remove, "journal-0"), "{steps:?}");
        assert_eq!(steps.last().map(|(step, _)| *step), Some(Step::SyncDir), "nor do they come back");
    }

    #[test]
    fn a_displaced_folder_that_is_not_empty_comes_back_whole() {
        let setup = Setup::new();
        fs::write(setup.at("root/x"), "new").unwrap();
        let ours = staged(&setup.at("root/x"));
        fs::create_dir(setup.at("stage/0/7")).unwrap();
        fs::write(setup.at("stage/0/7/inner"), "kept").unwrap();
        let found = setup.recover(&line(Some(0), ours, Expect::EmptyFolder, b"x"));
        assert_eq!(found, [("x".to_owned(), "folder".to_owned())]);
        assert_eq!(fs::read_to_string(setup.at("root/x/inner")).unwrap(), "kept");
    }

    #[test]
    fn an_unfinished_file_beside_its_target_is_removed() {
        let setup = Setup::new();
        fs::write(setup.at("root/.foldersync-stage-7"), "half").unwrap();
        assert_eq!(setup.recover(&line(None, Ours::Unfinished, Expect::Nothing, b"x")), []);
    }

    #[test]
    fn a_staged_file_of_which_only_a_part_came_to_the_disk_is_removed() {
        let setup = Setup::new();
        fs::write(setup.at("root/x"), "old").unwrap();
        fs::write(setup.at("stage/0/7"), "new and whole").unwrap();
        let ours = staged(&setup.at("stage/0/7"));
        let expect = leaf(status(&setup.at("root/x")));
        // The power went before the sync: the journal is there, and half of the file.
        File::options().write(true).open(setup.at("stage/0/7")).unwrap().set_len(3).unwrap();
        let found = setup.recover(&line(Some(0), ours, expect, b"x"));
        assert_eq!(found, [("x".to_owned(), "old".to_owned())]);
    }

    #[test]
    fn leftovers_that_no_journal_tells_of_are_removed() {
        let setup = Setup::new();
        fs::write(setup.at("stage/0/3"), "half").unwrap();
        fs::write(setup.at("stage/journal-0"), "foldersync-st").unwrap();
        Stage::open(&setup.at("stage"), 2, &setup.root).unwrap();
        let left: Vec<_> = fs::read_dir(setup.at("stage")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
