//! The whole of merging, on real repositories, with git as the referee of what they hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::change::{Change, Edit};
use crate::id::TreeId;
use crate::store::{object_id, tree};

/// A repository with loose objects.
struct Repository {
    folder: tempfile::TempDir,
    objects: Objects,
    graph: Graph,
    written: RefCell<HashSet<ObjectId>>,
}

/// A revision to be made.
#[derive(Clone, Copy)]
struct Authored<'a> {
    device: &'a str,
    time: i64,
    message: Option<&'a Message>,
}

fn by(device: &str, time: i64) -> Authored<'_> {
    Authored { device, time, message: None }
}

fn path(text: &str) -> SyncPath {
    SyncPath::new(text).unwrap()
}

const BASE_TIME: i64 = 1_795_170_662;

impl Repository {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let git =
            Command::new("git").args(["init", "-q", "--initial-branch=main"]).arg(folder.path()).output().unwrap();
        assert!(git.status.success(), "{git:?}");
        let objects = Objects::open(&folder.path().join(".git/objects")).unwrap();
        let graph = Graph::new(objects.clone());
        let repository = Self { folder, objects, graph, written: RefCell::default() };
        repository.put(ObjectKind::Tree, b"");
        repository
    }

    fn object_path(&self, id: ObjectId) -> PathBuf {
        let hex = id.to_string();
        self.folder.path().join(".git/objects").join(&hex[..2]).join(&hex[2..])
    }

    fn put(&self, kind: ObjectKind, content: &[u8]) -> ObjectId {
        let id = object_id(kind, content);
        if self.written.borrow_mut().insert(id) {
            let path = self.object_path(id);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(path).unwrap();
            let mut file = flate2::write::ZlibEncoder::new(file, flate2::Compression::fast());
            file.write_all(format!("{} {}\0", kind.word(), content.len()).as_bytes()).unwrap();
            file.write_all(content).unwrap();
            file.finish().unwrap();
        }
        id
    }

    fn entry(&self, kind: Kind, content: &str) -> Entry {
        Entry { kind, id: self.put(ObjectKind::Blob, content.as_bytes()) }
    }

    fn tree_of(&self, commit: CommitId) -> TreeId {
        self.objects.commit(commit).unwrap().tree
    }

    fn commit(&self, who: &Authored<'_>, parents: &[CommitId], edits: &[(&str, Option<Entry>)]) -> CommitId {
        let base = parents.first().map_or(TreeId::EMPTY, |&parent| self.tree_of(parent));
        let mut edits: Vec<_> = edits.iter().map(|&(at, entry)| Edit { path: path(at), entry }).collect();
        edits.sort_unstable();
        let mut sink = |content: &[u8]| Ok(self.put(ObjectKind::Tree, content).as_tree());
        let tree = tree::edit(&self.objects, base, &edits, &mut sink).unwrap();
        self.commit_tree(who, parents, tree)
    }

    fn commit_tree(&self, who: &Authored<'_>, parents: &[CommitId], tree: TreeId) -> CommitId {
        let message = who.message.cloned().unwrap_or_else(|| Message {
            subject: "edit".to_owned(),
            mtime: Some(Timestamp::new(BASE_TIME + who.time, 7)),
            ..Message::default()
        });
        let signature = |time| Signature { name: who.device.to_owned(), email: "ab@foldersync".to_owned(), time };
        let commit = Commit {
            tree,
            parents: parents.to_vec(),
            author: signature(BASE_TIME + who.time),
            committer: signature(BASE_TIME + who.time + 1),
            message: message.to_bytes(),
        };
        self.put(ObjectKind::Commit, &commit.to_bytes()).as_commit()
    }

    /// One file written, as a device does it.
    fn write(&self, who: Authored<'_>, parent: CommitId, at: &str, content: &str) -> CommitId {
        self.commit(&who, &[parent], &[(at, Some(self.entry(Kind::File, content)))])
    }

    fn delete(&self, who: Authored<'_>, parent: CommitId, at: &str) -> CommitId {
        self.commit(&who, &[parent], &[(at, None)])
    }

    /// One file renamed, as a device does it: two commits.
    fn rename(&self, who: Authored<'_>, parent: CommitId, from: &str, to: &str) -> CommitId {
        let entry = self.leaves(parent)[&path(from)];
        let message = |verb: &str, at: &str| Message {
            mtime: Some(Timestamp::new(BASE_TIME + who.time, 0)),
            ..Message::about(verb, &path(at))
        };
        let add = Message { renamed_from: Some(path(from)), ..message("add", to) };
        let added = self.commit(&Authored { message: Some(&add), ..who }, &[parent], &[(to, Some(entry))]);
        let delete = Message { renamed_to: Some(path(to)), ..message("delete", from) };
        self.commit(&Authored { message: Some(&delete), ..who }, &[added], &[(from, None)])
    }

    fn start(&self, files: &[(&str, &str)]) -> CommitId {
        let edits: Vec<_> = files.iter().map(|(at, content)| (*at, Some(self.entry(Kind::File, content)))).collect();
        self.commit(&by("first", 0), &[], &edits)
    }

    fn try_merge(&self, heads: &[CommitId]) -> Result<Merged, MergeError> {
        let mut complete = true;
        let merged = merge(&self.objects, &self.graph, heads, &MergeOptions::default(), &mut |kind, content| {
            if kind == ObjectKind::Tree {
                let has = |entry: tree::TreeEntry<'_>| {
                    entry.id == ObjectId::from(TreeId::EMPTY) || self.objects.exists(&entry.id)
                };
                complete &= tree::entries(content).all(|entry| has(entry.unwrap()));
            }
            Ok(self.put(kind, content))
        });
        assert!(complete, "what a tree needs comes before it");
        merged
    }

    /// Merges, and checks what must hold of every merge.
    fn merge(&self, heads: &[CommitId]) -> Merged {
        let merged = self.try_merge(heads).unwrap();
        for left in self.graph.range(heads, &[merged.head]).unwrap() {
            let derived = self.objects.commit(left).unwrap().message().derived;
            assert!(derived.is_some(), "{left} was authored, and is not in the history of the result");
        }
        assert_eq!(merged.new_commits.last().copied().unwrap_or(merged.head), merged.head);
        for new in merged.new_commits.windows(2) {
            assert_eq!(self.objects.commit(new[1]).unwrap().parents, [new[0]]);
        }
        let mut reversed: Vec<_> = heads.to_vec();
        reversed.reverse();
        reversed.push(merged.head);
        assert_eq!(self.try_merge(&reversed).unwrap().head, merged.head, "commutative and idempotent");
        let again = self.try_merge(&[merged.head]).unwrap();
        assert_eq!((again.head, again.new_commits), (merged.head, vec![]));
        merged
    }

    fn leaves(&self, commit: CommitId) -> BTreeMap<SyncPath, Entry> {
        let mut leaves = BTreeMap::new();
        tree::leaves(&self.objects, self.tree_of(commit), &mut |path, entry| {
            leaves.insert(path, entry);
            Ok(())
        })
        .unwrap();
        leaves
    }

    fn content(&self, id: ObjectId) -> String {
        let mut content = Vec::new();
        self.objects.read(ObjectKind::Blob, &id, &mut content).unwrap();
        String::from_utf8(content).unwrap()
    }

    /// The paths and contents of a revision, in the order of paths: `a=1`, with `*`, `@` or `/` for an executable, a
    /// link or an empty folder.
    fn show(&self, commit: CommitId) -> Vec<String> {
        let show = |(path, entry): (SyncPath, Entry)| match entry.kind {
            Kind::File => format!("{path}={}", self.content(entry.id)),
            Kind::Executable => format!("{path}*={}", self.content(entry.id)),
            Kind::Symlink => format!("{path}@={}", self.content(entry.id)),
            Kind::EmptyFolder => format!("{path}/"),
        };
        self.leaves(commit).into_iter().map(show).collect()
    }

    fn changes(&self, old: CommitId, new: CommitId) -> Vec<Change> {
        let (old, new) = (self.leaves(old), self.leaves(new));
        let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let change =
            |path: &SyncPath| Change { path: path.clone(), old: old.get(path).copied(), new: new.get(path).copied() };
        paths.into_iter().map(change).filter(|change| change.old != change.new).collect()
    }

    /// I1: but for merges, each commit changes one path. (An empty folder that gets something in it is no change.)
    fn check_one_path_a_commit(&self, head: CommitId) {
        for id in self.graph.range(&[head], &[]).unwrap() {
            let commit = self.objects.commit(id).unwrap();
            if let [parent] = commit.parents[..] {
                let changes = self.changes(parent, id);
                let told = |change: &&Change| {
                    change.old != Some(Entry::EMPTY_FOLDER)
                        || change.new.is_some()
                        || !changes.iter().any(|other| other.path.is_below(&change.path))
                };
                assert_eq!(changes.iter().filter(told).count(), 1, "{id}: {changes:?}");
            }
        }
    }

    fn check_with_git(&self, head: CommitId) {
        fs::write(self.folder.path().join(".git/refs/heads/main"), format!("{head}\n")).unwrap();
        let git = Command::new("git").arg("-C").arg(self.folder.path()).args(["fsck", "--full", "--strict"]).output();
        let git = git.unwrap();
        let said = String::from_utf8_lossy(&git.stderr).into_owned() + &String::from_utf8_lossy(&git.stdout);
        let bad = said.lines().any(|line| !line.starts_with("dangling ") && !line.starts_with("notice: "));
        assert!(git.status.success() && !bad, "{said}");
    }
}

