//! What a person does from day to day, on real folders: versioning, going back, exchanging. Git is the referee.

use std::fs;
use std::process::Stdio;

use rstest::rstest;

use crate::support::TestEnv;

/// A folder with two files and one change captured: `notes.txt` has revisions 1 and 2.
fn with_history() -> TestEnv {
    let env = TestEnv::new();
    env.write("docs/notes.txt", "one\n");
    env.write("docs/sub/plan.md", "# plan\n");
    env.run(["init", "docs"]).ended(0);
    env.write("docs/notes.txt", "one\ntwo\n");
    env.run_in("docs", ["commit"]).ended(0);
    env
}

/// The same, with a copy of it on another device, which has a home of its own.
fn with_copy() -> TestEnv {
    let env = with_history();
    env.write("home2/config.toml", "[device]\nname = \"nas\"\n");
    env.run(["--home", "home2", "clone", "docs", "copy"]).ended(0);
    env
}

impl TestEnv {
    fn git(&self, dir: &str, arguments: &[&str]) -> String {
        let output = self.command("git", &self.path(dir)).args(arguments).output().expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn head(&self, dir: &str) -> String {
        self.git(dir, &["rev-parse", "HEAD"]).trim().to_owned()
    }
}

#[test]
fn init_makes_one_commit_a_file_and_registers_the_folder() {
    let env = TestEnv::new();
    env.write("docs/a", "1");
    env.write("docs/b/c", "2");
    let output = env.run(["init", "docs"]).ended(0);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("[ROOT]/docs is versioned as `docs`: 2 revisions (2 added)"), "{output}");
    assert_eq!(env.config(), "[folder.docs]\npath = \"[ROOT]/docs\"\n");
    assert_eq!(env.git("docs", &["rev-list", "--count", "HEAD"]).trim(), "2");
    assert_eq!(env.git("docs", &["status", "--porcelain"]), "");
}

/// A kill may come after all is made, and before that is in the configuration.
#[test]
fn init_and_clone_that_were_killed_before_the_folder_was_registered_go_on() {
    let env = TestEnv::new();
    let before = env.read("home/config.toml");
    env.write("docs/a", "1");
    env.run(["init", "docs"]).ended(0);
    let made = env.read("home/config.toml");
    env.write("home/config.toml", &before);
    env.write("docs/b", "2");
    let output = env.run(["init", "docs"]).ended(0);
    assert!(output.stderr.contains("[ROOT]/docs is versioned as `docs`: 1 revision (1 added)"), "{output}");
    assert_eq!(env.read("home/config.toml"), made);
    // Once it is registered, that is all.
    let output = env.run(["init", "docs"]).ended(6);
    assert!(output.stderr.contains("is already a foldersync folder"), "{output}");

    env.run(["clone", "docs", "copy"]).ended(0);
    let cloned = env.read("home/config.toml");
    env.write("home/config.toml", &made);
    env.run(["clone", "docs", "copy"]).ended(0);
    assert_eq!(env.read("home/config.toml"), cloned);
    env.run(["clone", "docs", "copy"]).ended(2);
    // What another device has made is not this one's to go on with.
    env.run(["--home", "other", "init", "docs"]).ended(6);
}

#[test]
fn init_of_somebodys_repository_is_refused() {
    let env = TestEnv::new();
    env.write("project/x", "");
    env.git("project", &["init", "--quiet"]);
    let output = env.run(["init", "project"]);
    assert!(output.status != Some(0) && output.stderr.contains("--alongside"), "{output}");
    assert_eq!(env.config(), "");
}

#[test]
fn commit_says_what_it_captured_and_then_there_is_nothing() {
    let env = with_history();
    env.write("docs/new.txt", "new");
    fs::remove_file(env.path("docs/sub/plan.md")).expect("it is there");
    let output = env.run_in("docs", ["commit"]).ended(0);
    let mut lines: Vec<_> = output.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["add new.txt", "add sub", "delete sub/plan.md"], "the folder stays, empty now");
    assert_eq!(output.stderr, "3 revisions (2 added, 1 deleted)\n");
    let again = env.run_in("docs", ["commit"]).ended(0);
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("", "nothing to capture\n"));
}

