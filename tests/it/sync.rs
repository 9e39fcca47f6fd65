//! Exchanges between folders on this computer.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use foldersync::engine::report::{ExchangeReport, Resolution};
use foldersync::engine::revspec::FileRev;
use foldersync::engine::{EngineError, ExchangeOptions, Failure};
use foldersync::path::SyncPath;

use crate::sites::{Site, Sites};

fn path(text: &str) -> SyncPath {
    SyncPath::new(text).expect("valid")
}

fn file_rev(text: &str) -> FileRev {
    FileRev::parse(text.as_bytes(), b"", false).expect("a revision")
}

#[test]
fn all_kinds_of_changes_on_both_sides_arrive() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    for n in 0..30 {
        a.write(&format!("folder {}/file {n}", n % 4), format!("content {n}\n"));
    }
    symlink("folder 0/file 0", a.path("link")).expect("a link");
    fs::create_dir_all(a.path("empty/inner")).expect("folders");
    let report = sites.exchange(0, 1);
    assert_eq!((report.captured, report.sent, report.received), (32, 32, 0));
    assert!(report.in_step);
    assert_eq!(a.files(), b.files());

    a.write("folder 0/file 0", "edited at a\n");
    b.write("folder 1/file 1", "edited at b\n");
    a.remove("folder 2/file 2");
    fs::rename(b.path("folder 3/file 3"), b.path("renamed")).expect("rename");
    fs::set_permissions(b.path("folder 0/file 4"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::remove_dir(a.path("empty/inner")).expect("rmdir");
    fs::create_dir(b.path("empty/other")).expect("mkdir");
    fs::remove_file(b.path("link")).expect("remove");
    symlink("elsewhere", b.path("link")).expect("a link");
    let report = sites.exchange(1, 0);
    assert!(report.in_step && report.conflicts.is_empty(), "{report:?}");
    assert_eq!(a.files(), b.files());
    assert_eq!(a.read("folder 1/file 1"), "edited at b\n");
    sites.settle();

    let quiet = sites.exchange(0, 1);
    assert_eq!((quiet.captured, quiet.sent, quiet.received, quiet.applied), (0, 0, 0, 0));
    assert_eq!((quiet.bytes_sent, quiet.bytes_received), (0, 0));
}

#[test]
fn a_revert_changes_that_file_and_no_other_here_and_there() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("other.txt", "stays\n");
    for n in 1..=5 {
        a.write("notes.txt", format!("version {n}\n"));
        a.capture();
    }
    sites.exchange(0, 1);
    let before = a.files();
    a.write("unsaved", "not captured yet");
    let report = a.folder().revert(&[file_rev("notes.txt@3")]).expect("revert");
    assert_eq!(report.changes.len(), 1);
    assert_eq!(a.read("notes.txt"), "version 3\n");
    assert_eq!(a.git(&["log", "-1", "--format=%s"]), "revert notes.txt to @3\n");
    assert_eq!(a.git(&["log", "-1", "--format=", "--name-only"]), "notes.txt\n");
    a.remove("unsaved");
    sites.exchange(0, 1);
    assert_eq!(b.read("notes.txt"), "version 3\n");
    let mut after = b.files();
    let mut expected = before;
    assert_ne!(after.remove(std::path::Path::new("notes.txt")), expected.remove(std::path::Path::new("notes.txt")));
    assert_eq!(after, expected, "nothing else changed");
    sites.settle();
}

#[test]
fn a_revert_keeps_what_was_not_captured_yet() {
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    a.write("notes.txt", "one\n");
    a.capture();
    a.write("notes.txt", "two\n");
    let report = a.folder().revert(&[file_rev("notes.txt@1")]).expect("revert");
    assert_eq!(report.captured_first.len(), 1);
    assert_eq!(a.read("notes.txt"), "one\n");
    assert_eq!(a.folder().log(Some(&path("notes.txt")), None).expect("log").len(), 3);
    let mut shown = Vec::new();
    a.folder().show(&file_rev("notes.txt@2"), &mut shown).expect("show");
    assert_eq!(shown, b"two\n");
}

