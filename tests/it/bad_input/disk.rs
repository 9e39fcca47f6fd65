//! Folders that are missing, not readable, read-only or on a full disk, in use by another, or changing meanwhile.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use foldersync::engine::Failure;
use foldersync::store::{FolderLock, Wait};

use super::{Before, skipped, two_folders};
use crate::sites::{Site, Sites, git, text};
use crate::support::TestEnv;

#[test]
fn a_folder_that_is_missing_is_never_a_deletion() {
    let env = two_folders();
    fs::rename(env.path("docs"), env.path("away")).expect("renamed");
    let copy = Before::of(&env.path("copy"));
    for command in ["status", "commit", "exchange", "verify"] {
        env.run(["--folder", "docs", command]).failed(2, &["[ROOT]/docs", "mounted"]);
    }
    env.run(["init", "docs"]).failed(6, &["[ROOT]/docs", "mount"]);
    let all = env.run(["exchange"]);
    assert!(all.status != Some(0) && all.stderr.contains("[ROOT]/docs"), "{all}");
    // The same with what a mount point holds: an empty folder.
    fs::create_dir(env.path("docs")).expect("a folder");
    env.run(["--folder", "docs", "commit"]).failed(2, &["[ROOT]/docs", "mounted"]);
    env.run_in("copy", ["exchange", "origin"]).failed(4, &["[ROOT]/docs", "`origin` cannot be reached"]);
    assert_eq!(fs::read_dir(env.path("docs")).expect("there").count(), 0);
    copy.is_untouched();
    fs::remove_dir(env.path("docs")).expect("removed");
    fs::rename(env.path("away"), env.path("docs")).expect("renamed");
    env.run(["exchange"]).ended(0);
}

#[test]
fn what_cannot_be_read_is_left_out_and_is_no_deletion() {
    let env = two_folders();
    let secret = env.path("docs/notes.txt");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("set");
    if fs::read(&secret).is_ok() {
        skipped("what_cannot_be_read_is_left_out_and_is_no_deletion", "this user may read everything");
        return;
    }
    let head = text(git(&env.path("docs"), &["rev-parse", "main"]));
    fs::set_permissions(env.path("docs/sub"), fs::Permissions::from_mode(0o000)).expect("set");
    env.run_in("docs", ["commit"]).ended(3).says(&["sub"]);
    assert_eq!(text(git(&env.path("docs"), &["rev-parse", "main"])), head);
    fs::set_permissions(env.path("docs/sub"), fs::Permissions::from_mode(0o755)).expect("set");
}

/// Runs a script with mounts of its own, which nobody else sees and which go with it. `false`: not permitted here.
fn with_mounts(env: &TestEnv, script: &str) -> bool {
    let functions = "run() { name=$1; shift; \"$FS\" \"$@\" >$name.out 2>$name.err && echo 0 >$name.code || echo $? >$name.code; }\nset -e\n";
    let run = |script: &str| {
        let mut command = env.command("unshare", &env.path(""));
        command.args(["--map-root-user", "--mount", "sh", "-c", script]).env("FS", env!("CARGO_BIN_EXE_foldersync"));
        command.stderr(Stdio::piped()).output()
    };
    if !run("mount -t tmpfs none home").is_ok_and(|output| output.status.success()) {
        return false;
    }
    let output = run(&format!("{functions}{script}")).expect("it ran before");
    assert!(output.status.success(), "{output:?}");
    true
}

