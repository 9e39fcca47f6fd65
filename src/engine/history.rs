//! The history of a folder, one file at a time: what revisions there are, which one is meant, what the folder held then.
//!
//! Reads only, and all of it offline: the answers come from the objects, found through the history index, which is
//! brought up to the head first and made anew where it turns out to be damaged. Writes nothing to the folder; what shall
//! be brought back is told as edits, for the engine to record as new revisions.
//!
//! # What a time, and a commit, stand for
//! The state of the folder *at a time* is what its devices held then. Each commit has a date that never contradicts
//! ancestry (see [`crate::store::history`]); the commits up to that date have one tip, or several where devices worked
//! apart. One: the state is its tree. Several: where they hold the same, that; elsewhere the newest revision of the path
//! up to then that one of them holds, and a folder keeps its name against a file. So nothing that one device had then is
//! missing because another one worked last. It is a function of the commits alone.
//!
//! A file *at a time* is that revision of it; *at a commit*, the revision that the commit's tree holds; the *latest* is
//! the one that the head holds. That need not be the last by number: a file that was deleted on one side and changed on
//! another stays, with the change, though the deletion may be counted later.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::report::Revision;
use super::revspec::{FileRev, RevError, RevSpec};
use crate::change::Edit;
use crate::clock::Timestamp;
use crate::entry::{Entry, Kind};
use crate::id::{CommitId, TreeId};
use crate::monitor::Monitor;
use crate::path::SyncPath;
use crate::store::history::{HistoryIndex, Key, Row, Verb};
use crate::store::large;
use crate::store::tree;
use crate::store::{Commit, ObjectKind, Objects, StoreError};

/// What can be wrong with a question about history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The repository, or its index, failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A revision or a path cannot be made out.
    #[error(transparent)]
    Rev(#[from] RevError),
    /// No such file is, or ever was, in the folder.
    #[error("`{path}` is not, and never was, in the folder{}", suggestion(near))]
    NoSuchPath {
        /// What was asked for.
        path: SyncPath,
        /// Names like it.
        near: Vec<SyncPath>,
    },
    /// It is a folder, and revisions are of files.
    #[error("`{path}` is a folder, and revisions are of files: name a file in it, or use `restore --at TIME {path}`")]
    IsFolder {
        /// What was asked for.
        path: SyncPath,
    },
    /// It has fewer revisions.
    #[error("there is no `{path}@{spec}`: it has only {} (see `log {path}`)", revisions(*count))]
    NoSuchNumber {
        /// The file.
        path: SyncPath,
        /// What was asked for.
        spec: RevSpec,
        /// How many revisions it has.
        count: u64,
    },
    /// It had no revision yet.
    #[error("`{path}` was not in the folder yet at `{spec}`")]
    NothingThen {
        /// The file.
        path: SyncPath,
        /// What was asked for.
        spec: RevSpec,
    },
    /// The folder had no revision yet.
    #[error("the folder had no revision yet then: its history begins later")]
    NoFolderThen,
    /// The commit's tree does not have the file.
    #[error("`{path}` was not in the folder at commit {}", commit.short())]
    NotInCommit {
        /// The file.
        path: SyncPath,
        /// The commit.
        commit: CommitId,
    },
    /// No commit of this folder has such an id.
    #[error("no revision of this folder has a commit id that begins with `{digits}`")]
    NoSuchCommit {
        /// What was asked for.
        digits: String,
    },
    /// Several commits do.
    #[error("several commit ids begin with `{digits}`: {} and {}, for example; give more digits", found[0], found[1])]
    AmbiguousCommit {
        /// What was asked for.
        digits: String,
        /// Two of them.
        found: [CommitId; 2],
    },
    /// A deletion has no content.
    #[error("`{path}` was deleted at that revision and has no content{}", before(*number, path))]
    Deleted {
        /// The file.
        path: SyncPath,
        /// The number of the deletion.
        number: Option<u64>,
    },
    /// Numbers count the revisions of one file, not of the folder.
    #[error(
        "`{spec}` counts the revisions of one file; for the folder give a time (`2026-11-01`, `2 hours ago`) or a commit id"
    )]
    NoPoint {
        /// What was asked for.
        spec: RevSpec,
    },
    /// The content could not be written to where it was asked for.
    #[error("failed to write the content: {0}")]
    Write(#[source] io::Error),
}

fn suggestion(near: &[SyncPath]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let names: Vec<_> = near.iter().map(|path| format!("`{path}`")).collect();
    format!("; did you mean {}?", names.join(" or "))
}

