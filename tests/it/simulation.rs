//! A short run of the simulation (`examples/simulate`): some seeds that are always the same, and some that never were.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::plan::Plan;
use self::run::{run, shrink};

#[path = "../../examples/simulate/check.rs"]
mod check;
#[path = "../../examples/simulate/plan.rs"]
mod plan;
#[path = "../../examples/simulate/power.rs"]
mod power;
#[path = "../../examples/simulate/run.rs"]
mod run;
#[path = "../../examples/simulate/world.rs"]
mod world;

/// A folder in memory, where that is: what is synced there costs nothing.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}

/// Runs seeds, and answers with how often something went wrong in them.
fn check_seeds(seeds: impl Iterator<Item = u64>) -> u64 {
    let dir = folder();
    let dir: PathBuf = dir.path().join("run");
    let mut troubles = 0;
    for seed in seeds {
        let plan = Plan::new(seed);
        let outcome = run(&dir, &plan);
        if let Some(violation) = outcome.violation {
            let steps: Vec<_> = shrink(&dir, &plan).steps.iter().map(|step| format!("\n    {step:?}")).collect();
            panic!(
                "`cargo run --example simulate -- --seed {seed}`: {violation}\nit needs no more than{}",
                steps.concat()
            );
        }
        troubles += outcome.troubles;
    }
    troubles
}

#[test]
fn nodes_survive_what_the_seeds_hold_for_them() {
    // The last eight once found something.
    assert!(
        check_seeds((1..=64).chain([168, 1265, 1577, 1658, 107_510, 400_473, 401_212, 502_215])) > 10,
        "hardly anything went wrong"
    );
}

#[test]
fn nodes_survive_what_a_new_seed_holds_for_them() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let first = now.as_secs() << 24;
    check_seeds((0..16).map(|n| first.wrapping_add(n)));
}

#[test]
fn a_seed_is_one_run() {
    let dir = folder();
    for seed in 100..110 {
        let plan = Plan::new(seed);
        let runs = [0, 1].map(|_| run(&dir.path().join("run"), &plan).log);
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}
