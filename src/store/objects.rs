//! Reading git's objects, whoever wrote them: our packs, git's packs, loose objects.
//!
//! Owns the handle on the object database. What lies in packs is read by our own [`fetch`](super::pack::fetch), whose
//! memory does not grow with the packs; only what that does not find (loose objects, alternates, packs of this very
//! moment) is looked for by gix, which maps what it reads. Reads only; what it reads is checked by whoever lets it in
//! (see `quarantine`). A handle is for one thread: [`Objects::clone`] makes another that shares the opened packs.

use std::cell::{OnceCell, RefCell};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gix_object::Find as _;

use super::commit::Commit;
use super::error::StoreError;
use super::pack::fetch::{Fetcher, PackFolder};
use crate::id::{CommitId, ObjectId, TreeId};

/// The kinds of git objects that foldersync knows. (Annotated tags are none of them.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A revision.
    Commit,
    /// A folder.
    Tree,
    /// A content.
    Blob,
}

impl ObjectKind {
    /// Git's word for it, as in an object's header.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
        }
    }

    fn of(kind: gix_object::Kind) -> Option<Self> {
        match kind {
            gix_object::Kind::Commit => Some(Self::Commit),
            gix_object::Kind::Tree => Some(Self::Tree),
            gix_object::Kind::Blob => Some(Self::Blob),
            gix_object::Kind::Tag => None,
        }
    }
}

/// The id of an object with this kind and content.
pub fn object_id(kind: ObjectKind, content: &[u8]) -> ObjectId {
    let mut hasher = ObjectHasher::new(kind, content.len() as u64);
    hasher.update(content);
    hasher.finish()
}

/// Computes an object's id piece by piece, and notices attempts at SHA-1 collisions.
#[derive(Clone)]
pub struct ObjectHasher(gix_hash::Hasher);

impl ObjectHasher {
    /// Begins an object of this kind and size in bytes.
    pub fn new(kind: ObjectKind, size: u64) -> Self {
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        hasher.update(kind.word().as_bytes());
        hasher.update(format!(" {size}\0").as_bytes());
        Self(hasher)
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The id; an attempt at a collision gets the id that git refuses everywhere: all zero.
    pub fn finish(self) -> ObjectId {
        self.0.try_finalize().map_or(ObjectId::from_bytes([0; 20]), |id| from_gix(&id))
    }
}

impl Write for ObjectHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn from_gix(id: &gix_hash::oid) -> ObjectId {
    ObjectId::from_slice(id.as_bytes()).expect("foldersync's repositories hash with SHA-1")
}

pub(crate) fn to_gix(id: &ObjectId) -> &gix_hash::oid {
    gix_hash::oid::from_bytes_unchecked(id.as_bytes())
}

/// A handle to read objects with; one a thread.
#[derive(Clone)]
pub struct Objects {
    packed: RefCell<Fetcher>,
    others: Others,
}

/// Gix, for what is not in packs or is not common there. It is opened when it is first needed, which is seldom: that
/// takes longer than most of what is asked.
#[derive(Clone)]
struct Others {
    dir: PathBuf,
    store: Arc<OnceLock<Arc<gix_odb::Store>>>,
    handle: OnceCell<gix_odb::HandleArc>,
}

/// The fewest packs that gix has room for, and how many times those that there are. Room is for those that are open at
/// once.
const SLOTS: (usize, f32) = (256, 4.0);
/// Bytes of delta bases that gix keeps for the next object, of the few that it reads.
const DELTA_CACHE: usize = 4 << 20;

impl Others {
    fn handle(&self) -> Result<&gix_odb::HandleArc, StoreError> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle);
        }
        let store = if let Some(store) = self.store.get() {
            Arc::clone(store)
        } else {
            let opened = self.open().map_err(StoreError::io("open", &self.dir))?;
            Arc::clone(self.store.get_or_init(|| Arc::new(opened)))
        };
        let mut handle = store.to_cache_arc();
        handle.set_pack_cache(|| Box::new(gix_pack::cache::lru::MemoryCappedHashmap::new(DELTA_CACHE)));
        Ok(self.handle.get_or_init(|| handle))
    }

    fn open(&self) -> io::Result<gix_odb::Store> {
        let (minimum, multiplier) = SLOTS;
        let slots = gix_odb::store::init::Slots::AsNeededByDiskState { multiplier, minimum };
        let options = gix_odb::store::init::Options { slots, ..Default::default() };
        gix_odb::Store::at_opts(self.dir.clone(), gix_hash::Kind::Sha1, &mut None.into_iter(), options)
    }
}

impl Objects {
    /// Opens the objects of a repository: `objects_dir` is its `objects` folder.
    pub fn open(objects_dir: &Path) -> Result<Self, StoreError> {
        fs::read_dir(objects_dir).map_err(StoreError::io("open", objects_dir))?;
        let packed = Fetcher::new(Arc::new(PackFolder::new(objects_dir.join("pack"))));
        let others = Others { dir: objects_dir.to_owned(), store: Arc::default(), handle: OnceCell::new() };
        Ok(Self { packed: RefCell::new(packed), others })
    }