#[test]
fn commit_of_a_path_captures_that_path() {
    let env = with_history();
    env.write("docs/sub/a", "");
    env.write("docs/b", "");
    assert_eq!(env.run_in("docs/sub", ["commit", "a"]).ok(), "add sub/a\n");
    assert_eq!(env.run_in("docs/sub", ["commit", ".."]).ok(), "add b\n");
}

#[test]
fn what_is_left_out_is_named_and_told_by_the_exit_code() {
    let env = with_history();
    env.write("docs/other/x", "");
    env.git("docs/other", &["init", "--quiet"]);
    let output = env.run_in("docs", ["commit"]).ended(3);
    assert!(output.stderr.contains("warning: left out other: "), "{output}");
    assert!(env.run_in("docs", ["status"]).ok().contains("left out other: "));
}

#[test]
fn status_shows_what_is_new() {
    let env = with_history();
    assert!(env.run_in("docs", ["status"]).ok().ends_with("nothing to capture\n"));
    env.write("docs/notes.txt", "other");
    let shown = env.run_in("docs/sub", ["status"]).ok();
    assert!(shown.starts_with("[ROOT]/docs at ") && shown.contains("\nchange notes.txt\n"), "{shown}");
    let report = env.run_in("docs", ["status", "--json"]).json();
    assert_eq!(report["changes"][0]["verb"], "change");
    assert_eq!(report["head"], env.head("docs"));
}

#[test]
fn log_numbers_the_revisions_of_a_file() {
    let env = with_history();
    let log = env.run_in("docs", ["log", "notes.txt"]).ok();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("@2  ") && lines[0].contains("  laptop  change"), "{log}");
    assert!(lines[1].starts_with("@1  ") && lines[1].contains("  laptop  add"), "{log}");
    assert_eq!(env.run_in("docs", ["log"]).ok().lines().count(), 3);
    assert_eq!(env.run_in("docs", ["log", "-n", "1"]).ok().lines().count(), 1);
    let revisions = env.run_in("docs/sub", ["log", "../notes.txt", "--json"]).json();
    assert_eq!(revisions["revisions"][0]["number"], 2);
    assert_eq!(revisions["revisions"][1]["verb"], "add");
}

#[test]
fn show_and_diff_take_revisions() {
    let env = with_history();
    assert_eq!(env.run_in("docs", ["show", "notes.txt@1"]).ok(), "one\n");
    assert_eq!(env.run_in("docs", ["show", "notes.txt"]).ok(), "one\ntwo\n");
    let diff = env.run_in("docs", ["diff", "notes.txt@1", "notes.txt@2"]).ok();
    assert!(diff.ends_with("@@ -1 +1,2 @@\n one\n+two\n"), "{diff}");
    assert_eq!(env.run_in("docs", ["diff", "notes.txt"]).ok(), "");
    let missing = env.run_in("docs", ["show", "notes.txt@9"]);
    assert!(missing.status == Some(1) && missing.stderr.contains('9'), "{missing}");
    env.run_in("docs", ["show", "notes.txt@0"]).ended(2);
}

#[test]
fn a_name_with_an_at_sign_can_be_shown() {
    let env = with_history();
    env.write("docs/odd@3", "odd\n");
    env.run_in("docs", ["commit"]).ended(0);
    assert_eq!(env.run_in("docs", ["show", "--", "odd@3"]).ok(), "odd\n");
    assert_eq!(env.run_in("docs", ["show", "odd@3@1"]).ok(), "odd\n");
}

