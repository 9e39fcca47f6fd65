//! A program at the other end, spoken to over its standard input and output: `foldersync serve --stdio`, or ssh.
//!
//! Owns the process: it is waited for, or stopped, before the connection's control is gone; never left as a zombie.
//! What it says on its standard error is kept (the end of it) for the message when it fails. No shell is involved.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Connection, Control, TransportError};

/// How long a program may take to end after its streams were closed, before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for the rest of what an ended program said: something that it started may hold its standard
/// error open for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How much of what a program said is kept.
const STDERR_KEPT: usize = 4 << 10;

/// A program to be started as the other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct ChildCommand {
    /// The program: a path, or a name to be found in PATH.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables that it gets besides those of this process.
    pub env: Vec<(OsString, OsString)>,
}

impl ChildCommand {
    /// A program with arguments.
    pub fn new<S: Into<OsString>>(program: impl Into<OsString>, args: impl IntoIterator<Item = S>) -> Self {
        Self { program: program.into(), args: args.into_iter().map(Into::into).collect(), env: Vec::new() }
    }

    /// Starts the program.
    pub fn connect(&self) -> Result<Connection, TransportError> {
        let failed = |source| TransportError::Start { program: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else { unreachable!("all three were asked for") };
        let heard = Arc::<LastWords>::default();
        // From here on the control ends the child, also when the thread cannot be had.
        let control =
            ChildControl { program: self.program.clone(), child: Mutex::new(child), heard: Arc::clone(&heard) };
        thread::Builder::new().name("child stderr".to_owned()).spawn(move || heard.listen(stderr)).map_err(failed)?;
        Ok(Connection {
            reader: Box::new(stdout),
            writer: Box::new(stdin),
            about: format!("`{}`", self.program.display()),
            control: Arc::new(control),
        })
    }
}

/// The end of what a program says on its standard error.
#[derive(Default)]
struct LastWords {
    state: Mutex<Heard>,
    closed: Condvar,
}

#[derive(Default)]
struct Heard {
    bytes: VecDeque<u8>,
    cut: bool,
    closed: bool,
}

impl LastWords {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the end, so that the program never waits for somebody to listen.
    fn listen(&self, mut stderr: ChildStderr) {
        let mut buffer = [0; STDERR_KEPT];
        loop {
            match stderr.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let mut heard = self.lock();
                    heard.bytes.extend(&buffer[..count]);
                    let surplus = heard.bytes.len().saturating_sub(STDERR_KEPT);
                    heard.bytes.drain(..surplus);
                    heard.cut |= surplus > 0;
                }
            }
        }
        self.lock().closed = true;
        self.closed.notify_all();
    }

    /// What was said, for people: its lines in one, control characters escaped.
    fn text(&self) -> String {
        let waited = self.closed.wait_timeout_while(self.lock(), LAST_WORDS, |heard| !heard.closed);
        let (mut heard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut text = if heard.cut { "...".to_owned() } else { String::new() };
        let said = String::from_utf8_lossy(heard.bytes.make_contiguous());
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        for c in lines.join("; ").chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        text
    }
}

struct ChildControl {
    program: OsString,
    child: Mutex<Child>,
    heard: Arc<LastWords>,
}

