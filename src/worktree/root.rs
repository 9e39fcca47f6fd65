//! An opened folder, and the only ways into it.
//!
//! Owns the folder's descriptor and the rule that no symlink is followed below it. On Linux one `openat2` resolves a
//! whole path under that rule; where it is missing (old kernels, some sandboxes, other systems), each component is
//! opened from the one above with `O_NOFOLLOW`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::error::WorktreeError;
use crate::clock::Timestamp;
use crate::disk;
use crate::entry::{Fingerprint, Kind};
use crate::path::SyncPath;
use crate::table::{DiskTable, Row};

/// How a folder is opened below the root.
pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
/// How a file is opened below the root: without following a link, without waiting for a fifo's other end.
pub(super) const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// The longest path, counted from the root, that is worked with: what one system call takes.
pub(super) const MAX_PATH: usize = 4095;
/// The longest name that file systems take.
pub(super) const MAX_NAME: usize = 255;

/// An opened folder.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
    beneath: AtomicBool,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisk {
    /// Nothing; also where something above it is missing or is no folder.
    Nothing,
    /// A file or a symlink.
    Leaf {
        /// Which of them.
        kind: Kind,
        /// What tells it from a later version of itself.
        fingerprint: Fingerprint,
        /// When it was last written.
        mtime: Timestamp,
        /// Its bytes.
        size: u64,
    },
    /// A folder.
    Folder {
        /// Whether it has no entry at all.
        empty: bool,
    },
    /// A socket, a fifo or a device.
    Special,
}

/// What one `stat` says, in the terms of this crate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status {
    pub(super) form: Form,
    pub(super) fingerprint: Fingerprint,
    pub(super) mtime: Timestamp,
    pub(super) size: u64,
    /// Permission bits.
    pub(super) mode: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Leaf(Kind),
    Folder,
    Special(&'static str),
}

impl Status {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_lossless,
        clippy::unnecessary_cast,
        reason = "fields differ in width from system to system; fingerprints are modulo 2^32 as in git's index"
    )]
    pub(super) fn of(stat: &Stat) -> Self {
        let mode = stat.st_mode as u32;
        let form = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if mode & 0o100 != 0 => Form::Leaf(Kind::Executable),
            FileType::RegularFile => Form::Leaf(Kind::File),
            FileType::Symlink => Form::Leaf(Kind::Symlink),
            FileType::Directory => Form::Folder,
            FileType::Socket => Form::Special("a socket"),
            FileType::Fifo => Form::Special("a fifo"),
            _ => Form::Special("a device"),
        };
        Self {
            form,
            fingerprint: Fingerprint {
                ctime: (stat.st_ctime as u32, stat.st_ctime_nsec as u32),
                mtime: (stat.st_mtime as u32, stat.st_mtime_nsec as u32),
                dev: stat.st_dev as u32,
                ino: stat.st_ino as u32,
                uid: stat.st_uid as u32,
                gid: stat.st_gid as u32,
                size: stat.st_size as u32,
            },
            mtime: Timestamp::new(stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            size: stat.st_size as u64,
            mode: mode & 0o7777,
        }
    }

    /// Whether this is, renamed at most, what `other` is the fingerprint of. A rename moves the change time.
    pub(super) fn is_renamed(&self, kind: Kind, other: &Fingerprint) -> bool {
        self.form == Form::Leaf(kind) && self.fingerprint == Fingerprint { ctime: self.fingerprint.ctime, ..*other }
    }

    /// Whether this is, beyond doubt, what `row` of `table` records.
    ///
    /// Equal fingerprints prove it unless the file was last touched in the tick in which the table was written
    /// (git's racy rule). A change time before that tick settles it too: whatever has changed the file since would
    /// have moved it on, also where the modification time is set by hand to the future or to before 1970.
    pub(super) fn is(&self, row: &Row, table: &DiskTable) -> bool {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as git's index keeps it")]
        let recorded = (table.recorded.secs as u32, table.recorded.nanos);
        self.form == Form::Leaf(row.entry.kind)
            && self.fingerprint == row.fingerprint
            && (!self.fingerprint.is_racy(table.recorded) || self.fingerprint.ctime < recorded)
    }
}

