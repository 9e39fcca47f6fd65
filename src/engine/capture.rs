//! Capture: what changed on disk becomes one commit a path.
//!
//! Files are read once, by several threads, hashed and deflated on the way; their results are taken in order, so the
//! commits are the same whatever the threads do. A file that changes while it is read is read again, and left for the
//! next time if it does not come to rest. After a kill before the refs move, nothing has happened; after it, the table
//! may be behind, and the next capture reads the files again and finds their content recorded.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use crate::change::{Change, Edit};
use crate::clock::Timestamp;
use crate::engine::checkout::holds;
use crate::engine::error::EngineError;
use crate::engine::folder::{Folder, Work};
use crate::engine::order::{commit_order, in_the_way};
use crate::engine::report::{CaptureReport, LeftOut};
use crate::entry::{Entry, Fingerprint, Kind};
use crate::id::{CommitId, ObjectId};
use crate::message::Message;
use crate::monitor::Stage;
use crate::path::SyncPath;
use crate::store::Wait;
use crate::store::burst::{Burst, NewCommit};
use crate::store::large::{self, recipe};
use crate::store::pack::{PackedBlob, Packer};
use crate::store::tree::{self, At};
use crate::store::{ObjectKind, Objects, StoreError, object_id};
use crate::table::TableEdit;
use crate::worktree::{OpenLeaf, Root, Scan, ScanOptions, Why, WorktreeError};

/// Contents up to this many bytes are read whole by a worker; larger ones are streamed, one at a time.
const IN_MEMORY: u64 = 4 << 20;
/// The same where there is something that they could be told as changes of, if that is what comes of it.
const CHANGED_IN_MEMORY: u64 = 8 << 20;
/// Changed contents with more bytes are made ready one at a time: with what they replace and its index, they need more
/// than twice their size.
const ONE_AT_A_TIME: u64 = 1 << 20;
/// What a worker reads at a time: so many files at most, and so many bytes unless it is one file. Handing them on one by
/// one would cost more than reading them.
const BLOCK_FILES: usize = 32;
const BLOCK_BYTES: u64 = 256 << 10;
/// Blocks that a worker may be ahead of the commits.
const AHEAD: usize = 2;
/// How often a file that changes while it is read is tried again, and how long is waited in between.
const RETRIES: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// How long is waited at a time for a file system's clock.
const TICK: Duration = Duration::from_millis(4);

impl Folder {
    /// Captures what changed: everything, or just these paths and what lies below them.
    pub fn capture(&self, paths: &[SyncPath]) -> Result<CaptureReport, EngineError> {
        self.capture_when_free(paths, Wait::No)
    }

    /// Captures what changed, once nobody else is at work in the folder.
    pub fn capture_when_free(&self, paths: &[SyncPath], wait: Wait) -> Result<CaptureReport, EngineError> {
        let mut work = self.begin("commit", wait)?;
        let mut report = work.capture(paths)?;
        work.gather_if_due()?;
        report.left_out.append(&mut work.left_out);
        work.finish()?;
        Ok(report)
    }
}

/// Something on disk that may have to be captured.
pub(crate) struct Candidate {
    pub(crate) path: SyncPath,
    /// What the last applied state has there.
    pub(crate) base: Option<Entry>,
    /// What is there on disk, if anything.
    pub(crate) found: Option<Kind>,
    /// Its bytes, as far as is known.
    pub(crate) size: u64,
}

/// What reading a candidate gave.
struct Reading {
    entry: Entry,
    /// What to record: nothing that ever matches, if the file was written a moment ago and may be written again in
    /// the same tick of the file system's clock.
    fingerprint: Fingerprint,
    mtime: Timestamp,
    size: u64,
    /// The content, where it is new and was read whole.
    blob: Option<PackedBlob>,
}

enum Outcome<'root> {
    Read(Box<Reading>),
    /// To be streamed by the one who writes.
    Large(OpenLeaf<'root>),
    /// There is nothing any more.
    Gone,
    LeftOut(String),
}

