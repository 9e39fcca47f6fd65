//! Daemons that tests of commands start and stop, on loopback only.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::TestEnv;

/// Longer than anything here takes.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// A daemon that runs until it is dropped.
pub(super) struct Serving(Child);

impl Serving {
    /// Starts the daemon of a home, and waits until it is ready.
    pub(super) fn start(env: &TestEnv, home: &str) -> Self {
        let socket = env.path(&format!("{home}.notify"));
        drop(std::fs::remove_file(&socket));
        let notify = UnixDatagram::bind(&socket).expect("a socket");
        notify.set_read_timeout(Some(PATIENCE)).expect("a socket takes it");
        let mut command = env.foldersync("");
        command
            .args(["--home", home, "serve", "--loopback", "--log-file"])
            .arg(env.path(&format!("{home}.log")))
            .env("FOLDERSYNC_LOG", "debug")
            .env("NOTIFY_SOCKET", &socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let serving = Self(command.spawn().expect("the command runs"));
        let mut told = [0; 100];
        let length = notify.recv(&mut told).expect("it tells when it is ready");
        assert_eq!(String::from_utf8_lossy(&told[..length]).trim(), "READY=1");
        serving
    }

    /// Stops it as systemd would; it must end well.
    pub(super) fn stop(mut self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).expect("it runs");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A UDP port that nobody has at the moment.
pub(super) fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("it is bound").port()
}

/// A laptop (`home`) with the folder `docs`, and a nas (`home2`) with its copy `copy`: peers of each other by key.
pub(super) fn two_devices() -> TestEnv {
    let env = TestEnv::new();
    let ports = [free_port(), free_port()];
    for (home, name, port) in [("home", "laptop", ports[0]), ("home2", "nas", ports[1])] {
        let config = format!("[device]\nname = \"{name}\"\nport = {port}\nlocal_discovery = false\n");
        env.write(&format!("{home}/config.toml"), config);
    }
    env.write("docs/notes.txt", "one\n");
    env.run(["init", "docs"]).ended(0);
    env.run(["--home", "home2", "clone", "docs", "copy"]).ended(0);
    env.run(["--home", "home2", "peer", "remove", "origin"]).ended(0);
    let keys = ["home", "home2"].map(|home| {
        let id = env.run(["--home", home, "id", "--json"]).json();
        id["device"].as_str().expect("a key").to_owned()
    });
    let address = |at: usize| format!("foldersync://{}@127.0.0.1:{}", keys[at], ports[at]);
    env.run(["--folder", "docs", "peer", "add", "nas", &address(1)]).ended(0);
    env.run(["--home", "home2", "--folder", "copy", "peer", "add", "laptop", &address(0)]).ended(0);
    env
}

/// A folder `docs` with a peer `usb`, a path.
pub(super) fn with_a_path() -> TestEnv {
    let env = TestEnv::new();
    env.write(
        "home/config.toml",
        format!("[device]\nname = \"laptop\"\nport = {}\nlocal_discovery = false\n", free_port()),
    );
    env.write("docs/notes.txt", "one\n");
    env.run(["init", "docs"]).ended(0);
    env.run(["--home", "home2", "clone", "docs", "usb"]).ended(0);
    env.run(["--folder", "docs", "peer", "add", "usb", "usb"]).ended(0);
    env
}