/// The time that goes with a revision's, as it stands in names.
fn stamp(time: i64) -> String {
    format!("2026-11-20 10.31.{:02}", 2 + time)
}

fn copy(stem: &str, device: &str, time: i64, ending: &str) -> String {
    format!("{stem} (conflict {device} {}){ending}", stamp(time))
}

#[test]
fn nothing_to_merge_is_an_error() {
    assert!(matches!(Repository::new().try_merge(&[]), Err(MergeError::NoHeads)));
}

#[test]
fn a_head_that_others_follow_is_no_merge() {
    let repository = Repository::new();
    let base = repository.start(&[("a", "0")]);
    let next = repository.write(by("x", 1), base, "a", "1");
    let merged = repository.merge(&[base, next]);
    assert_eq!((merged.head, merged.new_commits.len()), (next, 0));
}

#[test]
fn changes_of_different_files_come_together() {
    let repository = Repository::new();
    let base = repository.start(&[("a", "0"), ("b", "0"), ("c", "0"), ("d/e", "0")]);
    let x = repository.write(by("x", 1), base, "a", "1");
    let x = repository.delete(by("x", 2), x, "d/e");
    let y = repository.write(by("y", 1), base, "b", "2");
    let y = repository.write(by("y", 2), y, "f/g", "3");
    let merged = repository.merge(&[x, y]);
    assert_eq!(repository.show(merged.head), ["a=1", "b=2", "c=0", "f/g=3"]);
    let commit = repository.objects.commit(merged.head).unwrap();
    let mut parents = vec![x, y];
    parents.sort_unstable();
    assert_eq!(commit.parents, parents);
    assert_eq!(commit.author, commit.committer);
    assert_eq!((&commit.author.name[..], commit.author.time), ("foldersync", BASE_TIME + 3));
    assert_eq!(commit.message, b"merge 2 revisions\n\nFoldersync-Derived: merge\n");
    assert_eq!(merged.new_commits, [merged.head]);
    repository.check_with_git(merged.head);
}

#[rstest]
#[case::both_the_same(Some("1"), Some("1"), &["p=1"])]
#[case::change_beats_deletion(Some("1"), None, &["p=1"])]
#[case::both_deleted(None, None, &[])]
fn both_sides(#[case] x: Option<&str>, #[case] y: Option<&str>, #[case] expected: &[&str]) {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let side = |device, time, content: Option<&str>| {
        let entry = content.map(|content| repository.entry(Kind::File, content));
        repository.commit(&by(device, time), &[base], &[("p", entry)])
    };
    let merged = repository.merge(&[side("x", 1, x), side("y", 2, y)]);
    assert_eq!(merged.conflicts, []);
    assert_eq!(repository.show(merged.head), [expected, &["q=0"]].concat());
}

#[test]
fn the_later_keeps_the_name_and_the_other_is_kept_beside_it() {
    let repository = Repository::new();
    let base = repository.start(&[("d/p.bin", "0")]);
    let early = repository.write(by("laptop", 1), base, "d/p.bin", "early");
    let late = repository.write(by("nas", 5), base, "d/p.bin", "late");
    let merged = repository.merge(&[late, early]);
    let kept = copy("d/p", "laptop", 1, ".bin");
    assert_eq!(
        repository.show(merged.head),
        [format!("d/p (conflict laptop {}).bin=early", stamp(1)), "d/p.bin=late".to_owned()]
    );
    let time = Timestamp::new(BASE_TIME + 1, 7);
    let conflict = Conflict { path: path("d/p.bin"), copy: path(&kept), device: "laptop".to_owned(), time };
    assert_eq!(merged.conflicts, [conflict]);
    let [merge, added] = merged.new_commits[..] else { panic!("a merge and one copy") };
    assert_eq!(repository.show(merge), ["d/p.bin=late"]);
    let message = repository.objects.commit(merge).unwrap().message();
    assert_eq!(message.conflicts, [path("d/p.bin")]);
    let added = repository.objects.commit(added).unwrap();
    assert_eq!((&added.author.name[..], added.author.time), ("laptop", BASE_TIME + 1));
    assert_eq!((&added.committer.name[..], added.committer.time), ("foldersync", BASE_TIME + 6));
    let message = added.message();
    assert_eq!(message.subject, format!("add {kept}"));
    assert_eq!((message.mtime, message.conflict_of), (Some(time), Some(path("d/p.bin"))));
    assert_eq!(message.derived, Some(Derived::ConflictCopy));
    repository.check_with_git(merged.head);
}

#[test]
fn the_latest_that_wrote_a_content_speaks_for_it() {
    for times in [[1, 9], [9, 1]] {
        let repository = Repository::new();
        let base = repository.start(&[("p", "0"), ("q", "0")]);
        let x = repository.write(by("x", times[0]), base, "p", "1");
        let z = repository.write(by("z", times[1]), base, "p", "1");
        let y = repository.write(by("y", 5), base, "p", "2");
        let won = ["p=1".to_owned(), copy("p", "y", 5, "=2"), "q=0".to_owned()];
        assert_eq!(repository.show(repository.merge(&[x, y, z]).head), won);

        // So it is where a person has chosen it.
        let chosen = repository.commit_tree(&by("m", 2), &[x, z, y], repository.tree_of(x));
        let w = repository.write(by("w", 7), base, "p", "3");
        let won = ["p=1".to_owned(), copy("p", "w", 7, "=3"), "q=0".to_owned()];
        assert_eq!(repository.show(repository.merge(&[chosen, w]).head), won);
        let w = repository.write(by("w", 20), base, "p", "3");
        let latest = if times[0] > times[1] { "x" } else { "z" };
        let lost = ["p=3".to_owned(), copy("p", latest, 9, "=1"), "q=0".to_owned()];
        assert_eq!(repository.show(repository.merge(&[chosen, w]).head), lost);
    }
}

#[test]
fn a_tie_goes_to_the_greater_content() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0")]);
    let x = repository.write(by("x", 1), base, "p", "one");
    let y = repository.write(by("y", 1), base, "p", "two");
    let merged = repository.merge(&[x, y]);
    let ids = ["one", "two"].map(|content| object_id(ObjectKind::Blob, content.as_bytes()));
    let winner = if ids[0] > ids[1] { "one" } else { "two" };
    assert!(repository.show(merged.head).contains(&format!("p={winner}")));
}

