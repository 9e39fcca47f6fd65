//! Time: points in time with nanoseconds, and where they come from.
//!
//! What decides by the time is handed a [`Clock`], so that a test can move it: what time it is, how long something has
//! lasted, and how long is waited. (Only what waits for the disk, for another process or for the wire goes by the
//! computer's own.)

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time: seconds since 1970-01-01 UTC (negative before), and nanoseconds within that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since the epoch.
    pub secs: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// The point in time with these parts.
    pub const fn new(secs: i64, nanos: u32) -> Self {
        Self { secs, nanos }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::new(after.as_secs().try_into().unwrap_or(i64::MAX), after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let secs = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self::new(-secs, 0),
                    nanos => Self::new(-secs - 1, 1_000_000_000 - nanos),
                }
            }
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        const SECOND: i128 = 1_000_000_000;
        let nanos = time.as_nanosecond();
        Self::new(
            i64::try_from(nanos.div_euclid(SECOND)).expect("the calendar ends within some thousand years"),
            u32::try_from(nanos.rem_euclid(SECOND)).expect("a remainder is below its divisor"),
        )
    }
}

/// Fails beyond the years that the calendar has.
impl TryFrom<Timestamp> for jiff::Timestamp {
    type Error = jiff::Error;

    fn try_from(time: Timestamp) -> Result<Self, jiff::Error> {
        Self::new(time.secs, i32::try_from(time.nanos).unwrap_or(i32::MAX))
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// The moment now, to measure from: it never goes back, whatever becomes of [`Self::now`].
    fn instant(&self) -> Instant;

    /// How long a thread may rest of a pause of this length before it looks at this clock again.
    fn nap(&self, pause: Duration) -> Duration;
}

/// The next message, waited for at most this long by the clock.
pub fn receive<T>(clock: &dyn Clock, inbox: &Receiver<T>, limit: Duration) -> Result<T, RecvTimeoutError> {
    let until = clock.instant() + limit;
    loop {
        let rest = until.saturating_duration_since(clock.instant());
        match inbox.recv_timeout(clock.nap(rest)) {
            Err(RecvTimeoutError::Timeout) if clock.instant() < until => {}
            received => return received,
        }
    }
}

/// The computer's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn nap(&self, pause: Duration) -> Duration {
        pause
    }
}

/// A clock that a test moves.
#[derive(Debug)]
pub struct ManualClock {
    began: Instant,
    state: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// How often those who wait by this clock look at it.
    const LOOK: Duration = Duration::from_millis(2);

    /// A clock that stands at `secs` after the epoch.
    pub fn at(secs: i64) -> Self {
        Self { began: Instant::now(), state: Mutex::new((Timestamp::new(secs, 0), Duration::ZERO)) }
    }

    fn state(&self) -> MutexGuard<'_, (Timestamp, Duration)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let (now, passed) = &mut *self.state();
        *passed += by;
        let nanos = now.nanos + by.subsec_nanos();
        now.secs = now.secs.saturating_add_unsigned(by.as_secs()) + i64::from(nanos / 1_000_000_000);
        now.nanos = nanos % 1_000_000_000;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state().0
    }

    fn instant(&self) -> Instant {
        self.began + self.state().1
    }

    fn nap(&self, pause: Duration) -> Duration {
        pause.min(Self::LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn counts_backwards_before_the_epoch() {
        let time = UNIX_EPOCH - Duration::new(1, 250_000_000);
        assert_eq!(Timestamp::from(time), Timestamp::new(-2, 750_000_000));
    }

    #[test]
    fn moves_only_when_told() {
        let clock = ManualClock::at(100);
        let began = clock.instant();
        clock.advance(Duration::from_millis(5700));
        clock.advance(Duration::from_millis(300));
        assert_eq!(clock.now(), Timestamp::new(106, 0));
        assert_eq!(clock.instant() - began, Duration::from_secs(6));
    }

    #[test]
    fn who_waits_by_a_clock_waits_as_long_as_it_says() {
        let (clock, (send, inbox)) = (ManualClock::at(0), channel());
        std::thread::scope(|scope| {
            send.send(1).unwrap();
            assert_eq!(receive(&clock, &inbox, Duration::from_hours(1)), Ok(1));
            let waits = scope.spawn({
                let clock = &clock;
                move || receive(clock, &inbox, Duration::from_hours(1))
            });
            while !waits.is_finished() {
                clock.advance(Duration::from_mins(1));
                std::thread::yield_now();
            }
            assert_eq!(waits.join().unwrap(), Err(RecvTimeoutError::Timeout));
        });
    }
}