/// As when a kill came before the table of what the disk holds was saved, or the power was lost before it was safe.
#[test]
fn a_deletion_is_noticed_by_a_table_that_is_older_than_the_file() {
    // Also where something else was done in between.
    for gathers in [false, true] {
        let sites = Sites::new(1);
        let a = &sites.sites[0];
        a.write("first", "1");
        a.capture();
        let table = [".git/index", ".git/foldersync/empty-folders"].map(|file| a.path(file));
        let older = table.map(|path| (fs::read(&path).expect("a table"), path));
        a.write("d/second", "2");
        a.capture();
        for (bytes, path) in older {
            fs::write(path, bytes).expect("the older table");
        }
        if gathers {
            a.folder().gc().expect("gc");
        }
        a.remove("d/second");
        assert_eq!(a.folder().capture(&[]).expect("capture").deleted, 1);
        assert_eq!(a.git(&["ls-tree", "-r", "--name-only", "main"]), "first\n");
        a.check();
    }
}

#[test]
fn a_folder_that_was_empty_keeps_what_came_into_it() {
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    std::fs::create_dir(a.root.join("d")).expect("a folder");
    a.capture();
    a.write("d/new", "n");
    a.capture();
    let report = a.folder().revert(&[file_rev("d@1")]).expect("revert");
    assert_eq!(report.changes.len(), 0);
    assert_eq!(a.names(), ["d/new"]);
    a.check();
}

#[test]
fn a_folder_is_restored_as_it_was_at_a_time() {
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    a.write("d/kept", "1");
    a.write("d/deleted", "gone soon");
    a.capture();
    let before = a.files();
    a.clock.advance(Duration::from_hours(1));
    a.write("d/kept", "2");
    a.remove("d/deleted");
    a.write("d/new", "n");
    a.capture();
    a.clock.advance(Duration::from_mins(1));
    let at = foldersync::engine::revspec::RevSpec::parse("30 minutes ago").expect("a time");
    let report = a.folder().restore(&at, Some(&path("d"))).expect("restore");
    assert_eq!(report.changes.len(), 3, "{report:?}");
    assert_eq!(a.files(), before);
    a.check();
}

#[test]
fn a_conflict_gives_the_same_two_files_on_both_in_one_exchange() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("photo.jpg", "original");
    sites.exchange(0, 1);
    b.clock.advance(Duration::from_secs(100));
    a.write("photo.jpg", "from a");
    b.write("photo.jpg", "from b, later");
    let report = sites.exchange(0, 1);
    assert!(report.in_step);
    assert_eq!(report.conflicts.len(), 1);
    assert_eq!(a.files(), b.files());
    assert_eq!(a.read("photo.jpg"), "from b, later");
    let conflicts = a.folder().conflicts().expect("conflicts");
    assert_eq!(conflicts, b.folder().conflicts().expect("conflicts"));
    let copy = conflicts[0].copy.to_string();
    assert!(copy.starts_with("photo (conflict device-a 2026-11-20 "), "{copy}");
    assert_eq!(b.read(&copy), "from a");
    sites.settle();

    b.folder().resolve_conflict(&path("photo.jpg"), Resolution::Theirs).expect("resolve");
    assert_eq!(b.read("photo.jpg"), "from a");
    assert!(b.folder().conflicts().expect("conflicts").is_empty());
    sites.settle();
    assert!(a.folder().conflicts().expect("conflicts").is_empty());
    assert_eq!(a.names(), ["photo.jpg"]);
}

#[test]
fn notes_edited_in_different_lines_are_merged() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("notes.md", "first\n\nmiddle\n\nlast\n");
    sites.exchange(0, 1);
    a.write("notes.md", "first at a\n\nmiddle\n\nlast\n");
    b.write("notes.md", "first\n\nmiddle\n\nlast at b\n");
    let report = sites.exchange(0, 1);
    assert!(report.conflicts.is_empty());
    assert_eq!(a.read("notes.md"), "first at a\n\nmiddle\n\nlast at b\n");
    sites.settle();
}

