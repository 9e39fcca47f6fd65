//! What must hold after an interruption, before anything else runs and after the operation was run again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::operations::Operation;
use super::world::{Content, Fault, Standing, World, complaint, files, finish, good};

/// What stands in the folders, by their names.
pub(super) type Before = BTreeMap<&'static str, BTreeMap<String, Standing>>;

/// What can be seen of a world: the same, however often the operation was interrupted on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) config: String,
    folders: BTreeMap<&'static str, Folder>,
}

/// What can be seen of one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    files: BTreeMap<String, Standing>,
    /// The tree of the head.
    tree: String,
    /// What was done, in any order: nothing twice, nothing missing.
    revisions: Vec<String>,
    /// Refs, without what they are of: that the same is reached is in `tree` and `revisions`.
    refs: Vec<String>,
    /// Names in the repository, but for packs: nothing is left over.
    names: BTreeSet<String>,
}

pub(super) fn before(world: &World, roots: &[&'static str]) -> Before {
    roots.iter().map(|root| (*root, files(&world.path(root)))).collect()
}

fn is_repository(world: &World, root: &str) -> bool {
    world.path(root).join(".git").is_dir()
}

/// The contents that are in a folder's history, by the id of the blob or, for large ones all of whose chunks are there,
/// by their sum.
struct History {
    ids: BTreeSet<String>,
    sums: BTreeSet<String>,
}

impl History {
    fn of(world: &World, root: &str) -> Result<Self, Fault> {
        let mut history = Self { ids: BTreeSet::new(), sums: BTreeSet::new() };
        if !is_repository(world, root) {
            return Ok(history);
        }
        let listed = world.git(root, &["rev-list", "--objects", "--all"])?;
        history.ids = listed.lines().map(|line| line.split(' ').next().unwrap_or(line).to_owned()).collect();
        if !listed.contains(" large") && !listed.contains("/large") {
            return Ok(history);
        }
        let large = listed.lines().filter_map(|line| line.split_once(' ').filter(|(_, path)| path.contains("large")));
        for (id, _) in large {
            let text = world.git(root, &["cat-file", "blob", id]);
            let Some(text) = text.ok().filter(|text| text.starts_with("foldersync-recipe 1\n")) else { continue };
            let words = text.lines().skip(1).filter_map(|line| line.split_once(' '));
            let (heads, chunks): (Vec<_>, Vec<_>) = words.partition(|(word, _)| word.len() != 40);
            let sum = heads.iter().find_map(|(word, rest)| (*word == "sha256").then_some(*rest));
            if let Some(sum) = sum
                && !chunks.is_empty()
                && chunks.iter().all(|(id, _)| history.ids.contains(*id))
            {
                history.sums.insert(sum.to_owned());
            }
        }
        Ok(history)
    }

    fn has(&self, content: &Content) -> bool {
        self.ids.contains(&content.blob) || self.sums.contains(&content.sum)
    }
}

/// At no moment is something gone that stood in a folder: it stands there still, or it is in a history.
pub(super) fn nothing_is_lost(world: &World, before: &Before) -> Result<(), Fault> {
    let mut histories = None;
    for (root, stood) in before {
        let now = files(&world.path(root));
        for (path, standing) in stood {
            let Some(content) = standing.content() else { continue };
            if now.get(path).and_then(Standing::content) == Some(content) {
                continue;
            }
            if histories.is_none() {
                let all = before.keys().map(|root| Ok((*root, History::of(world, root)?)));
                histories = Some(all.collect::<Result<BTreeMap<_, _>, Fault>>()?);
            }
            let kept = histories.as_ref().and_then(|all| all.get(root)).is_some_and(|history| history.has(content));
            if !kept {
                return Err(format!("{root}/{path} is neither on disk as it was nor in history"));
            }
        }
    }
    Ok(())
}

/// Each content that stood in a folder is in its history, and where they meet, in that of the others.
fn all_is_captured(world: &World, operation: &Operation, before: &Before) -> Result<(), Fault> {
    for root in operation.roots {
        let history = History::of(world, root)?;
        for (other, stood) in before.iter().filter(|(other, _)| *other == root || operation.meets) {
            let content = |(path, standing): (&String, &Standing)| Some((path.clone(), standing.content()?.clone()));
            if let Some((path, _)) = stood.iter().filter_map(content).find(|(_, content)| !history.has(content)) {
                return Err(format!("what stood at {other}/{path} is not in the history of {root}"));
            }
        }
    }
    Ok(())
}

/// Git finds nothing wrong.
pub(super) fn sound(world: &World, root: &str) -> Result<(), Fault> {
    if !is_repository(world, root) {
        return Ok(());
    }
    let arguments = ["fsck", "--full", "--strict", "--no-dangling", "--no-progress"];
    world.git(root, &arguments).map(drop).map_err(|fault| format!("{root}: {fault}"))
}

/// foldersync finds nothing wrong.
fn verified(world: &World, root: &str) -> Result<(), Fault> {
    good(&mut world.command(["--folder", root, "verify", "--content"])).map(drop)
}

/// What a peer was said to have, it has: git's remote refs, where that peer is another of these folders.
pub(super) fn peers_have_what_they_acknowledged(world: &World, operation: &Operation) -> Result<(), Fault> {
    if !operation.meets || operation.roots.iter().any(|root| !is_repository(world, root)) {
        return Ok(());
    }
    for (root, other) in [("a", "b"), ("b", "a")] {
        let refs = world.git(root, &["for-each-ref", "--format=%(objectname)", "refs/remotes"])?;
        if refs.is_empty() {
            continue;
        }
        let held = world.git(other, &["rev-list", "--all"])?;
        let held: BTreeSet<&str> = held.lines().collect();
        if let Some(id) = refs.lines().find(|id| !held.contains(id)) {
            return Err(format!("{root} was told that {other} has {id}, and it has not"));
        }
    }
    Ok(())
}

fn names(dir: &Path, relative: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = format!("{relative}/{}", entry.file_name().to_string_lossy());
        // Where refs are kept is git's own affair: loose or packed, and folders of refs that are gone.
        if name == "/refs" || name == "/packed-refs" {
            continue;
        }
        let own = entry.file_name();
        let is_lock = || entry.path().extension().is_some_and(|extension| extension == "lock");
        // Locks of our own stay, held or not; the index of the history is made when it is asked, and SQLite's journal of
        // it is used up when it is asked again.
        if relative == "/foldersync" && (is_lock() || own.as_encoded_bytes().starts_with(b"history.sqlite")) {
            continue;
        }
        if name == "/objects/pack" {
            let packs = fs::read_dir(entry.path()).into_iter().flatten().flatten();
            // A pack whose index has no name yet is nothing to anybody; git itself is about to make one just so.
            let strange = packs.filter(|pack| !pack.file_name().to_string_lossy().starts_with("pack-"));
            found.extend(strange.map(|pack| format!("{name}/{}", pack.file_name().to_string_lossy())));
            continue;
        }
        if entry.path().is_dir() {
            names(&entry.path(), &name, found);
            // Places for slots, which may stay while nothing is in them.
            if relative == "/foldersync/stage" {
                continue;
            }
        }
        found.insert(name);
    }
}

