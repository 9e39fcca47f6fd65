//! What has to be done to bring the disk to a new state: looked at, decided, but not done.
//!
//! A plan only reads. For each path it compares the disk with what the table says was last there:
//! - equal: what is there is in history, so it may be replaced or removed, and becomes a step;
//! - different: a *surprise*. It must be captured before anything else happens at that path, and then planned again;
//! - it cannot be captured (it is ignored, a special file, in a nested repository) or the new state cannot stand here
//!   (a name that is too long): *refused*, and reported. The rest goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::error::WorktreeError;
use super::folders::{Blocked, Folders};
use super::ignore::{self, Above};
use super::root::{FOLDER, Form, MAX_NAME, MAX_PATH, Names, Root, Status};
use super::stage;
use crate::clock::Timestamp;
use crate::entry::{Entry, Fingerprint, Kind};
use crate::path::{self, SyncPath};
use crate::table::DiskTable;

/// What shall become of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub path: SyncPath,
    /// What the disk held when it was last known: what the table has there.
    pub old: Option<Entry>,
    /// What it shall hold. The same as `old`, where only the time is to be set.
    pub new: Option<Entry>,
    /// The modification time it shall have, where that is known; not for empty folders.
    pub mtime: Option<Timestamp>,
}

/// A path at which nothing can be done here, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where.
    pub path: SyncPath,
    /// Why.
    pub why: WhyRefused,
}

/// Why nothing can be done at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyRefused {
    /// A name is longer than file systems take.
    NameTooLong,
    /// The path is longer than the system takes.
    PathTooLong,
    /// A name that foldersync keeps for files that it is about to put in place.
    Reserved,
    /// What stands there is not in history, and never will be, as it is ignored here.
    Ignored,
    /// A special file stands there: the words for it.
    Special(&'static str),
    /// It lies in a repository of its own.
    NestedRepository,
    /// Something stands in the folder that the file is to replace, and cannot be captured or is not to go.
    InTheWay(Vec<u8>),
    /// A symlink with a target that no file system takes.
    LinkTarget,
    /// A content that makes no sense: why.
    Content(String),
    /// The system refused: the number of its error.
    System(i32),
}

/// As a clause: `an ignored file stands there`.
impl fmt::Display for WhyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTooLong => write!(f, "a name longer than {MAX_NAME} bytes"),
            Self::PathTooLong => write!(f, "a path longer than {MAX_PATH} bytes"),
            Self::Reserved => f.write_str("a name that foldersync keeps for files it is writing"),
            Self::Ignored => f.write_str("what stands there is ignored here and in no revision: move it away"),
            Self::Special(what) => write!(f, "{what} stands there"),
            Self::NestedRepository => f.write_str("it lies in a nested git repository"),
            Self::InTheWay(path) => write!(f, "{} is in the way: move it away", path::quote(path)),
            Self::LinkTarget => f.write_str("a symlink whose target is empty, has a NUL byte or is too long"),
            Self::Content(why) => f.write_str(why),
            Self::System(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// What to do, and where it cannot be done; spent by [`apply`](super::apply()).
#[derive(Debug, Default)]
pub struct ApplyPlan {
    pub(super) steps: Vec<Step>,
    /// Where the disk is not what the table says, in order: to be captured, then planned again. Nothing will be done
    /// there.
    pub surprises: Vec<SyncPath>,
    /// Where nothing can be done.
    pub refused: Vec<Refused>,
}

impl ApplyPlan {
    /// How many paths have something to be done, be it only in the table.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// One thing to do.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) path: SyncPath,
    pub(super) action: Action,
}

/// What must stand at a path for a step to be done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    Nothing,
    Leaf(Kind, Fingerprint),
    EmptyFolder,
}

/// A file that another takes the place of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replaced {
    pub(super) entry: Entry,
    /// Its permissions.
    pub(super) mode: u32,
}

#[derive(Debug)]
pub(super) enum Action {
    /// A file or symlink takes its place; in place of a file, with the permissions of that.
    Write { entry: Entry, mtime: Option<Timestamp>, expect: Expect, replaces: Option<Replaced> },
    /// A folder is made, if it is not there.
    MakeFolder,
    /// Only the time, or whether it can be executed, changes.
    Touch { entry: Entry, mtime: Option<Timestamp>, before: (Kind, Fingerprint) },
    /// A file or symlink goes; `first`, where it stands in the way of what comes.
    Remove { kind: Kind, fingerprint: Fingerprint, first: bool },
    /// An empty folder goes, if it is empty; `first`, where it stands in the way.
    RemoveFolder { first: bool },
    /// It is gone already; not so, perhaps, the folders that this left empty.
    Gone,
    /// All is done already but for the table.
    Record(Option<Entry>),
}

