//! Packs from somebody who is not trusted. Raw bytes would never get past the checksums, so an input is a list of
//! things to put into a pack, right or wrong, and the sums are made to fit.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use foldersync::entry::Kind;
use foldersync::id::{CommitId, ObjectId, TreeId};
use foldersync::store::bundle::{BundleHeader, PART_REF, TIP_REF};
use foldersync::store::pack::delta;
use foldersync::store::pack::entry::{EntryKind, HEADER_LEN, TRAILER_LEN};
use foldersync::store::quarantine::{self, Admitted, Limits};
use foldersync::store::{ObjectKind, Objects, StoreError, object_id, tree};

use super::forge::{Forge, commit_text};

/// Small enough that an input can reach them.
const LIMITS: Limits =
    Limits { pack_bytes: 1 << 20, objects: 64, held_bytes: 4096, blob_bytes: 64 << 10, chain: 8, depth: 8 };
/// How many paths of a tree that was admitted are looked at.
const PATHS: usize = 1000;

const MODES: [&str; 10] =
    ["100644", "100755", "120000", "40000", "160000", "040000", "100664", "0", "777777777777", "10644"];

/// What the input says, read from the front.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// So many bytes as the next one says, or the next three.
    fn content(&mut self) -> &'a [u8] {
        let len = match self.byte() {
            255 => usize::from(u16::from_le_bytes([self.byte(), self.byte()])),
            len => usize::from(len),
        };
        self.take(len)
    }
}

type Object = (ObjectKind, Vec<u8>);

/// A pack in the making, and what each entry makes, where that is known.
struct Making {
    forge: Forge,
    entries: Vec<Option<Object>>,
    tips: Vec<CommitId>,
}

fn id_of((kind, content): &Object) -> ObjectId {
    object_id(*kind, content)
}

impl Making {
    fn new() -> Self {
        Self { forge: Forge::default(), entries: Vec::new(), tips: Vec::new() }
    }

    fn whole(&mut self, kind: ObjectKind, content: Vec<u8>) {
        let id = self.forge.whole(kind, &content);
        if kind == ObjectKind::Commit {
            self.tips.insert(0, id.as_commit());
        }
        self.entries.push(Some((kind, content)));
    }

    /// The object that a number stands for: of the repository, or of an entry.
    fn object<'a>(&'a self, base: &'a [Object], number: u8) -> &'a Object {
        let made: Vec<&Object> = self.entries.iter().flatten().collect();
        let at = usize::from(number) % (base.len() + made.len());
        base.get(at).unwrap_or_else(|| made[at - base.len()])
    }

    /// The next thing that the script says.
    fn step(&mut self, script: &mut Script<'_>, base: &[Object]) {
        match script.byte() % 9 {
            0 => self.whole(ObjectKind::Blob, script.content().to_vec()),
            1 => self.whole(ObjectKind::Tree, script.content().to_vec()),
            2 => self.whole(ObjectKind::Commit, script.content().to_vec()),
            3 => {
                let mut tree = Vec::new();
                for _ in 0..script.byte() % 16 {
                    let (mode, target) = (MODES[usize::from(script.byte()) % MODES.len()], script.byte());
                    let len = usize::from(script.byte() % 8);
                    let name = script.take(len);
                    let id = id_of(self.object(base, target));
                    tree.extend([mode.as_bytes(), b" ", name, b"\0", id.as_bytes()].concat());
                }
                self.whole(ObjectKind::Tree, tree);
            }
            4 => {
                let (tree, parents) = (id_of(self.object(base, script.byte())), usize::from(script.byte() % 4));
                let parents: Vec<CommitId> =
                    (0..parents).map(|_| id_of(self.object(base, script.byte())).as_commit()).collect();
                self.whole(ObjectKind::Commit, commit_text(tree, &parents, script.content()));
            }
            // A delta on an entry before, or on whatever has that id.
            by @ (5 | 6) => {
                let number = script.byte();
                let delta = script.content();
                self.delta(by == 5, number, delta, base);
            }
            // The same, with a delta that can be applied.
            7 => {
                let (by_offset, number) = (script.byte().is_multiple_of(2), script.byte());
                let from = if by_offset { self.entry_before(number) } else { Some(self.object(base, number).clone()) };
                let Some((kind, from)) = from else { return };
                let mut to = script.content().to_vec();
                to.splice(0..0, from.iter().copied());
                let delta = if kind == ObjectKind::Tree {
                    delta::trees(&from, &to)
                } else {
                    delta::splice(from.len(), from.len(), 0, &to[from.len()..])
                };
                self.delta(by_offset, number, &delta, base);
            }
            // Whatever it may be.
            _ => {
                self.forge.raw(script.content());
                self.entries.push(None);
            }
        }
    }