/// Whether `errno`, met on the way to a path, says that nothing stands there.
pub(super) fn says_nothing_there(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

impl Root {
    /// Opens a folder.
    pub fn open(path: &Path) -> Result<Self, WorktreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { path: path.to_owned(), fd, beneath: AtomicBool::new(cfg!(target_os = "linux")) }),
            Err(Errno::NOENT) => Err(WorktreeError::Missing { path: path.to_owned() }),
            Err(Errno::NOTDIR) => Err(WorktreeError::NotAFolder { path: path.to_owned() }),
            Err(errno) => Err(WorktreeError::of("read", path, errno)),
        }
    }

    /// The folder's path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something below, for messages only: what is done goes through descriptors.
    pub(super) fn show(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.path.clone() } else { self.path.join(OsStr::from_bytes(path)) }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens what stands at `path` (the root itself, if that is empty) with these flags, which hold `O_NOFOLLOW`.
    pub(super) fn open_at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if path.is_empty() {
            return openat(&self.fd, ".", flags, Mode::empty());
        }
        #[cfg(target_os = "linux")]
        if self.beneath.load(Ordering::Relaxed) {
            use rustix::fs::{ResolveFlags, openat2};
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                // `EAGAIN`: something was renamed meanwhile, and the kernel could not tell whether that led outside.
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM) => self.beneath.store(false, Ordering::Relaxed),
                done => return done,
            }
        }
        let mut names = path.split(|&byte| byte == b'/');
        let last = names.next_back().unwrap_or_default();
        let mut above: Option<OwnedFd> = None;
        for name in names {
            above = Some(openat(above.as_ref().unwrap_or(&self.fd), name, FOLDER, Mode::empty())?);
        }
        openat(above.as_ref().unwrap_or(&self.fd), last, flags, Mode::empty())
    }

    /// What `lstat` says of `path`; nothing where there is nothing.
    pub(super) fn status(&self, path: &SyncPath) -> rustix::io::Result<Option<Status>> {
        let status = || {
            let folder = self.open_at(path.parent(), FOLDER)?;
            statat(&folder, path.file_name(), AtFlags::SYMLINK_NOFOLLOW)
        };
        match status() {
            Ok(stat) => Ok(Some(Status::of(&stat))),
            Err(errno) if says_nothing_there(errno) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What stands at `path` now, without following a symlink anywhere on the way.
    pub fn look(&self, path: &SyncPath) -> Result<OnDisk, WorktreeError> {
        let failed = |errno: Errno| WorktreeError::of("read", &self.show(path.as_bytes()), errno);
        let Some(status) = self.status(path).map_err(failed)? else { return Ok(OnDisk::Nothing) };
        Ok(match status.form {
            Form::Leaf(kind) => {
                OnDisk::Leaf { kind, fingerprint: status.fingerprint, mtime: status.mtime, size: status.size }
            }
            Form::Special(_) => OnDisk::Special,
            Form::Folder => {
                let mut names = Names::default();
                match self.open_at(path.as_bytes(), FOLDER).and_then(|fd| names.read(fd.as_fd())) {
                    Ok(()) => OnDisk::Folder { empty: names.is_empty() },
                    Err(errno) if says_nothing_there(errno) => OnDisk::Nothing,
                    Err(errno) => return Err(failed(errno)),
                }
            }
        })
    }
}

/// The names in one folder, with what the folder itself says of their types, in memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Names with their closing NULs, one after another.
    bytes: Vec<u8>,
    entries: Vec<Name>,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    start: u32,
    len: u32,
    folder: bool,
    regular: bool,
}

