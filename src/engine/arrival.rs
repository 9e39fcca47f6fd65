//! A bundle on its way from the thread that reads the connection to the one that takes bundles apart.
//!
//! It is handed on while it arrives, and memory holds a few pieces of it at most: who fills waits for who reads. What is
//! read ends as the bundle does only once [`Filling::end`] was called, when the session has compared its length and its
//! checksum; a bundle that is cut off before is an error to who reads it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many pieces may wait.
const PIECES: usize = 16;

/// The end that the bundle arrives at.
pub(crate) struct Filling(SyncSender<Option<Vec<u8>>>);

/// The end that it is read from.
pub(crate) struct Arriving {
    pieces: Receiver<Option<Vec<u8>>>,
    piece: Vec<u8>,
    taken: usize,
    is_whole: bool,
    cut: CutOff,
}

/// Whether whoever read a bundle was told that it is cut off.
#[derive(Clone, Default)]
pub(crate) struct CutOff(Arc<AtomicBool>);

impl CutOff {
    pub(crate) fn happened(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A bundle that begins to arrive.
pub(crate) fn arrival() -> (Filling, Arriving) {
    let (sender, pieces) = sync_channel(PIECES);
    let arriving = Arriving { pieces, piece: Vec::new(), taken: 0, is_whole: false, cut: CutOff::default() };
    (Filling(sender), arriving)
}

impl Filling {
    /// Hands on what has come; waits while too much waits. `false`: nobody reads any more.
    pub(crate) fn put(&self, bytes: Vec<u8>) -> bool {
        self.0.send(Some(bytes)).is_ok()
    }

    /// The bundle is whole. `false`: nobody reads any more.
    pub(crate) fn end(self) -> bool {
        self.0.send(None).is_ok()
    }
}

impl Arriving {
    pub(crate) fn cut_off(&self) -> CutOff {
        self.cut.clone()
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() && !self.is_whole {
            match self.pieces.recv() {
                Ok(Some(piece)) => (self.piece, self.taken) = (piece, 0),
                Ok(None) => self.is_whole = true,
                Err(_) => {
                    self.cut.0.store(true, Ordering::Release);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        let read = (&self.piece[self.taken..]).read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_in_order_until_it_is_whole() {
        let (filling, mut arriving) = arrival();
        let cut = arriving.cut_off();
        let many: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(many.chunks(77).all(|piece| filling.put(piece.to_vec())));
                assert!(filling.end());
            });
            let mut read = Vec::new();
            arriving.read_to_end(&mut read).expect("whole");
            assert_eq!(read, many);
        });
        assert!(!cut.happened());
    }

    #[test]
    fn what_is_cut_off_does_not_end_like_what_is_whole() {
        let (filling, mut arriving) = arrival();
        assert!(filling.put(b"half".to_vec()));
        drop(filling);
        let mut read = Vec::new();
        let error = arriving.read_to_end(&mut read).expect_err("not whole");
        assert_eq!((error.kind(), &read[..]), (io::ErrorKind::UnexpectedEof, &b"half"[..]));
        assert!(arriving.cut_off().happened());
    }

    #[test]
    fn who_fills_hears_that_nobody_reads() {
        let (filling, arriving) = arrival();
        drop(arriving);
        assert!(!filling.put(b"more".to_vec()));
        assert!(!filling.end());
    }
}
