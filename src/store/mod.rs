//! The repository: the only part of foldersync that knows git.

pub mod commit;
pub mod durable;
pub mod error;
pub mod lock;
pub mod objects;
pub mod refs;
pub mod settings;
pub mod tree;

pub use commit::{Commit, Signature};
pub use error::StoreError;
pub use objects::{ObjectHasher, ObjectKind, Objects, object_id};
