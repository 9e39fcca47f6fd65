//! The repository: the only part of foldersync that knows git.
//!
//! Objects are read from packs by [`pack::fetch`], the rest through gix ([`objects`]); everything that writes is our own, and syncs before it is relied on:
//! packs ([`pack`], [`burst`]), bundles ([`bundle`]) and what comes in them ([`quarantine`]), refs ([`refs`]), git's
//! index ([`index_file`]). What is derived ([`graph`], [`history`]) is never the truth, and is made anew when it fails.

pub mod bundle;
pub mod burst;
mod checksum;
pub mod commit;
pub mod consolidate;
pub mod damage;
pub mod durable;
pub mod error;
mod frames;
pub mod graph;
pub mod history;
pub mod index_file;
mod kept;
pub mod large;
pub mod lock;
pub mod objects;
pub mod pack;
pub mod quarantine;
pub mod refs;
pub mod repository;
pub mod settings;
pub mod space;
pub mod tree;

pub use commit::{Commit, Signature};
pub use error::StoreError;
pub use graph::{Graph, GraphFile};
pub use index_file::Loaded;
pub use lock::{FolderLock, Wait};
pub use objects::{ObjectHasher, ObjectKind, Objects, object_id};
pub use refs::{Expected, RefEdit, RefName, Refs};
pub use repository::{InitOptions, NewIds, Store};
pub use settings::{Key, Settings};
