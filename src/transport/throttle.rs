//! Bandwidth limits: so many bytes per second, for one connection or for many together.
//!
//! A [`Limiter`] only does the sums: when the bytes asked for are due. The waiting is done by the streams of a limited
//! connection, in pieces small enough that what is sent stays even, and it ends when the connection is broken off or
//! the limit changes. A reader that waits lets the windows below fill up, and so slows the other side down.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Connection, Control, TransportError};

/// How much earlier than due bytes may go, so that an idle connection starts at once.
const BURST: Duration = Duration::from_millis(100);
/// How long a piece should take at the limit.
const PIECE_TIME: Duration = Duration::from_millis(50);
/// The least and the most bytes in a piece.
const PIECE: (usize, usize) = (512, 64 << 10);
/// How soon one who waits sees that the limit has changed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The sums of a limit: when the bytes that were let through so far are paid for.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Bytes per second.
    rate: Option<u64>,
    paid: Option<Instant>,
    /// Counts the changes of the rate; debts do not outlive them.
    era: u64,
}

impl Bucket {
    fn set_rate(&mut self, rate: Option<u64>) {
        let rate = rate.map(|rate| rate.max(1));
        if rate != self.rate {
            *self = Self { rate, paid: None, era: self.era + 1 };
        }
    }

    /// Takes `bytes` into account at `now`; tells when they are due.
    fn charge(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let rate = self.rate?;
        let start = self.paid.map_or(now, |paid| paid.max(now));
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // A century is as good as for ever.
        self.paid = Some(start.checked_add(cost).unwrap_or(start + Duration::from_hours(24 * 36_525)));
        Some(start.checked_sub(BURST).unwrap_or(now)).filter(|due| *due > now)
    }

    /// How many bytes are taken at once.
    fn piece(&self) -> usize {
        let Some(rate) = self.rate else { return PIECE.1 };
        let bytes = u128::from(rate) * PIECE_TIME.as_millis() / 1000;
        usize::try_from(bytes).unwrap_or(PIECE.1).clamp(PIECE.0, PIECE.1)
    }
}

/// A limit, shared by all who keep to it together. Clone the `Arc`.
#[derive(Default)]
pub struct Limiter(Mutex<Bucket>);

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("rate", &self.rate()).finish()
    }
}

impl Limiter {
    /// A limit of so many bytes per second. None: no limit.
    pub fn new(rate: Option<u64>) -> Self {
        let limiter = Self::default();
        limiter.set_rate(rate);
        limiter
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limit in bytes per second. None: no limit.
    pub fn rate(&self) -> Option<u64> {
        self.lock().rate
    }

    /// Changes the limit, for those who wait now, too. None: no limit; 0 counts as 1.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.lock().set_rate(rate);
    }
}

/// What ends the waiting of a connection.
#[derive(Default)]
struct Brake {
    off: Mutex<bool>,
    changed: Condvar,
}

