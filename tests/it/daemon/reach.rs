//! A daemon whose place on the network changes while it runs.

use std::fs;
use std::net::UdpSocket;

use foldersync::daemon::control::{Answer, Ask};

use super::pairing::paired;
use super::{Running, until, until_file};
use crate::support::TestEnv;

/// Has it listen on another port; what it says to that.
fn move_to(running: &Running, port: u16) -> Answer {
    let path = running.home.dir().join("config.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let lines =
        text.lines().map(|line| if line.starts_with("port = ") { format!("port = {port}") } else { line.to_owned() });
    fs::write(path, lines.collect::<Vec<_>>().join("\n")).expect("written");
    running.ask(&Ask::Reload).1
}

#[test]
fn a_changed_port_is_taken_up_and_one_that_is_taken_is_told_of() {
    let env = TestEnv::new();
    let (nas, _laptop) = paired(&env, &[]);
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free().local_addr().unwrap().port();
    until("it can move there", || matches!(move_to(&nas, port), Answer::Done));
    let there = format!(":{port}");
    nas.until("it listens there", |status| status.addresses.iter().any(|address| address.ends_with(&there)));
    env.write("docs/notes.txt", "from another port\n");
    until_file(&env.path("copy/notes.txt"), "from another port\n");

    let taken = free();
    let port = taken.local_addr().unwrap().port();
    let Answer::Error(refusal) = move_to(&nas, port) else { panic!("it cannot listen there") };
    assert!(refusal.message.contains(&port.to_string()), "{refusal:?}");
    nas.until("it says so", |status| status.network_trouble.is_some());
    drop(taken);
    // A child that another test is just starting may have the socket for an instant more.
    until("it can listen there", || matches!(move_to(&nas, port), Answer::Done));
    nas.until("it listens again", |status| status.network_trouble.is_none());
    env.write("docs/notes.txt", "from a third\n");
    until_file(&env.path("copy/notes.txt"), "from a third\n");
}