impl Outcome {
    pub(super) fn of(world: &World, operation: &Operation) -> Result<Self, Fault> {
        let mut folders = BTreeMap::new();
        for root in operation.roots {
            let mut files = files(&world.path(root));
            if operation.sets_times {
                for standing in files.values_mut() {
                    if let Standing::File { mtime, .. } = standing {
                        *mtime = (0, 0);
                    }
                }
            }
            // A merge is as often made as heads part, which may be once more after an interruption.
            let log = world.git(root, &["log", "--no-merges", "--format=%an %s", "main"])?;
            let mut revisions: Vec<_> = log.lines().map(str::to_owned).collect();
            revisions.sort();
            let refs = world.git(root, &["for-each-ref", "--format=%(refname)"])?;
            let mut left = BTreeSet::new();
            names(&world.path(root).join(".git"), "", &mut left);
            // What is unfinished beside the repository.
            let beside = fs::read_dir(world.path(root)).into_iter().flatten().flatten();
            let beside = beside.map(|entry| entry.file_name().to_string_lossy().into_owned());
            left.extend(beside.filter(|name| name.starts_with(".git.")));
            let folder = Folder {
                files,
                tree: world.git(root, &["rev-parse", "main^{tree}"])?,
                revisions,
                refs: refs.lines().map(str::to_owned).collect(),
                names: left,
            };
            folders.insert(*root, folder);
        }
        let mut config = world.read("home/config.toml").unwrap_or_default();
        if operation.name == "bundle-create" {
            let output = good(&mut world.command(["--folder", "a", "bundle", "verify", "out.bundle.sz"]))?;
            config += &output;
        }
        Ok(Self { config, folders })
    }

    /// What is not as it should be.
    fn differs(&self, expected: &Self) -> Option<Fault> {
        fn sets<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Option<Fault> {
            if found == expected {
                return None;
            }
            let (found, expected) = (format!("{found:#?}"), format!("{expected:#?}"));
            let lines = similar::TextDiff::from_lines(&expected, &found);
            Some(format!("{what}:\n{}", lines.unified_diff().context_radius(3)))
        }
        sets("the configuration", &self.config, &expected.config).or_else(|| {
            self.folders.iter().find_map(|(root, found)| {
                let expected = &expected.folders[root];
                sets(&format!("the files of {root}"), &found.files, &expected.files)
                    .or_else(|| sets(&format!("the tree of {root}"), &found.tree, &expected.tree))
                    .or_else(|| sets(&format!("the revisions of {root}"), &found.revisions, &expected.revisions))
                    .or_else(|| sets(&format!("the refs of {root}"), &found.refs, &expected.refs))
                    .or_else(|| {
                        // What is missing there and matters has shown by now.
                        let left: Vec<_> = found.names.difference(&expected.names).collect();
                        (!left.is_empty()).then(|| format!("left over in the repository of {root}: {left:?}"))
                    })
            })
        })
    }
}

