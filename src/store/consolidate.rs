//! Gathering: many small packs become one, loose objects become a pack.
//!
//! Entries are copied as they lie. Ordered packs (see [`super::pack`]) are gathered apart from others, in the order in
//! which they came, so that the new one is ordered again; an object that several have is kept in the first. Where that
//! takes it from a commit that does not follow the one which keeps it, the new pack is an ordinary one.
//!
//! Deltas whose bases were in other packs find them in the same now, and the copies of these are left out. So that no
//! chain grows with each gathering, what would stand on too many is written whole.
//!
//! # After a crash
//!
//! The new pack is durable and visible before the first old one is removed, and of an old one the index goes before the
//! pack: at every moment each object is in a pack that is there entirely. What a kill leaves is an object twice. Packs
//! with a `.keep` beside them are left alone, and everything is where a multi-pack-index ties packs together.
//! Whoever has an old pack open keeps it until the next miss.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::durable;
use super::durable::sync_dir;
use super::error::StoreError;
use super::objects::{ObjectKind, Objects, object_id};
use super::pack::entry::{EntryKind, write_header};
use super::pack::reader::marker;
use super::pack::writer::Order;
use super::pack::{MAX_CHAIN, Pack, PackWriter, Packs, max_joined_chain};
use crate::id::ObjectId;
use crate::monitor::{Monitor, Stage};

/// What was gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gathered {
    /// How many packs (or loose objects) there were.
    pub before: u64,
    /// How many packs there are in their place.
    pub after: u64,
    /// The objects in these.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Each pack is at least so many times as large as all smaller, younger ones together; those that are not are gathered.
const RATIO: u64 = 2;
/// A pack stands alone, whatever comes after it, with so many bytes and this share of all: there are few of those, and
/// copying one again and again would cost more than it ever brought.
const ALONE: u64 = 256 << 20;
const ALONE_SHARE: u64 = 64;
/// Loose objects with more bytes than this, as they lie, are not held in memory.
const STREAM_ABOVE: u64 = 1 << 20;

/// Gathers the packs that are too small to stand alone, if there are two at least and `is_due` says so of them.
pub fn gather_packs(
    objects: &Objects,
    pack_dir: &Path,
    is_due: &dyn Fn(&[&Pack]) -> bool,
    monitor: &dyn Monitor,
) -> Result<Gathered, StoreError> {
    let mut gathered = Gathered::default();
    if pack_dir.join("multi-pack-index").exists() {
        return Ok(gathered);
    }
    let packs = Packs::open(pack_dir)?;
    let free =
        |pack: &&Pack| ["keep", "promisor", "mtimes"].iter().all(|ending| !pack.path().with_extension(ending).exists());
    let (ordered, mut others): (Vec<_>, Vec<_>) =
        packs.all().iter().filter(free).partition(|pack| pack.sequence().is_some());
    others.sort_by_key(|pack| std::cmp::Reverse(pack.bytes()));
    let all = packs.all().iter().map(Pack::bytes).sum();
    for group in [ordered, others] {
        let sizes: Vec<u64> = group.iter().map(|pack| pack.bytes()).collect();
        for small in too_small(&sizes, all) {
            let small = &group[small];
            if small.len() < 2 || !is_due(small) {
                continue;
            }
            monitor.begin(Stage::Gather, Some(small.iter().map(|pack| u64::from(pack.objects())).sum()));
            let finished = Gathering::new(objects, pack_dir, small, monitor)?.run()?;
            monitor.end(Stage::Gather);
            gathered.before += small.len() as u64;
            gathered.after += 1;
            gathered.objects += finished.objects;
            gathered.bytes += finished.bytes;
            for pack in small {
                if pack.path().file_stem().is_none_or(|name| name.to_str() != Some(&finished.name)) {
                    remove(pack.path())?;
                }
            }
        }
    }
    if gathered.after > 0 {
        sweep_markers(pack_dir)?;
        sync_dir(pack_dir)?;
    }
    Ok(gathered)
}

/// Of packs with these sizes, the oldest first, those that are too small to stand alone: between each two that do, the
/// youngest. `all` is the size of all packs there are.
fn too_small(sizes: &[u64], all: u64) -> Vec<Range<usize>> {
    let alone = ALONE.max(all / ALONE_SHARE);
    let mut ranges = Vec::new();
    let mut end = sizes.len();
    for group in sizes.rsplit(|&bytes| bytes >= alone) {
        let (mut from, mut younger) = (end, 0);
        for (at, bytes) in (end - group.len()..end).zip(group).rev() {
            if *bytes < RATIO * younger {
                from = at;
            }
            younger += bytes;
        }
        ranges.push(from..end);
        end = (end - group.len()).saturating_sub(1);
    }
    ranges
}

