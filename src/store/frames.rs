//! Writing a Snappy frame stream.
//!
//! The format is Google's `framing_format.txt`; `snap` reads it. `snap`'s own writer keeps a chunk plain that gets less
//! than an eighth smaller: between contents that are deflated already, trees and commits save less than that, but
//! they save it everywhere. Here a chunk is kept plain only if it does not get smaller.

use std::io::{self, Write};

/// What a stream begins with.
const IDENTIFIER: [u8; 10] = *b"\xff\x06\x00\x00sNaPpY";
/// The most bytes of a chunk, before compression.
const CHUNK: usize = 64 << 10;
const COMPRESSED: u8 = 0;
const PLAIN: u8 = 1;

/// Compresses what is written to it; [`FrameWriter::finish`] has to be called.
pub(crate) struct FrameWriter<W> {
    out: W,
    snappy: snap::raw::Encoder,
    plain: Vec<u8>,
    compressed: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    /// Begins a stream.
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&IDENTIFIER)?;
        let compressed = vec![0; snap::raw::max_compress_len(CHUNK)];
        Ok(Self { out, snappy: snap::raw::Encoder::new(), plain: Vec::with_capacity(CHUNK), compressed })
    }

    fn chunk(&mut self) -> io::Result<()> {
        let len = self.snappy.compress(&self.plain, &mut self.compressed)?;
        let (kind, body) =
            if len < self.plain.len() { (COMPRESSED, &self.compressed[..len]) } else { (PLAIN, &self.plain[..]) };
        // The length counts the checksum of the plain bytes, which stands before the body.
        let len = u32::try_from(body.len() + 4).map_err(io::Error::other)?.to_le_bytes();
        let mut head = [kind, len[0], len[1], len[2], 0, 0, 0, 0];
        head[4..].copy_from_slice(&mask(crc32c(&self.plain)).to_le_bytes());
        self.out.write_all(&head)?;
        self.out.write_all(body)?;
        self.plain.clear();
        Ok(())
    }

    /// Writes what is left, and answers with what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if !self.plain.is_empty() {
            self.chunk()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.plain.len());
        self.plain.extend_from_slice(&bytes[..taken]);
        if self.plain.len() == CHUNK {
            self.chunk()?;
        }
        Ok(taken)
    }

    /// What does not fill a chunk waits for [`FrameWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// As the format wants checksums, so that those of checksums are good too.
const fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `TABLES[n][byte]`: the checksum of a byte with n zero bytes behind it.
const TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            // Castagnoli's polynomial, reversed.
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before: u32 = tables[zeros - 1][byte];
            tables[zeros][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
};

/// CRC-32C, eight bytes at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut crc = !0u32;
    for eight in eights {
        let low = (u32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]]) ^ crc).to_le_bytes();
        crc = 0;
        for (n, byte) in low.iter().chain(&eight[4..]).enumerate() {
            crc ^= TABLES[7 - n][usize::from(*byte)];
        }
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read as _;

    #[test]
    fn knows_the_checksum_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn small_savings_are_kept() {
        let mut state = 1u64;
        let mut noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let mut content = Vec::new();
        for _ in 0..40 {
            content.extend(noise.by_ref().take(3000));
            content.extend_from_slice(&[b'x'; 200]);
        }
        let mut writer = FrameWriter::new(Vec::new()).expect("begun");
        writer.write_all(&content).expect("written");
        let stream = writer.finish().expect("finished");
        assert!(stream.len() < content.len() - 40 * 100, "{} of {}", stream.len(), content.len());
    }

    proptest! {
        #[test]
        fn snap_reads_what_is_written(pieces in prop::collection::vec((any::<u8>(), 0usize..100_000), 0..6), noise: Vec<u8>) {
            let mut writer = FrameWriter::new(Vec::new()).expect("begun");
            let mut content = Vec::new();
            for (byte, len) in pieces {
                let piece = [&vec![byte; len][..], &noise].concat();
                writer.write_all(&piece).expect("written");
                content.extend(piece);
            }
            let stream = writer.finish().expect("finished");
            let mut back = Vec::new();
            snap::read::FrameDecoder::new(&stream[..]).read_to_end(&mut back).expect("a Snappy stream");
            prop_assert_eq!(back, content);
        }
    }
}