/// What an operation comes to when nobody interrupts it.
pub(super) struct Reference {
    pub(super) before: Before,
    pub(super) config: String,
    pub(super) outcome: Outcome,
    pub(super) exit: Option<i32>,
}

/// Everything that must hold after the operation was interrupted. `look_first`: whether foldersync is asked if all is
/// well before the operation is run again, which may finish things, too.
pub(super) fn after_interruption(
    world: &World,
    operation: &Operation,
    scene: usize,
    reference: &Reference,
    look_first: bool,
) -> Result<(), Fault> {
    nothing_is_lost(world, &reference.before)?;
    for root in operation.roots {
        sound(world, root)?;
    }
    peers_have_what_they_acknowledged(world, operation)?;
    let config = world.read("home/config.toml").unwrap_or_default();
    if config != reference.config && config != reference.outcome.config && operation.name != "bundle-create" {
        return Err(format!("the configuration is neither the old nor the new one:\n{config}"));
    }
    if look_first {
        for root in operation.roots.iter().filter(|root| is_repository(world, root)) {
            verified(world, root).map_err(|fault| format!("right after the interruption: {fault}"))?;
        }
    }
    let mut command = (operation.command)(world, scene);
    let again = finish(&mut command)?;
    let went_well = again.status.code() == Some(0) || again.status.code() == reference.exit;
    if operation.name == "init" && !went_well {
        // Git's index may be the old one after a power cut; whatever is done next with the folder mends that.
        world.run(&["--folder", "a", "commit"])?;
    }
    end_state(world, operation, reference).map_err(|fault| {
        let said = complaint(&command, &again);
        format!("run again: {said}then: {fault}")
    })?;
    // What was done entirely needs no doing, and says so.
    if !went_well && !is_done_already(operation, &again.stderr) {
        return Err(format!("run again: {}", complaint(&command, &again)));
    }
    Ok(())
}

/// Whether an operation that fails when it is repeated said that there is nothing left to do.
fn is_done_already(operation: &Operation, said: &[u8]) -> bool {
    let said = String::from_utf8_lossy(said);
    let words: &[&str] = match operation.name {
        "init" => &["is already a foldersync folder"],
        "clone" => &["is not empty", "already"],
        "resolve" => &["is not in conflict", "no conflict"],
        "decide" => &["nothing is held back"],
        "config" => &["already", "no peer", "there is no"],
        "bundle-create" => &["is there already", "exists"],
        _ => &[],
    };
    words.iter().any(|word| said.contains(word))
}

/// What must hold when the operation has come to its end.
fn end_state(world: &World, operation: &Operation, reference: &Reference) -> Result<(), Fault> {
    let outcome = Outcome::of(world, operation)?;
    if let Some(fault) = outcome.differs(&reference.outcome) {
        return Err(fault);
    }
    if operation.captures {
        all_is_captured(world, operation, &reference.before)?;
    }
    for root in operation.roots {
        verified(world, root)?;
        let applied = world.git(root, &["rev-parse", "main", "refs/foldersync/applied"])?;
        if applied.lines().collect::<BTreeSet<_>>().len() != 1 {
            return Err(format!("{root}: what was applied is not the head: {applied}"));
        }
        let status = world.git(root, &["status", "--porcelain"])?;
        if operation.captures && !status.is_empty() && operation.name != "config" {
            return Err(format!("{root}: git status says {status}"));
        }
    }
    if operation.meets {
        let heads: BTreeSet<_> =
            operation.roots.iter().map(|root| world.git(root, &["rev-parse", "main"])).collect::<Result<_, _>>()?;
        if heads.len() != 1 {
            return Err(format!("the heads differ: {heads:?}"));
        }
    }
    Ok(())
}

/// Runs the operation to its end, as nobody interrupts it, and takes down what it comes to.
pub(super) fn reference(world: &World, operation: &Operation, scene: usize) -> Result<Reference, Fault> {
    let before = before(world, operation.roots);
    let config = world.read("home/config.toml").unwrap_or_default();
    let mut command = (operation.command)(world, scene);
    let output = finish(&mut command)?;
    if !matches!(output.status.code(), Some(0 | 3)) {
        return Err(complaint(&command, &output));
    }
    let outcome = Outcome::of(world, operation)?;
    let reference = Reference { before, config, outcome, exit: output.status.code() };
    end_state(world, operation, &reference).map_err(|fault| format!("without any interruption: {fault}"))?;
    Ok(reference)
}

/// Brings what a copy of a folder cannot have up to date: the table knows inodes.
pub(super) fn refresh(world: &World, operation: &Operation) -> Result<(), Fault> {
    for root in operation.roots.iter().filter(|root| is_repository(world, root)) {
        world.run(&["--folder", root, "commit"])?;
    }
    Ok(())
}
