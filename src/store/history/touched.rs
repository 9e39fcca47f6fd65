//! Which paths a commit touches: those where its tree differs from the tree of every parent.
//!
//! Trees are the truth here, never messages. What equals one parent's, a whole folder at a time, is not looked into, so
//! a merge costs what its parents differ in, and an ordinary commit the folders above its file. Along a chain each tree
//! is wanted twice, as the new and then as the old one: the bytes of the last trees are kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use crate::entry::Entry;
use crate::id::TreeId;
use crate::path::check_name;
use crate::store::error::StoreError;
use crate::store::objects::Objects;
use crate::store::tree::{TreeEntries, TreeEntry, entries, name_order};

/// Keeps what was used last, within a budget: two generations, of which the older is dropped whole.
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    cost: usize,
    budget: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    /// A cache that keeps things of up to twice this cost.
    pub(super) fn new(budget: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), cost: 0, budget }
    }

    /// What is kept for `key`.
    pub(super) fn get(&mut self, key: &K, cost: impl Fn(&V) -> usize) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.put(key.clone(), value.clone(), cost(&value));
        Some(value)
    }

    /// Keeps `value`, which costs so much.
    pub(super) fn put(&mut self, key: K, value: V, cost: usize) {
        if self.cost + cost > self.budget {
            self.old = std::mem::take(&mut self.young);
            self.cost = 0;
        }
        self.cost += cost;
        self.young.insert(key, value);
    }
}

/// Trees, with the bytes of those used last.
pub(super) struct Trees<'a> {
    objects: &'a Objects,
    recent: Recent<TreeId, Rc<[u8]>>,
    buffer: Vec<u8>,
}

/// Bytes of trees that are kept (twice that at most).
const TREE_BUDGET: usize = 8 << 20;

impl<'a> Trees<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        Self { objects, recent: Recent::new(TREE_BUDGET), buffer: Vec::new() }
    }

    fn content(&mut self, id: Option<TreeId>) -> Result<Rc<[u8]>, StoreError> {
        let Some(id) = id.filter(|&id| id != TreeId::EMPTY) else { return Ok(Rc::default()) };
        if let Some(content) = self.recent.get(&id, |content| content.len()) {
            return Ok(content);
        }
        self.objects.tree(id, &mut self.buffer)?;
        let content: Rc<[u8]> = Rc::from(self.buffer.as_slice());
        self.recent.put(id, Rc::clone(&content), content.len());
        Ok(content)
    }

    /// Tells every path where `new` differs from each of `olds` (none of them: from nothing at all), with what the
    /// first of them and `new` have there. Names that no folder can hold, which somebody's own commit may have, are
    /// passed over: nobody can ask for them.
    pub(super) fn touched(&mut self, new: TreeId, olds: &[TreeId], tell: Tell<'_>) -> Result<(), StoreError> {
        if olds.contains(&new) {
            return Ok(());
        }
        let nothing = [None];
        let some: Vec<_> = olds.iter().copied().map(Some).collect();
        let olds = if olds.is_empty() { &nothing[..] } else { &some[..] };
        self.level(&mut Vec::new(), 0, Some(new), olds, tell)
    }

    fn level(
        &mut self,
        prefix: &mut Vec<u8>,
        depth: usize,
        new: Option<TreeId>,
        olds: &[Option<TreeId>],
        tell: Tell<'_>,
    ) -> Result<(), StoreError> {
        let damaged = |detail: &str| {
            let tree = new.or(olds.iter().copied().flatten().next()).unwrap_or(TreeId::EMPTY);
            StoreError::damaged(format!("tree {tree}"), detail)
        };
        if depth > MAX_DEPTH {
            return Ok(()); // No folder can hold it, and nobody can ask for it.
        }
        let contents = std::iter::once(&new).chain(olds).map(|&id| self.content(id)).collect::<Result<Vec<_>, _>>()?;
        let differing = differing(&contents).map_err(|_| damaged("its entries cannot be read"))?;
        for Differing { name, sides } in differing {
            if check_name(name).is_err() {
                continue;
            }
            let length = prefix.len();
            if length > 0 {
                prefix.push(b'/');
            }
            prefix.extend_from_slice(name);
            let leaf = |side: &Option<TreeEntry<'_>>| side.and_then(|entry| entry.leaf());
            let (new_leaf, old_leaf) = (leaf(&sides[0]), leaf(&sides[1]));
            if sides[1..].iter().all(|side| leaf(side) != new_leaf) {
                tell(prefix, old_leaf, new_leaf)?;
            }
            let folder = |side: &Option<TreeEntry<'_>>| {
                side.filter(|entry| entry.is_tree() && entry.leaf().is_none()).map(|entry| entry.id.as_tree())
            };
            let (new_folder, old_folders): (_, Vec<_>) = (folder(&sides[0]), sides[1..].iter().map(folder).collect());
            if !old_folders.contains(&new_folder) {
                self.level(prefix, depth + 1, new_folder, &old_folders, tell)?;
            }
            prefix.truncate(length);
        }
        Ok(())
    }
}