#[track_caller]
fn ended(env: &TestEnv, name: &str, code: &str, words: &[&str]) {
    let (found, told) = (env.read(&format!("{name}.code")), env.read(&format!("{name}.err")));
    assert_eq!(found.trim(), code, "{name}: {told}");
    for word in words {
        assert!(told.contains(word), "{name}: no {word:?} in {told}");
    }
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn a_read_only_folder_is_told_and_left_alone() {
    let env = two_folders();
    env.write("docs/new", "1");
    let before = Before::of(&env.path("docs"));
    let script = "mount --bind docs docs; mount -o remount,bind,ro docs
        run commit --folder docs commit; run to --folder copy exchange; run from --folder docs exchange
        run status --folder docs status; run log --folder docs log; mkdir ro; mount --bind ro ro; mount -o remount,bind,ro ro
        run init init ro";
    if !with_mounts(&env, script) {
        return skipped("a_read_only_folder_is_told_and_left_alone", "no mounts are permitted here");
    }
    before.is_untouched();
    for (name, code) in [("commit", "1"), ("from", "1"), ("init", "6")] {
        ended(&env, name, code, &["ead-only file system"]);
    }
    for name in ["commit", "from"] {
        ended(&env, name, "1", &["hint: mount the disk for writing"]);
    }
    ended(&env, "to", "1", &["ead-only file system", "docs"]);
    ended(&env, "status", "0", &[]);
    ended(&env, "log", "0", &[]);
    env.run_in("copy", ["exchange"]).ended(0);
    assert_eq!(env.read("copy/new"), "1");
}

#[test]
fn a_full_disk_is_told_and_the_next_command_with_room_finishes() {
    let env = two_folders();
    // Three times a disk with 6 MiB left and 3 MiB of what cannot be compressed to come: a capture, a receiver, an init.
    let script = "mkdir small; mount -t tmpfs -o size=40m none small; head -c 34m /dev/zero >small/spare
        run clone clone docs small/full
        head -c 3000000 /dev/urandom >small/ballast; head -c 2500000 /dev/urandom >small/full/big
        before=$(git -c safe.directory='*' -C small/full rev-parse main)
        run capture --folder small/full commit
        test $before = $(git -c safe.directory='*' -C small/full rev-parse main)
        rm small/ballast; run captured --folder small/full commit
        rm -r small/full; run clone2 clone docs small/full; head -c 4000000 /dev/urandom >docs/huge; head -c 3000000 /dev/urandom >small/ballast
        run receive --folder small/full exchange
        test ! -e small/full/huge; cmp docs/notes.txt small/full/notes.txt
        rm small/ballast; run apply --folder small/full exchange
        test ! -e small/full/huge; cmp docs/notes.txt small/full/notes.txt
        run verify --folder small/full verify --content
        rm small/spare; run applied --folder small/full exchange; cmp docs/huge small/full/huge
        run sound --folder small/full verify --content";
    if !with_mounts(&env, script) {
        return skipped("a_full_disk_is_told_and_the_next_command_with_room_finishes", "no mounts are permitted here");
    }
    for name in ["clone", "captured", "clone2", "verify", "applied", "sound"] {
        ended(&env, name, "0", &[]);
    }
    ended(&env, "capture", "1", &["o space", "small/full"]);
    // So small a disk is full before it is noticed that it is nearly so.
    for name in ["receive", "apply"] {
        ended(&env, name, "1", &["small/full", "make room"]);
    }
    env.run_in("docs", ["verify"]).ended(0);
}

/// Of a disk of 60 MiB, 20 are to stay free: what comes stops there, what goes does not.
#[test]
fn a_disk_that_fills_up_stops_what_comes_before_it_is_full() {
    let env = two_folders();
    let script = "mkdir small; mount -t tmpfs -o size=60m none small
        run clone clone docs small/copy
        sed -i 's/^.device.$/&\\nfree_space = \"20MiB\"/' home/config.toml
        for n in 1 2 3 4 5 6 7 8 9; do head -c 6000000 /dev/urandom >docs/big$n; done
        echo here >small/copy/own
        run first --folder small/copy exchange
        free=$(df --output=avail -k small | tail -n 1); test $free -gt 12000
        run again --folder small/copy exchange
        cat docs/own; test ! -e small/copy/big9
        rm docs/big*; run sound --folder small/copy verify";
    if !with_mounts(&env, script) {
        return skipped("a_disk_that_fills_up_stops_what_comes_before_it_is_full", "no mounts are permitted here");
    }
    ended(&env, "clone", "0", &[]);
    ended(&env, "first", "1", &["nearly full", "to stay free"]);
    ended(&env, "again", "1", &["nearly full", "make room"]);
    assert_eq!(env.read("docs/own"), "here\n", "what is new here is sent all the same");
    ended(&env, "sound", "0", &[]);
}

#[test]
fn a_folder_in_use_is_busy_for_a_commit_done_for_an_exchange_and_waited_for_when_told() {
    let env = two_folders();
    env.write("docs/new", "1");
    let lock = env.path("docs/.git/foldersync/lock");
    let held = FolderLock::acquire(&lock, "commit", Wait::No).expect("nobody has it");
    let holder = std::process::id().to_string();
    env.write("docs/new", "2");
    let before = Before::of(&env.path("docs"));
    env.run_in("docs", ["commit"]).failed(75, &["in use by", &holder, "hint: "]);
    let told = env.run_in("docs", ["exchange"]).ended(0);
    assert!(told.stderr.contains(&holder), "{told}");
    let json = env.run(["--folder", "docs", "exchange", "--json"]).ended(0).json();
    assert_eq!(json["busy"][0]["peer"], "copy");
    before.is_untouched();
    let mut waiting = env.foldersync("docs");
    let mut waiting = waiting.args(["exchange", "--wait"]).stdout(Stdio::null()).spawn().expect("it runs");
    assert!(waiting.try_wait().expect("known").is_none());
    drop(held);
    assert!(waiting.wait().expect("it ends").success());
    assert_eq!(env.read("copy/new"), "2");
}

/// Contents of different lengths, and of the same, each told from all others anywhere in it.
fn content(number: usize) -> Vec<u8> {
    format!("{number:06}\n").repeat(3000 + 1000 * (number % 3)).into_bytes()
}

#[test]
fn a_file_that_is_written_meanwhile_is_never_captured_half() {
    let sites = Sites::new(1);
    let a = &sites.sites[0];
    let stop = AtomicBool::new(false);
    fs::write(a.root.join("rewritten"), content(0)).expect("written");
    let last = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                fs::write(a.root.join("rewritten"), content(number)).expect("written");
                if number % 5 == 0 {
                    thread::yield_now();
                }
            }
            number
        });
        for _ in 0..15 {
            a.folder().capture(&[]).expect("the capture goes on");
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("no panic")
    });
    a.capture();
    let known: HashSet<String> = (0..=last)
        .map(|number| foldersync::store::object_id(foldersync::store::ObjectKind::Blob, &content(number)).to_string())
        .collect();
    let half: Vec<_> = a.history().into_iter().filter(|id| !known.contains(id)).collect();
    // A file that was just emptied, to be written anew, has an end too: its emptiness stood there in full.
    let half: Vec<_> = half
        .iter()
        .filter(|id| {
            let blob = a.git(&["cat-file", "blob", id]);
            let whole = content(blob.get(..6).and_then(|number| number.parse().ok()).unwrap_or(0));
            // What stood there while its writer paused is a state of the file; a mixture of two never is.
            !whole.starts_with(blob.as_bytes())
        })
        .collect();
    assert!(half.is_empty(), "{half:?}");
    assert_eq!(fs::read(a.root.join("rewritten")).expect("there"), content(last));
    a.check();
}

#[test]
fn two_who_exchange_with_each_other_at_once_do_not_wait_for_ever() {
    let sites = Sites::new(2);
    let [a, b] = &sites.sites[..] else { panic!("two") };
    a.write("a", "1");
    b.write("b", "1");
    sites.exchange(0, 1);
    thread::scope(|scope| {
        for (one, other) in [(a, b), (b, a)] {
            scope.spawn(move || {
                for round in 0..10 {
                    one.write(&one.name, format!("{round}"));
                    match one.folder().exchange(&Site::target(other), false) {
                        Ok(_) => {}
                        Err(error) => {
                            assert_eq!(error.failure(), Failure::Busy, "{error}");
                        }
                    }
                }
            });
        }
    });
    sites.settle();
}
