//! What two contents have in common: the delta that makes one out of the other, whatever their bytes.
//!
//! What both begin and end with is found first, and is most of what an edit leaves. In between, the blocks of the base
//! are indexed by their hashes, and the target is looked through for them, byte by byte; what is found is extended both
//! ways, and the longest of a few candidates is copied.
//!
//! Time and memory are linear in the two lengths, whatever the bytes: only a few candidates are looked at, and what
//! they are compared over is then copied or paid for by the next byte. What is not alike is given up soon: where
//! samples of a large target find nothing, and when the delta gets longer than it may.

use super::delta::{Writer, common_prefix, common_suffix};

/// The bytes of a block: what is shorter is not found.
const BLOCK: usize = 16;
/// The most candidates for a place that are looked at.
const CANDIDATES: usize = 8;
/// A difference with fewer bytes is told as new bytes at once: to look for parts of it would hardly bring anything.
const SHORT: usize = 24;
/// So much of the base is indexed on either side of what differs, and so many times what differs.
const ROOM: usize = 32 << 10;
const ROOM_TIMES: usize = 8;
/// A target that differs in more bytes is tried on samples first: so many, of so many bytes.
const SAMPLE_ABOVE: usize = 128 << 10;
const SAMPLES: usize = 24;
const SAMPLE: usize = 2 << 10;
/// The longest contents that offsets are kept of.
const LARGEST: usize = u32::MAX as usize;

/// The delta that makes `target` out of `base`, if it has no more than `limit` bytes and was soon found to exist.
pub fn encode(base: &[u8], target: &[u8], limit: usize) -> Option<Vec<u8>> {
    if base.len() > LARGEST || target.len() > LARGEST {
        return None;
    }
    let prefix = common_prefix(base, target);
    let suffix = common_suffix(&base[prefix..], &target[prefix..]);
    let (old_end, new_end) = (base.len() - suffix, target.len() - suffix);
    let mut delta = Writer::new(base.len(), target.len());
    delta.copy(base, 0, prefix);
    if new_end - prefix < SHORT || base.len() < BLOCK {
        delta.insert(&target[prefix..new_end]);
    } else {
        let room = ROOM + ROOM_TIMES * (new_end - prefix);
        let index = Index::new(base, prefix.saturating_sub(room), old_end.saturating_add(room).min(base.len()));
        if new_end - prefix > SAMPLE_ABOVE && limit < target.len() && !index.samples_are_found(&target[prefix..new_end])
        {
            return None;
        }
        index.tell(target, prefix, new_end, limit, &mut delta)?;
    }
    delta.copy(base, old_end, suffix);
    let delta = delta.finish();
    (delta.len() <= limit).then_some(delta)
}

/// The blocks of a base, by their hashes.
struct Index<'a> {
    base: &'a [u8],
    /// Where in the base the first block begins.
    start: usize,
    /// For each hash, the first block with it, counted from 1; 0 is none.
    heads: Vec<u32>,
    /// For each block, the next with the same hash.
    next: Vec<u32>,
    shift: u32,
}