#[test]
fn a_change_beats_a_deletion_and_a_rename_meets_an_edit() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("deleted here, edited there", "1");
    a.write("old", "renamed here, edited there");
    sites.exchange(0, 1);
    a.remove("deleted here, edited there");
    fs::rename(a.path("old"), a.path("new")).expect("rename");
    b.write("deleted here, edited there", "2");
    b.write("old", "edited");
    sites.exchange(1, 0);
    assert_eq!(a.read("deleted here, edited there"), "2");
    assert_eq!(a.names(), ["deleted here, edited there", "new"]);
    assert_eq!(b.read("new"), "edited");
    sites.settle();
}

#[test]
fn what_both_made_alike_is_no_conflict_and_has_one_time() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    b.clock.advance(Duration::from_secs(1000));
    a.write("same", "content");
    b.write("same", "content");
    a.write("only a", "x");
    let report = sites.exchange(0, 1);
    assert!(report.conflicts.is_empty());
    sites.settle();
    assert_eq!(a.files(), b.files());
}

#[test]
fn a_content_that_came_back_has_the_time_of_its_last_revision() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    for content in ["one", "two"] {
        a.write("file", content);
        assert_eq!(a.capture(), 1);
    }
    // From a backup: older than when it stood there for the first time.
    a.write("file", "one");
    let file = fs::File::options().append(true).open(a.path("file")).expect("open");
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("a time");
    sites.exchange(0, 1);
    assert_eq!(a.files(), b.files());
}

#[test]
fn files_alike_have_each_its_own_time_where_both_sides_changed_something() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("base", "x");
    sites.exchange(0, 1);
    a.write("early", "the same");
    a.write("late", "the same");
    b.write("other", "y");
    sites.exchange(0, 1);
    assert_eq!(a.files(), b.files());
    sites.settle();
}

#[test]
fn three_folders_that_meet_pairwise_converge() {
    let sites = Sites::new(3);
    for (n, site) in sites.sites.iter().enumerate() {
        site.write("all", format!("from {n}"));
        site.write(&format!("own {n}"), "x");
    }
    sites.exchange(0, 1);
    sites.exchange(1, 2);
    sites.exchange(2, 0);
    sites.settle();
    assert_eq!(sites.sites[0].names().len(), 6, "three own files, the file and two conflict copies");
}

#[test]
fn an_edit_made_while_the_other_side_changes_the_same_file_is_kept() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("file.bin", "1");
    sites.exchange(0, 1);
    a.write("file.bin", "2 from a");
    a.capture();
    // Not captured when the exchange begins: it is captured first.
    b.clock.advance(Duration::from_secs(50));
    b.write("file.bin", "2 from b");
    sites.exchange(0, 1);
    assert_eq!(a.names().len(), 2);
    sites.settle();
}

#[test]
fn an_ignored_file_in_the_way_is_left_alone_and_reported() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    b.write(".git/info/exclude", "*.cache\n");
    b.write("x.cache", "precious, never versioned");
    a.write("x.cache", "versioned at a");
    a.write("y", "y");
    sites.exchange(0, 1);
    assert_eq!(b.read("x.cache"), "precious, never versioned");
    assert_eq!(b.read("y"), "y", "the rest goes on");
    assert_eq!(a.read("x.cache"), "versioned at a");
    assert_eq!(a.head(), b.head());
}

#[test]
fn folders_that_were_made_apart_are_joined_only_when_told_to() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("a", "1");
    b.write("b", "1");
    a.capture();
    b.capture();
    let target = foldersync::engine::PeerTarget { join: false, ..Site::target(b) };
    let error = a.folder().exchange(&target, false).expect_err("refused");
    assert!(matches!(error, EngineError::Unrelated { .. }), "{error}");
    assert_eq!(error.failure(), Failure::Refused);
    assert_eq!(b.names(), ["b"]);
    sites.settle();
    assert_eq!(a.folder().id(), b.folder().id());
}