fn revisions(count: u64) -> String {
    if count == 1 { "1 revision".to_owned() } else { format!("{count} revisions") }
}

fn before(number: Option<u64>, path: &SyncPath) -> String {
    match number {
        Some(number @ 2..) => format!("; `{path}@{}` is the one before", number - 1),
        _ => String::new(),
    }
}

/// A state of the whole folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Of this commit.
    Commit(CommitId),
    /// Of this time.
    Time(Timestamp),
}

/// How many near names are suggested.
const SUGGESTIONS: usize = 3;

/// The history that a head reaches.
pub struct History<'a> {
    objects: &'a Objects,
    index: &'a mut HistoryIndex,
    head: CommitId,
    monitor: &'a dyn Monitor,
}

impl<'a> History<'a> {
    /// Brings the index up to `head`, the folder's head as it is now (an older one would make the index go back).
    pub fn new(
        objects: &'a Objects,
        index: &'a mut HistoryIndex,
        head: CommitId,
        monitor: &'a dyn Monitor,
    ) -> Result<Self, HistoryError> {
        index.catch_up(objects, head, monitor)?;
        Ok(Self { objects, index, head, monitor })
    }

    /// Asks, and where the index turns out to be damaged, or names objects that do not exist, makes it anew and asks
    /// once more. (Where it is the repository that is damaged, making the index anew says so.)
    fn ask<T>(&mut self, question: impl Fn(&Self) -> Result<T, HistoryError>) -> Result<T, HistoryError> {
        match question(self) {
            Err(HistoryError::Store(error))
                if HistoryIndex::is_damaged_by(&error) || matches!(error, StoreError::Missing { .. }) =>
            {
                self.index.begin_anew()?;
                self.index.catch_up(self.objects, self.head, self.monitor)?;
                question(self)
            }
            answer => answer,
        }
    }

    /// The newest revisions, newest first, at most `limit`: of a file, of all files below a folder, or of the whole
    /// folder. Only a file's are numbered.
    ///
    /// A file that came to be by a rename goes on with the revisions of its old name up to then. They carry that path,
    /// and its numbers: `NEW@N` counts what was called `NEW`.
    pub fn log(&mut self, path: Option<&SyncPath>, limit: usize) -> Result<Vec<Revision>, HistoryError> {
        self.ask(|history| history.read_log(path, limit))
    }

    fn read_log(&self, path: Option<&SyncPath>, limit: usize) -> Result<Vec<Revision>, HistoryError> {
        let mut reader = Reader { objects: self.objects, last: None };
        let Some(path) = path else { return reader.revisions(self.index.folder_log(None, limit)?) };
        if self.index.count(path)? == 0 {
            let below = self.index.folder_log(Some(path), limit)?;
            if below.is_empty() && limit > 0 {
                return Err(self.no_such_path(path)?);
            }
            return reader.revisions(below);
        }
        let (mut path, mut before, mut log) = (path.clone(), Key::END, Vec::new());
        loop {
            let rows = self.index.newest_revisions(&path, &before, limit - log.len())?;
            let first = rows.last().filter(|row| row.number == Some(1)).cloned();
            log.extend(reader.revisions(rows)?);
            // The keys of what follows are less than the rename's, so this ends.
            match first.map(|first| self.renamed_from(&first)).transpose()?.flatten() {
                Some((old, key)) if log.len() < limit => (path, before) = (old, key),
                _ => return Ok(log),
            }
        }
    }

    /// The name that a path had before the addition `row`, if that was a rename: its message says so, and there the same
    /// content stood.
    fn renamed_from(&self, row: &Row) -> Result<Option<(SyncPath, Key)>, HistoryError> {
        let Some(entry) = row.entry.filter(|_| row.verb == Verb::Add) else { return Ok(None) };
        let commit = self.objects.commit(row.key.commit)?;
        let (Some(old), [parent]) = (commit.message().renamed_from, &commit.parents[..]) else { return Ok(None) };
        let stood = leaf(self.objects, self.objects.commit(*parent)?.tree, &old)?;
        Ok(stood.is_some_and(|stood| stood.id == entry.id).then_some((old, row.key)))
    }

    /// The revision that is meant, with `now` and `tz` of who asks; nothing said means the latest. It may be a deletion.
    pub fn resolve(&mut self, file: &FileRev, now: Timestamp, tz: &TimeZone) -> Result<Revision, HistoryError> {
        self.ask(|history| {
            let row = history.find(file, now, tz)?;
            Reader { objects: history.objects, last: None }.revision(row)
        })
    }

