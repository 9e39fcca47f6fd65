//! This process's own standard input and output as a connection: the far end of a child process, or of ssh.
//!
//! Whoever uses it must print nothing else to the standard output.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::{Connection, TransportError};

/// A connection over the standard input and output, unbuffered. They stay open in this process when it is dropped;
/// the other side sees the end of the stream when this process ends.
pub fn stdio() -> Result<Connection, TransportError> {
    let own = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned().map(File::from);
    let streams = own(&io::stdin()).and_then(|input| Ok((input, own(&io::stdout())?)));
    let (input, output) = streams.map_err(|source| TransportError::Stdio { source })?;
    Ok(Connection::new(input, output, "standard input and output"))
}
