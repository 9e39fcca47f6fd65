//! A real tree: the sources of this crate's own dependencies, as cargo keeps them, thousands of files of all kinds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sites::{Site, Sites, skipped};

/// So many files are enough, and so many are needed.
const MOST: usize = 4000;
const LEAST: usize = 1000;

fn sources() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    fs::read_dir(home.join("registry/src"))
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.is_dir())
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| if path.is_dir() && !path.is_symlink() { count(&path) } else { 1 }).sum()
}

#[test]
fn a_real_source_tree_goes_there_and_back() {
    let Some(sources) = sources() else {
        return skipped("a_real_source_tree_goes_there_and_back", "cargo keeps no sources here");
    };
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let mut crates: Vec<PathBuf> =
        fs::read_dir(sources).expect("sources").map(|entry| entry.expect("an entry").path()).collect();
    crates.sort();
    let mut files = 0;
    for source in crates.into_iter().filter(|path| path.is_dir()) {
        let here = count(&source);
        if files + here <= MOST {
            files += here;
            assert!(Command::new("cp").arg("-a").arg(&source).arg(&a.root).status().expect("cp").success());
        }
    }
    if files < LEAST {
        return skipped("a_real_source_tree_goes_there_and_back", "cargo keeps too few sources here");
    }
    // Their ignore rules are not meant for us, and would leave files out.
    rename_ignores(&a.root);
    let report = sites.exchange(0, 1);
    assert!(report.in_step && report.left_out.is_empty(), "{:?}", report.left_out);
    assert!(report.sent >= LEAST as u64);
    assert_eq!(a.files(), b.files());

    let some: Vec<String> = a.names().into_iter().filter(|name| is_file(a, name)).step_by(97).collect();
    for (n, name) in some.iter().enumerate() {
        let site = if n % 2 == 0 { a } else { b };
        match n % 4 {
            0 => site.write(name, format!("edited {n}\n")),
            1 => site.remove(name),
            2 => fs::rename(site.path(name), site.path(&format!("{name}.renamed"))).expect("rename"),
            _ => site.write(&format!("{name}.new"), "new\n"),
        }
    }
    sites.settle();
}

fn is_file(site: &Site, name: &str) -> bool {
    fs::symlink_metadata(site.path(name)).is_ok_and(|data| data.is_file())
}

fn rename_ignores(dir: &Path) {
    for path in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = path.file_name().unwrap_or_default();
        if name == ".gitignore" {
            fs::rename(&path, path.with_file_name("gitignore")).expect("rename");
        } else if path.is_dir() && !path.is_symlink() && name != ".git" {
            rename_ignores(&path);
        }
    }
}
