use std::collections::{BTreeMap, HashMap};
use std::fs;

use proptest::prelude::*;
use rstest::rstest;

use super::sample::{Repository, Sample, path};
use super::*;
use crate::monitor::{Recording, Silent, Stage};
use crate::store::objects::Objects;
use crate::store::tree;

fn indexed(repository: &Repository, head: CommitId) -> HistoryIndex {
    let mut index = HistoryIndex::open(&repository.git_dir.join(format!("{head}.sqlite"))).expect("opens");
    index.catch_up(&repository.objects(), head, &Silent).expect("indexes");
    index
}

/// The revisions of a path as `(verb, commit's place, has content)`.
fn told(repository: &Repository, index: &HistoryIndex, of: &str) -> Vec<(&'static str, usize, bool)> {
    let place = |id| repository.ids.iter().position(|&other| other == id).expect("one of the commits");
    let rows = index.revisions(&path(of)).expect("rows");
    let numbers: Vec<_> = rows.iter().map(|row| row.number.expect("counted")).collect();
    assert_eq!(numbers, (1..=rows.len() as u64).collect::<Vec<_>>());
    assert_eq!(index.count(&path(of)).expect("a count"), rows.len() as u64);
    for row in &rows {
        assert_eq!(index.revision(&path(of), row.number.expect("counted")).expect("a row").as_ref(), Some(row));
    }
    rows.iter().map(|row| (row.verb.word(), place(row.key.commit), row.entry.is_some())).collect()
}

#[test]
fn counts_additions_changes_deletions_and_additions_again() {
    let mut sample = Sample::new();
    sample.commit(100, &[], "add a", &[("a", Some("1"))]);
    sample.commit(101, &[0], "add b", &[("b", Some("1"))]);
    sample.commit(102, &[1], "change a", &[("a", Some("2"))]);
    sample.commit(103, &[2], "delete a", &[("a", None)]);
    sample.commit(104, &[3], "add a", &[("a", Some("1"))]);
    sample.commit_modes(105, &[4], "change a", &[("100755", "a", Some("1"))]);
    let repository = sample.build();
    let index = indexed(&repository, repository.head());
    let expected = [("add", 0, true), ("change", 2, true), ("delete", 3, false), ("add", 4, true), ("change", 5, true)];
    assert_eq!(told(&repository, &index, "a"), expected);
    assert_eq!(index.revision(&path("a"), 0).expect("none"), None);
    assert_eq!(index.revision(&path("a"), 6).expect("none"), None);
    assert_eq!(index.revision(&path("a"), u64::MAX).expect("none"), None);
    assert_eq!(index.count(&path("c")).expect("none"), 0);
    let number = |date| index.at_or_before(&path("a"), date).expect("a row").and_then(|row| row.number);
    assert_eq!([99, 100, 101, 102, 999].map(number), [None, Some(1), Some(1), Some(2), Some(5)]);
}

#[test]
fn a_commit_of_many_paths_is_a_revision_of_each() {
    let mut sample = Sample::new();
    sample.commit(100, &[], "Import", &[("a", Some("1")), ("d/b", Some("2")), ("d/e/c", Some("3"))]);
    sample.commit(101, &[0], "Tidy", &[("a", None), ("d/e/c", None), ("d/e", Some("now a file"))]);
    let repository = sample.build();
    let index = indexed(&repository, repository.head());
    assert_eq!(told(&repository, &index, "a"), [("add", 0, true), ("delete", 1, false)]);
    assert_eq!(told(&repository, &index, "d/b"), [("add", 0, true)]);
    assert_eq!(told(&repository, &index, "d/e/c"), [("add", 0, true), ("delete", 1, false)]);
    assert_eq!(told(&repository, &index, "d/e"), [("add", 1, true)]);
    let below = |folder| index.paths_below(folder).expect("paths").iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(below(None), ["a", "d/b", "d/e", "d/e/c"]);
    assert_eq!(below(Some(&path("d"))), ["d/b", "d/e", "d/e/c"]);
    let deleted: Vec<_> =
        index.deleted_below(Some(&path("d"))).expect("rows").into_iter().map(|row| row.path).collect();
    assert_eq!(deleted, [path("d/e/c")]);
    let log: Vec<_> = index.folder_log(None, 4).expect("rows").iter().map(|row| row.path.to_string()).collect();
    assert_eq!(log, ["a", "d/e", "d/e/c", "a"]);
    assert_eq!(index.folder_log(Some(&path("d")), 99).expect("rows").len(), 4);
    assert_eq!(index.search(&|path| path.ends_with(b"c"), 9).expect("paths"), [path("d/e/c")]);
}

