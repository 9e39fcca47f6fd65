//! Verifying: what is damaged, joined with what that means for files and their revisions.
//!
//! The store finds damage in files and objects ([`damage`]); here each lost object is traced to the revisions that
//! brought it, and these to their numbers, by the history index. What is derived (the index itself, the graph of
//! commits, what is remembered of peers) is compared and begun anew. Nothing else is changed: that is `repair`'s.
//!
//! The folder is not locked: what a command writes meanwhile is only added, and what it gathers stays readable.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::error::EngineError;
use crate::engine::folder::Folder;
use crate::engine::report::{Affected, Finding, VerifyReport};
use crate::entry::Kind;
use crate::id::{CommitId, ObjectId};
use crate::monitor::{Silent, Stage};
use crate::path::SyncPath;
use crate::store::damage::{self, Checked, Cure, Fault, Introducer, Sound, Unsound, Walked};
use crate::store::history::HistoryIndex;
use crate::store::{Graph, ObjectKind, RefName, StoreError};
use crate::worktree::{OnDisk, Root};

/// What was found in a repository, and everything that can be read of it.
pub(super) struct Examination {
    pub(super) checked: Checked,
    pub(super) sound: Sound,
    /// What history needs.
    pub(super) walked: Walked,
    /// What only bundles need that are not merged yet.
    pub(super) pending: Walked,
    /// The refs of history.
    pub(super) tips: Vec<CommitId>,
    /// What is wrong with the branch that keeps chunks.
    pub(super) chunks: Option<String>,
}

/// Whether a ref only holds what is not merged yet.
pub(super) fn is_pending(name: &RefName) -> bool {
    ["refs/foldersync/incoming/", "refs/foldersync/instalment/"].iter().any(|prefix| name.as_str().starts_with(prefix))
}

impl Folder {
    /// Looks at every file of the repository, and reads every object that the history needs and compares it with its
    /// id; with `content`, the files on disk too.
    pub fn verify(&self, content: bool) -> Result<VerifyReport, EngineError> {
        let examination = self.examine(false)?;
        let mut report = VerifyReport {
            objects: examination.walked.objects + examination.pending.objects,
            revisions: examination.walked.revisions,
            findings: self.findings(&examination)?,
            ..VerifyReport::default()
        };
        self.derived(&examination, &mut report.findings)?;
        if content {
            self.verify_files(&examination, &mut report.findings)?;
        }
        report.problems = report.findings.iter().filter(|finding| !finding.derived).map(Finding::line).collect();
        Ok(report)
    }

    /// Looks at everything; with `mends`, what is lost can be put where the examination finds it.
    pub(super) fn examine(&self, mends: bool) -> Result<Examination, EngineError> {
        let monitor = &*self.cx.monitor;
        monitor.begin(Stage::Check, None);
        let mut checked = damage::files(&self.store, monitor)?;
        let sound = Sound::open(&self.store, &checked, mends)?;
        let (mut tips, mut later) = (Vec::new(), Vec::new());
        let mut buffer = Vec::new();
        for (name, id) in &checked.refs {
            // An annotated tag is a person's, and so is what only it names.
            let is_tag = name.as_str().starts_with("refs/tags/");
            if *name == RefName::CHUNKS
                || (is_tag && sound.read(ObjectKind::Commit, &(*id).into(), &mut buffer).is_err())
            {
                continue;
            }
            let list = if is_pending(name) { &mut later } else { &mut tips };
            list.push((*id, name.to_string()));
        }
        // The last is walked first: what `main` needs is told of it, and not of a ref that follows it.
        tips.sort_by_key(|(_, name)| name == RefName::MAIN.as_str());
        let (mut walked, mut pending) = (Walked::default(), Walked::default());
        damage::walk(&sound, &mut walked, &tips, monitor);
        if !later.is_empty() {
            damage::walk(&sound, &mut pending, &later, monitor);
            pending.lost.retain(|id, _| !walked.lost.contains_key(id));
        }
        let named = |wanted: &RefName| checked.refs.iter().find(|(name, _)| name == wanted).map(|(_, id)| *id);
        if let (Some(main), Some(applied)) = (named(&RefName::MAIN), named(&RefName::APPLIED))
            && main != applied
            && walked.is_whole()
            && Graph::new(sound.objects().clone()).is_ancestor(main, applied).unwrap_or(false)
        {
            // Its file is gone, and an older list of packed ones has it as it was.
            let what = format!("it names revision {}, and the disk held a newer one already", main.short());
            let file = self.git_dir().join(RefName::MAIN.as_str());
            checked.faults.push(Fault { file, what, cure: Cure::Ref(RefName::MAIN) });
        }
        let chunks = kept_chunks(&sound, &checked, &walked);
        monitor.end(Stage::Check);
        let tips = tips.into_iter().map(|(id, _)| id).collect();
        Ok(Examination { checked, sound, walked, pending, tips, chunks })
    }

