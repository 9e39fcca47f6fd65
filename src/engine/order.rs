//! The order in which changes of many paths become commits of one path each.
//!
//! Every prefix of the order is a state that a tree can hold: what stands in the way goes first. A rename is told as
//! an addition before a deletion, so that no state in between lacks the content.

use std::collections::{BTreeSet, HashSet};

use crate::change::Change;
use crate::entry::{Entry, Kind};
use crate::id::TreeId;
use crate::path::SyncPath;
use crate::store::tree::{self, At};
use crate::store::{Objects, StoreError};

/// The changes in the order in which they are to be committed, without those that others imply (an empty folder is no
/// longer one when something is put into it).
pub(crate) fn commit_order(mut changes: Vec<Change>) -> Vec<Change> {
    let mut arriving: Vec<SyncPath> =
        changes.iter().filter(|change| change.new.is_some()).map(|change| change.path.clone()).collect();
    arriving.sort_unstable();
    changes.retain(|change| {
        let empty_folder_gone = change.new.is_none() && change.old.is_some_and(|old| old.kind == Kind::EmptyFolder);
        !(empty_folder_gone && has_below(&arriving, &change.path))
    });
    changes.sort_by_cached_key(|change| {
        let rank = match change.new {
            None if has_below(&arriving, &change.path)
                || change.path.ancestors().any(|folder| arriving.binary_search(&folder).is_ok()) =>
            {
                0
            }
            Some(entry) if entry.kind == Kind::EmptyFolder && change.old.is_none() => 3,
            Some(_) => 1,
            None => 2,
        };
        (rank, change.path.clone())
    });
    changes
}

/// What stands in `tree` in the place of what arrives, and the changes do not tell of: files below a path at which a
/// file comes to stand, a file in whose place a folder comes. Each of them is to go first, by a commit of its own: one
/// that took them along would be a commit of many paths.
pub(crate) fn in_the_way<'c>(
    objects: &Objects,
    tree: TreeId,
    changes: impl Iterator<Item = &'c Change> + Clone,
) -> Result<Vec<Change>, StoreError> {
    let is_file = |entry: Entry| entry.kind != Kind::EmptyFolder;
    let arriving = changes.clone().filter(|change| change.new.is_some() && change.old.is_none());
    let files: HashSet<&SyncPath> =
        arriving.clone().filter(|change| change.new.is_some_and(is_file)).map(|change| &change.path).collect();
    let mut places: BTreeSet<SyncPath> = arriving.flat_map(|change| change.path.ancestors()).collect();
    places.extend(files.iter().copied().cloned());
    let places: Vec<&SyncPath> = places.iter().collect();

    let told: HashSet<&SyncPath> = changes.map(|change| &change.path).collect();
    let mut found = Vec::new();
    for (place, at) in places.iter().zip(tree::lookup_many(objects, tree, &places)?) {
        match at {
            At::Folder(folder) if files.contains(place) => {
                tree::leaves(objects, folder, &mut |below, entry| {
                    let path = [place.as_bytes(), b"/", below.as_bytes()].concat();
                    let path = SyncPath::new(path).map_err(|error| StoreError::damaged("a tree", error))?;
                    found.push(Change { path, old: Some(entry), new: None });
                    Ok(())
                })?;
            }
            At::Leaf(entry) if is_file(entry) => {
                found.push(Change { path: (*place).clone(), old: Some(entry), new: None });
            }
            _ => {}
        }
    }
    found.retain(|change| !told.contains(&change.path));
    Ok(found)
}

/// Whether one of the sorted `paths` lies below the folder `path`.
fn has_below(paths: &[SyncPath], path: &SyncPath) -> bool {
    let first = [path.as_bytes(), b"/"].concat();
    let at = paths.partition_point(|other| other.as_bytes() < &first[..]);
    paths.get(at).is_some_and(|other| other.is_below(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use crate::id::ObjectId;

    const FILE: Entry = Entry { kind: Kind::File, id: ObjectId::from_bytes([1; 20]) };

    fn change(path: &str, old: Option<Entry>, new: Option<Entry>) -> Change {
        Change { path: SyncPath::new(path).expect("valid"), old, new }
    }

    fn order(changes: Vec<Change>) -> Vec<String> {
        commit_order(changes).iter().map(|change| format!("{} {}", change.verb(), change.path)).collect()
    }

    #[test]
    fn additions_come_before_deletions() {
        let changes =
            vec![change("a", Some(FILE), None), change("b", None, Some(FILE)), change("c", Some(FILE), Some(FILE))];
        assert_eq!(order(changes), ["add b", "change c", "delete a"]);
    }

    #[test]
    fn what_is_in_the_way_goes_first() {
        let file_to_folder = vec![change("p", Some(FILE), None), change("p/q", None, Some(FILE))];
        assert_eq!(order(file_to_folder), ["delete p", "add p/q"]);
        let folder_to_file = vec![change("p", None, Some(FILE)), change("p/q", Some(FILE), None)];
        assert_eq!(order(folder_to_file), ["delete p/q", "add p"]);
    }

    #[test]
    fn an_empty_folder_that_is_filled_needs_no_commit() {
        let changes = vec![
            change("p", Some(Entry::EMPTY_FOLDER), None),
            change("p/q", None, Some(FILE)),
            change("p-q", None, Some(FILE)),
        ];
        assert_eq!(order(changes), ["add p-q", "add p/q"]);
    }

    #[test]
    fn a_folder_that_is_emptied_is_added_as_an_empty_one_last() {
        let changes = vec![change("p", None, Some(Entry::EMPTY_FOLDER)), change("p/q", Some(FILE), None)];
        assert_eq!(order(changes), ["delete p/q", "add p"]);
    }
}