impl Work<'_> {
    /// Captures what changed below `paths` (everything where there are none), as commits on what was last applied.
    pub(crate) fn capture(&mut self, paths: &[SyncPath]) -> Result<CaptureReport, EngineError> {
        let scan = self.scan(paths)?;
        let mut report = CaptureReport { scanned: scan.stats.files, head: self.head, ..CaptureReport::default() };
        if paths.is_empty() {
            self.exclude_nested(&scan)?;
        }
        self.left_out.extend(scan.left_out.iter().map(LeftOut::from));
        let candidates = self.candidates(scan)?;
        self.commit_candidates(candidates, &mut report)?;
        self.table_lacks &= !paths.is_empty();
        self.save_table()?;
        report.head = self.head;
        Ok(report)
    }

    /// Looks at the disk.
    pub(crate) fn scan(&self, paths: &[SyncPath]) -> Result<Scan, EngineError> {
        let cx = &self.folder.cx;
        let options =
            ScanOptions { threads: cx.threads, only: paths.to_vec(), exclude: self.folder.store.own_excludes()? };
        let scan = crate::worktree::scan(&self.root, &self.table, &options, &*cx.monitor)?;
        Ok(scan)
    }

    /// Pairs what was found with what the last applied state has there.
    fn candidates(&self, scan: Scan) -> Result<Vec<Candidate>, EngineError> {
        let paths: Vec<&SyncPath> = scan.found.iter().map(|found| &found.path).collect();
        let bases = match self.applied {
            Some(applied) => tree::lookup_many(&self.objects, self.tree_of(Some(applied))?, &paths)?,
            None => vec![At::Nothing; paths.len()],
        };
        Ok(scan
            .found
            .into_iter()
            .zip(bases)
            .map(|(found, base)| Candidate {
                found: found.what.kind(),
                size: found.what.size(),
                path: found.path,
                base: base.leaf(),
            })
            .collect())
    }

    /// Reads candidates and commits what differs from the last applied state.
    pub(crate) fn commit_candidates(
        &mut self,
        candidates: Vec<Candidate>,
        report: &mut CaptureReport,
    ) -> Result<(), EngineError> {
        if candidates.is_empty() {
            return Ok(());
        }
        // The order needs to know what arrives and what leaves, not yet with which content.
        let unknown = |kind| match kind {
            Kind::EmptyFolder => Entry::EMPTY_FOLDER,
            kind => Entry { kind, id: ObjectId::from_bytes([0; 20]) },
        };
        let known: HashMap<SyncPath, Known> = candidates
            .iter()
            .map(|candidate| (candidate.path.clone(), Known { base: candidate.base, size: candidate.size }))
            .collect();
        let mut edits: Vec<TableEdit> = Vec::new();
        let mut changes = Vec::new();
        for candidate in candidates {
            if let Some(kind) = candidate.found {
                changes.push(Change { path: candidate.path, old: candidate.base, new: Some(unknown(kind)) });
            } else {
                edits.push(TableEdit { path: candidate.path.clone(), row: None });
                if candidate.base.is_some() {
                    changes.push(Change { path: candidate.path, old: candidate.base, new: None });
                }
            }
        }
        for in_the_way in self.make_way(&mut changes)? {
            edits.push(TableEdit { path: in_the_way.path.clone(), row: None });
            changes.push(in_the_way);
        }
        let changes = commit_order(changes);
        let mut leaving = Leaving::new(changes.iter().filter(|change| change.new.is_none()), &self.table);

        let cx = self.folder.cx.clone();
        cx.monitor.begin(Stage::Capture, Some(changes.len() as u64));
        let now = self.now();
        let parent = self.applied;
        let mut burst =
            Burst::begin(self.objects.clone(), &self.folder.store.pack_dir(), self.tree_of(parent)?, parent)?;
        let known = |path: &SyncPath| known.get(path).copied().unwrap_or_default();
        let large_from = self.folder.large_from;
        let files = Files { root: &self.root, known: &known, large_from };
        let source = Source { files, objects: &self.objects, threads: cx.threads };
        let committer = self.folder.signature(now.secs);
        let mut left_out = Vec::new();

        let objects = changes
            .iter()
            .any(|change| change.new.is_some() && change.old.as_ref().is_some_and(is_file))
            .then_some(&self.objects);
        read_in_order(&files, &changes, cx.threads, objects, |change, outcome| -> Result<(), EngineError> {
            let mut change = change.clone();
            let mut blob = None;
            let mut mtime = None;
            match outcome {
                Some(Outcome::Gone) => return Ok(()), // The next capture tells.
                Some(Outcome::LeftOut(why)) => {
                    left_out.push(LeftOut { path: change.path.to_string(), why });
                    return Ok(());
                }
                Some(Outcome::Large(leaf)) => match stream(&source, &mut burst, &change, leaf)? {
                    Ok(reading) => {
                        change.new = Some(reading.entry);
                        mtime = Some(reading.mtime);
                        report.bytes += reading.size;
                        cx.monitor.advance(Stage::Capture, 0, reading.size);
                        edits.push(TableEdit {
                            path: change.path.clone(),
                            row: Some((reading.entry, reading.fingerprint)),
                        });
                        blob = reading.blob;
                    }
                    Err(why) => {
                        left_out.push(LeftOut { path: change.path.to_string(), why });
                        return Ok(());
                    }
                },
                Some(Outcome::Read(reading)) => {
                    change.new = Some(reading.entry);
                    mtime = Some(reading.mtime);
                    report.bytes += reading.size;
                    cx.monitor.advance(Stage::Capture, 0, reading.size);
                    edits
                        .push(TableEdit { path: change.path.clone(), row: Some((reading.entry, reading.fingerprint)) });
                    blob = reading.blob;
                }
                None => {} // A deletion.
            }
            cx.monitor.advance(Stage::Capture, 1, 0);
            if change.new == change.old {
                return Ok(());
            }
            let mut message = Message::about(change.verb(), &change.path);
            message.mtime = mtime;
            match change.new {
                Some(entry) if change.old.is_none() => {
                    message.renamed_from = leaving.take(&change.path, entry, edits.last());
                }
                None => message.renamed_to = leaving.went_to(&change.path),
                _ => {}
            }
            if message.renamed_from.is_some() {
                blob = None; // What leaves has brought the content.
            }
            let author =
                crate::store::Signature { time: mtime.map_or(now.secs, |mtime| mtime.secs), ..committer.clone() };
            let pushed = burst.push(NewCommit {
                edit: Edit { path: change.path.clone(), entry: change.new },
                blob,
                author,
                committer: committer.clone(),
                message: message.to_bytes(),
            })?;
            if pushed {
                report.count(&change);
            }
            Ok(())
        })?;
        let done = burst.finish()?;
        cx.monitor.end(Stage::Capture);
        self.left_out.append(&mut left_out);
        if let Some(done) = done {
            self.folder.store.keep_chunks(&done.chunks)?;
            self.advance(done.head)?;
        }
        self.record(edits);
        Ok(())
    }

    /// What the last applied state has in the place of what arrives and is not told of. It is no longer there, though it
    /// may be ignored, or the folder was changed while it was looked at. Of two things that arrive and cannot both be
    /// there, the one below is left for the next time.
    fn make_way(&self, changes: &mut Vec<Change>) -> Result<Vec<Change>, EngineError> {
        let Some(applied) = self.applied else { return Ok(Vec::new()) };
        let is_file = |change: &&Change| change.new.is_some_and(|entry| entry.kind != Kind::EmptyFolder);
        let files: HashSet<SyncPath> = changes.iter().filter(is_file).map(|change| change.path.clone()).collect();
        changes.retain(|change| change.new.is_none() || !change.path.ancestors().any(|above| files.contains(&above)));
        Ok(in_the_way(&self.objects, self.tree_of(Some(applied))?, changes.iter())?)
    }

    /// What was just committed on top of what was last applied is what the disk holds; `main` follows, merged if it
    /// had run ahead.
    pub(crate) fn advance(&mut self, captured: CommitId) -> Result<(), EngineError> {
        let head = match self.head {
            Some(head) if Some(head) != self.applied => self.merge(&[head, captured])?,
            _ => captured,
        };
        self.move_refs(Some(head), Some(captured), Vec::new())
    }

    /// Keeps plain `git status` from showing nested repositories, which are left out as a whole.
    fn exclude_nested(&self, scan: &Scan) -> Result<(), EngineError> {
        let nested = scan.left_out.iter().filter(|left_out| left_out.why == Why::NestedRepository);
        let patterns: Vec<Vec<u8>> = nested.map(|left_out| exclude_pattern(&left_out.path)).collect();
        Ok(self.folder.store.set_managed_excludes(&patterns)?)
    }
}

