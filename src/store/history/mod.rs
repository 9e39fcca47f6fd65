//! The history index: which commits are revisions of which path, in a SQLite file of the repository's private folder.
//!
//! **It is derived, never the truth.** Every row is a function of the commits that the head reaches. A file that is
//! missing, damaged, of another version, or made for a head that is no ancestor of the one asked for, is begun anew;
//! one that is behind is caught up. Who holds a damaged repository loses nothing here, and nothing else reads it.
//!
//! # What is a revision of a path
//! - An ordinary commit is a revision of each path where its tree differs from its parent's (a first commit: from
//!   nothing). Foldersync's own have one such path, people's may have many.
//! - A merge is a revision of a path where its tree differs from every parent's, and of a path that its message lists
//!   as having been in conflict.
//!
//! # Their order
//! By `(date, generation, commit id)`, where `date(c)` is the greatest of `c`'s committer time and its parents' dates,
//! and `generation(c)` one more than the greatest of its parents'. It never contradicts ancestry, whatever clocks say,
//! and is a function of the commits alone: `FILE@N` is the same revision wherever the same commits are. (A clock that
//! ran ahead once makes what follows count as later, until true time has caught up with it.)
//!
//! # The file
//! A kill at any moment leaves it usable: commits go in parents first, in transactions, a commit together with all its
//! revisions, so that the commits in it are whole and closed under ancestry. `state.head` says which head they belong
//! to; that head's own row says that nothing is missing. The journal is an ordinary rollback journal, so that a finished
//! index has no companion files and can be read from a read-only disk, and `synchronous` is `NORMAL`: SQLite has no sums
//! over its pages, and a file torn by a power cut could answer wrongly without anybody noticing. Where the file cannot
//! be written (read-only disk, full disk) a copy in a temporary file, which SQLite removes, takes its place.
//!
//! Several processes may use one file; each batch takes the lock for a moment. It must not be used to decide what to
//! write to the folder or to send to a peer, other than by a person's command about history.

mod catch_up;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod touched;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row as SqlRow, params};

use super::checksum::Checksum;
use super::error::StoreError;
use crate::entry::{Entry, Kind};
use crate::id::{CommitId, ObjectId};
use crate::path::SyncPath;

pub use catch_up::Stats;

/// Counted up when the tables, or what is a revision, or their order, change.
const VERSION: i64 = 2;

const SCHEMA: &str = "
    -- emptied: how often everything was thrown away.
    CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 0), head BLOB NOT NULL, emptied INTEGER NOT NULL);
    CREATE TABLE paths (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
    -- until: the least date of a child; the commit is a tip of its time from `date` to there.
    CREATE TABLE commits (oid BLOB PRIMARY KEY, date INTEGER NOT NULL, generation INTEGER NOT NULL,
                          until INTEGER NOT NULL) WITHOUT ROWID;
    -- kind and content are null where nothing stands there since.
    CREATE TABLE revisions (path INTEGER NOT NULL, date INTEGER NOT NULL, generation INTEGER NOT NULL,
                            oid BLOB NOT NULL, verb INTEGER NOT NULL, kind INTEGER, content BLOB,
                            copy INTEGER NOT NULL, PRIMARY KEY (path, date, generation, oid)) WITHOUT ROWID;
    CREATE INDEX revisions_by_time ON revisions (date, generation, oid);
    CREATE INDEX revisions_of_copies ON revisions (path) WHERE copy;
";

/// Where a commit, and so a revision, stands in the order of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The greatest of its committer time and its parents' dates: seconds since 1970.
    pub date: i64,
    /// Its distance from the first commits: theirs is 1, otherwise one more than the greatest of its parents'.
    pub generation: i64,
    /// The commit.
    pub commit: CommitId,
}

impl Key {
    /// Behind all keys of this date, before all later ones.
    pub const fn end_of(date: i64) -> Self {
        Self { date, generation: i64::MAX, commit: CommitId::from_bytes([0xff; 20]) }
    }

