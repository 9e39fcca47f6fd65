//! Capture, on real folders.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::sites::{Sites, git};

#[test]
fn every_path_is_a_commit_of_its_own() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    site.write("notes.txt", "one\n");
    site.write(".hidden/deep/file.bin", [0, 159, 146, 150]);
    site.write("empty file", "");
    fs::create_dir(site.path("empty folder")).expect("a folder");
    symlink("notes.txt", site.path("link")).expect("a link");
    site.write("run.sh", "#!/bin/sh\n");
    fs::set_permissions(site.path("run.sh"), fs::Permissions::from_mode(0o755)).expect("chmod");
    assert_eq!(site.capture(), 6);
    let log = site.git(&["log", "--reverse", "--format=%s"]);
    assert_eq!(
        log,
        "add .hidden/deep/file.bin\nadd empty file\nadd link\nadd notes.txt\nadd run.sh\nadd empty folder\n"
    );
    site.check();
    assert_eq!(site.capture(), 0, "nothing has changed");

    site.write("notes.txt", "two\n");
    site.remove("link");
    site.write("empty folder/now not", "x");
    fs::set_permissions(site.path("run.sh"), fs::Permissions::from_mode(0o644)).expect("chmod");
    assert_eq!(site.capture(), 4);
    let log = site.git(&["log", "-4", "--reverse", "--format=%s"]);
    assert_eq!(log, "add empty folder/now not\nchange notes.txt\nchange run.sh\ndelete link\n");
    site.check();

    site.remove("empty folder/now not");
    assert_eq!(site.capture(), 2);
    let log = site.git(&["log", "-2", "--reverse", "--format=%s"]);
    assert_eq!(log, "delete empty folder/now not\nadd empty folder\n");
    site.check();
}

#[test]
fn files_and_folders_may_change_places() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    site.write("a", "file");
    site.write("b/one", "1");
    site.write("b/two", "2");
    site.capture();
    site.remove("a");
    site.write("a/inner", "in a folder now");
    fs::remove_dir_all(site.path("b")).expect("remove");
    site.write("b", "a file now");
    assert_eq!(site.capture(), 5);
    site.check();
    assert_eq!(site.git(&["ls-files"]), "a/inner\nb\n");
    fs::remove_dir_all(site.path("a")).expect("remove");
    symlink("b", site.path("a")).expect("a link");
    site.capture();
    site.check();
}

#[test]
fn a_rename_is_an_addition_and_a_deletion_that_know_each_other() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    site.write("old name", "content");
    site.capture();
    fs::rename(site.path("old name"), site.path("new name")).expect("rename");
    assert_eq!(site.capture(), 2);
    let log = site.git(&["log", "-2", "--reverse", "--format=%B"]);
    assert!(log.contains("add new name\n"), "{log}");
    assert!(log.contains("Foldersync-Renamed-From: old name\n"), "{log}");
    assert!(log.contains("delete old name\n"), "{log}");
    assert!(log.contains("Foldersync-Renamed-To: new name\n"), "{log}");
    site.check();
}

#[test]
fn mtimes_are_kept_to_the_nanosecond() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    site.write("a", "x");
    site.capture();
    assert!(site.git(&["log", "-1", "--format=%B"]).contains(".123456789\n"));
}

#[test]
fn what_is_ignored_stays_out_and_is_never_a_deletion() {
    let sites = Sites::new(2);
    let site = &sites.sites[0];
    site.write("kept.log", "versioned before it was ignored");
    site.capture();
    site.write(".gitignore", "*.log\n/build/\n");
    site.write("other.log", "never versioned");
    site.write("build/out", "never versioned");
    site.write("sub/build/out", "versioned");
    assert_eq!(site.capture(), 2);
    site.write("kept.log", "changed, but ignored now");
    assert_eq!(site.capture(), 0);
    sites.exchange(0, 1);
    let there = &sites.sites[1];
    assert_eq!(there.names(), [".gitignore", "kept.log", "sub/build/out"]);
    assert_eq!(there.read("kept.log"), "versioned before it was ignored");
}

#[test]
fn nested_repositories_and_special_files_are_left_out_by_name() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    fs::create_dir(site.path("project")).expect("a folder");
    assert!(git(&site.path("project"), &["init", "-q"]).status.success());
    site.write("project/file", "not ours");
    let _socket = std::os::unix::net::UnixListener::bind(site.path("socket")).expect("a socket");
    site.write("file", "ours");
    let report = site.folder().capture(&[]).expect("capture");
    assert_eq!(report.revisions(), 1);
    let left_out: Vec<_> = report.left_out.iter().map(|left_out| &left_out.path[..]).collect();
    assert_eq!(left_out, ["project", "socket"]);
    site.check();
    // It stops being one: then it is an ordinary folder.
    fs::remove_dir_all(site.path("project/.git")).expect("remove");
    assert_eq!(site.capture(), 1);
    site.check();
}

#[test]
fn commits_that_a_person_makes_with_git_are_kept() {
    let sites = Sites::new(2);
    let site = &sites.sites[0];
    site.write("a", "1");
    site.write("b", "1");
    site.capture();
    site.write("a", "2");
    site.write("b", "2");
    assert!(git(&site.root, &["commit", "-qam", "Both at once"]).status.success());
    let theirs = site.git(&["rev-parse", "main"]);
    site.write("c", "3");
    assert_eq!(site.capture(), 1);
    assert_eq!(site.git(&["rev-parse", "main~1"]), theirs);
    sites.exchange(0, 1);
    assert_eq!(sites.sites[1].files(), site.files());
    assert_eq!(site.head(), sites.sites[1].head());
}

