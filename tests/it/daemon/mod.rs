//! The daemon, as people run it.

mod namespaces;
mod nodes;
mod relayed;
mod spaces;
