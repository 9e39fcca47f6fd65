//! Brakes: mass changes of peers are held back, old copies are recognised, and disks do not fill.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use foldersync::engine::report::{ExchangeReport, Held};
use foldersync::engine::{EngineError, ExchangeOptions};
use foldersync::guard::{FreeSpace, Guards};
use proptest::prelude::*;

use crate::sites::{Site, Sites};

const FILES: usize = 50;

/// Two copies of a folder with fifty files.
fn two_with_files() -> Sites {
    let sites = Sites::new(2);
    fill(&sites.sites[0], FILES);
    sites.exchange(0, 1);
    assert_eq!(sites.sites[1].names().len(), FILES);
    sites
}

fn fill(site: &Site, files: usize) {
    (0..files).for_each(|n| site.write(&name(n), format!("content of {n}\n")));
}

fn name(n: usize) -> String {
    format!("folder {}/file {n:02}", n % 3)
}

fn delete(site: &Site, files: std::ops::Range<usize>) {
    files.for_each(|n| site.remove(&name(n)));
}

fn rewrite(site: &Site, files: std::ops::Range<usize>) {
    files.for_each(|n| site.write(&name(n), format!("encrypted {n}, pay for it\n")));
}

/// Minutes go by everywhere.
fn later(sites: &Sites, minutes: u64) {
    sites.sites.iter().for_each(|site| site.clock.advance(Duration::from_mins(minutes)));
}

/// The one hold of a copy.
#[track_caller]
fn held(site: &Site) -> Held {
    let mut held = site.folder().held().expect("holds");
    assert_eq!(held.len(), 1, "{held:?}");
    held.remove(0)
}

#[track_caller]
fn holds_nothing(site: &Site) {
    assert_eq!(site.folder().held().expect("holds"), []);
    assert_eq!(site.git(&["for-each-ref", "refs/foldersync/held"]), "");
}

/// Without the conflict copies, empty folders and times.
fn contents(site: &Site) -> Vec<(String, String)> {
    let names = site.names().into_iter().filter(|name| site.path(name).is_file());
    names.map(|name| (name.clone(), site.read(&name))).collect()
}

#[test]
fn a_mass_deletion_is_held_back_and_all_else_goes_on_until_it_is_accepted() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let before = b.files();
    delete(a, 0..40);
    a.write("new at a", "1");
    let report = sites.exchange(0, 1);
    assert!(report.held.is_none() && !report.in_step, "{report:?}");
    let told = a.monitor.notices();
    assert!(
        told.iter().any(|text| text.contains("`device-b` holds back") && text.contains("40 files of 50")),
        "{told:?}"
    );
    assert_eq!(b.files(), before, "nothing is applied");
    let held = held(b);
    assert_eq!((held.peer.as_str(), held.deleted, held.rewritten, held.of), ("device-a", 40, 0, 50));
    assert_eq!(held.examples.len(), 5);
    b.check();

    // What is here goes there; what came once does not come again.
    b.write("new at b", "2");
    let report = sites.exchange(1, 0);
    assert_eq!((report.captured, report.sent, report.received), (1, 1, 0), "{report:?}");
    assert_eq!(a.read("new at b"), "2");
    assert_eq!(report.held.map(|held| held.deleted), Some(40), "who takes part is told");
    // The merge that was made there comes, and that was all.
    sites.exchange(1, 0);
    let quiet = sites.exchange(1, 0);
    assert_eq!((quiet.sent, quiet.received, quiet.applied), (0, 0, 0), "{quiet:?}");
    // More of the same peer is held with it.
    a.write("later at a", "3");
    sites.exchange(1, 0);
    assert_eq!(b.names().len(), FILES + 1);
    b.check();

    let name = b.folder().held().expect("holds")[0].peer.clone();
    let report = b.folder().accept(Some(&name)).expect("accept");
    assert_eq!((report.applied, report.decided.len(), report.held.len()), (42, 1, 0), "{report:?}");
    assert_eq!(contents(b).len(), 13);
    holds_nothing(b);
    sites.settle();
    let none = b.folder().accept(None).expect_err("nothing is held");
    assert!(matches!(none, EngineError::NotFound { .. }), "{none}");
}