#[test]
fn a_merge_is_a_revision_where_it_decided_something() {
    let mut sample = Sample::new();
    sample.commit(
        100,
        &[],
        "base",
        &[("both", Some("0")), ("mine", Some("0")), ("theirs", Some("0")), ("x", Some("0"))],
    );
    sample.commit(101, &[0], "mine", &[("both", Some("1")), ("mine", Some("1")), ("x", Some("1"))]);
    sample.commit(102, &[0], "theirs", &[("both", Some("2")), ("theirs", Some("2")), ("x", Some("2"))]);
    // `both` is merged by lines, of `x` one side is taken, and said to have been in conflict (as is a stranger).
    let message = "merge\n\nFoldersync-Conflict: x\nFoldersync-Conflict: stranger\n";
    sample.commit(103, &[1, 2], message, &[("both", Some("12")), ("theirs", Some("2"))]);
    let repository = sample.build();
    let index = indexed(&repository, repository.head());
    let change = |place| ("change", place, true);
    assert_eq!(told(&repository, &index, "both"), [("add", 0, true), change(1), change(2), ("merge", 3, true)]);
    assert_eq!(told(&repository, &index, "x"), [("add", 0, true), change(1), change(2), ("merge", 3, true)]);
    assert_eq!(told(&repository, &index, "mine"), [("add", 0, true), change(1)]);
    assert_eq!(told(&repository, &index, "theirs"), [("add", 0, true), change(2)]);
    assert_eq!(told(&repository, &index, "stranger"), []);
}

#[test]
fn clocks_that_run_backwards_do_not_change_the_order_of_ancestry() {
    let mut sample = Sample::new();
    sample.commit(1000, &[], "add a", &[("a", Some("1"))]);
    sample.commit(10, &[0], "change a", &[("a", Some("2"))]);
    sample.commit(500, &[1], "change a", &[("a", Some("3"))]);
    sample.commit(2000, &[2], "change a", &[("a", Some("4"))]);
    let repository = sample.build();
    let index = indexed(&repository, repository.head());
    let places: Vec<_> = told(&repository, &index, "a").into_iter().map(|(_, place, _)| place).collect();
    assert_eq!(places, [0, 1, 2, 3]);
    let dates: Vec<_> = index.revisions(&path("a")).expect("rows").iter().map(|row| row.key.date).collect();
    assert_eq!(dates, [1000, 1000, 1000, 2000]);
    assert_eq!(index.at_or_before(&path("a"), 999).expect("none"), None);
}

#[test]
fn knows_the_tips_of_every_time() {
    let mut sample = Sample::new();
    sample.commit(100, &[], "base", &[("a", Some("0"))]);
    sample.commit(110, &[0], "mine", &[("a", Some("1"))]);
    sample.commit(105, &[0], "theirs", &[("b", Some("1"))]);
    sample.commit(120, &[1, 2], "merge", &[("b", Some("1"))]);
    let repository = sample.build();
    let index = indexed(&repository, repository.head());
    let tips = |date| {
        let tips = index.tips_at(date).expect("tips");
        tips.iter().map(|tip| repository.ids.iter().position(|id| id == tip).expect("known")).collect::<Vec<_>>()
    };
    assert!(tips(99).is_empty());
    assert_eq!(tips(100), [0]);
    assert_eq!(tips(107), [2]);
    assert_eq!(tips(110), [1, 2]);
    assert_eq!(tips(120), [3]);
}

