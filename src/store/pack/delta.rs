//! Deltas: an object told as copies from another and new bytes.
//!
//! The encoder here knows trees: it walks the entries of both and never searches ([`super::likeness`] is for contents).
//! The decoder takes bytes from peers: it
//! allocates nothing before the declared size has been compared with the caller's limit, and reads nothing outside.

use std::cmp::Ordering;

use crate::id::ObjectId;
use crate::store::tree::{TreeEntry, name_order};

/// The longest copy that one instruction tells.
const MAX_COPY: usize = 0xff_ffff;
/// The most new bytes that one instruction brings.
const MAX_INSERT: usize = 0x7f;
/// A copy that stands alone and is shorter is told as new bytes: its instruction would be as long.
const MIN_COPY: usize = 8;

/// Why a delta cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// An instruction is cut off, or is none.
    #[error("its instructions make no sense")]
    Instruction,
    /// It is meant for another base, or reads outside of it.
    #[error("it does not fit its base")]
    Base,
    /// It makes more or fewer bytes than it declares.
    #[error("it does not make as many bytes as it declares")]
    Size,
    /// What it makes is larger than allowed.
    #[error("what it makes is larger than allowed")]
    TooLarge,
}

fn read_size(bytes: &mut &[u8]) -> Result<u64, DeltaError> {
    let (mut size, mut shift) = (0u64, 0);
    loop {
        let (&byte, rest) = bytes.split_first().ok_or(DeltaError::Instruction)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift > 63 || bits << shift >> shift != bits {
            return Err(DeltaError::Instruction);
        }
        size |= bits << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Ok(size);
        }
    }
}

fn write_size(out: &mut Vec<u8>, mut size: usize) {
    while size > 0x7f {
        out.push(0x80 | size.to_le_bytes()[0]);
        size >>= 7;
    }
    out.push(size.to_le_bytes()[0]);
}

/// The bytes of the object that `delta` makes, if it can be told.
pub fn result_size(mut delta: &[u8]) -> Result<u64, DeltaError> {
    read_size(&mut delta)?;
    read_size(&mut delta)
}

/// Applies `delta` to `base`; what it makes may have up to `limit` bytes.
pub fn apply(base: &[u8], mut delta: &[u8], limit: usize) -> Result<Vec<u8>, DeltaError> {
    if read_size(&mut delta)? != base.len() as u64 {
        return Err(DeltaError::Base);
    }
    let size = usize::try_from(read_size(&mut delta)?).map_err(|_| DeltaError::TooLarge)?;
    if size > limit {
        return Err(DeltaError::TooLarge);
    }
    let mut out = Vec::with_capacity(size);
    while let Some((&instruction, rest)) = delta.split_first() {
        delta = rest;
        let piece = if instruction & 0x80 != 0 {
            let (mut offset, mut len) = (0usize, 0usize);
            for (bit, field, shift) in [(0, 0, 0), (1, 0, 8), (2, 0, 16), (3, 0, 24), (4, 1, 0), (5, 1, 8), (6, 1, 16)]
            {
                if instruction >> bit & 1 != 0 {
                    let (&byte, rest) = delta.split_first().ok_or(DeltaError::Instruction)?;
                    delta = rest;
                    *(if field == 0 { &mut offset } else { &mut len }) |= usize::from(byte) << shift;
                }
            }
            let len = if len == 0 { 0x1_0000 } else { len };
            base.get(offset..offset.checked_add(len).ok_or(DeltaError::Base)?).ok_or(DeltaError::Base)?
        } else if instruction > 0 {
            let (piece, rest) = delta.split_at_checked(usize::from(instruction)).ok_or(DeltaError::Instruction)?;
            delta = rest;
            piece
        } else {
            return Err(DeltaError::Instruction);
        };
        if piece.len() > size - out.len() {
            return Err(DeltaError::Size);
        }
        out.extend_from_slice(piece);
    }
    if out.len() == size { Ok(out) } else { Err(DeltaError::Size) }
}

/// Writes a delta, joining what lies together.
pub(super) struct Writer {
    out: Vec<u8>,
    copy: (usize, usize),
    literal: Vec<u8>,
}

impl Writer {
    pub(super) fn new(base_len: usize, new_len: usize) -> Self {
        let mut out = Vec::with_capacity(64);
        write_size(&mut out, base_len);
        write_size(&mut out, new_len);
        Self { out, copy: (0, 0), literal: Vec::new() }
    }

    pub(super) fn copy(&mut self, base: &[u8], offset: usize, len: usize) {
        if len == 0 {
            return;
        }
        if self.literal.is_empty() && self.copy.0 + self.copy.1 == offset {
            self.copy.1 += len;
        } else if len < MIN_COPY {
            self.insert(&base[offset..offset + len]);
        } else {
            self.flush();
            self.copy = (offset, len);
        }
    }