    /// How a file of the repository is named to a person.
    fn named(&self, file: &Path) -> String {
        file.strip_prefix(self.root()).unwrap_or(file).display().to_string()
    }

    /// What was found, and which revisions it affects.
    pub(super) fn findings(&self, examination: &Examination) -> Result<Vec<Finding>, EngineError> {
        let Examination { checked, sound, walked, pending, .. } = examination;
        let introducers = examination.introducers();
        // Where nothing is lost there is nothing to name.
        let names = if introducers.is_empty() { Names { index: None } } else { Names::new(self, sound) };
        let mut told: BTreeSet<ObjectId> = BTreeSet::new();
        let mut findings = Vec::new();
        let finding = |file: &Path, what: &str, effect: &str, derived| Finding {
            file: Some(self.named(file)),
            what: what.to_owned(),
            effect: effect.to_owned(),
            affects: Vec::new(),
            derived,
        };
        let unlisted = |fault: &&Fault| matches!(fault.cure, Cure::Pack | Cure::Index);
        let packs: Vec<&Fault> = checked.faults.iter().filter(unlisted).collect();
        let unread = names.unread(sound, &introducers);
        let mut listed = BTreeMap::new();
        for fault in &packs {
            listed.insert(&fault.file, sound.listed(&fault.file.with_extension("pack"))?);
        }
        for fault in &checked.faults {
            let mut revisions = Vec::new();
            let lost: Vec<ObjectId> = match &fault.cure {
                Cure::Pack | Cure::Index => {
                    let here = listed.get(&fault.file).map_or(&[][..], Vec::as_slice);
                    let lost = walked.lost.keys().chain(walked.recipes.keys()).copied();
                    // Of a pack without any list everything may have been in it that is not known to be elsewhere.
                    let elsewhere: HashSet<&ObjectId> =
                        if here.is_empty() { listed.values().flatten().collect() } else { HashSet::new() };
                    let here: HashSet<&ObjectId> = here.iter().collect();
                    let was_here =
                        |id: &ObjectId| if here.is_empty() { !elsewhere.contains(id) } else { here.contains(id) };
                    revisions.extend(unread.iter().filter(|id| was_here(&ObjectId::from(**id))));
                    lost.filter(was_here).collect()
                }
                Cure::Loose(id) => walked.lost.contains_key(id).then_some(*id).into_iter().collect(),
                _ => Vec::new(),
            };
            // An index alone is litter that a power cut may leave, if nothing was in its pack only.
            if fault.cure == Cure::Pack && lost.is_empty() && revisions.is_empty() && !fault.file.exists() {
                continue;
            }
            let effect = match &fault.cure {
                Cure::Pack | Cure::Loose(_) | Cure::Index if !lost.is_empty() => "these revisions cannot be had",
                Cure::Index => "nothing is lost: it can be made anew from its pack",
                Cure::Pack | Cure::Loose(_) => "nothing is lost: what is needed can still be read",
                Cure::Ref(name) => effect_of(name),
                Cure::Restore(_) => "nothing is lost: a copy of it is kept",
                Cure::PutAside => "nothing is lost: git makes it again",
                Cure::Derived => "nothing: it is derived, and made anew by whoever needs it",
            };
            let mut finding = finding(&fault.file, &fault.what, effect, fault.cure == Cure::Derived);
            finding.affects = names.of(&introducers, &lost, &revisions);
            told.extend(lost);
            findings.push(finding);
        }
        for pack in sound.needs_index() {
            let index = pack.with_extension("idx");
            if checked.faults.iter().all(|fault| fault.file != index && fault.file != pack) {
                let effect = "nothing is lost: it can be made anew from its pack";
                findings.push(finding(&index, "it is missing", effect, false));
            }
        }
        for (name, id) in &checked.refs {
            let is_lost = walked.lost.get(&(*id).into()).is_some_and(|lost| lost.needed_by == name.as_str());
            if is_lost && !told.contains(&(*id).into()) {
                told.insert((*id).into());
                let what = format!("it names revision {}, which is not in the repository", id.short());
                findings.push(finding(&self.git_dir().join(name.as_str()), &what, effect_of(name), false));
            }
        }
        let rest: Vec<ObjectId> =
            walked.lost.keys().chain(walked.recipes.keys()).filter(|id| !told.contains(id)).copied().collect();
        if !rest.is_empty() {
            let mut what: Vec<String> = walked
                .lost
                .iter()
                .filter(|(id, _)| rest.contains(id))
                .map(|(id, lost)| {
                    let why = match &lost.why {
                        Unsound::Missing => "is missing",
                        Unsound::Damaged(why) => why,
                    };
                    format!("{} {id} {why} (needed by {})", lost.kind.word(), lost.needed_by)
                })
                .chain(
                    walked
                        .recipes
                        .iter()
                        .filter(|(id, _)| rest.contains(id))
                        .map(|(id, why)| format!("large file {id}: {why}")),
                )
                .take(4)
                .collect();
            if rest.len() > 3 && what.len() == 4 {
                what[3] = format!("and {} more", rest.len() - 3);
            }
            findings.push(Finding {
                file: None,
                what: what.join("; "),
                effect: "these revisions cannot be had".to_owned(),
                affects: names.of(&introducers, &rest, if packs.is_empty() { &unread } else { &[] }),
                derived: false,
            });
        }
        if !pending.is_whole() {
            let what = "something is lost that peers have sent and that is not merged yet".to_owned();
            let effect = "nothing is lost: the next exchange brings it again".to_owned();
            findings.push(Finding { file: None, what, effect, affects: Vec::new(), derived: false });
        }
        if let Some(what) = &examination.chunks {
            let effect = "nothing is lost: it can be made anew from the large files";
            findings.push(finding(&self.git_dir().join(RefName::CHUNKS.as_str()), what, effect, false));
        }
        for finding in &mut findings {
            finding.affects.truncate(Finding::LISTED);
        }
        Ok(findings)
    }

