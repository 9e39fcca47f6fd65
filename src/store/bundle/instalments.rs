//! Instalments: what a large commit brings, sent ahead of it, so that a cut in the middle does not cost all of it.
//!
//! An instalment is a bundle like any other. Its one commit is made for the purpose and for nobody's history: its tree
//! names contents of the large commit by their ids, it follows the instalment before it, and the first follows what the
//! large commit follows. The same contents make the same commits, so whoever sends needs to keep nothing: it makes them
//! again, and sees from the ids that the other side has which ones it need not send. The large commit's own bundle has
//! the last instalment among its prerequisites, and lacks what they brought.

use std::collections::HashSet;

use super::{Base, BundleHeader, Cut, HEADER_LEN, Item, Source, TIP_REF, TRAILER_LEN};
use crate::entry::Kind;
use crate::id::{CommitId, ObjectId};
use crate::store::commit::{Commit, Signature};
use crate::store::objects::{ObjectKind, object_id};
use crate::store::tree::tree_of;

/// What goes ahead of a commit.
pub(super) struct Ahead {
    /// Those that are still to be sent.
    rest: std::vec::IntoIter<Cut>,
    /// The last one, sent or not.
    last: CommitId,
    /// What all of them bring.
    brought: HashSet<ObjectId>,
}

impl Ahead {
    /// Puts the contents among the `items` of a commit into instalments of at least `bytes` each; what is left for the
    /// commit's own bundle is less than that. `None` if it is all. `received` tells which ones the other side has.
    pub(super) fn of(
        commit: CommitId,
        parents: &[CommitId],
        items: Vec<Item>,
        bytes: u64,
        received: &HashSet<CommitId>,
    ) -> Option<Self> {
        let mut brought = HashSet::new();
        let mut cuts: Vec<Cut> = Vec::new();
        let (mut contents, mut size) = (Vec::new(), 0);
        for item in items {
            if !matches!(item.base, Base::Whole(ObjectKind::Blob)) {
                continue;
            }
            size += item.bytes;
            contents.push(item);
            if size >= bytes {
                let parents = cuts.last().map_or(parents.to_vec(), |last| vec![last.header.tip()]);
                brought.extend(contents.iter().map(|item| item.id));
                cuts.push(instalment(commit, parents, std::mem::take(&mut contents), size));
                size = 0;
            }
        }
        let last = cuts.last()?.header.tip();
        let had = cuts.iter().rposition(|cut| received.contains(&cut.header.tip())).map_or(0, |at| at + 1);
        drop(cuts.drain(..had));
        Some(Self { rest: cuts.into_iter(), last, brought })
    }

    /// The next one to send.
    pub(super) fn next(&mut self) -> Option<Cut> {
        self.rest.next()
    }

    /// What the large commit's own bundle builds on, and what the receiver has by it.
    pub(super) fn sent(self) -> (CommitId, HashSet<ObjectId>) {
        (self.last, self.brought)
    }
}

/// The instalment of `commit` with these contents, of so many bytes.
fn instalment(commit: CommitId, parents: Vec<CommitId>, mut items: Vec<Item>, bytes: u64) -> Cut {
    let names = items.iter().map(|item| (item.id.to_string().into_bytes(), item.id)).collect();
    let tree = tree_of(Kind::File.mode(), &names);
    let tree_id = object_id(ObjectKind::Tree, &tree);
    let who = Signature { name: "foldersync".to_owned(), email: "instalment@foldersync".to_owned(), time: 0 };
    let message = format!("Contents of {commit}, ahead of it\n").into_bytes();
    let prerequisites = parents.clone();
    let made = Commit { tree: tree_id.as_tree(), parents, author: who.clone(), committer: who, message }.to_bytes();
    let id = object_id(ObjectKind::Commit, &made);
    let bytes = bytes + HEADER_LEN + TRAILER_LEN + (tree.len() + made.len() + 80) as u64;
    for (id, kind, content) in [(tree_id, ObjectKind::Tree, tree), (id, ObjectKind::Commit, made)] {
        let bytes = content.len() as u64;
        items.push(Item { id, base: Base::Whole(kind), source: Source::Made(content), chain: 0, bytes });
    }
    let header = BundleHeader { prerequisites, refs: vec![(TIP_REF.to_owned(), id.as_commit())] };
    Cut { header, items, commits: 0, bytes }
}