    fn find(&self, file: &FileRev, now: Timestamp, tz: &TimeZone) -> Result<Row, HistoryError> {
        let path = &file.path;
        let count = self.index.count(path)?;
        if count == 0 {
            return Err(self.no_such_path_or_folder(path)?);
        }
        let no_such_number =
            |spec: &RevSpec| HistoryError::NoSuchNumber { path: path.clone(), spec: spec.clone(), count };
        let spec = file.rev.as_ref().unwrap_or(&RevSpec::Latest);
        match spec {
            RevSpec::Number(number) => self.index.revision(path, *number)?.ok_or_else(|| no_such_number(spec)),
            RevSpec::Latest => self.latest(path)?.ok_or_else(|| no_such_number(spec)),
            RevSpec::Back(back) => {
                let latest = self.latest(path)?.and_then(|row| row.number).unwrap_or(count);
                let number = latest.checked_sub(*back).ok_or_else(|| no_such_number(spec))?;
                self.index.revision(path, number)?.ok_or_else(|| no_such_number(spec))
            }
            RevSpec::Time(time) => {
                let then = time.resolve(now, tz)?;
                let tips = self.trees(&self.index.tips_at(then.secs)?)?;
                let held = self.held(path, &tips, &Key::end_of(then.secs))?;
                held.ok_or_else(|| HistoryError::NothingThen { path: path.clone(), spec: spec.clone() })
            }
            RevSpec::Commit(digits) => {
                let commit = self.commit_with(digits)?;
                let key =
                    self.index.key(commit)?.ok_or_else(|| HistoryError::NoSuchCommit { digits: digits.clone() })?;
                let held = self.held(path, &self.trees(&[commit])?, &key.next())?;
                held.ok_or_else(|| HistoryError::NotInCommit { path: path.clone(), commit })
            }
        }
    }

    /// The revision that the head holds.
    fn latest(&self, path: &SyncPath) -> Result<Option<Row>, HistoryError> {
        match self.held(path, &self.trees(&[self.head])?, &Key::END)? {
            Some(row) => Ok(Some(row)),
            // A merge that took away what one side had added has no revision of the path.
            None => Ok(self.index.newest(path, &Key::END, &|_| true)?),
        }
    }

    /// The newest revision of a path before `before` that one of these trees holds.
    fn held(&self, path: &SyncPath, trees: &[TreeId], before: &Key) -> Result<Option<Row>, HistoryError> {
        let entries =
            trees.iter().map(|&tree| leaf(self.objects, tree, path)).collect::<Result<Vec<Option<Entry>>, _>>()?;
        Ok(self.index.newest(path, before, &|row| entries.contains(&row.entry))?)
    }

    fn trees(&self, commits: &[CommitId]) -> Result<Vec<TreeId>, HistoryError> {
        commits.iter().map(|&commit| Ok(self.objects.commit(commit)?.tree)).collect()
    }

    fn commit_with(&self, digits: &str) -> Result<CommitId, HistoryError> {
        match self.index.commits_with_prefix(digits, 2)?[..] {
            [] => Err(HistoryError::NoSuchCommit { digits: digits.to_owned() }),
            [commit] => Ok(commit),
            [one, other, ..] => Err(HistoryError::AmbiguousCommit { digits: digits.to_owned(), found: [one, other] }),
        }
    }

    fn no_such_path_or_folder(&self, path: &SyncPath) -> Result<HistoryError, HistoryError> {
        if self.index.folder_log(Some(path), 1)?.is_empty() {
            self.no_such_path(path)
        } else {
            Ok(HistoryError::IsFolder { path: path.clone() })
        }
    }

    /// With the names that are most like it: the same but for case or folder, or else a letter or two apart.
    fn no_such_path(&self, path: &SyncPath) -> Result<HistoryError, HistoryError> {
        let name = |path: &[u8]| path.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_ascii_lowercase();
        let wanted = name(path.as_bytes());
        let same = |other: &[u8]| name(other) == wanted;
        let alike = |other: &[u8]| wanted.len() > 2 && distance(&name(other), &wanted) <= 2;
        let mut near = self.index.search(&same, SUGGESTIONS)?;
        if near.is_empty() {
            near = self.index.search(&alike, SUGGESTIONS)?;
        }
        Ok(HistoryError::NoSuchPath { path: path.clone(), near })
    }

