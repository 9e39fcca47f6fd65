//! Repositories that are somebody else's, damaged, or of a form that is not known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

use super::{Before, two_folders};
use crate::sites::{git, text};
use crate::support::TestEnv;

fn each(root: &Path, extension: &str, change: impl Fn(&Path)) {
    let packs: Vec<PathBuf> =
        fs::read_dir(root.join(".git/objects/pack")).expect("packs").map(|entry| entry.expect("one").path()).collect();
    packs.iter().filter(|path| path.extension().is_some_and(|found| found == extension)).for_each(|path| change(path));
}

/// Packs are read-only: a file of its own takes the place of each.
fn put(path: &Path, content: &[u8]) {
    fs::remove_file(path).expect("removable");
    fs::write(path, content).expect("writable");
}

fn set(root: &Path, key: &str, value: &str) {
    text(git(root, &["config", key, value]));
}

#[rstest]
#[case::no_packs(|root: &Path| each(root, "pack", |pack| fs::remove_file(pack).expect("removed")), 5, &["is missing"])]
#[case::torn_packs(|root: &Path| each(root, "pack", |pack| put(pack, &fs::read(pack).expect("a pack")[..100])), 5, &["is damaged"])]
#[case::empty_pack_indexes(|root: &Path| each(root, "idx", |idx| put(idx, b"")), 5, &["is missing"])]
#[case::no_objects(|root: &Path| fs::remove_dir_all(root.join(".git/objects")).expect("removed"), 5, &["its objects are missing"])]
#[case::empty_ref(|root: &Path| put(&root.join(".git/refs/heads/main"), b""), 5, &["refs/heads/main", "it is empty"])]
#[case::garbage_ref(|root: &Path| put(&root.join(".git/refs/heads/main"), b"garbage\n"), 5, &["refs/heads/main", "`garbage`"])]
#[case::empty_applied(|root: &Path| put(&root.join(".git/refs/foldersync/applied"), b""), 5, &["refs/foldersync/applied", "it is empty"])]
#[case::no_head(|root: &Path| fs::remove_file(root.join(".git/HEAD")).expect("removed"), 5, &[".git/HEAD", "it is missing"])]
#[case::empty_config(|root: &Path| put(&root.join(".git/config"), b""), 5, &[".git/config", "backup"])]
#[case::newer_format(|root: &Path| set(root, "foldersync.version", "2"), 6, &["format 2", "update foldersync"])]
#[case::newer_git(|root: &Path| set(root, "core.repositoryformatversion", "7"), 6, &["format 7", "update foldersync"])]
fn a_repository_that_cannot_be_used_is_named_and_left_as_it_is(
    #[case] damage: fn(&Path),
    #[case] code: i32,
    #[case] words: &[&str],
) {
    let env = two_folders();
    env.write("docs/new.txt", "not captured yet");
    env.write("copy/other.txt", "not captured yet");
    let docs = env.path("docs");
    damage(&docs);
    let before = Before::of(&docs);
    for command in [&["commit"][..], &["status"], &["gc"]] {
        if code == 6 || command != ["gc"] {
            env.run_in("docs", command).failed(code, words);
            before.is_untouched();
        }
    }
    env.run_in("docs", ["exchange"]).failed(code, words).says(&["docs with copy"]);
    before.is_untouched();
    let verified = env.run_in("docs", ["verify"]).ended(code);
    let told = format!("{}{}", verified.stdout, verified.stderr);
    // It names the file, whatever stands in the way of other commands.
    assert!(told.contains(words[0]) || told.contains(".git/objects/pack/pack-"), "{verified}");
    before.is_untouched();
    // The sound one is told of it, and stays sound.
    let expected = if code == 5 { 5 } else { 4 };
    env.run_in("copy", ["exchange", "origin"]).failed(expected, &[words[0]]);
    before.is_untouched();
    env.run_in("copy", ["commit"]).says(&[]);
    env.run_in("copy", ["verify"]).ended(0);
}

#[rstest]
#[case::empty(Some(0))]
#[case::torn(Some(40))]
#[case::gone(None)]
fn a_damaged_table_of_the_disk_is_made_anew_and_nothing_is_invented(#[case] left: Option<usize>) {
    let env = two_folders();
    let index = env.path("docs/.git/index");
    let head = || text(git(&env.path("docs"), &["rev-parse", "main"]));
    let before = head();
    match left {
        Some(left) => fs::write(&index, &fs::read(&index).expect("an index")[..left]).expect("writable"),
        None => fs::remove_file(&index).expect("removable"),
    }
    env.run_in("docs", ["verify"]).ended(0);
    env.run_in("docs", ["commit"]).ended(0);
    assert_eq!(head(), before);
    assert_eq!(text(git(&env.path("docs"), &["status", "--porcelain"])), "");
}

#[test]
fn a_branch_that_is_gone_is_what_was_applied() {
    let env = two_folders();
    let head = || text(git(&env.path("docs"), &["rev-parse", "main"]));
    let before = head();
    fs::remove_file(env.path("docs/.git/refs/heads/main")).expect("removable");
    env.run_in("docs", ["commit"]).ended(0);
    assert_eq!(head(), before);
}

#[test]
fn somebodys_repository_is_left_alone_and_versioned_beside() {
    let env = TestEnv::new();
    env.write("project/x", "1");
    let project = env.path("project");
    text(git(&project, &["init", "-q", "-b", "main"]));
    text(git(&project, &["add", "."]));
    text(git(&project, &["commit", "-q", "-m", "mine"]));
    let before = Before::of(&project);
    env.run(["init", "project"]).failed(6, &["[ROOT]/project/.git", "--alongside"]);
    before.is_untouched();
    let own = || (fs::read(project.join(".git/index")).expect("an index"), text(git(&project, &["rev-parse", "main"])));
    let owns = own();

    env.run(["init", "--alongside", "project"]).ended(0);
    env.write("other/y", "2");
    env.run(["init", "other"]).ended(0);
    env.run_in("project", ["peer", "add", "other", "../other", "--join"]).ended(0);
    env.run_in("project", ["exchange"]).ended(0);
    assert_eq!((env.read("project/y").as_str(), env.read("other/x").as_str()), ("2", "1"));
    assert!(!env.path("other/.foldersync").exists());
    assert_eq!(own(), owns);
    assert_eq!(text(git(&project, &["status", "--porcelain"])), "?? y\n");
    let mut fsck = Command::new("git");
    fsck.arg("--git-dir").arg(project.join(".foldersync")).args(["fsck", "--full", "--strict"]);
    assert!(fsck.output().expect("git").status.success());
    env.write("other/x", "changed there");
    env.run_in("project", ["exchange"]).ended(0);
    assert_eq!(env.read("project/x"), "changed there");
}