/// The pattern of an ignore file that matches just this folder.
fn exclude_pattern(path: &[u8]) -> Vec<u8> {
    let mut pattern = vec![b'/'];
    for &byte in path {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'/');
    pattern
}

/// Files that leave, by content, so that additions can be told to be renames.
struct Leaving {
    by_content: HashMap<ObjectId, Vec<(SyncPath, Fingerprint)>>,
    went_to: HashMap<SyncPath, SyncPath>,
}

impl Leaving {
    fn new<'a>(deletions: impl Iterator<Item = &'a Change>, table: &crate::table::DiskTable) -> Self {
        let mut by_content: HashMap<ObjectId, Vec<(SyncPath, Fingerprint)>> = HashMap::new();
        for deletion in deletions {
            if let Some(old) = deletion.old.filter(|old| old.kind != Kind::EmptyFolder && old.id != EMPTY_BLOB) {
                let fingerprint = table.get(deletion.path.as_bytes()).map(|row| row.fingerprint).unwrap_or_default();
                by_content.entry(old.id).or_default().push((deletion.path.clone(), fingerprint));
            }
        }
        Self { by_content, went_to: HashMap::new() }
    }

    /// The path that was renamed to `path`, if one with the same content leaves: the same inode before the same name
    /// before any.
    fn take(&mut self, path: &SyncPath, entry: Entry, found: Option<&TableEdit>) -> Option<SyncPath> {
        let leaving = self.by_content.get_mut(&entry.id)?;
        let inode = found.and_then(|found| found.row).map(|(_, fingerprint)| (fingerprint.dev, fingerprint.ino));
        let same_inode = |(_, old): &(SyncPath, Fingerprint)| Some((old.dev, old.ino)) == inode && old.ino != 0;
        let same_name = |(old, _): &(SyncPath, Fingerprint)| old.file_name() == path.file_name();
        let at = leaving.iter().position(same_inode).or_else(|| leaving.iter().position(same_name)).unwrap_or(0);
        if leaving.is_empty() {
            return None;
        }
        let (old, _) = leaving.remove(at);
        self.went_to.insert(old.clone(), path.clone());
        Some(old)
    }

    fn went_to(&mut self, path: &SyncPath) -> Option<SyncPath> {
        self.went_to.remove(path)
    }
}