#[test]
fn what_is_rejected_comes_back_everywhere_as_it_was() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let before = b.files();
    delete(a, 0..30);
    rewrite(a, 30..40);
    a.write("new at a", "1");
    // A file in the place of a folder, and a folder in the place of a file.
    fs::remove_dir(a.path("folder 0")).ok();
    sites.exchange(0, 1);
    assert_eq!((held(b).deleted, held(b).rewritten), (30, 10));
    let commits = |site: &Site| site.git(&["rev-list", "--count", "main"]).trim().parse::<u64>().expect("a number");
    let were = commits(b);
    let report = b.folder().reject(None).expect("reject");
    assert_eq!((report.changes.len(), report.applied, report.rewritten_before), (40, 1, 0), "{report:?}");
    let mut after = b.files();
    after.remove(Path::new("new at a")).expect("what was added stays");
    assert_eq!(after, before, "with times and all");
    assert_eq!(commits(b), were + 41 + 40, "no commit is dropped, and each file has one that gives it back");
    holds_nothing(b);
    sites.settle();
    assert_eq!(a.read(&name(35)), "content of 35\n");
    let log = a.folder().log(Some(&foldersync::path::SyncPath::new(name(35)).expect("valid")), None).expect("log");
    let subjects: Vec<_> = log.iter().map(|revision| revision.verb.as_str()).collect();
    assert_eq!(log.len(), 3, "{subjects:?}");
    holds_nothing(a);
}

#[test]
fn what_stands_in_the_way_of_what_is_given_back_goes() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    (0..30).for_each(|n| a.write(&format!("d/{n}"), format!("{n}")));
    a.write("f", "a file");
    sites.exchange(0, 1);
    let before = b.files();
    fs::remove_dir_all(a.path("d")).expect("removed");
    a.remove("f");
    a.write("d", "a file in its place");
    a.write("f/below", "a folder in its place");
    sites.exchange(0, 1);
    assert_eq!(held(b).deleted + held(b).rewritten, 31);
    b.folder().reject(None).expect("reject");
    assert_eq!(b.files(), before);
    sites.settle();
}

#[test]
fn a_deletion_in_many_small_exchanges_is_held_before_it_is_through() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let before = contents(b);
    for first in (0..FILES).step_by(3) {
        delete(a, first..(first + 3).min(FILES));
        sites.exchange(0, 1);
    }
    let left = contents(b).len();
    assert!((FILES / 2 - 3..=FILES / 2 + 3).contains(&left), "{left} files are left");
    let one = held(b);
    assert_eq!((one.deleted, one.of), (50, 50), "{one:?}");
    // It does not end by itself, however long that takes.
    later(&sites, 300);
    a.write("still there", "1");
    sites.exchange(0, 1);
    assert_eq!(contents(b).len(), left);
    b.folder().reject(None).expect("reject");
    let mut after = contents(b);
    after.retain(|(name, _)| name != "still there");
    assert_eq!(after, before, "also what was deleted before it was noticed");
    sites.settle();
}

#[test]
fn what_was_lost_long_ago_does_not_count() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    for first in [0, 16, 32] {
        delete(a, first..first + 16);
        sites.exchange(0, 1);
        later(&sites, 61);
    }
    holds_nothing(b);
    assert_eq!(contents(b).len(), 2);
}

#[test]
fn ordinary_work_is_never_held() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let passes = |what: &str| {
        let report = sites.exchange(0, 1);
        assert!(report.in_step, "{what}: {report:?}");
        holds_nothing(b);
    };
    // All is moved, at once and live.
    fs::create_dir(a.path("moved")).expect("a folder");
    (0..3).for_each(|n| fs::rename(a.path(&format!("folder {n}")), a.path(&format!("moved/{n}"))).expect("moved"));
    passes("a folder that is renamed");
    for n in 0..3 {
        fs::rename(a.path(&format!("moved/{n}")), a.path(&format!("folder {n}"))).expect("moved");
        passes("a folder that is renamed bit by bit");
    }
    (0..500).for_each(|n| a.write(&format!("more/{n}"), format!("more {n}")));
    passes("many new files");
    let set = |n: usize| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(a.path(&name(n)), fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    (0..FILES).for_each(set);
    passes("modes");
    (0..250).for_each(|n| a.remove(&format!("more/{n}")));
    passes("less than half");
}

#[test]
fn small_folders_may_be_turned_upside_down() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    fill(a, 19);
    sites.exchange(0, 1);
    rewrite(a, 0..10);
    delete(a, 10..19);
    assert!(sites.exchange(0, 1).in_step);
    holds_nothing(b);
}

#[test]
fn own_changes_are_not_counted_against_a_peer() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    delete(b, 0..24);
    sites.exchange(1, 0);
    delete(a, 24..36);
    assert!(sites.exchange(0, 1).in_step, "12 of 26, after 24 of its own");
    holds_nothing(b);
    // A whole folder, removed here, is held there and not here.
    later(&sites, 120);
    delete(b, 36..50);
    (0..30).for_each(|n| b.write(&format!("other {n}"), format!("{n}")));
    sites.exchange(1, 0);
    (0..30).for_each(|n| b.remove(&format!("other {n}")));
    sites.exchange(1, 0);
    assert_eq!((held(a).deleted, held(a).of), (30, 33));
    holds_nothing(b);
    a.folder().accept(None).expect("accept");
    sites.settle();
}