#[test]
fn a_copy_restored_from_a_backup_is_behind_and_nothing_is_deleted() {
    let sites = Sites::new(2);
    let b = &sites.sites[1];
    b.write("first", "1");
    sites.exchange(0, 1);
    let backup = sites.dir().join("backup");
    assert!(std::process::Command::new("cp").args(["-a"]).arg(&b.root).arg(&backup).status().expect("cp").success());
    b.write("second", "2");
    sites.exchange(0, 1);
    fs::remove_dir_all(&b.root).expect("lost");
    fs::rename(&backup, &b.root).expect("restored");
    let report = sites.exchange(0, 1);
    assert!(report.notes.iter().any(|note| note.contains("restored from a backup")), "{report:?}");
    assert_eq!(b.read("second"), "2");
    sites.settle();
}

#[test]
fn one_direction_only() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("from a", "1");
    sites.exchange(0, 1);
    a.write("a again", "2");
    b.write("from b", "1");
    let send_only = foldersync::engine::PeerTarget { receive: false, ..Site::target(b) };
    let report = a.folder().exchange(&send_only, false).expect("exchange");
    assert_eq!(report.received, 0);
    assert_eq!(b.names(), ["a again", "from a", "from b"]);
    assert_eq!(a.names(), ["a again", "from a"]);
    sites.settle();
}

#[test]
fn a_peer_that_is_not_there_is_unreachable_and_nothing_is_deleted() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("x", "1");
    sites.exchange(0, 1);
    fs::remove_dir_all(&b.root).expect("unmounted");
    fs::create_dir(&b.root).expect("an empty mount point");
    let error = sites.try_exchange(0, 1).expect_err("unreachable");
    assert_eq!(error.failure(), Failure::Unreachable, "{error}");
    assert_eq!(a.names(), ["x"]);
}

#[test]
fn a_clone_of_an_empty_folder_is_a_copy_of_it_as_well() {
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    let copy = sites.dir().join("copy");
    let (cloned, _) =
        foldersync::engine::Folder::clone_from(&Site::target(a), &copy, &a.init_options(), a.context()).expect("clone");
    assert_eq!(cloned.id(), a.folder().id());
}

#[test]
fn a_clone_is_a_copy_that_exchanges() {
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    a.write("x/y", "1");
    fs::create_dir(a.path("empty")).expect("a folder");
    let copy = sites.dir().join("copy");
    let (folder, report) =
        foldersync::engine::Folder::clone_from(&Site::target(a), &copy, &a.init_options(), a.context()).expect("clone");
    assert_eq!(report.received, 2);
    assert_eq!(folder.id(), a.folder().id());
    assert_eq!(fs::read(copy.join("x/y")).expect("there"), b"1");
    assert!(copy.join("empty").is_dir());
    a.check();
}

#[test]
fn a_clone_that_was_killed_goes_on_by_the_same_command() {
    use foldersync::engine::Folder;
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    a.write("x/y", "1");
    a.capture();
    let copy = sites.dir().join("copy");
    let clone = || Folder::clone_from(&Site::target(a), &copy, &a.init_options(), a.context());
    // What a kill leaves before the first revision is there.
    fs::create_dir(&copy).expect("a folder");
    drop(Folder::init(&copy, &a.init_options(), a.context()).expect("made"));
    // Somebody has put a file there: that is another folder.
    fs::write(copy.join("mine"), "precious").expect("written");
    assert!(clone().is_err());
    assert_eq!(fs::read(copy.join("mine")).expect("there"), b"precious");
    fs::remove_file(copy.join("mine")).expect("removed");
    let (folder, report) = clone().expect("it goes on");
    assert_eq!((report.received, folder.id()), (1, a.folder().id()));
    assert_eq!(fs::read(copy.join("x/y")).expect("there"), b"1");
    // Once it is a copy, it is not to be made again.
    assert!(clone().is_err());
    assert_eq!(fs::read(copy.join("x/y")).expect("there"), b"1");
}

#[test]
fn the_whole_history_travels_and_counts_the_same() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    for n in 0..10 {
        a.write("f", format!("{n}"));
        a.capture();
    }
    sites.exchange(1, 0);
    let log = |site: &Site| {
        let log = site.folder().log(Some(&path("f")), None).expect("log");
        log.into_iter().map(|revision| (revision.number, revision.commit)).collect::<Vec<_>>()
    };
    assert_eq!(log(a), log(b));
    assert_eq!(log(a).len(), 10);
}

