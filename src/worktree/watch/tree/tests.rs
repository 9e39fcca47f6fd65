//! The tree of watched folders, with a system that can be told to refuse.

use super::*;
use crate::worktree::watch::events::Notes;
use notify::Event;
use notify::event::{CreateKind, EventKind, ModifyKind, RemoveKind, RenameMode};
use std::fs;
use std::sync::{Arc, Mutex};

/// What is watched, and how much may be.
#[derive(Clone, Default)]
struct Fake {
    watched: Arc<Mutex<BTreeSet<PathBuf>>>,
    limit: Option<usize>,
}

impl Notices for Fake {
    fn add(&mut self, folder: &Path) -> Result<(), NotAdded> {
        let mut watched = self.watched.lock().unwrap();
        if !watched.contains(folder) && self.limit.is_some_and(|limit| watched.len() >= limit) {
            return Err(NotAdded::Limit);
        }
        if !folder.is_dir() {
            return Err(NotAdded::NotThere);
        }
        watched.insert(folder.to_owned());
        Ok(())
    }

    fn remove(&mut self, folder: &Path) {
        self.watched.lock().unwrap().remove(folder);
    }
}

struct Setup {
    dir: tempfile::TempDir,
    tree: Tree,
    fake: Fake,
    notes: Notes,
}

static NEVER: AtomicBool = AtomicBool::new(false);

