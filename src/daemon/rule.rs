//! When to begin an exchange: the rule, without threads, clocks or connections.
//!
//! Both sides of a link follow it, each with what it knows. It makes one of them begin, soon; where that one does not,
//! the other does after a while. It promises that two sides that lack something of each other, and may send it, do not
//! both wait for ever.

use std::time::Duration;

use crate::id::CommitId;

/// How long the side that lacks a revision may take to fetch it, before the one that has it sees to it.
const FETCH: Duration = Duration::from_secs(2);
/// How long the device with the higher key waits for the other to begin, when both have news.
const YIELD: Duration = Duration::from_millis(300);
/// How long a revision that is already being fetched from somebody else is waited for.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// The first pause after a failure, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// What this side knows of one folder and one peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// The head here.
    pub(super) ours: Option<CommitId>,
    /// The head there, as far as was heard.
    pub(super) theirs: Option<CommitId>,
    /// Whether their head is among our revisions.
    pub(super) have_theirs: bool,
    /// Whether our head is among theirs, as far as is known.
    pub(super) they_have_ours: bool,
    /// What may be sent, and received.
    pub(super) sends: bool,
    pub(super) receives: bool,
    /// Whether our key is the lower one.
    pub(super) lower: bool,
    /// Whether somebody else is being asked for their head.
    pub(super) fetched_elsewhere: bool,
    /// For how long all this has been so.
    pub(super) since: Duration,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Both have what they may have.
    InStep,
    /// Begin an exchange now.
    Begin,
    /// Look again after this long: the other side should begin, or somebody else brings it.
    Wait(Duration),
}

/// What a direction keeps from the other side, or from this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptBack {
    /// What is new here.
    Ours,
    /// What is new there.
    Theirs,
}

impl Known {
    /// What is not exchanged because it may not be.
    pub(super) fn kept_back(&self) -> Option<KeptBack> {
        if !self.receives && self.theirs.is_some() && !self.have_theirs {
            Some(KeptBack::Theirs)
        } else if !self.sends && self.ours.is_some() && !self.they_have_ours {
            Some(KeptBack::Ours)
        } else {
            None
        }
    }

    /// What to do now.
    pub(super) fn next(&self) -> Next {
        if self.ours == self.theirs {
            return Next::InStep;
        }
        let lacking = self.receives && self.theirs.is_some() && !self.have_theirs;
        let owing = self.sends && self.ours.is_some() && !self.they_have_ours;
        let patience = match (lacking, owing) {
            (false, false) => return Next::InStep,
            (true, _) if self.fetched_elsewhere => ELSEWHERE,
            (true, true) if !self.lower => YIELD,
            (true, _) => Duration::ZERO,
            (false, true) => FETCH,
        };
        match patience.checked_sub(self.since) {
            Some(rest) if rest > Duration::ZERO => Next::Wait(rest),
            _ => Next::Begin,
        }
    }
}

/// How long to wait after so many failures in a row; `chance`, from 0 to 1, spreads those who failed together.
pub(super) fn backoff(failures: u32, chance: f64) -> Duration {
    let doubled = BACKOFF.0.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(BACKOFF.1).mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the fields have it")]
    fn head(n: u8) -> Option<CommitId> {
        Some(CommitId::from_bytes([n; 20]))
    }

    fn known(have_theirs: bool, they_have_ours: bool) -> Known {
        Known {
            ours: head(1),
            theirs: head(2),
            have_theirs,
            they_have_ours,
            sends: true,
            receives: true,
            lower: false,
            fetched_elsewhere: false,
            since: Duration::ZERO,
        }
    }

    #[test]
    fn who_lacks_something_fetches_it_at_once() {
        assert_eq!(known(false, true).next(), Next::Begin);
        assert_eq!(known(true, true).next(), Next::InStep);
        assert_eq!(Known { theirs: head(1), ..known(false, false) }.next(), Next::InStep);
    }

    #[test]
    fn who_has_more_waits_to_be_asked_but_not_for_ever() {
        let owing = known(true, false);
        assert_eq!(owing.next(), Next::Wait(FETCH));
        assert_eq!(Known { since: FETCH, ..owing }.next(), Next::Begin);
        assert_eq!(Known { sends: false, ..owing }.next(), Next::InStep);
    }

    #[test]
    fn of_two_that_both_lack_the_lower_key_begins() {
        let both = known(false, false);
        assert_eq!(Known { lower: true, ..both }.next(), Next::Begin);
        assert_eq!(both.next(), Next::Wait(YIELD));
        assert_eq!(Known { since: YIELD, ..both }.next(), Next::Begin);
    }

    #[test]
    fn nothing_is_fetched_twice_unless_it_does_not_come() {
        let elsewhere = Known { fetched_elsewhere: true, ..known(false, true) };
        assert_eq!(elsewhere.next(), Next::Wait(ELSEWHERE));
        assert_eq!(Known { since: ELSEWHERE, ..elsewhere }.next(), Next::Begin);
    }

    #[test]
    fn what_may_not_be_received_is_not_asked_for() {
        assert_eq!(Known { receives: false, ..known(false, true) }.next(), Next::InStep);
        assert_eq!(Known { receives: false, ..known(false, false) }.next(), Next::Wait(FETCH));
    }

    #[test]
    fn pauses_grow_to_a_minute_and_no_further() {
        assert_eq!(backoff(1, 0.5), Duration::from_secs(1));
        assert_eq!(backoff(3, 0.5), Duration::from_secs(4));
        assert_eq!(backoff(100, 0.5), Duration::from_mins(1));
        assert!(backoff(2, 0.0) < backoff(2, 1.0));
    }
}