#[test]
fn a_slow_peer_keeps_nobody_from_the_folder() {
    let sites = Sites::new(2);
    sites.exchange(0, 1);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("mine", "1");
    let (here, there) = foldersync::transport::pipe("slow");
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| a.folder().serve(there, None, ExchangeOptions::default()));
        // It has said its first word: it has captured, and waits for the other to say something.
        let (mut reader, writer, _control) = here.split();
        std::io::Read::read_exact(&mut reader, &mut [0; 17]).expect("a greeting");
        a.write("mine", "2");
        a.folder().capture(&[]).expect("the folder is free");
        b.write("theirs", "1");
        sites.exchange(1, 0);
        drop((reader, writer));
        serving.join().expect("no panic").expect_err("nobody answered");
    });
    assert_eq!((b.read("mine").as_str(), a.read("theirs").as_str()), ("2", "1"));
    sites.sites.iter().for_each(Site::check);
}

#[test]
fn more_bundles_than_may_wait_for_answers_go_both_ways() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    // Far more from one side than from the other, which is done while the first still sends.
    (0..150).for_each(|n| a.write(&format!("a{n}"), format!("{n}")));
    (0..3).for_each(|n| b.write(&format!("b{n}"), format!("{n}")));
    let options = ExchangeOptions { bundle_limit: 1, join: true, ..ExchangeOptions::default() };
    let (here, there) = foldersync::transport::pipe("b");
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| b.folder().serve(there, None, options));
        let report = a.folder().exchange_over(here, "b", options).expect("it ends well");
        assert_eq!((report.sent, report.received, report.in_step), (150, 3, true));
        serving.join().expect("no panic").expect("it ends well");
    });
    assert_eq!(a.files(), b.files());
    sites.settle();
}

#[test]
fn what_arrived_before_a_cut_is_not_sent_again() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    sites.exchange(0, 1);
    let noise = |n: usize| -> Vec<u8> { (0..10_000).flat_map(|at| object_id(n, at)).collect() };
    (0..20).for_each(|n| a.write(&format!("a{n}"), noise(n)));
    let options = ExchangeOptions { bundle_limit: 1, ..ExchangeOptions::default() };
    // Somewhere in the eleventh of twenty.
    cut_after(a, b, options, 105_000 * 20);
    let report = go_on(a, b, options);
    assert!((9..=11).contains(&report.sent), "{report:?}");
    assert_eq!(a.files(), b.files());
}

#[test]
fn what_arrived_of_a_large_file_before_a_cut_is_not_sent_again() {
    let sites = Sites::new(3);
    sites.exchange(0, 1);
    let [a, b, c] = &sites.sites[..] else { panic!("three") };
    let noise: Vec<u8> = (0..600_000).flat_map(|at| object_id(7, at)).collect();
    a.write("before", "1");
    a.write("film", &noise);
    let options = ExchangeOptions { instalment: 1 << 20, ..ExchangeOptions::default() };
    cut_after(a, b, options, 7 << 20);
    b.check();
    let report = go_on(a, b, options);
    // Five at least of twelve had arrived whole.
    assert!((1 << 20..=7 << 20).contains(&report.bytes_sent), "{report:?}");
    assert_eq!(report.sent, 1);
    assert_eq!(a.files(), b.files());
    for site in [a, b] {
        assert_eq!(site.git(&["for-each-ref", "refs/foldersync/instalment", "refs/foldersync/incoming"]), "");
        site.git(&["gc", "-q", "--prune=now"]);
        site.check();
    }
    sites.exchange(1, 2);
    assert_eq!(a.files(), c.files());
}

