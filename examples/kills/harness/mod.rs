//! Real crashes: the real program, killed or cut off from power at any moment, and what must hold afterwards.
//!
//! What is checked after each crash (`check`): nothing that stood in a folder is gone, git and foldersync find nothing
//! wrong, a peer has what it was said to have, the configuration is the old or the new one; and when the operation is
//! run again, everything is as if nobody had interrupted it, with nothing left over.

mod chance;
mod check;
mod disk;
mod kill;
mod operations;
mod power;
mod scenes;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chance::Chance;
pub(crate) use disk::Plant;
use kill::Ended;
pub(crate) use kill::strace_works;
use operations::{OPERATIONS, Operation};
use power::Replay;
use scenes::Scenes;
use world::Fault;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// So many kills at random moments.
    Random {
        /// How many that hit a running program.
        kills: u64,
    },
    /// A kill before each call that changes files.
    Exact,
    /// Power cuts: all states that one may leave, or so many of them.
    PowerLoss {
        /// How many of each operation at most.
        states: usize,
        /// What the program is made to look as if it had forgotten.
        plant: Option<Plant>,
    },
}

/// How it is done.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The program.
    pub(crate) program: PathBuf,
    /// Where the scenes are put up.
    pub(crate) dir: PathBuf,
    /// What is done.
    pub(crate) mode: Mode,
    /// What chance begins with.
    pub(crate) seed: u64,
    /// Only this case.
    pub(crate) case: Option<u64>,
    /// Only these operations; all, if there are none.
    pub(crate) operations: Vec<String>,
    /// How many cases at the same time.
    pub(crate) jobs: usize,
}

/// What was done with one operation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    /// Kills of a running program.
    pub(crate) killed: u64,
    /// Kills that came after its end.
    pub(crate) too_late: u64,
    /// Cases that went wrong.
    pub(crate) failed: u64,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// By operation.
    pub(crate) counts: BTreeMap<&'static str, Count>,
    /// What went wrong, and how to see it again.
    pub(crate) faults: Vec<String>,
}

impl Report {
    /// Of all operations together.
    pub(crate) fn total(&self) -> Count {
        self.counts.values().fold(Count::default(), |sum, count| Count {
            killed: sum.killed + count.killed,
            too_late: sum.too_late + count.too_late,
            failed: sum.failed + count.failed,
        })
    }

    /// A table of it.
    pub(crate) fn table(&self) -> String {
        let line = |name: &str, Count { killed, too_late, failed }: Count| {
            format!("{name:<16} {killed:>7} {too_late:>9} {failed:>7}\n")
        };
        let mut table = format!("{:<16} {:>7} {:>9} {:>7}\n", "operation", "killed", "too late", "failed");
        for (name, count) in &self.counts {
            table += &line(name, *count);
        }
        table + &line("all", self.total())
    }
}

/// How many cases may go wrong before it is enough.
const ENOUGH: u64 = 20;

/// One piece of work for a worker.
type Case<'a> = (&'static Operation, Box<dyn FnOnce(&mut Scenes) -> Result<Ended, Fault> + 'a>, String);

struct Run<'a> {
    options: &'a Options,
    tell: &'a (dyn Fn(&str) + Sync),
    report: Mutex<Report>,
    began: Instant,
    told: Mutex<Instant>,
}

