//! What the command tells a daemon that runs on the same home.

use super::session::Session;

/// Tells a running daemon that the configuration has changed, so that it reads it again. Nothing listens yet.
pub(crate) const fn tell_daemon(_: &Session) {}