impl ChildControl {
    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the program to end, for as long as it may take. Looks again and again, for there is no wait with a
    /// limit that all platforms have; soon at first, for most end at once.
    fn ended(&self) -> io::Result<Option<ExitStatus>> {
        let since = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            // The lock is not held while waiting: another thread may want to kill it.
            let status = self.lock().try_wait()?;
            if status.is_some() || since.elapsed() >= PATIENCE {
                return Ok(status);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Lets the program end by itself, or kills it. None: it had to be killed.
    fn end(&self) -> io::Result<Option<ExitStatus>> {
        let status = self.ended()?;
        if status.is_none() {
            self.lock().kill()?;
            self.ended()?;
        }
        Ok(status)
    }
}

impl Control for ChildControl {
    fn abort(&self) {
        // It fails for one that has ended, and that is as well.
        let _ended = self.lock().kill();
    }

    fn finish(&self) -> Result<(), TransportError> {
        let program = || self.program.clone();
        match self.end() {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(TransportError::Failed { program: program(), status, stderr: self.heard.text() }),
            Ok(None) => Err(TransportError::Stuck { program: program(), stderr: self.heard.text() }),
            Err(source) => Err(TransportError::Wait { program: program(), source }),
        }
    }
}

impl Drop for ChildControl {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _status = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Connection {
        ChildCommand::new("sh", ["-c", script]).connect().unwrap()
    }

    /// How the child ended, its streams closed.
    fn finish(connection: Connection) -> Result<(), TransportError> {
        let (reader, writer, control) = connection.split();
        drop((reader, writer));
        control.finish()
    }

    #[test]
    fn a_missing_program_is_named() {
        // A path, for a search through PATH may end at a folder that this user must not look into.
        let program = tempfile::tempdir().unwrap().path().join("no-such-program");
        let error = ChildCommand::new(&program, ["x"]).connect().unwrap_err();
        let program = program.display();
        assert_eq!(
            error.to_string(),
            format!("could not start `{program}`: there is no such program (is it installed, and in PATH?)")
        );
    }

    #[test]
    fn a_program_that_fails_has_its_last_words_in_the_error() {
        let mut connection = shell("echo 'no such folder' >&2; printf 'try \\033[1m-h\\n' >&2; exit 3");
        assert_eq!(connection.reader.read(&mut [0; 8]).unwrap(), 0);
        let error = finish(connection).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed (exit status: 3); it said: no such folder; try \\u{1b}[1m-h");
    }

    #[test]
    fn only_the_end_of_a_long_complaint_is_kept() {
        let connection = shell("i=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i+1)); done >&2; exit 1");
        let TransportError::Failed { stderr, .. } = finish(connection).unwrap_err() else { panic!("failed otherwise") };
        assert!(stderr.starts_with("...") && stderr.ends_with("; line 2999"), "{stderr}");
        assert!(stderr.len() < 2 * STDERR_KEPT);
    }

    #[test]
    fn arguments_and_environment_reach_the_program_as_they_are() {
        let mut command = ChildCommand::new("sh", ["-c", "printf '%s|%s' \"$1\" \"$GREETING\"", "sh", "a b; 'c'"]);
        command.env.push(("GREETING".into(), "hello $HOME".into()));
        let mut connection = command.connect().unwrap();
        let mut text = String::new();
        connection.reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a b; 'c'|hello $HOME");
        finish(connection).unwrap();
    }

    #[test]
    fn a_child_that_is_let_go_is_neither_running_nor_a_zombie() {
        let connection = ChildCommand::new("sh", ["-c", "echo $$; cat"]).connect().unwrap();
        let (mut reader, writer, control) = connection.split();
        let mut pid = Vec::new();
        while pid.last() != Some(&b'\n') {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            pid.extend(byte);
        }
        let raw: i32 = String::from_utf8(pid).unwrap().trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(raw).unwrap();
        rustix::process::test_kill_process(pid).unwrap();
        drop((reader, writer, control));
        assert_eq!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH));
    }

    #[test]
    fn breaking_off_stops_a_program_that_would_never_end() {
        let mut connection = shell("exec sleep 1000");
        let control = Arc::clone(&connection.control);
        let reader = thread::spawn(move || connection.reader.read(&mut [0; 8]).unwrap());
        control.abort();
        assert_eq!(reader.join().unwrap(), 0);
        assert!(matches!(control.finish(), Err(TransportError::Failed { .. })));
    }

    #[test]
    fn what_the_program_started_and_left_behind_does_not_hold_us_up() {
        let mut connection = shell("sleep 20 <&- >&- & exit 1");
        assert_eq!(connection.reader.read(&mut [0; 8]).unwrap(), 0);
        let TransportError::Failed { stderr, .. } = finish(connection).unwrap_err() else { panic!("failed otherwise") };
        assert_eq!(stderr, "");
    }
}