    pub(super) fn insert(&mut self, bytes: &[u8]) {
        if self.copy.1 > 0 {
            self.flush();
        }
        self.literal.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        let (mut offset, mut len) = std::mem::take(&mut self.copy);
        while len > 0 {
            let now = len.min(MAX_COPY);
            let at = self.out.len();
            self.out.push(0x80);
            for (bit, byte) in (0..4).zip(offset.to_le_bytes()).chain((4..7).zip(now.to_le_bytes())) {
                if byte != 0 {
                    self.out[at] |= 1 << bit;
                    self.out.push(byte);
                }
            }
            offset += now;
            len -= now;
        }
        for piece in self.literal.chunks(MAX_INSERT) {
            self.out.push(u8::try_from(piece.len()).expect("no longer than MAX_INSERT"));
            self.out.extend_from_slice(piece);
        }
        self.literal.clear();
    }

    /// The bytes of the delta so far, at most.
    pub(super) fn len(&self) -> usize {
        let copies = (self.copy.1.div_ceil(MAX_COPY)) * 8;
        self.out.len() + copies + self.literal.len() + self.literal.len().div_ceil(MAX_INSERT)
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.flush();
        self.out
    }
}

/// The delta for one splice: at `at`, `removed` bytes of a base of `base_len` bytes give way to `inserted`.
pub fn splice(base_len: usize, at: usize, removed: usize, inserted: &[u8]) -> Vec<u8> {
    let mut delta = Writer::new(base_len, base_len - removed + inserted.len());
    delta.copy(&[], 0, at);
    // Not a copy of fewer than `MIN_COPY` bytes: they would be wanted as bytes.
    delta.insert(inserted);
    let after = at + removed;
    if after < base_len {
        delta.flush();
        delta.copy = (after, base_len - after);
    }
    delta.finish()
}

/// How many bytes two contents begin with in common.
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 4096;
    let mut at = 0;
    let end = a.len().min(b.len());
    while at + STEP <= end && a[at..at + STEP] == b[at..at + STEP] {
        at += STEP;
    }
    at + a[at..end].iter().zip(&b[at..end]).take_while(|(a, b)| a == b).count()
}

/// How many bytes two contents end with in common.
pub fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 4096;
    let len = a.len().min(b.len());
    let (a, b) = (&a[a.len() - len..], &b[b.len() - len..]);
    let mut end = len;
    while end >= STEP && a[end - STEP..end] == b[end - STEP..end] {
        end -= STEP;
    }
    len - end + a[..end].iter().rev().zip(b[..end].iter().rev()).take_while(|(a, b)| a == b).count()
}

/// The delta that makes the tree `new` out of the tree `base` (their contents).
pub fn trees(base: &[u8], new: &[u8]) -> Vec<u8> {
    let mut delta = Writer::new(base.len(), new.len());
    let mut olds = Located::new(base);
    let mut news = Located::new(new);
    while let (Some((old_at, old)), Some((new_at, entry))) = (olds.peek, news.peek) {
        let old_end = base.len() - olds.rest.len();
        let new_end = new.len() - news.rest.len();
        let order = name_order(old.name, old.is_tree(), entry.name, entry.is_tree());
        if order.is_eq() {
            if base[old_at..old_end] == new[new_at..new_end] {
                delta.copy(base, old_at, old_end - old_at);
            } else if old.mode == entry.mode && old_end - old_at == new_end - new_at {
                delta.copy(base, old_at, old_end - old_at - 20);
                delta.insert(&new[new_end - 20..new_end]);
            } else {
                delta.insert(&new[new_at..new_end]);
            }
        } else if order == Ordering::Greater {
            delta.insert(&new[new_at..new_end]);
        }
        if order.is_le() {
            olds.advance();
        }
        if order.is_ge() {
            news.advance();
        }
    }
    let rest = news.peek.map_or(new.len() - news.rest.len(), |(at, _)| at);
    delta.insert(&new[rest..]);
    delta.finish()
}

/// The entry that a tree's content begins with, and its length.
pub fn first_entry(content: &[u8]) -> Option<(TreeEntry<'_>, usize)> {
    let mut mode = 0;
    let mut at = 0;
    loop {
        match *content.get(at)? {
            b' ' => break,
            digit @ b'0'..=b'7' if at < 7 => mode = mode << 3 | u32::from(digit - b'0'),
            _ => return None,
        }
        at += 1;
    }
    let name = at + 1;
    let nul = name + content[name..].iter().position(|&byte| byte == 0)?;
    let id = ObjectId::from_slice(content.get(nul + 1..nul + 21)?)?;
    Some((TreeEntry { mode, name: &content[name..nul], id }, nul + 21))
}

