//! `exchange`: what is due, and by whom it is done.

use super::with_daemon::{Serving, two_devices, with_a_path};

#[test]
fn schedules_and_pauses_are_heeded() {
    let env = with_a_path();
    env.run(["peer", "set", "usb", "every=1h"]).ended(0);
    assert!(env.run(["exchange", "--verbose"]).ok().starts_with("docs with usb: "));
    env.write("docs/new.txt", "new");
    let silent = env.run(["exchange"]).ended(0);
    assert_eq!((silent.stdout.as_str(), silent.stderr.as_str()), ("", ""));
    assert!(!env.path("usb/new.txt").exists());
    let named = env.run(["exchange", "--verbose"]).ended(0);
    assert!(named.stderr.starts_with("docs with usb: not due before "), "{named}");
    let later = env.run(["exchange", "--json"]).ended(0).json();
    assert_eq!((&later["later"][0]["why"], &later["later"][0]["peer"]), (&"schedule".into(), &"usb".into()));
    env.run(["exchange", "usb"]).ended(0);
    assert_eq!(env.read("usb/new.txt"), "new");

    env.run(["pause", "--peer", "usb"]).ended(0);
    env.write("docs/new.txt", "newer");
    assert_eq!(env.run(["exchange", "usb"]).ended(0).stderr, "docs with usb: the peer is paused\n");
    assert_eq!(env.read("usb/new.txt"), "new");
    env.run(["exchange", "--now"]).ended(0);
    assert_eq!(env.read("usb/new.txt"), "newer");

    env.run(["resume", "--peer", "usb"]).ended(0);
    env.run(["--folder", "docs", "pause"]).ended(0);
    env.write("docs/new.txt", "newest");
    assert_eq!(env.run(["exchange", "usb"]).ended(0).stderr, "docs with usb: the folder is paused\n");
    env.run(["exchange", "--now"]).ended(0);
    assert_eq!(env.read("usb/new.txt"), "newest");
}

/// The line for cron does the same whether the daemon is up or down.
#[test]
fn a_device_is_reached_with_the_daemon_up_and_down() {
    let env = two_devices();
    let nobody = env.run(["exchange"]).ended(4);
    assert!(nobody.stderr.starts_with("error: docs with nas: peer `nas` cannot be reached"), "{nobody}");

    let _nas = Serving::start(&env, "home2");
    env.write("docs/down.txt", "no daemon here");
    let done = env.run(["exchange"]).ended(0);
    assert!(done.stdout.starts_with("docs with nas: captured 1 revision and sent 1 revision ("), "{done}");
    assert_eq!(env.read("copy/down.txt"), "no daemon here");
    // The daemon there dials this device again and again, which disturbs nobody.
    for n in 0..12 {
        env.write("docs/down.txt", format!("edit {n}"));
        let done = env.run(["exchange"]).ended(0);
        assert_eq!(env.read("copy/down.txt"), format!("edit {n}"), "{done}");
    }

    let laptop = Serving::start(&env, "home");
    env.write("docs/up.txt", "a daemon here");
    // The daemon may just be at work there of its own accord.
    let done = env.run(["exchange", "--wait", "--json"]).ended(0).json();
    let exchange = &done["exchanges"][0];
    assert_eq!((&exchange["peer"], &exchange["in_step"]), (&"nas".into(), &true.into()), "{done}");
    assert_eq!(env.read("copy/up.txt"), "a daemon here");

    let status = env.run(["--folder", "docs", "status"]).ok();
    assert!(status.contains("\nthe daemon keeps it in step\n"), "{status}");
    assert!(status.lines().any(|line| line.starts_with("peer nas has ") && line.ends_with(": in step")), "{status}");
    let listed = env.run(["peer", "list", "--json"]).json();
    let nas = &listed["peers"][0];
    assert!(matches!(nas["connected"].as_str(), Some("local" | "direct")), "{nas}");
    assert_eq!((&nas["known"][0]["daemon"]["in_step"], &nas["known"][0]["we_lack"]), (&true.into(), &false.into()));
    let shown = env.run(["peer", "list"]).ok();
    assert!(shown.contains("foldersync://") && shown.contains("  in step\n"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");

    laptop.stop();
    env.write("docs/again.txt", "down again");
    assert!(env.run(["exchange"]).ok().starts_with("docs with nas: captured 1 revision and sent 1 revision ("));
    assert_eq!(env.read("copy/again.txt"), "down again");
}

#[test]
fn a_path_is_exchanged_with_by_the_daemon_that_runs() {
    let env = with_a_path();
    let _laptop = Serving::start(&env, "home");
    env.write("docs/new.txt", "new");
    env.run(["exchange"]).ended(0);
    assert_eq!(env.read("usb/new.txt"), "new");
    // A folder that is made while it runs is taken up.
    env.write("more/a", "a");
    env.run(["init", "more"]).ended(0);
    env.run(["--home", "home2", "clone", "more", "more-copy"]).ended(0);
    env.run(["--folder", "more", "peer", "add", "stick", "more-copy"]).ended(0);
    env.write("more/b", "b");
    env.run(["exchange", "stick"]).ended(0);
    assert_eq!(env.read("more-copy/b"), "b");
    let status = env.run(["--folder", "more", "status", "--json"]).json();
    assert_eq!(status["daemon"]["peers"]["stick"]["in_step"], true);

    env.run(["pause", "--peer", "usb"]).ended(0);
    env.write("docs/new.txt", "newer");
    assert_eq!(env.run(["exchange", "usb"]).ended(0).stderr, "docs with usb: the peer is paused\n");
    env.run(["exchange", "usb", "--now"]).ended(0);
    assert_eq!(env.read("usb/new.txt"), "newer");
    env.run(["resume", "--peer", "usb"]).ended(0);
    env.run(["--folder", "docs", "pause"]).ended(0);
    env.write("docs/new.txt", "newest");
    env.run(["exchange", "usb", "--now"]).ended(0);
    assert_eq!(env.read("usb/new.txt"), "newest");
}

#[test]
fn failures_are_told_alike_by_the_daemon() {
    let env = with_a_path();
    std::fs::rename(env.path("usb"), env.path("unplugged")).expect("it is there");
    let without = env.run(["exchange"]).ended(4);
    let _laptop = Serving::start(&env, "home");
    let with = env.run(["exchange"]).ended(4);
    assert_eq!((with.stdout, with.stderr), (without.stdout, without.stderr));
}
