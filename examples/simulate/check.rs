//! What must hold, looked at from outside: on the files, and in the repository with nothing but its objects and refs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use foldersync::change::Change;
use foldersync::engine::Folder;
use foldersync::entry::Kind;
use foldersync::id::{CommitId, ObjectId, TreeId};
use foldersync::store::large::{self, Recipe};
use foldersync::store::refs::{RefName, Refs};
use foldersync::store::{Commit, ObjectKind, Objects, object_id, tree};
use sha2::{Digest as _, Sha256};

use super::world::{Violation, World, is_ignored};

/// How many runs there are for one that git itself looks at, which takes longer than all the rest.
const FOR_GIT: u64 = 64;

fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Violation + use<'_, E> {
    move |error| format!("{what}: {error}")
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    File { content: Vec<u8>, executable: bool, mtime: (i64, i64) },
    Link(PathBuf),
    EmptyFolder,
}

fn look(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, Standing>) {
    let mut empty = true;
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.file_name().is_some_and(|name| name == ".git") {
            continue;
        }
        empty = false;
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        let relative = path.strip_prefix(root).expect("below").to_owned();
        if data.is_dir() {
            look(root, &path, found);
        } else if data.is_symlink() {
            found.insert(relative, Standing::Link(fs::read_link(&path).unwrap_or_default()));
        } else {
            let content = fs::read(&path).unwrap_or_default();
            let executable = data.permissions().mode() & 0o100 != 0;
            found.insert(relative, Standing::File { content, executable, mtime: (data.mtime(), data.mtime_nsec()) });
        }
    }
    if empty && at != root {
        found.insert(at.strip_prefix(root).expect("below").to_owned(), Standing::EmptyFolder);
    }
}

/// The files of a folder, with their contents.
pub(crate) fn standing(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    look(root, root, &mut found);
    let files = found.into_iter().filter_map(|(path, standing)| match standing {
        Standing::File { content, .. } => Some((path, content)),
        _ => None,
    });
    files.collect()
}

fn objects(root: &Path) -> Result<Objects, Violation> {
    Objects::open(&root.join(".git/objects")).map_err(failed("the objects"))
}

fn refs(root: &Path) -> Refs {
    Refs::new(&root.join(".git"))
}

pub(crate) fn head(root: &Path) -> Result<Option<CommitId>, Violation> {
    refs(root).read(&RefName::MAIN).map_err(failed("the head"))
}

/// The last revision that a node knows a peer to have.
pub(crate) fn known_of(root: &Path, peer: &str) -> Result<Option<CommitId>, Violation> {
    RefName::peer(peer).and_then(|name| refs(root).read(&name)).map_err(failed("what is known of a peer"))
}

/// Whether a revision that `of` names is at `root`. What merging made may go again, and is made anew where it is needed.
pub(crate) fn has(of: &Path, commit: CommitId, root: &Path) -> Result<bool, Violation> {
    let is_made = || objects(of)?.commit(commit).map_err(failed("a revision")).map(|it| it.message().derived.is_some());
    Ok(objects(root)?.exists(&commit.into()) || is_made()?)
}

/// Whether a content is in the repository, as it is or in chunks.
pub(crate) fn in_store(root: &Path, content: &[u8]) -> Result<bool, Violation> {
    let objects = objects(root)?;
    if objects.exists(&object_id(ObjectKind::Blob, content)) {
        return Ok(true);
    }
    let all = refs(root).list("refs/").map_err(failed("the refs"))?;
    let mut history = History::default();
    all.into_iter().try_for_each(|(_, commit)| history.walk(&objects, commit))?;
    Ok(history.has(content))
}

/// Whether a content waits in the stage, from where the next work puts back what was displaced unawares.
pub(crate) fn in_stage(root: &Path, content: &[u8]) -> bool {
    let slots = root.join(".git/foldersync/stage");
    standing(&slots).values().any(|staged| staged == content)
}