/// Hears of a path, of what the first old tree and the new tree have there.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&[u8], Option<Entry>, Option<Entry>) -> Result<(), StoreError>;

/// How deep folders may lie in each other; far beyond what any file system opens by path.
const MAX_DEPTH: usize = 2048;

/// A name that the new tree (side 0) does not have just as one of the old ones.
struct Differing<'a> {
    name: &'a [u8],
    sides: Vec<Option<TreeEntry<'a>>>,
}

fn differing<'a>(contents: &'a [Rc<[u8]>]) -> Result<Vec<Differing<'a>>, crate::store::tree::TreeFormatError> {
    let contents: Vec<&[u8]> = match contents {
        [new, old] => differing_part(new, old).into(),
        _ => contents.iter().map(|content| &content[..]).collect(),
    };
    let mut walks: Vec<TreeEntries<'a>> = contents.into_iter().map(entries).collect();
    let mut heads: Vec<Option<TreeEntry<'a>>> =
        walks.iter_mut().map(|walk| walk.next().transpose()).collect::<Result<_, _>>()?;
    let mut found: Vec<Differing<'a>> = Vec::new();
    let order = |a: &TreeEntry<'_>, b: &TreeEntry<'_>| name_order(a.name, a.is_tree(), b.name, b.is_tree());
    while let Some(least) = heads.iter().flatten().copied().min_by(order) {
        let here = |head: &Option<TreeEntry<'a>>| head.filter(|head| order(head, &least).is_eq());
        let same = |head: &Option<TreeEntry<'a>>| {
            here(head).is_some_and(|head| here(&heads[0]).is_some_and(|new| (new.mode, new.id) == (head.mode, head.id)))
        };
        if !heads[1..].iter().any(same) {
            found.push(Differing { name: least.name, sides: heads.iter().map(here).collect() });
        }
        for (head, walk) in heads.iter_mut().zip(&mut walks) {
            if here(head).is_some() {
                *head = walk.next().transpose()?;
            }
        }
    }
    // A file and a folder of one name stand apart in the order of trees, and are one path.
    found.sort_by_key(|differing| differing.name);
    found.dedup_by(|second, first| {
        let same = second.name == first.name;
        if same {
            first.sides.iter_mut().zip(&second.sides).for_each(|(first, second)| *first = first.or(*second));
        }
        same
    });
    Ok(found)
}

/// Two trees without the entries that both begin with, and, where no more than one entry was put in, taken out or
/// changed, without those that both end in: in a folder of many files, nearly all of it.
fn differing_part<'a>(new: &'a [u8], old: &'a [u8]) -> [&'a [u8]; 2] {
    const BLOCK: usize = 256;
    let blocks = new.chunks_exact(BLOCK).zip(old.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    let same = blocks + new[blocks..].iter().zip(&old[blocks..]).take_while(|(a, b)| a == b).count();
    // Where an entry ends cannot be told from behind, since ids are any bytes.
    let end = |tree: &[u8], from: usize| {
        let name_end = tree.get(from..)?.iter().position(|&byte| byte == 0)?;
        Some(from + name_end + 21).filter(|&end| end <= tree.len())
    };
    let mut from = 0;
    while let Some(next) = end(new, from).filter(|&next| next <= same) {
        from = next;
    }
    let (new_end, old_end) = (end(new, from).unwrap_or(new.len()), end(old, from).unwrap_or(old.len()));
    for (new_end, old_end) in [(new_end, old_end), (new_end, from), (from, old_end)] {
        if new[new_end..] == old[old_end..] {
            return [&new[from..new_end], &old[from..old_end]];
        }
    }
    [&new[from..], &old[from..]]
}