/// Runs it. `tell` gets a line about the progress every few seconds.
pub(crate) fn run(options: &Options, tell: &(dyn Fn(&str) + Sync)) -> Result<Report, String> {
    let operations = chosen(&options.operations)?;
    let now = Instant::now();
    let run = Run { options, tell, report: Mutex::default(), began: now, told: Mutex::new(now) };
    match options.mode {
        Mode::Random { kills } => run.random(&operations, kills)?,
        Mode::Exact => {
            strace_works()?;
            run.exact(&operations)?;
        }
        Mode::PowerLoss { states, plant } => {
            strace_works()?;
            let of_all = |operation: &&Operation| power::OPERATIONS.contains(&operation.name);
            let operations = if options.operations.is_empty() {
                operations.into_iter().filter(of_all).collect()
            } else {
                operations
            };
            run.power_loss(&operations, states, plant)?;
        }
    }
    run.report.into_inner().map_err(|_| "a worker panicked".to_owned())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Operation>, String> {
    if names.is_empty() {
        return Ok(OPERATIONS.iter().collect());
    }
    let find = |name: &String| {
        let known = || OPERATIONS.iter().map(|operation| operation.name).collect::<Vec<_>>().join(", ");
        OPERATIONS
            .iter()
            .find(|operation| operation.name == name)
            .ok_or_else(|| format!("there is no operation `{name}`; there are {}", known()))
    };
    names.iter().map(find).collect()
}

impl Run<'_> {
    fn killed(&self) -> u64 {
        self.report.lock().map_or(0, |report| report.total().killed)
    }

    fn has_enough(&self) -> bool {
        self.report.lock().is_ok_and(|report| report.total().failed >= ENOUGH)
    }

    /// Works through cases with as many workers as wanted, until there are none or too many went wrong.
    fn work<'c>(&self, next: &(dyn Fn() -> Option<Case<'c>> + Sync)) -> Result<(), Fault> {
        std::thread::scope(|scope| {
            let worker = |number: usize| {
                let dir = self.options.dir.join(number.to_string());
                let mut scenes = Scenes::new(&self.options.program, &dir)?;
                while !self.has_enough()
                    && let Some((operation, act, again)) = next()
                {
                    let ended = act(&mut scenes);
                    self.note(&scenes, operation, ended, &again);
                }
                Ok::<_, Fault>(())
            };
            let workers: Vec<_> =
                (0..self.options.jobs.max(1)).map(|number| scope.spawn(move || worker(number))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?)
        })
    }

    fn note(&self, scenes: &Scenes, operation: &'static Operation, ended: Result<Ended, Fault>, again: &str) {
        let Ok(mut report) = self.report.lock() else { return };
        let count = report.counts.entry(operation.name).or_default();
        match ended {
            Ok(Ended::Killed) => count.killed += 1,
            Ok(Ended::TooLate) => count.too_late += 1,
            Ok(Ended::Nothing) => {}
            Err(fault) => {
                count.failed += 1;
                let kept = self.options.dir.join(format!("failed-{}", report.faults.len()));
                let moved = std::fs::rename(&scenes.world.dir, &kept);
                let kept = moved.map_or_else(|error| format!("lost ({error})"), |()| kept.display().to_string());
                let fault = format!("{fault}\n  kept in {kept}; again: {again}");
                (self.tell)(&format!("FAILED {fault}"));
                report.faults.push(fault);
            }
        }
        let total = report.total();
        if let Ok(mut told) = self.told.lock()
            && told.elapsed() > Duration::from_secs(5)
        {
            *told = Instant::now();
            let Count { killed, too_late, failed } = total;
            let seconds = self.began.elapsed().as_secs();
            (self.tell)(&format!("{seconds} s: {killed} killed, {too_late} too late, {failed} failed"));
        }
    }

    fn random(&self, operations: &[&'static Operation], kills: u64) -> Result<(), Fault> {
        let numbers = AtomicU64::new(0);
        let seed = self.options.seed;
        let chosen = operations.iter().map(|operation| operation.name).collect::<Vec<_>>().join(",");
        let case = |number: u64| -> Case<'_> {
            let mut chance = Chance::new(seed, number);
            let operation = operations[chance.below(operations.len())];
            let again = format!("--seed {seed} --operation {chosen} --case {number}");
            (operation, Box::new(move |scenes| kill::at_random(scenes, operation, &mut chance)), again)
        };
        if let Some(number) = self.options.case {
            let only = AtomicBool::new(true);
            return self.work(&|| only.swap(false, Ordering::Relaxed).then(|| case(number)));
        }
        self.work(&|| {
            // Each worker may have one under way.
            (self.killed() < kills).then(|| case(numbers.fetch_add(1, Ordering::Relaxed)))
        })
    }

    fn exact(&self, operations: &[&'static Operation]) -> Result<(), Fault> {
        // One call of one operation after the other; each from its first to its last.
        let mut lines: Vec<_> = Vec::new();
        for &operation in operations.iter().filter(|operation| !operation.far_end) {
            let scenes = if operation.name == "config" { operation.scenes } else { 1 };
            lines.extend((0..scenes).flat_map(|scene| kill::CALLS.map(|call| (operation, scene, call))));
        }
        lines.reverse();
        let lines = Mutex::new(lines);
        self.work(&|| {
            let (operation, scene, call) = lines.lock().ok()?.pop()?;
            let again = format!("--exact --operation {}", operation.name);
            let each = move |scenes: &mut Scenes| {
                for number in 1.. {
                    match kill::before_call(scenes, operation, scene, call, number)? {
                        Ended::Killed => self.count(operation),
                        Ended::TooLate | Ended::Nothing => break,
                    }
                }
                Ok(Ended::Nothing)
            };
            Some((operation, Box::new(each), again))
        })
    }

    fn power_loss(&self, operations: &[&'static Operation], enough: usize, plant: Option<Plant>) -> Result<(), Fault> {
        let scenes = |operation: &Operation| if operation.name == "config" { operation.scenes } else { 1 };
        let each = operations.iter().flat_map(|&operation| (0..scenes(operation)).map(move |scene| (operation, scene)));
        let each = Mutex::new(each.rev().collect::<Vec<_>>());
        self.work(&|| {
            let (operation, scene) = each.lock().ok()?.pop()?;
            let again = format!("--power-loss {enough} --seed {} --operation {}", self.options.seed, operation.name);
            let told = again.clone();
            let replay = move |scenes: &mut Scenes| {
                let mut chance = Chance::new(self.options.seed, u64::try_from(scene).unwrap_or(0));
                let replay = Replay::record(scenes, operation, scene, enough, plant, &mut chance)?;
                let what = if replay.all { "all" } else { "some" };
                let (name, writes, states) = (operation.name, replay.writes, replay.states.len());
                (self.tell)(&format!("{name} (scene {scene}): {writes} writes, {what} of their states: {states}"));
                for number in 0..states {
                    let ended = replay.check(scenes, operation, scene, number).map(|()| Ended::Killed);
                    self.note(scenes, operation, ended, &told);
                    if self.has_enough() {
                        break;
                    }
                }
                Ok(Ended::Nothing)
            };
            Some((operation, Box::new(replay), again))
        })
    }

    fn count(&self, operation: &'static Operation) {
        if let Ok(mut report) = self.report.lock() {
            report.counts.entry(operation.name).or_default().killed += 1;
        }
    }
}

/// A directory in memory where there is one, for speed.
pub(crate) fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
