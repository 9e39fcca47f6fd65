//! Upkeep: gathering packs, and checking that everything that history needs is there and whole.

use std::collections::HashSet;

use crate::engine::error::EngineError;
use crate::engine::folder::{Folder, Work};
use crate::engine::report::{GcReport, VerifyReport};
use crate::entry::Kind;
use crate::id::{ObjectId, TreeId};
use crate::monitor::Stage;
use crate::path::SyncPath;
use crate::store::Wait;
use crate::store::consolidate;
use crate::store::large::{self, Content};
use crate::store::pack::reader::{Pack, Packs};
use crate::store::{ObjectKind, Objects, StoreError, object_id, tree};
use crate::worktree::Root;

/// So many packs that are too small to stand alone, or loose objects, are gathered without being asked.
const DUE: usize = 24;
const LOOSE_DUE: usize = 2000;
/// Of packs with this many bytes, it takes so many times as many: what a pack costs whoever looks for an object is the
/// same for all, what it costs to copy it is not. A first exchange of a GiB leaves two hundred of them.
const MIDDLING: u64 = 4 << 20;
const MIDDLING_DUE: usize = 8;

/// Whether these packs are worth gathering.
fn is_due(small: &[&Pack]) -> bool {
    let middling = small.iter().filter(|pack| pack.bytes() >= MIDDLING).count();
    small.len() - middling + middling / MIDDLING_DUE >= DUE
}

impl Work<'_> {
    /// Gathers small packs when they have piled up.
    pub(crate) fn gather_if_due(&mut self) -> Result<(), EngineError> {
        self.gather(LOOSE_DUE, &is_due)
    }

    fn gather(&mut self, loose: usize, is_due: &dyn Fn(&[&Pack]) -> bool) -> Result<(), EngineError> {
        let (store, monitor) = (&self.folder.store, &*self.folder.cx.monitor);
        let made = consolidate::gather_loose(&store.git_dir().join("objects"), loose, monitor)?.after
            + consolidate::gather_packs(&self.objects, &store.pack_dir(), is_due, monitor)?.after;
        if made > 0 {
            self.objects = store.objects();
        }
        Ok(())
    }
}

impl Folder {
    /// Gathers packs and loose objects into few packs.
    pub fn gc(&self) -> Result<GcReport, EngineError> {
        let mut work = self.begin("gc", Wait::No)?;
        let (packs_before, bytes_before) = self.packs()?;
        work.gather(1, &|_| true)?;
        work.finish()?;
        let (packs_after, bytes_after) = self.packs()?;
        Ok(GcReport { packs_before, packs_after, bytes_before, bytes_after })
    }

    /// How many packs there are, and their bytes.
    fn packs(&self) -> Result<(u64, u64), EngineError> {
        let packs = Packs::open(&self.store.pack_dir())?;
        Ok((packs.all().len() as u64, packs.all().iter().map(Pack::bytes).sum()))
    }

    /// Reads every object that the history needs and compares it with its id; with `content`, the files on disk too.
    pub fn verify(&self, content: bool) -> Result<VerifyReport, EngineError> {
        let mut check = Check {
            objects: self.store.objects(),
            seen: HashSet::new(),
            report: VerifyReport::default(),
            buffer: Vec::new(),
        };
        let monitor = &*self.cx.monitor;
        monitor.begin(Stage::Check, None);
        if let Err(error) = Packs::open(&self.store.pack_dir()) {
            check.report.problems.push(error.to_string());
        }
        let mut pending = Vec::new();
        for (name, commit) in self.store.refs().list("refs/")? {
            pending.push((commit, name.to_string()));
        }
        while let Some((id, from)) = pending.pop() {
            if !check.seen.insert(id.into()) {
                continue;
            }
            if !check.object(ObjectKind::Commit, id.into(), &format!("revision {id} (needed by {from})")) {
                continue;
            }
            monitor.advance(Stage::Check, 1, 0);
            check.report.revisions += 1;
            match crate::store::Commit::parse(id, &check.buffer) {
                Ok(commit) => {
                    let subject = commit.message().subject;
                    pending.extend(commit.parents.iter().map(|&parent| (parent, id.short())));
                    check.tree(commit.tree, &mut Vec::new(), &format!("revision {} ({subject})", id.short()), monitor);
                }
                Err(error) => check.report.problems.push(error.to_string()),
            }
        }
        monitor.end(Stage::Check);
        if content {
            self.verify_files(&mut check.report)?;
        }
        Ok(check.report)
    }