impl Brake {
    fn abort(&self) {
        *self.off.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until then, for so long at most. Fails when the connection is broken off.
    fn wait_until(&self, due: Instant) -> io::Result<()> {
        let off = self.off.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = due.saturating_duration_since(Instant::now()).min(LOOK_AGAIN);
        let waited = self.changed.wait_timeout_while(off, patience, |off| !*off);
        let (off, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *off {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was broken off"));
        }
        Ok(())
    }
}

/// One direction under limits.
struct Limited<S> {
    inner: S,
    limits: Vec<Arc<Limiter>>,
    brake: Arc<Brake>,
}

impl<S> Limited<S> {
    fn piece(&self) -> usize {
        self.limits.iter().map(|limit| limit.lock().piece()).min().unwrap_or(usize::MAX)
    }

    /// Takes the bytes into account everywhere, and waits until they are due everywhere.
    fn pay(&self, bytes: usize) -> io::Result<()> {
        let now = Instant::now();
        let dues: Vec<_> = self
            .limits
            .iter()
            .filter_map(|limit| {
                let mut bucket = limit.lock();
                let due = bucket.charge(now, bytes)?;
                Some((limit, bucket.era, due))
            })
            .collect();
        for (limit, era, due) in dues {
            while Instant::now() < due && limit.lock().era == era {
                self.brake.wait_until(due)?;
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.piece().min(buffer.len());
        let count = self.inner.read(&mut buffer[..piece])?;
        self.pay(count)?;
        Ok(count)
    }
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = self.piece().min(bytes.len());
        let count = self.inner.write(&bytes[..piece])?;
        self.pay(count)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Ends the waiting, too.
struct LimitedControl {
    inner: Arc<dyn Control>,
    brake: Arc<Brake>,
}

impl Control for LimitedControl {
    fn abort(&self) {
        self.brake.abort();
        self.inner.abort();
    }

    fn finish(&self) -> Result<(), TransportError> {
        self.inner.finish()
    }
}

impl Connection {
    /// The same connection, kept to limits: all of `up` for what is written, all of `down` for what is read. A piece
    /// that was read or written is held until it is due, so the last of a stream is late by one piece at most.
    #[must_use]
    pub fn limited(self, up: Vec<Arc<Limiter>>, down: Vec<Arc<Limiter>>) -> Self {
        let brake = Arc::<Brake>::default();
        Self {
            reader: Box::new(Limited { inner: self.reader, limits: down, brake: Arc::clone(&brake) }),
            writer: Box::new(Limited { inner: self.writer, limits: up, brake: Arc::clone(&brake) }),
            about: self.about,
            control: Arc::new(LimitedControl { inner: self.control, brake }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{pipe, pipe_of};
    use super::*;
    use std::thread;

    fn at_rate(rate: u64) -> Bucket {
        let mut bucket = Bucket::default();
        bucket.set_rate(Some(rate));
        bucket
    }

    #[test]
    fn bytes_are_due_at_the_rate() {
        let start = Instant::now();
        let mut bucket = at_rate(1_000_000);
        let mut now = start;
        for _ in 0..100 {
            if let Some(due) = bucket.charge(now, 100_000) {
                now = due;
            }
        }
        // Ten million bytes take ten seconds, but for the burst and the piece that is being paid for.
        let took = now - start;
        assert!(took > Duration::from_millis(9_700) && took <= Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let start = Instant::now();
        let mut bucket = at_rate(1000);
        assert_eq!(bucket.charge(start, 1000), None);
        let later = start + Duration::from_hours(1);
        assert_eq!(bucket.charge(later, 1000), None);
        assert_eq!(bucket.charge(later, 1), Some(later + Duration::from_millis(900)));
    }

    #[test]
    fn those_who_share_a_limit_are_served_in_turn() {
        let now = Instant::now();
        let mut bucket = at_rate(1000);
        let dues: Vec<_> = (0..4).map(|_| bucket.charge(now, 500)).collect();
        let at = |millis| Some(now + Duration::from_millis(millis));
        assert_eq!(dues, [None, at(400), at(900), at(1400)]);
    }

    #[test]
    fn a_new_rate_forgives_what_is_owed_and_none_is_no_limit() {
        let now = Instant::now();
        let mut bucket = at_rate(1);
        assert_eq!(bucket.charge(now, usize::MAX), None);
        assert!(bucket.charge(now, usize::MAX).is_some());
        bucket.set_rate(Some(2));
        assert_eq!(bucket.charge(now, 1), None);
        bucket.set_rate(None);
        assert_eq!((bucket.charge(now, usize::MAX), bucket.charge(now, usize::MAX)), (None, None));
        bucket.set_rate(Some(0));
        assert_eq!(bucket.rate, Some(1));
    }

    #[test]
    fn pieces_are_small_at_low_rates() {
        assert_eq!(at_rate(1).piece(), 512);
        assert_eq!(at_rate(100_000).piece(), 5000);
        assert_eq!(at_rate(u64::MAX).piece(), 64 << 10);
        assert_eq!(Bucket::default().piece(), 64 << 10);
    }

    #[test]
    fn a_limited_connection_carries_the_same_bytes_no_faster_than_allowed() {
        let (near, far) = pipe_of(4 << 10, "test");
        let limit = Arc::new(Limiter::new(Some(4 << 20)));
        let mut near = near.limited(vec![limit], Vec::new());
        let sent: Vec<u8> = (0..1_u32 << 20).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let since = Instant::now();
        let mut received = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                near.writer.write_all(&sent).unwrap();
                drop(near);
            });
            let mut reader = far.reader;
            reader.read_to_end(&mut received).unwrap();
        });
        assert!(received == sent);
        // A quarter of a second, but for the burst and the last piece.
        assert!(since.elapsed() > Duration::from_millis(100), "{:?}", since.elapsed());
    }

    #[test]
    fn breaking_off_ends_the_waiting() {
        let (near, far) = pipe("test");
        let mut near = near.limited(vec![Arc::new(Limiter::new(Some(1)))], Vec::new());
        let control = Arc::clone(&near.control);
        let writing = thread::spawn(move || near.writer.write_all(&[0; 4096]).unwrap_err().kind());
        control.abort();
        assert_eq!(writing.join().unwrap(), io::ErrorKind::ConnectionAborted);
        drop(far);
    }

    #[test]
    fn lifting_the_limit_ends_the_waiting() {
        let (near, mut far) = pipe("test");
        let limit = Arc::new(Limiter::new(Some(1)));
        let mut near = near.limited(Vec::new(), vec![Arc::clone(&limit), Arc::new(Limiter::new(None))]);
        far.writer.write_all(&[7; 4096]).unwrap();
        drop(far);
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            near.reader.read_to_end(&mut all).map(|_| all.len()).unwrap()
        });
        limit.set_rate(None);
        assert_eq!(reading.join().unwrap(), 4096);
    }
}