/// Looks at the disk, and says what has to be done to it for `targets` (each path once).
///
/// `exclude` is the file of ignore rules that [`scan`](super::scan()) is given too. Fails only where the folder cannot
/// be read at all.
pub fn plan(
    root: &Root,
    table: &DiskTable,
    exclude: &[u8],
    mut targets: Vec<Target>,
) -> Result<ApplyPlan, WorktreeError> {
    targets.sort_by(|a, b| a.path.cmp(&b.path));
    let mut planner = Planner {
        root,
        table,
        folders: Folders::new(root),
        left_out: LeavesOut { root, exclude: ignore::exclude(exclude), rules: HashMap::new(), nested: HashMap::new() },
        steps: Vec::with_capacity(targets.len()),
        removed: BTreeSet::new(),
        made: BTreeMap::new(),
        surprises: BTreeSet::new(),
        refused: BTreeMap::new(),
    };
    let mut over_folders = Vec::new();
    for target in targets {
        if let Some(over_folder) = planner.judge(target) {
            over_folders.push(over_folder);
        }
    }
    // Whether a folder can make room for a file is known once it is known what goes.
    for target in over_folders {
        planner.judge_over_folder(target);
    }
    Ok(planner.finish())
}

struct Planner<'a> {
    root: &'a Root,
    table: &'a DiskTable,
    folders: Folders<'a>,
    left_out: LeavesOut<'a>,
    steps: Vec<Step>,
    /// Paths at which nothing will stand any more, empty folders among them.
    removed: BTreeSet<SyncPath>,
    /// Paths at which something new will stand: whether it is a folder.
    made: BTreeMap<Vec<u8>, bool>,
    surprises: BTreeSet<SyncPath>,
    refused: BTreeMap<SyncPath, WhyRefused>,
}

enum Seen {
    Nothing,
    At(Status),
    Below(Vec<u8>),
    Unseen(Errno),
}

