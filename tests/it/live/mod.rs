//! Daemons that run: real processes, real links on loopback, real kills.

mod chance;
mod day;
mod devices;
mod soak;

use std::fs;

use self::devices::Devices;

#[test]
fn an_edit_on_any_side_of_a_line_reaches_all() {
    let mut devices = Devices::new(&["a", "b", "c"]);
    devices.connect(&[(0, 1), (1, 2)]);
    devices.start_all();
    devices.write(0, "from a", "1");
    devices.write(1, "folder/from b", "2");
    devices.write(2, "from c", "3");
    devices.wait_equal(&["first", "folder/from b", "from a", "from c"]);
    devices.remove(2, "first");
    devices.write(0, "from a", "changed");
    devices.wait_equal(&["folder/from b", "from a", "from c"]);
    devices.check();
}

#[test]
fn a_ring_converges_with_a_conflict_in_it() {
    let mut devices = Devices::new(&["a", "b", "c"]);
    devices.connect(&[(0, 1), (1, 2), (2, 0)]);
    // Made before anybody is connected: each has its own.
    for at in 0..3 {
        devices.write(at, "same.bin", &format!("\0{at}"));
        devices.write(at, &format!("own {at}"), "1");
    }
    devices.start_all();
    devices.wait(|trees| trees.windows(2).all(|pair| pair[0] == pair[1]) && trees[0].len() == 7);
    devices.check();
}

#[test]
fn a_folder_that_is_away_is_waited_for_and_nothing_is_deleted() {
    let mut devices = Devices::new(&["a", "b"]);
    devices.connect(&[(0, 1)]);
    let (folder, away) = (devices.folder(1), devices.dir().join("away"));
    fs::rename(&folder, &away).expect("renamed");
    devices.start_all();
    devices.write(0, "meanwhile", "1");
    devices.wait_status(1, |status| {
        status.folders.values().any(|folder| folder.trouble.is_some())
            && status.peers.values().any(|peer| peer.link.is_some())
    });
    fs::rename(&away, &folder).expect("renamed");
    devices.wait_equal(&["first", "meanwhile"]);
    // While it runs, too.
    devices.wait_status(1, |status| status.folders.values().all(|folder| folder.trouble.is_none()));
    fs::rename(&folder, &away).expect("renamed");
    devices.wait_status(1, |status| status.folders.values().any(|folder| folder.trouble.is_some()));
    devices.write(0, "again", "1");
    fs::rename(&away, &folder).expect("renamed");
    devices.wait_equal(&["again", "first", "meanwhile"]);
    devices.check();
}

#[test]
fn kills_of_either_daemon_in_the_middle_lose_nothing() {
    let mut devices = Devices::new(&["a", "b"]);
    devices.connect(&[(0, 1)]);
    devices.start_all();
    let mut names = vec!["first".to_owned()];
    for round in 0..6 {
        let (from, killed) = (round % 2, (round / 2) % 2);
        for n in 0..40 {
            let name = format!("round {round}/{n:02}");
            devices.write(from, &name, &format!("{round} {n}\n").repeat(2000));
            names.push(name);
        }
        // At another moment of the capture or of the exchange each time.
        devices.wait(|trees| trees[1 - from].len() > round * 40 + round * 5);
        devices.kill(killed);
        devices.start(killed);
    }
    names.sort();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    devices.wait_equal(&names);
    devices.check();
}
