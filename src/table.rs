//! The table of what the disk last held: one row a path, in memory.
//!
//! It is kept in git's own index file (see [`crate::store`]) and compared with the disk by the scan. It says what
//! *the disk* last held, which is not always what the head says: a path that could not be written here is missing.
//! It is a cache for speed and a memory of what was there; it is never taken for content.

use std::ops::Range;

use crate::clock::Timestamp;
use crate::entry::{Entry, Fingerprint, Kind};
use crate::id::CommitId;
use crate::path::SyncPath;

/// What the disk last held at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its kind and content.
    pub entry: Entry,
    /// What the disk said of it then; all zero (never equal to anything on disk) for an empty folder and where
    /// it has to be read again.
    pub fingerprint: Fingerprint,
    start: u32,
    len: u32,
}

/// Rows in the order of their paths' bytes, which is the order of git's index.
#[derive(Debug, Clone, Default)]
pub struct DiskTable {
    rows: Vec<Row>,
    paths: Vec<u8>,
    /// When the table was last written (the index file's mtime): rows that are not older are not trusted.
    pub recorded: Timestamp,
    /// Whether the rows of empty folders are in it; git itself drops them when it rewrites its index, and then they
    /// have to be taken from the last applied tree.
    pub knows_empty_folders: bool,
    /// The revision that was applied when it was saved. If another is by now, the table is not of that: an older one
    /// came back when power was lost, or a kill came before it was saved.
    pub applied: Option<CommitId>,
}

/// A change of the table: the row that shall stand at a path, or none.
#[derive(Debug, Clone)]
pub struct TableEdit {
    /// Where.
    pub path: SyncPath,
    /// What was found or written there.
    pub row: Option<(Entry, Fingerprint)>,
}