    /// The least key behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        let mut bytes = *self.commit.as_bytes();
        for byte in bytes.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Self { commit: CommitId::from_bytes(bytes), ..self };
            }
        }
        Self { generation: self.generation + 1, commit: CommitId::from_bytes(bytes), ..self }
    }

    /// Behind all keys.
    pub const END: Self = Self::end_of(i64::MAX);
}

/// What a revision did to its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Nothing stood there before.
    Add,
    /// Something else stood there.
    Change,
    /// Nothing stands there since.
    Delete,
    /// A merge decided what stands there.
    Merge,
}

impl Verb {
    const ALL: [Self; 4] = [Self::Add, Self::Change, Self::Delete, Self::Merge];

    /// The word for it: `add`, `change`, `delete`, `merge`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Delete => "delete",
            Self::Merge => "merge",
        }
    }
}

/// One revision of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its path.
    pub path: SyncPath,
    /// Its number among the revisions of the path, from 1; none in lists over many paths.
    pub number: Option<u64>,
    /// The commit, and its place in the order.
    pub key: Key,
    /// What it did.
    pub verb: Verb,
    /// What stands there since.
    pub entry: Option<Entry>,
    /// Whether it added a conflict copy, as its message says.
    pub conflict_copy: bool,
}

const KINDS: [Kind; 4] = [Kind::File, Kind::Executable, Kind::Symlink, Kind::EmptyFolder];

/// The index of one repository.
pub struct HistoryIndex {
    db: Connection,
    file: PathBuf,
    temporary: bool,
    notice: Option<String>,
}

/// Whether the index's file is not what it should be.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            // Our statements do not change, so one that cannot be prepared tells of tables that are not ours.
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || failure.extended_code == rusqlite::ffi::SQLITE_ERROR
        }
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..) => true,
        _ => false,
    }
}

/// Whether the index's file cannot be written where it is.
fn is_unwritable(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport
        )
    )
}

/// Why a file cannot be used as it is.
enum Unusable {
    Failed(rusqlite::Error),
    OtherVersion(i64),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

fn open_file(file: &Path) -> Result<Connection, Unusable> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(file, flags)?;
    db.busy_timeout(Duration::from_secs(20))?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cache_size", -32_000)?;
    match schema_version(&db)? {
        VERSION => {}
        0 => {
            db.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
            create(&mut db)?;
        }
        other => return Err(Unusable::OtherVersion(other)),
    }
    db.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
    Ok(db)
}

