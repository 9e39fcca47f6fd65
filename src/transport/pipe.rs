//! Two sides in one process: a bounded pipe each way.
//!
//! A full pipe makes its writer wait, an empty one its reader; each is woken only when it does wait. Bytes are copied
//! twice, in pieces as large as the two sides' buffers are.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Connection, Control, TransportError};

/// How many bytes [`pipe`] holds each way.
pub const PIPE_CAPACITY: usize = 1 << 20;

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about two sides")]
struct State {
    bytes: VecDeque<u8>,
    reader_gone: bool,
    writer_gone: bool,
    aborted: bool,
    reader_waits: bool,
    writer_waits: bool,
}

/// One direction.
struct Channel {
    capacity: usize,
    state: Mutex<State>,
    readable: Condvar,
    writable: Condvar,
}

impl Channel {
    fn new(capacity: usize) -> Arc<Self> {
        let state = State { bytes: VecDeque::with_capacity(capacity), ..State::default() };
        Arc::new(Self { capacity, state: Mutex::new(state), readable: Condvar::new(), writable: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes who is there, and wakes both sides to see it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.readable.notify_all();
        self.writable.notify_all();
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was broken off")
}

struct PipeReader(Arc<Channel>);

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let channel = &*self.0;
        let mut state = channel.lock();
        while state.bytes.is_empty() && !state.writer_gone && !state.aborted {
            state.reader_waits = true;
            state = channel.readable.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.reader_waits = false;
        if state.aborted {
            return Err(aborted());
        }
        let mut count = 0;
        while count < buffer.len() && !state.bytes.is_empty() {
            count += state.bytes.read(&mut buffer[count..])?;
        }
        if std::mem::take(&mut state.writer_waits) {
            channel.writable.notify_one();
        }
        Ok(count)
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.reader_gone = true;
            state.bytes = VecDeque::new();
        });
    }
}

struct PipeWriter(Arc<Channel>);

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let channel = &*self.0;
        let mut state = channel.lock();
        while state.bytes.len() == channel.capacity && !state.reader_gone && !state.aborted {
            state.writer_waits = true;
            state = channel.writable.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writer_waits = false;
        if state.aborted {
            return Err(aborted());
        }
        if state.reader_gone {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the other side has closed the connection"));
        }
        let count = bytes.len().min(channel.capacity - state.bytes.len());
        state.bytes.extend(&bytes[..count]);
        if std::mem::take(&mut state.reader_waits) {
            channel.readable.notify_one();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.0.change(|state| state.writer_gone = true);
    }
}

struct PipeControl([Arc<Channel>; 2]);

impl Control for PipeControl {
    fn abort(&self) {
        for channel in &self.0 {
            channel.change(|state| state.aborted = true);
        }
    }

    fn finish(&self) -> Result<(), TransportError> {
        Ok(())
    }
}

/// The two ends of a pipe that holds [`PIPE_CAPACITY`] bytes each way.
pub fn pipe(about: &str) -> (Connection, Connection) {
    pipe_of(PIPE_CAPACITY, about)
}

/// The two ends of a pipe that holds `capacity` bytes (at least one) each way. Either end's control breaks off both.
pub fn pipe_of(capacity: usize, about: &str) -> (Connection, Connection) {
    let (there, back) = (Channel::new(capacity.max(1)), Channel::new(capacity.max(1)));
    let control: Arc<dyn Control> = Arc::new(PipeControl([Arc::clone(&there), Arc::clone(&back)]));
    let end = |reads: &Arc<Channel>, writes: &Arc<Channel>| Connection {
        reader: Box::new(PipeReader(Arc::clone(reads))),
        writer: Box::new(PipeWriter(Arc::clone(writes))),
        about: about.to_owned(),
        control: Arc::clone(&control),
    };
    (end(&back, &there), end(&there, &back))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_was_written_before_the_writer_went_is_read() {
        let (mut a, mut b) = pipe("test");
        a.writer.write_all(b"last words").unwrap();
        drop(a);
        let mut text = String::new();
        b.reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last words");
        assert_eq!(b.writer.write(b"anybody?").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_full_pipe_takes_no_more_until_it_is_read() {
        let (mut a, mut b) = pipe_of(4, "test");
        assert_eq!(a.writer.write(b"abcdef").unwrap(), 4);
        let writer = thread::spawn(move || a.writer.write_all(b"ef"));
        let mut text = String::new();
        b.reader.read_to_string(&mut text).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(text, "abcdef");
    }

    #[test]
    fn a_writer_that_waits_learns_that_its_reader_has_gone() {
        let (mut a, b) = pipe_of(4, "test");
        let writer = thread::spawn(move || a.writer.write_all(b"more than it holds"));
        drop(b.reader);
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn either_end_breaks_off_both() {
        let (mut a, mut b) = pipe("test");
        let reader = thread::spawn(move || a.reader.read(&mut [0; 8]).unwrap_err().kind());
        b.control.abort();
        assert_eq!(reader.join().unwrap(), io::ErrorKind::ConnectionAborted);
        assert_eq!(b.writer.write(b"x").unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