#[test]
fn three_sides_make_two_copies_and_equal_names_are_numbered() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0")]);
    let tips = ["a", "b", "c"].map(|content| repository.write(by("x", 1), base, "p", content));
    let merged = repository.merge(&tips);
    let shown = repository.show(merged.head);
    assert_eq!(shown.len(), 3);
    assert!(shown[1].starts_with(&copy("p", "x", 1, "=")), "{shown:?}");
    assert!(shown[2].starts_with(&copy("p", "x", 1, " 2=")), "{shown:?}");
    repository.check_one_path_a_commit(merged.head);
}

#[test]
fn a_copy_that_is_there_already_is_not_made_again() {
    let repository = Repository::new();
    let name = copy("p", "x", 1, "");
    let base = repository.start(&[("p", "0"), (&name, "early")]);
    let x = repository.write(by("x", 1), base, "p", "early");
    let y = repository.write(by("y", 2), base, "p", "late");
    let merged = repository.merge(&[x, y]);
    assert_eq!(merged.new_commits.len(), 1);
    assert_eq!(merged.conflicts[0].copy, path(&name));
    // With something else under its name, the copy takes the next.
    let base = repository.start(&[("p", "0"), (&name, "other")]);
    let x = repository.write(by("x", 1), base, "p", "early");
    let y = repository.write(by("y", 2), base, "p", "late");
    let merged = repository.merge(&[x, y]);
    assert_eq!(merged.conflicts[0].copy, path(&(name + " 2")));
}

#[test]
fn only_modes_differ_executable_wins() {
    let repository = Repository::new();
    let base = repository.start(&[("q", "0")]);
    let x = repository.commit(&by("x", 1), &[base], &[("p", Some(repository.entry(Kind::Executable, "1")))]);
    let y = repository.write(by("y", 2), base, "p", "1");
    let merged = repository.merge(&[x, y]);
    assert_eq!(repository.show(merged.head), ["p*=1", "q=0"]);
    assert_eq!(merged.conflicts, []);
}

#[test]
fn a_mode_changed_here_and_a_content_there_are_no_conflict() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0")]);
    let x = repository.commit(&by("x", 1), &[base], &[("p", Some(repository.entry(Kind::Executable, "0")))]);
    let y = repository.write(by("y", 2), base, "p", "1");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["p*=1"]);
}

#[rstest]
#[case::clean("notes.txt", "A\nb\nc\nd\n", "a\nb\nc\nD\n", Some("A\nb\nc\nD\n"))]
#[case::upper_case_ending("NOTES.MD", "A\nb\nc\nd\n", "a\nb\nc\nD\n", Some("A\nb\nc\nD\n"))]
#[case::same_line("notes.txt", "A\nb\nc\nd\n", "X\nb\nc\nd\n", None)]
#[case::other_kind_of_file("notes.c", "A\nb\nc\nd\n", "a\nb\nc\nD\n", None)]
#[case::nul("notes.txt", "A\nb\nc\nd\n\0", "a\nb\nc\nD\n", None)]
#[case::recipe("notes.txt", "foldersync-recipe 1\na\nb\nc\nd\n", "a\nb\nc\nD\n", None)]
fn text_is_merged_by_lines(#[case] name: &str, #[case] x: &str, #[case] y: &str, #[case] expected: Option<&str>) {
    let repository = Repository::new();
    let base = repository.start(&[(name, "a\nb\nc\nd\n")]);
    let x = repository.write(by("x", 1), base, name, x);
    let y = repository.write(by("y", 2), base, name, y);
    let merged = repository.merge(&[x, y]);
    match expected {
        Some(text) => assert_eq!(repository.show(merged.head), [format!("{name}={text}")]),
        None => assert_eq!(merged.conflicts.len(), 1),
    }
}

#[test]
fn text_beyond_the_limit_is_not_merged() {
    let repository = Repository::new();
    let long = "x\n".repeat(600_000);
    let base = repository.start(&[("p.txt", &format!("a\n{long}b\n"))]);
    let x = repository.write(by("x", 1), base, "p.txt", &format!("A\n{long}b\n"));
    let y = repository.write(by("y", 2), base, "p.txt", &format!("a\n{long}B\n"));
    assert_eq!(repository.merge(&[x, y]).conflicts.len(), 1);
}

#[test]
fn text_of_just_the_limit_is_merged() {
    let repository = Repository::new();
    let long = "x\n".repeat(usize::try_from(MergeOptions::default().text_limit).unwrap() / 2 - 2);
    let base = repository.start(&[("p.txt", &format!("a\n{long}b\n"))]);
    let x = repository.write(by("x", 1), base, "p.txt", &format!("A\n{long}b\n"));
    let y = repository.write(by("y", 2), base, "p.txt", &format!("a\n{long}B\n"));
    let merged = repository.merge(&[x, y]);
    assert!(repository.show(merged.head) == [format!("p.txt=A\n{long}B\n")]);
}

#[test]
fn text_that_both_added_has_no_base_to_merge_over() {
    let repository = Repository::new();
    let base = repository.start(&[("q", "0")]);
    let x = repository.write(by("x", 1), base, "p.txt", "a\nb\n");
    let y = repository.write(by("y", 2), base, "p.txt", "a\nb\nc\n");
    assert_eq!(repository.merge(&[x, y]).conflicts.len(), 1);
}

#[test]
fn three_texts_are_merged_into_one() {
    let repository = Repository::new();
    let base = repository.start(&[("p.txt", "a\nb\nc\nd\ne\n")]);
    let tips = ["A\nb\nc\nd\ne\n", "a\nb\nC\nd\ne\n", "a\nb\nc\nd\nE\n"]
        .map(|text| repository.write(by("x", 1), base, "p.txt", text));
    assert_eq!(repository.show(repository.merge(&tips).head), ["p.txt=A\nb\nC\nd\nE\n"]);
}

#[test]
fn the_base_of_a_text_is_the_last_revision_that_its_sides_share() {
    let repository = Repository::new();
    let base = repository.start(&[("p.txt", "0\n"), ("q", "0")]);
    let shared = repository.write(by("x", 1), base, "p.txt", "a\nb\nc\nd\n");
    let x = repository.write(by("x", 2), shared, "p.txt", "A\nb\nc\nd\n");
    let y = repository.write(by("y", 2), shared, "p.txt", "a\nb\nc\nD\n");
    let z = repository.write(by("z", 1), base, "q", "1");
    assert_eq!(repository.show(repository.merge(&[x, y, z]).head), ["p.txt=A\nb\nc\nD\n", "q=1"]);
}

#[test]
fn texts_that_do_not_go_back_to_one_are_not_merged() {
    // v and y meet x, each for itself, and both come to keep y's text; both go on from it. What the two have in common
    // is x's text and y's, in whatever order.
    for lost in ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n"] {
        let repository = Repository::new();
        let base = repository.start(&[("p.txt", "0\n"), ("r", "0")]);
        let x = repository.write(by("x", 1), base, "p.txt", lost);
        let y = repository.write(by("y", 2), base, "p.txt", "a\nb\nc\nd\n");
        let here = repository.merge(&[x, y]).head;
        let v = repository.write(by("v", 3), here, "p.txt", "A\nb\nc\nd\n");
        let y = repository.write(by("y", 3), y, "r", "3");
        let there = repository.merge(&[x, y]).head;
        let y = repository.write(by("y", 4), there, "p.txt", "a\nb\nc\nD\n");
        let shown = repository.show(repository.merge(&[v, y]).head);
        assert!(shown.contains(&"p.txt=a\nb\nc\nD\n".to_owned()), "{shown:?}");
        assert!(shown.contains(&copy("p", "v", 3, ".txt=A\nb\nc\nd\n")), "{shown:?}");
    }
}