/// What is in a history.
#[derive(Default)]
struct History {
    commits: BTreeMap<CommitId, Commit>,
    trees: HashSet<TreeId>,
    blobs: HashSet<ObjectId>,
    /// The sums of files that are kept in chunks, all of which are there.
    sums: HashSet<[u8; 32]>,
}

impl History {
    fn walk(&mut self, objects: &Objects, from: CommitId) -> Result<(), Violation> {
        let mut stack = vec![from];
        while let Some(id) = stack.pop() {
            if self.commits.contains_key(&id) {
                continue;
            }
            let commit = objects.commit(id).map_err(failed("a revision"))?;
            self.tree(objects, commit.tree)?;
            stack.extend(&commit.parents);
            self.commits.insert(id, commit);
        }
        Ok(())
    }

    fn tree(&mut self, objects: &Objects, id: TreeId) -> Result<(), Violation> {
        if !self.trees.insert(id) {
            return Ok(());
        }
        let mut content = Vec::new();
        objects.tree(id, &mut content).map_err(failed("a tree"))?;
        for entry in tree::entries(&content) {
            let entry = entry.map_err(failed("a tree"))?;
            if entry.is_tree() {
                self.tree(objects, entry.id.as_tree())?;
            } else if self.blobs.insert(entry.id) {
                let mut blob = Vec::new();
                objects.read(ObjectKind::Blob, &entry.id, &mut blob).map_err(failed("a content"))?;
                if large::recipe::begins_as_one(&blob)
                    && let Ok(recipe) = Recipe::parse(&blob)
                    && recipe.chunks().iter().all(|chunk| objects.exists(&chunk.id))
                {
                    self.sums.insert(*recipe.sha256());
                }
            }
        }
        Ok(())
    }

    fn has(&self, content: &[u8]) -> bool {
        self.blobs.contains(&object_id(ObjectKind::Blob, content))
            || self.sums.contains(&<[u8; 32]>::from(Sha256::digest(content)))
    }

    /// I1: what is no merge differs from its parent in one path.
    fn one_path_each(&self, objects: &Objects) -> Result<(), Violation> {
        for (id, commit) in self.commits.iter().filter(|(_, commit)| commit.parents.len() < 2) {
            let parent = commit.parents.first().map(|parent| objects.commit(*parent)).transpose();
            let parent = parent.map_err(failed("a revision"))?.map(|parent| parent.tree);
            // A folder that gets its first file is no empty folder any more, and is told as well.
            let (mut files, mut folders) = (0, 0);
            let mut each = |change: Change| {
                let kinds = [change.old, change.new].into_iter().flatten().map(|entry| entry.kind);
                *(if kinds.into_iter().all(|kind| kind == Kind::EmptyFolder) { &mut folders } else { &mut files }) += 1;
                Ok(())
            };
            tree::diff(objects, parent, Some(commit.tree), &mut each).map_err(failed("a comparison"))?;
            let changes = if files == 0 { folders.min(1) } else { files };
            if changes != 1 {
                return Err(format!("revision {id} changes {changes} paths: {}", commit.message().subject));
            }
        }
        Ok(())
    }
}

/// The revisions that persons made, which no merge may drop.
pub(crate) fn authored(root: &Path, known: &BTreeSet<CommitId>) -> Result<Vec<CommitId>, Violation> {
    let objects = objects(root)?;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut stack: Vec<_> = head(root)?.into_iter().collect();
    while let Some(id) = stack.pop() {
        if known.contains(&id) || !seen.insert(id) {
            continue;
        }
        let commit = objects.commit(id).map_err(failed("a revision"))?;
        stack.extend(&commit.parents);
        if commit.message().derived.is_none() {
            found.push(id);
        }
    }
    Ok(found)
}

