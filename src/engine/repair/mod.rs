//! Repairing: what is lost is fetched from whoever has it, and what is damaged is put aside.
//!
//! What is lost is looked for in this order: what can still be read of a damaged pack; the files on disk, whose content
//! may be what is missing; the peers, asked for what the revisions brought that had it (see [`ask`]). Whatever is found
//! is taken only if it has the id of what is lost, so it does not matter who gives it.
//!
//! Nothing is repaired by guessing. A ref is set only where there is one answer: `main` was `applied`, or follows it, so
//! where one revision alone is the newest of those that follow `applied`, taking it loses nothing and goes back
//! nowhere; where there are several, a person is told between which to choose. `applied` itself, and what is known of
//! peers, can go: the disk is looked at again, and the peers tell it again.
//!
//! The order after which a kill leaves nothing worse than before: a good pack is written and synced, with all that can
//! be had; then refs and small files; then the damaged files are put aside, into `foldersync/damaged`, and never deleted. A
//! repair that was killed is made again from the beginning.

mod ask;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::engine::error::EngineError;
use crate::engine::folder::{Context, Folder};
use crate::engine::report::{AskedPeer, RepairReport};
use crate::engine::verify::{Examination, is_pending};
use crate::id::{CommitId, DeviceId, ObjectId};
use crate::monitor::Stage;
use crate::path::{ALONGSIDE, SyncPath};
use crate::store::damage::{self, Cure, Fault};
use crate::store::large::{LONGEST_CHUNK, Recipe};
use crate::store::pack::PackWriter;
use crate::store::{Expected, FolderLock, ObjectKind, RefEdit, RefName, Wait, object_id};
use crate::transport::Connection;
use crate::worktree::Root;

use super::exchange::PeerTarget;

/// Contents with more bytes are kept in chunks, unless somebody wanted it otherwise; such a one is fetched.
const WHOLE: u64 = 256 << 20;

/// A repair that is under way: nobody else works on the folder.
pub struct Repair<'a> {
    folder: &'a Folder,
    examination: Examination,
    report: RepairReport,
    _lock: FolderLock,
}

impl Folder {
    /// Opens the folder whose root is `dir`, after what keeps it from being opened was put back, where it is known:
    /// its config, the name of its branch. Answers with what was put back.
    pub fn open_for_repair(dir: &Path, cx: Context) -> Result<(Self, Vec<String>), EngineError> {
        let mut mended = Vec::new();
        let git_dirs = [dir.join(".git"), dir.join(ALONGSIDE)];
        if let Some(git_dir) = git_dirs.iter().find(|git_dir| git_dir.join("foldersync").is_dir()) {
            for file in damage::restore_what_opens(git_dir)? {
                let name = file.strip_prefix(dir).unwrap_or(&file).display();
                mended.push(format!("{name}: put back as it was"));
            }
        }
        Ok((Self::open(dir, cx)?, mended))
    }

    /// Begins a repair: looks at everything, and takes from the damaged files and from the disk what can be had.
    pub fn repair(&self, wait: Wait) -> Result<Repair<'_>, EngineError> {
        let lock = self.store.lock("repair", wait)?;
        let examination = self.examine(true)?;
        let damaged = examination.damaged_packs();
        if let Some(pack_dir) = examination.sound.pack_dir().filter(|_| !damaged.is_empty()) {
            // What comes from peers builds on it.
            examination.sound.write_good_pack(&self.store, &pack_dir, &damaged, &[], &examination.walked)?;
        }
        let mut repair = Repair { folder: self, examination, report: RepairReport::default(), _lock: lock };
        repair.take_from_disk()?;
        Ok(repair)
    }
}

