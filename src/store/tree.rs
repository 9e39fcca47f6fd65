//! Trees: walking them, comparing them, editing them.
//!
//! Works on objects in memory and writes through a sink that the caller brings, so that the same code computes ids
//! without writing anything. Trees come from peers: whatever is read here is taken apart with care.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use super::error::StoreError;
use super::objects::Objects;
use crate::change::{Change, Edit};
use crate::entry::{Entry, Kind};
use crate::id::{ObjectId, TreeId};
use crate::path::SyncPath;

/// The mode of a folder in a tree.
pub const TREE_MODE: u32 = 0o40_000;

/// One entry of a tree, as it lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// Git's mode.
    pub mode: u32,
    /// The name, not checked.
    pub name: &'a [u8],
    /// What it refers to.
    pub id: ObjectId,
}

impl TreeEntry<'_> {
    /// Whether it is a folder (an empty one too).
    pub const fn is_tree(&self) -> bool {
        self.mode == TREE_MODE
    }

    /// As a leaf: a file, a link or an empty folder; `None` for a folder with something in it, and for what
    /// foldersync does not keep (submodules).
    pub fn leaf(&self) -> Option<Entry> {
        let kind = Kind::from_mode(self.mode)?;
        if kind == Kind::EmptyFolder && self.id != ObjectId::from(TreeId::EMPTY) {
            return None;
        }
        Some(Entry { kind, id: self.id })
    }
}

/// The order of names in a tree: by bytes, folders as if they ended in a slash.
pub fn name_order(a: &[u8], a_is_tree: bool, b: &[u8], b_is_tree: bool) -> Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        let end = |name: &[u8], is_tree: bool| name.get(common).copied().or(is_tree.then_some(b'/'));
        end(a, a_is_tree).cmp(&end(b, b_is_tree))
    })
}

/// Walks the entries of a tree's bytes.
#[derive(Debug, Clone)]
pub struct TreeEntries<'a> {
    rest: &'a [u8],
}

/// The entries of the tree with this content.
pub const fn entries(content: &[u8]) -> TreeEntries<'_> {
    TreeEntries { rest: content }
}

impl<'a> TreeEntries<'a> {
    fn take(&mut self) -> Option<TreeEntry<'a>> {
        let space = self.rest.iter().take(8).position(|&byte| byte == b' ')?;
        let mode = self.rest[..space]
            .iter()
            .try_fold(0u32, |mode, &digit| matches!(digit, b'0'..=b'7').then(|| mode << 3 | u32::from(digit - b'0')))?;
        let rest = &self.rest[space + 1..];
        let nul = rest.iter().position(|&byte| byte == 0)?;
        let id = ObjectId::from_slice(rest.get(nul + 1..nul + 21)?)?;
        self.rest = &rest[nul + 21..];
        Some(TreeEntry { mode, name: &rest[..nul], id })
    }
}

/// The content of a tree cannot be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its entries cannot be read")]
pub struct TreeFormatError;

impl<'a> Iterator for TreeEntries<'a> {
    type Item = Result<TreeEntry<'a>, TreeFormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.take();
        if entry.is_none() {
            self.rest = &[];
        }
        Some(entry.ok_or(TreeFormatError))
    }
}

fn damaged(id: TreeId) -> impl Fn(TreeFormatError) -> StoreError {
    move |error| StoreError::damaged(format!("tree {id}"), error)
}

/// Adds one entry to a tree's content.
pub fn write_entry(content: &mut Vec<u8>, mode: u32, name: &[u8], id: &ObjectId) {
    content.extend_from_slice(format!("{mode:o} ").as_bytes());
    content.extend_from_slice(name);
    content.push(0);
    content.extend_from_slice(id.as_bytes());
}

/// The bytes of a tree with these names, all of one mode.
pub(crate) fn tree_of(mode: u32, names: &BTreeMap<Vec<u8>, ObjectId>) -> Vec<u8> {
    let mut content = Vec::with_capacity(names.len() * 70);
    for (name, id) in names {
        write_entry(&mut content, mode, name, id);
    }
    content
}

/// What stands at a path of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Nothing.
    Nothing,
    /// A file, a link or an empty folder.
    Leaf(Entry),
    /// A folder with something in it.
    Folder(TreeId),
}

impl At {
    /// The file, link or empty folder that stands there, if one does.
    pub const fn leaf(self) -> Option<Entry> {
        match self {
            Self::Leaf(entry) => Some(entry),
            Self::Nothing | Self::Folder(_) => None,
        }
    }
}

