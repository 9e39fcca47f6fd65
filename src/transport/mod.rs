//! Transports: ordered streams of bytes, both ways, to the other side of an exchange.
//!
//! Owns how a stream comes to be ([`network`], [`ChildCommand`], [`pipe()`], [`stdio()`]) and how it ends; knows nothing
//! of what is said over it. Blocking to whoever uses it: what is asynchronous stays inside [`network`]. Every [`Connection`] keeps the same contract, which one suite of tests (`contract`) holds them to:
//!
//! * Bytes arrive in order, all or not at all; both directions run at once; neither waits for the other. What was
//!   written may be on its way: only an answer over the same stream tells that it has come.
//! * Dropping the writer ends the stream: the other side reads all that was written, then end of file. A reader that
//!   is dropped makes the other side's writes fail; they never wait for ever.
//! * [`Control::abort`] ends reads and writes that wait, from any thread. It is how a driver enforces a timeout:
//!   streams have none of their own.
//! * End of file is not success: a program at the other end that failed looks the same. [`Control::finish`] tells.
//!
//! Nothing here outlives a crash, and nothing is retried.

mod child;
#[cfg(test)]
mod contract;
mod error;
mod fault;
pub mod network;
mod pipe;
#[cfg(feature = "relay")]
pub mod relay;
pub mod ssh;
mod stdio;
pub mod throttle;
pub mod ticket;

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

pub use child::ChildCommand;
pub use error::TransportError;
pub use fault::{Faults, FaultyReader, FaultyWriter};
pub use pipe::{PIPE_CAPACITY, pipe, pipe_of};
pub use stdio::stdio;

/// The part of a connection that is neither of its streams: how it is broken off, and how it ended.
pub trait Control: Send + Sync {
    /// Breaks the connection off: reads and writes that wait, and all later ones, end soon.
    fn abort(&self);

    /// How the other end ended, once both streams have been dropped; waits for it, for a bounded time. Ask it when a
    /// stream ended too early, too: it knows why, and its error is the one to show.
    fn finish(&self) -> Result<(), TransportError>;
}

/// A stream each way, to the other side.
pub struct Connection {
    /// What the other side says.
    pub reader: Box<dyn Read + Send>,
    /// What this side says. Flush it before waiting for an answer.
    pub writer: Box<dyn Write + Send>,
    /// The other end, for messages: a command, a path.
    pub about: String,
    /// To break it off, and to learn how it ended. A child process lives as long as this does.
    pub control: Arc<dyn Control>,
}

impl Connection {
    /// A connection over any two streams, whose end tells nothing and which [`Control::abort`] cannot break off.
    pub fn new(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static, about: &str) -> Self {
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
            about: about.to_owned(),
            control: Arc::new(Uncontrolled),
        }
    }

    /// The streams, for a thread each, and the control.
    pub fn split(self) -> (Box<dyn Read + Send>, Box<dyn Write + Send>, Arc<dyn Control>) {
        (self.reader, self.writer, self.control)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("about", &self.about).finish_non_exhaustive()
    }
}

/// The control of streams that know nothing of how they end.
struct Uncontrolled;

impl Control for Uncontrolled {
    fn abort(&self) {}

    fn finish(&self) -> Result<(), TransportError> {
        Ok(())
    }
}