struct Gathering<'a> {
    objects: &'a Objects,
    packs: &'a [&'a Pack],
    writer: PackWriter,
    monitor: &'a dyn Monitor,
    /// Whole objects that stand behind all commits of their packs, and that deltas before them need.
    promised: HashMap<ObjectId, (usize, u32)>,
    /// For each entry of the new pack, the stretch of successive commits whose run it is in.
    stretches: Vec<(u64, u32)>,
    stretch: u32,
    ordered: bool,
}

impl<'a> Gathering<'a> {
    fn new(
        objects: &'a Objects,
        pack_dir: &Path,
        packs: &'a [&'a Pack],
        monitor: &'a dyn Monitor,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            objects,
            packs,
            writer: PackWriter::create(pack_dir)?,
            monitor,
            promised: HashMap::new(),
            stretches: Vec::new(),
            stretch: 0,
            ordered: packs.iter().all(|pack| pack.sequence().is_some()),
        })
    }

    fn run(mut self) -> Result<super::pack::Finished, StoreError> {
        let packs = self.packs;
        let mut tails = Vec::with_capacity(packs.len());
        let mut last = None;
        for (at, pack) in packs.iter().enumerate() {
            let tail = pack.commit_before(pack.objects())?.map_or(0, |last| last + 1);
            tails.push(tail);
            let mut next = 0;
            while next < tail {
                let commit = pack.commit_from(next)?.unwrap_or(tail - 1);
                if self.ordered {
                    let follows = match last {
                        Some(last) => pack.links(commit)?.parents.contains(&last),
                        None => true,
                    };
                    last = Some(pack.id(commit).as_commit());
                    if !follows {
                        self.stretch += 1;
                        self.stretches.push((self.writer.bytes(), self.stretch));
                    }
                }
                for position in next..=commit {
                    self.copy(at, position, false)?;
                }
                next = commit + 1;
            }
        }
        for (at, tail) in tails.into_iter().enumerate() {
            for position in tail..packs[at].objects() {
                self.copy(at, position, true)?;
            }
        }
        let sequence = packs.iter().filter_map(|pack| pack.sequence()).max();
        let order = sequence.filter(|_| self.ordered).map_or(Order::None, Order::At);
        let finished = self.writer.finish_as(order)?;
        finished.ok_or_else(|| StoreError::damaged("the packs", "there is no object in any of them"))
    }

    /// Copies an entry; what is in the new pack already is passed over.
    fn copy(&mut self, at: usize, position: u32, in_tail: bool) -> Result<(), StoreError> {
        let pack = self.packs[at];
        self.monitor.advance(Stage::Gather, 1, 0);
        let id = pack.id(position);
        if let Some(placed) = self.writer.find(&id) {
            // Every entry before the first stretch that is noted belongs to stretch 0.
            let stretch = self.stretches.partition_point(|&(from, _)| from <= placed.offset);
            let stretch = stretch.checked_sub(1).map_or(0, |stretch| self.stretches[stretch].1);
            self.ordered &= in_tail || stretch == self.stretch;
            return Ok(());
        }
        let (source, entry) = match self.promised.remove(&id) {
            // Deltas stand on it already: a delta in its place could stand on one of them.
            Some((at, position)) => (self.packs[at], self.packs[at].sound_entry(position)?),
            None => (pack, pack.sound_entry(position)?),
        };
        let (kind, chain) = match (entry.header.kind, pack.base(&entry)) {
            (EntryKind::Whole(kind), _) => (EntryKind::Whole(kind), 0),
            (_, base) => {
                let base = base?.ok_or_else(|| StoreError::damaged("a pack", "a delta in it has no base"))?;
                let base_id = pack.id(base);
                let placed = self.writer.find(&base_id);
                let longest = match placed {
                    Some(placed) if placed.chain >= MAX_CHAIN => max_joined_chain(pack.kind(position)?),
                    _ => MAX_CHAIN,
                };
                if let Some(placed) = placed.filter(|placed| placed.chain < longest) {
                    (EntryKind::OffsetDelta(self.writer.bytes() - placed.offset), placed.chain + 1)
                } else if placed.is_none() && matches!(pack.entry(base)?.header.kind, EntryKind::Whole(_)) {
                    self.promised.entry(base_id).or_insert((at, base));
                    (EntryKind::IdDelta(base_id), 1)
                } else {
                    let mut content = Vec::new();
                    let kind = self.objects.try_read(&id, &mut content)?.ok_or(StoreError::Missing { id })?;
                    self.writer.put_known(kind, id, &content)?;
                    return Ok(());
                }
            }
        };
        let mut header = Vec::new();
        write_header(&mut header, kind, entry.header.size);
        self.writer.put_raw(id, &header, chain, &mut |put| source.deflated(&entry, put))?;
        Ok(())
    }
}