    /// Looks at what is derived, and begins anew what is not what it should be.
    fn derived(&self, examination: &Examination, findings: &mut Vec<Finding>) -> Result<(), EngineError> {
        let mut found = |file: &Path, what: &str| {
            findings.push(Finding {
                file: Some(self.named(file)),
                what: what.to_owned(),
                effect: "nothing: it is derived, and was begun anew".to_owned(),
                affects: Vec::new(),
                derived: true,
            });
        };
        let private = self.store.private_dir();
        let graph = private.join("graph");
        if Graph::is_damaged(&graph) {
            remove(&graph)?;
            found(&graph, "its checksum is wrong");
        }
        if let Some(file) = self.damaged_peers_file() {
            remove(&file)?;
            found(&file, "its checksum is wrong");
        }
        let file = private.join("history.sqlite");
        let is_there = fs::metadata(&file).is_ok_and(|data| data.len() > 0);
        // It is compared with what can be read as everybody reads it.
        let is_whole = examination.walked.is_whole() && examination.checked.objects_are_whole();
        if let (true, true, Ok(Some(head))) = (is_there, is_whole, self.head()) {
            let mut index = HistoryIndex::open(&file)?;
            let mut is_right = index.notice().is_none();
            if is_right {
                let objects = self.store.objects();
                let mut anew = HistoryIndex::temporary()?;
                anew.catch_up(&objects, head, &*self.cx.monitor)?;
                let caught_up = index.catch_up(&objects, head, &Silent).and_then(|stats| Ok((stats, index.sum()?)));
                is_right = match caught_up {
                    Ok((stats, sum)) => !stats.rebuilt && sum == anew.sum()?,
                    Err(error) if HistoryIndex::is_damaged_by(&error) => false,
                    Err(error) => return Err(error.into()),
                };
                if !is_right {
                    index.begin_anew()?;
                }
            }
            if !is_right {
                found(&file, "it does not say what the history says");
            }
        }
        Ok(())
    }

