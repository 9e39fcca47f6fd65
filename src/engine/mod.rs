//! (to be written)

pub mod diff;
pub mod history;
pub mod report;
pub mod revspec;
pub mod merge;
pub mod report;
