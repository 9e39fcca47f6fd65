//! The command line, by running the built command.

mod brakes;
mod config;
mod documents;
mod exchange;
mod pause;
mod peer;
mod service;
mod ssh;
mod status;
mod usage;
mod wait;
mod watch;
mod with_daemon;
mod workflow;