#[test]
fn who_joins_loses_nothing_and_is_not_asked() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    fill(a, 30);
    a.capture();
    b.clock.advance(Duration::from_secs(1000));
    rewrite(b, 0..30);
    b.capture();
    let report = sites.exchange(0, 1);
    assert_eq!(report.conflicts.len(), 30);
    assert!(report.in_step, "what stood here stands beside it");
    holds_nothing(a);
    holds_nothing(b);
    sites.settle();
}

#[test]
fn a_change_that_the_peer_undoes_ends_the_hold() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let before = contents(b);
    delete(a, 0..40);
    sites.exchange(0, 1);
    held(b);
    a.clock.advance(Duration::from_mins(1));
    (0..40).for_each(|n| a.write(&name(n), format!("content of {n}\n")));
    assert!(sites.exchange(0, 1).in_step);
    holds_nothing(b);
    assert_eq!(contents(b), before);
    sites.settle();
}

#[test]
fn who_else_brings_it_is_held_as_well() {
    let sites = Sites::new(3);
    let [a, b, c] = &sites.sites[..] else { panic!("three") };
    fill(a, FILES);
    sites.exchange(0, 1);
    sites.exchange(0, 2);
    delete(a, 0..45);
    sites.exchange(0, 2);
    c.folder().accept(None).expect("accept");
    assert_eq!(contents(c).len(), 5);
    c.write("own of c", "c");
    sites.exchange(2, 1);
    assert_eq!(held(b).peer, "device-c");
    sites.exchange(0, 1);
    let peers: Vec<_> = b.folder().held().expect("holds").into_iter().map(|held| held.peer).collect();
    assert_eq!(peers, ["device-a", "device-c"]);
    let wrong = b.folder().reject(Some("nobody")).expect_err("nobody");
    assert!(wrong.to_string().contains("`device-a`, `device-c`"), "{wrong}");

    // One is decided; the other has nothing left to take away.
    let report = b.folder().reject(Some("device-a")).expect("reject");
    assert_eq!((report.changes.len(), report.held.len()), (45, 0), "{report:?}");
    holds_nothing(b);
    assert_eq!(b.read("own of c"), "c");
    sites.exchange(2, 1);
    holds_nothing(b);
    assert_eq!(contents(b).len(), FILES + 1);
    // For a and c, what comes back is an addition.
    sites.settle();
    assert_eq!(contents(a).len(), FILES + 1);
}

#[test]
fn the_share_is_as_it_is_set() {
    let mut sites = two_with_files();
    sites.sites[1].guards.brake = "60%".parse().expect("a share");
    delete(&sites.sites[0], 0..30);
    assert!(sites.sites[1].folder().exchange(&Site::target(&sites.sites[0]), false).expect("exchange").in_step);
    sites.sites[1].guards.brake = "off".parse().expect("a share");
    rewrite(&sites.sites[0], 30..FILES);
    assert!(sites.sites[1].folder().exchange(&Site::target(&sites.sites[0]), false).expect("exchange").held.is_none());
    sites.sites[1].guards.brake = "90%".parse().expect("a share");
    delete(&sites.sites[0], 30..FILES);
    let report = sites.sites[1].folder().exchange(&Site::target(&sites.sites[0]), false).expect("exchange");
    assert_eq!(report.held.map(|held| held.deleted), Some(50), "with the 30 of a moment ago");
    // Whoever takes the brake off says that all may come.
    sites.sites[1].guards.brake = "off".parse().expect("a share");
    let report = sites.sites[1].folder().exchange(&Site::target(&sites.sites[0]), false).expect("exchange");
    assert!(report.held.is_none() && report.in_step, "{report:?}");
    holds_nothing(&sites.sites[1]);
}

#[test]
fn a_hold_goes_with_its_peer_and_outlasts_the_memory_of_it() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    delete(a, 0..40);
    sites.exchange(0, 1);
    b.folder().rename_peer("device-a", "laptop").expect("renamed");
    assert_eq!((held(b).peer.as_str(), held(b).deleted), ("laptop", 40));
    fs::remove_file(b.path(".git/foldersync/brake.json")).expect("it is there");
    assert_eq!((held(b).peer.as_str(), held(b).deleted), ("laptop", 0));
    assert_eq!(held(b).words(), "a mass change");
    assert_eq!(b.folder().reject(Some("laptop")).expect("reject").changes.len(), 40);
    sites.settle();
}

