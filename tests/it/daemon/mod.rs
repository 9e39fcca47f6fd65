//! The daemon, by running the built command: several on this computer, each with a home of its own.

mod namespaces;
#[cfg_attr(not(feature = "relay"), allow(dead_code, reason = "some of it is for relays alone"))]
mod nodes;
mod pairing;
mod reach;
mod relayed;
#[cfg_attr(not(feature = "relay"), allow(dead_code, reason = "some of it is for relays alone"))]
mod spaces;

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use foldersync::config::{Home, Name};
use foldersync::daemon::DaemonStatus;
use foldersync::daemon::control::{Answer, Ask, Client};

use crate::support::TestEnv;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked whether something has come about that does not tell by itself.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for something that can be looked at.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Waits until a file holds this.
#[track_caller]
pub(crate) fn until_file(path: &Path, content: &str) {
    until(&format!("{} holds {content:?}", path.display()), || {
        fs::read_to_string(path).is_ok_and(|found| found == content)
    });
}

/// The home of a device that is called `name`, with a port of its own.
pub(crate) fn device(env: &TestEnv, name: &str) -> Home {
    // Nobody else gets it before it is taken, most likely: the system hands them out in turn.
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    env.write(&format!("{name}/config.toml"), format!("[device]\nname = \"{name}\"\nport = {port}\n"));
    Home::at(env.path(name))
}

/// A running `foldersync serve --loopback`; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) home: Home,
    log: PathBuf,
}

impl Running {
    /// Starts it for a home, and waits until it answers.
    pub(crate) fn start(env: &TestEnv, home: &Home) -> Self {
        let log = home.dir().join("log");
        let to = File::options().create(true).append(true).open(&log).expect("a file for the log");
        let mut command: Command = env.foldersync("");
        command.args(["serve", "--loopback", "--home"]).arg(home.dir());
        command.env("FOLDERSYNC_LOG", "warn,foldersync=trace").stdout(Stdio::null()).stderr(to);
        let child = command.spawn().expect("the command runs");
        let running = Self { child, home: home.clone(), log };
        until("the daemon answers", || Client::ask(home, &Ask::Status).is_ok_and(|client| client.is_some()));
        running
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// Asks, and returns the last word.
    pub(crate) fn ask(&self, ask: &Ask) -> (Vec<Answer>, Answer) {
        let mut client = Client::ask(&self.home, ask).expect("it can be asked").expect("it runs");
        let mut before = Vec::new();
        loop {
            match client.next().expect("it answers") {
                last @ (Answer::Done | Answer::Error(_) | Answer::Ticket { .. }) => return (before, last),
                Answer::Progress(_) => {}
                answer => before.push(answer),
            }
        }
    }

    /// Waits until what it says of itself is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&DaemonStatus) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut client = Client::ask(&self.home, &Ask::Watch).expect("it can be asked").expect("it runs");
        loop {
            let Answer::Progress(status) = client.next().expect("it answers") else { continue };
            if is_so(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{status:#?}\n{}", self.log());
        }
    }
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "a test that fails shows what the daemon did")]
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!(
                "--- log of {}\n{}",
                self.home.dir().display(),
                fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
    }
}

/// A name of a folder or a peer.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}
