//! Random edits, captures and exchanges of two to four folders: whatever is done in whatever order, all invariants hold
//! after each step, and in the end all folders are the same and every content that was ever captured is in history.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;

use crate::sites::{Site, Sites, Standing};

#[derive(Debug, Clone)]
enum Step {
    Write { site: usize, path: usize, content: u8 },
    Append { site: usize, path: usize, line: u8 },
    Remove { site: usize, path: usize },
    Rename { site: usize, from: usize, to: usize },
    Folder { site: usize, path: usize },
    Executable { site: usize, path: usize },
    Link { site: usize, path: usize },
    Capture { site: usize },
    Exchange { from: usize, to: usize },
}

const PATHS: [&str; 9] = ["a", "b.txt", "c", "d/a", "d/b.txt", "d/e/a", "a/x", "c/y/z", ".h"];

fn step() -> impl Strategy<Value = Step> {
    let site = 0usize..4;
    let path = 0..PATHS.len();
    prop_oneof![
        6 => (site.clone(), path.clone(), any::<u8>()).prop_map(|(site, path, content)| Step::Write { site, path, content }),
        4 => (site.clone(), path.clone(), any::<u8>()).prop_map(|(site, path, line)| Step::Append { site, path, line }),
        3 => (site.clone(), path.clone()).prop_map(|(site, path)| Step::Remove { site, path }),
        2 => (site.clone(), path.clone(), path.clone()).prop_map(|(site, from, to)| Step::Rename { site, from, to }),
        1 => (site.clone(), path.clone()).prop_map(|(site, path)| Step::Folder { site, path }),
        1 => (site.clone(), path.clone()).prop_map(|(site, path)| Step::Executable { site, path }),
        1 => (site.clone(), path).prop_map(|(site, path)| Step::Link { site, path }),
        3 => site.clone().prop_map(|site| Step::Capture { site }),
        4 => (site.clone(), site).prop_map(|(from, to)| Step::Exchange { from, to }),
    ]
}

/// Makes room for something at `path`: what is there goes, a file that stands where a folder is needed too.
fn clear(site: &Site, path: &str) {
    let full = site.path(path);
    let mut above = site.root.clone();
    for name in Path::new(path).parent().expect("a parent").components() {
        above.push(name);
        if fs::symlink_metadata(&above).is_ok_and(|data| !data.is_dir()) {
            fs::remove_file(&above).expect("remove");
        }
    }
    fs::create_dir_all(full.parent().expect("below the root")).expect("folders");
    match fs::symlink_metadata(&full) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(&full).expect("remove"),
        Ok(_) => fs::remove_file(&full).expect("remove"),
        Err(_) => {}
    }
}

fn is_file(site: &Site, path: &str) -> bool {
    fs::symlink_metadata(site.path(path)).is_ok_and(|data| data.is_file())
}

/// Takes a step, the n-th. Contents are never alike: a file that is replaced by one of the same content has another time
/// and is the same revision, and then the times on the sides differ.
fn take(sites: &Sites, n: usize, step: &Step) {
    let count = sites.sites.len();
    let site = |n: usize| &sites.sites[n % count];
    match *step {
        Step::Write { site: at, path, content } => {
            clear(site(at), PATHS[path]);
            site(at).write(PATHS[path], format!("content {content} of step {n}, written at {}\n", site(at).name));
        }
        Step::Append { site: at, path, line } => {
            if is_file(site(at), PATHS[path]) {
                let before = site(at).read(PATHS[path]);
                site(at).write(PATHS[path], format!("{before}line {line} of step {n}\n"));
            }
        }
        Step::Remove { site: at, path } => {
            if fs::symlink_metadata(site(at).path(PATHS[path])).is_ok() {
                clear(site(at), PATHS[path]);
            }
        }
        Step::Rename { site: at, from, to } => {
            let (from, to) = (PATHS[from], PATHS[to]);
            if from != to
                && is_file(site(at), from)
                && !to.starts_with(&format!("{from}/"))
                && !from.starts_with(&format!("{to}/"))
            {
                clear(site(at), to);
                if is_file(site(at), from) {
                    fs::rename(site(at).path(from), site(at).path(to)).expect("rename");
                }
            }
        }
        Step::Folder { site: at, path } => {
            clear(site(at), PATHS[path]);
            fs::create_dir(site(at).path(PATHS[path])).expect("a folder");
        }
        Step::Executable { site: at, path } => {
            if is_file(site(at), PATHS[path]) {
                fs::set_permissions(site(at).path(PATHS[path]), fs::Permissions::from_mode(0o755)).expect("chmod");
            }
        }
        Step::Link { site: at, path } => {
            clear(site(at), PATHS[path]);
            std::os::unix::fs::symlink("target", site(at).path(PATHS[path])).expect("a link");
        }
        Step::Capture { site: at } => {
            site(at).capture();
        }
        Step::Exchange { from, to } => {
            if from % count != to % count {
                let report = sites.exchange(from % count, to % count);
                assert!(report.in_step, "{report:?}");
                assert!(report.left_out.is_empty(), "{report:?}");
                assert_eq!(site(from).files(), site(to).files());
            }
        }
    }
}

/// The contents that stand in a folder.
fn contents(site: &Site) -> BTreeSet<Vec<u8>> {
    let content = |standing: Standing| match standing {
        Standing::File { content, .. } => Some(content),
        _ => None,
    };
    site.files().into_values().filter_map(content).collect()
}

fn blob_id(content: &[u8]) -> String {
    foldersync::store::object_id(foldersync::store::ObjectKind::Blob, content).to_string()
}

/// How many runs: few in the ordinary tests, as many as wanted by `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folders_converge_and_lose_nothing(
        count in 2usize..=4,
        in_chunks: bool,
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let sites = Sites::new(count);
        if in_chunks {
            sites.keep_in_chunks_from(0);
        }
        let mut ever: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (number, step) in steps.iter().enumerate() {
            let captures = |n: usize| match *step {
                Step::Capture { site } => site % count == n,
                Step::Exchange { from, to } => from % count != to % count && (from % count == n || to % count == n),
                _ => false,
            };
            for (n, site) in sites.sites.iter().enumerate() {
                if captures(n) {
                    ever.extend(contents(site));
                }
            }
            take(&sites, number, step);
            for (n, site) in sites.sites.iter().enumerate() {
                if captures(n) {
                    site.check();
                }
            }
        }
        sites.sites.iter().for_each(|site| ever.extend(contents(site)));
        sites.settle();
        let history = sites.sites[0].history();
        for content in ever {
            prop_assert!(history.contains(&blob_id(&content)), "lost: {}", String::from_utf8_lossy(&content));
        }
    }
}