    /// Re-reads every file that the table holds as unchanged.
    fn verify_files(&self, examination: &Examination, findings: &mut Vec<Finding>) -> Result<(), EngineError> {
        let root = Root::open(self.root())?;
        let table = self.store.load_table()?.table;
        let objects = examination.sound.objects();
        self.cx.monitor.begin(Stage::Scan, Some(table.len() as u64));
        for (path, row) in table.iter() {
            let path = SyncPath::new(path).map_err(|error| StoreError::damaged("the index", error))?;
            self.cx.monitor.advance(Stage::Scan, 1, u64::from(row.fingerprint.size));
            let unchanged = match root.look(&path)? {
                OnDisk::Leaf { fingerprint, .. } => fingerprint == row.fingerprint,
                _ => false,
            };
            if !unchanged || row.entry.kind == Kind::EmptyFolder {
                continue;
            }
            match super::checkout::holds(objects, &root, &path, row.entry) {
                // What is lost was told.
                Ok(Some(_)) | Err(EngineError::Store(StoreError::Missing { .. } | StoreError::Damaged { .. })) => {}
                Ok(None) => findings.push(Finding {
                    file: Some(path.to_string()),
                    what: "it does not hold what was recorded, though its time and size say so".to_owned(),
                    effect: format!("history has it as it was: `foldersync show {path}@latest`"),
                    affects: Vec::new(),
                    derived: false,
                }),
                Err(error) => return Err(error),
            }
        }
        self.cx.monitor.end(Stage::Scan);
        Ok(())
    }
}

fn remove(file: &Path) -> Result<(), EngineError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(EngineError::io("remove", file)(error)),
        _ => Ok(()),
    }
}

fn effect_of(name: &RefName) -> &'static str {
    if *name == RefName::MAIN {
        "which revision is the newest is not known"
    } else if *name == RefName::APPLIED {
        "nothing is lost: what the disk holds is looked at again"
    } else if *name == RefName::CHUNKS {
        "nothing is lost: it can be made anew from the large files"
    } else if name.as_str().starts_with("refs/remotes/") || is_pending(name) {
        "nothing is lost: the next exchange tells it again"
    } else {
        "nothing of the folder's history is lost"
    }
}

impl Finding {
    /// All of it in a line.
    pub fn line(&self) -> String {
        let mut line = match &self.file {
            Some(file) => format!("{file}: {}", self.what),
            None => self.what.clone(),
        };
        line.push_str(&format!(" ({})", self.effect));
        if !self.affects.is_empty() {
            let names: Vec<String> = self.affects.iter().map(Affected::to_string).collect();
            line.push_str(&format!(": {}", names.join(", ")));
        }
        line
    }
}

impl Examination {
    /// The revisions that brought what is lost, those before others first.
    pub(super) fn introducers(&self) -> Vec<Introducer> {
        let wanted: BTreeSet<ObjectId> = self.walked.lost.keys().chain(self.walked.recipes.keys()).copied().collect();
        if wanted.is_empty() { Vec::new() } else { damage::introducers(&self.sound, &self.tips, &wanted) }
    }

    /// The packs that are damaged.
    pub(super) fn damaged_packs(&self) -> Vec<PathBuf> {
        let packs = self.checked.faults.iter().filter(|fault| fault.cure == Cure::Pack);
        packs.map(|fault| fault.file.clone()).collect()
    }
}