#[test]
fn a_bundle_is_held_like_what_a_peer_sends() {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    delete(a, 0..40);
    a.capture();
    let file = sites.dir().join("bundle");
    a.folder().bundle_create(&file, None, None).expect("a bundle");
    let report = b.folder().bundle_apply(&file).expect("taken");
    assert_eq!(report.held.map(|held| (held.peer, held.deleted)), Some(("bundle".to_owned(), 40)));
    assert_eq!(b.names().len(), FILES);
    b.folder().accept(Some("bundle")).expect("accept");
    assert_eq!(b.head(), a.head());
    sites.settle();
}

// Copies that were restored from a backup.

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp").success());
}

/// Two copies with a history after the backup of the second was made.
fn with_backup() -> (Sites, std::path::PathBuf) {
    let sites = two_with_files();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let backup = sites.dir().join("backup");
    copy(&b.root, &backup);
    for site in [a, b] {
        site.clock.advance(Duration::from_hours(2));
    }
    // More than the brake would let through.
    (0..40).for_each(|n| b.write(&name(n), format!("newer {n}\n")));
    b.write("newer file", "1");
    b.remove(&name(45));
    b.capture();
    let report = a.folder().exchange(&Site::target(b), false).expect("exchange");
    assert!(report.held.is_some());
    a.folder().accept(None).expect("accept");
    a.write("from a", "2");
    sites.exchange(0, 1);
    assert_eq!(a.head(), b.head());
    (sites, backup)
}

fn noticed(notes: &[String], words: &str) -> bool {
    notes.iter().any(|note| note.contains(words) && note.contains("restored from a backup"))
}

#[test]
fn a_copy_restored_as_a_whole_is_behind_and_is_told_so() {
    for dials in [0, 1] {
        let (sites, backup) = with_backup();
        let [a, b] = &sites.sites[..] else { panic!("two") };
        let before = a.files();
        fs::remove_dir_all(&b.root).expect("lost");
        fs::rename(&backup, &b.root).expect("restored");
        let report = sites.exchange(dials, 1 - dials);
        let words = if dials == 0 { "`b` is older than it was" } else { "this copy is older than `a`" };
        assert!(dials == 1 || noticed(&report.notes, words), "{report:?}");
        assert!(dials == 0 || report.notes.iter().any(|note| note.contains("this copy is older than")), "{report:?}");
        assert!(report.in_step && report.conflicts.is_empty());
        assert_eq!(b.files(), before, "brought up to date at once, though it is most of the folder");
        holds_nothing(b);
        sites.settle();
    }
}

#[test]
fn a_copy_whose_repository_alone_was_restored_keeps_its_files() {
    let (sites, backup) = with_backup();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let before = contents(a);
    b.write("not captured yet", "3");
    fs::remove_dir_all(b.path(".git")).expect("lost");
    fs::rename(backup.join(".git"), b.path(".git")).expect("restored");
    let report = sites.exchange(0, 1);
    assert!(noticed(&report.notes, "`b` is older than it was"), "{report:?}");
    assert!(report.in_step && report.conflicts.is_empty(), "{report:?}");
    let mut after = contents(b);
    after.retain(|(name, _)| name != "not captured yet");
    assert_eq!(after, before);
    sites.settle();
    assert_eq!(a.read("not captured yet"), "3");
}

#[test]
fn old_files_under_a_newer_repository_are_held_by_the_peers() {
    let (sites, backup) = with_backup();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    let before = contents(a);
    for entry in fs::read_dir(&b.root).expect("there") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name != ".git") {
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("lost");
        }
    }
    for n in 0..3 {
        copy(&backup.join(format!("folder {n}")), &b.path(&format!("folder {n}")));
    }
    let report = sites.exchange(0, 1);
    let one = report.held.expect("a mass change");
    assert_eq!((one.deleted, one.rewritten), (2, 40), "{one:?}");
    assert_eq!(contents(a), before);
    a.folder().reject(None).expect("reject");
    // There, what comes back is a mass rewrite in its turn.
    sites.exchange(0, 1);
    assert_eq!(held(b).rewritten, 40);
    b.folder().accept(None).expect("accept");
    sites.settle();
    let mut after = contents(b);
    // It is back there, as an addition.
    after.retain(|(path, _)| *path != name(45));
    assert_eq!(after, before);
}

// Room.

