//! Whole systems under chosen misfortune: two to five nodes with the real engine, on real folders in memory, with
//! crashes, losses of power, full disks, cut and damaged connections, and persons who edit all the while.
//!
//! One seed is one run, step for step. `cargo run --release --example simulate -- --seeds 1000000` runs many,
//! `--seed N` one with all that happens in it; a seed that fails is cut down to the steps that it needs.

mod check;
mod plan;
mod power;
mod run;
mod world;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use run::{Outcome, run, shrink};

struct Options {
    first: u64,
    count: u64,
    threads: usize,
    dir: PathBuf,
    told: bool,
    twice: bool,
}

const USAGE: &str =
    "usage: simulate [--seeds COUNT] [--from SEED] [--seed SEED] [--threads COUNT] [--dir FOLDER] [--twice]";

fn options() -> Result<Options, String> {
    // In memory, where that is: what is synced there costs nothing.
    let memory = PathBuf::from("/dev/shm");
    let dir = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { first: 1, count: 1000, threads, dir, told: false, twice: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| USAGE.to_owned());
        match arg.as_str() {
            "--seeds" => options.count = number()?,
            "--from" => options.first = number()?,
            "--seed" => (options.first, options.count, options.told) = (number()?, 1, true),
            "--threads" => options.threads = usize::try_from(number()?).map_err(|error| error.to_string())?.max(1),
            "--dir" => options.dir = args.next().ok_or_else(|| USAGE.to_owned())?.into(),
            "--twice" => options.twice = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").expect("standard output");
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(usage) => {
            say(&usage);
            return ExitCode::from(2);
        }
    };
    let dir = options.dir.join(format!("foldersync-simulate-{}", std::process::id()));
    let next = AtomicU64::new(options.first);
    let (done, troubles) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let began = Instant::now();
    // Panics are told with the seed that they came of.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for thread in 0..options.threads {
            let (next, done, troubles, failures, dir, options) = (&next, &done, &troubles, &failures, &dir, &options);
            scope.spawn(move || {
                let dir = dir.join(thread.to_string());
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - options.first >= options.count {
                        break;
                    }
                    let plan = plan::Plan::new(seed);
                    let outcome = run(&dir, &plan);
                    if options.twice && outcome.violation.is_none() && run(&dir, &plan).digest != outcome.digest {
                        failures.lock().expect("unpoisoned").push((seed, "it is another run each time".to_owned()));
                    }
                    if options.told {
                        plan.steps.iter().for_each(|step| say(&format!("{step:?}")));
                        outcome.log.iter().for_each(|line| say(line));
                    }
                    if let Outcome { violation: Some(violation), .. } = outcome {
                        say(&format!("seed {seed}: {violation}"));
                        let shrunk = shrink(&dir, &plan);
                        say(&format!(
                            "seed {seed} needs no more than, of {} nodes{}:",
                            shrunk.clocks.len(),
                            if shrunk.in_chunks { ", all in chunks" } else { "" }
                        ));
                        shrunk.steps.iter().for_each(|step| say(&format!("    {step:?}")));
                        failures.lock().expect("unpoisoned").push((seed, violation));
                    }
                    troubles.fetch_add(outcome.troubles, Ordering::Relaxed);
                    let so_far = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if so_far % 1000 == 0 {
                        tell(so_far, troubles.load(Ordering::Relaxed), began.elapsed());
                    }
                }
            });
        }
    });
    drop(std::fs::remove_dir_all(&dir));
    let failures = failures.into_inner().expect("unpoisoned");
    tell(done.into_inner(), troubles.into_inner(), began.elapsed());
    let seeds: Vec<String> = failures.iter().map(|(seed, _)| seed.to_string()).collect();
    say(&format!("{} violations {}", failures.len(), seeds.join(" ")));
    ExitCode::from(u8::from(!failures.is_empty()))
}

fn tell(seeds: u64, troubles: u64, elapsed: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    let rate = seeds as f64 / elapsed.as_secs_f64();
    say(&format!("{seeds} seeds, {troubles} misfortunes, {:.0} s, {rate:.1} seeds/s", elapsed.as_secs_f64()));
}