impl Repair<'_> {
    /// Whether something is lost, so that peers are to be asked.
    pub fn lacks(&self) -> bool {
        !self.examination.walked.is_whole()
    }

    /// Notes what was put back before the folder could be opened.
    pub fn note(&mut self, mended: Vec<String>) {
        self.report.mended.extend(mended);
    }

    /// Asks a peer for what is lost.
    pub fn ask(&mut self, peer: &PeerTarget) {
        let folder = self.folder;
        let talk = |repair: &mut Self| folder.with_peer(peer, true, |connection| repair.ask_once(connection, None));
        self.ask_while_it_brings(&peer.name, talk);
    }

    /// Asks a peer for what is lost, over connections that lead to it.
    pub fn ask_over(
        &mut self,
        peer: &str,
        device: Option<DeviceId>,
        connect: &mut dyn FnMut() -> Result<Connection, EngineError>,
    ) {
        self.ask_while_it_brings(peer, |repair| repair.ask_once(connect()?, device));
    }

    /// Asks again as long as that brings something: what came may tell of more that is lost, and a request has a limit.
    fn ask_while_it_brings(&mut self, peer: &str, mut ask: impl FnMut(&mut Self) -> Result<(), EngineError>) {
        let mut asked = AskedPeer { peer: peer.to_owned(), brought: 0, failed: None };
        while self.lacks() {
            let before = self.lost();
            let outcome = ask(self);
            self.look_again();
            let brought = before.iter().filter(|id| self.examination.walked.has(id)).count() as u64;
            asked.brought += brought;
            if let Err(error) = outcome {
                asked.failed = Some(error.to_string());
            }
            if brought == 0 || asked.failed.is_some() {
                break;
            }
        }
        if self.lacks() && asked.failed.is_none() {
            asked.failed = Some("it has not got the rest".to_owned());
        }
        self.report.asked.push(asked);
    }

    fn lost(&self) -> BTreeSet<ObjectId> {
        self.examination.walked.lost.keys().copied().collect()
    }

    fn look_again(&mut self) {
        let monitor = &*self.folder.cx.monitor;
        monitor.begin(Stage::Check, None);
        damage::retry(&self.examination.sound, &mut self.examination.walked, monitor);
        monitor.end(Stage::Check);
    }

    /// Takes the contents that files on disk still have. What a file is said to hold is only a hint where to look.
    fn take_from_disk(&mut self) -> Result<(), EngineError> {
        let Some(pack_dir) = self.examination.sound.pack_dir().filter(|_| self.lacks()) else { return Ok(()) };
        let root = Root::open(self.folder.root())?;
        let table = self.folder.store.load_table()?.table;
        let mut writer = PackWriter::create(&pack_dir)?;
        let walked = &self.examination.walked;
        for (path, row) in table.iter() {
            let Ok(path) = SyncPath::new(path) else { continue };
            if walked.lost.contains_key(&row.entry.id) {
                let Ok(Some(mut leaf)) = root.open_leaf(&path) else { continue };
                let mut content = Vec::new();
                // A file that cannot be read is no help, and no harm.
                if leaf.size > WHOLE || leaf.read_to_end(&mut content).is_err() {
                    continue;
                }
                if object_id(ObjectKind::Blob, &content) == row.entry.id {
                    writer.put(ObjectKind::Blob, &content)?;
                }
            } else if walked.recipes.contains_key(&row.entry.id) {
                let mut recipe = Vec::new();
                let read = self.examination.sound.read(ObjectKind::Blob, &row.entry.id, &mut recipe);
                let Some(recipe) = read.ok().and_then(|()| Recipe::parse(&recipe).ok()) else { continue };
                let Ok(Some(mut leaf)) = root.open_leaf(&path) else { continue };
                for chunk in recipe.chunks() {
                    let mut content = Vec::new();
                    debug_assert!(chunk.len <= LONGEST_CHUNK, "a recipe says so");
                    if leaf.by_ref().take(chunk.len.into()).read_to_end(&mut content).is_err() {
                        break;
                    }
                    if walked.lost.contains_key(&chunk.id) && object_id(ObjectKind::Blob, &content) == chunk.id {
                        writer.put(ObjectKind::Blob, &content)?;
                    }
                }
            }
        }
        let found = writer.objects();
        if found > 0 {
            writer.finish()?;
            self.look_again();
            self.report.mended.push(format!("{found} contents were found in the files on disk"));
        }
        Ok(())
    }

    /// Puts in what was found, puts aside what is damaged, and looks at everything once more.
    pub fn finish(mut self) -> Result<RepairReport, EngineError> {
        let (store, git_dir) = (&self.folder.store, self.folder.git_dir().to_owned());
        let damaged = self.examination.damaged_packs();
        // One that can still be read, though its file is not whole, goes into the pack as well.
        let faults = self.examination.checked.faults.iter();
        let loose: Vec<ObjectId> =
            faults.filter_map(|fault| if let Cure::Loose(id) = fault.cure { Some(id) } else { None }).collect();
        let objects = self.examination.sound.write_good_pack(
            store,
            &store.pack_dir(),
            &damaged,
            &loose,
            &self.examination.walked,
        )?;
        if objects > 0 {
            self.report.mended.push(format!("{objects} objects were put into a good pack"));
        }
        self.indexes()?;
        let faults = std::mem::take(&mut self.examination.checked.faults);
        // A list of refs is put back with what was in it before single ones are looked at.
        let (whole, refs): (Vec<Fault>, Vec<Fault>) =
            faults.into_iter().partition(|fault| !matches!(fault.cure, Cure::Ref(_)));
        let restored: Vec<PathBuf> = whole
            .iter()
            .filter(|fault| matches!(fault.cure, Cure::Restore(_)))
            .map(|fault| fault.file.clone())
            .collect();
        for fault in whole {
            let done = match &fault.cure {
                Cure::Restore(content) => {
                    damage::put_back(&git_dir, &fault.file, content)?;
                    "put back as it was"
                }
                Cure::PutAside if restored.contains(&fault.file) => continue,
                Cure::Pack => {
                    for ending in ["idx", "pack", "rev", "bitmap"] {
                        damage::put_aside(&git_dir, &fault.file.with_extension(ending))?;
                    }
                    put_aside_markers(&git_dir, &fault.file)?;
                    "put aside"
                }
                Cure::Loose(_) | Cure::PutAside => {
                    damage::put_aside(&git_dir, &fault.file)?;
                    "put aside"
                }
                Cure::Index | Cure::Ref(_) | Cure::Derived => continue,
            };
            self.mended(&fault.file, done);
        }
        if !damaged.is_empty() {
            // What git keeps of which commits there are tells of some that nothing needs, and that are gone.
            for name in ["commit-graph", "commit-graphs"] {
                damage::put_aside(&git_dir, &git_dir.join("objects/info").join(name))?;
            }
            damage::put_aside(&git_dir, &git_dir.join("objects/pack/multi-pack-index"))?;
        }
        self.refs(refs)?;
        self.chunks()?;
        let RepairReport { mended, asked, choices, .. } = std::mem::take(&mut self.report);
        let folder = self.folder;
        // What was made for reading around the damage goes before everything is looked at as it is now.
        drop(self);
        let after = Folder::open(folder.root(), folder.cx.clone())?.verify(false)?;
        Ok(RepairReport { mended, asked, choices, after })
    }

    fn mended(&mut self, file: &Path, what: &str) {
        let name = file.strip_prefix(self.folder.root()).unwrap_or(file).display();
        self.report.mended.push(format!("{name}: {what}"));
    }

    /// Gives sound packs the indexes that were made for them.
    fn indexes(&mut self) -> Result<(), EngineError> {
        let sound = &self.examination.sound;
        let faulty = self.examination.checked.faults.iter().filter(|fault| fault.cure == Cure::Index);
        let packs: BTreeSet<PathBuf> = faulty
            .map(|fault| fault.file.with_extension("pack"))
            .chain(sound.needs_index().map(Path::to_owned))
            .collect();
        let made: Vec<(PathBuf, PathBuf)> =
            packs.into_iter().filter_map(|pack| Some((sound.index_made(&pack)?, pack.with_extension("idx")))).collect();
        for (made, index) in made {
            damage::put_aside(self.folder.git_dir(), &index)?;
            damage::put_in_place(&made, &index)?;
            self.mended(&index, "made anew from its pack");
        }
        Ok(())
    }

    /// Sets the refs of which it is certain what they were, or that can go; tells what a person can choose otherwise.
    fn refs(&mut self, faults: Vec<Fault>) -> Result<(), EngineError> {
        let store = &self.folder.store;
        let refs = store.refs();
        let (checked, walked) = (&self.examination.checked, &self.examination.walked);
        let mut bad: BTreeSet<RefName> = faults
            .into_iter()
            .filter_map(|fault| if let Cure::Ref(name) = fault.cure { Some(name) } else { None })
            .collect();
        let main_is_doubted = bad.contains(&RefName::MAIN);
        bad.extend(
            checked.refs.iter().filter(|(_, id)| walked.lost.contains_key(&(*id).into())).map(|(name, _)| name.clone()),
        );
        // One that was put back with the list of packed ones is there again.
        let is_sound = |name: &RefName| {
            let read = refs.read(name).ok().flatten();
            read.is_some_and(|id| self.examination.sound.read(ObjectKind::Commit, &id.into(), &mut Vec::new()).is_ok())
        };
        let sound: Vec<RefName> = bad.iter().filter(|name| is_sound(name)).cloned().collect();
        bad.retain(|name| name.as_str().starts_with(RefName::KEEP) || !sound.contains(name));
        for name in sound.into_iter().filter(|name| !bad.contains(name)) {
            // It can be read, and is written as it should be.
            let new = refs.read(&name)?;
            refs.update(&[RefEdit { name, expected: Expected::Any, new }])?;
        }
        if main_is_doubted {
            bad.insert(RefName::MAIN);
        }
        if !self.examination.pending.is_whole() {
            // What hangs on a ref that only waits for its merge comes again as a whole.
            bad.extend(checked.refs.iter().map(|(name, _)| name.clone()).filter(is_pending));
        }
        let applied = refs.read(&RefName::APPLIED).ok().flatten().filter(|_| !bad.contains(&RefName::APPLIED));
        for name in bad {
            let file = self.folder.git_dir().join(name.as_str());
            if name == RefName::MAIN {
                let newest = match applied {
                    Some(applied) => self.examination.sound.newest_after(applied)?,
                    None => Vec::new(),
                };
                if let [main] = newest[..] {
                    damage::put_aside(self.folder.git_dir(), &file)?;
                    refs.update(&[RefEdit { name, expected: Expected::Any, new: Some(main) }])?;
                    self.mended(&file, &format!("names revision {} again, the newest there is", main.short()));
                } else {
                    self.choose(&newest);
                }
            } else if name == RefName::APPLIED
                || name == RefName::CHUNKS
                || name.as_str().starts_with("refs/foldersync/")
                || name.as_str().starts_with("refs/remotes/")
            {
                damage::put_aside(self.folder.git_dir(), &file)?;
                self.mended(&file, "put aside");
            } else {
                self.report.choices.push(format!(
                    "{name} is a person's own; `git update-ref {name} COMMIT` sets it, `git update-ref -d {name}` removes it"
                ));
            }
        }
        Ok(())
    }

    /// Tells which revisions `main` may have been.
    fn choose(&mut self, newest: &[CommitId]) {
        let known = self.examination.checked.refs.iter().filter(|(name, _)| *name != RefName::MAIN);
        let mut named: Vec<String> = known
            .filter(|(name, _)| name.as_str().starts_with("refs/remotes/") || *name == RefName::APPLIED)
            .map(|(name, id)| format!("{id} ({name})"))
            .collect();
        named.extend(newest.iter().map(|id| format!("{id} (the newest of a line of revisions)")));
        let which = if named.is_empty() {
            "`git fsck --lost-found` names those that are there".to_owned()
        } else {
            format!("it may be {}", named.join(", "))
        };
        self.report.choices.push(format!(
            "which revision is the newest is not known: {which}; `git update-ref refs/heads/main COMMIT` sets it"
        ));
    }

    /// Makes the branch of chunks keep all that are here.
    fn chunks(&mut self) -> Result<(), EngineError> {
        let chunks = &self.examination.walked.chunks;
        let file = self.folder.git_dir().join(RefName::CHUNKS.as_str());
        let reads = |id: CommitId| self.examination.sound.kept_chunks(id);
        let kept = self.folder.store.refs().read(&RefName::CHUNKS)?.and_then(reads);
        if kept.as_ref().is_some_and(|kept| chunks.iter().all(|chunk| kept.contains(chunk))) || chunks.is_empty() {
            return Ok(());
        }
        if kept.is_none() {
            let remove = RefEdit { name: RefName::CHUNKS, expected: Expected::Any, new: None };
            self.folder.store.refs().update(&[remove])?;
        }
        self.folder.store.keep_chunks(chunks)?;
        self.mended(&file, "keeps all chunks again");
        Ok(())
    }
}

/// Puts the markers of a pack aside.
fn put_aside_markers(git_dir: &Path, pack: &Path) -> Result<(), EngineError> {
    let Some(stem) = pack.file_stem().and_then(|stem| stem.to_str()) else { return Ok(()) };
    let dir = git_dir.join("objects/pack");
    for entry in fs::read_dir(&dir).map_err(EngineError::io("list", &dir))? {
        let entry = entry.map_err(EngineError::io("list", &dir))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&format!("{stem}.")) && name.ends_with(".ordered")) {
            damage::put_aside(git_dir, &entry.path())?;
        }
    }
    Ok(())
}
