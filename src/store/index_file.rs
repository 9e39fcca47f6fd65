//! Git's index file, which is our table of what the disk last held (see [`crate::table`]).
//!
//! It is read in every version that git writes (2, 3 and 4) and written in version 2, with git's own stat fields, so
//! that `git status` is clean right after a capture and a `git add` of a person's is no loss. What git has no place
//! for, the rows of empty folders and the revision that was applied, is in a file beside it,
//! `foldersync/empty-folders`, which names the checksum of the index that it belongs to: when git has rewritten the
//! index, it belongs to none, and the table says that it does not know the empty folders. (An extension inside the
//! index would make every git command print that it ignores it.)
//!
//! **It is a cache.** What cannot be read (missing, empty, torn, of a strange form) is an empty table with the reason,
//! never an error: everything is then read again. So after a kill or a power cut only two things matter: that a torn
//! file is recognised (its checksum), and that none is taken for newer than it is. It is written through git's lock
//! and synced before its rename, one sync; the folder is not synced: if the old index comes back after a power cut, its
//! fingerprints do not fit what has changed since, and that is read again; and it names another revision than the one
//! that is applied, which tells whoever works with it that it may lack rows.
//!
//! **Racy rows.** A file written in the tick in which the index was written may have changed after it was looked at
//! without any trace in its fingerprint. Such rows lose their fingerprint when the table is loaded and when it was
//! saved, so that a fingerprint in a table can be believed, also when the table is saved again later. Git does the
//! same by comparing with the index file's mtime, which is what `recorded` is.
//!
//! Must not: be taken for content, or trusted in its paths: they are bytes, checked by whoever makes paths of them.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::checksum::{self, Checksum};
use super::durable;
use super::error::StoreError;
use super::lock::GitLock;
use crate::clock::Timestamp;
use crate::entry::{Entry, Fingerprint, Kind};
use crate::id::{CommitId, ObjectId};
use crate::path::SyncPath;
use crate::table::{DiskTable, TableEdit};

/// A table, and why it is empty if it should not be.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What the disk last held.
    pub table: DiskTable,
    /// Why the index file could not be read; the table is empty then.
    pub problem: Option<String>,
}

const SIGNATURE: &[u8] = b"DIRC";
const HEADER: usize = 12;
/// Bytes of a row before its path: ten numbers, the id, the flags.
const FIXED: usize = 62;
const STAGE: u16 = 0x3000;
const EXTENDED: u16 = 0x4000;
const NAME_LENGTH: u16 = 0x0fff;
const SKIP_WORKTREE: u16 = 0x4000;
const INTENT_TO_ADD: u16 = 0x2000;

fn index_path(git_dir: &Path) -> PathBuf {
    git_dir.join("index")
}

fn empty_folders_path(git_dir: &Path) -> PathBuf {
    git_dir.join(super::repository::PRIVATE).join("empty-folders")
}

/// The table in the index of the repository `git_dir`.
pub fn load(git_dir: &Path) -> Result<Loaded, StoreError> {
    let path = index_path(git_dir);
    let problem = |detail: &str| {
        let problem = format!("`{}` {detail}: every file is read again", path.display());
        Ok(Loaded { table: DiskTable::default(), problem: Some(problem) })
    };
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return problem("is missing"),
        file => file.map_err(StoreError::io("read", &path))?,
    };
    let data = file.metadata().map_err(StoreError::io("read", &path))?;
    let mut bytes = Vec::with_capacity(usize::try_from(data.len()).unwrap_or(0) + 1);
    file.read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
    let recorded = modified(&data, &path)?;
    let mut table = match parse(&bytes, recorded) {
        Ok(table) => table,
        Err(detail) => return problem(detail),
    };
    if let Some((applied, folders)) = load_empty_folders(git_dir, &bytes[bytes.len() - checksum::LEN..])? {
        table.edit(folders);
        (table.knows_empty_folders, table.applied) = (true, applied);
    }
    Ok(Loaded { table, problem: None })
}