#[test]
fn three_texts_of_which_two_cannot_be_merged_are_in_conflict() {
    let repository = Repository::new();
    let base = repository.start(&[("p.txt", "a\nb\nc\n")]);
    let tips = ["1\nb\nc\n", "2\nb\nc\n", "3\nb\nc\n"];
    let tips = tips.map(|text| repository.write(by(&text[..1], 1), base, "p.txt", text));
    assert_eq!(repository.show(repository.merge(&tips).head).len(), 3);
}

#[test]
fn what_foldersync_does_not_keep_is_left_as_it_is() {
    // A repository in the folder, as git itself records it.
    let repository = Repository::new();
    let blob = repository.entry(Kind::File, "0").id;
    let mut tree = Vec::new();
    for (mode, name) in [(0o100_644, "p"), (0o100_644, "q"), (0o160_000, "sub")] {
        tree::write_entry(&mut tree, mode, name.as_bytes(), &blob);
    }
    let tree = repository.put(ObjectKind::Tree, &tree).as_tree();
    let base = repository.commit_tree(&by("first", 0), &[], tree);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 1), base, "q", "1");
    let merged = repository.merge(&[x, y]).head;
    let mut content = Vec::new();
    repository.objects.tree(repository.tree_of(merged), &mut content).unwrap();
    assert!(content.windows(11).any(|bytes| bytes == b"160000 sub\0"), "{content:?}");
}

#[test]
fn a_folder_keeps_its_name_against_a_file() {
    let repository = Repository::new();
    let base = repository.start(&[("q", "0")]);
    let x = repository.write(by("x", 1), base, "p.d", "file");
    let y = repository.write(by("y", 2), base, "p.d/a", "inside");
    let merged = repository.merge(&[x, y]);
    assert_eq!(
        repository.show(merged.head),
        [format!("{}=file", copy("p", "x", 1, ".d")), "p.d/a=inside".to_owned(), "q=0".to_owned()]
    );
    repository.check_one_path_a_commit(merged.head);
}

#[test]
fn a_file_that_became_a_folder_here_and_changed_there() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0")]);
    let x = repository.delete(by("x", 1), base, "p");
    let x = repository.write(by("x", 2), x, "p/a/b", "inside");
    let y = repository.write(by("y", 3), base, "p", "changed");
    let merged = repository.merge(&[x, y]);
    assert_eq!(repository.show(merged.head), [format!("{}=changed", copy("p", "y", 3, "")), "p/a/b=inside".to_owned()]);
}

#[test]
fn an_empty_folder_keeps_its_name_against_a_file() {
    let repository = Repository::new();
    let base = repository.start(&[("q", "0")]);
    let x = repository.commit(&by("x", 1), &[base], &[("p", Some(Entry::EMPTY_FOLDER))]);
    let y = repository.write(by("y", 2), base, "p", "file");
    let merged = repository.merge(&[x, y]);
    let kept = ["p/".to_owned(), copy("p", "y", 2, "=file"), "q=0".to_owned()];
    assert_eq!(repository.show(merged.head), kept);
    repository.check_with_git(merged.head);
}

#[test]
fn an_empty_folder_is_none_with_something_in_it() {
    let repository = Repository::new();
    let base = repository.start(&[("q", "0")]);
    let x = repository.commit(&by("x", 1), &[base], &[("p", Some(Entry::EMPTY_FOLDER))]);
    let y = repository.write(by("y", 2), base, "p/a", "1");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["p/a=1", "q=0"]);
}

#[test]
fn a_file_that_became_an_empty_folder_and_the_other_way_round() {
    let repository = Repository::new();
    let (folder, file) = (Some(Entry::EMPTY_FOLDER), Some(repository.entry(Kind::File, "1")));
    let base = repository.commit(&by("first", 0), &[], &[("p", file), ("q", folder), ("r", file)]);
    let x = repository.commit(&by("x", 1), &[base], &[("p", folder)]);
    let x = repository.commit(&by("x", 2), &[x], &[("q", file)]);
    for time in 3..9 {
        let y = repository.write(by("y", time), base, "r", "2");
        let merged = repository.merge(&[x, y]);
        assert_eq!(repository.show(merged.head), ["p/", "q=1", "r=2"]);
        assert_eq!(merged.conflicts, []);
    }
}

#[test]
fn a_link_is_never_merged_as_text() {
    let repository = Repository::new();
    let base = repository.start(&[("p.txt", "0\n")]);
    let x = repository.commit(&by("x", 1), &[base], &[("p.txt", Some(repository.entry(Kind::Symlink, "target")))]);
    let y = repository.write(by("y", 2), base, "p.txt", "1\n");
    let shown = repository.show(repository.merge(&[x, y]).head);
    assert_eq!(shown, [format!("p (conflict x {}).txt@=target", stamp(1)), "p.txt=1\n".to_owned()]);
}

#[test]
fn an_edit_follows_a_renamed_file() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0"), ("q", "0")]);
    let x = repository.rename(by("x", 1), base, "old", "new/name");
    let y = repository.write(by("y", 2), base, "old", "edited");
    let merged = repository.merge(&[x, y]);
    assert_eq!(repository.show(merged.head), ["new/name=edited", "q=0"]);
    assert_eq!(merged.conflicts, []);
}

#[test]
fn an_edit_follows_a_file_that_was_renamed_twice() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0")]);
    let x = repository.rename(by("x", 1), base, "old", "middle");
    let x = repository.rename(by("x", 2), x, "middle", "new");
    let y = repository.write(by("y", 2), base, "old", "edited");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["new=edited"]);
}

#[test]
fn a_person_renames_in_one_commit() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0"), ("twin", "1"), ("twin 2", "1")]);
    let person = Authored { message: Some(&Message::default()), ..by("person", 1) };
    let entry = |content| Some(repository.entry(Kind::File, content));
    let x = repository.commit(
        &person,
        &[base],
        &[("old", None), ("new", entry("0")), ("twin", None), ("t", entry("1")), ("u", entry("1"))],
    );
    let y = repository.write(by("y", 2), base, "old", "edited");
    let y = repository.write(by("y", 3), y, "twin", "edited too");
    // Where the twin went is ambiguous: there the change beats the deletion.
    let merged = repository.merge(&[x, y]);
    assert_eq!(repository.show(merged.head), ["new=edited", "t=1", "twin=edited too", "twin 2=1", "u=1"]);
    // And which of two has gone to one name.
    let x = repository.commit(&person, &[base], &[("twin", None), ("twin 2", None), ("t", entry("1"))]);
    let merged = repository.merge(&[x, y]);
    assert_eq!(repository.show(merged.head), ["old=edited", "t=1", "twin=edited too"]);
}

#[test]
fn edits_on_both_sides_of_a_rename_meet_at_the_new_name() {
    let repository = Repository::new();
    let base = repository.start(&[("old.txt", "a\nb\nc\nd\n"), ("old.bin", "0")]);
    let x = repository.rename(by("x", 1), base, "old.txt", "new.txt");
    let x = repository.rename(by("x", 1), x, "old.bin", "new.bin");
    let x = repository.write(by("x", 2), x, "new.txt", "A\nb\nc\nd\n");
    let x = repository.write(by("x", 2), x, "new.bin", "here");
    let y = repository.write(by("y", 3), base, "old.txt", "a\nb\nc\nD\n");
    let y = repository.write(by("y", 3), y, "old.bin", "there");
    let merged = repository.merge(&[x, y]);
    let copy = copy("new", "x", 2, ".bin");
    assert_eq!(
        repository.show(merged.head),
        [format!("{copy}=here"), "new.bin=there".to_owned(), "new.txt=A\nb\nc\nD\n".to_owned()]
    );
}