impl Planner<'_> {
    fn look(&mut self, path: &SyncPath) -> Seen {
        match self.folders.enter(path.parent(), false) {
            Ok(folder) => match statat(folder, path.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Seen::At(Status::of(&stat)),
                Err(Errno::NOENT) => Seen::Nothing,
                Err(errno) => Seen::Unseen(errno),
            },
            Err(Blocked::Missing) => Seen::Nothing,
            Err(Blocked::Leaf(at)) => Seen::Below(at),
            Err(Blocked::System(_, errno)) => Seen::Unseen(errno),
        }
    }

    fn step(&mut self, path: SyncPath, action: Action) {
        match action {
            Action::Write { .. } => drop(self.made.insert(path.as_bytes().to_vec(), false)),
            Action::MakeFolder => drop(self.made.insert(path.as_bytes().to_vec(), true)),
            Action::Remove { .. } | Action::RemoveFolder { .. } => drop(self.removed.insert(path.clone())),
            Action::Touch { .. } | Action::Gone | Action::Record(_) => {}
        }
        self.steps.push(Step { path, action });
    }

    fn refuse(&mut self, path: &SyncPath, why: WhyRefused) {
        self.refused.entry(path.clone()).or_insert(why);
    }

    /// What stands at `at` is not what the table says: it has to be captured, if that is possible.
    fn surprise(&mut self, path: &SyncPath, at: SyncPath, folder: bool) {
        if self.left_out.is_ignored(&at, folder) {
            self.refuse(
                path,
                if at == *path { WhyRefused::Ignored } else { WhyRefused::InTheWay(at.as_bytes().into()) },
            );
        } else {
            self.surprises.insert(at);
        }
    }

    /// Decides about one target; hands it back, if it is to replace a folder that is not simply empty.
    fn judge(&mut self, target: Target) -> Option<Target> {
        let Target { path, old, new, mtime } = target;
        if new.is_some() {
            let cannot_stand = if path.names().any(|name| name.len() > MAX_NAME) {
                Some(WhyRefused::NameTooLong)
            } else if path.as_bytes().len() > MAX_PATH {
                Some(WhyRefused::PathTooLong)
            } else {
                path.names().any(stage::is_beside).then_some(WhyRefused::Reserved)
            };
            if let Some(why) = cannot_stand {
                self.refuse(&path, why);
                return None;
            }
        }
        let seen = self.look(&path);
        if !matches!(seen, Seen::Nothing) && self.left_out.is_nested(path.parent()) {
            self.refuse(&path, WhyRefused::NestedRepository);
            return None;
        }
        match seen {
            Seen::Unseen(errno) => self.refuse(&path, WhyRefused::System(errno.raw_os_error())),
            Seen::Nothing => match (old, new) {
                (_, None) if self.table.get(path.parent()).is_none() => self.step(path, Action::Gone),
                (_, None) => self.step(path, Action::Record(None)),
                // A run that was killed may have made room for what is of another form. (A person's deletion would
                // lose against the change in any case.)
                (Some(old), Some(new)) if (old.kind == Kind::EmptyFolder) == (new.kind == Kind::EmptyFolder) => {
                    self.surprises.insert(path);
                }
                (_, Some(_)) if self.left_out.is_nested(path.parent()) => {
                    self.refuse(&path, WhyRefused::NestedRepository);
                }
                (_, Some(new)) => self.make(path, new, mtime, Expect::Nothing, None),
            },
            Seen::Below(at) => {
                let at = SyncPath::new(at).expect("the beginning of a path");
                match new {
                    None => self.step(path, Action::Record(None)),
                    Some(new) if self.removed.contains(&at) => self.make(path, new, mtime, Expect::Nothing, None),
                    Some(_) => match self.root.status(&at) {
                        Ok(Some(Status { form: Form::Special(what), .. })) => {
                            self.refuse(&path, WhyRefused::Special(what));
                        }
                        // It is what the table says, yet the new state does not take it away.
                        Ok(Some(now)) if self.table.get(at.as_bytes()).is_some_and(|row| now.is(row, self.table)) => {
                            self.refuse(&path, WhyRefused::InTheWay(at.as_bytes().to_vec()));
                        }
                        _ => self.surprise(&path, at, false),
                    },
                }
            }
            Seen::At(status) => match status.form {
                Form::Special(what) => self.refuse(&path, WhyRefused::Special(what)),
                Form::Leaf(kind) => self.judge_leaf(path, old, new, mtime, &status, kind),
                Form::Folder => match (old, new) {
                    (None, None) => {}
                    (Some(Entry { kind: Kind::EmptyFolder, .. }), None) => {
                        self.step(path, Action::RemoveFolder { first: false });
                    }
                    (None | Some(Entry { kind: Kind::EmptyFolder, .. }), Some(new)) => {
                        if new.kind == Kind::EmptyFolder {
                            self.step(path, Action::MakeFolder);
                        } else {
                            return Some(Target { path, old, new: Some(new), mtime });
                        }
                    }
                    // The file is gone, and what stands there now is nobody's business but this folder's.
                    (Some(_), None) if self.left_out.is_ignored(&path, true) => self.step(path, Action::Record(None)),
                    (Some(_), _) => self.surprise(&path.clone(), path, true),
                },
            },
        }
        None
    }

    fn judge_leaf(
        &mut self,
        path: SyncPath,
        old: Option<Entry>,
        new: Option<Entry>,
        mtime: Option<Timestamp>,
        status: &Status,
        kind: Kind,
    ) {
        let table = self.table;
        let known = table.get(path.as_bytes()).filter(|row| Some(row.entry) == old && status.is(row, table));
        let (Some(known), fingerprint) = (known, status.fingerprint) else {
            match (old, new) {
                (None, None) => {}
                // It is to go, but what stands there is in no revision and will be in none: it stays, unversioned.
                (_, None) if self.left_out.is_ignored(&path, false) => self.step(path, Action::Record(None)),
                _ => self.surprise(&path.clone(), path, false),
            }
            return;
        };
        match new {
            None => self.step(path, Action::Remove { kind, fingerprint, first: false }),
            Some(new) if new.kind == Kind::EmptyFolder => {
                self.step(path.clone(), Action::Remove { kind, fingerprint, first: true });
                self.step(path, Action::MakeFolder);
            }
            Some(new) if new.id == known.entry.id && (new.kind == kind || (new.kind.is_file() && kind.is_file())) => {
                let mtime = mtime.filter(|&mtime| mtime != status.mtime);
                if new.kind != kind || mtime.is_some() {
                    self.step(path, Action::Touch { entry: new, mtime, before: (kind, fingerprint) });
                }
            }
            Some(new) => {
                let replaces = kind.is_file().then_some(Replaced { entry: known.entry, mode: status.mode });
                self.make(path, new, mtime, Expect::Leaf(kind, fingerprint), replaces);
            }
        }
    }

    fn make(
        &mut self,
        path: SyncPath,
        new: Entry,
        mtime: Option<Timestamp>,
        expect: Expect,
        replaces: Option<Replaced>,
    ) {
        if new.kind == Kind::EmptyFolder {
            self.step(path, Action::MakeFolder);
        } else {
            self.step(path, Action::Write { entry: new, mtime, expect, replaces });
        }
    }

    /// Decides about a file that is to stand where a folder stands: all that is in the folder must be going.
    fn judge_over_folder(&mut self, target: Target) {
        let Target { path, old, new, mtime } = target;
        let Some(new) = new else { return };
        let (found_surprises, found_refusals) = (self.surprises.len(), self.refused.len());
        let mut empty = true;
        let mut folders = vec![path.clone()];
        while let Some(folder) = folders.pop() {
            let mut names = Names::default();
            match self.root.open_at(folder.as_bytes(), FOLDER).and_then(|fd| names.read(fd.as_fd())) {
                Ok(()) => {}
                Err(errno) => return self.refuse(&path, WhyRefused::System(errno.raw_os_error())),
            }
            empty &= names.is_empty();
            if names.is_empty() && folder != path && !self.removed.contains(&folder) {
                self.surprise(&path, folder.clone(), true);
            }
            for index in 0..names.len() {
                let in_the_way = || [folder.as_bytes(), b"/", names.name(index)].concat();
                let Ok(inner) = folder.join(names.name(index)) else {
                    return self.refuse(&path, WhyRefused::InTheWay(in_the_way()));
                };
                if names.is_folder(index) {
                    folders.push(inner);
                } else if !self.removed.contains(&inner) {
                    match self.root.status(&inner) {
                        Ok(None) => {}
                        Ok(Some(now)) if matches!(now.form, Form::Leaf(_)) && !self.is_known(&inner, &now) => {
                            self.surprise(&path, inner, false);
                        }
                        _ => return self.refuse(&path, WhyRefused::InTheWay(in_the_way())),
                    }
                }
            }
        }
        if (self.surprises.len(), self.refused.len()) == (found_surprises, found_refusals) {
            let was_folder = old.is_some_and(|old| old.kind == Kind::EmptyFolder);
            let expect = if empty && was_folder { Expect::EmptyFolder } else { Expect::Nothing };
            if empty && !was_folder {
                // Nothing says that this folder was known.
                return self.surprise(&path.clone(), path, true);
            }
            self.make(path, new, mtime, expect, None);
        }
    }

    fn is_known(&self, path: &SyncPath, now: &Status) -> bool {
        self.table.get(path.as_bytes()).is_some_and(|row| now.is(row, self.table))
    }

    fn finish(mut self) -> ApplyPlan {
        let made = &self.made;
        for Step { path, action } in &mut self.steps {
            let below_file = || path.ancestors().any(|above| made.get(above.as_bytes()) == Some(&false));
            let above_new = || {
                let inside = [path.as_bytes(), b"/"].concat();
                made.range(inside.clone()..).next().is_some_and(|(made, _)| made.starts_with(&inside))
            };
            match action {
                Action::Remove { first, .. } => *first |= below_file() || above_new(),
                Action::RemoveFolder { first } => *first |= below_file(),
                _ => {}
            }
        }
        self.steps.retain(|step| !self.surprises.contains(&step.path) && !self.refused.contains_key(&step.path));
        let refused = self.refused.into_iter().map(|(path, why)| Refused { path, why }).collect();
        ApplyPlan { steps: self.steps, surprises: self.surprises.into_iter().collect(), refused }
    }
}