fn modified(data: &fs::Metadata, path: &Path) -> Result<Timestamp, StoreError> {
    data.modified().map(Timestamp::from).map_err(StoreError::io("read the time of", path))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// From how many bytes on the checksum is worth a thread of its own.
const LARGE: usize = 1 << 20;

/// The table in these bytes of an index that was written at `recorded`, or what is wrong with them.
fn parse(bytes: &[u8], recorded: Timestamp) -> Result<DiskTable, &'static str> {
    if bytes.is_empty() {
        return Err("is empty");
    }
    if bytes.len() < HEADER + checksum::LEN || !bytes.starts_with(SIGNATURE) {
        return Err("is not an index");
    }
    let (body, sum) = bytes.split_at(bytes.len() - checksum::LEN);
    let is_whole = || Checksum::of(body) == *sum;
    let (whole, table) = if bytes.len() < LARGE {
        (is_whole(), parse_rows(body, recorded))
    } else {
        std::thread::scope(|scope| {
            let whole = scope.spawn(is_whole);
            let table = parse_rows(body, recorded);
            (whole.join().unwrap_or(false), table)
        })
    };
    if whole { table } else { Err("is torn (its checksum is wrong)") }
}

/// A path that git has in several stages, since a merge of the person's own is not finished.
struct Conflict {
    path: Vec<u8>,
    entry: Entry,
}

struct Rows {
    table: DiskTable,
    recorded: Timestamp,
    conflict: Option<Conflict>,
}

impl Rows {
    /// Takes a row in; `None` if it is out of order.
    ///
    /// What a row says is what the disk held. Rows that say nothing about the disk are passed over: those of paths
    /// that were only announced (`git add -N`), those that a sparse checkout keeps away from the disk (a missing file
    /// there is no deletion), submodules. A path in conflict gets one row, of our side, to be read again.
    fn take(
        &mut self,
        path: &[u8],
        mode: u32,
        id: ObjectId,
        mut fingerprint: Fingerprint,
        flags: u16,
        extended: u16,
    ) -> Option<()> {
        if extended & (SKIP_WORKTREE | INTENT_TO_ADD) != 0 {
            return Some(());
        }
        let Some(kind) = Kind::from_mode(mode).filter(|kind| *kind != Kind::EmptyFolder) else { return Some(()) };
        let entry = Entry { kind, id };
        let stage = (flags & STAGE) >> 12;
        if stage != 0 {
            match &mut self.conflict {
                Some(conflict) if conflict.path == path => {
                    if stage == 2 {
                        conflict.entry = entry;
                    }
                }
                _ => {
                    self.end_conflict()?;
                    self.conflict = Some(Conflict { path: path.to_vec(), entry });
                }
            }
            return Some(());
        }
        self.end_conflict()?;
        if fingerprint.is_racy(self.recorded) {
            fingerprint = Fingerprint::default();
        }
        self.table.push(path, entry, fingerprint).then_some(())
    }

    fn end_conflict(&mut self) -> Option<()> {
        let Some(Conflict { path, entry }) = self.conflict.take() else { return Some(()) };
        self.table.push(&path, entry, Fingerprint::default()).then_some(())
    }
}