/// Removes a pack: first its index, so that nobody finds it, then the rest.
fn remove(pack: &Path) -> Result<(), StoreError> {
    for ending in ["idx", "pack", "rev", "bitmap"] {
        durable::remove(&pack.with_extension(ending))?;
    }
    Ok(())
}

/// Removes the markers that have no pack.
fn sweep_markers(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let path = entry.map_err(StoreError::io("list", dir))?.path();
        let pack = path.file_name().and_then(|name| name.to_str()).and_then(marker).map(|(pack, _)| pack);
        if let Some(pack) = pack
            && !dir.join(format!("{pack}.pack")).exists()
        {
            durable::remove(&path)?;
        }
    }
    Ok(())
}

/// Gathers the loose objects below `objects_dir` into a pack, if there are at least `at_least`. One that is damaged is
/// left where it is.
pub fn gather_loose(objects_dir: &Path, at_least: usize, monitor: &dyn Monitor) -> Result<Gathered, StoreError> {
    let mut loose = Vec::new();
    for entry in fs::read_dir(objects_dir).map_err(StoreError::io("list", objects_dir))? {
        let folder = entry.map_err(StoreError::io("list", objects_dir))?;
        let Some(first) = folder.file_name().to_str().filter(|name| name.len() == 2).map(str::to_owned) else {
            continue;
        };
        let path = folder.path();
        for entry in fs::read_dir(&path).map_err(StoreError::io("list", &path))? {
            let name = entry.map_err(StoreError::io("list", &path))?.file_name();
            let id = name.to_str().and_then(|rest| format!("{first}{rest}").parse::<ObjectId>().ok());
            loose.extend(id.map(|id| (id, path.join(name))));
        }
    }
    if loose.len() < at_least.max(1) {
        return Ok(Gathered::default());
    }
    monitor.begin(Stage::Gather, Some(loose.len() as u64));
    loose.sort_unstable();
    let pack_dir = objects_dir.join("pack");
    let mut writer = PackWriter::create(&pack_dir)?;
    let mut done: Vec<PathBuf> = Vec::new();
    for (id, path) in loose {
        if put_loose(&mut writer, id, &path)? {
            done.push(path);
        } else {
            monitor.notice(&format!("The object {id} is damaged and was left where it is"));
        }
        monitor.advance(Stage::Gather, 1, 0);
    }
    monitor.end(Stage::Gather);
    let Some(finished) = writer.finish_as(Order::None)? else { return Ok(Gathered::default()) };
    for path in &done {
        durable::remove(path)?;
    }
    Ok(Gathered { before: done.len() as u64, after: 1, objects: finished.objects, bytes: finished.bytes })
}

