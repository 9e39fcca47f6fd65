//! Bad input: folders, repositories, bundles, streams and names that are not as they should be. Each is told clearly
//! and with its own exit code, and changes nothing.

mod bundles;
mod disk;
mod names;
mod repository;
mod streams;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Output, TestEnv};

/// All that stands in a folder and in its repository, but for what is derived and what is locked: as it was once.
pub(crate) struct Before {
    root: PathBuf,
    content: BTreeMap<PathBuf, Vec<u8>>,
}

impl Before {
    pub(crate) fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), content: content(root) }
    }

    #[track_caller]
    pub(crate) fn is_untouched(&self) {
        let now = content(&self.root);
        let names = |content: &BTreeMap<PathBuf, Vec<u8>>| content.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&now), names(&self.content), "in {}", self.root.display());
        for (path, content) in &self.content {
            assert!(now[path] == *content, "{} was changed", path.display());
        }
    }
}

fn content(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(at: &Path, content: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(at).expect("a folder") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("metadata").file_type();
            if kind.is_symlink() {
                content
                    .insert(path.clone(), fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes());
            } else if !kind.is_dir() {
                content.insert(path.clone(), fs::read(&path).expect("readable"));
            } else if !path.ends_with(".git/foldersync") {
                content.insert(path.clone(), b"a folder".to_vec());
                walk(&path, content);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, &mut found);
    found
}

/// `docs`, with two files and three revisions, and `copy`, its clone, which are each other's peers.
pub(crate) fn two_folders() -> TestEnv {
    let env = TestEnv::new();
    env.write("docs/notes.txt", "one\n");
    env.write("docs/sub/plan.md", "# plan\n");
    env.run(["init", "docs"]).ended(0);
    env.write("docs/notes.txt", "one\ntwo\n");
    env.run_in("docs", ["commit"]).ended(0);
    env.run(["clone", "docs", "copy"]).ended(0);
    // What was written the moment before it was captured is read once more, which is recorded.
    for root in ["docs", "copy"] {
        env.run_in(root, ["commit"]).ended(0);
    }
    env
}

impl Output {
    /// A failure of this kind, told in a text that has all these words.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.status, Some(code), "{self}");
        assert!(self.stderr.starts_with("error: "), "{self}");
        self.says(words)
    }

    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in\n{self}");
        }
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }
}

/// Tells, in a way that cannot be overlooked, that a test could not be run here.
#[expect(clippy::print_stderr, reason = "who runs the tests should see it")]
pub(crate) fn skipped(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: {why}");
}