/// The rows of an index without its checksum.
fn parse_rows(body: &[u8], recorded: Timestamp) -> Result<DiskTable, &'static str> {
    const TORN: &str = "is torn";
    let version = number(body, 4).ok_or(TORN)?;
    let count = number(body, 8).ok_or(TORN)? as usize;
    if !(2..=4).contains(&version) {
        return Err("is of a version that foldersync does not know");
    }
    // The count may lie; a row has at least its fixed part.
    let table =
        DiskTable::with_capacity(count.min(body.len() / FIXED), body.len().saturating_sub(count.saturating_mul(FIXED)));
    let mut rows = Rows { table, recorded, conflict: None };
    let mut at = HEADER;
    // Version 4 gives of each path only what differs from the one before.
    let mut path: Vec<u8> = Vec::new();
    let mut nameless = false;
    for _ in 0..count {
        let start = at;
        let fixed: &[u8; FIXED] = body.get(at..at + FIXED).and_then(|fixed| fixed.try_into().ok()).ok_or(TORN)?;
        at += FIXED;
        let word = |n: usize| u32::from_be_bytes([fixed[n * 4], fixed[n * 4 + 1], fixed[n * 4 + 2], fixed[n * 4 + 3]]);
        let fingerprint = Fingerprint {
            ctime: (word(0), word(1)),
            mtime: (word(2), word(3)),
            dev: word(4),
            ino: word(5),
            uid: word(7),
            gid: word(8),
            size: word(9),
        };
        let id = ObjectId::from_slice(&fixed[40..60]).ok_or(TORN)?;
        let flags = u16::from_be_bytes([fixed[60], fixed[61]]);
        let mut extended = 0;
        if flags & EXTENDED != 0 {
            if version < 3 {
                return Err("has flags that its version does not have");
            }
            extended = u16::from_be_bytes(body.get(at..at + 2).and_then(|flags| flags.try_into().ok()).ok_or(TORN)?);
            at += 2;
        }
        let name: &[u8] = if version == 4 {
            let (stripped, length) = offset_number(body.get(at..).ok_or(TORN)?).ok_or(TORN)?;
            at += length;
            let rest = body.get(at..).ok_or(TORN)?;
            let end = rest.iter().position(|&byte| byte == 0).ok_or(TORN)?;
            path.truncate(path.len().checked_sub(stripped).ok_or(TORN)?);
            path.extend_from_slice(&rest[..end]);
            at += end + 1;
            &path
        } else {
            let length = match flags & NAME_LENGTH {
                NAME_LENGTH => body.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0)).ok_or(TORN)?,
                length => length as usize,
            };
            let name = body.get(at..at + length).ok_or(TORN)?;
            // One to eight NULs, up to a multiple of eight bytes.
            at = start + ((at + length - start) / 8 + 1) * 8;
            name
        };
        if name.is_empty() {
            nameless = true;
            continue;
        }
        rows.take(name, word(6), id, fingerprint, flags, extended).ok_or("has rows out of order")?;
    }
    rows.end_conflict().ok_or("has rows out of order")?;
    check_extensions(body.get(at..).ok_or(TORN)?)?;
    // In a split index this is usual, and that has been told by now.
    if nameless {
        return Err("has a row without a path");
    }
    let mut table = rows.table;
    table.recorded = recorded;
    Ok(table)
}

/// A number as version 4 has it (git's "offset" encoding), and how many bytes it takes.
fn offset_number(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = usize::from(bytes.first()? & 0x7f);
    let mut length = 1;
    while bytes[length - 1] & 0x80 != 0 {
        let byte = *bytes.get(length)?;
        value = value.checked_add(1)?.checked_mul(128)? + usize::from(byte & 0x7f);
        length += 1;
    }
    Some((value, length))
}

/// Passes over extensions that may be left unread; refuses those without which the rows mean something else.
fn check_extensions(mut rest: &[u8]) -> Result<(), &'static str> {
    while !rest.is_empty() {
        let size = number(rest, 4).ok_or("is torn")?;
        match &rest[..4] {
            b"link" => return Err("is a split index (`git update-index --no-split-index` undoes that)"),
            b"sdir" => return Err("is a sparse index (`git sparse-checkout disable` undoes that)"),
            signature if !signature[0].is_ascii_uppercase() => {
                return Err("needs an extension that foldersync does not know");
            }
            _ => {}
        }
        rest = (size as usize).checked_add(8).and_then(|size| rest.get(size..)).ok_or("is torn")?;
    }
    Ok(())
}

/// Writes the table as the index of the repository `git_dir`. Afterwards `table.recorded` is the time of that, and
/// the rows of files that may have been written in the same tick have lost their fingerprints.
pub fn save(git_dir: &Path, table: &mut DiskTable) -> Result<(), StoreError> {
    let path = index_path(git_dir);
    let bytes = to_bytes(table);
    let mut lock = GitLock::take(&path)?;
    if table.knows_empty_folders {
        save_empty_folders(git_dir, table, &bytes[bytes.len() - checksum::LEN..])?;
    }
    lock.write(&bytes)?;
    let file = lock.publish()?;
    let data = file.metadata().map_err(StoreError::io("read", &path))?;
    table.recorded = modified(&data, &path)?;
    distrust_racy_rows(table);
    Ok(())
}

fn distrust_racy_rows(table: &mut DiskTable) {
    let racy =
        table.iter().filter(|(_, row)| row.entry.kind != Kind::EmptyFolder && row.fingerprint.is_racy(table.recorded));
    let edits = racy.filter_map(|(path, row)| {
        // A name that is not valid is no row that a scan can meet.
        Some(TableEdit { path: SyncPath::new(path).ok()?, row: Some((row.entry, Fingerprint::default())) })
    });
    let edits = edits.collect();
    table.edit(edits);
}