    fn place_before(&self, number: u8) -> Option<usize> {
        usize::from(number).checked_rem(self.entries.len())
    }

    fn entry_before(&self, number: u8) -> Option<Object> {
        self.entries[self.place_before(number)?].clone()
    }

    fn delta(&mut self, by_offset: bool, number: u8, delta: &[u8], base: &[Object]) {
        let (kind, from) = if by_offset {
            let to = self.place_before(number).map_or(u64::from(number), |at| self.forge.begins(at));
            (EntryKind::OffsetDelta(self.forge.end().saturating_sub(to)), self.entry_before(number))
        } else {
            let from = self.object(base, number).clone();
            (EntryKind::IdDelta(id_of(&from)), Some(from))
        };
        let makes = from.and_then(|(kind, from)| Some((kind, delta::apply(&from, delta, LIMITS.held_bytes).ok()?)));
        if let Some(commit) = makes.iter().find(|(kind, _)| *kind == ObjectKind::Commit) {
            self.tips.insert(0, id_of(commit).as_commit());
        }
        self.forge.entry(kind, delta.len() as u64, delta);
        self.entries.push(makes);
    }
}

/// A repository with a little in it, that packs are sent to.
struct Repo {
    dir: tempfile::TempDir,
    objects: Objects,
    base: Vec<Object>,
}

impl Repo {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a temporary folder");
        fs::create_dir_all(dir.path().join("objects/pack")).expect("a folder");
        let open = || Objects::open(&dir.path().join("objects")).expect("it can be opened");
        let mut making = Making::new();
        making.whole(ObjectKind::Blob, b"a content to stand on".to_vec());
        let blob = object_id(ObjectKind::Blob, b"a content to stand on");
        let mut content = Vec::new();
        tree::write_entry(&mut content, Kind::File.mode(), b"file", &blob);
        let root = object_id(ObjectKind::Tree, &content);
        making.whole(ObjectKind::Tree, content);
        making.whole(ObjectKind::Tree, Vec::new());
        making.whole(ObjectKind::Commit, commit_text(root, &[], b"base\n"));
        let base = making.entries.iter().flatten().cloned().collect();
        let header = BundleHeader { prerequisites: Vec::new(), refs: vec![(TIP_REF.to_owned(), making.tips[0])] };
        let pack = making.forge.seal(0);
        let quarantined = quarantine::receive(dir.path(), header, &mut &pack[..], &open(), &LIMITS).expect("good");
        let verified = quarantined.verify(&open()).expect("good");
        verified.admit(&dir.path().join("objects/pack")).expect("admitted");
        let objects = open();
        Self { dir, objects, base }
    }

    fn packs(&self) -> PathBuf {
        self.dir.path().join("objects/pack")
    }

    fn receive(&self, header: BundleHeader, pack: &[u8]) -> Result<Admitted, StoreError> {
        let quarantined = quarantine::receive(self.dir.path(), header, &mut &pack[..], &self.objects, &LIMITS)?;
        let verified = quarantined.verify(&self.objects)?;
        assert!(verified.objects() <= u64::from(LIMITS.objects) + self.base.len() as u64);
        let announced = verified.commits().to_vec();
        let admitted = verified.admit(&self.packs())?;
        assert_eq!(admitted.commits, announced);
        Ok(admitted)
    }

    /// Whatever was let in is complete, and can be read by whoever works with it.
    fn check(&self, admitted: &Admitted, sent: usize) {
        let borrowed: usize = self.base.iter().map(|(_, content)| content.len() + 64).sum();
        assert!(admitted.bytes <= (sent + borrowed) as u64, "it takes the room that it was sent with");
        let objects = Objects::open(&self.dir.path().join("objects")).expect("it can be opened");
        for tip in &admitted.tips {
            objects.commit(*tip).expect("a tip is a commit");
        }
        for (at, id) in admitted.commits.iter().enumerate() {
            let commit = objects.commit(*id).expect("a commit can be read");
            for parent in &commit.parents {
                assert!(!admitted.commits[at..].contains(parent), "parents come first");
                objects.commit(*parent).expect("a parent is there");
            }
            Self::walk(&objects, commit.tree);
        }
    }

    fn walk(objects: &Objects, root: TreeId) {
        let mut paths = 0;
        let walked = tree::leaves(objects, root, &mut |path, entry| {
            assert!(entry.kind == Kind::EmptyFolder || objects.exists(&entry.id), "{path} is there");
            paths += 1;
            if paths < PATHS { Ok(()) } else { Err(StoreError::TooLarge { what: String::new(), limit: 0 }) }
        });
        assert!(walked.is_ok() || paths == PATHS, "{walked:?}");
    }
}

