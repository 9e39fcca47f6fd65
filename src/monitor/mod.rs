//! What long work tells whoever watches: a progress bar, a log, a test.
//!
//! The work calls [`Monitor`]; it never prints and never waits for who listens. Implementations must be cheap: they
//! are called from several threads, once a file. A monitor cannot change the work.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The stages of long work that a person may want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Looking at the files on disk; counted in files.
    Scan,
    /// Reading files and writing revisions; counted in files, bytes as read.
    Capture,
    /// Sending bundles; counted in revisions, bytes as on the wire.
    Send,
    /// Receiving bundles; counted in revisions, bytes as on the wire.
    Receive,
    /// Checking what was received or what is stored; counted in objects.
    Check,
    /// Writing files; counted in files, bytes as written.
    Apply,
    /// Bringing the history index up to date; counted in revisions.
    Index,
    /// Gathering packs; counted in objects.
    Gather,
}

impl Stage {
    /// All stages, in the order of the declaration.
    pub const ALL: [Self; 8] =
        [Self::Scan, Self::Capture, Self::Send, Self::Receive, Self::Check, Self::Apply, Self::Index, Self::Gather];
}

/// Hears how work goes on.
pub trait Monitor: Send + Sync {
    /// A stage begins (or begins again), with so many things ahead, where that is known.
    fn begin(&self, stage: Stage, total: Option<u64>);
    /// So many more things, and bytes, are done.
    fn advance(&self, stage: Stage, items: u64, bytes: u64);
    /// A stage has ended.
    fn end(&self, stage: Stage);
    /// Something that a person should know, though the work goes on.
    fn notice(&self, text: &str);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn begin(&self, _: Stage, _: Option<u64>) {}
    fn advance(&self, _: Stage, _: u64, _: u64) {}
    fn end(&self, _: Stage) {}
    fn notice(&self, _: &str) {}
}

/// Counts, and keeps notices, for tests.
#[derive(Debug, Default)]
pub struct Recording {
    items: [AtomicU64; 8],
    bytes: [AtomicU64; 8],
    notices: Mutex<Vec<String>>,
}

impl Recording {
    /// How many things a stage has done.
    pub fn items(&self, stage: Stage) -> u64 {
        self.items[stage as usize].load(Ordering::Relaxed)
    }

    /// How many bytes a stage has done.
    pub fn bytes(&self, stage: Stage) -> u64 {
        self.bytes[stage as usize].load(Ordering::Relaxed)
    }

    /// What was to be said to a person.
    pub fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Monitor for Recording {
    fn begin(&self, _: Stage, _: Option<u64>) {}

    fn advance(&self, stage: Stage, items: u64, bytes: u64) {
        self.items[stage as usize].fetch_add(items, Ordering::Relaxed);
        self.bytes[stage as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self, _: Stage) {}

    fn notice(&self, text: &str) {
        self.notices.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(text.to_owned());
    }
}
