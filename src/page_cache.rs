//! What the system is told of long files: that it may begin to write what was written, and forget what was read.
//!
//! Hints, no more: nothing depends on them, and systems that know none are told nothing.

use std::fs::File;

/// How much of a file is written between two hints.
const STRIDE: u64 = 8 << 20;

/// Of a file's bytes, those in this range were read and need not stay in memory. Those that are not on disk yet begin
/// to be written.
pub fn let_go(file: &File, offset: u64, bytes: u64) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, bytes);
}

/// Lets the system write a long file to the disk while it is still made, so that little is left for the sync at its end.
#[derive(Debug, Default)]
pub struct WriteBehind {
    begun: u64,
}

impl WriteBehind {
    /// The file was written up to `end`.
    pub fn reached(&mut self, file: &File, end: u64) {
        if end >= self.begun + STRIDE {
            let_go(file, self.begun, end - self.begun);
            self.begun = end;
        }
    }
}
