//! A set of object ids that lie elsewhere, in four bytes each.
//!
//! Packs have millions of entries, each with its id in a list already; a hash map would keep every id once more.

use std::hash::{BuildHasher, RandomState};

use crate::id::ObjectId;

const FREE: u32 = u32::MAX;

/// Maps ids to their positions in a list that the caller keeps.
#[derive(Debug)]
pub struct IdTable {
    slots: Vec<u32>,
    len: usize,
    /// Odd and secret: ids that a peer picks do not fall into the same slots.
    factor: u64,
}

impl Default for IdTable {
    fn default() -> Self {
        Self { slots: Vec::new(), len: 0, factor: RandomState::new().hash_one(0) | 1 }
    }
}

impl IdTable {
    fn slot(&self, id: &ObjectId) -> usize {
        let mut word = [0; 8];
        word.copy_from_slice(&id.as_bytes()[..8]);
        let hash = u64::from_le_bytes(word).wrapping_mul(self.factor);
        #[expect(clippy::cast_possible_truncation, reason = "as many high bits as there are slots")]
        let slot = (hash >> (64 - self.slots.len().trailing_zeros())) as usize;
        slot
    }

    /// The position of `id`; `id_at` tells the id at a position.
    pub fn get(&self, id: &ObjectId, id_at: impl Fn(u32) -> ObjectId) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.slot(id);
        loop {
            match self.slots[slot] {
                FREE => return None,
                position if id_at(position) == *id => return Some(position),
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    /// Adds `id`, which must not be there, at `position`.
    pub fn insert(&mut self, id: &ObjectId, position: u32, id_at: impl Fn(u32) -> ObjectId) {
        if (self.len + 1) * 3 > self.slots.len() * 2 {
            let larger = vec![FREE; (self.slots.len() * 2).max(64)];
            for position in std::mem::replace(&mut self.slots, larger) {
                if position != FREE {
                    self.place(&id_at(position), position);
                }
            }
        }
        self.len += 1;
        self.place(id, position);
    }

    fn place(&mut self, id: &ObjectId, position: u32) {
        let mut slot = self.slot(id);
        while self.slots[slot] != FREE {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in() {
        let ids: Vec<_> =
            (0u32..5000).map(|n| crate::store::object_id(crate::store::ObjectKind::Blob, &n.to_le_bytes())).collect();
        let id_at = |position: u32| ids[position as usize];
        let mut table = IdTable::default();
        for (position, id) in (0u32..).zip(&ids[..4000]) {
            assert_eq!(table.get(id, id_at), None);
            table.insert(id, position, id_at);
        }
        for (position, id) in (0u32..).zip(&ids) {
            assert_eq!(table.get(id, id_at), (position < 4000).then_some(position));
        }
    }
}
