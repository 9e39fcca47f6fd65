//! (to be written)

pub mod report;
pub mod revspec;
