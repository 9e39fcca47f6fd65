//! The checksum that packs, bundles, their indexes and git's index end with: SHA-1, in which attempts at collisions are
//! noticed.

use std::io::{self, Write};

/// How many bytes it has.
pub(crate) const LEN: usize = 20;

/// A checksum that is being computed.
#[derive(Clone)]
pub(crate) struct Checksum(gix_hash::Hasher);

impl Default for Checksum {
    fn default() -> Self {
        Self(gix_hash::hasher(gix_hash::Kind::Sha1))
    }
}

impl Checksum {
    /// The checksum of these bytes; one that nothing has if they are made to have the same as others.
    pub(crate) fn of(bytes: &[u8]) -> [u8; LEN] {
        let mut checksum = Self::default();
        checksum.update(bytes);
        checksum.finish().unwrap_or([0; LEN])
    }

    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all of them; an error if they are made to have the same as others.
    pub(crate) fn finish(self) -> io::Result<[u8; LEN]> {
        let sum = self.0.try_finalize().map_err(io::Error::other)?;
        sum.as_bytes().try_into().map_err(io::Error::other)
    }
}

/// Hands bytes on, and computes their checksum.
pub(crate) struct Summing<W> {
    pub(crate) out: W,
    pub(crate) checksum: Checksum,
}

impl<W: Write> Summing<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, checksum: Checksum::default() }
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing(b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709")]
    #[case::of_fips_180(b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d")]
    fn known_sums(#[case] bytes: &[u8], #[case] sum: &str) {
        let known = Checksum::of(bytes);
        assert_eq!(crate::id::ObjectId::from_bytes(known).to_string(), sum);
        let mut summing = Summing::new(Vec::new());
        bytes.chunks(2).for_each(|piece| summing.write_all(piece).expect("memory"));
        assert_eq!((summing.checksum.finish().expect("no attack"), &summing.out[..]), (known, bytes));
    }
}
