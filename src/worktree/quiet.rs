//! When a changed path is looked at: not while it is being written, and not much later either.
//!
//! A path waits until nothing has happened to it for a moment (a shorter one when it was closed after it was written
//! to), but never longer than a maximum, however busy it is. What was made and is gone again before its time, as an
//! editor's temporary file that takes the place of another, goes along with the next path, so that it costs nothing.
//! Pure: the time is handed in, as the time since some beginning. Nothing that is noted is ever forgotten, and the
//! memory is bounded: too many waiting paths become everything.

use std::collections::BTreeMap;
use std::time::Duration;

use super::watch::{Dirty, Last, Seen};
use crate::path::SyncPath;

/// So many paths wait one by one.
const BOUND: usize = 20_000;

/// How long a path waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// For nothing to happen to it.
    pub quiet: Duration,
    /// The same, once it was closed after it was written to.
    pub closed: Duration,
    /// At most, since the first that happened to it.
    pub maximum: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(50), closed: Duration::from_millis(15), maximum: Duration::from_secs(10) }
    }
}

impl Delays {
    /// The delays with this quiet one; the others follow it.
    pub fn with_quiet(quiet: Duration) -> Self {
        let default = Self::default();
        Self { quiet, closed: default.closed.min(quiet), maximum: default.maximum.max(quiet) }
    }

    fn after(&self, seen: Seen) -> Duration {
        match seen {
            Seen { last: Last::Closed, created: false } => self.closed,
            // It came and went: it can wait for company.
            Seen { last: Last::Gone, created: true } => self.maximum,
            _ => self.quiet,
        }
    }
}

/// What is to be looked at now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// Nothing yet.
    Nothing,
    /// These paths, with what is below them, in their order; at least one.
    Paths(Vec<SyncPath>),
    /// The whole folder.
    Everything,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// The latest time at which it is ready.
    last_call: Duration,
    due: Duration,
    seen: Seen,
}

/// Paths that wait for their time.
#[derive(Debug, Default)]
pub struct Quiet {
    delays: Delays,
    waiting: BTreeMap<SyncPath, Waiting>,
    everything: Option<Duration>,
}

impl Quiet {
    /// Nothing waits yet.
    pub fn new(delays: Delays) -> Self {
        Self { delays, ..Self::default() }
    }

    /// Notes what a watch has told at `now`.
    pub fn note(&mut self, now: Duration, dirty: Dirty) {
        if dirty.everything {
            self.everything.get_or_insert(now + self.delays.quiet);
        }
        for (path, seen) in dirty.paths {
            self.touch(now, path, seen);
        }
    }

    fn touch(&mut self, now: Duration, path: SyncPath, seen: Seen) {
        let delays = self.delays;
        self.waiting
            .entry(path)
            .and_modify(|waiting| {
                waiting.seen = waiting.seen.then(seen);
                waiting.due = (now + delays.after(waiting.seen)).min(waiting.last_call);
            })
            .or_insert_with(|| {
                let last_call = now + delays.maximum;
                Waiting { last_call, due: (now + delays.after(seen)).min(last_call), seen }
            });
        if self.waiting.len() > BOUND {
            let first = self.waiting.values().map(|waiting| waiting.due).min().unwrap_or(now);
            self.waiting.clear();
            self.everything = Some(self.everything.map_or(first, |due| due.min(first)));
        }
    }

    /// Puts back what was ready and could not be looked at: it is ready again at `then`.
    pub fn put_back(&mut self, then: Duration, ready: Ready) {
        match ready {
            Ready::Nothing => {}
            Ready::Everything => self.everything = Some(self.everything.map_or(then, |due| due.min(then))),
            Ready::Paths(paths) => {
                for path in paths {
                    let again = Waiting { last_call: then, due: then, seen: Seen::TOUCHED };
                    self.waiting.entry(path).and_modify(|waiting| waiting.due = waiting.due.min(then)).or_insert(again);
                }
            }
        }
    }

    /// What is ready at `now`. It is forgotten here: whoever fails with it puts it back.
    pub fn ready(&mut self, now: Duration) -> Ready {
        if self.everything.is_some_and(|due| due <= now) {
            self.everything = None;
            self.waiting.clear();
            return Ready::Everything;
        }
        if !self.waiting.values().any(|waiting| waiting.due <= now) {
            return Ready::Nothing;
        }
        let company = Seen { last: Last::Gone, created: true };
        let ready = |waiting: &Waiting| waiting.due <= now || waiting.seen == company;
        let paths: Vec<_> = self.waiting.extract_if(.., |_, waiting| ready(waiting)).map(|(path, _)| path).collect();
        Ready::Paths(paths)
    }

