//! foldersync keeps folders in step between computers, with every version of every file kept, on top of git.
//!
//! The layers, each of which may use those to its right and below it, never those above:
//!
//! ```text
//! main -> cli -> daemon -> engine -> store, worktree, protocol, transport -> monitor -> path id entry change clock
//!          \------\-> config                                                            table message page_cache disk
//!                                                                                        guard
//! ```
//!
//! `store` alone touches git, `worktree` alone writes users' files, `protocol` does no I/O, and none of the four
//! knows another: the engine joins them. A test (`tests/it/architecture.rs`) holds the crate to this picture.

pub mod change;
pub mod clock;
pub mod disk;
pub mod entry;
pub mod guard;
pub mod id;
pub mod message;
pub mod monitor;
pub mod page_cache;
pub mod path;
pub mod table;

pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod protocol;
pub mod store;
pub mod transport;
pub mod worktree;
