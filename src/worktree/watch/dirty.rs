//! What has to be looked at again: a bounded set of paths, which becomes coarser before it becomes large.
//!
//! Too many paths in one folder become the folder, too many folders become everything. Nothing is ever dropped
//! without something coarser in its place.

use std::collections::{BTreeMap, BTreeSet};

use super::WatchTrouble;
use crate::path::SyncPath;

/// So many paths are told one by one.
pub(super) const BOUND: usize = 10_000;
/// So many paths in one folder become the folder, once there are more than [`BOUND`].
const MANY: usize = 16;

/// What last happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It was made, moved here or written to, and may still be open.
    Touched,
    /// It was closed after it was written to.
    Closed,
    /// Nothing stands there any more.
    Gone,
}

/// What was seen of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What last happened to it.
    pub last: Last,
    /// The first that happened to it (since it was last told of) was that it was made: nothing stood there before.
    pub created: bool,
}

impl Seen {
    /// Something there was touched.
    pub const TOUCHED: Self = Self { last: Last::Touched, created: false };

    /// The two, the other one being later.
    #[must_use]
    pub const fn then(self, later: Self) -> Self {
        Self { last: later.last, created: self.created }
    }
}

/// What changed since it was last asked for.
#[derive(Debug, Clone, Default)]
pub struct Dirty {
    /// Files and folders; a folder stands for all that is below it.
    pub paths: BTreeMap<SyncPath, Seen>,
    /// Anything may have changed: the whole folder has to be looked at. Then there are no paths.
    pub everything: bool,
    /// What keeps the watcher from seeing all; it is told each time for as long as it lasts.
    pub trouble: Option<WatchTrouble>,
}

impl Dirty {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.everything
    }

    /// Notes that something happened at `path`, and, if it is a folder, perhaps below it.
    pub(super) fn touch(&mut self, path: SyncPath, seen: Seen) {
        if self.everything {
            return;
        }
        let seen = self.paths.get(&path).map_or(seen, |before| before.then(seen));
        self.paths.insert(path, seen);
        if self.paths.len() > BOUND {
            self.fold();
        }
    }

    /// Notes that there is nothing at `path` any more, nor below it.
    pub(super) fn gone(&mut self, path: SyncPath) {
        let below: Vec<_> = self.below(&path).cloned().collect();
        for path in below {
            self.paths.remove(&path);
        }
        self.touch(path, Seen { last: Last::Gone, created: false });
    }

    /// Notes that anything may have happened anywhere.
    pub(super) fn all(&mut self) {
        self.paths.clear();
        self.everything = true;
    }

    /// Notes what another has, which is later.
    pub(super) fn merge(&mut self, later: Self) {
        if later.everything {
            self.all();
        }
        for (path, seen) in later.paths {
            match seen.last {
                Last::Gone => {
                    let created = !self.paths.contains_key(&path) && seen.created;
                    self.gone(path.clone());
                    if created && let Some(seen) = self.paths.get_mut(&path) {
                        seen.created = true;
                    }
                }
                _ => self.touch(path, seen),
            }
        }
    }

    fn below(&self, path: &SyncPath) -> impl Iterator<Item = &SyncPath> {
        // What begins with the path's bytes stands together behind it, not all of it below it.
        let start = path.clone();
        let with_bytes = move |other: &&SyncPath| other.as_bytes().starts_with(start.as_bytes());
        self.paths.range(path..).map(|(path, _)| path).take_while(with_bytes).filter(|other| other.is_below(path))
    }

    /// Makes the set smaller: folders for their many paths, or everything.
    fn fold(&mut self) {
        let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
        self.paths.keys().for_each(|path| *counts.entry(path.parent()).or_default() += 1);
        let many: BTreeSet<Vec<u8>> =
            counts.into_iter().filter(|&(_, count)| count >= MANY).map(|(folder, _)| folder.to_vec()).collect();
        let folders: Option<Vec<SyncPath>> = many.iter().map(|folder| SyncPath::new(&folder[..]).ok()).collect();
        let Some(folders) = folders else { return self.all() }; // The top is among them.
        self.paths.retain(|path, _| !many.contains(path.parent()));
        if self.paths.len() + folders.len() > BOUND / 2 {
            return self.all();
        }
        for folder in folders {
            self.touch(folder, Seen::TOUCHED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> SyncPath {
        SyncPath::try_from(text).expect("a good path")
    }

    #[test]
    fn many_paths_in_a_folder_become_the_folder_and_many_folders_everything() {
        let mut dirty = Dirty::default();
        for n in 0..=BOUND {
            dirty.touch(path(&format!("a/b/{n}")), Seen::TOUCHED);
        }
        assert_eq!(dirty.paths.keys().collect::<Vec<_>>(), [&path("a/b")]);
        assert!(!dirty.everything);
        for n in 0..=BOUND {
            dirty.touch(path(&format!("{n}/x")), Seen::TOUCHED);
        }
        assert!(dirty.everything && dirty.paths.is_empty());
    }

    #[test]
    fn many_paths_at_the_top_become_everything() {
        let mut dirty = Dirty::default();
        for n in 0..=BOUND {
            dirty.touch(path(&format!("{n}")), Seen::TOUCHED);
        }
        assert!(dirty.everything);
    }

    #[test]
    fn what_is_below_a_folder_that_is_gone_is_not_told_of() {
        let mut dirty = Dirty::default();
        for name in ["a/x", "a/y/z", "a-b", "a.txt", "b"] {
            dirty.touch(path(name), Seen::TOUCHED);
        }
        dirty.gone(path("a"));
        let told: Vec<_> = dirty.paths.keys().map(ToString::to_string).collect();
        assert_eq!(told, ["a", "a-b", "a.txt", "b"]);
        assert_eq!(dirty.paths[&path("a")].last, Last::Gone);
    }

    #[test]
    fn the_first_and_the_last_that_happened_are_kept() {
        let mut dirty = Dirty::default();
        dirty.touch(path("a"), Seen { last: Last::Touched, created: true });
        dirty.touch(path("a"), Seen { last: Last::Closed, created: false });
        assert_eq!(dirty.paths[&path("a")], Seen { last: Last::Closed, created: true });
        dirty.touch(path("b"), Seen { last: Last::Gone, created: false });
        dirty.touch(path("b"), Seen { last: Last::Touched, created: true });
        assert!(!dirty.paths[&path("b")].created, "something stood there before");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]
        #[test]
        fn nothing_is_dropped_without_something_coarser(names in proptest::collection::vec("[a-z]{1,2}(/[a-z]{1,2}){0,3}", 1..200), copies in 1usize..200) {
            let mut dirty = Dirty::default();
            let mut touched = Vec::new();
            for (at, name) in names.iter().enumerate() {
                for copy in 0..copies {
                    let path = path(&format!("{name}/{at}-{copy}"));
                    dirty.touch(path.clone(), Seen::TOUCHED);
                    touched.push(path);
                }
            }
            prop_assert!(dirty.paths.len() <= BOUND);
            for path in touched {
                let told = dirty.everything || dirty.paths.contains_key(&path)
                    || path.ancestors().any(|above| dirty.paths.contains_key(&above));
                prop_assert!(told, "{path}");
            }
        }
    }
}