/// Git's empty blob, which says nothing of where a file came from.
const EMPTY_BLOB: ObjectId = ObjectId::from_bytes([
    0xe6, 0x9d, 0xe2, 0x9b, 0xb2, 0xd1, 0xd6, 0x43, 0x4b, 0x8b, 0x29, 0xae, 0x77, 0x5a, 0xd8, 0xc2, 0xe4, 0x8c, 0x53,
    0x91,
]);

/// What is known of a path before it is read.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// What the last applied state has there.
    base: Option<Entry>,
    /// Its bytes.
    size: u64,
}

/// Files to be read.
#[derive(Clone, Copy)]
struct Files<'a> {
    root: &'a Root,
    known: &'a (dyn Fn(&SyncPath) -> Known + Sync),
    /// Files with more bytes are kept in chunks.
    large_from: u64,
}

/// Where large files are read from, and with what.
struct Source<'a> {
    files: Files<'a>,
    objects: &'a Objects,
    threads: usize,
}

/// Where the changes are cut into what is read at a time.
fn blocks<'a>(changes: &'a [Change], size: &dyn Fn(&SyncPath) -> u64) -> Vec<&'a [Change]> {
    let (mut blocks, mut begin, mut bytes) = (Vec::new(), 0, 0_u64);
    for (at, change) in changes.iter().enumerate() {
        let size = size(&change.path);
        if at > begin && (at - begin == BLOCK_FILES || bytes.saturating_add(size) > BLOCK_BYTES) {
            blocks.push(&changes[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(size);
    }
    if begin < changes.len() {
        blocks.push(&changes[begin..]);
    }
    blocks
}

/// Reads what arrives on several threads and hands everything on in the order of `changes`. Each thread takes every
/// n-th block, and is never more than a few ahead, so that memory is bounded.
fn read_in_order<'a>(
    files: &Files<'a>,
    changes: &'a [Change],
    threads: usize,
    objects: Option<&Objects>,
    mut take: impl FnMut(&'a Change, Option<Outcome<'a>>) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let blocks = blocks(changes, &|path| (files.known)(path).size);
    let threads = threads.clamp(1, blocks.len().max(1));
    let heavy = &Mutex::new(());
    if changes.len() <= 2 {
        let mut packer = Packer::new(objects.cloned());
        return changes.iter().try_for_each(|change| take(change, read_change(files, change, &mut packer, heavy)));
    }
    std::thread::scope(|scope| {
        let queues: Vec<mpsc::Receiver<Vec<Option<Outcome<'a>>>>> = (0..threads)
            .map(|thread| {
                let (sender, receiver) = mpsc::sync_channel(AHEAD);
                let blocks = &blocks;
                let mut packer = Packer::new(objects.cloned());
                scope.spawn(move || {
                    for block in blocks.iter().skip(thread).step_by(threads) {
                        let read = block.iter().map(|change| read_change(files, change, &mut packer, heavy));
                        if sender.send(read.collect()).is_err() {
                            return; // The one who commits has failed.
                        }
                    }
                });
                receiver
            })
            .collect();
        for (block, queue) in blocks.iter().zip((0..threads).cycle()) {
            let outcomes = queues[queue].recv().expect("a thread hands on one outcome for each of its blocks");
            for (change, outcome) in block.iter().zip(outcomes) {
                take(change, outcome)?;
            }
        }
        Ok(())
    })
}

fn read_change<'root>(
    files: &Files<'root>,
    change: &Change,
    packer: &mut Packer,
    heavy: &Mutex<()>,
) -> Option<Outcome<'root>> {
    change.new?;
    let mut outcome = Outcome::Gone;
    for attempt in 0..=RETRIES {
        if attempt > 0 {
            std::thread::sleep(RETRY_PAUSE);
        }
        outcome = match read(files, &change.path, packer, heavy) {
            Ok(Some(outcome)) => return Some(outcome),
            Ok(None) => Outcome::LeftOut("changes while it is read; it is captured once it rests".to_owned()),
            Err(error) => return Some(Outcome::LeftOut(error.to_string())),
        };
    }
    Some(outcome)
}

