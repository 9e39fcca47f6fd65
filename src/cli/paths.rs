//! What a person types as a path, as a path of the folder.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::error::{CommandError, Kind};
use crate::engine::revspec::FileRev;
use crate::path::SyncPath;

/// `path` without `.` and `..`, by its text alone; it must be absolute.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::Normal(name) => normal.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// Whether the two are one directory, whatever links lead there.
pub(crate) fn same_place(one: &Path, other: &Path) -> bool {
    one == other
        || match (fs::canonicalize(one), fs::canonicalize(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}

/// Turns arguments into paths of one folder.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    root: &'a Path,
    base: PathBuf,
}

impl<'a> Places<'a> {
    /// Paths relative to `current` where that lies in the folder at `root`, otherwise relative to `root`.
    pub(crate) fn new(root: &'a Path, current: &Path) -> Self {
        let inside = inside(root, current).is_some();
        Self { root, base: if inside { current.to_owned() } else { root.to_owned() } }
    }

    /// The bytes of an argument as a path below the folder's top; empty for the top itself.
    fn relative(&self, argument: &OsStr) -> Result<Vec<u8>, CommandError> {
        if argument.is_empty() {
            return Err(CommandError::usage("an empty text is no path"));
        }
        inside(self.root, &self.base.join(argument)).map(|path| path.into_os_string().into_vec()).ok_or_else(|| {
            let text = format!("{} does not lie in the folder {}", Path::new(argument).display(), self.root.display());
            CommandError::usage(text).with_hint("`--folder DIR` names another folder")
        })
    }

    /// The path that an argument names; `None` is the top of the folder.
    pub(crate) fn path(&self, argument: &OsStr) -> Result<Option<SyncPath>, CommandError> {
        let path = self.relative(argument)?;
        if path.is_empty() {
            return Ok(None);
        }
        let refused = |error| {
            let text = format!("{} cannot be a path of a folder: {error}", Path::new(argument).display());
            CommandError::new(Kind::Usage, text)
        };
        SyncPath::new(path).map(Some).map_err(refused)
    }

    /// The file that an argument names, not the top of the folder.
    pub(crate) fn file(&self, argument: &OsStr) -> Result<SyncPath, CommandError> {
        let top = || CommandError::usage(format!("{} is the folder itself, not a file", Path::new(argument).display()));
        self.path(argument)?.ok_or_else(top)
    }

    /// The file and the revision that `FILE@REV` names.
    pub(crate) fn file_rev(&self, argument: &OsStr) -> Result<FileRev, CommandError> {
        Ok(FileRev::parse(&self.relative(argument)?, b"", false)?)
    }

    /// The newest revision of a file whose name is taken as it is, whatever `@` is in it.
    pub(crate) fn newest(&self, argument: &OsStr) -> Result<FileRev, CommandError> {
        Ok(FileRev { path: self.file(argument)?, rev: None })
    }
}

/// `path` relative to `root` if it lies there: by its text, or else by where links lead (the last name stays as it is:
/// a link is itself a thing that is versioned).
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let path = normalize(path);
    if let Ok(relative) = path.strip_prefix(root) {
        return Some(relative.to_owned());
    }
    let real_root = fs::canonicalize(root).ok()?;
    let real = |folder: &Path| fs::canonicalize(folder).ok();
    if real(&path).as_ref() == Some(&real_root) {
        return Some(PathBuf::new());
    }
    let (folder, real_folder) = path.ancestors().skip(1).find_map(|folder| Some((folder, real(folder)?)))?;
    let rest = path.strip_prefix(folder).expect("it is one of its ancestors");
    real_folder.join(rest).strip_prefix(&real_root).ok().map(Path::to_owned)
}

/// An argument as text for a message.
pub(crate) fn shown(argument: &OsStr) -> String {
    String::from_utf8_lossy(argument.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::symlink;

    #[rstest]
    #[case("/a/b/../c", "/a/c")]
    #[case("/../../x", "/x")]
    #[case("/a/./b/", "/a/b")]
    fn normalizes_by_text(#[case] path: &str, #[case] normal: &str) {
        assert_eq!(normalize(Path::new(path)), Path::new(normal));
    }

    fn name(path: Option<SyncPath>) -> String {
        path.map_or_else(String::new, |path| path.to_string())
    }

    #[rstest]
    #[case::below("/docs/sub", "notes.txt", "sub/notes.txt")]
    #[case::above("/docs/sub", "../notes.txt", "notes.txt")]
    #[case::here("/docs/sub", ".", "sub")]
    #[case::top("/docs", ".", "")]
    #[case::absolute("/elsewhere", "/docs/a/b", "a/b")]
    #[case::from_elsewhere("/elsewhere", "notes.txt", "notes.txt")]
    #[case::folder("/docs", "sub/", "sub")]
    fn arguments_are_relative_to_where_one_stands(#[case] current: &str, #[case] argument: &str, #[case] path: &str) {
        let places = Places::new(Path::new("/docs"), Path::new(current));
        assert_eq!(name(places.path(OsStr::new(argument)).unwrap()), path);
    }

    #[rstest]
    #[case::outside("../other/x")]
    #[case::sibling_with_the_same_beginning("/docs2/x")]
    #[case::repository(".git/config")]
    #[case::empty("")]
    fn what_is_not_of_the_folder_is_refused(#[case] argument: &str) {
        let places = Places::new(Path::new("/docs"), Path::new("/docs"));
        assert_eq!(places.path(OsStr::new(argument)).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn links_that_lead_into_the_folder_are_followed_but_not_the_last_name() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let root = dir.join("docs");
        fs::create_dir_all(root.join("sub")).unwrap();
        symlink(&root, dir.join("link")).unwrap();
        symlink("/", root.join("away")).unwrap();
        let places = Places::new(&root, &dir.join("link/sub"));
        assert_eq!(name(places.path(OsStr::new("new.txt")).unwrap()), "sub/new.txt");
        assert_eq!(name(places.path(dir.join("link/sub").as_os_str()).unwrap()), "sub");
        assert_eq!(name(places.path(dir.join("link").as_os_str()).unwrap()), "");
        assert_eq!(name(places.path(dir.join("link/away").as_os_str()).unwrap()), "away");
    }

    #[test]
    fn a_revision_stays_with_its_path() {
        let places = Places::new(Path::new("/docs"), Path::new("/docs/sub"));
        let parsed = places.file_rev(OsStr::new("../notes.txt@3")).unwrap();
        assert_eq!(parsed.path.to_string(), "notes.txt");
        assert!(parsed.rev.is_some());
        let literal = places.newest(OsStr::new("notes.txt@3")).unwrap();
        assert_eq!(literal.path.to_string(), "sub/notes.txt@3");
        assert!(literal.rev.is_none());
    }
}