#[test]
fn revert_brings_one_file_back_and_loses_nothing() {
    let env = with_history();
    env.write("docs/notes.txt", "not captured\n");
    env.write("docs/sub/plan.md", "# changed\n");
    let output = env.run_in("docs", ["revert", "notes.txt@1"]).ended(0);
    assert_eq!(output.stdout, "change notes.txt\n");
    assert!(output.stderr.contains("captured what stood there first: 1 revision\n"), "{output}");
    assert_eq!((env.read("docs/notes.txt"), env.read("docs/sub/plan.md")), ("one\n".into(), "# changed\n".into()));
    assert_eq!(env.run_in("docs", ["show", "notes.txt@3"]).ok(), "not captured\n");
    assert_eq!(env.run_in("docs", ["log", "notes.txt"]).ok().lines().count(), 4);
}

#[test]
fn revert_without_a_revision_asks_which() {
    let env = with_history();
    let output = env.run_in("docs", ["revert", "notes.txt"]).ended(2);
    assert!(output.stderr.starts_with("error: notes.txt: no revision is named\n\nhint: `notes.txt@-1`"), "{output}");
}

#[test]
fn a_deleted_file_comes_back() {
    let env = with_history();
    fs::remove_file(env.path("docs/notes.txt")).expect("it is there");
    env.run_in("docs", ["commit"]).ended(0);
    assert_eq!(env.run_in("docs", ["revert", "notes.txt@1"]).ok(), "add notes.txt\n");
    assert_eq!(env.read("docs/notes.txt"), "one\n");
}

#[test]
fn clone_makes_a_copy_that_exchanges_with_its_source() {
    let env = with_copy();
    assert_eq!(env.read("copy/notes.txt"), "one\ntwo\n");
    assert_eq!(env.head("copy"), env.head("docs"));
    let config = env.read("home2/config.toml");
    assert!(config.contains("[peer.origin]") && config.contains("folders = [\"copy\"]"), "{config}");
}

#[test]
fn a_copy_within_one_configuration_becomes_a_peer_of_its_source_too() {
    let env = with_history();
    env.run(["clone", "docs", "copy"]).ended(0);
    let config = env.config();
    assert!(config.contains("[peer.origin]\naddress = \"[ROOT]/docs\"\nfolders = [\"copy\"]\n"), "{config}");
    assert!(config.contains("[peer.copy]\naddress = \"[ROOT]/copy\"\nfolders = [\"docs\"]\n"), "{config}");
}

#[test]
fn an_exchange_says_one_line_and_then_nothing() {
    let env = with_copy();
    env.write("docs/from-docs", "1");
    env.write("copy/from-copy", "2");
    env.run_in("docs", ["commit"]).ended(0);
    let output = env.run(["--home", "home2", "exchange"]).ended(0);
    assert_eq!(output.stdout.lines().count(), 1);
    assert!(output.stdout.starts_with("copy with origin: captured 1 revision, sent 1 revision ("), "{output}");
    assert_eq!((env.read("copy/from-docs"), env.read("docs/from-copy")), ("1".into(), "2".into()));
    assert_eq!(env.head("copy"), env.head("docs"));
    let again = env.run(["--home", "home2", "exchange"]).ended(0);
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("", ""));
    let listed = env.run(["--home", "home2", "peer", "list"]).ok();
    assert!(
        listed.lines().nth(1).is_some_and(|line| line.contains("  nothing  ") && !line.contains("never")),
        "{listed}"
    );
}

#[test]
fn a_conflict_is_told_listed_and_ended() {
    let env = with_copy();
    env.write("docs/photo.raw", [0, 1]);
    env.write("copy/photo.raw", [0, 2]);
    let output = env.run(["--home", "home2", "exchange"]).ended(3);
    assert!(output.stderr.contains("warning: photo.raw is in conflict"), "{output}");
    assert!(env.run_in("docs", ["conflicts"]).ok().starts_with("photo.raw: the version of "));
    env.run_in("copy", ["--home", "../home2", "conflicts", "resolve", "photo.raw", "--ours"]).ended(0);
    env.run(["--home", "home2", "exchange"]).ended(0);
    assert_eq!(env.run_in("docs", ["conflicts"]).ok(), "");
    assert_eq!(env.read("docs/photo.raw"), env.read("copy/photo.raw"));
}