#[test]
fn finds_commits_by_their_first_digits() {
    let mut sample = Sample::new();
    sample.commit(100, &[], "add a", &[("a", Some("1"))]);
    let repository = sample.build();
    let index = indexed(&repository, repository.head());
    let id = repository.head().to_string();
    for digits in [&id[..1], &id[..7], &id[..]] {
        assert_eq!(index.commits_with_prefix(digits, 2).expect("commits"), [repository.head()]);
    }
    let other = if id.starts_with('0') { "1" } else { "0" };
    assert_eq!(index.commits_with_prefix(other, 2).expect("none"), []);
    assert_eq!(index.commits_with_prefix("no digits", 2).expect("none"), []);
    assert_eq!(index.commits_with_prefix(&"0".repeat(99), 2).expect("none"), []);
}

#[test]
fn names_that_no_folder_can_hold_are_passed_over() {
    let mut sample = Sample::new();
    sample.commit(100, &[], "Mine", &[("a", Some("1")), (".foldersync/x", Some("1")), ("git~1", Some("1"))]);
    let repository = sample.build();
    let index = indexed(&repository, repository.head());
    assert_eq!(index.paths_below(None).expect("paths"), [path("a")]);
}

#[test]
fn conflict_copies_are_found_by_their_messages() {
    let mut sample = Sample::new();
    sample.commit(100, &[], "add a", &[("a", Some("1"))]);
    sample.commit(101, &[0], "add a (conflict)\n\nFoldersync-Conflict-Of: a\n", &[("a (conflict)", Some("2"))]);
    let repository = sample.build();
    let index = indexed(&repository, repository.head());
    let copies: Vec<_> = index.conflict_copies().expect("rows").into_iter().map(|row| row.path).collect();
    assert_eq!(copies, [path("a (conflict)")]);
}

#[test]
fn an_empty_folder_in_the_place_of_a_file_is_one_change() {
    let repository = Sample::new().build();
    let git = |args: &[&str], input: &str| {
        use std::io::Write as _;
        let mut command = repository.command();
        command.args(args).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "x").env(format!("GIT_{who}_EMAIL"), "x");
        }
        let mut child = command.spawn().expect("git runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("git reads");
        String::from_utf8(child.wait_with_output().expect("git ends").stdout).expect("text").trim().to_owned()
    };
    let blob = git(&["hash-object", "-w", "--stdin"], "1");
    let empty = git(&["hash-object", "-w", "-t", "tree", "--stdin"], "");
    let file = git(&["mktree"], &format!("100644 blob {blob}\ta\n"));
    let folder = git(&["mktree"], &format!("040000 tree {empty}\ta\n"));
    let first = git(&["commit-tree", &file, "-m", "add a"], "");
    let second = git(&["commit-tree", &folder, "-p", &first, "-m", "change a"], "");
    let index = indexed(&repository, second.parse().expect("an id"));
    let rows = index.revisions(&path("a")).expect("rows");
    assert_eq!(rows.iter().map(|row| row.verb).collect::<Vec<_>>(), [Verb::Add, Verb::Change]);
    assert_eq!(rows[1].entry, Some(Entry::EMPTY_FOLDER));
}

fn chain(commits: i64) -> Repository {
    let mut sample = Sample::new();
    for at in 0..commits {
        let parent = usize::try_from(at - 1).ok();
        let file = format!("d{}/f{}", at % 7, at % 3);
        sample.commit(1000 + at, parent.as_slice(), "change", &[(&file, Some(&at.to_string()))]);
    }
    sample.build()
}