/// Reads one path; `None` if it changed meanwhile.
fn read<'root>(
    files: &Files<'root>,
    path: &SyncPath,
    packer: &mut Packer,
    heavy: &Mutex<()>,
) -> Result<Option<Outcome<'root>>, WorktreeError> {
    let Files { root, large_from, .. } = *files;
    let known = (files.known)(path);
    let Some(mut leaf) = root.open_leaf(path)? else {
        return Ok(Some(match root.look(path)? {
            crate::worktree::OnDisk::Folder { .. } => Outcome::Read(Box::new(Reading {
                entry: Entry::EMPTY_FOLDER,
                fingerprint: Fingerprint::default(),
                mtime: Timestamp::default(),
                size: 0,
                blob: None,
            })),
            _ => Outcome::Gone,
        }));
    };
    // What has grown since it was looked at may not have its place in a block.
    let is_large = leaf.kind != Kind::Symlink && leaf.size > large_from;
    let previous = known.base.filter(is_file).map(|base| base.id);
    let in_memory = if previous.is_some() { CHANGED_IN_MEMORY } else { IN_MEMORY };
    if is_large || leaf.size > in_memory || leaf.size > known.size.max(BLOCK_BYTES) {
        return Ok(Some(Outcome::Large(leaf)));
    }
    let heavy =
        (leaf.size > ONE_AT_A_TIME && previous.is_some()).then(|| heavy.lock().unwrap_or_else(PoisonError::into_inner));
    let mut content = Vec::with_capacity(usize::try_from(leaf.size).unwrap_or(0) + 1);
    let read = leaf.read_to_end(&mut content).and_then(|_| leaf.unchanged());
    match read {
        Ok(true) if content.len() as u64 == leaf.size => {}
        Ok(_) => return Ok(None),
        Err(error) => return Ok(Some(Outcome::LeftOut(format!("cannot be read: {error}")))),
    }
    if leaf.kind != Kind::Symlink && recipe::begins_as_one(&content) {
        // Kept as a recipe, so that what begins as one always is one.
        return Ok(root.open_leaf(path)?.map(Outcome::Large).or(Some(Outcome::Gone)));
    }
    let id = object_id(ObjectKind::Blob, &content);
    let is_new = known.base.is_none_or(|base| base.id != id);
    let blob = match previous {
        _ if !is_new => None,
        Some(previous) if leaf.size > IN_MEMORY => {
            let change = packer.pack_change(id, &content, previous).filter(|blob| blob.base().is_some());
            drop((content, heavy));
            if change.is_none() {
                return Ok(root.open_leaf(path)?.map(Outcome::Large));
            }
            change
        }
        previous => Some(packer.pack(id, &content, previous)),
    };
    let entry = Entry { kind: leaf.kind, id };
    let fingerprint = trusted(&leaf);
    Ok(Some(Outcome::Read(Box::new(Reading { entry, fingerprint, mtime: leaf.mtime, size: leaf.size, blob }))))
}

/// Whether what is there is a file, of which a new content can be told as a change.
fn is_file(there: &Entry) -> bool {
    matches!(there.kind, Kind::File | Kind::Executable) && there.id != EMPTY_BLOB
}