#[test]
fn an_edit_meets_a_file_that_was_changed_and_then_renamed() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0")]);
    let x = repository.write(by("x", 1), base, "old", "here");
    let x = repository.rename(by("x", 1), x, "old", "new");
    let y = repository.write(by("y", 2), base, "old", "there");
    let merged = repository.merge(&[x, y]);
    assert_eq!(repository.show(merged.head), ["new=there".to_owned(), copy("new", "x", 1, "=here")]);
}

#[test]
fn edits_of_two_that_follow_a_rename_are_merged() {
    let repository = Repository::new();
    let base = repository.start(&[("old.txt", "a\nb\nc\nd\n"), ("q", "0")]);
    let x = repository.rename(by("x", 1), base, "old.txt", "new.txt");
    let y = repository.write(by("y", 2), base, "old.txt", "A\nb\nc\nd\n");
    let z = repository.write(by("z", 3), base, "old.txt", "a\nb\nc\nD\n");
    assert_eq!(repository.show(repository.merge(&[x, y, z]).head), ["new.txt=A\nb\nc\nD\n", "q=0"]);
}

#[test]
fn a_file_of_its_own_does_not_follow_another_that_was_renamed() {
    let repository = Repository::new();
    let base = repository.start(&[("q", "0")]);
    let x = repository.write(by("x", 1), base, "old", "here");
    let x = repository.rename(by("x", 1), x, "old", "new");
    let y = repository.write(by("y", 2), base, "old", "there");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["new=here", "old=there", "q=0"]);
}

#[test]
fn a_file_written_anew_does_not_follow_the_one_that_was_renamed() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0")]);
    let x = repository.rename(by("x", 1), base, "old", "new");
    let y = repository.rename(by("y", 2), base, "old", "new");
    let y = repository.write(by("y", 3), y, "old", "another");
    let y = repository.write(by("y", 4), y, "old", "another, changed");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["new=0", "old=another, changed"]);
}

#[test]
fn a_file_written_anew_where_one_was_renamed_by_both_stays() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0")]);
    let x = repository.rename(by("x", 1), base, "old", "new");
    let y = repository.rename(by("y", 2), base, "old", "newer");
    let y = repository.write(by("y", 3), y, "old", "another");
    let y = repository.write(by("y", 4), y, "old", "another, changed");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["new=0", "newer=0", "old=another, changed"]);
}

#[test]
fn an_edit_stays_where_its_side_has_another_file_under_the_new_name() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0"), ("twin", "0")]);
    let x = repository.rename(by("x", 1), base, "old", "new");
    let y = repository.rename(by("y", 2), base, "twin", "new");
    let y = repository.write(by("y", 3), y, "old", "edited");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["new=0", "old=edited"]);
}

#[test]
fn a_file_renamed_to_two_names_stands_under_both() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0")]);
    let x = repository.rename(by("x", 1), base, "old", "new x");
    let y = repository.rename(by("y", 2), base, "old", "new y");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["new x=0", "new y=0"]);
}

#[test]
fn a_rename_that_only_claims_to_be_one_is_a_deletion() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0"), ("other", "1")]);
    let message = Message { renamed_to: Some(path("other")), ..Message::about("delete", &path("old")) };
    let x = repository.commit(&Authored { message: Some(&message), ..by("x", 1) }, &[base], &[("old", None)]);
    let y = repository.write(by("y", 2), base, "old", "edited");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["old=edited", "other=1"]);

    // Nor is it one where the other side knows nothing of that name.
    let base = repository.start(&[("old", "0")]);
    let x = repository.write(by("x", 1), base, "other", "1");
    let x = repository.commit(&Authored { message: Some(&message), ..by("x", 2) }, &[x], &[("old", None)]);
    let y = repository.write(by("y", 2), base, "old", "edited");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["old=edited", "other=1"]);
}

#[test]
fn a_file_renamed_and_deleted_there_comes_back_where_it_was_changed() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0"), ("q", "0")]);
    let x = repository.rename(by("x", 1), base, "old", "new");
    let x = repository.delete(by("x", 2), x, "new");
    let y = repository.write(by("y", 2), base, "old", "edited");
    assert_eq!(repository.show(repository.merge(&[x, y]).head), ["old=edited", "q=0"]);
}

#[test]
fn histories_without_a_common_beginning_come_together() {
    let repository = Repository::new();
    let x = repository.start(&[("a", "0"), ("b", "0")]);
    let y = repository.commit(&by("y", 3), &[], &[("a", Some(repository.entry(Kind::File, "1")))]);
    let merged = repository.merge(&[x, y]);
    let shown = repository.show(merged.head);
    assert_eq!(shown, ["a=1".to_owned(), copy("a", "first", 0, "=0"), "b=0".to_owned()]);
}

#[test]
fn going_on_from_what_a_merge_has_taken_is_no_conflict() {
    // y's merge took over what x had written; meanwhile x goes on.
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 1), base, "q", "1");
    let both = repository.merge(&[x, y]).head;
    let y = repository.write(by("y", 2), both, "r", "2");
    let x = repository.write(by("x", 2), x, "p", "2");
    let merged = repository.merge(&[x, y]);
    assert_eq!(repository.show(merged.head), ["p=2", "q=1", "r=2"]);
    assert_eq!(merged.conflicts, []);
}

#[test]
fn going_on_from_what_a_person_has_taken_in_a_merge_is_no_conflict() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 1), base, "q", "1");
    let taken = repository.write(by("y", 1), x, "q", "1");
    let both = repository.commit_tree(&by("m", 2), &[x, y], repository.tree_of(taken));
    let x = repository.write(by("x", 2), x, "p", "2");
    let merged = repository.merge(&[x, both]);
    assert_eq!(repository.show(merged.head), ["p=2", "q=1"]);
    assert_eq!(merged.conflicts, []);
}

#[test]
fn what_a_merge_has_settled_stays_settled() {
    // The conflict of x and y is merged and ended by hand; z, who only knows x's version, brings nothing new.
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 2), base, "p", "2");
    let both = repository.merge(&[x, y]).head;
    let ended = repository.delete(by("y", 3), both, &copy("p", "x", 1, ""));
    let z = repository.write(by("z", 4), x, "q", "1");
    assert_eq!(repository.show(repository.merge(&[ended, z]).head), ["p=2", "q=1"]);
}

#[test]
fn going_on_from_what_two_have_chosen_alike_is_no_conflict() {
    // v and y meet x, each for itself, and both come to keep y's version; then v writes elsewhere, and y there.
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0"), ("r", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 2), base, "p", "2");
    let here = repository.merge(&[x, y]).head;
    let v = repository.write(by("v", 3), here, "q", "3");
    let y = repository.write(by("y", 3), y, "r", "3");
    let there = repository.merge(&[x, y]).head;
    let lost = copy("p", "x", 1, "");

    let y = repository.write(by("y", 4), there, "p", "4");
    let merged = repository.merge(&[v, y]);
    assert_eq!(repository.show(merged.head), ["p=4".to_owned(), format!("{lost}=1"), "q=3".into(), "r=3".into()]);
    assert_eq!(merged.conflicts, []);

    // Whatever somebody else has made of it.
    let w = repository.write(by("w", 9), base, "p", "9");
    let kept = ["p=9".to_owned(), format!("{lost}=1"), copy("p", "y", 4, "=4"), "q=3".into(), "r=3".into()];
    assert_eq!(repository.show(repository.merge(&[v, y, w]).head), kept);

    // So it is for the copy: who ends the conflict ends it.
    let y = repository.delete(by("y", 5), y, &lost);
    let merged = repository.merge(&[v, y]);
    assert_eq!(repository.show(merged.head), ["p=4", "q=3", "r=3"]);
    assert_eq!(merged.conflicts, []);

    // Both wrote there: that is a conflict.
    let v = repository.write(by("v", 6), v, "p", "6");
    let merged = repository.merge(&[v, y]);
    assert_eq!(repository.show(merged.head), ["p=6".to_owned(), copy("p", "y", 4, "=4"), "q=3".into(), "r=3".into()]);
}