/// Puts a loose object into a pack; answers whether it is what its name says.
fn put_loose(writer: &mut PackWriter, id: ObjectId, path: &Path) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let on_disk = file.metadata().map_err(StoreError::io("read", path))?.len();
    let mut from = BufReader::new(flate2::read::ZlibDecoder::new(file));
    let mut header = Vec::new();
    if (&mut from).take(64).read_until(0, &mut header).is_err() || header.pop() != Some(0) {
        return Ok(false);
    }
    let header = String::from_utf8_lossy(&header).into_owned();
    let Some((word, size)) = header.split_once(' ') else { return Ok(false) };
    let kinds = [ObjectKind::Commit, ObjectKind::Tree, ObjectKind::Blob];
    let (Some(kind), Ok(size)) = (kinds.into_iter().find(|kind| kind.word() == word), size.parse::<u64>()) else {
        return Ok(false);
    };
    if kind == ObjectKind::Blob && on_disk.max(size) > STREAM_ABOVE {
        let before = writer.bytes();
        return match writer.stream_blob(size, &mut from) {
            Ok(found) => Ok(found == Some(id)),
            Err(StoreError::Io { what: "read", .. }) => {
                debug_assert!(writer.bytes() == before, "what cannot be read is taken back");
                Ok(false)
            }
            Err(error) => Err(error),
        };
    }
    let mut content = Vec::new();
    if from.take(size + 1).read_to_end(&mut content).is_err() || content.len() as u64 != size {
        return Ok(false);
    }
    if object_id(kind, &content) != id {
        return Ok(false);
    }
    writer.put_known(kind, id, &content)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{Recording, Silent};
    use crate::store::bundle::BundleOptions;
    use crate::store::bundle::tests::{Repo, files};

    fn names(dir: &Path, ending: &str) -> usize {
        let names = fs::read_dir(dir).expect("readable").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.ends_with(ending)).count()
    }

    fn many_bursts(repo: &mut Repo) {
        for n in 0..12 {
            repo.burst(&files(n * 3..n * 3 + 5, "content"));
            repo.burst(&files(n..n + 2, "other"));
            // As it was before: the content is captured once more.
            repo.burst(&files(n..n + 1, "content"));
        }
    }

    #[test]
    fn small_packs_become_one_that_is_ordered_again() {
        let mut repo = Repo::new();
        many_bursts(&mut repo);
        let (head, log) = (repo.head(), repo.git(&["rev-list", "--objects", "main"]));
        let reader = repo.objects.clone();
        let monitor = Recording::default();
        let gathered =
            gather_packs(&repo.objects, &repo.packs, &|small| small.len() >= 16, &monitor).expect("gathered");
        assert_eq!((gathered.before, gathered.after), (36, 1));
        assert!(monitor.items(Stage::Gather) > gathered.objects, "some objects were there twice");
        for ending in [".pack", ".idx", ".ordered"] {
            assert_eq!(names(&repo.packs, ending), 1, "{ending}");
        }
        repo.fsck();
        assert_eq!((repo.head(), repo.git(&["rev-list", "--objects", "main"])), (head, log));
        assert!(reader.commit(head.expect("a head")).is_ok(), "a handle from before reads on");
        let to = Repo::new();
        for (_, bundle) in repo.send(None, BundleOptions { limit: 3000, ..BundleOptions::default() }) {
            to.set("refs/heads/main", to.receive(&bundle).expect("admitted").tips[0]);
        }
        to.fsck();
        assert_eq!(to.head(), head);
        // The next burst comes behind.
        repo.burst(&files(0..1, "later"));
        let packs = Packs::open(&repo.packs).expect("opened");
        assert_eq!(packs.all().iter().map(Pack::sequence).collect::<Vec<_>>(), [Some(36), Some(37)]);
    }

    #[test]
    fn what_completed_thin_packs_is_dropped() {
        let (mut from, to) = (Repo::new(), Repo::new());
        for n in 0..10 {
            let had = from.head();
            from.burst(&files(0..40, &format!("version {n}")));
            let options = BundleOptions { thorough: n % 2 == 0, ..BundleOptions::default() };
            for (_, bundle) in from.send(had, options) {
                to.set("refs/heads/main", to.receive(&bundle).expect("admitted").tips[0]);
            }
        }
        let gathered = gather_packs(&to.objects, &to.packs, &|_| true, &Silent).expect("gathered");
        let objects = to.git(&["rev-list", "--objects", "main"]).lines().count() as u64;
        assert_eq!((gathered.after, gathered.objects), (1, objects));
        to.fsck();
        assert_eq!(names(&to.packs, ".ordered"), 1);
    }

    #[test]
    fn few_or_kept_packs_are_left_alone() {
        let mut repo = Repo::new();
        many_bursts(&mut repo);
        let count = names(&repo.packs, ".pack");
        assert_eq!(
            gather_packs(&repo.objects, &repo.packs, &|small| small.len() >= 100, &Silent).expect("looked"),
            Gathered::default()
        );
        for entry in fs::read_dir(&repo.packs).expect("readable") {
            fs::write(entry.expect("an entry").path().with_extension("keep"), "").expect("written");
        }
        assert_eq!(gather_packs(&repo.objects, &repo.packs, &|_| true, &Silent).expect("looked"), Gathered::default());
        assert_eq!(names(&repo.packs, ".pack"), count);
    }

    #[test]
    fn packs_that_stand_alone_part_the_others() {
        let mib = |sizes: &[u64]| sizes.iter().map(|size| size << 20).collect::<Vec<_>>();
        let of = |sizes: &[u64]| too_small(&mib(sizes), mib(sizes).iter().sum());
        assert_eq!(of(&[]), vec![0..0]);
        assert_eq!(of(&[200, 40, 10, 10, 10]), vec![1..5]);
        assert_eq!(of(&[255, 255]), vec![0..2]);
        assert_eq!(of(&[5, 5, 256, 256, 7, 3, 3]), vec![4..7, 3..3, 0..2]);
        // Of much, what stands alone is more: at most as many of that as the share says.
        let mut much = vec![1000; 70];
        assert_eq!(of(&much), vec![0..70]);
        much[0] = 3000;
        much.push(1);
        assert_eq!(of(&much), vec![1..71, 0..0]);
    }

    #[test]
    fn a_large_pack_is_not_copied_for_a_few_small_ones() {
        let mut repo = Repo::new();
        repo.burst(&files(0..500, "much"));
        for n in 0..5 {
            repo.burst(&files(n..n + 1, "little"));
        }
        let gathered = gather_packs(&repo.objects, &repo.packs, &|_| true, &Silent).expect("gathered");
        assert_eq!((gathered.before, names(&repo.packs, ".pack")), (5, 2));
        repo.fsck();
    }

    #[test]
    fn a_damaged_pack_is_told_and_nothing_is_removed() {
        let mut repo = Repo::new();
        many_bursts(&mut repo);
        let packs = Packs::open(&repo.packs).expect("opened");
        let path = packs.all()[3].path().to_owned();
        let mut bytes = fs::read(&path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::remove_file(&path).expect("removed");
        fs::write(&path, bytes).expect("written");
        let (before, litter) = (names(&repo.packs, ".pack"), names(&repo.packs, ""));
        let error = gather_packs(&repo.objects, &repo.packs, &|_| true, &Silent).expect_err("damage");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!((names(&repo.packs, ".pack"), names(&repo.packs, "")), (before, litter));
    }

    #[test]
    fn loose_objects_become_a_pack_and_damaged_ones_stay() {
        let repo = Repo::new();
        let objects_dir = repo.packs.join("..");
        let large = "large ".repeat(300_000);
        let file = repo.packs.join("../../large");
        fs::write(&file, &large).expect("written");
        let large_id = repo.git(&["hash-object", "-w", "large"]);
        let tree = repo.git(&["write-tree"]);
        let commit = repo.git(&["commit-tree", "-m", "x", &tree]);
        repo.set("refs/heads/main", commit.parse().expect("an id"));
        fs::write(&file, "small").expect("written");
        let damaged = repo.git(&["hash-object", "-w", "large"]);
        let path = objects_dir.join(&damaged[..2]).join(&damaged[2..]);
        let mut bytes = fs::read(&path).expect("read");
        bytes.truncate(bytes.len() - 6);
        fs::remove_file(&path).expect("removed");
        fs::write(&path, bytes).expect("written");

        let monitor = Recording::default();
        let gathered = gather_loose(&objects_dir, 1, &monitor).expect("gathered");
        assert_eq!((gathered.objects, monitor.notices().len()), (gathered.before, 1));
        assert!(path.exists());
        assert_eq!(repo.git(&["cat-file", "-s", &large_id]), large.len().to_string());
        fs::remove_file(path).expect("removed");
        repo.fsck();
        assert_eq!(gather_loose(&objects_dir, 1, &Silent).expect("looked"), Gathered::default());
    }

    #[test]
    fn git_gathers_our_packs_without_a_complaint() {
        let mut repo = Repo::new();
        many_bursts(&mut repo);
        let head = repo.head();
        repo.git(&["gc", "-q"]);
        repo.fsck();
        assert_eq!((repo.head(), names(&repo.packs, ".pack")), (head, 1));
        assert!(names(&repo.packs, ".ordered") > 1, "markers without a pack");
        for n in 0..3 {
            repo.burst(&files(n..n + 1, "little"));
        }
        gather_packs(&repo.objects, &repo.packs, &|_| true, &Silent).expect("gathered");
        assert_eq!(names(&repo.packs, ".ordered"), 1);
        repo.fsck();
    }
}
