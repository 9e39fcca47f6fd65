//! The files of the project that are made from the command, or speak of it.

use std::fs;
use std::path::Path;

use crate::support::TestEnv;

fn project_file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_manual_page_is_fresh() {
    let page = TestEnv::new().run(["man"]).ok();
    assert!(
        page == project_file("man/foldersync.1"),
        "man/foldersync.1 is stale: `cargo run -- man > man/foldersync.1` makes it again"
    );
}

/// Every command that the README shows is one that there is.
#[test]
fn the_readme_names_commands_that_exist() {
    let env = TestEnv::new();
    let readme = project_file("README.md");
    let mut seen = 0;
    // What is in fences is what to type.
    for line in readme.split("```").skip(1).step_by(2).flat_map(str::lines) {
        let Some(typed) = line.trim_start_matches("$ ").strip_prefix("foldersync ") else { continue };
        let command = typed.split_whitespace().next().expect("a command");
        env.run([command, "--help"]).ended(0);
        seen += 1;
    }
    assert!(seen >= 5, "the README shows commands");
}