#[test]
fn history_that_a_person_winds_back_with_git_comes_back() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    site.write("a", "1");
    site.capture();
    site.write("a", "2");
    site.capture();
    let newest = site.head();
    assert!(git(&site.root, &["reset", "-q", "--hard", "HEAD~1"]).status.success());
    let later = std::time::SystemTime::now() + std::time::Duration::from_mins(1);
    fs::File::options()
        .append(true)
        .open(site.path(".git/index"))
        .and_then(|file| file.set_modified(later))
        .expect("a time");
    site.capture();
    assert_eq!(site.read("a"), "1", "what the person did to the file stays");
    let log = site.git(&["log", "--format=%H"]);
    assert!(log.contains(&newest.expect("a head").to_string()), "no revision is dropped");
    assert_eq!(site.git(&["show", "main:a"]), "1");
    site.check();
}

#[test]
fn what_a_person_stages_or_removes_with_git_is_captured() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    for name in ["staged", "removed", "untracked", "kept"] {
        site.write(name, "1");
    }
    site.capture();
    site.write("staged", "2");
    site.write("new", "n");
    assert!(git(&site.root, &["add", "staged", "new"]).status.success());
    assert!(git(&site.root, &["rm", "-q", "removed"]).status.success());
    assert!(git(&site.root, &["rm", "-q", "--cached", "untracked"]).status.success());
    // The index is older than nothing that it names: no file is read again for being young.
    let later = std::time::SystemTime::now() + std::time::Duration::from_mins(1);
    fs::File::options()
        .append(true)
        .open(site.path(".git/index"))
        .and_then(|file| file.set_modified(later))
        .expect("a time");
    assert_eq!(site.capture(), 3);
    assert_eq!(site.git(&["log", "-3", "--reverse", "--format=%s"]), "add new\nchange staged\ndelete removed\n");
    assert_eq!(site.names(), ["kept", "new", "staged", "untracked"]);
    site.check();
    assert_eq!(site.capture(), 0);
}

#[test]
fn a_large_file_is_streamed() {
    let sites = Sites::new(2);
    let site = &sites.sites[0];
    let content: Vec<u8> = (0..9_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    site.write("large", &content);
    site.capture();
    site.check();
    sites.exchange(0, 1);
    assert!(fs::read(sites.sites[1].path("large")).expect("there") == content);
    sites.settle();
}

/// Where git says that a content lies: the bytes in its pack, and how many deltas it stands on.
fn packed(site: &crate::sites::Site, path: &str) -> (u64, u32) {
    let id = site.git(&["rev-parse", &format!("main:{path}")]).trim_end().to_owned();
    let mut found = None;
    for entry in fs::read_dir(site.path(".git/objects/pack")).expect("readable") {
        let index = entry.expect("readable").path();
        if index.extension().is_some_and(|ending| ending == "idx") {
            for line in site.git(&["verify-pack", "-v", &index.to_string_lossy()]).lines() {
                let words: Vec<_> = line.split_whitespace().collect();
                if words[0] == id {
                    let number = |at: usize| words.get(at).map_or(0, |word| word.parse().expect("a number"));
                    found = Some((number(3), u32::try_from(number(5)).expect("few")));
                }
            }
        }
    }
    found.expect("it is in a pack")
}

#[test]
fn a_changed_file_is_a_delta_where_that_is_much_smaller() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    let noise = |seed: u64, len: usize| -> Vec<u8> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56).to_le_bytes()[0]
        })
        .take(len)
        .collect()
    };
    let edited = |mut content: Vec<u8>| {
        let at = content.len() / 3;
        content.splice(at..at, *b"something new");
        content
    };
    let text = (0..3000).flat_map(|n| format!("line {n}: {}\n", n * 7919 % 1000).into_bytes()).collect();
    let files = [("text", text), ("photo", noise(1, 300_000)), ("large", noise(2, 6 << 20))];
    for (name, content) in &files {
        site.write(name, content);
    }
    site.write("replaced", noise(3, 100_000));
    site.write("replaced and large", noise(4, 5 << 20));
    site.capture();
    for (name, content) in &files {
        site.write(name, edited(content.clone()));
    }
    site.write("replaced", noise(5, 100_000));
    site.write("replaced and large", noise(6, 5 << 20));
    assert_eq!(site.capture(), 5);
    for (name, _) in &files {
        let (bytes, deltas) = packed(site, name);
        assert!(bytes < 150 && deltas == 1, "{name}: {bytes} bytes, {deltas} deltas");
    }
    assert_eq!(packed(site, "replaced").1, 0);
    assert_eq!(packed(site, "replaced and large").1, 0);
    site.check();
    let copy = sites.sites[0].path("../copy of git");
    site.git(&["clone", "-q", "--no-local", ".", &copy.to_string_lossy()]);
    for (name, content) in &files {
        assert!(fs::read(copy.join(name)).expect("cloned") == edited(content.clone()), "{name}");
    }
}

#[test]
fn what_is_left_out_goes_by_commits_of_its_own_where_a_file_takes_the_place_of_its_folder() {
    let sites = Sites::new(1);
    let site = &sites.sites[0];
    for name in ["d/left out", "d/kept", "d/in/left out too"] {
        site.write(name, name);
    }
    site.capture();
    // What is versioned already stays so when it is ignored.
    site.write(".gitignore", "/d/left out\n/d/in/\n");
    site.capture();
    fs::remove_dir_all(site.path("d")).expect("removable");
    site.write("d", "a file");
    assert_eq!(site.capture(), 4, "three files go, one comes");
    assert_eq!(site.git(&["ls-tree", "-r", "--name-only", "main"]), ".gitignore\nd\n");
    site.check();
    assert_eq!(site.capture(), 0);
}
