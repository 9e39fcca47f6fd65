//! Daemons in namespaces: the built command with homes and folders of their own, and what can be seen of them.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use foldersync::config::{Home, Name};
use foldersync::daemon::control::{Answer, Ask, Client};
use foldersync::daemon::{DaemonStatus, LinkState};
use tempfile::TempDir;

use super::spaces::Spaces;
use crate::support;

/// Longer than an edit takes, wherever.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often is looked at what is waited for.
const GLANCE: Duration = Duration::from_millis(5);

/// Waits until there is something to see, and tells how long it took.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return (seen, start.elapsed());
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for this: {what}");
        thread::sleep(GLANCE);
    }
}

/// Tells a figure, past what the test harness keeps to itself.
pub fn tell(text: &str) {
    writeln!(io::stderr(), "{text}").expect("standard error");
}

/// A file written at each side arrives at the other.
#[track_caller]
pub fn converge(a: &Node, b: &Node, round: &str) -> Duration {
    let mut longest = Duration::ZERO;
    for (from, to, file) in [(a, b, format!("{round} from a")), (b, a, format!("{round} from b"))] {
        from.write(&file, &file);
        let ((), took) = wait_for(&file, PATIENCE, || to.has(&file, &file).then_some(()));
        longest = longest.max(took);
    }
    longest
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A device in the namespace of its name, with a folder `docs`.
pub struct Node {
    name: String,
    root: PathBuf,
    key: String,
    running: Option<Running>,
    _dir: TempDir,
}

/// What else the configuration of a node says.
#[derive(Default, Clone)]
pub struct Settings {
    /// Lines for `[device]`.
    pub device: String,
    /// The addresses that are known of peers, by their names.
    pub addresses: Vec<(&'static str, &'static str)>,
}

fn foldersync(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foldersync"));
    environment(&mut command, home);
    command
}

fn environment(command: &mut Command, home: &Path) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("FOLDERSYNC_HOME", home)
        .env("LANG", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::null());
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = support::output(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    output.stdout
}

impl Node {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("it exists");
        let mut node = Self { name: name.to_owned(), root, key: String::new(), running: None, _dir: dir };
        fs::create_dir_all(node.home()).expect("a directory");
        let id = output(foldersync(&node.home()).args(["id", "--json"]).current_dir(&node.root));
        let id: serde_json::Value = serde_json::from_slice(&id).expect("JSON");
        id["device"].as_str().expect("a key").clone_into(&mut node.key);
        node
    }

    /// Nodes with one folder, a copy of it for each, that are peers of one another.
    pub fn peers<const N: usize>(nodes: &[(&str, Settings); N]) -> [Self; N] {
        let made = nodes.each_ref().map(|(name, _)| Self::new(name));
        let docs = made[0].docs();
        fs::create_dir_all(&docs).expect("a directory");
        fs::write(docs.join("first"), "first").expect("a file");
        output(foldersync(&made[0].home()).arg("init").arg(&docs));
        for copy in &made[1..] {
            output(foldersync(&copy.home()).arg("clone").arg(&docs).arg(copy.docs()));
        }
        for (node, (_, settings)) in made.iter().zip(nodes) {
            let peers: Vec<_> = made.iter().filter(|peer| peer.name != node.name).collect();
            node.configure(settings, &peers, true);
        }
        made
    }

    /// A node that is only to be a relay for others.
    pub fn relay(name: &str, peers: &[&Self]) -> Self {
        let node = Self::new(name);
        node.configure(&Settings::default(), peers, false);
        node
    }

    fn configure(&self, settings: &Settings, peers: &[&Self], with_folder: bool) {
        let mut text = format!("[device]\nname = \"{}\"\n{}\n", self.name, settings.device);
        if with_folder {
            write!(text, "[folder.docs]\npath = \"{}\"\n", self.docs().display()).expect("text");
        }
        for peer in peers {
            let known = settings.addresses.iter().filter(|(name, _)| *name == peer.name);
            let addresses: Vec<_> = known.map(|(_, address)| address).collect();
            let Self { name, key, .. } = peer;
            write!(text, "[peer.{name}]\naddress = \"foldersync://{key}\"\naddresses = {addresses:?}\n").expect("text");
            text.push_str(if with_folder { "folders = [\"docs\"]\n" } else { "folders = []\n" });
        }
        fs::write(self.home().join("config.toml"), text).expect("a file");
    }

    /// Gives the device other settings, before it runs.
    pub fn set_device(&self, lines: &str) {
        let file = self.home().join("config.toml");
        let text = fs::read_to_string(&file).expect("a file");
        fs::write(file, text.replacen("[device]\n", &format!("[device]\n{lines}\n"), 1)).expect("a file");
    }

    fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    fn docs(&self) -> PathBuf {
        self.root.join("docs")
    }

    /// The file of the certificate, of a relay.
    pub fn certificate(&self) -> PathBuf {
        self.home().join("relay.pem")
    }

    fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Starts `foldersync serve` and waits until it is ready.
    pub fn start(&mut self, spaces: &Spaces, arguments: &[&str]) {
        let mut command = spaces.command(&self.name, env!("CARGO_BIN_EXE_foldersync"));
        environment(&mut command, &self.home());
        command.args(["serve", "--verbose", "--log-file"]).arg(self.log()).args(arguments);
        let mut running = Running(command.spawn().expect("ip runs"));
        let start = Instant::now();
        while self.said(" ready").is_none() {
            let ended = running.0.try_wait().expect("a child");
            assert!(ended.is_none() && start.elapsed() < Duration::from_secs(30), "{} ends: {ended:?}", self.name);
            thread::sleep(GLANCE);
        }
        self.running = Some(running);
    }

    /// The first line of the log with these words.
    pub fn said(&self, words: &str) -> Option<String> {
        let log = fs::File::open(self.log()).ok()?;
        BufReader::new(log).lines().map_while(Result::ok).find(|line| line.contains(words))
    }

    /// Writes a file in the folder, at once.
    pub fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let staged = self.root.join("staged");
        fs::write(&staged, content).expect("a file");
        fs::rename(staged, self.docs().join(file)).expect("it is put in place");
    }

    /// Whether a file of the folder has this content.
    pub fn has(&self, file: &str, content: impl AsRef<[u8]>) -> bool {
        let path = self.docs().join(file);
        // Big ones are not read again and again.
        fs::metadata(&path).is_ok_and(|data| data.len() == content.as_ref().len() as u64)
            && fs::read(path).is_ok_and(|found| found == content.as_ref())
    }

    /// What the daemon says of itself.
    pub fn status(&self) -> DaemonStatus {
        let mut client = Client::ask(&Home::at(self.home()), &Ask::Status).expect("it listens").expect("it runs");
        match client.next().expect("it answers") {
            Answer::Progress(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// How it is connected with a peer.
    pub fn link(&self, peer: &str) -> Option<LinkState> {
        self.status().peers.remove(&Name::new(peer).expect("a name"))?.link
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            tell(&format!("--- the log of {}:\n{log}", self.name));
        }
    }
}

/// Bytes that do not compress, the same at every call.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