fn trusted(leaf: &OpenLeaf<'_>) -> Fingerprint {
    if leaf.is_recent() { Fingerprint::default() } else { leaf.fingerprint }
}

/// Waits until a large file is old enough for its fingerprint to be relied on: so that it need not be read again to know
/// that it is unchanged, nor by git, which reads no recipes.
fn rest(leaf: &OpenLeaf<'_>) {
    while leaf.is_recent() {
        std::thread::sleep(TICK);
    }
}

/// Why a file is left out that plain git has checked out.
const IN_ITS_PLACE: &str = "git has put the list of its chunks in the place of this large file: remove that, and \
                            `foldersync revert` brings the file back";

/// Streams a large file into the burst, in chunks from a certain size on; the inner error says why it was left out.
fn stream<'root>(
    source: &Source<'root>,
    burst: &mut Burst,
    change: &Change,
    mut leaf: OpenLeaf<'root>,
) -> Result<Result<Reading, String>, EngineError> {
    let Source { files: Files { root, large_from, .. }, objects, threads } = *source;
    let path = Path::new(OsStr::from_bytes(change.path.as_bytes()));
    let failed = |error| EngineError::io("read", path)(error);
    let before = change.old.filter(|old| matches!(old.kind, Kind::File | Kind::Executable));
    let before = before.map(|old| large::content(objects, &old.id).map(|content| (old.id, content)));
    // Where what is recorded cannot be read, all is stored anew.
    let before = before.and_then(Result::ok);
    for attempt in 0..=RETRIES {
        if attempt > 0 {
            std::thread::sleep(RETRY_PAUSE);
            match root.open_leaf(&change.path)? {
                Some(again) => leaf = again,
                None => break,
            }
        }
        let size = leaf.size;
        let mut begin = Vec::new();
        let read = (&mut leaf).take(recipe::SIGNATURE.len() as u64).read_to_end(&mut begin);
        if let Err(error) = read {
            return Ok(Err(format!("cannot be read: {error}")));
        }
        let as_recipe = leaf.kind != Kind::Symlink && recipe::begins_as_one(&begin);
        if as_recipe && size <= recipe::LONGEST as u64 && matches!(&before, Some((_, large::Content::Chunks(_)))) {
            if let Err(error) = (&mut leaf).take(recipe::LONGEST as u64).read_to_end(&mut begin) {
                return Ok(Err(format!("cannot be read: {error}")));
            }
            if objects.exists(&object_id(ObjectKind::Blob, &begin)) && large::Recipe::parse(&begin).is_ok() {
                return Ok(Err(IN_ITS_PLACE.to_owned()));
            }
        }
        let in_chunks = as_recipe || (leaf.kind != Kind::Symlink && size > large_from);
        if let Some((id, recorded)) = &before
            && recorded.size() == size
            && matches!(recorded, large::Content::Chunks(_)) != in_chunks
            && holds(objects, root, &change.path, Entry { kind: leaf.kind, id: *id })?.is_some()
        {
            // The same content is the same revision, whatever the threshold was when it was captured.
            rest(&leaf);
            if leaf.unchanged().map_err(failed)? {
                let entry = Entry { kind: leaf.kind, id: *id };
                return Ok(Ok(Reading { entry, fingerprint: trusted(&leaf), mtime: leaf.mtime, size, blob: None }));
            }
        }
        let mut content = begin.as_slice().chain(&mut leaf);
        let stored = if in_chunks {
            let shared: HashSet<ObjectId> = match &before {
                Some((_, large::Content::Chunks(recipe))) => recipe.chunks().iter().map(|chunk| chunk.id).collect(),
                _ => HashSet::new(),
            };
            let recipe = burst.chunks_from_stream(size, &mut content, threads, &|id| shared.contains(id));
            recipe.map(|recipe| recipe.map(|recipe| (recipe.id(), Some(recipe))))
        } else {
            burst.blob_from_stream(size, &mut content).map(|id| id.map(|id| (id, None)))
        };
        let stored = match stored {
            Err(error @ StoreError::TooLarge { .. }) => return Ok(Err(error.to_string())),
            stored => stored?,
        };
        if in_chunks {
            rest(&leaf);
        }
        if let Some((id, blob)) = stored
            && leaf.unchanged().map_err(failed)?
        {
            let entry = Entry { kind: leaf.kind, id };
            return Ok(Ok(Reading { entry, fingerprint: trusted(&leaf), mtime: leaf.mtime, size, blob }));
        }
    }
    Ok(Err("changes while it is read; it is captured once it rests".to_owned()))
}
