//! Large files: kept as chunks, so that a changed megabyte costs a megabyte, on disk and on the wire.
//!
//! In its tree such a file is one blob like any other: a [`recipe`], which names the chunks that make it up. The chunks
//! are blobs of their own, which no tree names. They are cut by content ([`cutter`]), so that an insertion moves the
//! cuts with it and all other chunks are as before.
//!
//! Owns what a recipe says, where files are cut, and how one is made into the other, in memory that does not grow with
//! the file. Must not: hand on bytes of a file as whole before its length and its sum were compared with the recipe.

pub mod cutter;
pub mod recipe;

mod assemble;
mod cut;
mod kept;
mod patch;

pub use assemble::{Content, content};
pub use cut::cut;
pub(crate) use kept::branch_of;
pub use recipe::{Chunk, LONGEST_CHUNK, Recipe, RecipeError};

/// What files become recipes, unless a repository says otherwise: those with more bytes.
pub const THRESHOLD: u64 = 8 << 20;

/// Of what has more bytes, the system is told that it need not keep in its memory what was read of it.
pub const PASSING: u64 = 64 << 20;