fn schema_version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn create(db: &mut Connection) -> rusqlite::Result<()> {
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Somebody else may have made them while we waited.
    if schema_version(&transaction)? == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

fn open_temporary() -> rusqlite::Result<Connection> {
    let mut db = Connection::open("")?;
    db.pragma_update(None, "cache_size", -32_000)?;
    create(&mut db)?;
    Ok(db)
}

impl HistoryIndex {
    /// Opens the index in `file`, or begins it. A file that is no index, or one of another version, is removed and begun
    /// anew; where the file cannot be made, a temporary one does. Either is told by [`HistoryIndex::notice`].
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let index = |db, temporary, notice| Self { db, file: file.to_owned(), temporary, notice };
        let unusable = match open_file(file) {
            Ok(db) => return Ok(index(db, false, None)),
            Err(unusable) => unusable,
        };
        let why = match unusable {
            Unusable::OtherVersion(version) => format!("is of another version ({version})"),
            Unusable::Failed(error) if is_damage(&error) => "was damaged".to_owned(),
            Unusable::Failed(error) if is_unwritable(&error) => {
                let notice = format!("the history index cannot be written, a temporary one takes its place: {error}");
                return Ok(index(open_temporary()?, true, Some(notice)));
            }
            Unusable::Failed(error) => return Err(error.into()),
        };
        let mut anew = index(open_temporary()?, true, None);
        anew.begin_anew()?;
        anew.notice = Some(format!("the history index {why} and is made anew"));
        Ok(anew)
    }

    /// An index in a temporary file, gone when this value is.
    pub fn temporary() -> Result<Self, StoreError> {
        Ok(Self { db: open_temporary()?, file: PathBuf::new(), temporary: true, notice: None })
    }

    /// A checksum of all that it answers with: two indexes of one head have the same. An error is damage, most likely.
    pub fn sum(&self) -> Result<[u8; 20], StoreError> {
        let sound: String = self.db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let mut sum = Checksum::default();
        sum.update(sound.as_bytes());
        let all = [
            "SELECT hex(oid), date, generation, until FROM commits ORDER BY oid",
            "SELECT hex(paths.path), date, generation, hex(oid), verb, kind, hex(content), copy
             FROM revisions JOIN paths ON revisions.path = paths.id
             ORDER BY paths.path, date, generation, oid",
        ];
        for select in all {
            let mut select = self.db.prepare(select)?;
            let columns = select.column_count();
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                for column in 0..columns {
                    sum.update(format!("{:?}\n", row.get_ref(column)?).as_bytes());
                }
            }
        }
        sum.finish().map_err(|error| StoreError::damaged("the history index", error))
    }

    /// Tells all commits that are in it.
    pub fn each_commit(&self, tell: &mut dyn FnMut(CommitId)) -> Result<(), StoreError> {
        let mut select = self.db.prepare_cached("SELECT oid FROM commits ORDER BY date, generation, oid")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            tell(id_at(row, 0)?.as_commit());
        }
        Ok(())
    }

    /// The revisions that a commit made, with their numbers.
    pub fn made_by(&self, commit: CommitId) -> Result<Vec<Row>, StoreError> {
        let Some(key) = self.key(commit)? else { return Ok(Vec::new()) };
        let mut select = self.db.prepare_cached(
            "SELECT paths.path FROM revisions INDEXED BY revisions_by_time CROSS JOIN paths ON revisions.path = paths.id
             WHERE date = ?1 AND generation = ?2 AND oid = ?3 ORDER BY paths.path",
        )?;
        let paths: rusqlite::Result<Vec<SyncPath>> =
            select.query_map(params![key.date, key.generation, commit.as_bytes()], |row| path_at(row, 0))?.collect();
        let mut rows = Vec::new();
        for path in paths? {
            rows.extend(self.newest_revisions(&path, &key.next(), 1)?.into_iter().filter(|row| row.key == key));
        }
        Ok(rows)
    }

    /// What a person should know of how it was opened; told to the monitor by the first [`HistoryIndex::catch_up`].
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Whether it is kept in a temporary file, gone when this value is.
    pub const fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Whether this error says that the index does not hold what it must, so that [`HistoryIndex::begin_anew`] helps.
    pub fn is_damaged_by(error: &StoreError) -> bool {
        matches!(error, StoreError::Index(error) if is_damage(error))
    }

    /// Removes all that is in it, the file too.
    pub fn begin_anew(&mut self) -> Result<(), StoreError> {
        self.db = open_temporary()?;
        self.temporary = true;
        for companion in ["", "-journal", "-wal", "-shm"] {
            let mut name = self.file.clone().into_os_string();
            name.push(companion);
            let _gone_or_told_below = std::fs::remove_file(name);
        }
        match open_file(&self.file) {
            Ok(db) => {
                self.db = db;
                self.temporary = false;
                Ok(())
            }
            // It stands there and cannot be removed: the temporary one does.
            Err(Unusable::OtherVersion(_)) => Ok(()),
            Err(Unusable::Failed(error)) if is_damage(&error) || is_unwritable(&error) => Ok(()),
            Err(Unusable::Failed(error)) => Err(error.into()),
        }
    }

    /// Goes on in a temporary file, with what can be read of this one.
    fn leave_file(&mut self) -> Result<(), StoreError> {
        let db = open_temporary()?;
        if let Some(file) = self.file.to_str() {
            let copied = db.execute("ATTACH DATABASE ?1 AS disk", [file]).and_then(|_| {
                db.execute_batch(
                    "BEGIN;
                     INSERT INTO state SELECT * FROM disk.state;
                     INSERT INTO paths SELECT * FROM disk.paths;
                     INSERT INTO commits SELECT * FROM disk.commits;
                     INSERT INTO revisions SELECT * FROM disk.revisions;
                     COMMIT;",
                )
            });
            if copied.is_err() && !db.is_autocommit() {
                db.execute_batch("ROLLBACK")?;
            }
        }
        self.db = db;
        self.temporary = true;
        Ok(())
    }

    /// The head that it was last brought up to; none before the first time, and while that is not complete.
    pub fn head(&self) -> Result<Option<CommitId>, StoreError> {
        let head = "SELECT head FROM state WHERE EXISTS (SELECT 1 FROM commits WHERE oid = head)";
        let head = self.db.prepare_cached(head)?.query_row([], |row| id_at(row, 0)).optional()?;
        Ok(head.map(ObjectId::as_commit))
    }

    fn path_id(&self, path: &SyncPath) -> Result<Option<i64>, StoreError> {
        let mut select = self.db.prepare_cached("SELECT id FROM paths WHERE path = ?1")?;
        Ok(select.query_row([path.as_bytes()], |row| row.get(0)).optional()?)
    }

    /// All revisions of a path, oldest first.
    pub fn revisions(&self, path: &SyncPath) -> Result<Vec<Row>, StoreError> {
        let mut rows = self.newest_revisions(path, &Key::END, usize::MAX)?;
        rows.reverse();
        Ok(rows)
    }

    /// The last revisions of a path before `before`, at most `limit`, newest first.
    pub fn newest_revisions(&self, path: &SyncPath, before: &Key, limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        if limit > 0 {
            self.walk_back(path, before, &mut |row| {
                rows.push(row);
                rows.len() < limit
            })?;
        }
        Ok(rows)
    }

    /// The newest revision of a path before `before` that `accept` takes.
    pub fn newest(
        &self,
        path: &SyncPath,
        before: &Key,
        accept: &dyn Fn(&Row) -> bool,
    ) -> Result<Option<Row>, StoreError> {
        let mut found = None;
        self.walk_back(path, before, &mut |row| {
            let accepted = accept(&row);
            if accepted {
                found = Some(row);
            }
            !accepted
        })?;
        Ok(found)
    }

    /// Tells the revisions of a path before `before`, newest first, with their numbers, until it is told to stop.
    fn walk_back(&self, path: &SyncPath, before: &Key, tell: &mut dyn FnMut(Row) -> bool) -> Result<(), StoreError> {
        let Some(id) = self.path_id(path)? else { return Ok(()) };
        let mut select = self.db.prepare_cached(
            "SELECT date, generation, oid, verb, kind, content, copy FROM revisions
             WHERE path = ?1 AND (date, generation, oid) < (?2, ?3, ?4) ORDER BY date DESC, generation DESC, oid DESC",
        )?;
        let mut rows = select.query(params![id, before.date, before.generation, before.commit.as_bytes()])?;
        let mut number = None;
        while let Some(row) = rows.next()? {
            let mut row = read_row(row, path.clone())?;
            let this = match number {
                None => self.number(id, &row.key)?,
                Some(later) => later - 1,
            };
            number = Some(this);
            row.number = u64::try_from(this).ok();
            if !tell(row) {
                break;
            }
        }
        Ok(())
    }

    fn number(&self, path: i64, key: &Key) -> Result<i64, StoreError> {
        let mut count = self.db.prepare_cached(
            "SELECT count(*) FROM revisions WHERE path = ?1 AND (date, generation, oid) <= (?2, ?3, ?4)",
        )?;
        Ok(count.query_row(params![path, key.date, key.generation, key.commit.as_bytes()], |row| row.get(0))?)
    }

    /// How many revisions a path has.
    pub fn count(&self, path: &SyncPath) -> Result<u64, StoreError> {
        let Some(id) = self.path_id(path)? else { return Ok(0) };
        let mut count = self.db.prepare_cached("SELECT count(*) FROM revisions WHERE path = ?1")?;
        let count: i64 = count.query_row([id], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Revision `number` of a path, counted from 1.
    pub fn revision(&self, path: &SyncPath, number: u64) -> Result<Option<Row>, StoreError> {
        let Some(id) = self.path_id(path)? else { return Ok(None) };
        let Some(offset) = number.checked_sub(1).and_then(|offset| i64::try_from(offset).ok()) else { return Ok(None) };
        let mut select = self.db.prepare_cached(
            "SELECT date, generation, oid, verb, kind, content, copy FROM revisions WHERE path = ?1
             ORDER BY date, generation, oid LIMIT 1 OFFSET ?2",
        )?;
        let row = select.query_row(params![id, offset], |row| read_row(row, path.clone())).optional()?;
        Ok(row.map(|row| Row { number: Some(number), ..row }))
    }

    /// The newest revision of a path with this date or an earlier one.
    pub fn at_or_before(&self, path: &SyncPath, date: i64) -> Result<Option<Row>, StoreError> {
        self.newest(path, &Key::end_of(date), &|_| true)
    }

    /// The newest revisions of all paths, or of those below the folder `below`, newest first.
    pub fn folder_log(&self, below: Option<&SyncPath>, limit: usize) -> Result<Vec<Row>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |row: &SqlRow<'_>| read_row(row, path_at(row, 7)?);
        let rows: rusqlite::Result<Vec<Row>> = if let Some(folder) = below {
            let (from, to) = below_range(folder);
            let mut select = self.db.prepare_cached(
                "SELECT date, generation, oid, verb, kind, content, copy, paths.path
                 FROM paths JOIN revisions ON revisions.path = paths.id
                 WHERE paths.path > ?1 AND paths.path < ?2
                 ORDER BY date DESC, generation DESC, oid DESC, paths.path LIMIT ?3",
            )?;
            select.query_map(params![from, to, limit], read)?.collect()
        } else {
            // The order of ids within one commit is that of indexing, which differs between clones: paths decide.
            let mut select = self.db.prepare_cached(
                "SELECT date, generation, oid, verb, kind, content, copy, paths.path
                 FROM revisions INDEXED BY revisions_by_time CROSS JOIN paths ON revisions.path = paths.id
                 ORDER BY date DESC, generation DESC, oid DESC, paths.path LIMIT ?1",
            )?;
            select.query_map([limit], read)?.collect()
        };
        Ok(rows?)
    }

    /// The paths below a folder (of the whole history where it is `None`) whose newest revision is a deletion, with it.
    pub fn deleted_below(&self, folder: Option<&SyncPath>) -> Result<Vec<Row>, StoreError> {
        let mut deleted = Vec::new();
        for path in self.paths_below(folder)? {
            deleted.extend(self.newest(&path, &Key::END, &|_| true)?.filter(|row| row.entry.is_none()));
        }
        Ok(deleted)
    }

    /// Every path below a folder (of the whole history where it is `None`) that ever had a revision, in order.
    pub fn paths_below(&self, folder: Option<&SyncPath>) -> Result<Vec<SyncPath>, StoreError> {
        let read = |row: &SqlRow<'_>| path_at(row, 0);
        let paths: rusqlite::Result<Vec<_>> = if let Some(folder) = folder {
            let (from, to) = below_range(folder);
            let mut select =
                self.db.prepare_cached("SELECT path FROM paths WHERE path > ?1 AND path < ?2 ORDER BY path")?;
            select.query_map([from, to], read)?.collect()
        } else {
            self.db.prepare_cached("SELECT path FROM paths ORDER BY path")?.query_map([], read)?.collect()
        };
        Ok(paths?)
    }

    /// The paths that `wanted` picks, in order, at most `limit`.
    pub fn search(&self, wanted: &dyn Fn(&[u8]) -> bool, limit: usize) -> Result<Vec<SyncPath>, StoreError> {
        let mut select = self.db.prepare_cached("SELECT path FROM paths ORDER BY path")?;
        let mut rows = select.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()?.filter(|_| found.len() < limit) {
            if wanted(row.get_ref(0)?.as_blob().unwrap_or_default()) {
                found.push(path_at(row, 0)?);
            }
        }
        Ok(found)
    }

    /// The revisions that added a conflict copy, oldest first. (Whether it still stands, the head's tree says.)
    pub fn conflict_copies(&self) -> Result<Vec<Row>, StoreError> {
        let mut select = self.db.prepare_cached(
            "SELECT date, generation, oid, verb, kind, content, copy, paths.path
             FROM revisions INDEXED BY revisions_of_copies JOIN paths ON revisions.path = paths.id
             WHERE copy ORDER BY date, generation, oid, paths.path",
        )?;
        let rows: rusqlite::Result<Vec<_>> = select.query_map([], |row| read_row(row, path_at(row, 7)?))?.collect();
        Ok(rows?)
    }

    /// Where a commit stands in the order; none if the index does not have it.
    pub fn key(&self, commit: CommitId) -> Result<Option<Key>, StoreError> {
        let mut select = self.db.prepare_cached("SELECT date, generation FROM commits WHERE oid = ?1")?;
        let key =
            select.query_row([commit.as_bytes()], |row| Ok(Key { date: row.get(0)?, generation: row.get(1)?, commit }));
        Ok(key.optional()?)
    }

    /// The commits whose ids begin with these hexadecimal digits, at most `limit`.
    pub fn commits_with_prefix(&self, digits: &str, limit: usize) -> Result<Vec<CommitId>, StoreError> {
        let filled = |digit: &str| format!("{digits}{}", digit.repeat(40 - digits.len().min(40))).parse::<CommitId>();
        let (Ok(from), Ok(to)) = (filled("0"), filled("f")) else { return Ok(Vec::new()) };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut select =
            self.db.prepare_cached("SELECT oid FROM commits WHERE oid BETWEEN ?1 AND ?2 ORDER BY oid LIMIT ?3")?;
        let found: rusqlite::Result<Vec<_>> = select
            .query_map(params![from.as_bytes(), to.as_bytes(), limit], |row| Ok(id_at(row, 0)?.as_commit()))?
            .collect();
        Ok(found?)
    }

    /// The tips of the history as it was at the end of second `date`: the commits with that date or an earlier one that
    /// have no child with such a date, the newest first. Several where devices worked apart then.
    pub fn tips_at(&self, date: i64) -> Result<Vec<CommitId>, StoreError> {
        let mut select = self.db.prepare_cached(
            "SELECT oid FROM commits WHERE date <= ?1 AND until > ?1 ORDER BY date DESC, generation DESC, oid DESC",
        )?;
        let found: rusqlite::Result<Vec<_>> = select.query_map([date], |row| Ok(id_at(row, 0)?.as_commit()))?.collect();
        Ok(found?)
    }
}