/// An index of version 2 with the rows that git knows.
fn to_bytes(table: &DiskTable) -> Vec<u8> {
    let rows = table.iter().filter(|(_, row)| row.entry.kind != Kind::EmptyFolder);
    let mut bytes = Vec::with_capacity(HEADER + checksum::LEN + table.len() * 112);
    bytes.extend_from_slice(SIGNATURE);
    bytes.extend_from_slice(&2u32.to_be_bytes());
    bytes.extend_from_slice(&0u32.to_be_bytes());
    let mut count = 0u32;
    for (path, row) in rows {
        let Fingerprint { ctime, mtime, dev, ino, uid, gid, size } = row.fingerprint;
        let numbers = [ctime.0, ctime.1, mtime.0, mtime.1, dev, ino, row.entry.kind.mode(), uid, gid, size];
        let mut fixed = [0; FIXED];
        for (place, number) in fixed.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        fixed[40..60].copy_from_slice(row.entry.id.as_bytes());
        let length = u16::try_from(path.len()).map_or(NAME_LENGTH, |length| length.min(NAME_LENGTH));
        fixed[60..].copy_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&fixed);
        bytes.extend_from_slice(path);
        let padding = 8 - (FIXED + path.len()) % 8;
        bytes.extend_from_slice(&[0; 8][..padding]);
        count += 1;
    }
    bytes[8..HEADER].copy_from_slice(&count.to_be_bytes());
    let sum = Checksum::of(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// What is kept beside the index.
type Beside = (Option<CommitId>, Vec<TableEdit>);

const EMPTY_FOLDERS: &[u8] = b"foldersync empty folders 2\n";
/// What stands for no revision.
const NONE: CommitId = CommitId::from_bytes([0; 20]);

/// Writes the rows of empty folders: a line of what it is, the checksum of the index, the revision that is applied (20
/// bytes, zeros for none), the paths with a NUL each, and a checksum of it all. In place and without a sync: what is
/// torn is recognised, and then the last applied tree is asked instead.
fn save_empty_folders(git_dir: &Path, table: &DiskTable, index_sum: &[u8]) -> Result<(), StoreError> {
    let path = empty_folders_path(git_dir);
    let mut bytes = [EMPTY_FOLDERS, index_sum, table.applied.unwrap_or(NONE).as_bytes()].concat();
    for (folder, _) in table.iter().filter(|(_, row)| row.entry.kind == Kind::EmptyFolder) {
        bytes.extend_from_slice(folder);
        bytes.push(0);
    }
    let sum = Checksum::of(&bytes);
    bytes.extend_from_slice(&sum);
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let written = file.and_then(|mut file| {
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)
    });
    written.map_err(StoreError::io("write", &path))
}

/// The revision that was applied, and the rows of empty folders, if they are known for the index with this checksum.
fn load_empty_folders(git_dir: &Path, index_sum: &[u8]) -> Result<Option<Beside>, StoreError> {
    let path = empty_folders_path(git_dir);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(StoreError::io("read", &path))?,
    };
    let folders = || {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(checksum::LEN)?)?;
        let (applied, folders) = body.strip_prefix(EMPTY_FOLDERS)?.strip_prefix(index_sum)?.split_first_chunk()?;
        let applied = Some(CommitId::from_bytes(*applied)).filter(|applied| *applied != NONE);
        if Checksum::of(body) != *sum {
            return None;
        }
        let folders = folders.split_inclusive(|&byte| byte == 0);
        let row = Some((Entry::EMPTY_FOLDER, Fingerprint::default()));
        let edit = |folder: &[u8]| Some(TableEdit { path: SyncPath::new(folder.strip_suffix(b"\0")?).ok()?, row });
        Some((applied, folders.map(edit).collect::<Option<_>>()?))
    };
    Ok(folders())
}

