//! The repository: the only part of foldersync that knows git.

pub mod bundle;
pub mod burst;
pub mod commit;
pub mod consolidate;
pub mod error;
mod frames;
pub mod objects;
pub mod pack;
pub mod quarantine;
pub mod tree;

pub use commit::{Commit, Signature};
pub use error::StoreError;
pub use objects::{ObjectHasher, ObjectKind, Objects, object_id};
