//! A place of its own to run the program in: folders `a` and `b`, homes, and what can be seen of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use foldersync::store::{ObjectKind, object_id};
use sha2::{Digest as _, Sha256};

/// What is wrong, for people.
pub(super) type Fault = String;

/// Longer than any command here takes.
const LIMIT: Duration = Duration::from_mins(2);

/// The directory of one case, always at the same path, since the configuration names paths.
#[derive(Clone)]
pub(super) struct World {
    pub(super) dir: PathBuf,
    pub(super) program: PathBuf,
}

/// What was said to run, for messages.
fn shown(command: &Command) -> String {
    let words = command.get_args().map(OsStr::to_string_lossy);
    words.fold(command.get_program().to_string_lossy().into_owned(), |line, word| line + " " + &word)
}

/// Runs to the end; one that is stuck is killed, and that is a fault.
pub(super) fn finish(command: &mut Command) -> Result<Output, Fault> {
    let line = shown(command);
    let failed = |error: std::io::Error| format!("{line}: {error}");
    // A daemon that is stuck says a lot: more than a pipe holds would stop it.
    let said = tempfile::tempfile().map_err(failed)?;
    let complained = tempfile::tempfile().map_err(failed)?;
    let (out, err) = (said.try_clone().map_err(failed)?, complained.try_clone().map_err(failed)?);
    let mut child = command.stdout(out).stderr(err).spawn().map_err(failed)?;
    let began = Instant::now();
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if began.elapsed() > LIMIT {
            drop(child.kill());
            drop(child.wait());
            return Err(format!("stuck for {LIMIT:?}: {line}"));
        }
        thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(5));
    };
    let read = |mut file: fs::File| -> std::io::Result<Vec<u8>> {
        use std::io::{Read as _, Seek as _};
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    Ok(Output { status, stdout: read(said).map_err(failed)?, stderr: read(complained).map_err(failed)? })
}

/// The standard output of what has to go well.
pub(super) fn good(command: &mut Command) -> Result<String, Fault> {
    let output = finish(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(complaint(command, &output))
}

/// How something ended, and what it said.
pub(super) fn complaint(command: &Command, output: &Output) -> Fault {
    format!(
        "{}: {}\n{}{}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

impl World {
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }

    fn environment(&self, command: &mut Command, home: &str) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("nobody"))
            .env("FOLDERSYNC_HOME", self.path(home))
            .env("FOLDERSYNC_SSH", self.path("ssh"))
            .env("LANG", "C")
            .env("TZ", "UTC")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .current_dir(&self.dir)
            .stdin(Stdio::null());
    }

    /// The program, with the home `home`.
    pub(super) fn command_of<S: AsRef<OsStr>>(&self, home: &str, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        self.environment(&mut command, home);
        command.args(arguments);
        command
    }

    /// The program with its usual home.
    pub(super) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command_of("home", arguments)
    }

    /// Runs the program; done, or done with something left out or in conflict.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<(), Fault> {
        let mut command = self.command(arguments);
        let output = finish(&mut command)?;
        if matches!(output.status.code(), Some(0 | 3)) { Ok(()) } else { Err(complaint(&command, &output)) }
    }

    /// Runs the program, which refuses it.
    pub(super) fn refused(&self, arguments: &[&str]) -> Result<(), Fault> {
        let mut command = self.command(arguments);
        let output = finish(&mut command)?;
        if output.status.code() == Some(6) { Ok(()) } else { Err(complaint(&command, &output)) }
    }

    pub(super) fn git(&self, root: &str, arguments: &[&str]) -> Result<String, Fault> {
        let mut command = Command::new("git");
        self.environment(&mut command, "home");
        command.args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]).args(arguments);
        good(command.current_dir(self.path(root)))
    }

    /// Starts the operation as a group of processes of its own.
    pub(super) fn start(&self, mut command: Command) -> Result<Child, Fault> {
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))
    }

    /// Makes this world a copy of another directory.
    pub(super) fn fill_from(&self, template: &Path) -> Result<(), Fault> {
        self.clear()?;
        good(Command::new("cp").arg("-a").arg(template).arg(&self.dir)).map(drop)
    }

    /// Removes everything.
    pub(super) fn clear(&self) -> Result<(), Fault> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("remove {}: {error}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }

    /// Writes a file with the folders above it, last changed at second `time` of a day long ago.
    pub(super) fn write(&self, relative: &str, content: impl AsRef<[u8]>, time: u64) -> Result<(), Fault> {
        let path = self.path(relative);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
            fs::write(&path, content)?;
            let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000 + time, 123_456_789);
            fs::File::options().write(true).open(&path)?.set_modified(time)
        };
        write().map_err(|error| format!("write {}: {error}", path.display()))
    }

    /// Does something to the disk at a path.
    pub(super) fn at<T>(&self, relative: &str, act: impl FnOnce(&Path) -> std::io::Result<T>) -> Result<T, Fault> {
        let path = self.path(relative);
        act(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(super) fn read(&self, relative: &str) -> Option<String> {
        fs::read_to_string(self.path(relative)).ok()
    }
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    File { content: Content, executable: bool, mtime: (i64, i64) },
    Link { content: Content },
    EmptyFolder,
}

/// The id of a content as git has it, and its sum, which tells a large one in its list of chunks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content {
    pub(super) blob: String,
    pub(super) sum: String,
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        let sum = Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        Self { blob: object_id(ObjectKind::Blob, bytes).to_string(), sum }
    }
}

impl Standing {
    pub(super) fn content(&self) -> Option<&Content> {
        match self {
            Self::File { content, .. } | Self::Link { content } => Some(content),
            Self::EmptyFolder => None,
        }
    }
}

/// What stands in a folder, without its repository; nothing, if it is not there.
pub(super) fn files(root: &Path) -> BTreeMap<String, Standing> {
    fn look(at: &Path, name: &str, files: &mut BTreeMap<String, Standing>) -> std::io::Result<()> {
        let mut empty = true;
        for entry in fs::read_dir(at)? {
            let entry = entry?;
            let own = entry.file_name().to_string_lossy().into_owned();
            if own.starts_with(".git") && own != ".gitignore" {
                continue;
            }
            empty = false;
            let path = if name.is_empty() { own } else { format!("{name}/{own}") };
            let data = entry.metadata()?;
            if data.is_dir() {
                look(&entry.path(), &path, files)?;
            } else if data.is_symlink() {
                let target = fs::read_link(entry.path())?;
                files.insert(path, Standing::Link { content: Content::of(target.as_os_str().as_encoded_bytes()) });
            } else {
                let content = Content::of(&fs::read(entry.path())?);
                let executable = data.permissions().mode() & 0o100 != 0;
                files.insert(path, Standing::File { content, executable, mtime: (data.mtime(), data.mtime_nsec()) });
            }
        }
        if empty && !name.is_empty() {
            files.insert(name.to_owned(), Standing::EmptyFolder);
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    // A folder that is looked at while somebody works in it is looked at again by who needs to know.
    drop(look(root, "", &mut found));
    found
}
