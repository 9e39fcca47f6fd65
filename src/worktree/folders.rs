//! The way from the root to one path after another: the folders on it stay open for as long as they are shared.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, mkdirat, openat};
use rustix::io::Errno;

use super::root::{FOLDER, Root, announce};
use crate::disk::Step;

/// The open folders on the way to the path that was last asked for.
#[derive(Debug)]
pub(super) struct Folders<'root> {
    root: &'root Root,
    path: Vec<u8>,
    /// Each with the length of its path.
    open: Vec<(usize, OwnedFd)>,
}

/// Why a folder cannot be entered: what is wrong, and with which of the folders on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Blocked {
    /// It is not there.
    Missing,
    /// Something else stands there.
    Leaf(Vec<u8>),
    /// The system refuses.
    System(Vec<u8>, Errno),
}

impl<'root> Folders<'root> {
    pub(super) fn new(root: &'root Root) -> Self {
        Self { root, path: Vec::new(), open: Vec::new() }
    }

    /// Closes the folders, for when some may have been removed or replaced.
    pub(super) fn close(&mut self) {
        self.path.clear();
        self.open.clear();
    }

    /// Opens `folder` (empty: the root), and with `create` makes what is missing on the way. No symlink is followed.
    pub(super) fn enter(&mut self, folder: &[u8], create: bool) -> Result<BorrowedFd<'_>, Blocked> {
        let is_on_the_way = |len: usize| {
            folder.len() >= len && folder[..len] == self.path[..len] && matches!(folder.get(len), None | Some(b'/'))
        };
        let shared = self.open.iter().take_while(|&&(len, _)| is_on_the_way(len)).count();
        self.open.truncate(shared);
        let mut from = self.open.last().map_or(0, |&(len, _)| len + 1);
        self.path.clear();
        self.path.extend_from_slice(folder);
        while from < folder.len() {
            let end = folder[from..].iter().position(|&byte| byte == b'/').map_or(folder.len(), |slash| from + slash);
            let name = &folder[from..end];
            let above = self.open.last().map_or(self.root.fd(), |(_, fd)| fd.as_fd());
            let mut opened = openat(above, name, FOLDER, Mode::empty());
            if create && matches!(opened, Err(Errno::NOENT)) {
                let made = announce(Step::CreateDir, above, name);
                opened = match made.and_then(|()| mkdirat(above, name, Mode::from_raw_mode(0o777))) {
                    Ok(()) | Err(Errno::EXIST) => openat(above, name, FOLDER, Mode::empty()),
                    Err(errno) => Err(errno),
                };
            }
            match opened {
                Ok(fd) => self.open.push((end, fd)),
                Err(Errno::NOENT) => return Err(Blocked::Missing),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => return Err(Blocked::Leaf(folder[..end].to_vec())),
                Err(errno) => return Err(Blocked::System(folder[..end].to_vec(), errno)),
            }
            from = end + 1;
        }
        Ok(self.open.last().map_or(self.root.fd(), |(_, fd)| fd.as_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn follows_no_link_and_makes_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut folders = Folders::new(&root);
        assert!(folders.enter(b"a/b", false).is_ok());
        assert!(folders.enter(b"a", false).is_ok());
        assert!(folders.enter(b"", false).is_ok());
        assert_eq!(folders.enter(b"a/bb/c", false).unwrap_err(), Blocked::Missing);
        assert_eq!(folders.enter(b"file/x", true).unwrap_err(), Blocked::Leaf(b"file".to_vec()));
        assert_eq!(folders.enter(b"link/b", true).unwrap_err(), Blocked::Leaf(b"link".to_vec()));
        assert!(folders.enter(b"a/bb/c", true).is_ok());
        assert!(folders.enter(b"a/bb/d", true).is_ok());
        assert!(dir.path().join("a/bb/c").is_dir() && dir.path().join("a/bb/d").is_dir());
        assert!(!dir.path().join("a/b/c").exists());
    }
}
