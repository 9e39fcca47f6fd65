//! The long-running process: what it needs of the system that it runs on.
//!
//! It owns signals, the log, what the service manager is told, and the files that make it a service. It decides
//! nothing about files or history: that is the engine's. Nothing here is needed after a crash.

pub mod log;
pub mod notify;
pub mod service;
pub mod signals;