impl Setup {
    fn new(folders: &[&str], limit: Option<usize>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let mut fake = Fake { limit, ..Fake::default() };
        let mut tree = Tree::new(dir.path(), &dir.path().join(".git"), b"excluded/\n").unwrap();
        assert!(tree.watch_all(&mut fake, &NEVER));
        Self { dir, tree, fake, notes: Notes::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn event(&mut self, kind: EventKind, name: &str) -> &mut Self {
        self.notes.take(Ok(Event::new(kind).add_path(self.at(name))));
        self
    }

    fn renamed(&mut self, from: &str, to: &str) -> &mut Self {
        fs::rename(self.at(from), self.at(to)).unwrap();
        self.event(EventKind::Modify(ModifyKind::Name(RenameMode::From)), from);
        self.event(EventKind::Modify(ModifyKind::Name(RenameMode::To)), to)
    }

    fn digest(&mut self) -> Vec<String> {
        let dirty = self.tree.digest(std::mem::take(&mut self.notes), &mut self.fake, &NEVER).unwrap();
        if dirty.everything {
            return vec!["everything".to_owned()];
        }
        dirty
            .paths
            .into_iter()
            .map(|(path, seen)| format!("{path}{}", if seen.last == Last::Gone { " -" } else { "" }))
            .collect()
    }
}

const FOLDER_MADE: EventKind = EventKind::Create(CreateKind::Folder);
const FILE_MADE: EventKind = EventKind::Create(CreateKind::File);
const FOLDER_GONE: EventKind = EventKind::Remove(RemoveKind::Folder);

#[test]
fn watches_what_counts_and_nothing_else() {
    let mut setup =
        Setup::new(&[".git/objects", "a/b", "nested/.git", "nested/deep", "excluded/x", "a/.foldersync-stage-1"], None);
    assert_eq!(setup.tree.watched(), ["", "a", "a/b"]);
    for (kind, name) in
        [(FILE_MADE, ".git/index"), (FILE_MADE, ".git"), (FILE_MADE, "nested/x"), (FILE_MADE, "excluded/x/y")]
    {
        setup.event(kind, name);
    }
    setup.event(FILE_MADE, "a/.foldersync-stage-0").event(FILE_MADE, "GIT~1");
    assert_eq!(setup.digest(), Vec::<String>::new());
    fs::write(setup.at("a/x"), "").unwrap();
    assert_eq!(setup.event(FILE_MADE, "a/x").digest(), ["a/x"]);
}

#[test]
fn a_new_folder_is_watched_with_all_below_it_and_a_gone_one_no_more() {
    let mut setup = Setup::new(&["a"], None);
    fs::create_dir_all(setup.at("a/new/deep/er")).unwrap();
    assert_eq!(setup.event(FOLDER_MADE, "a/new").digest(), ["a/new"]);
    assert_eq!(setup.tree.watched(), ["", "a", "a/new", "a/new/deep", "a/new/deep/er"]);
    fs::remove_dir_all(setup.at("a")).unwrap();
    assert_eq!(setup.event(FOLDER_GONE, "a/new/deep").event(FOLDER_GONE, "a").digest(), ["a -"]);
    assert_eq!(setup.tree.watched(), [""]);
}

#[test]
fn a_renamed_folder_is_followed_whichever_name_comes_first() {
    let mut setup = Setup::new(&["m/sub"], None);
    assert_eq!(setup.renamed("m", "z").digest(), ["m -", "z"]);
    assert_eq!(setup.tree.watched(), ["", "z", "z/sub"]);
    assert_eq!(setup.renamed("z", "a").digest(), ["a", "z -"]);
    assert_eq!(setup.tree.watched(), ["", "a", "a/sub"]);
    // Another comes to the place of the one that went.
    setup.renamed("a", "b");
    fs::create_dir(setup.at("a")).unwrap();
    assert_eq!(setup.event(FOLDER_MADE, "a").digest(), ["a", "b"]);
    assert_eq!(setup.tree.watched(), ["", "a", "b", "b/sub"]);
}

#[test]
fn a_file_in_the_place_of_a_folder_and_the_other_way_round() {
    let mut setup = Setup::new(&["a/b"], None);
    fs::remove_dir_all(setup.at("a")).unwrap();
    fs::write(setup.at("a"), "").unwrap();
    assert_eq!(setup.event(FOLDER_GONE, "a").event(FILE_MADE, "a").digest(), ["a"]);
    assert_eq!(setup.tree.watched(), [""]);
    fs::remove_file(setup.at("a")).unwrap();
    fs::create_dir(setup.at("a")).unwrap();
    assert_eq!(setup.event(FOLDER_MADE, "a").digest(), ["a"]);
    assert_eq!(setup.tree.watched(), ["", "a"]);
}

#[test]
fn new_rules_are_heeded_at_once() {
    let mut setup = Setup::new(&["a/out", "a/b/out", "c/out"], None);
    fs::write(setup.at("a/.gitignore"), "out/\n*.o\n").unwrap();
    assert_eq!(setup.event(FILE_MADE, "a/.gitignore").digest(), ["a", "a/.gitignore"]);
    assert_eq!(setup.tree.watched(), ["", "a", "a/b", "c", "c/out"]);
    assert_eq!(setup.fake.watched.lock().unwrap().len(), 5);
    assert_eq!(setup.event(FILE_MADE, "a/b/x.o").event(FILE_MADE, "c/x.o").digest(), ["c/x.o"]);
    fs::remove_file(setup.at("a/.gitignore")).unwrap();
    assert_eq!(setup.event(EventKind::Remove(RemoveKind::File), "a/.gitignore").digest(), ["a", "a/.gitignore -"]);
    assert_eq!(setup.tree.watched().len(), 7);
    fs::write(setup.at(".gitignore"), "c\n").unwrap();
    assert_eq!(setup.event(FILE_MADE, ".gitignore").digest(), ["everything"]);
    assert!(!setup.tree.watched().contains(&"c".to_owned()));
}

#[test]
fn a_folder_that_becomes_a_repository_is_left_alone() {
    let mut setup = Setup::new(&["a/b"], None);
    fs::create_dir(setup.at("a/.git")).unwrap();
    assert_eq!(setup.event(FOLDER_MADE, "a/.git").digest(), ["a"]);
    assert_eq!(setup.tree.watched(), [""]);
    assert_eq!(setup.fake.watched.lock().unwrap().len(), 1);
}

#[test]
fn the_limit_is_named_with_the_number_needed_and_lifted_when_there_is_room() {
    let mut setup = Setup::new(&["a/x", "b", "c"], Some(3));
    assert_eq!(setup.tree.watched(), ["", "a", "b"], "the upper ones first");
    let Some(trouble @ WatchTrouble::FolderLimit { watched: 3, lacking: 2, .. }) = setup.tree.trouble() else {
        panic!("{:?}", setup.tree.trouble());
    };
    assert!(trouble.to_string().starts_with("only 3 of 5 folders are watched"), "{trouble}");
    let hint = WatchTrouble::FolderLimit { watched: 3, lacking: 2, limit: Some(100) }.hint().unwrap();
    assert!(hint.contains("sysctl fs.inotify.max_user_watches=102"), "{hint}");
    // What is watched is still told of.
    fs::write(setup.at("b/new"), "").unwrap();
    assert_eq!(setup.event(FILE_MADE, "b/new").digest(), ["b/new"]);

    setup.fake.limit = None;
    setup.notes.again = Some(Vec::new());
    assert_eq!(setup.digest(), ["a/x", "c"], "what was not watched may have changed");
    assert_eq!(setup.tree.trouble(), None);
}

#[test]
fn another_look_tells_of_the_upmost_folders_that_are_new() {
    let mut setup = Setup::new(&["a"], None);
    for folder in ["b/c/d", "b-c/d", "a/x"] {
        fs::create_dir_all(setup.at(folder)).unwrap();
    }
    setup.notes.again = Some(Vec::new());
    assert_eq!(setup.digest(), ["a/x", "b", "b-c"]);
    assert_eq!(setup.tree.watched().len(), 8);
}

#[test]
fn lost_events_mean_everything_and_all_is_watched_again() {
    let mut setup = Setup::new(&["a"], None);
    fs::create_dir_all(setup.at("b/c")).unwrap();
    setup.notes.take(Err(notify::Error::generic("broken")));
    assert_eq!(setup.digest(), ["everything"]);
    assert_eq!(setup.tree.watched(), ["", "a", "b", "b/c"]);
}

#[test]
fn a_root_that_is_gone_or_another_makes_nothing_dirty() {
    let mut setup = Setup::new(&["root/a"], None);
    let root = setup.at("root");
    let mut tree = Tree::new(&root, &root.join(".git"), b"").unwrap();
    assert!(tree.watch_all(&mut setup.fake, &NEVER));
    fs::rename(&root, setup.at("elsewhere")).unwrap();
    let gone = |root: &Path| {
        let mut notes = Notes::default();
        notes.take(Ok(Event::new(FOLDER_GONE).add_path(root.join("a"))));
        notes
    };
    assert!(!tree.stands() && tree.digest(gone(&root), &mut setup.fake, &NEVER).is_none());
    fs::create_dir(&root).unwrap();
    assert!(!tree.stands() && tree.digest(gone(&root), &mut setup.fake, &NEVER).is_none());
    fs::remove_dir(&root).unwrap();
    fs::rename(setup.at("elsewhere"), &root).unwrap();
    assert!(tree.stands());
}