    /// Re-reads every file that the table holds as unchanged.
    fn verify_files(&self, report: &mut VerifyReport) -> Result<(), EngineError> {
        let root = Root::open(self.root())?;
        let table = self.store.load_table()?.table;
        self.cx.monitor.begin(Stage::Scan, Some(table.len() as u64));
        for (path, row) in table.iter() {
            let path = SyncPath::new(path).map_err(|error| StoreError::damaged("the index", error))?;
            self.cx.monitor.advance(Stage::Scan, 1, u64::from(row.fingerprint.size));
            let unchanged = match root.look(&path)? {
                crate::worktree::OnDisk::Leaf { fingerprint, .. } => fingerprint == row.fingerprint,
                _ => false,
            };
            if unchanged
                && row.entry.kind != Kind::EmptyFolder
                && super::checkout::holds(&self.store.objects(), &root, &path, row.entry)?.is_none()
            {
                report
                    .problems
                    .push(format!("`{path}` on disk does not hold what was recorded, though its time and size say so"));
            }
        }
        self.cx.monitor.end(Stage::Scan);
        Ok(())
    }
}

/// A walk over all objects, each looked at once.
struct Check {
    objects: Objects,
    seen: HashSet<ObjectId>,
    report: VerifyReport,
    buffer: Vec<u8>,
}

impl Check {
    /// Reads an object into the buffer and compares it with its id.
    fn object(&mut self, kind: ObjectKind, id: ObjectId, what: &str) -> bool {
        self.report.objects += 1;
        let problem = match self.objects.read(kind, &id, &mut self.buffer) {
            Ok(()) if object_id(kind, &self.buffer) == id => return true,
            Ok(()) => format!("object {id} does not hold what its id says"),
            Err(error) => error.to_string(),
        };
        self.report.problems.push(format!("{what}: {problem}"));
        false
    }

    fn tree(&mut self, id: TreeId, path: &mut Vec<u8>, revision: &str, monitor: &dyn crate::monitor::Monitor) {
        if id == TreeId::EMPTY || !self.seen.insert(id.into()) {
            return;
        }
        let what = |path: &[u8]| format!("`{}` in {revision}", crate::path::quote(path));
        monitor.advance(Stage::Check, 1, 0);
        if !self.object(ObjectKind::Tree, id.into(), &what(path)) {
            return;
        }
        let content = std::mem::take(&mut self.buffer);
        for entry in tree::entries(&content) {
            let Ok(entry) = entry else {
                self.report.problems.push(format!("{}: tree {id} cannot be read", what(path)));
                break;
            };
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name);
            if entry.is_tree() {
                self.tree(entry.id.as_tree(), path, revision, monitor);
            } else if entry.leaf().is_some() && self.seen.insert(entry.id) {
                monitor.advance(Stage::Check, 1, 0);
                self.blob(entry.id, &what(path));
            }
            path.truncate(length);
        }
        self.buffer = content;
    }

    /// Looks at the chunks of a large file.
    fn chunks(&mut self, id: &ObjectId, what: &str) {
        match large::content(&self.objects, id) {
            Ok(Content::Whole(_)) => {}
            Ok(Content::Chunks(recipe)) => {
                for chunk in recipe.chunks() {
                    if self.seen.insert(chunk.id) && self.object(ObjectKind::Blob, chunk.id, what) {
                        let len = self.buffer.len();
                        if len != chunk.len as usize {
                            let problem = format!("chunk {} has {len} bytes, and not {}", chunk.id, chunk.len);
                            self.report.problems.push(format!("{what}: {problem}"));
                        }
                    }
                }
            }
            Err(error) => self.report.problems.push(format!("{what}: {error}")),
        }
    }

    /// Hashes a blob without holding a large one.
    fn blob(&mut self, id: ObjectId, what: &str) {
        self.report.objects += 1;
        let problem = match self.objects.header(&id) {
            Ok(Some((ObjectKind::Blob, size))) => {
                let mut hasher = crate::store::ObjectHasher::new(ObjectKind::Blob, size);
                match self.objects.copy_blob(&id, &mut hasher) {
                    Ok(_) if hasher.finish() == id => return self.chunks(&id, what),
                    Ok(_) => format!("object {id} does not hold what its id says"),
                    Err(error) => error.to_string(),
                }
            }
            Ok(Some((kind, _))) => format!("object {id} is a {}, not a blob", kind.word()),
            Ok(None) => StoreError::Missing { id }.to_string(),
            Err(error) => error.to_string(),
        };
        self.report.problems.push(format!("{what}: {problem}"));
    }
}