impl Names {
    /// Reads the names of the folder, sorted as git's index sorts them: a folder as if a slash stood behind it.
    pub(super) fn read(&mut self, folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.bytes.clear();
        self.entries.clear();
        list(folder, |name, file_type| {
            let name = name.to_bytes_with_nul();
            if matches!(name, b".\0" | b"..\0") {
                return Ok(());
            }
            let start = u32::try_from(self.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            let len = u32::try_from(name.len() - 1).map_err(|_| Errno::NAMETOOLONG)?;
            let mut file_type = file_type;
            if file_type == FileType::Unknown {
                match statat(folder, &name[..name.len() - 1], AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(found) => file_type = FileType::from_raw_mode(found.st_mode),
                    Err(Errno::NOENT) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            self.bytes.extend_from_slice(name);
            let (folder, regular) = (file_type == FileType::Directory, file_type == FileType::RegularFile);
            self.entries.push(Name { start, len, folder, regular });
            Ok(())
        })?;
        let bytes = &self.bytes;
        self.entries.sort_unstable_by(|a, b| order((text(bytes, *a), a.folder), (text(bytes, *b), b.folder)));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn name(&self, index: usize) -> &[u8] {
        text(&self.bytes, self.entries[index])
    }

    pub(super) fn c_name(&self, index: usize) -> &std::ffi::CStr {
        let Name { start, len, .. } = self.entries[index];
        std::ffi::CStr::from_bytes_with_nul(&self.bytes[start as usize..=(start + len) as usize])
            .expect("it was read from one")
    }

    pub(super) fn is_folder(&self, index: usize) -> bool {
        self.entries[index].folder
    }

    pub(super) fn is_regular(&self, index: usize) -> bool {
        self.entries[index].regular
    }

    /// The index of the entry `name`, as a folder or as a leaf.
    pub(super) fn find(&self, name: &[u8], folder: bool) -> Option<usize> {
        let at = |entry: &Name| order((text(&self.bytes, *entry), entry.folder), (name, folder));
        self.entries.binary_search_by(at).ok()
    }
}

fn text(bytes: &[u8], name: Name) -> &[u8] {
    &bytes[name.start as usize..(name.start + name.len) as usize]
}

/// The order of names in git's index, with whether they are folders.
pub(super) fn order(a: (&[u8], bool), b: (&[u8], bool)) -> std::cmp::Ordering {
    let common = a.0.len().min(b.0.len());
    let next = |(name, folder): (&[u8], bool)| name.get(common).copied().or(folder.then_some(b'/'));
    a.0[..common].cmp(&b.0[..common]).then_with(|| next(a).cmp(&next(b)).then_with(|| a.0.len().cmp(&b.0.len())))
}

#[cfg(target_os = "linux")]
fn list(
    folder: BorrowedFd<'_>,
    mut each: impl FnMut(&std::ffi::CStr, FileType) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(64 * 1024);
    let mut entries = rustix::fs::RawDir::new(folder, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        each(entry.file_name(), entry.file_type())?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn list(
    folder: BorrowedFd<'_>,
    mut each: impl FnMut(&std::ffi::CStr, FileType) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        each(entry.file_name(), entry.file_type())?;
    }
    Ok(())
}

/// Announces a step that concerns `name` in an open folder, or the folder itself if that is empty.
pub(super) fn announce(step: disk::Step, folder: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let path = || {
        let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
        let folder = std::fs::read_link(link).unwrap_or_default();
        if name.is_empty() { folder } else { folder.join(OsStr::from_bytes(name)) }
    };
    disk::step(step, path).map_err(|error| errno_of(&error))
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// `fstat`, in the terms of this crate.
pub(super) fn status_of(fd: BorrowedFd<'_>) -> rustix::io::Result<Status> {
    fstat(fd).map(|stat| Status::of(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> SyncPath {
        SyncPath::try_from(text).expect("a good path")
    }

    #[test]
    fn says_what_is_wrong_with_a_folder_that_cannot_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(Root::open(&dir.path().join("none")), Err(WorktreeError::Missing { .. })));
        assert!(matches!(Root::open(&dir.path().join("file")), Err(WorktreeError::NotAFolder { .. })));
    }

    #[rstest::rstest]
    fn sees_what_stands_at_a_path(#[values(true, false)] beneath: bool) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("folder/inner")).unwrap();
        fs::write(at("folder/file"), "123").unwrap();
        symlink("folder", at("link")).unwrap();
        rustix::fs::mkfifoat(CWD, at("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let root = Root::open(dir.path()).unwrap();
        root.beneath.store(beneath, Ordering::Relaxed);
        let look = |name| root.look(&path(name)).unwrap();

        assert!(matches!(look("folder/file"), OnDisk::Leaf { kind: Kind::File, size: 3, .. }));
        assert!(matches!(look("link"), OnDisk::Leaf { kind: Kind::Symlink, size: 6, .. }));
        assert_eq!(look("folder"), OnDisk::Folder { empty: false });
        assert_eq!(look("folder/inner"), OnDisk::Folder { empty: true });
        assert_eq!(look("fifo"), OnDisk::Special);
        assert_eq!(look("none"), OnDisk::Nothing);
        assert_eq!(look("none/below"), OnDisk::Nothing);
        assert_eq!(look("folder/file/below"), OnDisk::Nothing);
        assert_eq!(look("link/file"), OnDisk::Nothing, "a symlink is not followed");
    }

    #[test]
    fn folders_sort_as_if_a_slash_stood_behind_them() {
        let mut names = [("a", true), ("a", false), ("a-b", false), ("a.b", true), ("a0", false), ("ab", true)];
        names.sort_by(|a, b| order((a.0.as_bytes(), a.1), (b.0.as_bytes(), b.1)));
        assert_eq!(names, [("a", false), ("a-b", false), ("a.b", true), ("a", true), ("a0", false), ("ab", true)]);
    }
}