/// What is wrong with the branch that keeps the chunks of large files.
fn kept_chunks(sound: &Sound, checked: &Checked, walked: &Walked) -> Option<String> {
    if checked.faults.iter().any(|fault| fault.cure == Cure::Ref(RefName::CHUNKS)) {
        return None;
    }
    let Some((_, commit)) = checked.refs.iter().find(|(name, _)| *name == RefName::CHUNKS) else {
        return (!walked.chunks.is_empty()).then(|| "it is missing".to_owned());
    };
    match sound.kept_chunks(*commit) {
        None => Some("what it names cannot be read".to_owned()),
        Some(kept) => {
            let lacks = walked.chunks.iter().filter(|chunk| !kept.contains(chunk)).count();
            (lacks > 0).then(|| format!("it lacks {lacks} chunks"))
        }
    }
}

/// The names of revisions.
struct Names {
    index: Option<HistoryIndex>,
}

impl Names {
    /// By the history index, if it can be brought up to the head with what is left.
    fn new(folder: &Folder, sound: &Sound) -> Self {
        let open = || -> Option<HistoryIndex> {
            // A ref that is damaged does not name the head, but what the index was last brought up to does as well.
            let head = folder.head().ok().flatten();
            let mut index = HistoryIndex::open(&folder.store.private_dir().join("history.sqlite")).ok()?;
            let caught_up = match (index.head().ok().flatten(), head) {
                (Some(known), Some(head)) if known == head => true,
                (_, Some(head)) => index.catch_up(sound.objects(), head, &Silent).is_ok(),
                (known, None) => known.is_some(),
            };
            caught_up.then_some(index)
        };
        Self { index: open() }
    }

    /// The revisions that these objects were brought by, as far as they are among the introducers'.
    /// Besides, those of these revisions.
    fn of(&self, introducers: &[Introducer], lost: &[ObjectId], revisions: &[CommitId]) -> Vec<Affected> {
        let lost: HashSet<&ObjectId> = lost.iter().collect();
        let mut affected = BTreeSet::new();
        for &commit in revisions.iter().take(Finding::LISTED) {
            affected.extend(self.made_by(commit));
        }
        for Introducer { commit, brought, .. } in introducers {
            let commit = *commit;
            for (path, _) in brought.iter().filter(|(_, id)| lost.contains(id)) {
                let path = SyncPath::new(path.clone()).ok();
                let number = path.as_ref().and_then(|path| self.number(path, commit));
                if number.is_some() {
                    affected.insert(Affected { path, number, commit });
                    continue;
                }
                // A folder, or the revision itself: what it changed.
                let made = self.made_by(commit);
                if made.is_empty() {
                    affected.insert(Affected { path, number, commit });
                }
                affected.extend(made);
            }
        }
        affected.into_iter().collect()
    }

    /// The revisions that a commit made.
    fn made_by(&self, commit: CommitId) -> Vec<Affected> {
        let rows = self.index.as_ref().and_then(|index| index.made_by(commit).ok()).unwrap_or_default();
        rows.into_iter().map(|row| Affected { path: Some(row.path), number: row.number, commit }).collect()
    }

    /// The commits that the index knows of and that cannot be read: of those before one that is lost, nothing else tells.
    fn unread(&self, sound: &Sound, introducers: &[Introducer]) -> Vec<CommitId> {
        let is_lost =
            |introducer: &Introducer| introducer.brought.iter().any(|(_, id)| *id == introducer.commit.into());
        let Some(index) = self.index.as_ref().filter(|_| introducers.iter().any(is_lost)) else { return Vec::new() };
        let (mut unread, mut buffer) = (Vec::new(), Vec::new());
        let listed = index.each_commit(&mut |id| {
            if sound.read(ObjectKind::Commit, &id.into(), &mut buffer).is_err() {
                unread.push(id);
            }
        });
        // What it could not tell is not named.
        drop(listed);
        unread
    }

    fn number(&self, path: &SyncPath, commit: CommitId) -> Option<u64> {
        let index = self.index.as_ref()?;
        let key = index.key(commit).ok()??;
        let row = index.newest_revisions(path, &key.next(), 1).ok()?.pop()?;
        row.number.filter(|_| row.key == key)
    }
}