#[test]
fn a_peer_that_is_away_does_not_stop_the_others() {
    let env = with_copy();
    env.folder("away");
    env.run(["--home", "home2", "--folder", "copy", "peer", "add", "away", "away"]).ended(0);
    fs::remove_dir_all(env.path("away")).expect("it is there");
    env.write("copy/new", "1");
    let output = env.run(["--home", "home2", "exchange"]).ended(4);
    assert!(output.stderr.starts_with("error: copy with away: "), "{output}");
    assert!(output.stdout.starts_with("copy with origin: "), "{output}");
    assert_eq!(env.read("docs/new"), "1");
    let report = env.run(["--home", "home2", "exchange", "--json"]).ended(4).json();
    assert_eq!(report["failures"][0]["kind"], "unreachable");
    assert_eq!(report["failures"][0]["peer"], "away");
    assert_eq!(report["exchanges"][0]["in_step"], true);
}

#[test]
fn a_bundle_brings_what_the_other_side_lacks() {
    let env = with_copy();
    env.write("docs/new", "1");
    env.run_in("docs", ["commit"]).ended(0);
    let made = env.run_in("docs", ["bundle", "create", "../all.bundle.sz", "--json"]).ended(0).json();
    assert_eq!(made["tip"], env.head("docs"));
    env.run_in("copy", ["bundle", "verify", "../all.bundle.sz"]).ended(0);
    env.run_in("copy", ["bundle", "apply", "../all.bundle.sz"]).ended(0);
    assert_eq!(env.read("copy/new"), "1");
    let whole = fs::read(env.path("all.bundle.sz")).expect("a bundle");
    env.write("cut.bundle.sz", &whole[..whole.len() / 2]);
    let head = env.head("copy");
    env.run_in("copy", ["bundle", "apply", "../cut.bundle.sz"]).ended(5);
    assert_eq!(env.head("copy"), head);
}

#[test]
fn a_sound_repository_is_verified_and_a_damaged_one_is_told() {
    let env = with_history();
    env.run_in("docs", ["gc"]).ended(0);
    env.run_in("docs", ["verify", "--content"]).ended(0);
    let packs: Vec<_> =
        fs::read_dir(env.path("docs/.git/objects/pack")).expect("packs").map(|it| it.expect("one").path()).collect();
    let pack = packs.iter().find(|path| path.extension().is_some_and(|it| it == "pack")).expect("a pack");
    let mut bytes = fs::read(pack).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::remove_file(pack).expect("removable");
    fs::write(pack, bytes).expect("writable");
    env.run_in("docs", ["verify", "--content"]).ended(5);
}

#[rstest]
#[case(b"GET / HTTP/1.1\r\n\r\n")]
#[case(b"")]
fn what_does_not_speak_the_protocol_is_told_so(#[case] said: &'static [u8]) {
    let env = with_history();
    env.write("said", said);
    let mut command = env.foldersync("docs");
    command.args(["serve", "--stdio"]).stdin(Stdio::from(fs::File::open(env.path("said")).expect("it is there")));
    let output = env.finish(command);
    assert!(output.status != Some(0) && output.stderr.starts_with("error: "), "{output}");
}

#[test]
fn names_from_elsewhere_are_raw_in_a_pipe() {
    let env = with_history();
    env.write("docs/a\u{1b}[2Jb", "");
    assert_eq!(env.run_in("docs", ["commit"]).ok(), "add a\u{1b}[2Jb\n");
    let report = env.run_in("docs", ["log", "--json", "-n", "1"]).json();
    assert_eq!(report["revisions"][0]["path"], "\"a\\033[2Jb\"");
}
