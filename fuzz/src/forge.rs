//! Packs made by hand, right and wrong: the sums fit, whatever they are sums of.

use foldersync::id::{CommitId, ObjectId};
use foldersync::store::pack::blob;
use foldersync::store::pack::entry::{EntryKind, pack_header, write_header};
use foldersync::store::{ObjectKind, object_id};

/// A pack in the making.
#[derive(Default)]
pub struct Forge {
    entries: Vec<Vec<u8>>,
}

/// The bytes of a commit.
pub fn commit_text(tree: ObjectId, parents: &[CommitId], message: &[u8]) -> Vec<u8> {
    let parents = parents.iter().map(|parent| format!("parent {parent}\n")).collect::<Vec<_>>().concat();
    let head = format!("tree {tree}\n{parents}author a <a> 1 +0000\ncommitter a <a> 1 +0000\n\n");
    [head.as_bytes(), message].concat()
}

impl Forge {
    /// An entry, as it lies in the pack.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.entries.push(bytes.to_vec());
    }

    /// An entry that says that it has so many bytes.
    pub fn entry(&mut self, kind: EntryKind, size: u64, content: &[u8]) {
        let mut entry = Vec::new();
        write_header(&mut entry, kind, size);
        blob::store(content, &mut entry);
        self.entries.push(entry);
    }

    /// A whole object.
    pub fn whole(&mut self, kind: ObjectKind, content: &[u8]) -> ObjectId {
        self.entry(EntryKind::Whole(kind), content.len() as u64, content);
        object_id(kind, content)
    }

    /// Where an entry begins.
    pub fn begins(&self, entry: usize) -> u64 {
        (pack_header(0).len() + self.entries[..entry].iter().map(Vec::len).sum::<usize>()) as u64
    }

    /// Where the next entry will begin.
    pub fn end(&self) -> u64 {
        self.begins(self.entries.len())
    }

    /// The last entry first: what is referred to comes behind what refers to it.
    pub fn reverse(&mut self) {
        self.entries.reverse();
    }

    /// The pack, with its number of entries (and `more`) and its checksum.
    pub fn seal(&self, more: u32) -> Vec<u8> {
        let count = u32::try_from(self.entries.len()).expect("few") + more;
        let mut pack = pack_header(count).to_vec();
        pack.extend(self.entries.concat());
        let mut sum = gix_hash::hasher(gix_hash::Kind::Sha1);
        sum.update(&pack);
        pack.extend_from_slice(sum.try_finalize().expect("no attempt at a collision").as_slice());
        pack
    }
}
