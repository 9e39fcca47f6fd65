//! Several devices, each with a home, a folder and a daemon of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use foldersync::config::Home;
use foldersync::daemon::DaemonStatus;
use foldersync::daemon::control::{Answer, Ask, Client};

use crate::sites::{git, one_path_per_commit};
use crate::support;

/// What is long enough even on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// The files of a folder, by their paths.
pub(super) type Tree = BTreeMap<String, Vec<u8>>;

struct Device {
    name: String,
    port: u16,
    key: String,
    daemon: Option<Child>,
}

/// Devices that share one folder. Its first file is `first`.
pub(super) struct Devices {
    dir: tempfile::TempDir,
    devices: Vec<Device>,
}

impl Drop for Devices {
    fn drop(&mut self) {
        for at in 0..self.devices.len() {
            self.kill(at);
        }
    }
}

impl Devices {
    pub(super) fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let devices = names
            .iter()
            .map(|name| {
                // Free at this moment; another process may take it, then the daemon says so and the test fails.
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
                let port = socket.local_addr().expect("an address").port();
                Device { name: (*name).to_owned(), port, key: String::new(), daemon: None }
            })
            .collect();
        let mut devices = Self { dir, devices };
        fs::create_dir(devices.folder(0)).expect("a folder");
        devices.write(0, "first", "1");
        for at in 0..names.len() {
            let told = devices.run(at, &["id", "--json"]);
            let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
            told["device"].as_str().expect("a key").clone_into(&mut devices.devices[at].key);
        }
        let folder = |at: usize| devices.folder(at).to_str().expect("plain").to_owned();
        devices.run(0, &["init", &folder(0)]);
        for at in 1..names.len() {
            devices.run(at, &["clone", &folder(0), &folder(at)]);
        }
        devices
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn home(&self, at: usize) -> PathBuf {
        self.dir().join(format!("home-{}", self.devices[at].name))
    }

    pub(super) fn folder(&self, at: usize) -> PathBuf {
        self.dir().join(&self.devices[at].name)
    }