#[test]
fn what_some_tip_has_gone_on_from_does_not_count() {
    // z knows x's version as it was; w knows neither.
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let z = repository.write(by("z", 9), x, "q", "1");
    let x = repository.write(by("x", 2), x, "p", "2");
    let w = repository.write(by("w", 3), base, "r", "1");
    let merged = repository.merge(&[x, z, w]);
    assert_eq!(repository.show(merged.head), ["p=2", "q=1", "r=1"]);
    assert_eq!(merged.conflicts, []);
}

#[test]
fn what_a_person_has_decided_against_does_not_come_back() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 2), base, "p", "2");
    let decided = repository.commit_tree(&by("m", 3), &[x, y], repository.tree_of(x));
    let z = repository.write(by("z", 4), y, "q", "1");
    let w = repository.write(by("w", 5), base, "r", "1");
    let merged = repository.merge(&[decided, z, w]);
    assert_eq!(repository.show(merged.head), ["p=1", "q=1", "r=1"]);
    assert_eq!(merged.conflicts, []);
}

#[test]
fn merges_of_a_person_that_chose_differently_are_in_conflict() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 2), base, "p", "2");
    let ours = repository.commit_tree(&by("m", 3), &[x, y], repository.tree_of(x));
    let theirs = repository.commit_tree(&by("m", 4), &[x, y], repository.tree_of(y));
    let older = repository.write(by("z", 9), base, "p", "3");
    let merged = repository.merge(&[ours, theirs, older]);
    // Named after who wrote what was chosen, not after who chose.
    let kept = ["p=3".to_owned(), copy("p", "x", 1, "=1"), copy("p", "y", 2, "=2")];
    assert_eq!(repository.show(merged.head), kept);
}

#[test]
fn texts_between_which_persons_chose_differently_are_in_conflict() {
    // Both choices go back to both texts: neither is what the other is a change of.
    let repository = Repository::new();
    let base = repository.start(&[("p.txt", "0\n")]);
    let x = repository.write(by("x", 1), base, "p.txt", "1\n");
    let y = repository.write(by("y", 2), base, "p.txt", "2\n");
    let ours = repository.commit_tree(&by("m", 3), &[x, y], repository.tree_of(x));
    let theirs = repository.commit_tree(&by("n", 4), &[x, y], repository.tree_of(y));
    let kept = [copy("p", "x", 1, ".txt=1\n"), "p.txt=2\n".to_owned()];
    assert_eq!(repository.show(repository.merge(&[ours, theirs]).head), kept);
}

#[test]
fn an_edit_of_a_file_that_a_merge_has_moved_meanwhile_follows() {
    let repository = Repository::new();
    let base = repository.start(&[("old", "0"), ("q", "0")]);
    let x = repository.rename(by("x", 1), base, "old", "new");
    let y = repository.write(by("y", 2), base, "old", "1");
    let both = repository.merge(&[x, y]).head;
    let z = repository.write(by("z", 3), both, "q", "1");
    let y = repository.write(by("y", 4), y, "old", "2");
    let merged = repository.merge(&[z, y]);
    let shown = repository.show(merged.head);
    assert!(shown.contains(&"new=2".to_owned()) && !shown.iter().any(|file| file.starts_with("old")), "{shown:?}");
}

#[test]
fn three_peers_that_merge_pairwise_at_the_same_moment_meet() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let [x, y, z] =
        [("x", 1), ("y", 2), ("z", 3)].map(|(device, time)| repository.write(by(device, time), base, "p", device));
    let all = repository.merge(&[x, y, z]).head;
    let pairs = [[x, y], [y, z], [z, x]].map(|pair| repository.merge(&pair).head);
    assert_eq!(BTreeSet::from(pairs).len(), 3);
    for [a, b] in [[0, 1], [1, 2], [2, 0]] {
        let met = repository.merge(&[pairs[a], pairs[b]]);
        assert_eq!(met.head, repository.merge(&[pairs[a], all]).head);
        assert_eq!(repository.tree_of(met.head), repository.tree_of(all));
    }
}

#[test]
fn a_commit_that_lies_about_being_a_merge_is_authored() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 2), base, "q", "2");
    let true_merge = repository.objects.commit(repository.merge(&[x, y]).head).unwrap();
    // The same in all but its content: it would be lost, were it dissolved.
    let tree = repository.tree_of(repository.write(by("x", 3), x, "p", "lie"));
    let lie = repository.put(ObjectKind::Commit, &Commit { tree, ..true_merge.clone() }.to_bytes()).as_commit();
    let z = repository.write(by("z", 4), base, "r", "3");
    let merged = repository.merge(&[lie, z]);
    assert!(repository.show(merged.head).contains(&"p=lie".to_owned()));
    let parents = repository.objects.commit(merged.head).unwrap().parents;
    assert!(parents.contains(&lie));
    // A merge of it is as canonical as any other.
    let w = repository.write(by("w", 5), base, "s", "4");
    assert_eq!(repository.merge(&[merged.head, w]).head, repository.merge(&[lie, z, w]).head);
    // With its parents in another order it is no canonical merge either.
    let mut parents = true_merge.parents.clone();
    parents.reverse();
    let other = repository.put(ObjectKind::Commit, &Commit { parents, ..true_merge }.to_bytes()).as_commit();
    let merged = repository.merge(&[other, z]);
    assert!(repository.objects.commit(merged.head).unwrap().parents.contains(&other));
}

#[test]
fn a_merge_on_top_of_a_merge_is_not_canonical() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0")]);
    let [x, y, z, w] = ["x", "y", "z", "w"].map(|device| repository.write(by(device, 1), base, device, "1"));
    let mut tips = vec![repository.merge(&[x, y]).head, z];
    tips.sort_unstable();
    let (objects, graph, options) = (&repository.objects, &repository.graph, &MergeOptions::default());
    let mut merger = Merger { objects, graph, options, sides: Sides::new(objects, graph) };
    let (stacked, _) = merger.canonical(&tips, &mut |kind, content| Ok(repository.put(kind, content))).unwrap();
    let result = repository.merge(&[stacked[0], w]);
    assert!(repository.objects.commit(result.head).unwrap().parents.contains(&stacked[0]));
}

#[test]
fn a_merge_that_arrived_without_its_copies_is_completed() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let x = repository.write(by("x", 1), x, "q", "1");
    let y = repository.write(by("y", 2), base, "p", "2");
    let y = repository.write(by("y", 2), y, "q", "2");
    let whole = repository.merge(&[x, y]);
    let [merge, first, second] = whole.new_commits[..] else { panic!("a merge and two copies") };
    for (part, missing) in [(merge, vec![first, second]), (first, vec![second]), (second, vec![])] {
        for heads in [vec![part], vec![part, x], vec![x, part, y]] {
            let merged = repository.merge(&heads);
            assert_eq!((merged.head, &merged.new_commits), (second, &missing));
        }
    }
}

#[test]
fn a_large_folder_is_written_in_the_order_of_git() {
    // Git sorts a folder `n` behind a file `n-`.
    let repository = Repository::new();
    let names: Vec<String> = (10..60).flat_map(|n| [format!("n{n}-"), format!("n{n}/a")]).collect();
    let files: Vec<_> = names.iter().map(|name| (&**name, "0")).collect();
    let base = repository.start(&files);
    let x = repository.write(by("x", 1), base, "n10-", "1");
    let y = repository.write(by("y", 2), base, "n59-", "2");
    let merged = repository.merge(&[x, y]);
    let both = repository.write(by("x", 1), base, "n10-", "1");
    let both = repository.write(by("y", 2), both, "n59-", "2");
    assert_eq!(repository.tree_of(merged.head), repository.tree_of(both));
    repository.check_with_git(merged.head);
}

