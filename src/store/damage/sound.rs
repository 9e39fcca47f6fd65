//! Reading past what is damaged.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Seek as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Checked, State, Walked};
use crate::id::{ObjectId, TreeId};
use crate::monitor::Silent;
use crate::store::bundle::BundleHeader;
use crate::store::durable::{self, Temp};
use crate::store::error::StoreError;
use crate::store::lock::{FolderLock, Wait};
use crate::store::objects::{ObjectHasher, ObjectKind, Objects, from_gix, object_id};
use crate::store::pack::PackWriter;
use crate::store::pack::fetch::{Fetcher, PackFolder};
use crate::store::pack::index::write_index;
use crate::store::pack::reader::Packs;
use crate::store::pack::writer::Order;
use crate::store::quarantine::{self, Limits};
use crate::store::repository::Store;

/// Why an object cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsound {
    /// It is nowhere.
    Missing,
    /// It is there, and is not what it must be.
    Damaged(String),
}

/// A pack that is not whole, or has no index, and can be read all the same.
struct Source {
    path: PathBuf,
    dir: PathBuf,
    fetcher: RefCell<Fetcher>,
    /// Whether something was needed that only it has.
    used: Cell<bool>,
}

/// The objects of a repository that are what their ids say, wherever they are.
pub struct Sound {
    /// Of what is whole.
    objects: Objects,
    sources: Vec<Source>,
    scratch: Option<Scratch>,
}

/// A folder of objects for as long as something damaged is worked on; one at a time.
struct Scratch {
    dir: PathBuf,
    _lock: FolderLock,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it, the next one removes.
        drop(fs::remove_dir_all(&self.dir));
    }
}

impl Scratch {
    fn new(store: &Store) -> Result<Self, StoreError> {
        let lock = FolderLock::acquire(&store.private_dir().join("mending.lock"), "verify", Wait::Forever)?;
        let dir = store.private_dir().join("mending");
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &dir)(error));
            }
            _ => {}
        }
        let objects = dir.join("objects/pack");
        for dir in [objects, dir.join("whole")] {
            fs::create_dir_all(&dir).map_err(StoreError::io("make the folder", &dir))?;
        }
        Ok(Self { dir, _lock: lock })
    }
}

fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    symlink(from, to).map_err(StoreError::io("link to", from))
}

impl Sound {
    /// The sound objects of a repository whose files were looked at. With `mends`, there is a place to put more in,
    /// whether or not anything is damaged.
    pub fn open(store: &Store, checked: &Checked, mends: bool) -> Result<Self, StoreError> {
        if !mends && checked.packs.iter().all(super::PackState::is_whole) {
            return Ok(Self { objects: store.objects(), sources: Vec::new(), scratch: None });
        }
        let scratch = Scratch::new(store)?;
        let objects_dir = scratch.dir.join("objects");
        let real = store.git_dir().join("objects");
        for name in super::names_in(&real)? {
            // Loose objects, and where others of a person's are.
            if name.len() == 2 || name == "info" {
                link(&real.join(&name), &objects_dir.join(&name))?;
            }
        }
        let mut sources = Vec::new();
        for (number, state) in checked.packs.iter().enumerate() {
            let Some(name) = state.path.file_name() else { continue };
            let (index, index_name) = (state.path.with_extension("idx"), Path::new(name).with_extension("idx"));
            let dir = if state.is_whole() {
                objects_dir.join("pack")
            } else {
                let dir = scratch.dir.join(number.to_string());
                fs::create_dir(&dir).map_err(StoreError::io("make the folder", &dir))?;
                dir
            };
            match (&state.pack, &state.index) {
                (State::Whole(_) | State::Damaged(_), State::Whole(_)) => link(&index, &dir.join(&index_name))?,
                // An index that cannot be made leaves the pack as lost, and verify says so.
                (State::Whole(sum), _) => match index_of(store, &state.path, sum, &dir.join(&index_name)) {
                    Ok(()) => {}
                    Err(error @ StoreError::Io { .. }) => return Err(error),
                    Err(_) => continue,
                },
                _ => continue,
            }
            link(&state.path, &dir.join(name))?;
            if state.is_whole() {
                let whole = scratch.dir.join("whole");
                link(&index, &whole.join(&index_name))?;
                link(&state.path, &whole.join(name))?;
            }
            if !state.is_whole() {
                let fetcher = RefCell::new(Fetcher::new(Arc::new(PackFolder::new(dir.clone()))));
                sources.push(Source { path: state.path.clone(), dir, fetcher, used: Cell::new(false) });
            }
        }
        let objects = Objects::open(&objects_dir)?;
        Ok(Self { objects, sources, scratch: Some(scratch) })
    }

    /// The objects of what is whole: their ids may be trusted as far as anything in a repository.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Where packs can be put that bring what is lost; nothing of it is part of the repository.
    pub fn pack_dir(&self) -> Option<PathBuf> {
        self.scratch.as_ref().map(|scratch| scratch.dir.join("objects/pack"))
    }