    fn command(&self, at: usize) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foldersync"));
        command.env("FOLDERSYNC_HOME", self.home(at)).env_remove("NOTIFY_SOCKET").current_dir(self.dir());
        command
    }

    fn run(&self, at: usize, args: &[&str]) -> Vec<u8> {
        let output = support::output(self.command(at).args(args).stdin(Stdio::null()));
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes these pairs of devices peers.
    pub(super) fn connect(&self, pairs: &[(usize, usize)]) {
        let pairs: Vec<_> = pairs.iter().map(|&pair| (pair, "")).collect();
        self.connect_so(&pairs);
    }

    /// Makes these pairs of devices peers, both sides with these settings.
    pub(super) fn connect_so(&self, pairs: &[((usize, usize), &str)]) {
        for at in 0..self.devices.len() {
            let mut text = format!(
                "[device]\nport = {}\nlocal_discovery = false\n[folder.data]\npath = \"{}\"\n",
                self.devices[at].port,
                self.folder(at).display()
            );
            for &((one, other), settings) in pairs.iter().filter(|(pair, _)| pair.0 == at || pair.1 == at) {
                let Device { name, port, key, .. } = &self.devices[if one == at { other } else { one }];
                text += &format!(
                    "[peer.{name}]\naddress = \"foldersync://{key}@127.0.0.1:{port}\"\nfolders = [\"data\"]\n{settings}"
                );
            }
            fs::write(self.home(at).join("config.toml"), text).expect("written");
        }
    }

    /// Pauses the folder of a device, until then; its daemon has to read that.
    pub(super) fn pause(&self, at: usize, until: &str) {
        let path = self.home(at).join("config.toml");
        let text = fs::read_to_string(&path).expect("a configuration");
        let paused = text.replace("[folder.data]\n", &format!("[folder.data]\npaused = \"{until}\"\n"));
        fs::write(path, paused).expect("written");
    }

    pub(super) fn start(&mut self, at: usize) {
        let log =
            fs::File::options().create(true).append(true).open(self.dir().join(format!("log-{at}"))).expect("a log");
        let daemon =
            self.command(at).args(["serve", "--loopback", "--verbose"]).stderr(log).stdout(Stdio::null()).spawn();
        self.devices[at].daemon = Some(daemon.expect("it runs"));
    }

    /// The process of a daemon that runs.
    pub(super) fn process(&self, at: usize) -> u32 {
        self.devices[at].daemon.as_ref().expect("it runs").id()
    }

    pub(super) fn start_all(&mut self) {
        (0..self.devices.len()).for_each(|at| self.start(at));
    }

    /// Kills a daemon, as by `kill -9`.
    pub(super) fn kill(&mut self, at: usize) {
        if let Some(mut daemon) = self.devices[at].daemon.take() {
            daemon.kill().expect("killed");
            daemon.wait().expect("it is gone");
        }
    }

    pub(super) fn write(&self, at: usize, path: &str, content: &str) {
        let path = self.folder(at).join(path);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        fs::write(path, content).expect("written");
    }

    pub(super) fn remove(&self, at: usize, path: &str) {
        fs::remove_file(self.folder(at).join(path)).expect("removed");
    }

    pub(super) fn tree(&self, at: usize) -> Tree {
        let mut tree = Tree::new();
        let root = self.folder(at);
        let mut pending = vec![root.clone()];
        while let Some(folder) = pending.pop() {
            // It may be away, or going away, at this moment.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    if entry.file_name() != ".git" {
                        pending.push(path);
                    }
                } else if let Ok(content) = fs::read(&path) {
                    tree.insert(path.strip_prefix(&root).expect("below").to_string_lossy().into_owned(), content);
                }
            }
        }
        tree
    }

    /// Waits until the folders are so.
    pub(super) fn wait(&self, so: impl Fn(&[Tree]) -> bool) {
        let began = Instant::now();
        loop {
            let trees: Vec<Tree> = (0..self.devices.len()).map(|at| self.tree(at)).collect();
            if so(&trees) {
                return;
            }
            if began.elapsed() > LIMIT {
                let names: Vec<Vec<&String>> = trees.iter().map(|tree| tree.keys().collect()).collect();
                let state = |at| {
                    let tell =
                        |args: &[&str]| String::from_utf8_lossy(&git(&self.folder(at), args).stdout).into_owned();
                    format!(
                        "{}{}{}",
                        tell(&["log", "--graph", "--oneline", "--all"]),
                        tell(&["status", "--short"]),
                        tell(&["show-ref"])
                    )
                };
                let states: String = (0..self.devices.len()).map(state).collect();
                panic!("they do not become what they should: {names:?}\n{states}\n{}", self.logs());
            }
            sleep(LOOK);
        }
    }

    /// Waits until all folders hold the same, in files of these names.
    pub(super) fn wait_equal(&self, names: &[&str]) {
        self.wait(|trees| {
            trees.windows(2).all(|pair| pair[0] == pair[1])
                && trees[0].keys().map(String::as_str).eq(names.iter().copied())
        });
    }

    /// Waits until a daemon says so of itself.
    pub(super) fn wait_status(&self, at: usize, so: impl Fn(&DaemonStatus) -> bool) {
        let began = Instant::now();
        while !self.status(at).is_some_and(|status| so(&status)) {
            assert!(began.elapsed() < LIMIT, "{:?}\n{}", self.status(at), self.logs());
            sleep(LOOK);
        }
    }

    fn status(&self, at: usize) -> Option<DaemonStatus> {
        match Client::ask(&Home::at(self.home(at)), &Ask::Status).ok()??.next().ok()? {
            Answer::Progress(status) => Some(*status),
            _ => None,
        }
    }

    fn logs(&self) -> String {
        let log = |at| fs::read_to_string(self.dir().join(format!("log-{at}"))).unwrap_or_default();
        let logs: Vec<String> =
            (0..self.devices.len()).map(|at| format!("--- {}\n{}", self.devices[at].name, log(at))).collect();
        logs.concat()
    }

    /// Waits until all say that they are in step, stops them, and looks at their repositories.
    pub(super) fn check(&mut self) {
        for at in 0..self.devices.len() {
            self.wait_status(at, |status| {
                status
                    .peers
                    .values()
                    .flat_map(|peer| peer.folders.values())
                    .all(|pair| pair.in_step && !pair.exchanging)
            });
        }
        for at in 0..self.devices.len() {
            self.kill(at);
        }
        self.sound();
    }

    /// Looks at the repositories of daemons that have ended: whole, and all with the same head.
    pub(super) fn sound(&self) {
        let mut heads = Vec::new();
        for at in 0..self.devices.len() {
            // Finishes what a kill may have cut off.
            self.run(at, &["--folder", self.folder(at).to_str().expect("plain"), "commit"]);
            let fsck = git(&self.folder(at), &["fsck", "--full", "--strict", "--no-dangling", "--no-progress"]);
            assert!(fsck.status.success() && fsck.stdout.is_empty(), "{fsck:?}");
            one_path_per_commit(&self.folder(at));
            heads.push(git(&self.folder(at), &["rev-parse", "main"]).stdout);
        }
        assert!(heads.windows(2).all(|pair| pair[0] == pair[1]), "the heads differ");
    }
}