/// What stands at `path` in the tree `root`.
pub fn lookup(objects: &Objects, root: TreeId, path: &SyncPath) -> Result<At, StoreError> {
    let mut at = At::Folder(root);
    let mut content = Vec::new();
    for name in path.names() {
        let At::Folder(tree) = at else { return Ok(At::Nothing) };
        objects.tree(tree, &mut content)?;
        at = At::Nothing;
        for entry in entries(&content) {
            let entry = entry.map_err(damaged(tree))?;
            if entry.name == name {
                at = match entry.leaf() {
                    Some(leaf) => At::Leaf(leaf),
                    None if entry.is_tree() => At::Folder(entry.id.as_tree()),
                    None => At::Nothing,
                };
                break;
            }
        }
    }
    Ok(at)
}

/// What stands at each of these paths, which must be sorted, in the tree `root`. Each folder is read once.
pub fn lookup_many(objects: &Objects, root: TreeId, paths: &[&SyncPath]) -> Result<Vec<At>, StoreError> {
    debug_assert!(paths.is_sorted(), "paths are sorted");
    let mut found = vec![At::Nothing; paths.len()];
    let wanted: Vec<Wanted<'_>> = paths.iter().map(|path| path.as_bytes()).enumerate().collect();
    lookup_at(objects, root, &wanted, &mut found)?;
    Ok(found)
}

/// A path that is looked for, below the tree at hand, and where its answer goes.
type Wanted<'a> = (usize, &'a [u8]);

