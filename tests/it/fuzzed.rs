//! What the fuzz targets were given, once more: the seeds, and every input that ever broke something.

#[path = "../../fuzz/src/lib.rs"]
pub mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use foldersync::path::SyncPath;
use foldersync::worktree::leaves_out;

fn inputs(target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut inputs: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{target} has inputs");
    inputs
}

#[test]
fn every_input_is_taken_again() {
    for (name, _) in targets::TARGETS {
        for input in inputs(name) {
            let data = fs::read(&input).expect("readable");
            let taken = std::panic::catch_unwind(|| targets::target(name)(&data));
            assert!(taken.is_ok(), "{} breaks `{name}`", input.display());
        }
    }
}

#[test]
fn every_target_has_a_program_and_every_input_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names: Vec<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).expect("readable");
    for (dir, suffix) in [("fuzz/fuzz_targets", ".rs"), ("fixtures/fuzz", "")] {
        let entries = fs::read_dir(root.join(dir)).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut found: Vec<_> = entries.map(|name| name.into_string().expect("text").replace(suffix, "")).collect();
        found.sort();
        assert_eq!(found, names, "{dir}");
    }
    for name in &names {
        let program = fs::read_to_string(root.join(format!("fuzz/fuzz_targets/{name}.rs"))).expect("readable");
        assert!(program.contains(&format!("target(\"{name}\")")), "{program}");
        assert!(manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")), "{name} is built");
    }
}

/// What git leaves out of a folder with this ignore file, among these paths.
fn left_out_by_git(dir: &Path, rules: &[u8], paths: &[&SyncPath]) -> Vec<Vec<u8>> {
    fs::write(dir.join(".gitignore"), rules).expect("writable");
    let mut git = std::process::Command::new("git");
    git.args(["-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"]);
    git.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = git.spawn().expect("git runs");
    let mut stdin = child.stdin.take().expect("piped");
    for path in paths {
        stdin.write_all(path.as_bytes()).and_then(|()| stdin.write_all(b"\0")).expect("it reads");
    }
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    output.stdout.split(|&byte| byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect()
}

#[test]
fn git_leaves_out_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    crate::sites::text(crate::sites::git(dir.path(), &["init", "-q"]));
    let mut compared = BTreeMap::new();
    for input in inputs("ignore") {
        let data = fs::read(&input).expect("readable");
        let mut parts = data.split(|&byte| byte == 0);
        let rules = parts.next().expect("one at least");
        let paths: Vec<SyncPath> = parts.filter_map(|path| SyncPath::new(path).ok()).collect();
        // There is nothing at these paths: git takes each for a file.
        let git = left_out_by_git(dir.path(), rules, &paths.iter().collect::<Vec<_>>());
        for path in &paths {
            let ours = leaves_out(rules, path, false);
            assert_eq!(ours, git.iter().any(|left_out| left_out == path.as_bytes()), "{}: {path}", input.display());
            *compared.entry(ours).or_insert(0) += 1;
        }
    }
    assert!(compared.get(&true) > Some(&5) && compared.get(&false) > Some(&5), "{compared:?}");
}
