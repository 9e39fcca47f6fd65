//! Time: points in time with nanoseconds, and where they come from.
//!
//! Nothing below the command line asks the operating system for the time; it is handed a [`Clock`].

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The computer's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// A clock that a test moves.
#[derive(Debug, Default)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that stands at `secs` after the epoch.
    pub fn at(secs: i64) -> Self {
        Self(Mutex::new(Timestamp::new(secs, 0)))
    }

    /// Moves the clock on by `secs`.
    pub fn advance(&self, secs: i64) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).secs += secs;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn counts_backwards_before_the_epoch() {
        let time = UNIX_EPOCH - Duration::new(1, 250_000_000);
        assert_eq!(Timestamp::from(time), Timestamp::new(-2, 750_000_000));
    }

    #[test]
    fn moves_only_when_told() {
        let clock = ManualClock::at(100);
        clock.advance(5);
        assert_eq!(clock.now(), Timestamp::new(105, 0));
    }
}
