//! A place of its own for each test: a temporary directory with a home, and the built command run in it with an
//! environment that has nothing of the person's who runs the tests.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than any command here takes.
const LIMIT: Duration = Duration::from_mins(5);

/// Runs a program to its end, as `Command::output` does. One that is stuck is killed, so that its test fails and shows
/// what it has said, instead of keeping everybody waiting.
pub fn output(command: &mut Command) -> std::process::Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    end_of(child)
}

/// Waits for the end of a program that runs, with the same care.
pub fn end_of(child: Child) -> std::process::Output {
    let (ended, waits) = mpsc::channel::<()>();
    let process = Pid::from_child(&child);
    let watching = thread::spawn(move || {
        if waits.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            // It may have ended this moment.
            kill_process(process, Signal::KILL).ok();
        }
    });
    let output = child.wait_with_output().expect("it ends");
    drop(ended);
    watching.join().expect("it ends as well");
    output
}

/// A temporary directory with a home in it.
#[derive(Debug)]
pub struct TestEnv {
    _dir: TempDir,
    root: PathBuf,
    device: String,
}

impl TestEnv {
    /// An empty place; the device in it is named `laptop`.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().canonicalize().expect("it exists");
        let env = Self { _dir: dir, root, device: "laptop".to_owned() };
        env.write("home/config.toml", "[device]\nname = \"laptop\"\n");
        env
    }

    /// The absolute path of something in this place.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("directories");
        fs::write(path, content).expect("a file");
    }

    /// What is in a file.
    pub fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
    }

    /// What the configuration says below the device's name.
    pub fn config(&self) -> String {
        let text = self.read("home/config.toml").replace(self.root.to_str().expect("UTF-8"), "[ROOT]");
        let head = format!("[device]\nname = \"{}\"\n", self.device);
        text.strip_prefix(&head).unwrap_or(&text).trim_start().to_owned()
    }

    /// A folder that is versioned, and that the configuration does not know of yet.
    pub fn folder(&self, relative: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(&path).expect("directories");
        self.run(["--home", "other-home", "init", relative]).ended(0);
        path
    }

    /// A program in this place's environment.
    pub fn command(&self, program: impl AsRef<OsStr>, current: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("user"))
            .env("FOLDERSYNC_HOME", self.path("home"))
            .env("LANG", "C")
            .env("TZ", "UTC")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .current_dir(current)
            .stdin(Stdio::null());
        command
    }

    /// Runs `foldersync` at the top of this place.
    #[must_use = "a run whose end nobody looks at tests nothing"]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.run_in("", arguments)
    }

    /// Runs `foldersync` in a directory of this place.
    #[must_use = "a run whose end nobody looks at tests nothing"]
    pub fn run_in<S: AsRef<OsStr>>(&self, dir: &str, arguments: impl IntoIterator<Item = S>) -> Output {
        let mut command = self.foldersync(dir);
        command.args(arguments);
        self.finish(command)
    }

    /// `foldersync`, to be given arguments and more.
    pub fn foldersync(&self, dir: &str) -> Command {
        self.command(env!("CARGO_BIN_EXE_foldersync"), &self.path(dir))
    }

    /// Runs what was prepared, and takes down what it wrote.
    #[must_use = "a run whose end nobody looks at tests nothing"]
    pub fn finish(&self, mut command: Command) -> Output {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let output = output(&mut command);
        let text =
            |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace(self.root.to_str().expect("UTF-8"), "[ROOT]");
        Output {
            command: self.said(&words),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            status: output.status.code(),
        }
    }

    fn said(&self, words: &[String]) -> String {
        words.join(" ").replace(self.root.to_str().expect("UTF-8"), "[ROOT]")
    }
}

/// What a run wrote and how it ended; paths of the place read `[ROOT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What was typed.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code; none after a signal.
    pub status: Option<i32>,
}

impl Output {
    /// The run, if it ended with this code; otherwise the test fails and shows the run.
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.status, Some(code), "{self}");
        self
    }

    /// Standard output of a run that ended well.
    pub fn ok(self) -> String {
        self.ended(0).stdout
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{self}"))
    }

    /// Standard error as JSON.
    pub fn json_error(&self) -> serde_json::Value {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error} in\n{self}"))
    }
}

/// A transcript, as snapshots compare it.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ foldersync {}", self.command)?;
        f.write_str(&self.stdout)?;
        if !self.stderr.is_empty() {
            writeln!(f, "[stderr]")?;
            f.write_str(&self.stderr)?;
        }
        match self.status {
            Some(0) => Ok(()),
            Some(code) => writeln!(f, "[exit {code}]"),
            None => writeln!(f, "[killed]"),
        }
    }
}