fn hash(block: &[u8; BLOCK]) -> u64 {
    let (one, two) = block.split_at(BLOCK / 2);
    let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half a block"));
    (number(one).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number(two).rotate_left(29)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
}

impl<'a> Index<'a> {
    /// Indexes the base from `start` to `end`.
    fn new(base: &'a [u8], start: usize, end: usize) -> Self {
        let (blocks, _) = base[start..end].as_chunks::<BLOCK>();
        let bits = blocks.len().next_power_of_two().trailing_zeros().max(4);
        let mut index =
            Self { base, start, heads: vec![0; 1 << bits], next: vec![0; blocks.len()], shift: u64::BITS - bits };
        // From the end, so that the first is met first; of a row of the same block only the first is kept.
        for (at, block) in blocks.iter().enumerate().rev() {
            if at > 0 && blocks[at - 1] == *block {
                continue;
            }
            let head = index.slot(block);
            index.next[at] = index.heads[head];
            index.heads[head] = u32::try_from(at + 1).expect("fewer blocks than bytes");
        }
        index
    }

    fn slot(&self, block: &[u8; BLOCK]) -> usize {
        usize::try_from(hash(block) >> self.shift).expect("fewer slots than memory")
    }

    /// The longest of a few parts of the base that `target` begins with: where it begins, and its length.
    fn find(&self, target: &[u8]) -> Option<(usize, usize)> {
        let block = target.first_chunk::<BLOCK>()?;
        let mut at = self.heads[self.slot(block)];
        let mut best: Option<(usize, usize)> = None;
        for _ in 0..CANDIDATES {
            let Some(number) = (at as usize).checked_sub(1) else { break };
            at = self.next[number];
            let offset = self.start + number * BLOCK;
            let there = &self.base[offset..];
            if there.first_chunk() != Some(block) {
                continue;
            }
            let len = common_prefix(there, target);
            if best.is_none_or(|(_, longest)| len > longest) {
                best = Some((offset, len));
            }
        }
        best
    }

    /// Whether any of a few samples of `target` has a part of the base.
    fn samples_are_found(&self, target: &[u8]) -> bool {
        let step = target.len() / SAMPLES;
        (0..SAMPLES).any(|nth| {
            let sample = &target[nth * step..(nth * step + SAMPLE).min(target.len())];
            (0..sample.len()).any(|at| self.find(&sample[at..]).is_some())
        })
    }

    /// Tells `target` from `from` to `to`; `None` once the delta has more than `limit` bytes.
    fn tell(&self, target: &[u8], from: usize, to: usize, limit: usize, delta: &mut Writer) -> Option<()> {
        let (mut told, mut at) = (from, from);
        while at + BLOCK <= to {
            let Some((offset, len)) = self.find(&target[at..to]) else {
                at += 1;
                if at - told > limit {
                    return None;
                }
                continue;
            };
            // What was passed over may be in the base before it, too.
            let before = common_suffix(&self.base[..offset], &target[told..at]);
            delta.insert(&target[told..at - before]);
            delta.copy(self.base, offset - before, before + len);
            at += len;
            told = at;
            if delta.len() > limit {
                return None;
            }
        }
        delta.insert(&target[told..to]);
        (delta.len() <= limit).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::blob::tests::noise;
    use super::super::delta::apply;
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::time::Instant;

    /// The bytes of the delta, once it has been seen to be right.
    fn len(base: &[u8], target: &[u8], limit: usize) -> Option<usize> {
        let delta = encode(base, target, limit)?;
        assert_eq!(apply(base, &delta, target.len()).as_deref(), Ok(target));
        assert!(delta.len() <= limit);
        Some(delta.len())
    }

    fn text(lines: usize) -> Vec<u8> {
        (0..lines).flat_map(|n| format!("line {n} says {:x}\n", n.wrapping_mul(0x9e37_79b9)).into_bytes()).collect()
    }

    #[test]
    fn a_few_edits_cost_little() {
        let base = text(2000);
        let mut target = base.clone();
        target.splice(1000..1004, *b"ABCDEF");
        assert!(len(&base, &target, 1000).expect("alike") < 30);
        target.splice(30_000..30_000, *b"here is something new");
        target.drain(20_000..20_100);
        assert!(len(&base, &target, 1000).expect("alike") < 120);
    }

    #[test]
    fn what_was_moved_is_found() {
        let base = noise(100_000);
        let target = [&base[60_000..], b"between", &base[..60_000]].concat();
        assert!(len(&base, &target, 1000).expect("alike") < 60);
        let target = [&base[..], &base[..]].concat();
        assert!(len(&base, &target, 1000).expect("alike") < 60);
    }

    #[test]
    fn what_is_not_alike_is_given_up() {
        let (base, target) = (noise(3_000_000), text(100_000));
        assert_eq!(encode(&base, &target, target.len() / 2), None);
        assert_eq!(encode(&base[..1000], &base[1000..2000], 666), None);
        assert_eq!(encode(b"", b"something", 4), None);
    }

    #[test]
    fn a_third_that_is_alike_is_found_by_samples() {
        let base = noise(6_000_000);
        let target = [&text(100_000)[..2_000_000], &base[2_000_000..3_500_000], &text(50_000)[..1_000_000]].concat();
        assert!(len(&base, &target, 3_200_000).expect("alike") < 3_100_000);
    }

    #[rstest]
    #[case::the_same(vec![7; 1 << 20], vec![7; 1 << 20])]
    #[case::all_equal(vec![7; 4 << 20], [vec![1; 5], vec![7; 4 << 20], vec![2; 3]].concat())]
    #[case::two_values(b"ab".repeat(1 << 20), [b"x".to_vec(), b"ba".repeat(1 << 20), b"y".to_vec()].concat())]
    #[case::a_period_that_is_no_block(b"seventeen letters".repeat(1 << 16),
        [b"x".to_vec(), b"letters seventeen".repeat(1 << 16), b"y".to_vec()].concat())]
    #[case::breaks_in_a_row([vec![0; 40], vec![1]].concat().repeat(1 << 15),
        [vec![0; 41], vec![1]].concat().repeat(1 << 15))]
    #[case::many_near_matches((0..1u32 << 17).flat_map(|n| [&[0; 16][..], &n.to_le_bytes()].concat()).collect(),
        vec![0; 2 << 20])]
    fn degenerate_contents_take_linear_time(#[case] base: Vec<u8>, #[case] target: Vec<u8>) {
        let started = Instant::now();
        let delta = encode(&base, &target, target.len());
        let took = started.elapsed();
        assert!(took.as_secs() < 20, "{took:?}");
        if let Some(delta) = delta {
            assert_eq!(apply(&base, &delta, target.len()).as_deref(), Ok(&target[..]));
        }
    }

    fn alike() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let base = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3000),
            prop::collection::vec(0u8..2, 0..3000),
            (1usize..60, 0usize..80).prop_map(|(period, times)| noise(period).repeat(times)),
        ];
        let edits = prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40)),
            0..6,
        );
        (base, edits).prop_map(|(base, edits)| {
            let mut target = base.clone();
            for (at, removed, new) in edits {
                let at = at.index(target.len() + 1);
                let removed = removed.index((target.len() - at).min(200) + 1);
                target.splice(at..at + removed, new);
            }
            (base, target)
        })
    }

    proptest! {
        #[test]
        fn makes_the_target_within_the_limit((base, target) in alike(), limit in 0usize..4000) {
            len(&base, &target, limit);
            let most = target.len() + target.len() / 64 + 64;
            prop_assert!(len(&base, &target, most).is_some());
        }

        #[test]
        fn makes_anything_of_anything(base: Vec<u8>, target: Vec<u8>) {
            prop_assert!(len(&base, &target, 2 * target.len() + 64).is_some());
        }
    }
}
