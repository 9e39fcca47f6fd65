//! Where a file is cut: by its content, so that what is inserted or removed moves the cuts behind it along.
//!
//! `FastCDC` (Xia and others, 2016): a hash rolls over the bytes, and a cut is where enough of its bits are zero; more of
//! them before three quarters of the average length, fewer behind it, so that most chunks are about that long. The first
//! quarter of the average is never looked at.
//!
//! Where cuts are is part of the format: two devices that cut the same file otherwise would keep it twice, and send it
//! again. It depends on the content and the average alone, and must stay as it is; a test holds it.

/// The average length of chunks, where files are not very large.
pub const AVERAGE: u32 = 256 << 10;
/// The most chunks that a file is meant to have: larger ones have longer chunks, so that recipes stay short.
pub const MANY: u64 = 16 << 10;
/// The longest average.
const LONGEST_AVERAGE: u32 = super::recipe::LONGEST_CHUNK / 2;

/// Cuts files with chunks of a certain average length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutter {
    average: usize,
    before: u64,
    behind: u64,
}

impl Cutter {
    /// The cutter for a file of so many bytes.
    pub fn for_size(size: u64) -> Self {
        let mut average = AVERAGE;
        while size / u64::from(average) > MANY && average < LONGEST_AVERAGE {
            average *= 2;
        }
        Self::new(average)
    }

    /// One for chunks of about `average` bytes, a power of two.
    fn new(average: u32) -> Self {
        let bits = average.trailing_zeros();
        // The upper bits depend on the most bytes.
        let mask = |bits: u32| u64::MAX << (64 - bits);
        Self { average: average as usize, before: mask(bits + 2), behind: mask(bits - 2) }
    }

    /// The shortest chunk, but for the last of a file.
    pub const fn shortest(&self) -> usize {
        self.average / 4
    }

    /// The longest chunk.
    pub const fn longest(&self) -> usize {
        self.average * 2
    }

    /// The length of the first chunk of `bytes`, which go on to the end of the file or are at least as many as the
    /// longest chunk has.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let end = bytes.len().min(self.longest());
        if end <= self.shortest() {
            return end;
        }
        let turn = end.min(self.average / 4 * 3);
        let mut hash = 0_u64;
        for (mask, from, to) in [(self.before, self.shortest(), turn), (self.behind, turn, end)] {
            for (at, &byte) in bytes[from..to].iter().enumerate() {
                hash = (hash << 1).wrapping_add(GEAR[byte as usize]);
                if hash & mask == 0 {
                    return from + at + 1;
                }
            }
        }
        end
    }
}

/// A number for each byte, drawn once: the outputs of `SplitMix64` (Steele and others, 2014) from the seed 1.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 1_u64;
    let mut at = 0;
    while at < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = z ^ (z >> 31);
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Bytes that look random, always the same.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .take(len)
        .collect()
    }

    fn cuts(cutter: Cutter, mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(cutter.cut(bytes));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }

    #[test]
    fn cuts_are_where_they_always_were() {
        let bytes = noise(8 << 20, 7);
        let lens: Vec<usize> = cuts(Cutter::for_size(8 << 20), &bytes).iter().map(|chunk| chunk.len()).collect();
        assert_eq!((lens.len(), &lens[..6]), (32, &[341_373, 238_682, 259_794, 198_473, 221_717, 237_248][..]));
    }

    #[test]
    fn chunks_keep_their_bounds_and_their_average() {
        let cutter = Cutter::new(4 << 10);
        let bytes = noise(4 << 20, 1);
        let chunks = cuts(cutter, &bytes);
        let (last, others) = chunks.split_last().unwrap();
        assert!(last.len() <= cutter.longest());
        assert!(others.iter().all(|chunk| (cutter.shortest()..=cutter.longest()).contains(&chunk.len())));
        let average = bytes.len() / chunks.len();
        assert!((3 << 10..6 << 10).contains(&average), "{average}");
    }

    #[test]
    fn an_insertion_changes_the_chunks_around_it() {
        let cutter = Cutter::new(4 << 10);
        let bytes = noise(1 << 20, 2);
        let before: HashSet<&[u8]> = cuts(cutter, &bytes).into_iter().collect();
        for at in [0, 1000, 500_000, bytes.len()] {
            let mut changed = bytes.clone();
            changed.splice(at..at, *b"0123456789");
            let new = cuts(cutter, &changed).into_iter().filter(|chunk| !before.contains(chunk)).count();
            assert!(new <= 4, "{new} new chunks for an insertion at {at}");
        }
    }

    #[test]
    fn what_is_all_alike_is_cut_into_the_same_chunk() {
        let cutter = Cutter::for_size(1 << 40);
        let zeros = vec![0; 3 * cutter.longest()];
        let chunks: HashSet<usize> = cuts(cutter, &zeros).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(chunks, HashSet::from([cutter.longest()]));
    }

    /// Up to 512 GiB, a recipe stays within its limit even if every chunk is as short as can be.
    #[test]
    fn recipes_stay_short() {
        for bits in 0..=39 {
            let size = 1_u64 << bits;
            let chunks = size.div_ceil(Cutter::for_size(size).shortest() as u64);
            let line = 40 + 1 + 9 + 1;
            assert!(100 + chunks * line <= super::super::recipe::LONGEST as u64, "2^{bits} bytes: {chunks} chunks");
        }
        // A hundred gigabytes: so long are the chunks that are held.
        assert_eq!(Cutter::for_size(100 << 30).longest(), 16 << 20);
    }
}