#[test]
fn catches_up_with_what_is_new_only() {
    let repository = chain(30);
    let objects = repository.objects();
    let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
    assert_eq!(index.head().expect("none yet"), None);
    let stats = index.catch_up(&objects, repository.ids[9], &Silent).expect("indexes");
    assert_eq!((stats.commits, stats.revisions, stats.rebuilt), (10, 10, false));
    drop(index);
    let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
    assert_eq!(index.head().expect("a head"), Some(repository.ids[9]));
    let recording = Recording::default();
    let stats = index.catch_up(&objects, repository.head(), &recording).expect("indexes");
    assert_eq!((stats.commits, stats.rebuilt, recording.items(Stage::Index)), (20, false, 20));
    assert_eq!(index.catch_up(&objects, repository.head(), &Silent).expect("nothing to do"), Stats::default());
    assert_eq!(index.notice(), None);
    assert_eq!(
        fs::read_dir(&repository.git_dir)
            .expect("a folder")
            .flatten()
            .filter(|entry| {
                entry.file_name().to_string_lossy().starts_with("history")
                    && entry.metadata().expect("a file").len() > 0
            })
            .count(),
        1
    );
}

#[test]
fn what_a_killed_run_has_done_is_kept() {
    let repository = chain(20);
    let objects = repository.objects();
    let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
    index.catch_up(&objects, repository.ids[11], &Silent).expect("indexes");
    // As after a kill on the way to the head: the head is noted, some of its commits are not in.
    index.db.execute("UPDATE state SET head = ?1", [repository.ids[17].as_bytes()]).expect("updates");
    assert_eq!(index.head().expect("not complete"), None);
    let stats = index.catch_up(&objects, repository.head(), &Silent).expect("indexes");
    assert_eq!((stats.commits, stats.rebuilt), (8, false));
}

#[test]
fn commits_that_the_head_no_longer_reaches_do_not_show() {
    let mut sample = Sample::new();
    sample.commit(100, &[], "add a", &[("a", Some("1"))]);
    sample.commit(101, &[0], "change a", &[("a", Some("2"))]);
    sample.commit(102, &[0], "change a", &[("a", Some("3"))]);
    let repository = sample.build();
    let objects = repository.objects();
    let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
    for head in [1, 2, 0, 1] {
        index.catch_up(&objects, repository.ids[head], &Silent).expect("indexes");
        let expected: &[_] = if head == 0 { &[("add", 0, true)] } else { &[("add", 0, true), ("change", head, true)] };
        assert_eq!(told(&repository, &index, "a"), expected);
    }
}

fn garbage(file: &Path) {
    fs::write(file, [0x5a; 9000]).expect("writes");
}

fn truncated(file: &Path) {
    fs::OpenOptions::new().write(true).open(file).expect("opens").set_len(5000).expect("cuts");
}

fn emptied(file: &Path) {
    fs::write(file, b"").expect("writes");
}

fn of_another_version(file: &Path) {
    Connection::open(file).expect("opens").pragma_update(None, "user_version", 999).expect("updates");
}

fn without_a_table(file: &Path) {
    Connection::open(file).expect("opens").execute_batch("DROP TABLE revisions").expect("drops");
}

fn overwritten(file: &Path) {
    let mut bytes = fs::read(file).expect("reads");
    bytes[4096..].fill(0xee);
    fs::write(file, bytes).expect("writes");
}

