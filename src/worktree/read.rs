//! Reading one file or symlink, with the proof that it held still meanwhile.

use std::fs::File;
use std::io::{self, Cursor, Read};

use rustix::fs::{AtFlags, readlinkat, statat};
use rustix::io::Errno;

use super::error::WorktreeError;
use super::root::{FILE, FOLDER, Form, Root, Status, status_of};
use crate::clock::Timestamp;
use crate::entry::{Fingerprint, Kind};
use crate::path::SyncPath;

/// A file that is open for reading, or a symlink whose target has been read.
///
/// What was read is the content of a version only if [`OpenLeaf::unchanged`] says so afterwards.
#[derive(Debug)]
pub struct OpenLeaf<'root> {
    root: &'root Root,
    path: SyncPath,
    body: Body,
    /// File, executable or symlink.
    pub kind: Kind,
    /// What the disk said of it before the first byte was read.
    pub fingerprint: Fingerprint,
    /// When it was last written.
    pub mtime: Timestamp,
    /// Its bytes.
    pub size: u64,
}

#[derive(Debug)]
enum Body {
    File(File),
    Link(Cursor<Vec<u8>>),
}

impl Root {
    /// Opens the file, or reads the symlink, at `path`; `None` where there is neither.
    pub fn open_leaf(&self, path: &SyncPath) -> Result<Option<OpenLeaf<'_>>, WorktreeError> {
        let failed = |errno: Errno| WorktreeError::of("read", &self.show(path.as_bytes()), errno);
        let (body, status) = match self.open_at(path.as_bytes(), FILE) {
            Ok(fd) => {
                let file = File::from(fd);
                let status = status_of(std::os::fd::AsFd::as_fd(&file)).map_err(failed)?;
                (Body::File(file), status)
            }
            // `ELOOP`: a symlink, at the end of the path or on the way there.
            Err(Errno::LOOP | Errno::MLINK) => match self.read_link(path) {
                Ok((target, status)) => (Body::Link(Cursor::new(target)), status),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(failed(errno)),
            },
            // `ENXIO`: a socket, or a device without a driver.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let Form::Leaf(kind) = status.form else { return Ok(None) };
        let Status { fingerprint, mtime, size, .. } = status;
        Ok(Some(OpenLeaf { root: self, path: path.clone(), body, kind, fingerprint, mtime, size }))
    }

    fn read_link(&self, path: &SyncPath) -> rustix::io::Result<(Vec<u8>, Status)> {
        let folder = self.open_at(path.parent(), FOLDER)?;
        let status = Status::of(&statat(&folder, path.file_name(), AtFlags::SYMLINK_NOFOLLOW)?);
        Ok((readlinkat(&folder, path.file_name(), Vec::new())?.into_bytes(), status))
    }
}

/// No file system's clock ticks slower than so many nanoseconds, among those that tell nanoseconds at all.
const TICK: i128 = 20_000_000;

impl OpenLeaf<'_> {
    /// Whether it was changed so short a time ago that another change now might leave its fingerprint as it is: then
    /// the fingerprint must not be relied on later.
    pub fn is_recent(&self) -> bool {
        let nanos = |secs: i64, nanos: u32| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        let now = Timestamp::from(std::time::SystemTime::now());
        // The fingerprint has the seconds modulo 2^32, and so has to be compared.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as the fingerprint has it")]
        let now = nanos(i64::from(now.secs as u32), now.nanos);
        (now - nanos(i64::from(self.fingerprint.ctime.0), self.fingerprint.ctime.1)).abs() < TICK
    }

    /// Whether what stands at the path is still what was opened, unchanged: only then is what was read since then
    /// one version of it.
    ///
    /// One look at the path tells both: it would find another inode had the file been replaced, and another change
    /// time or size had it been written to.
    pub fn unchanged(&self) -> io::Result<bool> {
        let status = self.root.status(&self.path)?;
        Ok(status.is_some_and(|now| now.form == Form::Leaf(self.kind) && now.fingerprint == self.fingerprint))
    }
}

impl Read for OpenLeaf<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.body {
            Body::File(file) => file.read(buffer),
            Body::Link(target) => target.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn setup() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn open<'root>(root: &'root Root, name: &[u8]) -> Option<OpenLeaf<'root>> {
        root.open_leaf(&SyncPath::new(name).unwrap()).unwrap()
    }

    fn content(leaf: &mut OpenLeaf<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        leaf.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn reads_files_and_links_of_any_name() {
        let (dir, root) = setup();
        let name = b"caf\xe9 \n";
        let file = dir.path().join(std::ffi::OsStr::from_bytes(name));
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o744)).unwrap();
        symlink("/nowhere/\u{fc}", dir.path().join("link")).unwrap();

        let mut leaf = open(&root, name).unwrap();
        assert_eq!((leaf.kind, leaf.size), (Kind::Executable, 4));
        assert_eq!(content(&mut leaf), b"text");
        assert!(leaf.unchanged().unwrap());

        let mut leaf = open(&root, b"link").unwrap();
        assert_eq!(leaf.kind, Kind::Symlink);
        assert_eq!(content(&mut leaf), "/nowhere/\u{fc}".as_bytes());
        assert!(leaf.unchanged().unwrap());
    }

    #[test]
    fn opens_nothing_but_files_and_links() {
        let (dir, root) = setup();
        fs::create_dir(dir.path().join("folder")).unwrap();
        symlink("folder", dir.path().join("link")).unwrap();
        fs::write(dir.path().join("folder/file"), "").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        for name in ["folder", "fifo", "socket", "none", "none/below", "folder/file/below", "link/file"] {
            assert!(open(&root, name.as_bytes()).is_none(), "{name}");
        }
    }

    #[rstest::rstest]
    #[case::appended(|file: &std::path::Path| fs::write(file, "longer").unwrap())]
    #[case::replaced(|file: &std::path::Path| { fs::write(file.with_extension("new"), "same").unwrap(); fs::rename(file.with_extension("new"), file).unwrap(); })]
    #[case::removed(|file: &std::path::Path| fs::remove_file(file).unwrap())]
    #[case::chmod(|file: &std::path::Path| fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap())]
    #[case::made_a_link(|file: &std::path::Path| { fs::remove_file(file).unwrap(); symlink("x", file).unwrap(); })]
    fn notices_a_file_that_changed_while_it_was_read(#[case] change: fn(&std::path::Path)) {
        let (dir, root) = setup();
        fs::write(dir.path().join("file"), "same").unwrap();
        let mut leaf = open(&root, b"file").unwrap();
        assert_eq!(content(&mut leaf), b"same");
        change(&dir.path().join("file"));
        assert!(!leaf.unchanged().unwrap());
    }
}