fn lookup_at(objects: &Objects, tree: TreeId, wanted: &[Wanted<'_>], found: &mut [At]) -> Result<(), StoreError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut content = Vec::new();
    objects.tree(tree, &mut content)?;
    let mut by_name: HashMap<&[u8], TreeEntry<'_>> = HashMap::new();
    for entry in entries(&content) {
        let entry = entry.map_err(damaged(tree))?;
        by_name.insert(entry.name, entry);
    }
    // Paths below one folder need not stand together (`a/b`, `a-b`, `a/c` sort otherwise), so they are gathered.
    let mut below: Vec<(TreeId, Vec<Wanted<'_>>)> = Vec::new();
    let mut folders: HashMap<&[u8], usize> = HashMap::new();
    for &(at, path) in wanted {
        let end = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
        let Some(entry) = by_name.get(&path[..end]) else { continue };
        let folder = (entry.is_tree() && entry.leaf().is_none()).then(|| entry.id.as_tree());
        if end == path.len() {
            found[at] = match (entry.leaf(), folder) {
                (Some(leaf), _) => At::Leaf(leaf),
                (None, Some(folder)) => At::Folder(folder),
                (None, None) => At::Nothing,
            };
        } else if let Some(folder) = folder {
            let slot = *folders.entry(&path[..end]).or_insert_with(|| {
                below.push((folder, Vec::new()));
                below.len() - 1
            });
            below[slot].1.push((at, &path[end + 1..]));
        }
    }
    below.into_iter().try_for_each(|(folder, wanted)| lookup_at(objects, folder, &wanted, found))
}

/// Every leaf that differs between two trees (`None`: nothing at all), once, in the order of paths as trees have it. A
/// folder that gets its first file is no longer an empty folder: both are told, the empty folder first. Names that
/// git forbids are told as damage; submodules, which foldersync does not keep, are passed over.
pub fn diff(
    objects: &Objects,
    old: Option<TreeId>,
    new: Option<TreeId>,
    tell: &mut dyn FnMut(Change) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if old == new {
        return Ok(());
    }
    let mut told = 0;
    let mut tell = |change: Change| {
        told += change.path.as_bytes().len() + CHANGE;
        if told > MAX_TOLD {
            return Err(StoreError::Hostile {
                what: format!("tree {}", new.or(old).unwrap_or(TreeId::EMPTY)),
                detail: "it has more files than can be worked with, most of them the same".to_owned(),
            });
        }
        tell(change)
    };
    diff_at(objects, &mut Vec::new(), old, new, &mut tell)
}

/// The leaves of a tree, in order.
pub fn leaves(
    objects: &Objects,
    root: TreeId,
    tell: &mut dyn FnMut(SyncPath, Entry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    diff(objects, None, Some(root), &mut |change| match change.new {
        Some(entry) => tell(change.path, entry),
        None => Ok(()),
    })
}

/// How deep folders may lie in each other; far beyond what any file system opens by path.
const MAX_DEPTH: usize = 2048;
/// What may be told of two trees, in bytes that whoever keeps all of it needs: some trees that name each other many times
/// make billions of files. There is room for millions of true ones.
const MAX_TOLD: usize = if cfg!(test) { 64 << 20 } else { 1 << 30 };
/// The bytes of a change besides its path.
const CHANGE: usize = 128;

fn diff_at(
    objects: &Objects,
    prefix: &mut Vec<u8>,
    old: Option<TreeId>,
    new: Option<TreeId>,
    tell: &mut dyn FnMut(Change) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let this = new.or(old).unwrap_or(TreeId::EMPTY);
    if prefix.len() > MAX_DEPTH * 2 && prefix.split(|&byte| byte == b'/').count() > MAX_DEPTH {
        let (what, detail) = (format!("tree {this}"), "folders lie too deep in each other".to_owned());
        return Err(StoreError::Hostile { what, detail });
    }
    let (mut old_content, mut new_content) = (Vec::new(), Vec::new());
    if let Some(old) = old {
        objects.tree(old, &mut old_content)?;
    }
    if let Some(new) = new {
        objects.tree(new, &mut new_content)?;
    }
    let mut olds = entries(&old_content).peekable();
    let mut news = entries(&new_content).peekable();
    // Names at which a file and an empty folder changed places: told with the file.
    let mut switched: Vec<&[u8]> = Vec::new();
    loop {
        let take = |entry: Option<&Result<TreeEntry<'_>, TreeFormatError>>| match entry {
            Some(Err(error)) => Err(damaged(this)(*error)),
            _ => Ok(()),
        };
        take(olds.peek())?;
        take(news.peek())?;
        let order = match (olds.peek(), news.peek()) {
            (Some(Ok(a)), Some(Ok(b))) => name_order(a.name, a.is_tree(), b.name, b.is_tree()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            _ => return Ok(()),
        };
        let a = if order.is_le() { olds.next().transpose().map_err(damaged(this))? } else { None };
        let b = if order.is_ge() { news.next().transpose().map_err(damaged(this))? } else { None };
        if let (Some(a), Some(b)) = (a, b)
            && a.mode == b.mode
            && a.id == b.id
        {
            continue;
        }
        let Some(name) = a.or(b).map(|entry| entry.name) else { return Ok(()) };
        let length = prefix.len();
        if length > 0 {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(name);
        let (mut old_leaf, mut new_leaf) = (a.and_then(|a| a.leaf()), b.and_then(|b| b.leaf()));
        // A file and an empty folder of the same name are one path, though they do not stand at the same place.
        let told = a.xor(b).is_some_and(|entry| entry.is_tree() && switched.contains(&entry.name));
        if let (Some(file), None) = (a, b)
            && !file.is_tree()
            && let Some(twin) = empty_folder_ahead(news.clone(), file.name)
        {
            new_leaf = Some(twin);
            switched.push(file.name);
        } else if let (None, Some(file)) = (a, b)
            && !file.is_tree()
            && let Some(twin) = empty_folder_ahead(olds.clone(), file.name)
        {
            old_leaf = Some(twin);
            switched.push(file.name);
        }
        if old_leaf != new_leaf && !told {
            let path = SyncPath::new(&prefix[..]).map_err(|error| {
                StoreError::damaged(format!("tree {this}"), format!("{}: {error}", crate::path::quote(prefix)))
            })?;
            tell(Change { path, old: old_leaf, new: new_leaf })?;
        }
        let folder = |entry: Option<TreeEntry<'_>>, leaf: Option<Entry>| {
            entry.filter(|entry| entry.is_tree() && leaf.is_none()).map(|entry| entry.id.as_tree())
        };
        let (old_folder, new_folder) = (folder(a, old_leaf), folder(b, new_leaf));
        if old_folder != new_folder {
            diff_at(objects, prefix, old_folder, new_folder, tell)?;
        }
        prefix.truncate(length);
    }
}

/// The empty folder `name` among the entries ahead, which are past the place of a file of that name.
fn empty_folder_ahead<'a>(
    ahead: impl Iterator<Item = Result<TreeEntry<'a>, TreeFormatError>>,
    name: &[u8],
) -> Option<Entry> {
    ahead
        .map_while(Result::ok)
        .take_while(|entry| name_order(entry.name, entry.is_tree(), name, true).is_le())
        .find(|entry| entry.name == name)
        .and_then(|entry| entry.leaf())
        .filter(|leaf| leaf.kind == Kind::EmptyFolder)
}

/// The tree that `base` becomes by `edits`, which must be sorted by path, one a path. New trees go to `sink`,
/// innermost first, which answers with their ids.
///
/// A removal removes the folders that it leaves with nothing in them. Something put below a file takes the file's
/// place. An empty folder put where a folder has something in it changes nothing.
pub fn edit(
    objects: &Objects,
    base: TreeId,
    edits: &[Edit],
    sink: &mut dyn FnMut(&[u8]) -> Result<TreeId, StoreError>,
) -> Result<TreeId, StoreError> {
    debug_assert!(edits.is_sorted_by(|a, b| a.path < b.path), "edits are sorted by path");
    let edits: Vec<_> = edits.iter().map(|edit| (edit.path.as_bytes(), edit.entry)).collect();
    Ok(edit_at(objects, Some(base), &edits, sink)?.unwrap_or(TreeId::EMPTY))
}

/// The edits of one name in a folder: of what stands there itself, and of what is below it.
type OfOneName<'a> = (Option<Option<Entry>>, Vec<(&'a [u8], Option<Entry>)>);