/// Everything that must hold when all is settled.
pub(crate) fn all(world: &World, seed: u64, in_chunks: bool) -> Result<(), Violation> {
    let first = &world.nodes[0];
    let mut stand = BTreeMap::new();
    look(&first.root, &first.root, &mut stand);
    stand.retain(|path, _| !is_ignored(path));
    for node in &world.nodes {
        // I4: the same bytes everywhere.
        let mut own = BTreeMap::new();
        look(&node.root, &node.root, &mut own);
        own.retain(|path, _| !is_ignored(path));
        // Folders that have only ignored files in them are there and not there.
        let same = |a: &BTreeMap<PathBuf, Standing>, b: &BTreeMap<PathBuf, Standing>| {
            a.iter()
                .find(|(path, what)| **what != Standing::EmptyFolder && b.get(*path) != Some(what))
                .map(|(path, _)| path.clone())
        };
        if let Some(path) = same(&stand, &own).or_else(|| same(&own, &stand)) {
            return Err(format!(
                "{} differs: {:?} in {}, {:?} in {}",
                path.display(),
                stand.get(&path),
                first.name,
                own.get(&path),
                node.name
            ));
        }
        let folder = Folder::open(&node.root, node.context()).map_err(failed("open"))?;
        let left = folder.capture(&[]).map_err(failed("capture"))?;
        if left.revisions() > 0 {
            return Err(format!("{} finds changes where nobody made any: {:?}", node.name, left.changes));
        }
        let report = folder.verify(true).map_err(failed("verify"))?;
        if !report.problems.is_empty() {
            return Err(format!("{} is damaged: {:?}", node.name, report.problems));
        }
        leftovers(&node.root, &node.root)?;
        if seed.is_multiple_of(FOR_GIT) {
            git(&node.root, &["fsck", "--full", "--strict", "--no-dangling", "--no-progress"])?;
            // Of files in chunks, git would ask the program that is being tried here, which need not be installed.
            if !in_chunks {
                // What is ignored, and was versioned before, may be other on disk.
                git(&node.root, &["status", "--porcelain", "--", ".", ":(exclude)*.tmp"])?;
            }
        }
    }
    let Some(head) = head(&first.root)? else {
        return if world.kept.is_empty() { Ok(()) } else { Err("there is no history".to_owned()) };
    };
    let objects = objects(&first.root)?;
    let mut history = History::default();
    history.walk(&objects, head)?;
    history.one_path_each(&objects)?;
    // I3: nothing that was captured is lost, and I2: no revision that a person made.
    if let Some(lost) = world.kept.iter().find(|content| !history.has(content)) {
        return Err(format!("lost: {:?}", String::from_utf8_lossy(lost)));
    }
    if let Some(lost) = world.authored.iter().find(|id| !history.commits.contains_key(id)) {
        return Err(format!("revision {lost} was made, and is not in the history any more"));
    }
    Ok(())
}

/// Nothing that was half-done stays.
fn leftovers(root: &Path, at: &Path) -> Result<(), Violation> {
    for entry in fs::read_dir(at).map_err(failed("a folder"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_left =
            [".tmp-", ".foldersync-stage-", "tmp_foldersync_", "journal-"].iter().any(|start| name.starts_with(start));
        let path = entry.path();
        // Those of our own stay, and are locked or not; git's are there or not.
        let is_git_lock = path.extension().is_some_and(|it| it == "lock")
            && at.file_name().is_none_or(|folder| folder != "foldersync");
        if is_left || is_git_lock {
            return Err(format!("left behind: {}", path.strip_prefix(root).unwrap_or(&path).display()));
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            leftovers(root, &entry.path())?;
        }
    }
    Ok(())
}

/// I5: git finds nothing to say.
fn git(root: &Path, args: &[&str]) -> Result<(), Violation> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*"])
        .args(args)
        .current_dir(root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .output()
        .map_err(failed("git"))?;
    // Of a repository without a revision it says so, as a notice.
    let complaints = String::from_utf8_lossy(&output.stderr);
    let is_clean = complaints.lines().all(|line| line.starts_with("notice: "));
    if output.status.success() && output.stdout.is_empty() && is_clean {
        return Ok(());
    }
    Err(format!("git {args:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
