//! One pairing over its stream: what either side does the same way, with a limit of time.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::protocol::pairing::{Event, Joiner, PairingError, Sharer};
use crate::transport::Connection;

/// How long a pairing may take.
const LIMIT: Duration = Duration::from_secs(45);

/// A side of a pairing.
pub(super) trait Side {
    fn receive(&mut self, input: &[u8]) -> Result<(), PairingError>;
    fn end(&mut self) -> Result<(), PairingError>;
    fn next_event(&mut self) -> Option<Event>;
    fn take_output(&mut self) -> Vec<u8>;
    fn is_paired(&self) -> bool;
}

macro_rules! side {
    ($side:ident) => {
        impl Side for $side {
            fn receive(&mut self, input: &[u8]) -> Result<(), PairingError> {
                $side::receive(self, input)
            }
            fn end(&mut self) -> Result<(), PairingError> {
                $side::end(self)
            }
            fn next_event(&mut self) -> Option<Event> {
                $side::next_event(self)
            }
            fn take_output(&mut self) -> Vec<u8> {
                $side::take_output(self)
            }
            fn is_paired(&self) -> bool {
                $side::is_paired(self)
            }
        }
    };
}

side!(Joiner);
side!(Sharer);

/// Talks until both sides are done, or one gives up. `act` does what an event asks for.
pub(super) fn talk<S: Side, E: From<PairingError>>(
    side: &mut S,
    connection: Connection,
    act: &mut dyn FnMut(&mut S, Event) -> Result<(), E>,
) -> Result<(), E> {
    let Connection { mut reader, mut writer, control, .. } = connection;
    let (over, hears) = mpsc::channel::<()>();
    let watched = Arc::clone(&control);
    super::super::spawn("pairing limit", move || {
        if hears.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            watched.abort();
        }
    });
    let mut buffer = [0; 4096];
    let mut result = Ok(());
    loop {
        while let (Ok(()), Some(event)) = (&result, side.next_event()) {
            result = act(side, event);
        }
        // What a side says that gives up is said, too.
        let said = write(&mut *writer, &side.take_output());
        if result.is_err() || side.is_paired() {
            break;
        }
        let read = match said.and_then(|()| reader.read(&mut buffer)) {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!("a pairing was cut: {}", error.to_string().escape_debug());
                0
            }
        };
        let heard = if read == 0 { side.end() } else { side.receive(&buffer[..read]) };
        result = heard.map_err(E::from);
        if read == 0 {
            break;
        }
    }
    drop(over);
    result
}

fn write(writer: &mut dyn io::Write, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).and_then(|()| writer.flush())
}