/// An exchange of two that have settings of their own.
fn exchange_apart(from: &Site, to: &Site) -> ExchangeReport {
    let (here, there) = foldersync::transport::pipe("the other");
    let (dials, serves) = (from.folder(), to.folder());
    std::thread::scope(|scope| {
        let served = scope.spawn(move || serves.serve(there, Some(&from.name), ExchangeOptions::default()));
        let report = dials.exchange_over(here, &to.name, ExchangeOptions::default()).expect("exchange");
        served.join().expect("no panic").expect("served");
        report
    })
}

#[test]
fn a_disk_that_is_nearly_full_takes_nothing_and_sends() {
    let mut sites = two_with_files();
    sites.sites[1].guards = Guards { free_space: FreeSpace::Bytes(u64::MAX / 2), ..Guards::default() };
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("new at a", "1");
    b.write("new at b", "2");
    let report = exchange_apart(b, a);
    let why = report.no_room.expect("no room");
    assert!(why.contains("is nearly full") && why.contains(b.root.to_str().expect("text")), "{why}");
    assert_eq!((report.received, report.sent), (0, 1));
    assert_eq!(a.read("new at b"), "2");
    assert_eq!(b.names().len(), FILES + 1);
    let report = exchange_apart(a, b);
    assert!(report.notes.iter().any(|note| note.contains("takes nothing from this device")), "{report:?}");
    assert!(a.monitor.notices().iter().any(|text| text.contains("`device-b` takes nothing just now")));
    b.check();
    sites.sites[1].guards = Guards::default();
    let [a, b] = &sites.sites[..] else { panic!("two") };
    assert_eq!(exchange_apart(b, a).no_room, None);
    sites.settle();
}

// Any three copies meet, whatever is held and decided in between.

#[derive(Debug, Clone)]
enum Op {
    Write(usize, usize, u8),
    Delete(usize, usize, usize),
    Exchange(usize, usize),
    Accept(usize),
    Reject(usize),
    Later,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (site, file) = (0..3_usize, 0..30_usize);
    let op = prop_oneof![
        2 => (site.clone(), file.clone(), any::<u8>()).prop_map(|(site, file, what)| Op::Write(site, file, what)),
        2 => (site.clone(), file, 1..30_usize).prop_map(|(site, first, many)| Op::Delete(site, first, many)),
        5 => (site.clone(), site.clone()).prop_map(|(from, to)| Op::Exchange(from, to)),
        1 => site.clone().prop_map(Op::Accept),
        1 => site.prop_map(Op::Reject),
        1 => Just(Op::Later),
    ];
    proptest::collection::vec(op, 8..24)
}

/// Three copies do all that, then everything that is held is decided on.
fn meet(ops: Vec<Op>) {
    let sites = Sites::new(3);
    fill(&sites.sites[0], 30);
    sites.exchange(0, 1);
    sites.exchange(0, 2);
    let decide = |site: &Site, accepts: bool| {
        let folder = site.folder();
        let held = !folder.held().expect("holds").is_empty();
        let decided = if accepts { folder.accept(None) } else { folder.reject(None) };
        assert_eq!(decided.is_ok(), held);
    };
    for op in ops {
        match op {
            Op::Write(site, file, what) => sites.sites[site].write(&name(file), format!("{what} by {site}")),
            Op::Delete(site, first, many) => {
                let site = &sites.sites[site];
                (first..(first + many).min(30)).for_each(|n| drop(fs::remove_file(site.path(&name(n)))));
            }
            Op::Exchange(from, to) if from != to => drop(sites.exchange(from, to)),
            Op::Exchange(..) => {}
            Op::Accept(site) => decide(&sites.sites[site], true),
            Op::Reject(site) => decide(&sites.sites[site], false),
            Op::Later => later(&sites, 40),
        }
    }
    // Who has nothing to decide on any more, and has exchanged with all, has what all have.
    for _ in 0..4 {
        for (from, to) in [(0, 1), (0, 2), (1, 2)] {
            drop(sites.exchange(from, to));
            for site in &sites.sites {
                if !site.folder().held().expect("holds").is_empty() {
                    decide(site, from == 0);
                }
            }
        }
    }
    sites.settle();
    for site in &sites.sites {
        holds_nothing(site);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_copies_meet_whatever_is_held_and_decided(ops in ops()) {
        meet(ops);
    }
}

/// What is held may be a merge, which is made anew when more comes.
#[test]
fn a_hold_is_over_when_the_head_has_all_that_was_held() {
    meet(vec![
        Op::Delete(0, 0, 20),
        Op::Write(2, 0, 0),
        Op::Delete(0, 1, 7),
        Op::Write(1, 27, 159),
        Op::Exchange(1, 0),
        Op::Exchange(2, 0),
    ]);
}