#[test]
fn what_is_merged_already_is_written_no_more() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let x = repository.write(by("x", 1), base, "p", "1");
    let y = repository.write(by("y", 2), base, "p", "2");
    let whole = repository.merge(&[x, y]);
    assert_eq!(whole.conflicts.len(), 1);
    let (objects, graph, options) = (&repository.objects, &repository.graph, MergeOptions::default());
    let again = merge(objects, graph, &[x, whole.head, y], &options, &mut |kind, _| panic!("a {kind:?} is written"));
    assert_eq!(again.unwrap().head, whole.head);
}

#[test]
fn more_sides_than_a_word_has_bits() {
    let repository = Repository::new();
    let base = repository.start(&[("p", "0")]);
    let tips: Vec<_> = (0..70).map(|n| repository.write(by("x", 1), base, &format!("f{n}"), "1")).collect();
    let half = repository.merge(&tips[..66]).head;
    let merged = repository.merge(&[&[half], &tips[60..]].concat());
    assert_eq!(repository.show(merged.head).len(), 71);
    assert_eq!(repository.objects.commit(merged.head).unwrap().parents.len(), 70);
}

#[test]
fn a_long_chain_of_merges_with_a_branch_beside_it() {
    // Each merge takes in a little of a branch that never takes anything back.
    let repository = Repository::new();
    let base = repository.start(&[("p", "0"), ("q", "0")]);
    let mut main = repository.write(by("x", 1), base, "p", "x");
    let mut side = base;
    for round in 0..40 {
        side = repository.write(by("y", round), side, "q", &round.to_string());
        main = repository.try_merge(&[main, side]).unwrap().head;
        main = repository.write(by("x", round), main, "p", &format!("x{round}"));
    }
    side = repository.write(by("y", 50), side, "q", "end");
    let merged = repository.merge(&[main, side]);
    assert_eq!(repository.show(merged.head), ["p=x39", "q=end"]);
}

/// One step of the life of some copies of a folder.
#[derive(Debug, Clone)]
enum Step {
    /// A copy writes a file (where a folder or a file is in the way, that is removed first, file by file).
    Write {
        at: usize,
        path: usize,
        line: usize,
        text: u8,
        time: i64,
    },
    Chmod {
        at: usize,
        path: usize,
    },
    Delete {
        at: usize,
        path: usize,
        keep_folder: bool,
    },
    Rename {
        at: usize,
        from: usize,
        to: usize,
        time: i64,
    },
    Link {
        at: usize,
        path: usize,
        text: u8,
    },
    EmptyFolder {
        at: usize,
        path: usize,
    },
    /// One copy takes what another has.
    Take {
        at: usize,
        from: usize,
    },
    /// All copies exchange with their neighbours at the same moment.
    Ring,
    /// One copy receives only a part of a merge's commits.
    Part {
        at: usize,
        from: usize,
        length: usize,
    },
    /// A person merges with git, and takes one side as it is.
    Ours {
        at: usize,
        other: usize,
    },
}

const PATHS: [&str; 8] = ["a.bin", "b.txt", "c.md", "d", "d/x.bin", "d/y.txt", "d/e/z", "f"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (at, path, text, time) = (|| 0usize..4, || 0usize..PATHS.len(), || 0u8..5, || 0i64..6);
    let write = (at(), path(), 0usize..5, text(), time()).prop_map(|(at, path, line, text, time)| Step::Write {
        at,
        path,
        line,
        text,
        time,
    });
    let rename = (at(), path(), path(), time()).prop_map(|(at, from, to, time)| Step::Rename { at, from, to, time });
    let step = prop_oneof![
        8 => write,
        1 => (at(), path()).prop_map(|(at, path)| Step::Chmod { at, path }),
        3 => (at(), path(), any::<bool>()).prop_map(|(at, path, keep_folder)| Step::Delete { at, path, keep_folder }),
        3 => rename,
        1 => (at(), path(), text()).prop_map(|(at, path, text)| Step::Link { at, path, text }),
        1 => (at(), path()).prop_map(|(at, path)| Step::EmptyFolder { at, path }),
        4 => (at(), at()).prop_map(|(at, from)| Step::Take { at, from }),
        1 => Just(Step::Ring),
        1 => (at(), at(), 0usize..3).prop_map(|(at, from, length)| Step::Part { at, from, length }),
        1 => (at(), at()).prop_map(|(at, other)| Step::Ours { at, other }),
    ];
    prop::collection::vec(step, 1..40)
}

/// Some copies of a folder over one set of objects.
struct Copies {
    repository: Repository,
    heads: Vec<CommitId>,
}

impl Copies {
    fn new(count: usize) -> Self {
        let repository = Repository::new();
        let mut base = repository.start(&[("a.bin", "0")]);
        for file in ["b.txt", "c.md", "d/y.txt"] {
            base = repository.write(by("first", 0), base, file, "1\n2\n3\n4\n5\n");
        }
        Self { repository, heads: vec![base; count] }
    }

    fn author(&mut self, at: usize, time: i64, edit: (&str, Option<Entry>)) {
        let device = ["w", "x", "y", "z"][at];
        let edited = self.repository.commit(&by(device, time), &[self.heads[at]], &[edit]);
        if self.repository.tree_of(edited) != self.repository.tree_of(self.heads[at]) {
            self.heads[at] = edited;
        }
    }

