//! The integration tests: one binary, so that the crate is linked once.
//!
//! `support` is what tests share; every other module tests one thing, through the library or the built command.

#![allow(clippy::needless_raw_string_hashes, reason = "snapshots are written so by the tool that updates them")]
#![allow(unreachable_pub, reason = "what tests share is shared by `pub` alone")]

mod architecture;
mod bad_input;
mod brakes;
mod bundles;
mod capture;
mod cli;
mod crash;
mod daemon;
mod damage;
mod fuzzed;
mod hostile;
mod large;
mod live;
mod man_pages;
mod property;
mod real_tree;
mod simulation;
mod sites;
mod support;
mod sync;

use std::fs;
use std::path::Path;

/// A file that no module declares is never compiled, and its tests never run.
#[test]
fn no_test_file_is_forgotten() {
    fn check(dir: &Path, module: &Path) {
        let text = fs::read_to_string(module).unwrap_or_else(|error| panic!("{}: {error}", module.display()));
        for entry in fs::read_dir(dir).expect("a directory of tests") {
            let path = entry.expect("an entry").path();
            if path == module {
                continue;
            }
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a plain name");
            let declared = text.lines().any(|line| line.trim_start_matches("pub ").trim() == format!("mod {name};"));
            assert!(declared, "{} does not declare `mod {name};`", module.display());
            if path.is_dir() {
                check(&path, &path.join("mod.rs"));
            }
        }
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    check(&dir, &dir.join("main.rs"));
}
