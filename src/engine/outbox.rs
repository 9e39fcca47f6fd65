//! What waits to be written to the other side.
//!
//! One thread writes; everybody else puts bytes in. Answers (acknowledgements, faults) are never held up, or two sides
//! that both send much would wait for each other for ever; bundle data is, so that memory is bounded.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that may wait before who sends bundle data has to.
const ROOM: usize = 1 << 20;

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// No more will come.
    closed: bool,
    /// The writer has failed: nothing that is put in will arrive.
    broken: bool,
}

#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts bytes in. Never waits.
    pub(crate) fn push(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let mut state = self.lock();
            state.bytes += bytes.len();
            state.waiting.push_back(bytes);
            self.changed.notify_all();
        }
    }

    /// Waits until there is room for more bundle data. `false`: the connection is gone.
    pub(crate) fn wait_for_room(&self) -> bool {
        let mut state = self.lock();
        while state.bytes > ROOM && !state.broken {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.broken
    }

    /// Nobody need wait for room any more: the exchange has failed.
    pub(crate) fn break_off(&self) {
        self.lock().broken = true;
        self.changed.notify_all();
    }

    /// Lets the writer end once everything is written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Writes what is put in, until the outbox is closed and empty.
    pub(crate) fn drain(&self, out: &mut dyn Write) -> io::Result<()> {
        let result = self.write_all(out);
        let mut state = self.lock();
        state.broken = true;
        state.waiting.clear();
        state.bytes = 0;
        self.changed.notify_all();
        result
    }

    fn write_all(&self, out: &mut dyn Write) -> io::Result<()> {
        loop {
            let next = {
                let mut state = self.lock();
                loop {
                    if let Some(next) = state.waiting.pop_front() {
                        break Some(next);
                    }
                    if state.closed {
                        break None;
                    }
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let Some(bytes) = next else { return out.flush() };
            out.write_all(&bytes)?;
            let mut state = self.lock();
            state.bytes -= bytes.len();
            let idle = state.waiting.is_empty();
            self.changed.notify_all();
            drop(state);
            if idle {
                out.flush()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A writer that hands on what it gets, one piece at a time.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn answers_are_not_held_up_by_data() {
        let outbox = Outbox::default();
        let (sender, receiver) = mpsc::sync_channel(0);
        std::thread::scope(|scope| {
            scope.spawn(|| outbox.drain(&mut Slow(sender)));
            outbox.push(vec![0; ROOM + 2]);
            outbox.push(vec![1]); // Returns, though nobody reads.
            outbox.close();
            assert_eq!(receiver.recv().map(|bytes| bytes.len()), Ok(ROOM + 2));
            assert_eq!(receiver.recv(), Ok(vec![1]));
        });
    }

    #[test]
    fn who_waits_for_room_hears_of_a_lost_connection() {
        let outbox = Outbox::default();
        let (sender, receiver) = mpsc::sync_channel(0);
        drop(receiver);
        outbox.push(vec![0; ROOM + 1]);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| outbox.drain(&mut Slow(sender)));
            assert!(!outbox.wait_for_room());
            assert!(writer.join().expect("no panic").is_err());
        });
    }
}
