//! The users' files: the only reader and the only writer of what stands in a synced folder.
//!
//! It owns looking at the disk ([`scan`], [`Root::look`]), hearing of what changes ([`watch`], [`quiet`]), reading one
//! file with the proof that it held still
//! ([`Root::open_leaf`]), and bringing the disk to a new state ([`plan`], then [`apply`]). It knows neither git nor
//! the store: what the disk last held comes in as a [`DiskTable`](crate::table::DiskTable), content through
//! [`Content`], and what was found or done goes out as values.
//!
//! Everything below the folder is reached component by component from its open descriptor, without following a
//! symlink: whatever is swapped in meanwhile, nothing outside the folder is read or written. `.git` and
//! `.foldersync` are never touched, except that [`apply`] stages in the folder it is given for that.
//!
//! What it promises after a crash (the headers of `apply.rs` and `stage.rs` say how): each path holds its old content
//! or its new content, complete, and nothing that is not in history is gone, once [`settle`] has run. Whoever opens a
//! folder calls that first, then finishes what was interrupted by planning again, and only then scans for changes.

mod apply;
mod error;
mod folders;
mod ignore;
mod plan;
pub mod quiet;
mod read;
mod root;
mod scan;
mod stage;
pub mod watch;

pub use apply::{Applied, ApplyError, Content, apply};
pub use error::WorktreeError;
pub use ignore::leaves_out;
pub use plan::{ApplyPlan, Refused, Target, WhyRefused, plan};
pub use read::OpenLeaf;
pub use root::{OnDisk, Root};
pub use scan::{Found, LeftOut, Scan, ScanOptions, Stats, What, Why, scan};
pub use stage::settle;