#[rstest]
#[case(garbage, true)]
#[case(truncated, true)]
#[case(emptied, false)]
#[case(of_another_version, true)]
#[case(without_a_table, true)]
#[case(overwritten, true)]
fn a_file_that_is_no_index_is_made_anew(#[case] damage: fn(&Path), #[case] notices: bool) {
    let repository = chain(40);
    let objects = repository.objects();
    let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
    index.catch_up(&objects, repository.head(), &Silent).expect("indexes");
    let before = index.folder_log(None, 999).expect("rows");
    drop(index);
    damage(&repository.index_file());
    let recording = Recording::default();
    let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
    index.catch_up(&objects, repository.head(), &recording).expect("indexes");
    let mut noticed = index.notice().is_some() || !recording.notices().is_empty();
    let mut after = index.folder_log(None, 999);
    if after.as_ref().is_err_and(HistoryIndex::is_damaged_by) {
        noticed = true;
        index.begin_anew().expect("begins");
        index.catch_up(&objects, repository.head(), &Silent).expect("indexes");
        after = index.folder_log(None, 999);
    }
    assert_eq!(after.expect("rows"), before);
    assert_eq!(noticed, notices);
    assert!(!index.is_temporary());
}

#[test]
fn an_index_of_another_repository_is_made_anew() {
    let (one, other) = (chain(5), chain(9));
    let mut other_sample = Sample::new();
    other_sample.commit(7, &[], "add z", &[("z", Some("1"))]);
    let stranger = other_sample.build();
    drop(indexed(&other, other.head()));
    fs::copy(other.git_dir.join(format!("{}.sqlite", other.head())), one.index_file()).expect("copies");
    for repository in [&one, &stranger] {
        fs::copy(one.index_file(), repository.git_dir.join("copy.sqlite")).expect("copies");
        let mut index = HistoryIndex::open(&repository.git_dir.join("copy.sqlite")).expect("opens");
        let stats = index.catch_up(&repository.objects(), repository.head(), &Silent).expect("indexes");
        assert!(stats.rebuilt);
        assert_eq!(index.folder_log(None, 999).expect("rows").len(), repository.ids.len());
    }
}

#[test]
fn where_no_file_can_be_made_a_temporary_one_serves() {
    let repository = chain(5);
    let mut index = HistoryIndex::open(&repository.git_dir.join("no-such-folder/history.sqlite")).expect("opens");
    assert!(index.is_temporary() && index.notice().is_some());
    index.catch_up(&repository.objects(), repository.head(), &Silent).expect("indexes");
    assert_eq!(index.folder_log(None, 999).expect("rows").len(), 5);
}

#[test]
fn a_read_only_index_is_read_and_continued_elsewhere() {
    let repository = chain(12);
    let objects = repository.objects();
    drop(indexed(&repository, repository.ids[7]));
    // Opened read-only, since whoever runs the tests may be allowed to write everywhere.
    let file = repository.git_dir.join(format!("{}.sqlite", repository.ids[7]));
    let bytes = fs::read(&file).expect("reads");
    let db = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    let mut index = HistoryIndex { db, file: file.clone(), temporary: false, notice: None };
    assert_eq!(index.catch_up(&objects, repository.ids[7], &Silent).expect("nothing to do").commits, 0);
    assert_eq!(index.folder_log(None, 999).expect("rows").len(), 8);
    let recording = Recording::default();
    assert_eq!(index.catch_up(&objects, repository.head(), &recording).expect("indexes").commits, 4);
    assert_eq!(index.folder_log(None, 999).expect("rows").len(), 12);
    assert!(index.is_temporary() && !recording.notices().is_empty());
    assert_eq!(fs::read(&file).expect("reads"), bytes);
}

#[test]
fn a_missing_commit_is_an_error_that_names_it() {
    let repository = chain(3);
    let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
    let stranger = CommitId::from_bytes([9; 20]);
    let error = index.catch_up(&repository.objects(), stranger, &Silent).expect_err("not there");
    assert!(matches!(error, StoreError::Missing { id } if id == stranger.into()), "{error}");
    index.catch_up(&repository.objects(), repository.head(), &Silent).expect("still of use");
}

#[test]
fn two_processes_may_index_at_once() {
    let repository = chain(300);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
                for head in [50, 120, 299] {
                    index.catch_up(&repository.objects(), repository.ids[head], &Silent).expect("indexes");
                }
            });
        }
    });
    let index = HistoryIndex::open(&repository.index_file()).expect("opens");
    assert_eq!(index.folder_log(None, 999).expect("rows").len(), 300);
}