thread_local! {
    static REPO: RefCell<Repo> = RefCell::new(Repo::new());
}

/// A script for a pack. Its first byte says what is wrong with the pack as a whole.
pub fn quarantine(data: &[u8]) {
    REPO.with_borrow_mut(|repo| {
        let mut script = Script(data);
        let flags = script.byte();
        let mut making = Making::new();
        while !script.0.is_empty() && making.entries.len() < LIMITS.objects as usize + 2 {
            making.step(&mut script, &repo.base);
        }
        let mut prerequisites = Vec::new();
        if flags & 1 != 0 {
            prerequisites.extend(
                repo.base
                    .iter()
                    .filter(|(kind, _)| *kind == ObjectKind::Commit)
                    .map(|commit| id_of(commit).as_commit()),
            );
        }
        if making.tips.is_empty() {
            making.tips.push(CommitId::from_bytes([flags; 20]));
        }
        if flags & 32 != 0 {
            making.forge.reverse();
        }
        let name = |n| if n == 0 { TIP_REF.to_owned() } else { format!("{PART_REF}{n}") };
        let refs =
            making.tips.iter().take(1 + usize::from(flags >> 6)).enumerate().map(|(n, tip)| (name(n), *tip)).collect();
        let mut pack = making.forge.seal(u32::from(flags & 2 != 0));
        if flags & 4 != 0 {
            pack.push(flags);
        }
        if flags & 8 != 0 {
            let at = pack.len() - usize::try_from(TRAILER_LEN).expect("small");
            pack[at] ^= 1;
        }
        if flags & 16 != 0 {
            pack.truncate(
                pack.len().saturating_sub(usize::from(flags)).max(usize::try_from(HEADER_LEN).expect("small")),
            );
        }
        let before = files(&repo.packs());
        match repo.receive(BundleHeader { prerequisites, refs }, &pack) {
            Ok(admitted) => {
                assert_eq!(flags & 0b1110, 0, "a pack whose frame is wrong is not let in");
                repo.check(&admitted, pack.len());
                for file in files(&repo.packs()).into_iter().filter(|file| !before.contains(file)) {
                    fs::remove_file(file).expect("removable");
                }
                repo.objects = Objects::open(&repo.dir.path().join("objects")).expect("it can be opened");
            }
            Err(_) => assert_eq!(files(&repo.packs()), before, "what is refused leaves nothing"),
        }
        assert_eq!(files(repo.dir.path()).len(), 1, "nothing is left in quarantine");
    });
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}