    /// Removes what is at, above or below a path but does not let it be put there.
    fn make_room(&mut self, at: usize, file: &SyncPath) {
        for (other, entry) in self.repository.leaves(self.heads[at]) {
            let above = file.is_below(&other) && entry != Entry::EMPTY_FOLDER;
            if above || other.is_below(file) {
                let name = String::from_utf8(other.as_bytes().to_vec()).unwrap();
                self.author(at, 1, (&name, None));
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        let count = self.heads.len();
        let file = |number: usize| (PATHS[number], path(PATHS[number]));
        match *step {
            Step::Write { at, path, line, text, time } => {
                let (at, (name, file)) = (at % count, file(path));
                self.make_room(at, &file);
                let old = self.repository.leaves(self.heads[at]).get(&file).copied();
                let old = old.filter(|old| old.kind != Kind::EmptyFolder);
                let old = old.map_or("1\n2\n3\n4\n5\n".to_owned(), |old| self.repository.content(old.id));
                let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
                let line = line.min(lines.len() - 1);
                lines[line] = format!("{line} is {text}");
                let entry = self.repository.entry(Kind::File, &(lines.join("\n") + "\n"));
                self.author(at, time, (name, Some(entry)));
            }
            Step::Chmod { at, path } => {
                let (at, (name, file)) = (at % count, file(path));
                let old = self.repository.leaves(self.heads[at]).get(&file).copied();
                if let Some(old) = old.filter(|old| old.kind.is_file()) {
                    let kind = if old.kind == Kind::File { Kind::Executable } else { Kind::File };
                    self.author(at, 3, (name, Some(Entry { kind, ..old })));
                }
            }
            Step::Delete { at, path, keep_folder } => {
                let (at, (name, file)) = (at % count, file(path));
                if self.repository.leaves(self.heads[at]).contains_key(&file) {
                    self.author(at, 2, (name, None));
                    let left = self.repository.leaves(self.heads[at]);
                    if let Some(folder) = file.ancestors().last()
                        && keep_folder
                        && !left.keys().any(|other| other.is_below(&folder))
                    {
                        let name = String::from_utf8(folder.as_bytes().to_vec()).unwrap();
                        self.author(at, 2, (&name, Some(Entry::EMPTY_FOLDER)));
                    }
                }
            }
            Step::Rename { at, from, to, time } => {
                let at = at % count;
                let ((from, from_path), (to, to_path)) = (file(from), file(to));
                let leaves = self.repository.leaves(self.heads[at]);
                let free = !leaves
                    .keys()
                    .any(|other| *other == to_path || other.is_below(&to_path) || (to_path.is_below(other)));
                if free && leaves.get(&from_path).is_some_and(|entry| entry.kind != Kind::EmptyFolder) {
                    let device = ["w", "x", "y", "z"][at];
                    self.heads[at] = self.repository.rename(by(device, time), self.heads[at], from, to);
                }
            }
            Step::Link { at, path, text } => {
                let (at, (name, file)) = (at % count, file(path));
                self.make_room(at, &file);
                let entry = self.repository.entry(Kind::Symlink, &format!("to {text}"));
                self.author(at, 3, (name, Some(entry)));
            }
            Step::EmptyFolder { at, path } => {
                let (at, (name, file)) = (at % count, file(path));
                self.make_room(at, &file);
                self.author(at, 3, (name, Some(Entry::EMPTY_FOLDER)));
            }
            Step::Take { at, from } => {
                let heads = [self.heads[at % count], self.heads[from % count]];
                self.heads[at % count] = self.merge(&heads).head;
            }
            Step::Ring => {
                let pairs = (0..count).map(|at| [self.heads[at], self.heads[(at + 1) % count]]);
                self.heads = pairs.map(|pair| self.merge(&pair).head).collect();
            }
            Step::Part { at, from, length } => {
                let at = at % count;
                let merged = self.merge(&[self.heads[at], self.heads[from % count]]);
                let some = merged.new_commits.get(length).copied();
                self.heads[at] = some.unwrap_or(merged.head);
            }
            Step::Ours { at, other } => {
                let (ours, theirs) = (self.heads[at % count], self.heads[other % count]);
                if self.repository.graph.heads_of(&[ours, theirs]).unwrap().len() == 2 {
                    let tree = self.repository.tree_of(ours);
                    let person = Authored { message: Some(&Message::default()), ..by("person", 4) };
                    self.heads[at % count] = self.repository.commit_tree(&person, &[ours, theirs], tree);
                }
            }
        }
    }

    /// Merges, and checks that no content of an authored tip is gone without a reason.
    fn merge(&self, heads: &[CommitId]) -> Merged {
        let repository = &self.repository;
        let merged = repository.merge(heads);
        let result = repository.leaves(merged.head);
        let blobs: HashSet<ObjectId> = result.values().map(|entry| entry.id).collect();
        let mut last = repository.objects.commit(merged.head).unwrap();
        while last.message().derived == Some(Derived::ConflictCopy) {
            last = repository.objects.commit(last.parents[0]).unwrap();
        }
        let tips = if last.message().derived.is_some() { last.parents } else { vec![merged.head] };
        for &head in &tips {
            for (file, entry) in repository.leaves(head) {
                if entry.kind == Kind::EmptyFolder || blobs.contains(&entry.id) {
                    continue;
                }
                let is_text = matches!(file.file_name().rsplit(|&byte| byte == b'.').next(), Some(b"txt" | b"md"));
                // A reason: some other head knew that version, and has something else there; or lines were merged.
                let knew = repository.graph.range(&[head], &[]).unwrap().into_iter().any(|commit| {
                    let brought = repository.leaves(commit).values().any(|other| other.id == entry.id);
                    brought
                        && tips.iter().any(|&other| {
                            repository.graph.is_ancestor(commit, other).unwrap()
                                && repository.leaves(other).get(&file) != Some(&entry)
                        })
                });
                assert!(is_text || knew, "{file} of {head} is gone");
            }
        }
        let standing: BTreeSet<_> = merged.conflicts.iter().map(|conflict| &conflict.copy).collect();
        assert!(standing.into_iter().all(|copy| result.contains_key(copy)), "every copy stands");
        merged
    }
}

const DRAFTED: [&str; 7] = ["a", "a/b", "a/b/c", "a/d", "a.b", "a-b/c", "b"];

/// An edit of a draft: what is to stand somewhere, or that nothing is.
fn draft_edit() -> impl Strategy<Value = (SyncPath, Option<Entry>)> {
    let file = |kind| Some(Entry { kind, id: object_id(ObjectKind::Blob, b"") });
    let entry = prop::sample::select(vec![None, file(Kind::File), file(Kind::Symlink), Some(Entry::EMPTY_FOLDER)]);
    (prop::sample::select(DRAFTED.map(path).to_vec()), entry)
}

/// What stands at each path, edited in the plainest way.
#[derive(Default)]
struct Plain(BTreeMap<SyncPath, Entry>);

impl Plain {
    fn edit(&mut self, at: &SyncPath, entry: Option<Entry>) {
        let Some(entry) = entry else {
            self.0.remove(at);
            return;
        };
        self.0.retain(|path, _| !path.is_below(at) && !at.is_below(path));
        self.0.insert(at.clone(), entry);
    }

    fn tree(&self, repository: &Repository) -> TreeId {
        let edits = self.0.iter().map(|(path, entry)| Edit { path: path.clone(), entry: Some(*entry) });
        let edits: Vec<_> = edits.collect();
        let mut sink = |content: &[u8]| Ok(repository.put(ObjectKind::Tree, content).as_tree());
        tree::edit(&repository.objects, TreeId::EMPTY, &edits, &mut sink).unwrap()
    }

    fn at(&self, at: &SyncPath) -> Option<Entry> {
        self.0.get(at).copied()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn copies_that_exchange_everything_meet_whatever_the_grouping(
        count in 2usize..5,
        steps in steps(),
        exchanges in prop::collection::vec((0usize..4, 0usize..4), 0..6),
    ) {
        let mut copies = Copies::new(count);
        for step in &steps {
            copies.apply(step);
        }
        let all = copies.merge(&copies.heads.clone()).head;
        // Once round in the order of their numbers, after some in any order: then all have everything.
        for (at, from) in exchanges {
            copies.apply(&Step::Take { at, from });
        }
        for at in 1..count {
            copies.apply(&Step::Take { at, from: at - 1 });
        }
        let last = copies.heads[count - 1];
        prop_assert_eq!(last, all, "associative");
        for at in 0..count {
            prop_assert_eq!(copies.merge(&[last, copies.heads[at]]).head, all);
        }
        for _ in 0..count {
            copies.apply(&Step::Ring);
        }
        prop_assert!(copies.heads.iter().all(|&head| head == all), "all at once");
        copies.repository.check_one_path_a_commit(all);
        copies.repository.check_with_git(all);
    }

    #[test]
    fn a_draft_is_edited_as_a_tree_is(
        before in prop::collection::vec(draft_edit(), 0..8),
        edits in prop::collection::vec((draft_edit(), any::<bool>()), 1..12),
    ) {
        let repository = Repository::new();
        let mut plain = Plain::default();
        for (at, entry) in &before {
            plain.edit(at, *entry);
        }
        let mut draft = Draft::new(&repository.objects, plain.tree(&repository));
        for ((at, entry), is_written) in &edits {
            plain.edit(at, *entry);
            match entry {
                Some(entry) => draft.put(at, *entry).unwrap(),
                None => draft.remove(at).unwrap(),
            }
            for path in DRAFTED.map(path) {
                let is_folder = plain.0.keys().any(|below| below.is_below(&path));
                match draft.at(&path).unwrap() {
                    At::Leaf(entry) => prop_assert_eq!(plain.at(&path), Some(entry)),
                    At::Folder(_) => prop_assert!(is_folder),
                    At::Nothing => prop_assert!(!is_folder && plain.at(&path).is_none()),
                }
            }
            if *is_written {
                let tree = draft.write(&mut |content| Ok(repository.put(ObjectKind::Tree, content).as_tree())).unwrap();
                prop_assert_eq!(tree, plain.tree(&repository));
            }
        }
    }
}