    /// Writes the content of a revision: a file's bytes, a link's target, nothing for an empty folder.
    pub fn content(&self, revision: &Revision, out: &mut dyn Write) -> Result<(), HistoryError> {
        let deleted = || HistoryError::Deleted { path: revision.path.clone(), number: revision.number };
        let id = revision.content.ok_or_else(deleted)?;
        if revision.kind == Some(Kind::EmptyFolder) {
            return Ok(());
        }
        if revision.kind != Some(Kind::Symlink) {
            self.objects.copy_file(&id, out)?;
            return Ok(());
        }
        let mut content = Vec::new();
        self.objects.read(ObjectKind::Blob, &id, &mut content)?;
        out.write_all(&content).map_err(HistoryError::Write)
    }

    /// The state of the folder that a revision stands for, if it is one that a folder can have.
    pub fn point(&mut self, spec: &RevSpec, now: Timestamp, tz: &TimeZone) -> Result<Point, HistoryError> {
        match spec {
            RevSpec::Latest => Ok(Point::Commit(self.head)),
            RevSpec::Time(time) => Ok(Point::Time(time.resolve(now, tz)?)),
            RevSpec::Commit(digits) => self.ask(|history| history.commit_with(digits)).map(Point::Commit),
            RevSpec::Number(_) | RevSpec::Back(_) => Err(HistoryError::NoPoint { spec: spec.clone() }),
        }
    }

    /// The newest commit up to a time, by the order of the index; none before the first.
    pub fn newest_at(&mut self, time: Timestamp) -> Result<Option<CommitId>, HistoryError> {
        self.ask(|history| Ok(history.index.tips_at(time.secs)?.first().copied()))
    }

    /// The edits of the head that bring the folder, or what stands at and below `at_path`, back to how it was at
    /// `point`: sorted by path, one a path, none for what is so already. What came later is removed. (Whoever makes
    /// them one by one removes first: a file may have to make way for a folder, or the other way.)
    pub fn restore_selection(&mut self, point: Point, at_path: Option<&SyncPath>) -> Result<Vec<Edit>, HistoryError> {
        self.ask(|history| history.select(point, at_path))
    }

    fn select(&self, point: Point, at_path: Option<&SyncPath>) -> Result<Vec<Edit>, HistoryError> {
        let (tips, before) = match point {
            Point::Commit(commit) => (vec![commit], Key::END),
            Point::Time(time) => (self.index.tips_at(time.secs)?, Key::end_of(time.secs)),
        };
        let trees = self.trees(&tips)?;
        let (Some(&newest), head) = (trees.first(), self.objects.commit(self.head)?.tree) else {
            return Err(HistoryError::NoFolderThen);
        };
        if let Some(path) = at_path
            && self.index.count(path)? == 0
            && self.index.folder_log(Some(path), 1)?.is_empty()
        {
            return Err(self.no_such_path(path)?);
        }
        let inside = |path: &SyncPath| at_path.is_none_or(|at| path == at || path.is_below(at));
        let mut wanted = self.changes(head, newest, &inside)?;
        let mut apart: BTreeSet<SyncPath> = BTreeSet::new();
        for &tree in &trees[1..] {
            apart.extend(self.changes(newest, tree, &inside)?.into_keys());
        }
        let mut decided: BTreeMap<SyncPath, Option<Entry>> = BTreeMap::new();
        for path in apart {
            let entry = match self.held(&path, &trees, &before)? {
                Some(row) => row.entry,
                None => leaf(self.objects, newest, &path)?,
            };
            decided.insert(path, entry);
        }
        // A folder keeps its name against a file, and is not empty when something is in it.
        let folders: BTreeSet<SyncPath> =
            decided.iter().filter(|(_, entry)| entry.is_some()).flat_map(|(path, _)| path.ancestors()).collect();
        for (path, mut entry) in decided {
            if folders.contains(&path) {
                entry = None;
            }
            if leaf(self.objects, head, &path)? == entry {
                wanted.remove(&path);
            } else {
                wanted.insert(path, entry);
            }
        }
        // What stands above the path now, a file where a folder was, has to make way.
        let above: BTreeSet<SyncPath> = wanted
            .iter()
            .filter(|(_, entry)| entry.is_some())
            .flat_map(|(path, _)| path.ancestors())
            .filter(|folder| !inside(folder))
            .collect();
        for folder in above {
            if leaf(self.objects, head, &folder)?.is_some() {
                wanted.insert(folder, None);
            }
        }
        Ok(wanted.into_iter().map(|(path, entry)| Edit { path, entry }).collect())
    }

