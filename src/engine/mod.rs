//! The engine: what foldersync does with a folder. It joins the four parts below it, which do not know each other.
//!
//! A [`Folder`] is opened, and then asked; everything that changes it takes the folder's lock, finishes what a killed
//! process left, does its work and leaves a state from which a kill at any point is recovered (see [`folder`]).

mod arrival;
mod brake;
mod bundles;
mod capture;
mod checkout;
mod conflicts;
pub mod diff;
mod error;
mod exchange;
pub mod folder;
pub mod git_filter;
mod going_back;
pub mod history;
mod joining;
pub mod merge;
mod order;
mod outbox;
mod peers;
mod place;
mod repair;
pub mod report;
pub mod revspec;
mod room;
mod status;
mod upkeep;
mod verify;
mod watching;

pub use error::{EngineError, Failure};
pub use exchange::{Address, ExchangeOptions, PeerTarget, put_off, refuse};
pub use folder::{Context, Device, Folder, InitOptions};

pub use place::{Place, Taken};
pub use repair::Repair;

pub use crate::store::Wait;
pub use crate::transport::ssh::SshTarget;
pub use crate::worktree::quiet::{Delays, Quiet, Ready};
pub use crate::worktree::watch::{Dirty, Last, Seen, Wake, Watch, WatchTrouble};
