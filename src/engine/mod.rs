//! (to be written)

pub mod merge;
pub mod report;
