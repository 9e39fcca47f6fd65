//! Small histories for tests, made by git itself (`git fast-import`).

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::id::CommitId;
use crate::path::SyncPath;
use crate::store::objects::Objects;

/// Writes a history down, commit by commit; commits are named by their place, from 0.
pub(crate) struct Sample {
    stream: Vec<u8>,
    commits: usize,
}

/// What a commit does to a path.
pub(crate) type Edit<'a> = (&'a str, Option<&'a str>);

impl Sample {
    pub(crate) fn new() -> Self {
        Self { stream: Vec::new(), commits: 0 }
    }

    /// A commit with this committer time (and author time, ten seconds before).
    pub(crate) fn commit(&mut self, time: i64, parents: &[usize], message: &str, edits: &[Edit<'_>]) -> usize {
        let edits: Vec<_> = edits.iter().map(|&(path, content)| ("100644", path, content)).collect();
        self.commit_modes(time, parents, message, &edits)
    }

    /// The same, with modes.
    pub(crate) fn commit_modes(
        &mut self,
        time: i64,
        parents: &[usize],
        message: &str,
        edits: &[(&str, &str, Option<&str>)],
    ) -> usize {
        let this = self.commits;
        self.commits += 1;
        let mut text = format!("commit refs/heads/c{this}\nmark :{}\n", this + 1);
        text += &format!("author laptop <1@foldersync> {} +0000\n", time - 10);
        text += &format!("committer laptop <1@foldersync> {time} +0000\n");
        text += &format!("data {}\n{message}\n", message.len());
        for (at, parent) in parents.iter().enumerate() {
            text += &format!("{} :{}\n", if at == 0 { "from" } else { "merge" }, parent + 1);
        }
        for (mode, path, content) in edits {
            match content {
                Some(content) => text += &format!("M {mode} inline {path}\ndata {}\n{content}\n", content.len()),
                None => text += &format!("D {path}\n"),
            }
        }
        text.push('\n');
        self.stream.extend_from_slice(text.as_bytes());
        this
    }

    /// The repository with these commits.
    pub(crate) fn build(self) -> Repository {
        let dir = TempDir::new().expect("a temporary folder");
        let repository = Repository { git_dir: dir.path().join("git"), _dir: dir, ids: Vec::new() };
        let made =
            Command::new("git").args(["init", "-q", "--bare"]).arg(&repository.git_dir).status().expect("git runs");
        assert!(made.success());
        let marks = repository.git_dir.join("marks");
        let mut import = repository.command();
        import.args(["fast-import", "--quiet"]).arg(format!("--export-marks={}", marks.display()));
        let mut import = import.stdin(Stdio::piped()).spawn().expect("git runs");
        import.stdin.take().expect("piped").write_all(&self.stream).expect("git reads");
        assert!(import.wait().expect("git ends").success());
        let mut ids = vec![CommitId::from_bytes([0; 20]); self.commits];
        for line in std::fs::read_to_string(marks).expect("marks").lines() {
            let (mark, id) = line.split_once(' ').expect("a mark and an id");
            ids[mark[1..].parse::<usize>().expect("a number") - 1] = id.parse().expect("an id");
        }
        Repository { ids, ..repository }
    }
}

/// A repository on disk, gone with this value.
pub(crate) struct Repository {
    _dir: TempDir,
    pub(crate) git_dir: PathBuf,
    pub(crate) ids: Vec<CommitId>,
}

impl Repository {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.env("GIT_DIR", &self.git_dir).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command
    }

    pub(crate) fn objects(&self) -> Objects {
        Objects::open(&self.git_dir.join("objects")).expect("objects")
    }

    pub(crate) fn index_file(&self) -> PathBuf {
        self.git_dir.join("history.sqlite")
    }

    pub(crate) fn head(&self) -> CommitId {
        *self.ids.last().expect("a commit")
    }
}

pub(crate) fn path(text: &str) -> SyncPath {
    SyncPath::new(text).expect("a valid path")
}
