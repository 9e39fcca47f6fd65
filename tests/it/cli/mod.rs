//! The command line, by running the built command.

mod config;
mod documents;
mod pause;
mod peer;
mod service;
mod usage;
mod watch;
mod workflow;