fn edit_at(
    objects: &Objects,
    base: Option<TreeId>,
    edits: &[(&[u8], Option<Entry>)],
    sink: &mut dyn FnMut(&[u8]) -> Result<TreeId, StoreError>,
) -> Result<Option<TreeId>, StoreError> {
    let mut content = Vec::new();
    if let Some(base) = base {
        objects.tree(base, &mut content)?;
    }
    let mut state: BTreeMap<&[u8], (u32, ObjectId)> = BTreeMap::new();
    for entry in entries(&content) {
        let entry = entry.map_err(damaged(base.unwrap_or(TreeId::EMPTY)))?;
        state.insert(entry.name, (entry.mode, entry.id));
    }
    let first = |path: &'_ [u8]| path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
    // Edits of one name need not stand together (`a`, `a-b`, `a/c`), so they are gathered first.
    let mut by_name: BTreeMap<&[u8], OfOneName<'_>> = BTreeMap::new();
    for &(path, entry) in edits {
        let end = first(path);
        let slot = by_name.entry(&path[..end]).or_default();
        if end == path.len() {
            slot.0 = Some(entry);
        } else {
            slot.1.push((&path[end + 1..], entry));
        }
    }
    for (name, (own, below)) in by_name {
        let folder = |state: &BTreeMap<&[u8], (u32, ObjectId)>| {
            state.get(name).filter(|(mode, _)| *mode == TREE_MODE).map(|(_, id)| id.as_tree())
        };
        match own {
            Some(None) if folder(&state).is_none_or(|tree| tree == TreeId::EMPTY) => {
                state.remove(name);
            }
            Some(Some(entry)) if entry.kind != Kind::EmptyFolder || folder(&state).is_none() => {
                state.insert(name, (entry.kind.mode(), entry.id));
            }
            _ => {}
        }
        if !below.is_empty() {
            let before = folder(&state);
            match edit_at(objects, before, &below, sink)? {
                Some(tree) => {
                    state.insert(name, (TREE_MODE, tree.into()));
                }
                // Nothing is left below: the folder goes, unless it is to stay as an empty one.
                None if before.is_some() => {
                    if let Some(Some(entry)) = own {
                        state.insert(name, (entry.kind.mode(), entry.id));
                    } else {
                        state.remove(name);
                    }
                }
                None => {}
            }
        }
    }
    if state.is_empty() {
        return Ok(None);
    }
    let mut sorted: Vec<_> = state.into_iter().collect();
    sorted.sort_by(|(a, (a_mode, _)), (b, (b_mode, _))| name_order(a, *a_mode == TREE_MODE, b, *b_mode == TREE_MODE));
    let mut edited = Vec::with_capacity(content.len() + 64);
    for (name, (mode, id)) in sorted {
        write_entry(&mut edited, mode, name, &id);
    }
    if edited == content
        && let Some(base) = base
    {
        return Ok(Some(base));
    }
    sink(&edited).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    /// A repository with the trees of these, each a list of paths; a path that ends in a slash is an empty folder.
    fn trees(dir: &Path, lists: &[&[&str]]) -> (Objects, Vec<TreeId>) {
        assert!(Command::new("git").args(["init", "-q"]).arg(dir).status().expect("git").success());
        let objects = Objects::open(&dir.join(".git/objects")).expect("objects");
        let mut sink = |content: &[u8]| -> Result<TreeId, StoreError> { Ok(written(dir, content)) };
        let trees = lists
            .iter()
            .map(|list| {
                let mut edits: Vec<Edit> = list
                    .iter()
                    .map(|path| {
                        if let Some(path) = path.strip_suffix('/') {
                            Edit { path: SyncPath::new(path).expect("valid"), entry: Some(Entry::EMPTY_FOLDER) }
                        } else {
                            let id = crate::store::object_id(crate::store::ObjectKind::Blob, b"x");
                            Edit {
                                path: SyncPath::new(*path).expect("valid"),
                                entry: Some(Entry { kind: Kind::File, id }),
                            }
                        }
                    })
                    .collect();
                edits.sort();
                edit(&objects, TreeId::EMPTY, &edits, &mut sink).expect("edit")
            })
            .collect();
        (objects, trees)
    }

    fn written(dir: &Path, tree: &[u8]) -> TreeId {
        let file = dir.join("tree");
        std::fs::write(&file, tree).expect("write");
        let mut git = Command::new("git");
        git.args(["hash-object", "-w", "-t", "tree", "--literally"]).arg(&file).current_dir(dir);
        let id = String::from_utf8(git.output().expect("git").stdout).expect("text");
        id.trim().parse().expect("an id")
    }

    #[test]
    fn a_few_trees_that_make_billions_of_files_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let (objects, trees) = trees(dir.path(), &[&["f"]]);
        let bomb = (0..10).fold(trees[0], |inner, _| {
            let mut content = Vec::new();
            (b'a'..b'q').for_each(|name| write_entry(&mut content, TREE_MODE, &[name], &inner.into()));
            written(dir.path(), &content)
        });
        let mut told = 0_usize;
        let error = leaves(&objects, bomb, &mut |_, _| {
            told += 1;
            Ok(())
        });
        assert!(matches!(error, Err(StoreError::Hostile { .. })), "{error:?}");
        assert!(told > 100_000, "there is room for true ones");
        leaves(&objects, trees[0], &mut |_, _| Ok(())).expect("one file");
    }

    fn told(old: &[&str], new: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a folder");
        let (objects, trees) = trees(dir.path(), &[old, new]);
        let mut told = Vec::new();
        diff(&objects, Some(trees[0]), Some(trees[1]), &mut |change| {
            let word = |entry: Option<Entry>| entry.map_or("nothing".to_owned(), |entry| format!("{:?}", entry.kind));
            told.push(format!("{}: {} -> {}", change.path, word(change.old), word(change.new)));
            Ok(())
        })
        .expect("diff");
        told
    }

    #[test]
    fn a_file_and_an_empty_folder_that_change_places_are_one_change() {
        assert_eq!(told(&["x", "x.txt"], &["x.txt", "x/"]), ["x: File -> EmptyFolder"]);
        assert_eq!(told(&["x-y", "x.txt", "x/"], &["x", "x-y"]), ["x: EmptyFolder -> File", "x.txt: File -> nothing"]);
    }

    #[test]
    fn a_file_and_a_folder_that_change_places_are_told_path_by_path() {
        assert_eq!(told(&["x"], &["x/y"]), ["x: File -> nothing", "x/y: nothing -> File"]);
        assert_eq!(told(&["x/"], &["x/y"]), ["x: EmptyFolder -> nothing", "x/y: nothing -> File"]);
    }

    #[test]
    fn looks_up_many_paths_at_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let (objects, trees) = trees(dir.path(), &[&["a/b", "a-b", "a/c/d", "e/"]]);
        let paths: Vec<SyncPath> = ["a", "a-b", "a/b", "a/c/d", "a/none", "e", "e/f", "z"]
            .map(|path| SyncPath::new(path).expect("valid"))
            .into();
        let many = lookup_many(&objects, trees[0], &paths.iter().collect::<Vec<_>>()).expect("lookup");
        for (path, at) in paths.iter().zip(many) {
            assert_eq!(at, lookup(&objects, trees[0], path).expect("lookup"), "{path}");
        }
    }
}