/// What is wrong with the table's two files; both are made anew by whoever needs them.
pub(crate) fn check(git_dir: &Path) -> Result<Vec<(PathBuf, String)>, StoreError> {
    let mut wrong = Vec::new();
    let (index, folders) = (index_path(git_dir), empty_folders_path(git_dir));
    match fs::read(&index) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => wrong.push((index, "it is missing".to_owned())),
        bytes => {
            let bytes = bytes.map_err(StoreError::io("read", &index))?;
            if let Err(detail) = parse(&bytes, Timestamp::default()) {
                wrong.push((index, format!("it {detail}")));
            }
        }
    }
    match fs::read(&folders) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => wrong.push((folders, "it is missing".to_owned())),
        bytes => {
            let bytes = bytes.map_err(StoreError::io("read", &folders))?;
            let sealed = bytes.len().checked_sub(checksum::LEN).map(|at| bytes.split_at(at));
            if !sealed.is_some_and(|(body, sum)| body.starts_with(EMPTY_FOLDERS) && Checksum::of(body) == *sum) {
                wrong.push((folders, "its checksum is wrong".to_owned()));
            }
        }
    }
    Ok(wrong)
}

/// Writes the index of a new repository that nobody else sees yet: a table without rows.
pub(crate) fn create(git_dir: &Path) -> Result<(), StoreError> {
    let mut table = DiskTable::default();
    table.knows_empty_folders = true;
    let bytes = to_bytes(&table);
    save_empty_folders(git_dir, &table, &bytes[bytes.len() - checksum::LEN..])?;
    let path = index_path(git_dir);
    let mut file = File::create_new(&path).map_err(StoreError::io("write", &path))?;
    durable::fill(&mut file, &path, &bytes)?;
    durable::sync_file(&file, &path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Step, record};
    use crate::id::{DeviceId, FolderId, ReplicaId};
    use crate::store::lock::lock_path;
    use crate::store::{InitOptions, NewIds, ObjectKind, Store, object_id};
    use proptest::prelude::*;
    use std::fs::FileTimes;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    fn folder() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let ids = NewIds {
            folder: FolderId::from_bytes([1; 16]),
            replica: ReplicaId::from_bytes([2; 16]),
            device: DeviceId::from_bytes([3; 32]),
        };
        let store = Store::init(dir.path(), &InitOptions::default(), ids).unwrap();
        (dir, store)
    }

    fn git(root: &Path, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(["-c", "user.name=a", "-c", "user.email=b@c"]).args(args);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "git {args:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes a file that was last changed a minute ago, so that it is not racy.
    fn write_old(path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        let time = SystemTime::now() - Duration::from_mins(1);
        File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as git's index keeps it")]
    fn fingerprint(path: &Path) -> Fingerprint {
        let data = fs::symlink_metadata(path).unwrap();
        Fingerprint {
            ctime: (data.ctime() as u32, data.ctime_nsec() as u32),
            mtime: (data.mtime() as u32, data.mtime_nsec() as u32),
            dev: data.dev() as u32,
            ino: data.ino() as u32,
            uid: data.uid(),
            gid: data.gid(),
            size: data.size() as u32,
        }
    }

    /// A tree with every kind of leaf, and the table of it.
    fn tree(root: &Path) -> DiskTable {
        let long = "l".repeat(200);
        let deep = [&long[..]; 10].join("/");
        for dir in ["sub/deep", "empty", "sub/empty", &deep] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let mut entries = std::collections::BTreeMap::new();
        let mut add = |path: &str, kind, content: &[u8]| {
            entries.insert(path.to_owned(), Entry { kind, id: object_id(ObjectKind::Blob, content) });
        };
        let long_path = format!("{deep}/{}", "f".repeat(220));
        for path in ["a", "a-b", "sub.txt", "sub/ä", "sub/deep/1234567", "sub/deep/12345678", "sub/x\ny", &long_path] {
            write_old(&root.join(path), path.as_bytes());
            add(path, Kind::File, path.as_bytes());
        }
        write_old(&root.join("run"), b"#!");
        fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        add("run", Kind::Executable, b"#!");
        symlink("a", root.join("link")).unwrap();
        add("link", Kind::Symlink, b"a");
        let mut table = DiskTable::default();
        table.knows_empty_folders = true;
        entries.insert("empty".to_owned(), Entry::EMPTY_FOLDER);
        entries.insert("sub/empty".to_owned(), Entry::EMPTY_FOLDER);
        for (path, entry) in entries {
            let found = match entry.kind {
                Kind::EmptyFolder => Fingerprint::default(),
                _ => fingerprint(&root.join(&path)),
            };
            assert!(table.push(path.as_bytes(), entry, found));
        }
        table
    }

    fn rows(table: &DiskTable) -> Vec<(String, Entry, Fingerprint)> {
        table
            .iter()
            .map(|(path, row)| (String::from_utf8_lossy(path).into_owned(), row.entry, row.fingerprint))
            .collect()
    }

    /// The rows as they are once those of the link, which is new, are not trusted.
    fn without_times(table: &DiskTable) -> Vec<(String, Entry)> {
        table.iter().map(|(path, row)| (String::from_utf8_lossy(path).into_owned(), row.entry)).collect()
    }

    #[test]
    fn git_status_is_clean_after_a_save_and_git_agrees_on_every_field() {
        let (_dir, store) = folder();
        let root = store.root();
        let mut table = tree(root);
        git(root, &["add", "."]);
        git(root, &["commit", "-q", "-m", "a"]);
        let by_git = git(root, &["ls-files", "--stage", "--debug", "-z"]);
        fs::remove_file(root.join(".git/index")).unwrap();
        store.save_table(&mut table).unwrap();
        assert_eq!(git(root, &["ls-files", "--stage", "--debug", "-z"]), by_git);
        assert_eq!(git(root, &["diff-files"]), "", "no file had to be looked at");
        assert_eq!(git(root, &["status", "--porcelain"]), "");
        git(root, &["fsck", "--full", "--strict"]);
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let (_dir, store) = folder();
        let mut table = tree(store.root());
        table.applied = Some(CommitId::from_bytes([7; 20]));
        store.save_table(&mut table).unwrap();
        let loaded = store.load_table().unwrap();
        assert_eq!(loaded.problem, None);
        assert_eq!(rows(&loaded.table), rows(&table));
        assert_eq!(loaded.table.applied, table.applied);
        assert_eq!(loaded.table.recorded, table.recorded);
        assert!(loaded.table.knows_empty_folders);
        assert_eq!(loaded.table.count(Kind::EmptyFolder), 2);
        let modified = fs::metadata(store.git_dir().join("index")).unwrap().modified().unwrap();
        assert_eq!(table.recorded, Timestamp::from(modified));
    }

    #[rstest::rstest]
    #[case(&["update-index", "--index-version=2"])]
    #[case(&["update-index", "--index-version=4"])]
    fn an_index_that_git_wrote_is_the_same_table_without_empty_folders(#[case] convert: &[&str]) {
        let (_dir, store) = folder();
        let root = store.root();
        let mut table = tree(root);
        git(root, &["add", "."]);
        store.save_table(&mut table).unwrap();
        git(root, convert);
        git(root, &["commit", "-q", "-m", "a"]);
        let loaded = store.load_table().unwrap();
        assert_eq!(loaded.problem, None);
        assert!(!loaded.table.knows_empty_folders);
        let mut expected = rows(&table);
        expected.retain(|(path, entry, _)| entry.kind != Kind::EmptyFolder && path != "link");
        let mut found = rows(&loaded.table);
        found.retain(|(path, ..)| path != "link");
        assert_eq!(found, expected);
        assert_eq!(loaded.table.get(b"link").unwrap().entry.kind, Kind::Symlink);
    }

    #[test]
    fn rows_that_say_nothing_about_the_disk_are_passed_over() {
        let (_dir, store) = folder();
        let root = store.root();
        tree(root);
        git(root, &["add", "a", "a-b", "run"]);
        git(root, &["add", "-N", "sub.txt"]);
        git(root, &["update-index", "--assume-unchanged", "run"]);
        git(root, &["update-index", "--skip-worktree", "a-b"]);
        git(root, &["update-index", "--add", "--cacheinfo", &format!("160000,{},module", "1".repeat(40))]);
        let loaded = store.load_table().unwrap();
        assert_eq!(loaded.problem, None);
        let paths: Vec<_> = without_times(&loaded.table).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a", "run"]);
    }

    #[test]
    fn a_path_in_conflict_is_one_row_of_our_side_to_be_read_again() {
        let (_dir, store) = folder();
        let root = store.root();
        for (branch, content) in [("main", "base"), ("other", "theirs"), ("main", "ours")] {
            if branch == "other" {
                git(root, &["branch", "-q", "side"]);
                git(root, &["switch", "-q", "side"]);
            } else if content == "ours" {
                git(root, &["switch", "-q", "main"]);
            }
            for file in ["a", "m", "z"] {
                write_old(&root.join(file), if file == "m" { content.as_bytes() } else { b"same" });
            }
            git(root, &["add", "."]);
            git(root, &["commit", "-q", "-m", content]);
        }
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(["-c", "user.name=a", "-c", "user.email=b@c", "merge", "-q", "side"]);
        assert!(!command.output().unwrap().status.success());
        let loaded = store.load_table().unwrap();
        assert_eq!(loaded.problem, None);
        assert_eq!(loaded.table.len(), 3);
        let row = loaded.table.get(b"m").unwrap();
        assert_eq!(row.entry.id, object_id(ObjectKind::Blob, b"ours"));
        assert_eq!(row.fingerprint, Fingerprint::default());
    }

    #[test]
    fn a_file_written_in_the_tick_of_the_index_loses_its_fingerprint_for_good() {
        let (_dir, store) = folder();
        let root = store.root();
        fs::write(root.join("a"), "1").unwrap();
        let mut table = DiskTable::default();
        let ahead = Fingerprint { mtime: (u32::MAX, 0), ..fingerprint(&root.join("a")) };
        let entry = Entry { kind: Kind::File, id: object_id(ObjectKind::Blob, b"1") };
        assert!(table.push(b"a", entry, ahead));
        store.save_table(&mut table).unwrap();
        assert_eq!(table.row(0).fingerprint, Fingerprint::default());
        assert_eq!(store.load_table().unwrap().table.row(0).fingerprint, Fingerprint::default());
        store.save_table(&mut table).unwrap();
        assert_eq!(store.load_table().unwrap().table.row(0).fingerprint, Fingerprint::default());
    }

    #[test]
    fn git_sees_a_change_in_the_tick_of_the_index() {
        let (_dir, store) = folder();
        let root = store.root();
        for n in 0..20 {
            let path = root.join("a");
            fs::write(&path, "1").unwrap();
            git(root, &["add", "."]);
            let entry = Entry { kind: Kind::File, id: object_id(ObjectKind::Blob, b"1") };
            let mut table = DiskTable::default();
            assert!(table.push(b"a", entry, fingerprint(&path)));
            store.save_table(&mut table).unwrap();
            fs::write(&path, "2").unwrap();
            assert_eq!(git(root, &["diff-files", "--name-only"]), "a\n", "round {n}");
        }
    }

    #[test]
    fn a_save_costs_one_sync() {
        let (_dir, store) = folder();
        let mut table = tree(store.root());
        let (result, steps) = record::steps(|| store.save_table(&mut table));
        result.unwrap();
        let steps: Vec<_> = steps.into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [Step::Write, Step::Sync, Step::Rename]);
    }

    #[test]
    fn a_killed_save_leaves_the_old_table_and_the_next_one_works() {
        for allowed in 0..3 {
            let (_dir, store) = folder();
            let mut table = tree(store.root());
            let (result, _) = record::kill_after(allowed, || store.save_table(&mut table));
            assert!(result.is_err());
            let loaded = store.load_table().unwrap();
            assert!(loaded.problem.is_none() && loaded.table.is_empty());
            assert!(!loaded.table.knows_empty_folders, "the list beside it is already that of the next index");
            store.save_table(&mut table).unwrap();
            assert_eq!(store.load_table().unwrap().table.len(), table.len());
        }
    }

    #[test]
    fn the_lock_of_a_running_git_is_respected() {
        let (_dir, store) = folder();
        fs::write(lock_path(&store.git_dir().join("index")), "").unwrap();
        let result = store.save_table(&mut DiskTable::default());
        assert!(matches!(result, Err(StoreError::Locked { .. })));
    }

    #[test]
    fn a_new_repository_has_an_empty_table_that_knows_it() {
        let (_dir, store) = folder();
        let loaded = store.load_table().unwrap();
        assert!(loaded.problem.is_none() && loaded.table.is_empty() && loaded.table.knows_empty_folders);
    }

    #[rstest::rstest]
    #[case::missing(None, "is missing")]
    #[case::empty(Some(&b""[..]), "is empty")]
    #[case::other(Some(&b"something else entirely, and longer than a header"[..]), "is not an index")]
    fn what_is_no_index_is_an_empty_table_with_the_reason(#[case] content: Option<&[u8]>, #[case] detail: &str) {
        let (_dir, store) = folder();
        let path = store.git_dir().join("index");
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let loaded = store.load_table().unwrap();
        assert!(loaded.table.is_empty() && !loaded.table.knows_empty_folders);
        let problem = loaded.problem.unwrap();
        assert!(problem.contains(detail), "{problem}");
        // And it is made anew.
        store.save_table(&mut tree(store.root())).unwrap();
        assert_eq!(store.load_table().unwrap().problem, None);
    }

    #[test]
    fn split_and_sparse_indexes_are_named_with_the_way_out() {
        let (_dir, store) = folder();
        let root = store.root();
        tree(root);
        git(root, &["add", "."]);
        git(root, &["-c", "core.splitIndex=true", "update-index", "--split-index"]);
        let loaded = store.load_table().unwrap();
        assert!(loaded.table.is_empty());
        assert!(loaded.problem.unwrap().contains("--no-split-index"));
    }

    #[test]
    fn damage_of_the_list_of_empty_folders_is_recognised() {
        let (_dir, store) = folder();
        let mut table = tree(store.root());
        store.save_table(&mut table).unwrap();
        let path = empty_folders_path(store.git_dir());
        let whole = fs::read(&path).unwrap();
        for cut in [0, 10, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            let loaded = store.load_table().unwrap();
            assert!(!loaded.table.knows_empty_folders && loaded.problem.is_none());
            assert_eq!(loaded.table.count(Kind::EmptyFolder), 0);
        }
    }

    /// A table like a large folder's.
    fn large(count: u32) -> DiskTable {
        let mut table = DiskTable::default();
        for n in 0..count {
            let path = format!("folder-{:04}/sub/a file of some length {n:08}.txt", n / 50);
            let print = Fingerprint { mtime: (1000, n), ctime: (1000, n), ino: n, size: n, dev: 1, uid: 0, gid: 0 };
            let entry = Entry { kind: Kind::File, id: object_id(ObjectKind::Blob, &n.to_be_bytes()) };
            assert!(table.push(path.as_bytes(), entry, print));
        }
        table
    }

    #[test]
    fn a_large_index_is_checked_as_well() {
        let table = large(20_000);
        let recorded = Timestamp::new(2000, 0);
        let mut bytes = to_bytes(&table);
        assert_eq!(rows(&parse(&bytes, recorded).unwrap()), rows(&table));
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert_eq!(parse(&bytes, recorded).err(), Some("is torn (its checksum is wrong)"));
    }

    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        let sum = Checksum::of(&body);
        body.extend_from_slice(&sum);
        body
    }

    /// Small indexes of all versions, as git writes them.
    fn samples() -> &'static [Vec<u8>] {
        static SAMPLES: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
            let (_dir, store) = folder();
            let root = store.root();
            store.save_table(&mut tree(root)).unwrap();
            let index = || fs::read(root.join(".git/index")).unwrap();
            let mut samples = vec![index()];
            git(root, &["rm", "-q", "-r", "--cached", "l".repeat(200).as_str()]);
            git(root, &["add", "-N", "."]);
            samples.push(index());
            git(root, &["update-index", "--index-version=4"]);
            samples.push(index());
            samples
        });
        &SAMPLES
    }

    #[test]
    fn the_samples_are_of_all_versions() {
        let versions: Vec<_> = samples().iter().map(|sample| number(sample, 4).unwrap()).collect();
        assert_eq!(versions, [2, 3, 4]);
        for sample in samples() {
            parse(sample, Timestamp::new(i64::from(u32::MAX), 0)).unwrap();
        }
    }

    proptest! {
        #[test]
        fn every_cut_and_every_flipped_bit_is_recognised(sample in 0..3usize, at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<bool>()) {
            let mut bytes = samples()[sample].clone();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << bit;
            }
            prop_assert!(parse(&bytes, Timestamp::default()).is_err());
        }

        #[test]
        fn nonsense_with_a_right_checksum_never_panics(sample in 0..3usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in prop::option::of(any::<prop::sample::Index>())) {
            let mut bytes = samples()[sample].clone();
            bytes.truncate(bytes.len() - checksum::LEN);
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(table) = parse(&sealed(bytes), Timestamp::default()) {
                let paths: Vec<_> = table.iter().map(|(path, _)| path).collect();
                prop_assert!(paths.is_sorted());
            }
        }
    }
}