    /// What stands in `new` at each path inside where it differs from `old`.
    fn changes(
        &self,
        old: TreeId,
        new: TreeId,
        inside: &dyn Fn(&SyncPath) -> bool,
    ) -> Result<BTreeMap<SyncPath, Option<Entry>>, HistoryError> {
        let mut changes = BTreeMap::new();
        tree::diff(self.objects, Some(old), Some(new), &mut |change| {
            if inside(&change.path) {
                // A file and an empty folder that change places are told as two changes of one path.
                let entry = changes.entry(change.path).or_insert(None);
                *entry = entry.or(change.new);
            }
            Ok(())
        })?;
        Ok(changes)
    }
}

fn leaf(objects: &Objects, tree: TreeId, path: &SyncPath) -> Result<Option<Entry>, StoreError> {
    Ok(tree::lookup(objects, tree, path)?.leaf())
}

/// How many bytes have to be put in, taken out or exchanged to make one of the other.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal } else { 1 + diagonal.min(above).min(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Makes reports of rows; keeps the last commit, of which many rows may be.
struct Reader<'a> {
    objects: &'a Objects,
    last: Option<(CommitId, Commit)>,
}

impl Reader<'_> {
    fn revisions(&mut self, rows: Vec<Row>) -> Result<Vec<Revision>, HistoryError> {
        rows.into_iter().map(|row| self.revision(row)).collect()
    }

    fn revision(&mut self, row: Row) -> Result<Revision, HistoryError> {
        let id = row.key.commit;
        let commit = match self.last.take() {
            Some((last, commit)) if last == id => commit,
            _ => self.objects.commit(id)?,
        };
        let message = commit.message();
        let size = match row.entry {
            None | Some(Entry { kind: Kind::EmptyFolder, .. }) => None,
            Some(Entry { kind: Kind::Symlink, id }) => self.objects.header(&id)?.map(|(_, size)| size),
            Some(Entry { id, .. }) => large::content(self.objects, &id).ok().map(|content| content.size()),
        };
        let revision = Revision {
            number: row.number,
            commit: id,
            verb: row.verb.word().to_owned(),
            path: row.path,
            kind: row.entry.map(|entry| entry.kind),
            content: row.entry.map(|entry| entry.id),
            size,
            modified: message.mtime.unwrap_or(Timestamp::new(commit.author.time, 0)),
            captured: Timestamp::new(commit.committer.time, 0),
            device: commit.author.name.clone(),
            subject: message.subject,
            renamed_from: message.renamed_from.filter(|_| row.verb == Verb::Add),
        };
        self.last = Some((id, commit));
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Silent;
    use crate::store::history::sample::{Repository, Sample, path};
    use rstest::rstest;

    const ALL: usize = usize::MAX;

    /// The history of a sample, with its index in a file of the repository.
    struct Fixture {
        repository: Repository,
        objects: Objects,
        index: HistoryIndex,
    }

    impl Fixture {
        fn new(sample: Sample) -> Self {
            let repository = sample.build();
            let index = HistoryIndex::open(&repository.index_file()).expect("opens");
            Self { objects: repository.objects(), index, repository }
        }

        fn history(&mut self) -> History<'_> {
            History::new(&self.objects, &mut self.index, self.repository.head(), &Silent).expect("indexes")
        }

        fn log(&mut self, of: Option<&str>) -> Vec<String> {
            let log = self.history().log(of.map(path).as_ref(), ALL).expect("a log");
            let line = |revision: Revision| {
                let number = revision.number.map(|number| format!("@{number}")).unwrap_or_default();
                format!("{} {}{number}", revision.verb, revision.path)
            };
            log.into_iter().map(line).collect()
        }

        fn resolve(&mut self, arg: &str) -> Result<Revision, HistoryError> {
            let file = FileRev::parse(arg.as_bytes(), b"", false).expect("a file and a revision");
            self.history().resolve(&file, Timestamp::new(1_000_000, 0), &TimeZone::UTC)
        }

        /// The number and the content of a revision, or what is wrong.
        fn show(&mut self, arg: &str) -> String {
            let revision = match self.resolve(arg) {
                Ok(revision) => revision,
                Err(error) => return error.to_string(),
            };
            let mut content = Vec::new();
            match self.history().content(&revision, &mut content) {
                Ok(()) => format!("@{} {}", revision.number.expect("counted"), String::from_utf8_lossy(&content)),
                Err(error) => error.to_string(),
            }
        }

        /// The edits of a restore, each as `path=content` or `path-`.
        fn restore(&mut self, at: &str, below: Option<&str>) -> Result<Vec<String>, HistoryError> {
            let spec = RevSpec::parse(at).expect("a revision");
            let mut history = self.history();
            let point = history.point(&spec, Timestamp::new(1_000_000, 0), &TimeZone::UTC)?;
            let edits = history.restore_selection(point, below.map(path).as_ref())?;
            let mut buffer = Vec::new();
            let mut told = Vec::new();
            for edit in edits {
                told.push(match edit.entry {
                    None => format!("{}-", edit.path),
                    Some(entry) => {
                        self.objects.read(ObjectKind::Blob, &entry.id, &mut buffer).expect("a blob");
                        format!("{}={}", edit.path, String::from_utf8_lossy(&buffer))
                    }
                });
            }
            Ok(told)
        }
    }

    /// `a` is written at 10:00, 11:00 and (after a deletion at 12:00) 13:00 of 1970-01-01; `d/b` at 10:30.
    fn plain() -> Fixture {
        let mut sample = Sample::new();
        sample.commit(36_000, &[], "add a\n\nFoldersync-Mtime: 35000.000000007\n", &[("a", Some("one"))]);
        sample.commit(37_800, &[0], "add d/b", &[("d/b", Some("b"))]);
        sample.commit(39_600, &[1], "change a", &[("a", Some("two"))]);
        sample.commit(43_200, &[2], "delete a", &[("a", None)]);
        sample.commit(46_800, &[3], "add a", &[("a", Some("one"))]);
        Fixture::new(sample)
    }

    #[test]
    fn logs_one_file_newest_first() {
        let mut fixture = plain();
        assert_eq!(fixture.log(Some("a")), ["add a@4", "delete a@3", "change a@2", "add a@1"]);
        let log = fixture.history().log(Some(&path("a")), 2).expect("a log");
        assert_eq!(log.iter().map(|revision| revision.number).collect::<Vec<_>>(), [Some(4), Some(3)]);
        assert!(fixture.history().log(Some(&path("a")), 0).expect("a log").is_empty());
    }

    #[test]
    fn a_revision_says_all_that_is_known_of_it() {
        let mut fixture = plain();
        let first = fixture.resolve("a@1").expect("a revision");
        assert_eq!(first.size, Some(3));
        assert_eq!(first.modified, Timestamp::new(35_000, 7));
        assert_eq!(first.captured, Timestamp::new(36_000, 0));
        assert_eq!((first.device.as_str(), first.subject.as_str()), ("laptop", "add a"));
        assert_eq!((first.kind, first.commit), (Some(Kind::File), fixture.repository.ids[0]));
        let deletion = fixture.resolve("a@3").expect("a revision");
        assert_eq!((deletion.kind, deletion.content, deletion.size), (None, None, None));
        assert_eq!(deletion.modified, Timestamp::new(43_190, 0));
    }

    #[test]
    fn logs_a_folder_and_the_whole() {
        let mut fixture = plain();
        assert_eq!(fixture.log(None), ["add a", "delete a", "change a", "add d/b", "add a"]);
        assert_eq!(fixture.log(Some("d")), ["add d/b"]);
    }

    #[rstest]
    #[case("a", "@4 one")]
    #[case("a@2", "@2 two")]
    #[case("a@latest", "@4 one")]
    #[case("a@-2", "@2 two")]
    #[case("a@-1", "`a` was deleted at that revision and has no content; `a@2` is the one before")]
    #[case("a@-4", "there is no `a@-4`: it has only 4 revisions (see `log a`)")]
    #[case("a@5", "there is no `a@5`: it has only 4 revisions (see `log a`)")]
    #[case("d/b@2", "there is no `d/b@2`: it has only 1 revision (see `log d/b`)")]
    #[case("a@1970-01-01 10:59", "@1 one")]
    #[case("a@1970-01-01 11:00", "@2 two")]
    #[case("a@1970-01-01", "@4 one")]
    #[case("a@yesterday", "@4 one")]
    #[case("a@1970-01-01 09:00", "`a` was not in the folder yet at `1970-01-01 09:00`")]
    #[case("A", "`A` is not, and never was, in the folder; did you mean `a`?")]
    #[case("other/b@1", "`other/b` is not, and never was, in the folder; did you mean `d/b`?")]
    #[case("nothing", "`nothing` is not, and never was, in the folder")]
    #[case("a@0123456789", "there is no `a@123456789`: it has only 4 revisions (see `log a`)")]
    #[case("d@1", "`d` is a folder, and revisions are of files: name a file in it, or use `restore --at TIME d`")]
    #[case("a@fffffff", "no revision of this folder has a commit id that begins with `fffffff`")]
    fn finds_what_is_meant_or_says_why_not(#[case] arg: &str, #[case] expected: &str) {
        assert_eq!(plain().show(arg), expected);
    }

    #[test]
    fn a_commit_means_the_file_as_it_was_there() {
        let mut fixture = plain();
        let at = |place: usize, fixture: &Fixture| format!("a@{}", fixture.repository.ids[place]);
        let args: Vec<_> = (0..5).map(|place| at(place, &fixture)).collect();
        let shown: Vec<_> = args.iter().map(|arg| fixture.show(arg)).collect();
        let deleted = "`a` was deleted at that revision and has no content; `a@2` is the one before";
        assert_eq!(shown, ["@1 one", "@1 one", "@2 two", deleted, "@4 one"]);
        let arg = format!("d/b@{}", fixture.repository.ids[0]);
        assert!(matches!(fixture.resolve(&arg), Err(HistoryError::NotInCommit { .. })));
    }

    #[test]
    fn a_log_goes_on_under_the_old_name() {
        let mut sample = Sample::new();
        sample.commit(100, &[], "add old", &[("old", Some("1"))]);
        sample.commit(101, &[0], "change old", &[("old", Some("2"))]);
        sample.commit(102, &[1], "add mid\n\nFoldersync-Renamed-From: old\n", &[("mid", Some("2"))]);
        sample.commit(103, &[2], "delete old\n\nFoldersync-Renamed-To: mid\n", &[("old", None)]);
        sample.commit(104, &[3], "add old", &[("old", Some("a stranger"))]);
        sample.commit(105, &[4], "add new\n\nFoldersync-Renamed-From: mid\n", &[("new", Some("2"))]);
        sample.commit(106, &[5], "delete mid\n\nFoldersync-Renamed-To: new\n", &[("mid", None)]);
        sample.commit(107, &[6], "change new", &[("new", Some("3"))]);
        let mut fixture = Fixture::new(sample);
        let whole = ["change new@2", "add new@1", "add mid@1", "change old@2", "add old@1"];
        assert_eq!(fixture.log(Some("new")), whole);
        let log = fixture.history().log(Some(&path("new")), 4).expect("a log");
        assert_eq!(log.len(), 4);
        assert_eq!(log[1].renamed_from, Some(path("mid")));
    }

    #[test]
    fn a_rename_that_is_only_claimed_is_not_followed() {
        let mut sample = Sample::new();
        sample.commit(100, &[], "add secret", &[("secret", Some("1"))]);
        sample.commit(101, &[0], "add x\n\nFoldersync-Renamed-From: secret\n", &[("x", Some("2"))]);
        sample.commit(102, &[1], "add y\n\nFoldersync-Renamed-From: y\n", &[("y", Some("2"))]);
        let mut fixture = Fixture::new(sample);
        assert_eq!(fixture.log(Some("x")), ["add x@1"]);
        assert_eq!(fixture.log(Some("y")), ["add y@1"]);
    }

    /// Two devices work apart from 100 to 200. Both change `both`; one changes `a` to a folder, the other changes it; one
    /// deletes `gone`, which the other never touched; each adds a file.
    fn apart() -> Fixture {
        let mut sample = Sample::new();
        let base = [("both", Some("0")), ("a", Some("0")), ("gone", Some("0"))];
        sample.commit(100, &[], "base", &base);
        sample.commit(110, &[0], "one", &[("both", Some("1")), ("one", Some("1")), ("gone", None)]);
        sample.commit(120, &[0], "two", &[("both", Some("2")), ("two", Some("2")), ("a", Some("2"))]);
        sample.commit(130, &[1], "one", &[("a", None), ("a/x", Some("1"))]);
        sample.commit(200, &[3, 2], "merge", &[("both", Some("12")), ("two", Some("2"))]);
        sample.commit(300, &[4], "later", &[("both", None), ("one", None), ("two", None), ("late", Some("9"))]);
        Fixture::new(sample)
    }

    #[rstest]
    #[case("1970-01-01T00:01:40Z", &["a=0", "a/x-", "both=0", "gone=0", "late-"])]
    #[case("1970-01-01T00:01:55Z", &["a=0", "a/x-", "both=1", "late-", "one=1"])]
    #[case("1970-01-01T00:02:05Z", &["a=2", "a/x-", "both=2", "late-", "one=1", "two=2"])]
    #[case("1970-01-01T00:02:30Z", &["both=2", "late-", "one=1", "two=2"])]
    #[case("1970-01-01T00:03:20Z", &["both=12", "late-", "one=1", "two=2"])]
    #[case("1970-01-01T00:05:00Z", &[])]
    #[case("now", &[])]
    #[case("latest", &[])]
    fn a_time_is_what_the_devices_held_then(#[case] at: &str, #[case] expected: &[&str]) {
        assert_eq!(apart().restore(at, None).expect("edits"), expected);
    }

    #[test]
    fn a_file_at_a_time_is_what_a_restore_would_bring() {
        let mut fixture = apart();
        for (second, path, content) in
            [(115, "both", "@2 1"), (125, "both", "@3 2"), (125, "one", "@1 1"), (250, "both", "@4 12")]
        {
            let arg = format!("{path}@1970-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
            assert_eq!(fixture.show(&arg), content, "{arg}");
        }
    }

    #[test]
    fn a_restore_may_be_of_a_part() {
        let mut fixture = apart();
        assert_eq!(fixture.restore("1970-01-01T00:01:40Z", Some("gone")).expect("edits"), ["gone=0"]);
        assert_eq!(fixture.restore("1970-01-01T00:01:40Z", Some("a")).expect("edits"), ["a=0", "a/x-"]);
        assert_eq!(fixture.restore("1970-01-01T00:03:20Z", Some("a")).expect("edits"), [""; 0]);
        let error = fixture.restore("1970-01-01T00:03:20Z", Some("gnoe")).expect_err("no such path");
        assert!(error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn a_file_makes_way_for_what_a_restore_brings_below_it() {
        let mut sample = Sample::new();
        sample.commit(100, &[], "add d/x", &[("d/x", Some("1"))]);
        sample.commit(101, &[0], "delete d/x", &[("d/x", None), ("keep", Some("1"))]);
        sample.commit(102, &[1], "add d", &[("d", Some("a file"))]);
        let mut fixture = Fixture::new(sample);
        assert_eq!(fixture.restore("1970-01-01T00:01:40Z", Some("d/x")).expect("edits"), ["d-", "d/x=1"]);
        let commit = fixture.repository.ids[0].to_string();
        assert_eq!(fixture.restore(&commit, None).expect("edits"), ["d-", "d/x=1", "keep-"]);
    }

    #[test]
    fn a_folder_has_no_state_before_its_first_revision_and_none_by_number() {
        let mut fixture = apart();
        let error = fixture.restore("1970-01-01T00:00:10Z", None).expect_err("nothing then");
        assert!(matches!(error, HistoryError::NoFolderThen));
        let error = fixture.restore("3", None).expect_err("not of the folder");
        assert!(error.to_string().starts_with("`3` counts the revisions of one file"), "{error}");
    }

    #[test]
    fn the_latest_is_what_the_head_holds() {
        let mut sample = Sample::new();
        sample.commit(100, &[], "add a", &[("a", Some("0"))]);
        sample.commit(110, &[0], "change a", &[("a", Some("1"))]);
        sample.commit(120, &[0], "delete a", &[("a", None)]);
        sample.commit(130, &[1, 2], "merge", &[]);
        let mut fixture = Fixture::new(sample);
        assert_eq!(fixture.log(Some("a")), ["delete a@3", "change a@2", "add a@1"]);
        assert_eq!(fixture.show("a"), "@2 1");
        assert_eq!(fixture.show("a@-1"), "@1 0");
    }

    #[test]
    fn a_damaged_index_is_mended_while_it_is_asked() {
        let mut fixture = plain();
        let expected = fixture.log(Some("a"));
        drop(fixture.index);
        // All but the first pages, where the tables' list and the head are, so that opening it does not notice.
        let file = fixture.repository.index_file();
        let mut bytes = std::fs::read(&file).expect("reads");
        assert!(bytes.len() > 5 * 4096);
        bytes[4 * 4096..].fill(0xee);
        std::fs::write(&file, bytes).expect("writes");
        fixture.index = HistoryIndex::open(&file).expect("opens");
        assert_eq!(fixture.log(Some("a")), expected);
        assert!(!fixture.index.is_temporary());
    }

    #[test]
    fn distances_are_counted_in_letters() {
        assert_eq!(
            [("", ""), ("abc", "abd"), ("abc", ""), ("notes", "ntoes")]
                .map(|(a, b)| distance(a.as_bytes(), b.as_bytes())),
            [0, 1, 3, 2]
        );
    }
}