/// What a scan leaves out, asked path by path.
struct LeavesOut<'a> {
    root: &'a Root,
    exclude: Above,
    /// The rules that hold in a folder; none, if it is itself ignored or its rules cannot be read.
    rules: HashMap<Vec<u8>, Option<Above>>,
    nested: HashMap<Vec<u8>, bool>,
}

impl LeavesOut<'_> {
    fn is_ignored(&mut self, path: &SyncPath, folder: bool) -> bool {
        match self.rules(path.parent()) {
            None => true,
            Some(rules) => ignore::is_ignored(&rules, path.as_bytes(), folder),
        }
    }

    fn rules(&mut self, folder: &[u8]) -> Option<Above> {
        if let Some(rules) = self.rules.get(folder) {
            return rules.clone();
        }
        let rules = if folder.is_empty() {
            ignore::descend(self.root, folder, &self.exclude).ok()
        } else {
            let parent = &folder[..folder.iter().rposition(|&byte| byte == b'/').unwrap_or(0)];
            let above = self.rules(parent).filter(|rules| !ignore::is_ignored(rules, folder, true));
            above.and_then(|rules| ignore::descend(self.root, folder, &rules).ok())
        };
        self.rules.insert(folder.to_vec(), rules.clone());
        rules
    }

    /// Whether the folder, or one above it, is a repository of its own.
    fn is_nested(&mut self, folder: &[u8]) -> bool {
        if folder.is_empty() {
            return false;
        }
        if let Some(&nested) = self.nested.get(folder) {
            return nested;
        }
        let parent = &folder[..folder.iter().rposition(|&byte| byte == b'/').unwrap_or(0)];
        let has = |fd: &std::os::fd::OwnedFd, name: &[u8]| statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let nested = self.is_nested(parent)
            || self
                .root
                .open_at(folder, FOLDER)
                .is_ok_and(|fd| has(&fd, b".git") || has(&fd, path::ALONGSIDE.as_bytes()));
        self.nested.insert(folder.to_vec(), nested);
        nested
    }
}
