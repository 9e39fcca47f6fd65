//! Streams that fail on purpose: cut, damaged or delivered in crumbs, at a chosen byte.
//!
//! For tests, of this crate and of whoever builds on it. Never waits.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

use super::Connection;

/// What goes wrong with the bytes of one direction; by default nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// The stream is cut after so many bytes: reads see the end, writes fail, the other side sees the same.
    pub cut: Option<u64>,
    /// The lowest bit of this byte (counted from 0) is flipped.
    pub flip: Option<u64>,
    /// No read or write takes more than so many bytes at once.
    pub piece: Option<NonZeroUsize>,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self { cut: None, flip: None, piece: None };

    /// A cut after so many bytes.
    pub const fn cut(bytes: u64) -> Self {
        Self { cut: Some(bytes), ..Self::NONE }
    }

    /// A flipped bit in this byte.
    pub const fn flip(byte: u64) -> Self {
        Self { flip: Some(byte), ..Self::NONE }
    }

    /// Pieces of so many bytes; as they come for zero.
    pub const fn pieces(bytes: usize) -> Self {
        Self { piece: NonZeroUsize::new(bytes), ..Self::NONE }
    }

    /// How many of `wanted` bytes may pass at once, when `passed` have; none when the stream is cut here.
    fn allow(&self, passed: u64, wanted: usize) -> usize {
        let piece = self.piece.map_or(wanted, |piece| wanted.min(piece.get()));
        let left = self.cut.map_or(u64::MAX, |cut| cut.saturating_sub(passed));
        usize::try_from(left).map_or(piece, |left| piece.min(left))
    }

    /// Flips the bit, if it is in these bytes, the first of which is number `passed`.
    fn damage(&self, passed: u64, bytes: &mut [u8]) {
        let at = self.flip.and_then(|flip| flip.checked_sub(passed)).and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1;
        }
    }
}

impl Connection {
    /// The same connection, with faults in what is read and in what is written.
    #[must_use]
    pub fn with_faults(self, reading: Faults, writing: Faults) -> Self {
        Self {
            reader: Box::new(FaultyReader::new(self.reader, reading)),
            writer: Box::new(FaultyWriter::new(self.writer, writing)),
            ..self
        }
    }
}

/// A reader with faults.
#[derive(Debug)]
pub struct FaultyReader<R> {
    inner: Option<R>,
    faults: Faults,
    passed: u64,
}

impl<R> FaultyReader<R> {
    /// What `inner` gives, with faults.
    pub const fn new(inner: R, faults: Faults) -> Self {
        Self { inner: Some(inner), faults, passed: 0 }
    }
}

impl<R: Read> Read for FaultyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.faults.allow(self.passed, buffer.len());
        if allowed == 0 && !buffer.is_empty() {
            self.inner = None;
        }
        let Some(inner) = &mut self.inner else { return Ok(0) };
        let count = inner.read(&mut buffer[..allowed])?;
        self.faults.damage(self.passed, &mut buffer[..count]);
        self.passed += count as u64;
        Ok(count)
    }
}

/// A writer with faults.
#[derive(Debug)]
pub struct FaultyWriter<W> {
    inner: Option<W>,
    faults: Faults,
    passed: u64,
}

impl<W> FaultyWriter<W> {
    /// Writes to `inner`, with faults.
    pub const fn new(inner: W, faults: Faults) -> Self {
        Self { inner: Some(inner), faults, passed: 0 }
    }

    fn cut() -> io::Error {
        io::Error::new(io::ErrorKind::BrokenPipe, "the connection was cut on purpose")
    }
}

impl<W: Write> Write for FaultyWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.faults.allow(self.passed, bytes.len());
        if allowed == 0 && !bytes.is_empty() {
            self.inner = None;
        }
        let inner = self.inner.as_mut().ok_or_else(Self::cut)?;
        let mut bytes = &bytes[..allowed];
        let damaged;
        if self.faults.flip.is_some_and(|flip| (self.passed..self.passed + allowed as u64).contains(&flip)) {
            let mut copy = bytes.to_vec();
            self.faults.damage(self.passed, &mut copy);
            damaged = copy;
            bytes = &damaged;
        }
        let count = inner.write(bytes)?;
        self.passed += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.as_mut().ok_or_else(Self::cut)?.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(faults: Faults) -> Vec<u8> {
        let mut bytes = Vec::new();
        FaultyReader::new(&b"0123456789"[..], faults).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_reader_is_cut_and_damaged_where_it_was_told() {
        assert_eq!(read(Faults::NONE), b"0123456789");
        assert_eq!(read(Faults::cut(4)), b"0123");
        assert_eq!(read(Faults::cut(0)), b"");
        assert_eq!(read(Faults::flip(4)), b"0123556789");
        assert_eq!(read(Faults { piece: NonZeroUsize::new(3), ..Faults::flip(4) }), b"0123556789");
        assert_eq!(FaultyReader::new(&b"abc"[..], Faults::pieces(2)).read(&mut [0; 9]).unwrap(), 2);
    }

    #[test]
    fn a_writer_is_cut_and_damaged_where_it_was_told() {
        let write = |faults| {
            let mut bytes = Vec::new();
            let result = FaultyWriter::new(&mut bytes, faults).write_all(b"0123456789");
            (bytes, result.map_err(|error| error.kind()))
        };
        assert_eq!(write(Faults::NONE), (b"0123456789".to_vec(), Ok(())));
        assert_eq!(write(Faults::cut(4)), (b"0123".to_vec(), Err(io::ErrorKind::BrokenPipe)));
        assert_eq!(write(Faults::flip(9)), (b"0123456788".to_vec(), Ok(())));
        assert_eq!(write(Faults { piece: NonZeroUsize::new(4), ..Faults::flip(5) }), (b"0123446789".to_vec(), Ok(())));
    }

    #[test]
    fn the_other_side_sees_the_cut() {
        let (a, mut b) = super::super::pipe("test");
        let mut a = a.with_faults(Faults::cut(0), Faults::cut(3));
        assert!(a.writer.write_all(b"abcdef").is_err());
        assert!(a.writer.flush().is_err());
        let mut seen = Vec::new();
        b.reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"abc");
        assert_eq!(a.reader.read(&mut [0; 4]).unwrap(), 0);
        assert_eq!(b.writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
