//! Crashes of the real program, by the harness in `examples/kills`: a short run of each of its modes. The next command
//! finishes the work, nothing is lost, nothing is invented.

#[path = "../../examples/kills/harness/mod.rs"]
mod harness;

use std::path::PathBuf;

use crate::sites::skipped;
use harness::{Mode, Options, Plant, Report};

/// Runs the harness; nothing may go wrong.
fn run(mode: Mode, operations: &[&str]) -> Result<Report, String> {
    let report = try_run(mode, operations)?;
    assert!(report.faults.is_empty(), "{}\n{}", report.faults.join("\n"), report.table());
    Ok(report)
}

/// Runs the harness.
fn try_run(mode: Mode, operations: &[&str]) -> Result<Report, String> {
    let dir = tempfile::tempdir_in(harness::scratch()).expect("a directory");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_foldersync")),
        dir: dir.path().to_owned(),
        mode,
        seed: 1,
        case: None,
        operations: operations.iter().map(ToString::to_string).collect(),
        jobs: 2,
    };
    harness::run(&options, &|_| ())
}

#[test]
fn killed_at_any_moment_of_any_operation() {
    let report = run(Mode::Random { kills: 100 }, &[]).expect("the harness runs");
    assert!(report.total().killed >= 100 && report.counts.len() > 10, "{}", report.table());
}

/// Whether strace is here; said loudly if not.
fn has_strace(test: &str) -> bool {
    harness::strace_works().map_err(|why| skipped(test, &why)).is_ok()
}

#[test]
fn killed_before_each_call_of_a_commit_that_changes_files() {
    if has_strace("killed_before_each_call_of_a_commit_that_changes_files") {
        let report = run(Mode::Exact, &["commit-one"]).expect("the harness runs");
        assert!(report.total().killed > 30, "{}", report.table());
    }
}

#[test]
fn power_lost_at_any_moment() {
    if has_strace("power_lost_at_any_moment") {
        let report = run(Mode::PowerLoss { states: 12, plant: None }, &[]).expect("the harness runs");
        assert!(report.total().killed > 100, "{}", report.table());
    }
}

/// A program that forgot some of its syncs would not get through.
#[rstest::rstest]
#[case::objects(Plant::Objects, "commit-one")]
#[case::refs(Plant::Refs, "commit-one")]
#[case::folders(Plant::Folders, "commit-one")]
#[case::stage(Plant::Stage, "receive")]
fn a_forgotten_sync_is_found(#[case] plant: Plant, #[case] operation: &str) {
    if has_strace("a_forgotten_sync_is_found") {
        let report = try_run(Mode::PowerLoss { states: 100, plant: Some(plant) }, &[operation]);
        assert!(!report.expect("the harness runs").faults.is_empty(), "{plant:?}");
    }
}