    /// The index that was made for a pack, if it is one that had none, or a damaged one.
    pub fn index_made(&self, pack: &Path) -> Option<PathBuf> {
        let source = self.sources.iter().find(|source| source.path == pack)?;
        let index = source.dir.join(pack.file_name()?).with_extension("idx");
        fs::symlink_metadata(&index).is_ok_and(|data| data.is_file()).then_some(index)
    }

    /// The packs without an index in which something is that is needed, and that nothing else has.
    pub fn needs_index(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter(|source| source.used.get()).map(|source| source.path.as_path())
    }

    /// Reads an object of this kind, and compares it with its id.
    pub fn read(&self, kind: ObjectKind, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<(), Unsound> {
        let mut why = Unsound::Missing;
        let is_right = |found: Option<ObjectKind>, buffer: &[u8]| match found {
            None => Err(Unsound::Missing),
            Some(found) if found == kind && object_id(kind, buffer) == *id => Ok(()),
            Some(_) => Err(Unsound::Damaged("it does not hold what its id says".to_owned())),
        };
        let mut found = |result: Result<(), Unsound>| match result {
            Ok(()) => true,
            Err(error) => {
                if error != Unsound::Missing {
                    why = error;
                }
                false
            }
        };
        let read = self.objects.try_read(id, buffer).map_err(|error| Unsound::Damaged(error.to_string()));
        if found(read.and_then(|kind| is_right(kind, buffer))) {
            return Ok(());
        }
        for source in &self.sources {
            let read = source.fetcher.borrow_mut().read(id, buffer);
            let read = read.map_err(|error| Unsound::Damaged(error.to_string()));
            if found(read.and_then(|kind| is_right(kind, buffer))) {
                source.used.set(true);
                return Ok(());
            }
        }
        Err(why)
    }

    /// Hashes a blob without holding a large one; answers with its size.
    pub fn blob(&self, id: &ObjectId) -> Result<u64, Unsound> {
        let hashed = |size: u64, copy: &mut dyn FnMut(&mut ObjectHasher) -> Result<bool, StoreError>| {
            let mut hasher = ObjectHasher::new(ObjectKind::Blob, size);
            match copy(&mut hasher) {
                Ok(true) if hasher.finish() == *id => Ok(size),
                Ok(_) => Err(Unsound::Damaged("it does not hold what its id says".to_owned())),
                Err(error) => Err(Unsound::Damaged(error.to_string())),
            }
        };
        let header = |header: Result<Option<(ObjectKind, u64)>, StoreError>| match header {
            Ok(Some((ObjectKind::Blob, size))) => Ok(size),
            Ok(Some((kind, _))) => Err(Unsound::Damaged(format!("it is a {}, not a blob", kind.word()))),
            Ok(None) => Err(Unsound::Missing),
            Err(error) => Err(Unsound::Damaged(error.to_string())),
        };
        let mut why = match header(self.objects.header(id)).and_then(|size| {
            hashed(size, &mut |hasher| self.objects.copy_blob(id, hasher).map(|copied| copied == size))
        }) {
            Ok(size) => return Ok(size),
            Err(why) => why,
        };
        for source in &self.sources {
            let mut fetcher = source.fetcher.borrow_mut();
            let found = header(fetcher.header(id)).and_then(|size| {
                hashed(size, &mut |hasher| fetcher.copy_blob(id, hasher).map(|copied| copied == Some(size)))
            });
            match found {
                Ok(size) => {
                    source.used.set(true);
                    return Ok(size);
                }
                Err(Unsound::Missing) => {}
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Writes a blob that [`Sound::blob`] has found sound.
    pub fn copy_blob(&self, id: &ObjectId, out: &mut dyn std::io::Write) -> Result<(), StoreError> {
        let mut whole = Vec::new();
        if self.objects.exists(id) && self.sources.is_empty() {
            return self.objects.copy_blob(id, out).map(drop);
        }
        self.read(ObjectKind::Blob, id, &mut whole).map_err(|_| StoreError::Missing { id: *id })?;
        out.write_all(&whole).map_err(StoreError::io("write", Path::new("a content")))
    }

    /// The objects that a damaged or missing pack should have, by its index.
    pub fn listed(&self, pack: &Path) -> Result<Vec<ObjectId>, StoreError> {
        let index = self.index_made(pack).unwrap_or_else(|| pack.with_extension("idx"));
        // Without an index, nothing is known of what was in it.
        let whole = matches!(super::sealed(&index, b"\xfftOc", &Silent)?, State::Whole(_));
        let index = gix_pack::index::File::at(&index, gix_hash::Kind::Sha1).ok().filter(|_| whole);
        Ok(index.iter().flat_map(|index| index.iter().map(|entry| from_gix(&entry.oid))).collect())
    }

    /// All commits, in packs whole or not and loose, that are what their ids say.
    pub fn commits(&self) -> Result<Vec<crate::id::CommitId>, StoreError> {
        let dirs = self.sources.iter().map(|source| source.dir.clone()).chain(self.pack_dir());
        let (mut commits, mut buffer) = (Vec::new(), Vec::new());
        for dir in dirs {
            let packs = match Packs::open(&dir) {
                Err(StoreError::Damaged { .. }) => continue,
                packs => packs?,
            };
            for pack in packs.all() {
                for at in 0..pack.objects() {
                    if pack.kind(at).is_ok_and(|kind| kind == ObjectKind::Commit) {
                        let id = pack.id(at);
                        if self.read(ObjectKind::Commit, &id, &mut buffer).is_ok() {
                            commits.push(id.as_commit());
                        }
                    }
                }
            }
        }
        for first in self.scratch.iter().map(|scratch| scratch.dir.join("objects")) {
            for folder in super::names_in(&first)?.into_iter().filter(|name| name.len() == 2) {
                for name in super::names_in(&first.join(&folder))? {
                    let Ok(id) = format!("{folder}{name}").parse::<ObjectId>() else { continue };
                    if self.read(ObjectKind::Commit, &id, &mut buffer).is_ok() {
                        commits.push(id.as_commit());
                    }
                }
            }
        }
        commits.sort_unstable();
        commits.dedup();
        Ok(commits)
    }
}

impl Sound {
    /// Writes a pack into `to` with what can be read of the damaged `packs` and `loose` objects, and with what came into
    /// [`Sound::pack_dir`] and `walked` says is needed. Answers how many objects that are. Afterwards nothing needs the
    /// damaged packs any more.
    pub fn write_good_pack(
        &self,
        store: &Store,
        to: &Path,
        packs: &[PathBuf],
        loose: &[ObjectId],
        walked: &Walked,
    ) -> Result<u64, StoreError> {
        let whole = Arc::new(PackFolder::new(self.whole_dir()));
        let mut whole = Fetcher::new(whole);
        let mut writer = PackWriter::create(to)?;
        let mut ids: Vec<ObjectId> = loose.to_vec();
        for pack in packs {
            ids.extend(self.listed(pack)?);
        }
        for pack in self.pack_dir().map(|dir| Packs::open(&dir)).transpose()?.iter().flat_map(Packs::all) {
            let came = !fs::symlink_metadata(pack.path()).is_ok_and(|data| data.is_symlink());
            let came = (0..if came { pack.objects() } else { 0 }).map(|at| pack.id(at));
            ids.extend(came.filter(|id| walked.has(id)));
        }
        let mut content = Vec::new();
        if !packs.is_empty() && !whole.contains(&TreeId::EMPTY.into()) {
            // We know what is in an empty folder; git wants to have it in writing.
            writer.put(ObjectKind::Tree, &[])?;
        }
        for id in ids {
            if whole.contains(&id) || writer.find(&id).is_some() {
                continue;
            }
            match self.kind(&id) {
                Some(ObjectKind::Blob) => {
                    let Ok(size) = self.blob(&id) else { continue };
                    if size <= IN_MEMORY {
                        self.read(ObjectKind::Blob, &id, &mut content).map_err(|_| StoreError::Missing { id })?;
                        writer.put(ObjectKind::Blob, &content)?;
                    } else {
                        let mut temp = Temp::new_in(&store.private_dir())?;
                        self.copy_blob(&id, temp.file())?;
                        let path = temp.path().to_owned();
                        temp.file().rewind().map_err(StoreError::io("read", &path))?;
                        writer.stream_blob(size, temp.file())?;
                    }
                }
                Some(kind) if self.read(kind, &id, &mut content).is_ok() => drop(writer.put(kind, &content)?),
                _ => {}
            }
        }
        Ok(writer.finish_as(Order::None)?.map_or(0, |finished| finished.objects))
    }

    fn whole_dir(&self) -> PathBuf {
        self.scratch.as_ref().map_or_else(PathBuf::new, |scratch| scratch.dir.join("whole"))
    }

    /// What an object says that it is, wherever it can be read.
    fn kind(&self, id: &ObjectId) -> Option<ObjectKind> {
        let mut kinds = self.sources.iter().map(|source| source.fetcher.borrow_mut().header(id));
        let here = self.objects.header(id);
        std::iter::once(here).chain(kinds.by_ref()).find_map(|header| header.ok().flatten()).map(|(kind, _)| kind)
    }
}

/// Contents with more bytes go through a file.
const IN_MEMORY: u64 = 32 << 20;

/// Makes the index of a pack that is whole.
fn index_of(store: &Store, pack: &Path, sum: &[u8; 20], to: &Path) -> Result<(), StoreError> {
    let mut file = fs::File::open(pack).map_err(StoreError::io("open", pack))?;
    let header = BundleHeader { prerequisites: Vec::new(), refs: Vec::new() };
    let limits = Limits { objects: u32::MAX >> 4, held_bytes: 64 << 20, chain: 4096, ..Limits::default() };
    let quarantined = quarantine::receive(&store.private_dir(), header, &mut file, &store.objects(), &limits)?;
    let mut entries = quarantined.into_index();
    let mut temp = Temp::new_in(&store.private_dir())?;
    write_index(&mut entries, sum, temp.file()).map_err(StoreError::io("write", to))?;
    durable::sync_file(temp.file(), to)?;
    temp.rename_to(to)
}