/// An exchange that is cut off when so many bytes have come from `a`.
fn cut_after(a: &Site, b: &Site, options: ExchangeOptions, bytes: u64) {
    let (a_end, a_relay) = foldersync::transport::pipe("a");
    let (b_end, b_relay) = foldersync::transport::pipe("b");
    let (from_a, mut to_a, _) = a_relay.split();
    let (mut from_b, mut to_b, _) = b_relay.split();
    std::thread::scope(|scope| {
        let here = scope.spawn(|| a.folder().exchange_over(a_end, "b", options));
        let there = scope.spawn(|| b.folder().serve(b_end, Some("a"), options));
        scope.spawn(move || {
            std::io::copy(&mut std::io::Read::take(from_a, bytes), &mut to_b).ok();
        });
        std::io::copy(&mut from_b, &mut to_a).ok();
        drop(to_a);
        here.join().expect("no panic").expect_err("it was cut");
        there.join().expect("no panic").expect_err("it was cut");
    });
}

/// An exchange that ends well.
fn go_on(a: &Site, b: &Site, options: ExchangeOptions) -> ExchangeReport {
    let (here, there) = foldersync::transport::pipe("b");
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| b.folder().serve(there, Some("a"), options));
        let report = a.folder().exchange_over(here, "b", options).expect("it ends well");
        serving.join().expect("no panic").expect("it ends well");
        report
    })
}

/// Twenty bytes that do not compress.
fn object_id(n: usize, at: usize) -> [u8; 20] {
    let content = format!("{n} {at}");
    *foldersync::store::object_id(foldersync::store::ObjectKind::Blob, content.as_bytes()).as_bytes()
}

#[test]
fn what_is_captured_while_an_exchange_runs_is_merged() {
    let sites = Sites::new(2);
    sites.exchange(0, 1);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    b.write("theirs", "1");
    // What the other side says is let through only after more was captured here.
    let (a_end, a_relay) = foldersync::transport::pipe("a");
    let (b_end, b_relay) = foldersync::transport::pipe("b");
    let (mut from_a, mut to_a, _) = a_relay.split();
    let (mut from_b, mut to_b, _) = b_relay.split();
    std::thread::scope(|scope| {
        let here = scope.spawn(|| a.folder().exchange_over(a_end, "b", ExchangeOptions::default()));
        let there = scope.spawn(|| b.folder().serve(b_end, None, ExchangeOptions::default()));
        let mut greeting = [0; 17];
        std::io::Read::read_exact(&mut from_a, &mut greeting).expect("a greeting");
        a.write("mine", "1");
        a.folder().capture(&[]).expect("the folder is free");
        std::io::Write::write_all(&mut to_b, &greeting).expect("it listens");
        scope.spawn(move || {
            std::io::copy(&mut from_a, &mut to_b).ok();
        });
        std::io::copy(&mut from_b, &mut to_a).ok();
        drop(to_a);
        let report = here.join().expect("no panic").expect("it ends well");
        there.join().expect("no panic").expect("it ends well");
        assert!(!report.in_step, "the other side has not heard of what was captured meanwhile");
    });
    assert_eq!((a.read("theirs").as_str(), a.read("mine").as_str()), ("1", "1"));
    assert!(sites.exchange(0, 1).in_step);
    assert_eq!(b.read("mine"), "1");
    sites.sites.iter().for_each(Site::check);
}

#[test]
fn whoever_read_many_revisions_need_not_read_them_again() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    sites.exchange(0, 1);
    (0..300).for_each(|n| a.write(&format!("a{n}"), format!("{n}")));
    sites.exchange(0, 1);
    for site in [a, b] {
        assert!(site.path(".git/foldersync/graph").exists(), "{}", site.root.display());
    }
}

#[test]
fn a_conflict_of_a_file_with_a_folder_ends_by_revisions_of_one_path_each() {
    let sites = Sites::new(2);
    let [a, b] = [&sites.sites[0], &sites.sites[1]];
    a.write("c/y/z", "in a folder");
    b.write("c", "a file");
    sites.exchange(0, 1);
    let conflict = a.folder().conflicts().expect("conflicts").remove(0);
    a.folder().resolve_conflict(&conflict.copy, Resolution::Theirs).expect("resolved");
    assert_eq!(a.names(), ["c"]);
    a.check();
    sites.settle();
    assert_eq!(b.read("c"), "a file");
}
