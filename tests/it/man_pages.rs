//! The pages of section 7 promise things, and name the tests that guard them: those must be there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of all functions in a folder of sources.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

/// The tests that a page names in brackets, a list for each promise.
fn promises(page: &str) -> Vec<Vec<String>> {
    let lists = page.split("\n[").skip(1).filter_map(|rest| rest.split(']').next());
    lists.map(|list| list.split(',').map(|name| name.trim().to_owned()).collect()).collect()
}

#[test]
fn every_promise_of_the_manual_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    functions(&root.join("src"), &mut known);
    functions(&root.join("tests"), &mut known);
    for page in ["foldersync-store.7", "foldersync-protocol.7"] {
        let text = fs::read_to_string(root.join("man").join(page)).expect("the page");
        let lists = promises(&text);
        assert!(lists.len() > 10, "{page} has only {} promises", lists.len());
        let unknown: Vec<_> = lists.iter().flatten().filter(|name| !known.contains(*name)).collect();
        assert!(unknown.is_empty(), "{page} names tests that are not there: {unknown:?}");
    }
}
