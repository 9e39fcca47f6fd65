//! Where a copy of a folder can be made: an empty directory, or a copy of the same folder that is there already.
//!
//! A copy that is made here has no revision yet; exchanges bring them. After a kill it may stand there empty, and is
//! taken for what it is by the next try.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::error::EngineError;
use crate::engine::folder::{Context, Folder, InitOptions};
use crate::id::FolderId;
use crate::store::{Key, RefName, Store};

/// What is at a place where a copy shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing, or an empty directory.
    Free,
    /// A copy of this folder.
    Copy(FolderId),
}

/// A copy at its place.
pub struct Taken {
    folder: Folder,
    /// What was made for it, the outermost first; empty where it was there before.
    made: Vec<PathBuf>,
}

impl Place {
    /// What is at `dir`. An error where a copy can neither be made nor is one.
    pub fn look(dir: &Path, cx: &Context) -> Result<Self, EngineError> {
        if is_free(dir)? {
            return Ok(Self::Free);
        }
        if !is_folder(dir) {
            return Err(EngineError::NotEmpty { path: dir.to_owned() });
        }
        Ok(Self::Copy(Folder::open(dir, cx.clone())?.id()))
    }
}

/// Whether nothing is at `dir`, or nothing in it but what a kill has left of making a folder there, which the next try
/// removes.
pub(crate) fn is_free(dir: &Path) -> Result<bool, EngineError> {
    let failed = |error| EngineError::io("read", dir)(error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        if !crate::store::repository::is_unfinished(&entry.map_err(failed)?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The copy at `dir` that a kill has left before it had a revision, with nothing in it yet; named as it should be.
pub(crate) fn begun(dir: &Path, options: &InitOptions, cx: &Context) -> Result<Option<Folder>, EngineError> {
    if !is_folder(dir) {
        return Ok(None);
    }
    let store = Store::open(dir)?;
    let failed = |error| EngineError::io("read", dir)(error);
    let own = store.git_dir().file_name().map(std::ffi::OsStr::to_owned);
    for entry in fs::read_dir(dir).map_err(failed)? {
        if Some(entry.map_err(failed)?.file_name()) != own {
            return Ok(None);
        }
    }
    if store.refs().read(&RefName::MAIN)?.is_some() {
        return Ok(None);
    }
    open_named(dir, options, cx.clone()).map(Some)
}

/// Opens a copy that a kill may have left without its name.
fn open_named(dir: &Path, options: &InitOptions, cx: Context) -> Result<Folder, EngineError> {
    Store::open(dir)?.set(Key::DeviceName, &options.device.name)?;
    Folder::open(dir, cx)
}

/// Whether `dir` itself is the root of a shared folder, and not just somewhere in one.
fn is_folder(dir: &Path) -> bool {
    matches!(Folder::discover(dir), Ok(root) if is_same(&root, dir))
}

/// The shared folder at `dir` if this device made it, named as it should be: a kill may have come before that.
pub(crate) fn made_here(dir: &Path, options: &InitOptions, cx: &Context) -> Result<Option<Folder>, EngineError> {
    if !is_folder(dir) || Store::open(dir)?.settings()?.device != Some(options.device.id) {
        return Ok(None);
    }
    open_named(dir, options, cx.clone()).map(Some)
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

impl Taken {
    /// Makes a copy of `options.folder_id` at `dir`, without a revision, or opens the one that is there.
    pub fn take(dir: &Path, options: &InitOptions, cx: Context) -> Result<Self, EngineError> {
        match Place::look(dir, &cx)? {
            Place::Copy(id) if Some(id) == options.folder_id => {
                Ok(Self { folder: open_named(dir, options, cx)?, made: Vec::new() })
            }
            Place::Copy(_) => Err(EngineError::NotEmpty { path: dir.to_owned() }),
            Place::Free => {
                let existed = dir.is_dir();
                fs::create_dir_all(dir).map_err(EngineError::io("create", dir))?;
                let folder = Folder::create(dir, options, cx)?;
                let mut made = vec![folder.store.git_dir().to_owned()];
                if !existed {
                    made.insert(0, dir.to_owned());
                }
                Ok(Self { folder, made })
            }
        }
    }

    /// The copy.
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Removes what was made, if nobody has put anything in it meanwhile.
    pub fn undo(self) -> Result<(), EngineError> {
        let Self { folder, made } = self;
        let empty = folder.head()?.is_none();
        drop(folder);
        let Some(git_dir) = made.last().filter(|_| empty) else { return Ok(()) };
        fs::remove_dir_all(git_dir).map_err(EngineError::io("remove", git_dir))?;
        if let [dir, _] = &made[..] {
            // Somebody's files may be in it by now.
            fs::remove_dir(dir).ok();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::record;
    use crate::engine::folder::Device;
    use crate::engine::report::Identity;
    use crate::id::DeviceId;
    use crate::monitor::Silent;
    use std::sync::Arc;

    fn cx() -> Context {
        let zone = jiff::tz::TimeZone::UTC;
        Context {
            clock: Arc::new(SystemClock),
            monitor: Arc::new(Silent),
            threads: 1,
            zone,
            guards: crate::guard::Guards::default(),
        }
    }

    fn options(id: u8) -> InitOptions {
        let device = Device { id: DeviceId::from_bytes([1; 32]), name: "laptop".to_owned() };
        InitOptions { alongside: false, device, folder_id: Some(FolderId::from_bytes([id; 16])) }
    }

    #[test]
    fn a_copy_is_made_where_nothing_is_and_goes_again_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docs");
        assert_eq!(Place::look(&path, &cx()).unwrap(), Place::Free);
        let taken = Taken::take(&path, &options(7), cx()).unwrap();
        assert_eq!(taken.folder().id(), FolderId::from_bytes([7; 16]));
        assert_eq!(Place::look(&path, &cx()).unwrap(), Place::Copy(FolderId::from_bytes([7; 16])));
        taken.undo().unwrap();
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        Taken::take(&path, &options(7), cx()).unwrap().undo().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_of_the_same_folder_is_taken_as_it_is_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        drop(Taken::take(dir.path(), &options(7), cx()).unwrap());
        let again = Taken::take(dir.path(), &options(7), cx()).unwrap();
        again.undo().unwrap();
        assert_eq!(Place::look(dir.path(), &cx()).unwrap(), Place::Copy(FolderId::from_bytes([7; 16])));
        let other = Taken::take(dir.path(), &options(8), cx()).err().unwrap();
        assert!(matches!(other, EngineError::NotEmpty { .. }), "{other}");
        let full = tempfile::tempdir().unwrap();
        fs::write(full.path().join("mine"), "x").unwrap();
        assert!(matches!(Place::look(full.path(), &cx()), Err(EngineError::NotEmpty { .. })));
    }

    #[test]
    fn after_a_kill_at_any_moment_the_copy_belongs_to_its_device() {
        for allowed in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let make = || Taken::take(dir.path(), &options(7), cx()).map(|_| ());
            let (made, _) = record::kill_after(allowed, make);
            let taken = Taken::take(dir.path(), &options(7), cx()).unwrap();
            let Identity { device, device_name, .. } = &taken.folder().identity;
            assert_eq!((*device, device_name.as_str()), (DeviceId::from_bytes([1; 32]), "laptop"), "after {allowed}");
            if made.is_ok() {
                assert!(allowed > 0);
                break;
            }
        }
    }

    #[test]
    fn what_a_kill_left_of_making_a_copy_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".git.foldersync-new-x/objects")).unwrap();
        assert_eq!(Place::look(dir.path(), &cx()).unwrap(), Place::Free);
        Taken::take(dir.path(), &options(1), cx()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