/// The entries of a tree, with where they begin; stops at the first that cannot be read.
struct Located<'a> {
    content: &'a [u8],
    rest: &'a [u8],
    peek: Option<(usize, TreeEntry<'a>)>,
}

impl<'a> Located<'a> {
    fn new(content: &'a [u8]) -> Self {
        let mut located = Self { content, rest: content, peek: None };
        located.advance();
        located
    }

    fn advance(&mut self) {
        let at = self.content.len() - self.rest.len();
        self.peek = first_entry(self.rest).map(|(entry, len)| {
            self.rest = &self.rest[len..];
            (at, entry)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tree::write_entry;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn tree(entries: &BTreeMap<String, u8>) -> Vec<u8> {
        let mut content = Vec::new();
        for (name, n) in entries {
            write_entry(&mut content, 0o100_644, name.as_bytes(), &ObjectId::from_bytes([*n; 20]));
        }
        content
    }

    proptest! {
        #[test]
        fn tree_deltas_make_the_tree(old in proptest::collection::btree_map("[a-c]{1,4}", 0u8..4, 0..40),
                                     new in proptest::collection::btree_map("[a-c]{1,4}", 0u8..4, 0..40)) {
            let (old, new) = (tree(&old), tree(&new));
            prop_assert_eq!(apply(&old, &trees(&old, &new), new.len()), Ok(new));
        }

        #[test]
        fn tree_deltas_of_anything_make_it(old: Vec<u8>, new: Vec<u8>) {
            prop_assert_eq!(apply(&old, &trees(&old, &new), new.len()), Ok(new));
        }

        #[test]
        fn splices_make_what_they_say(base in proptest::collection::vec(any::<u8>(), 0..300),
                                      at: prop::sample::Index, removed: prop::sample::Index,
                                      inserted in proptest::collection::vec(any::<u8>(), 0..300)) {
            let at = at.index(base.len() + 1);
            let removed = removed.index(base.len() - at + 1);
            let mut new = base.clone();
            new.splice(at..at + removed, inserted.iter().copied());
            let delta = splice(base.len(), at, removed, &inserted);
            prop_assert_eq!(result_size(&delta), Ok(new.len() as u64));
            prop_assert_eq!(apply(&base, &delta, new.len()), Ok(new));
        }

        #[test]
        fn any_bytes_are_taken_as_a_delta(base: Vec<u8>, mut delta: Vec<u8>) {
            drop(apply(&base, &delta, 1 << 16));
            delta.splice(0..0, [base.len().to_le_bytes()[0] & 0x7f, 100]);
            drop(apply(&base, &delta, 1 << 16));
        }
    }

    #[test]
    fn a_changed_id_costs_little_more_than_the_id() {
        let mut entries: BTreeMap<_, _> = (0..1000).map(|n| (format!("file-{n:04}"), 1)).collect();
        let old = tree(&entries);
        entries.insert("file-0500".to_owned(), 2);
        assert!(trees(&old, &tree(&entries)).len() < 40);
    }

    #[test]
    fn a_declared_size_beyond_the_limit_is_refused_before_anything_is_made() {
        let mut bomb = Vec::new();
        write_size(&mut bomb, 1);
        write_size(&mut bomb, 4 << 30);
        bomb.extend_from_slice(&[0x90, 1]);
        assert_eq!(apply(b"x", &bomb, 1 << 20), Err(DeltaError::TooLarge));
    }

    #[test]
    fn copies_outside_the_base_are_refused() {
        assert_eq!(apply(b"abc", &[3, 4, 0x91, 1, 4], 100), Err(DeltaError::Base));
        assert_eq!(apply(b"abc", &[4, 4, 0x91, 1, 2], 100), Err(DeltaError::Base));
        assert_eq!(apply(b"abc", &[3, 1, 0x90, 3], 100), Err(DeltaError::Size));
        assert_eq!(apply(b"abc", &[3, 1, 0], 100), Err(DeltaError::Instruction));
        assert_eq!(apply(b"abc", &[3, 4, 0x90, 3], 100), Err(DeltaError::Size));
    }

    #[test]
    fn finds_what_is_common_at_both_ends() {
        let mut a = vec![1; 10_000];
        assert_eq!(common_prefix(&a, &a.clone()), 10_000);
        let b = a.clone();
        a[9000] = 2;
        assert_eq!(common_prefix(&a, &b), 9000);
        assert_eq!(common_prefix(&a[..5], &b), 5);
        assert_eq!(common_suffix(&a, &b), 999);
        assert_eq!(common_suffix(&b[..5], &b), 5);
        a[9000] = 1;
        a[500] = 2;
        assert_eq!(common_suffix(&a, &b), 9499);
    }
}
