//! A day in a minute: three daemons in a line, whose clock the test moves. Links, files and repositories are real.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use foldersync::clock::{Clock as _, ManualClock};
use foldersync::config::Home;
use foldersync::daemon::{Daemon, DaemonOptions, Order};
use foldersync::engine::Context;
use foldersync::monitor::Silent;

use super::chance::Chance;
use super::devices::{Devices, Tree};

/// 08:00 on 2026-11-21, UTC.
const MORNING: i64 = 1_795_248_000;
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
/// How long anything may take, in real time.
const LIMIT: Duration = Duration::from_mins(1);

type Running = (Sender<Order>, JoinHandle<()>);

struct Day {
    devices: Devices,
    clock: Arc<ManualClock>,
    running: Vec<Option<Running>>,
    chance: Chance,
    edits: usize,
}

impl Day {
    fn start(&mut self, at: usize) {
        let context = Context {
            clock: self.clock.clone(),
            monitor: Arc::new(Silent),
            threads: 1,
            zone: jiff::tz::TimeZone::UTC,
            guards: foldersync::guard::Guards::default(),
        };
        let options = DaemonOptions { loopback_only: true, relay_port: None };
        let daemon = Daemon::start(&Home::at(self.devices.home(at)), &context, options).expect("a daemon");
        let orders = daemon.orders();
        self.running[at] = Some((orders, std::thread::spawn(move || daemon.work(&|| {}))));
    }

    fn stop(&mut self, at: usize) {
        let (orders, thread) = self.running[at].take().expect("it runs");
        orders.send(Order::Stop).expect("it listens");
        thread.join().expect("it ends");
    }

    /// Lets the clock tick until the folders are so.
    fn until(&self, what: &str, so: impl Fn(&[Tree]) -> bool) {
        let began = Instant::now();
        loop {
            let trees: Vec<Tree> = (0..3).map(|at| self.devices.tree(at)).collect();
            if so(&trees) {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{what}: {:?}", trees.iter().map(Tree::keys).collect::<Vec<_>>());
            self.clock.advance(Duration::from_millis(500));
            sleep(Duration::from_millis(2));
        }
    }

    /// Lets half an hour pass, with time to act on it.
    fn half_an_hour(&self) {
        self.half_minutes(60);
    }

    fn half_minutes(&self, count: i64) {
        for _ in 0..count {
            self.clock.advance(Duration::from_secs(30));
            sleep(Duration::from_millis(3));
        }
    }

    /// Lets the rest of the hour pass; which one begins then, counted from the first midnight.
    fn next_hour(&self) -> i64 {
        let since = self.clock.now().secs - MORNING;
        let rest = (3600 - since % 3600) % 3600;
        self.half_minutes(rest / 30);
        self.clock.advance(Duration::from_secs(u64::try_from(rest % 30).expect("below thirty")));
        8 + (since + rest) / 3600
    }

    /// Changes, adds or removes a file.
    fn edit(&mut self, at: usize) {
        let tree = self.devices.tree(at);
        let name = format!("folder {}/file {}", self.chance.below(3), self.chance.below(6));
        if tree.contains_key(&name) && self.chance.below(4) == 0 {
            self.devices.remove(at, &name);
        } else {
            self.edits += 1;
            self.devices.write(at, &name, &format!("edit {} on {at}\n", self.edits));
        }
    }
}

#[test]
fn a_day_with_windows_a_pause_and_restarts_ends_in_step() {
    let devices = Devices::new(&["a", "b", "c"]);
    // C is there by day only, and every twenty minutes.
    let by_day = "every = \"20m\"\nfrom = \"08:00\"\nto = \"20:00\"\n";
    devices.connect_so(&[((A, B), ""), ((B, C), by_day)]);
    let clock = Arc::new(ManualClock::at(MORNING));
    let mut day = Day { devices, clock, running: vec![None, None, None], chance: Chance::new(24), edits: 0 };
    (0..3).for_each(|at| day.start(at));
    let mut has_paused = false;
    loop {
        // A slow machine may have needed more of the hours than one.
        let hour = day.next_hour();
        if hour > 33 {
            break;
        }
        let is_day = !(20..32).contains(&hour);
        let is_paused = (12..14).contains(&hour);
        if is_paused && !has_paused {
            day.devices.pause(A, "2026-11-21T14:00:00Z");
            let (told, done) = channel();
            day.running[A].as_ref().expect("it runs").0.send(Order::Reload(Some(told))).expect("it listens");
            done.recv().expect("an answer").expect("it is read");
            has_paused = true;
        }
        // Somebody is away for a while now and then.
        let away = (hour % 5 == 0).then_some([A, B, C][usize::try_from(hour / 5 % 3).expect("one of three")]);
        if let Some(away) = away {
            day.stop(away);
        }
        // What is made in the last hour of the window might come too late.
        for _ in 0..if hour == 19 { 0 } else { 3 } {
            let at = day.chance.below(3);
            day.edit(at);
        }
        if let Some(away) = away {
            day.start(away);
        }
        let (before_a, before_c) = (day.devices.tree(A), day.devices.tree(C));
        day.half_an_hour();
        if is_paused {
            assert_eq!(day.devices.tree(A), before_a, "a paused folder is left alone");
            day.until("b and c are equal while a rests", |trees| trees[B] == trees[C]);
        } else if is_day {
            day.until("all are equal by day", |trees| trees[A] == trees[B] && trees[B] == trees[C]);
        } else {
            assert_eq!(day.devices.tree(C), before_c, "nothing comes outside the window, at {hour}:30");
            day.until("a and b are equal by night", |trees| trees[A] == trees[B]);
        }
    }
    assert!(has_paused);
    (0..3).for_each(|at| day.stop(at));
    day.devices.sound();
}
