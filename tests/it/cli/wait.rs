//! `wait`: until what changed is safe elsewhere.

use super::with_daemon::{Serving, with_a_path};

#[test]
fn without_a_daemon_it_does_the_exchange() {
    let env = with_a_path();
    env.write("docs/new.txt", "new");
    let done = env.run_in("docs", ["wait", "new.txt"]).ended(0);
    assert_eq!(done.stderr, "`new.txt` is safe on usb\n");
    assert_eq!(env.read("usb/new.txt"), "new");
    let again = env.run_in("docs", ["wait", "--json"]).ended(0).json();
    assert_eq!((&again["safe"], &again["peers"][0]), (&true.into(), &"usb".into()));
    std::fs::rename(env.path("usb"), env.path("unplugged")).expect("it is there");
    env.run_in("docs", ["wait"]).ended(0);
    env.write("docs/new.txt", "newer");
    let gone = env.run_in("docs", ["wait"]).ended(4);
    assert!(gone.stderr.starts_with("error: peer `usb` cannot be reached"), "{gone}");
}

#[test]
fn the_daemon_is_waited_for_as_long_as_is_asked() {
    let env = with_a_path();
    let _laptop = Serving::start(&env, "home");
    env.write("docs/new.txt", "new");
    env.run_in("docs", ["wait", "--on", "usb", "new.txt"]).ended(0);
    assert_eq!(env.read("usb/new.txt"), "new");
    env.run(["pause", "--peer", "usb"]).ended(0);
    env.write("docs/new.txt", "newer");
    let over = env.run_in("docs", ["wait", "--timeout", "500ms"]).ended(4);
    assert!(over.stderr.starts_with("error: `docs` is not safe yet on usb (it lacks 1 revision): paused\n"), "{over}");
    let over = env.run_in("docs", ["wait", "--timeout", "500ms", "new.txt"]).ended(4);
    assert!(over.stderr.starts_with("error: `new.txt` is not safe yet on usb: paused\n"), "{over}");
    assert_eq!(env.read("usb/new.txt"), "new");
    env.run(["resume", "--peer", "usb"]).ended(0);
    env.run_in("docs", ["wait"]).ended(0);
    assert_eq!(env.read("usb/new.txt"), "newer");
}

#[test]
fn what_cannot_be_waited_for_is_refused() {
    let env = with_a_path();
    let refused = |arguments: &[&str], why: &str| {
        let output = env.run_in("docs", arguments).ended(2);
        assert!(output.stderr.starts_with(&format!("error: {why}")), "{output}");
    };
    refused(&["wait", "--on", "nas"], "no peer is named `nas`");
    refused(&["wait", "--timeout", "soon"], "`soon` is no length of time");
    let none = env.run_in("docs", ["wait", "none.txt"]);
    assert!(none.status != Some(0) && none.stderr.contains("none.txt"), "{none}");
    env.run(["peer", "set", "usb", "direction=receive"]).ended(0);
    refused(&["wait"], "nothing of `docs` is sent to any peer");
    refused(&["wait", "--on", "usb"], "nothing of `docs` is sent to `usb`");
}