    /// When something will be ready, if nothing more happens; `None` while nothing waits.
    pub fn next_look(&self) -> Option<Duration> {
        self.waiting.values().map(|waiting| waiting.due).chain(self.everything).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const TOUCHED: Seen = Seen::TOUCHED;
    const CREATED: Seen = Seen { last: Last::Touched, created: true };
    const CLOSED: Seen = Seen { last: Last::Closed, created: false };
    const GONE: Seen = Seen { last: Last::Gone, created: false };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn path(text: &str) -> SyncPath {
        SyncPath::try_from(text).expect("a good path")
    }

    fn dirty(paths: &[(&str, Seen)]) -> Dirty {
        Dirty { paths: paths.iter().map(|(name, seen)| (path(name), *seen)).collect(), ..Dirty::default() }
    }

    fn paths(names: &[&str]) -> Ready {
        Ready::Paths(names.iter().map(|name| path(name)).collect())
    }

    #[test]
    fn a_path_is_ready_when_nothing_has_happened_to_it_for_a_moment() {
        let mut quiet = Quiet::default();
        assert_eq!((quiet.next_look(), quiet.ready(ms(0))), (None, Ready::Nothing));
        quiet.note(ms(0), dirty(&[("a", TOUCHED), ("b", TOUCHED)]));
        quiet.note(ms(30), dirty(&[("a", TOUCHED)]));
        assert_eq!(quiet.next_look(), Some(ms(50)));
        assert_eq!(quiet.ready(ms(50)), paths(&["b"]));
        assert_eq!(quiet.ready(ms(79)), Ready::Nothing);
        assert_eq!(quiet.ready(ms(80)), paths(&["a"]));
        assert_eq!(quiet.next_look(), None);
    }

    #[test]
    fn what_was_closed_is_ready_sooner_and_what_is_new_is_not() {
        let mut quiet = Quiet::default();
        quiet.note(ms(0), dirty(&[("a", TOUCHED), ("new", CREATED)]));
        quiet.note(ms(10), dirty(&[("a", CLOSED), ("new", CLOSED)]));
        assert_eq!(quiet.ready(ms(25)), paths(&["a"]));
        assert_eq!(quiet.next_look(), Some(ms(60)));
    }

    #[test]
    fn what_is_always_busy_is_ready_in_the_end() {
        let mut quiet = Quiet::default();
        let mut now = 0;
        while quiet.ready(ms(now)) == Ready::Nothing {
            quiet.note(ms(now), dirty(&[("log", TOUCHED)]));
            now += 10;
        }
        assert_eq!(now, 10_000);
    }

    #[test]
    fn an_atomic_save_is_one_change() {
        let mut quiet = Quiet::default();
        quiet.note(ms(0), dirty(&[("a.tmp", CREATED)]));
        quiet.note(ms(5), dirty(&[("a.tmp", CLOSED)]));
        quiet.note(ms(6), dirty(&[("a.tmp", GONE), ("a", TOUCHED)]));
        assert_eq!(quiet.next_look(), Some(ms(56)));
        assert_eq!(quiet.ready(ms(56)), paths(&["a", "a.tmp"]));
        assert_eq!(quiet.next_look(), None);
    }

    #[test]
    fn what_stood_there_before_and_is_gone_does_not_wait_for_company() {
        let mut quiet = Quiet::default();
        quiet.note(ms(0), dirty(&[("a", GONE)]));
        assert_eq!(quiet.ready(ms(50)), paths(&["a"]));
    }

    #[test]
    fn everything_takes_all_along() {
        let mut quiet = Quiet::default();
        quiet.note(ms(0), dirty(&[("a", TOUCHED)]));
        quiet.note(ms(10), Dirty { everything: true, ..Dirty::default() });
        quiet.note(ms(40), Dirty { everything: true, ..dirty(&[]) });
        assert_eq!(quiet.ready(ms(50)), paths(&["a"]));
        assert_eq!(quiet.ready(ms(60)), Ready::Everything);
        assert_eq!(quiet.next_look(), None);
    }

    #[test]
    fn what_is_put_back_comes_again() {
        let mut quiet = Quiet::default();
        quiet.put_back(ms(500), paths(&["a"]));
        quiet.put_back(ms(700), Ready::Everything);
        assert_eq!(quiet.ready(ms(499)), Ready::Nothing);
        assert_eq!(quiet.ready(ms(500)), paths(&["a"]));
        assert_eq!(quiet.ready(ms(700)), Ready::Everything);
    }

    #[test]
    fn too_many_become_everything() {
        let mut quiet = Quiet::default();
        for n in 0..=BOUND {
            quiet.note(ms(n as u64 / 1000), dirty(&[(&format!("{n}"), TOUCHED)]));
        }
        assert!(quiet.waiting.len() < BOUND);
        assert_eq!(quiet.ready(ms(50)), Ready::Everything);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_waits_longer_than_the_maximum(
            events in proptest::collection::vec((0u64..30, 0u8..8, 0u8..3, any::<bool>(), 0u8..40), 1..200),
        ) {
            let delays = Delays { quiet: ms(50), closed: ms(15), maximum: ms(200) };
            let mut quiet = Quiet::new(delays);
            // What waits, and since when.
            let mut owed: BTreeMap<SyncPath, Duration> = BTreeMap::new();
            let mut now = ms(0);
            let settle = |quiet: &mut Quiet, owed: &mut BTreeMap<SyncPath, Duration>, now: Duration| {
                match quiet.ready(now) {
                    Ready::Nothing => {}
                    Ready::Everything => owed.clear(),
                    Ready::Paths(paths) => {
                        assert!(!paths.is_empty());
                        let distinct: BTreeSet<_> = paths.iter().collect();
                        assert_eq!(distinct.len(), paths.len());
                        for path in paths {
                            assert!(owed.remove(&path).is_some(), "{path} was noted");
                        }
                    }
                }
                assert!(owed.values().all(|since| *since + delays.maximum > now));
                assert!(owed.is_empty() || quiet.next_look().is_some_and(|next| next > now));
            };
            for (pause, name, last, created, everything) in events {
                let then = now + ms(pause);
                while let Some(next) = quiet.next_look().filter(|next| *next <= then) {
                    now = next;
                    settle(&mut quiet, &mut owed, now);
                }
                now = then;
                let last = [Last::Touched, Last::Closed, Last::Gone][usize::from(last)];
                let path = path(&format!("{name}"));
                let mut told = Dirty { everything: everything == 0, ..Dirty::default() };
                told.paths.insert(path.clone(), Seen { last, created });
                quiet.note(now, told);
                owed.entry(path).or_insert(now);
            }
            while let Some(next) = quiet.next_look() {
                settle(&mut quiet, &mut owed, next);
            }
            prop_assert!(owed.is_empty());
        }
    }
}