/// The paths below a folder lie between these two.
fn below_range(folder: &SyncPath) -> (Vec<u8>, Vec<u8>) {
    let with = |end: u8| [folder.as_bytes(), &[end]].concat();
    (with(b'/'), with(b'/' + 1))
}

fn mismatch(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "history".to_owned(), rusqlite::types::Type::Blob)
}

fn id_at(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<ObjectId> {
    ObjectId::from_slice(row.get_ref(column)?.as_blob()?).ok_or_else(|| mismatch(column))
}

fn path_at(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<SyncPath> {
    SyncPath::new(row.get_ref(column)?.as_blob()?).map_err(|_| mismatch(column))
}

/// A row whose first columns are date, generation, oid, verb, kind, content, copy.
fn read_row(row: &SqlRow<'_>, path: SyncPath) -> rusqlite::Result<Row> {
    let commit = id_at(row, 2)?.as_commit();
    let verb: usize = usize::from(row.get::<_, u8>(3)?);
    let entry = match row.get::<_, Option<u8>>(4)? {
        None => None,
        Some(kind) => {
            Some(Entry { kind: *KINDS.get(usize::from(kind)).ok_or_else(|| mismatch(4))?, id: id_at(row, 5)? })
        }
    };
    Ok(Row {
        path,
        number: None,
        key: Key { date: row.get(0)?, generation: row.get(1)?, commit },
        verb: *Verb::ALL.get(verb).ok_or_else(|| mismatch(3))?,
        entry,
        conflict_copy: row.get(6)?,
    })
}