impl DiskTable {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Room for so many rows and bytes of paths.
    pub fn with_capacity(rows: usize, path_bytes: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), paths: Vec::with_capacity(path_bytes), ..Self::default() }
    }

    /// Adds a row behind all others; `path` must come after the last one's. Returns whether it does.
    #[must_use]
    pub fn push(&mut self, path: &[u8], entry: Entry, fingerprint: Fingerprint) -> bool {
        if self.rows.last().is_some_and(|last| self.bytes(last) >= path) {
            return false;
        }
        let (Ok(start), Ok(len)) = (u32::try_from(self.paths.len()), u32::try_from(path.len())) else { return false };
        self.paths.extend_from_slice(path);
        self.rows.push(Row { entry, fingerprint, start, len });
        true
    }

    fn bytes(&self, row: &Row) -> &[u8] {
        &self.paths[row.start as usize..(row.start + row.len) as usize]
    }

    /// The path of row `index`.
    pub fn path(&self, index: usize) -> &[u8] {
        self.bytes(&self.rows[index])
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &Row {
        &self.rows[index]
    }

    /// All rows with their paths, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Row)> {
        self.rows.iter().map(|row| (self.bytes(row), row))
    }

    /// Where the row of `path` is, or would be.
    pub fn position(&self, path: &[u8]) -> Result<usize, usize> {
        self.rows.binary_search_by(|row| self.bytes(row).cmp(path))
    }

    /// The row of `path`.
    pub fn get(&self, path: &[u8]) -> Option<&Row> {
        self.position(path).ok().map(|index| &self.rows[index])
    }

    /// Within `range`, the rows below the folder `folder` (its own row, as an empty folder, not among them).
    pub fn below(&self, folder: &[u8], range: Range<usize>) -> Range<usize> {
        let rows = &self.rows[range.clone()];
        let order = |row: &Row, end: u8| {
            let path = self.bytes(row);
            let common = path.len().min(folder.len());
            path[..common].cmp(&folder[..common]).then_with(|| path.get(folder.len()).copied().cmp(&Some(end)))
        };
        let from = rows.partition_point(|row| order(row, b'/').is_lt());
        let to = from + rows[from..].partition_point(|row| order(row, b'/').is_eq());
        range.start + from..range.start + to
    }

    /// The table after these edits, in any order (the last for a path counts).
    pub fn edit(&mut self, mut edits: Vec<TableEdit>) {
        if edits.is_empty() {
            return;
        }
        edits.sort_by(|a, b| a.path.cmp(&b.path));
        let mut edited = Self::with_capacity(self.rows.len() + edits.len(), self.paths.len());
        edited.recorded = self.recorded;
        (edited.knows_empty_folders, edited.applied) = (self.knows_empty_folders, self.applied);
        let mut old = 0;
        for (at, edit) in edits.iter().enumerate() {
            if edits.get(at + 1).is_some_and(|next| next.path == edit.path) {
                continue;
            }
            let path = edit.path.as_bytes();
            let until = old + self.rows[old..].partition_point(|row| self.bytes(row) < path);
            edited.copy(self, old..until);
            old = until + usize::from(self.rows.get(until).is_some_and(|row| self.bytes(row) == path));
            if let Some((entry, fingerprint)) = edit.row {
                let in_order = edited.push(path, entry, fingerprint);
                debug_assert!(in_order, "edits are sorted and rows between them are copied first");
            }
        }
        edited.copy(self, old..self.rows.len());
        *self = edited;
    }

    fn copy(&mut self, from: &Self, range: Range<usize>) {
        for row in &from.rows[range] {
            let start = u32::try_from(self.paths.len()).expect("no longer than the tables it was made of");
            self.paths.extend_from_slice(from.bytes(row));
            self.rows.push(Row { start, ..*row });
        }
    }

    /// Whether `kind` rows are there at all (a quick look, for tests and reports).
    pub fn count(&self, kind: Kind) -> usize {
        self.rows.iter().filter(|row| row.entry.kind == kind).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectId;
    use std::collections::BTreeMap;

    fn entry(n: u8) -> Entry {
        Entry { kind: Kind::File, id: ObjectId::from_bytes([n; 20]) }
    }

    fn table(paths: &[&str]) -> DiskTable {
        let mut table = DiskTable::default();
        for path in paths {
            assert!(table.push(path.as_bytes(), entry(0), Fingerprint::default()));
        }
        table
    }

    #[test]
    fn rows_below_a_folder() {
        let table = table(&["a", "a-b", "a.b/c", "a/b", "a/c/d", "a0"]);
        let all = 0..table.len();
        assert_eq!(table.below(b"a", all.clone()), 3..5);
        assert_eq!(table.below(b"a/c", all.clone()), 4..5);
        assert_eq!(table.below(b"a.b", all.clone()), 2..3);
        assert!(table.below(b"zz", all.clone()).is_empty());
        assert!(table.below(b"a-b", all).is_empty());
    }

    #[test]
    fn refuses_rows_out_of_order() {
        let mut table = table(&["b"]);
        assert!(!table.push(b"a", entry(0), Fingerprint::default()));
        assert!(!table.push(b"b", entry(0), Fingerprint::default()));
    }

    proptest::proptest! {
        #[test]
        fn edits_as_a_map_does(first in proptest::collection::vec(("[a-d/]{1,3}", 0u8..9), 0..20),
                               then in proptest::collection::vec(("[a-d/]{1,3}", proptest::option::of(0u8..9)), 0..20)) {
            let mut map = BTreeMap::new();
            let mut table = DiskTable::default();
            let edits = first.into_iter().map(|(path, n)| (path, Some(n))).collect::<Vec<_>>();
            for edits in [edits, then] {
                let edits: Vec<_> = edits.into_iter().filter_map(|(path, n)| Some((SyncPath::new(path).ok()?, n))).collect();
                for (path, n) in &edits {
                    match n {
                        Some(n) => map.insert(path.clone(), *n),
                        None => map.remove(path),
                    };
                }
                table.edit(edits.into_iter().map(|(path, n)| TableEdit { path, row: n.map(|n| (entry(n), Fingerprint::default())) }).collect());
            }
            let rows: Vec<_> = table.iter().map(|(path, row)| (path.to_vec(), row.entry)).collect();
            let expected: Vec<_> = map.into_iter().map(|(path, n)| (path.as_bytes().to_vec(), entry(n))).collect();
            proptest::prop_assert_eq!(rows, expected);
        }
    }
}