#[test]
fn processes_with_heads_that_do_not_follow_each_other_may_index_at_once() {
    let repository = chain(60);
    let heads = [20, 40, 10];
    std::thread::scope(|scope| {
        for first in 0..6 {
            let repository = &repository;
            scope.spawn(move || {
                let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
                for round in 0..60 {
                    let head = repository.ids[heads[(first + round) % heads.len()]];
                    match index.catch_up(&repository.objects(), head, &Silent) {
                        // The others are faster, all the time.
                        Ok(_) | Err(StoreError::RefMoved { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
    index.catch_up(&repository.objects(), repository.ids[59], &Silent).expect("indexes");
    assert_eq!(index.folder_log(None, 999).expect("rows").len(), 60);
}

/// What the rows must be, from the definition alone: every tree read whole, every commit compared with its parents.
fn by_definition(objects: &Objects, commits: &[CommitId]) -> Vec<(SyncPath, Key, Verb, Option<Entry>)> {
    let mut known: HashMap<CommitId, (Key, BTreeMap<SyncPath, Entry>)> = HashMap::new();
    let mut rows = Vec::new();
    for &id in commits {
        let commit = objects.commit(id).expect("a commit");
        let mut leaves = BTreeMap::new();
        tree::leaves(objects, commit.tree, &mut |path, entry| {
            leaves.insert(path, entry);
            Ok(())
        })
        .expect("a tree");
        let parents: Vec<_> = commit.parents.iter().map(|parent| &known[parent]).collect();
        let date = parents.iter().map(|(key, _)| key.date).chain([commit.committer.time]).max().expect("one");
        let generation = 1 + parents.iter().map(|(key, _)| key.generation).max().unwrap_or(0);
        let key = Key { date, generation, commit: id };
        let paths: std::collections::BTreeSet<_> =
            leaves.keys().chain(parents.iter().flat_map(|(_, leaves)| leaves.keys())).cloned().collect();
        for path in paths {
            let new = leaves.get(&path).copied();
            let olds: Vec<_> = parents.iter().map(|(_, leaves)| leaves.get(&path).copied()).collect();
            if olds.contains(&new) {
                continue;
            }
            let verb = match (olds.as_slice(), new) {
                ([_, _, ..], _) => Verb::Merge,
                ([] | [None], _) => Verb::Add,
                (_, None) => Verb::Delete,
                _ => Verb::Change,
            };
            rows.push((path, key, verb, new));
        }
        known.insert(id, (key, leaves));
    }
    rows.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    rows
}

fn all_rows(index: &HistoryIndex) -> Vec<(SyncPath, Key, Verb, Option<Entry>)> {
    let paths = index.paths_below(None).expect("paths");
    let rows = paths.iter().flat_map(|path| index.revisions(path).expect("rows"));
    rows.map(|row| (row.path, row.key, row.verb, row.entry)).collect()
}

#[derive(Debug, Clone)]
struct Step {
    branch: usize,
    merge: Option<usize>,
    clock: i64,
    edits: Vec<(usize, Option<u8>)>,
}

const PATHS: [&str; 6] = ["a", "a.b", "a/b", "a/c/d", "a/c/e", "f"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let edits = proptest::collection::vec((0..PATHS.len(), proptest::option::weighted(0.7, 0u8..3)), 0..4);
    let step = (0usize..3, proptest::option::weighted(0.3, 0usize..3), 0i64..40, edits);
    let step = step.prop_map(|(branch, merge, clock, edits)| Step { branch, merge, clock, edits });
    proptest::collection::vec(step, 1..25)
}

/// Three branches that start from one commit, edited and merged at random, joined at the end.
fn grown(steps: &[Step]) -> Repository {
    let mut sample = Sample::new();
    sample.commit(100, &[], "base", &[("base", Some("0"))]);
    let mut tips = [0; 3];
    for (n, step) in steps.iter().enumerate() {
        let mut parents = vec![tips[step.branch]];
        parents.extend(step.merge.map(|other| tips[other]).filter(|tip| !parents.contains(tip)));
        let contents: Vec<_> =
            step.edits.iter().map(|&(path, content)| (PATHS[path], content.map(|n| n.to_string()))).collect();
        let edits: Vec<_> = contents.iter().map(|(path, content)| (*path, content.as_deref())).collect();
        tips[step.branch] = sample.commit(100 + step.clock, &parents, &format!("step {n}"), &edits);
    }
    let mut parents: Vec<usize> = Vec::new();
    for tip in tips {
        if !parents.contains(&tip) {
            parents.push(tip);
        }
    }
    sample.commit(120, &parents, "join", &[("joined", Some("1"))]);
    sample.build()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rows_are_what_the_definition_says_however_they_got_in(steps in steps(), stops in proptest::collection::vec(0usize..26, 0..4)) {
        let repository = grown(&steps);
        let objects = repository.objects();
        let expected = by_definition(&objects, &repository.ids);
        prop_assert_eq!(&all_rows(&indexed(&repository, repository.head())), &expected);
        // In steps: through heads of which the next need not descend from the last.
        let mut index = HistoryIndex::open(&repository.index_file()).expect("opens");
        for stop in stops {
            if let Some(&head) = repository.ids.get(stop) {
                index.catch_up(&objects, head, &Silent).expect("indexes");
                prop_assert_eq!(all_rows(&index), all_rows(&indexed(&repository, head)));
            }
        }
        index.catch_up(&objects, repository.head(), &Silent).expect("indexes");
        prop_assert_eq!(all_rows(&index), expected);
        for date in 95..145 {
            prop_assert_eq!(index.tips_at(date).expect("tips"), tips_by_definition(&index, &objects, &repository.ids, date));
        }
    }
}

fn tips_by_definition(index: &HistoryIndex, objects: &Objects, commits: &[CommitId], date: i64) -> Vec<CommitId> {
    let keys: Vec<_> = commits.iter().map(|&id| index.key(id).expect("a key").expect("indexed")).collect();
    let then: Vec<_> = keys.into_iter().filter(|key| key.date <= date).collect();
    let parents: Vec<_> = then.iter().flat_map(|key| objects.commit(key.commit).expect("a commit").parents).collect();
    let mut tips: Vec<_> = then.into_iter().filter(|key| !parents.contains(&key.commit)).collect();
    tips.sort_by(|a, b| b.cmp(a));
    tips.into_iter().map(|key| key.commit).collect()
}

#[test]
fn clones_that_fetched_in_another_order_count_the_same() {
    let mut sample = Sample::new();
    sample.commit(100, &[], "base", &[("a", Some("0"))]);
    sample.commit(105, &[0], "mine", &[("a", Some("1"))]);
    sample.commit(105, &[0], "theirs", &[("a", Some("2"))]);
    sample.commit(106, &[1, 2], "merge", &[("a", Some("3"))]);
    let source = sample.build();
    let fetched = [[1, 2], [2, 1]].map(|order| {
        let clone = Sample::new().build();
        let mut index = HistoryIndex::open(&clone.index_file()).expect("opens");
        for branch in [order[0], order[1], 3] {
            let mut fetch = clone.command();
            fetch.args(["fetch", "-q"]).arg(&source.git_dir).arg(format!("c{branch}:c{branch}"));
            assert!(fetch.status().expect("git runs").success());
            index.catch_up(&clone.objects(), source.ids[branch], &Silent).expect("indexes");
        }
        index.revisions(&path("a")).expect("rows")
    });
    assert_eq!(fetched[0], fetched[1]);
    assert_eq!(fetched[0].len(), 4);
}