    /// Reads a whole object into `buffer`; `None` if there is none with this id (nor of a kind that we know).
    pub fn try_read(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>, StoreError> {
        if let Some(kind) = self.packed.borrow_mut().read(id, buffer)? {
            return Ok(Some(kind));
        }
        let found = self.others.handle()?.try_find(to_gix(id), buffer);
        let found = found.map_err(|error| StoreError::damaged(format!("object {id}"), error))?;
        Ok(found.and_then(|data| ObjectKind::of(data.kind)))
    }

    /// An object as it lies in a pack (see [`Fetcher::whole`]).
    pub(crate) fn whole(&self, id: &ObjectId, deflated: &mut Vec<u8>) -> Result<Option<(ObjectKind, u64)>, StoreError> {
        self.packed.borrow_mut().whole(id, deflated)
    }

    /// Reads a whole object that must be there and of this kind.
    pub fn read(&self, kind: ObjectKind, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        match self.try_read(id, buffer)? {
            Some(found) if found == kind => Ok(()),
            Some(found) => Err(StoreError::damaged(
                format!("object {id}"),
                format!("it is a {}, not a {}", found.word(), kind.word()),
            )),
            None => Err(StoreError::Missing { id: *id }),
        }
    }

    /// Tells the system that an object of so many bytes, which was read, need not stay in its memory: what is read once,
    /// and there is much of it, must not push out what everybody else uses.
    pub fn let_go(&self, id: &ObjectId, bytes: u64) {
        self.packed.borrow_mut().let_go(id, bytes);
    }

    /// The kind and size in bytes of an object, without reading it where that can be avoided.
    pub fn header(&self, id: &ObjectId) -> Result<Option<(ObjectKind, u64)>, StoreError> {
        use gix_odb::Header as _;
        if let Some(header) = self.packed.borrow_mut().header(id)? {
            return Ok(Some(header));
        }
        let header = self.others.handle()?.try_header(to_gix(id));
        let header = header.map_err(|error| StoreError::damaged(format!("object {id}"), error))?;
        Ok(header.and_then(|header| Some((ObjectKind::of(header.kind())?, header.size()))))
    }

    /// Whether an object is a blob that begins with these few bytes, without reading all of it where that can be
    /// avoided.
    pub fn begins_with(&self, id: &ObjectId, bytes: &[u8]) -> Result<bool, StoreError> {
        if let Some(begins) = self.packed.borrow_mut().begins_with(id, bytes)? {
            return Ok(begins);
        }
        let mut content = Vec::new();
        Ok(self.try_read(id, &mut content)? == Some(ObjectKind::Blob) && content.starts_with(bytes))
    }

    /// Whether there is a commit with this id: what somebody else calls one may be a file of ours.
    pub fn is_commit(&self, id: CommitId) -> bool {
        matches!(self.header(&id.into()), Ok(Some((ObjectKind::Commit, _))))
    }

    /// Whether an object is there.
    pub fn exists(&self, id: &ObjectId) -> bool {
        use gix_object::Exists as _;
        self.packed.borrow_mut().contains(id) || self.others.handle().is_ok_and(|others| others.exists(to_gix(id)))
    }

    /// Reads a commit.
    pub fn commit(&self, id: CommitId) -> Result<Commit, StoreError> {
        let mut buffer = Vec::new();
        self.read(ObjectKind::Commit, &id.into(), &mut buffer)?;
        Commit::parse(id, &buffer)
    }

    /// Writes the content of a blob to `out`; a large one streams where a pack has it as a whole. Returns its size in
    /// bytes.
    pub fn copy_blob(&self, id: &ObjectId, out: &mut dyn Write) -> Result<u64, StoreError> {
        if let Some(copied) = self.packed.borrow_mut().copy_blob(id, out)? {
            return Ok(copied);
        }
        let mut content = Vec::new();
        self.read(ObjectKind::Blob, id, &mut content)?;
        let failed =
            |source| StoreError::Io { what: "write", path: format!("the content of blob {id}").into(), source };
        out.write_all(&content).map_err(failed)?;
        Ok(content.len() as u64)
    }

    /// Reads the content of a tree; the empty tree is always there.
    pub fn tree(&self, id: TreeId, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        if id == TreeId::EMPTY {
            buffer.clear();
            return Ok(());
        }
        self.read(ObjectKind::Tree, &id.into(), buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::pack::PackWriter;
    use crate::store::pack::testing::repository;

    #[test]
    fn more_packs_come_and_go_in_a_life_than_there_is_room_for_at_once() {
        let (folder, pack_dir) = repository();
        let objects = Objects::open(&folder.path().join("objects")).unwrap();
        let missing = object_id(ObjectKind::Blob, b"never written");
        let mut last: Option<PathBuf> = None;
        for n in 0..SLOTS.0 * 2 {
            let mut writer = PackWriter::create(&pack_dir).unwrap();
            writer.put(ObjectKind::Blob, format!("content {n}").as_bytes()).unwrap();
            let pack = pack_dir.join(writer.finish().unwrap().unwrap().name).with_extension("pack");
            if let Some(old) = last.replace(pack) {
                fs::remove_file(old.with_extension("idx")).unwrap();
                fs::remove_file(old).unwrap();
            }
            // Looking in vain makes gix look at all packs again.
            assert_eq!(objects.try_read(&missing, &mut Vec::new()).unwrap(), None, "after {n} packs");
        }
    }
}
