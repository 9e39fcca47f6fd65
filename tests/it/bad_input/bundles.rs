//! Bundles that are damaged, incomplete, or made to do harm.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rstest::rstest;

use super::{Before, two_folders};
use crate::sites::{git, text};
use crate::support::TestEnv;

#[test]
fn a_bundle_that_is_cut_or_damaged_anywhere_changes_nothing() {
    let env = two_folders();
    env.write("docs/new", "new");
    env.run_in("docs", ["commit"]).ended(0);
    let all = env.run_in("docs", ["bundle", "create", "../all.bundle.sz"]).ended(0);
    let whole = fs::read(env.path("all.bundle.sz")).unwrap_or_else(|error| panic!("{error}: {all}"));
    let before = Before::of(&env.path("copy"));
    let refused = |content: &[u8], what: String| {
        env.write("bad.bundle.sz", content);
        let output = env.run_in("copy", ["bundle", "apply", "../bad.bundle.sz"]);
        assert!(matches!(output.status, Some(5 | 6)), "{what}: {output}");
        output.says(&["bad.bundle.sz", "hint: nothing of it was taken"]);
        before.is_untouched();
    };
    for cut in (0..whole.len()).step_by(97) {
        refused(&whole[..cut], format!("cut at {cut}"));
    }
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        refused(&damaged, format!("flipped at {at}"));
    }
    env.run_in("copy", ["bundle", "apply", "../all.bundle.sz"]).ended(0);
    assert_eq!(env.read("copy/new"), "new");
}

#[test]
fn a_bundle_that_builds_on_what_is_not_here_says_what_to_do() {
    let env = two_folders();
    for content in ["a", "b"] {
        env.write("docs/new", content);
        env.run_in("docs", ["commit"]).ended(0);
    }
    let parent = text(git(&env.path("docs"), &["rev-parse", "main~1"]));
    env.run_in("docs", ["bundle", "create", "--since", parent.trim(), "../late.bundle.sz"]).ended(0);
    let before = Before::of(&env.path("copy"));
    let output = env.run_in("copy", ["bundle", "apply", "../late.bundle.sz"]).failed(1, &["late.bundle.sz", "--since"]);
    assert!(output.stderr.contains(&parent[..10]), "{output}");
    before.is_untouched();
    for (file, code) in [("no.bundle", 1), ("docs/notes.txt", 5)] {
        env.run_in("copy", ["bundle", "apply", &format!("../{file}")]).failed(code, &[file]);
        before.is_untouched();
    }
}

/// A plain repository, in which anything can be made.
struct Forge(PathBuf);

impl Forge {
    fn new(env: &TestEnv) -> Self {
        let dir = env.path("forge");
        fs::create_dir(&dir).expect("a folder");
        text(git(&dir, &["init", "-q", "-b", "main"]));
        Self(dir)
    }

    fn object(&self, kind: &str, content: &[u8]) -> String {
        let mut child = Command::new("git")
            .args(["hash-object", "-w", "--literally", "--stdin", "-t", kind])
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git runs");
        child.stdin.take().expect("piped").write_all(content).expect("written");
        text(child.wait_with_output().expect("it ends")).trim().to_owned()
    }

    fn blob(&self, content: &str) -> String {
        self.object("blob", content.as_bytes())
    }

    fn tree(&self, entries: &[(&str, &str, &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend(format!("{mode} {name}\0").bytes());
            bytes.extend((0..20).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).expect("hexadecimal")));
        }
        self.object("tree", &bytes)
    }

    /// A commit of each of these trees on the one before; a bundle of them all.
    fn bundle(&self, trees: &[String], file: &Path) {
        let mut parent: Option<String> = None;
        for tree in trees {
            let mut args = vec!["commit-tree", "-m", "x", tree];
            if let Some(parent) = &parent {
                args.extend(["-p", parent.as_str()]);
            }
            parent = Some(text(git(&self.0, &args)).trim().to_owned());
        }
        text(git(&self.0, &["update-ref", "refs/heads/main", &parent.expect("a commit")]));
        text(git(&self.0, &["bundle", "create", "-q", file.to_str().expect("text"), "main"]));
    }
}

#[rstest]
#[case::up("40000", "..")]
#[case::here("40000", ".")]
#[case::git("40000", ".git")]
#[case::git_as_a_file("100644", ".git")]
#[case::git_in_capitals("40000", ".GIT")]
#[case::git_in_short("40000", "git~1")]
#[case::git_with_a_dot("40000", ".git.")]
#[case::ours("40000", ".foldersync")]
#[case::slash("100644", "../x")]
#[case::absolute("100644", "/x")]
#[case::module("160000", "module")]
#[case::strange_mode("100000", "file")]
#[case::fifo("10644", "file")]
fn a_tree_that_names_what_must_not_be_written_is_refused(#[case] mode: &str, #[case] name: &str) {
    let env = two_folders();
    let forge = Forge::new(&env);
    let blob = forge.blob("evil");
    let inner = forge.tree(&[("100644", "config", &blob)]);
    let target = match mode {
        "40000" => inner,
        "160000" => text(git(&forge.0, &["commit-tree", "-m", "x", &inner])).trim().to_owned(),
        _ => blob.clone(),
    };
    let bad = forge.tree(&[(mode, name, &target)]);
    for (at, tree) in [(0, bad.clone()), (1, forge.tree(&[("40000", "sub", &bad)]))] {
        let file = env.path(&format!("bad{at}.bundle"));
        forge.bundle(&[tree], &file);
        let before = Before::of(&env.path("docs"));
        let file = file.to_str().expect("text");
        env.run_in("docs", ["bundle", "verify", file]).failed(6, &["was refused"]);
        env.run_in("docs", ["bundle", "apply", file]).failed(6, &["was refused", "bundle `[ROOT]/bad"]);
        before.is_untouched();
    }
}

