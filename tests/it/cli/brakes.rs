//! `accept`, `reject`, and how what is held back is told.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::with_daemon::{PATIENCE, Serving, two_devices, with_a_path};
use crate::sites::{git, text};
use crate::support::TestEnv;

fn fill(env: &TestEnv, dir: &str) {
    (0..50).for_each(|n| env.write(&format!("{dir}/file {n:02}"), format!("content of {n}\n")));
}

fn delete(env: &TestEnv, dir: &str, files: usize) {
    (0..files).for_each(|n| fs::remove_file(env.path(&format!("{dir}/file {n:02}"))).expect("a file"));
}

fn count(env: &TestEnv, dir: &str) -> usize {
    fs::read_dir(env.path(dir)).expect("a folder").count() - 1
}

fn wait_until(what: &str, mut seen: impl FnMut() -> bool) {
    let began = Instant::now();
    while !seen() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for this: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_mass_deletion_is_refused_told_and_decided() {
    let env = with_a_path();
    fill(&env, "docs");
    env.run(["exchange"]).ended(0);
    delete(&env, "usb", 40);
    let refused = env.run(["exchange"]).ended(6);
    assert!(
        refused.stderr.contains("a mass change is held back from usb: 40 files of 51 deleted, as file 00, file 01"),
        "{refused}"
    );
    assert!(refused.stderr.contains("`foldersync accept usb` applies it, `foldersync reject usb`"), "{refused}");
    assert_eq!(count(&env, "docs"), 51);
    env.run(["exchange"]).ended(6);

    let status = env.run_in("docs", ["status"]).ok();
    assert!(status.contains("held back from usb: 40 files of 51 deleted, as "), "{status}");
    assert!(status.contains("say `foldersync accept usb` or `foldersync reject usb`"), "{status}");
    let json = env.run_in("docs", ["status", "--json"]).json();
    assert_eq!((&json["held"][0]["peer"], &json["held"][0]["deleted"]), (&"usb".into(), &40.into()), "{json}");
    assert_eq!(json["held"][0]["examples"].as_array().expect("a list").len(), 5);
    assert!(env.run(["peer", "list"]).ok().contains("held back here: 40 files of 51 deleted"));
    assert_eq!(env.run(["peer", "list", "--json"]).json()["peers"][0]["known"][0]["status"]["held"]["of"], 51);
    assert_eq!(env.run(["exchange", "--json"]).ended(6).json()["exchanges"][0]["held"]["deleted"], 40);
    env.write("docs/new", "goes on");
    env.run(["exchange"]).ended(6);
    assert_eq!(env.read("usb/new"), "goes on");
    let waited = env.run_in("docs", ["wait"]).ended(0);
    assert!(waited.stderr.contains("warning: held back from usb: 40 files"), "{waited}");

    let nobody = env.run_in("docs", ["accept", "nobody"]).ended(1);
    assert!(nobody.stderr.contains("nothing is held back from `nobody`, but something from `usb`"), "{nobody}");
    let done = env.run_in("docs", ["accept"]).ended(0);
    assert_eq!(done.stderr, "accepted what came from usb: wrote 40 files\n");
    assert_eq!(count(&env, "docs"), 12);
    env.run(["exchange"]).ended(0);
    env.run_in("docs", ["accept"]).ended(1);
    assert!(!env.run_in("docs", ["status"]).ok().contains("held back"));
}

#[test]
fn what_is_rejected_comes_back_at_the_peer() {
    let env = with_a_path();
    fill(&env, "docs");
    env.run(["exchange"]).ended(0);
    delete(&env, "usb", 40);
    env.run(["exchange"]).ended(6);
    let done = env.run_in("docs", ["reject", "--json"]).ended(0).json();
    assert_eq!((done["changes"].as_array().map(Vec::len), &done["applied"]), (Some(40), &0.into()), "{done}");
    assert_eq!(count(&env, "usb"), 11);
    env.run(["exchange"]).ended(0);
    assert_eq!((count(&env, "docs"), count(&env, "usb")), (51, 51));
    assert!(env.run_in("usb", ["log", "file 00"]).ok().contains("delete"));
}

/// The other side holds back what this one sends: this one is told, and has done its part.
#[test]
fn who_sends_a_mass_deletion_is_told_that_it_is_held_back() {
    let env = with_a_path();
    fill(&env, "docs");
    env.run(["exchange"]).ended(0);
    delete(&env, "docs", 40);
    let told = env.run(["exchange"]).ended(0);
    assert!(told.stderr.contains("holds back what was sent to it (40 files of 51 deleted)"), "{told}");
    assert_eq!(count(&env, "usb"), 51);
    env.run_in("usb", ["accept"]).ended(0);
    assert_eq!(count(&env, "usb"), 11);
    env.run(["exchange"]).ended(0);
}

#[test]
fn the_brake_is_set_for_all_folders_or_for_one() {
    let env = with_a_path();
    fill(&env, "docs");
    env.run(["exchange"]).ended(0);
    let text = env.read("home/config.toml");
    env.write("home/config.toml", text.replacen("[device]\n", "[device]\nbrake = \"40%\"\n", 1));
    assert!(env.run(["config"]).ok().contains("40%"));
    delete(&env, "usb", 21);
    env.run(["exchange"]).ended(6);
    let text = env.read("home/config.toml");
    env.write("home/config.toml", text.replacen("[folder.docs]\n", "[folder.docs]\nbrake = \"off\"\n", 1));
    env.run(["exchange"]).ended(0);
    assert_eq!(count(&env, "docs"), 30);
}

#[test]
fn a_bundle_is_held_back_too() {
    let env = with_a_path();
    fill(&env, "docs");
    env.run(["exchange"]).ended(0);
    delete(&env, "usb", 40);
    env.run_in("usb", ["commit"]).ended(0);
    env.run_in("usb", ["bundle", "create", "../bundle"]).ended(0);
    let held = env.run_in("docs", ["bundle", "apply", "../bundle"]).ended(6);
    assert!(held.stderr.contains("held back from bundle: 40 files of 51 deleted"), "{held}");
    env.run_in("docs", ["accept", "bundle"]).ended(0);
    assert_eq!(count(&env, "docs"), 11);
}

#[test]
fn daemons_hold_back_a_deletion_that_goes_on_live_until_it_is_decided() {
    let env = two_devices();
    let _nas = Serving::start(&env, "home2");
    let _laptop = Serving::start(&env, "home");
    for round in ["reject", "accept"] {
        fill(&env, "docs");
        wait_until("the copy", || env.path("copy/file 49").exists() && env.path("copy/file 00").exists());
        env.run(["--folder", "docs", "wait"]).ended(0);
        // Bit by bit, so that it goes in many exchanges.
        for n in 0..50 {
            fs::remove_file(env.path(&format!("docs/file {n:02}"))).expect("a file");
            thread::sleep(Duration::from_millis(15));
        }
        let status = || env.run(["--home", "home2", "--folder", "copy", "status"]).ok();
        wait_until("that it is held back", || status().contains("held back from laptop"));
        env.write("docs/marker", round);
        env.write("copy/from the nas", round);
        wait_until("what goes the other way", || {
            fs::read_to_string(env.path("docs/from the nas")).is_ok_and(|text| text == round)
        });
        wait_until("that all has come that is held back", || {
            let status = env.run(["--home", "home2", "--folder", "copy", "status", "--json"]).json();
            status["held"][0]["revision"] == text(git(&env.path("docs"), &["rev-parse", "main"])).trim()
        });
        assert!(count(&env, "copy") >= 25, "{} are left", count(&env, "copy"));
        assert!(env.read("home2.log").contains("held back until somebody says"));
        let list = env.run(["--home", "home2", "peer", "list"]).ok();
        assert!(list.contains("held back here: "), "{list}");
        env.run(["--home", "home2", "--folder", "copy", round]).ended(0);
        let files = if round == "reject" { 53 } else { 3 };
        wait_until("that both have decided", || (count(&env, "docs"), count(&env, "copy")) == (files, files));
        wait_until("that nothing is held", || !status().contains("held back"));
    }
}

#[test]
fn a_copy_restored_from_a_backup_is_brought_up_to_date_by_daemons() {
    let env = two_devices();
    fill(&env, "docs");
    env.run(["exchange"]).status.expect("an end");
    let nas = Serving::start(&env, "home2");
    env.run(["exchange"]).ended(0);
    nas.stop();
    let cp = |from: &str, to: &str| {
        let copied = std::process::Command::new("cp").arg("-a").arg(env.path(from)).arg(env.path(to)).status();
        assert!(copied.expect("cp").success());
    };
    cp("copy", "backup");
    let nas = Serving::start(&env, "home2");
    for n in 0..40 {
        env.write(&format!("docs/file {n:02}"), format!("newer {n}\n"));
        if n % 20 == 19 {
            env.run(["exchange"]).ended(0);
            // Not all at once, but more than half of it since the backup.
            let held = env.run(["--home", "home2", "--folder", "copy", "accept"]);
            assert!(matches!(held.status, Some(0 | 1)), "{held}");
        }
    }
    assert_eq!(env.read("copy/file 39"), "newer 39\n");
    env.run(["exchange"]).ended(0);
    nas.stop();
    fs::remove_dir_all(env.path("copy")).expect("lost");
    fs::rename(env.path("backup"), env.path("copy")).expect("restored");
    assert_eq!(env.read("copy/file 39"), "content of 39\n");
    let _nas = Serving::start(&env, "home2");
    let _laptop = Serving::start(&env, "home");
    wait_until("that it is up to date", || {
        (0..40).all(|n| env.read(&format!("copy/file {n:02}")).starts_with("newer"))
    });
    wait_until("that it is told", || {
        ["home.log", "home2.log"].iter().any(|log| env.read(log).contains("restored from a backup"))
    });
    assert_eq!(count(&env, "docs"), 51);
}
