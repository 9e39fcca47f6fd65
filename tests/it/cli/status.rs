//! `status --watch`, and what `status` says of the daemon.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use super::with_daemon::{PATIENCE, Serving, with_a_path};

#[test]
fn without_a_daemon_that_is_said() {
    let env = with_a_path();
    assert!(env.run_in("docs", ["status"]).ok().contains("\nno daemon keeps it in step\n"));
    assert!(env.run_in("docs", ["status", "--json"]).json()["daemon"].is_null());
    let watched = env.run_in("docs", ["status", "--watch"]).ended(1);
    assert!(watched.stderr.starts_with("error: no daemon runs\n\nhint: start it with `foldersync serve`"), "{watched}");
}

#[test]
fn a_change_is_a_document_for_who_watches() {
    let env = with_a_path();
    let laptop = Serving::start(&env, "home");
    let mut command = env.foldersync("docs");
    command.args(["status", "--watch", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watching = command.spawn().expect("the command runs");
    let out = watching.stdout.take().expect("piped");
    let (line, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).all(|text| line.send(text).is_ok()));
    let next = || -> serde_json::Value {
        let line = lines.recv_timeout(PATIENCE).expect("a document");
        serde_json::from_str(&line).expect("JSON")
    };
    let settled = |not: &serde_json::Value| loop {
        let document = next();
        if document["head"] != *not && document["daemon"]["peers"]["usb"]["in_step"] == true {
            return document["head"].clone();
        }
    };
    let first = settled(&serde_json::Value::Null);
    env.write("docs/new.txt", "new");
    let second = settled(&first);
    assert!(second.is_string() && second != first);
    assert_eq!(env.read("usb/new.txt"), "new");
    laptop.stop();
    assert_eq!(watching.wait().expect("it ends").code(), Some(1));
}