#[test]
fn a_tree_with_a_name_twice_is_refused() {
    let env = two_folders();
    let forge = Forge::new(&env);
    let blob = forge.blob("evil");
    let inner = forge.tree(&[("100644", "x", &blob)]);
    let link = forge.blob("/tmp");
    let before = Before::of(&env.path("docs"));
    let twice = [
        [("100644", "a", blob.as_str()), ("100644", "a", &blob)],
        [("100644", "a", &blob), ("40000", "a", &inner)],
        [("120000", "a", &link), ("40000", "a", &inner)],
        [("100644", "b", &blob), ("100644", "a", &blob)],
    ];
    for entries in twice {
        forge.bundle(&[forge.tree(&entries)], &env.path("bad.bundle"));
        env.run_in("docs", ["bundle", "apply", "../bad.bundle"]).failed(6, &["was refused"]);
        before.is_untouched();
    }
}

#[test]
fn a_link_never_leads_a_later_file_outside() {
    let env = two_folders();
    let forge = Forge::new(&env);
    fs::create_dir(env.path("outside")).expect("a folder");
    let evil = forge.blob("evil");
    let link = forge.blob(env.path("outside").to_str().expect("text"));
    let linked = forge.tree(&[("120000", "link", &link)]);
    let inner = forge.tree(&[("100644", "x", &evil)]);
    let filled = forge.tree(&[("40000", "link", &inner)]);
    let outside = Before::of(&env.path("outside"));
    for (round, trees) in [
        vec![linked.clone()],
        vec![linked.clone(), filled.clone()],
        vec![linked.clone(), filled.clone(), linked.clone()],
        vec![filled.clone(), linked.clone()],
        vec![filled.clone(), linked, filled],
    ]
    .iter()
    .enumerate()
    {
        // Step by step into one folder, and all at once into a new one.
        env.run(["clone", "copy", &format!("new{round}")]).ended(0);
        for folder in ["docs", &format!("new{round}")] {
            for upto in 1..=trees.len() {
                if folder != "docs" && upto < trees.len() {
                    continue;
                }
                forge.bundle(&trees[..upto], &env.path("link.bundle"));
                let output = env.run_in(folder, ["bundle", "apply", "../link.bundle"]);
                assert!(matches!(output.status, Some(0 | 3)), "{output}");
                output.says(&[]);
                outside.is_untouched();
                env.run_in(folder, ["verify", "--content"]).ended(0);
            }
        }
    }
    // A person put the link there; what comes must not follow it.
    let env = two_folders();
    fs::create_dir(env.path("outside")).expect("a folder");
    env.write("docs/place/x", "1");
    env.run_in("docs", ["exchange", "copy"]).ended(0);
    fs::remove_dir_all(env.path("copy/place")).expect("removable");
    std::os::unix::fs::symlink(env.path("outside"), env.path("copy/place")).expect("a link");
    env.write("docs/place/x", "2");
    env.write("docs/place/y", "3");
    let output = env.run_in("docs", ["exchange", "copy"]);
    assert!(matches!(output.status, Some(0 | 3)), "{output}");
    assert_eq!(fs::read_dir(env.path("outside")).expect("there").count(), 0);
    assert_eq!(
        text(git(&env.path("docs"), &["rev-parse", "main"])),
        text(git(&env.path("copy"), &["rev-parse", "main"]))
    );
}

#[test]
fn a_name_that_is_too_long_is_left_out_and_the_rest_arrives() {
    let env = two_folders();
    let forge = Forge::new(&env);
    let blob = forge.blob("content");
    let long = "x".repeat(300);
    let tree = forge.tree(&[("100644", "fine", &blob), ("100644", &long, &blob)]);
    forge.bundle(&[tree], &env.path("long.bundle"));
    env.run_in("copy", ["bundle", "apply", "../long.bundle"]).ended(3).says(&["left out", &long]);
    assert_eq!(env.read("copy/fine"), "content");
    // What this side cannot write is not gone: it travels on, and is left out there too.
    let output = env.run_in("docs", ["exchange", "copy"]).ended(3).says(&["left out", &long]);
    assert_eq!(env.read("docs/fine"), "content", "{output}");
    for folder in ["docs", "copy"] {
        env.run_in(folder, ["commit"]).says(&[]);
        assert!(text(git(&env.path(folder), &["ls-tree", "--name-only", "main"])).contains(&long));
    }
}
