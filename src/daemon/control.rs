//! The local socket through which commands talk to a running daemon.
//!
//! `control.sock` in the home, for its owner only (mode 0600). A connection takes one question, a line of JSON
//! ([`Ask`]), and gets lines of JSON ([`Answer`]): progress, then the last word. The socket file of a daemon that was
//! killed is replaced by the next; a lock, which ends with its process, tells whether one runs.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::board::DaemonStatus;
use crate::clock::Timestamp;
use crate::config::{Home, Name};
use crate::engine::Failure;
use crate::engine::report::ExchangeReport;

/// The longest question.
const QUESTION: u64 = 64 << 10;
/// How long a question may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A text that holds a secret: it is handed on, and never printed by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secretive(pub String);

impl std::fmt::Debug for Secretive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secretive(..)")
    }
}

/// What a command asks of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub enum Ask {
    /// What goes on.
    Status,
    /// What goes on, again and again, whenever it changes, until the connection is closed.
    Watch,
    /// Exchanges, now: these folders with these peers of theirs.
    Exchange {
        /// Pairs of a folder and a peer.
        pairs: Vec<(Name, Name)>,
    },
    /// To wait until what a folder holds now is safe on peers of it.
    Wait {
        /// The folder.
        folder: Name,
        /// The peers.
        peers: Vec<Name>,
        /// Just this path in it.
        path: Option<String>,
    },
    /// To look at everything in a folder: a command has changed it.
    Look {
        /// The folder.
        folder: Name,
    },
    /// To read the configuration again.
    Reload,
    /// A ticket for a folder.
    Share {
        /// The folder.
        folder: Name,
        /// Whether whoever joins may only read.
        read_only: bool,
        /// For how many seconds it holds.
        expires: u64,
    },
    /// Whether somebody has used a ticket that was given out; answers when somebody has, or when it is over.
    Joined {
        /// The ticket's number.
        offer: u64,
    },
    /// To take part in a folder.
    Join {
        /// The ticket.
        ticket: Secretive,
        /// Where to put the folder.
        path: PathBuf,
    },
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What goes on meanwhile.
    Progress(Box<DaemonStatus>),
    /// How one exchange went.
    Exchanged(Box<Exchanged>),
    /// A ticket.
    Ticket {
        /// The text to give to the other side.
        text: Secretive,
        /// Its number, for [`Ask::Joined`].
        offer: u64,
        /// When it is over.
        expires: Timestamp,
    },
    /// Somebody has joined, or this device has.
    Paired {
        /// The peer's name here.
        peer: Name,
        /// The name of the other device.
        device_name: String,
        /// Its key.
        device: crate::id::DeviceId,
        /// The folder here.
        folder: Name,
        /// Whether this device may only read.
        read_only: bool,
        /// What else a person should know.
        note: Option<String>,
    },
    /// All is done.
    Done,
    /// It did not work out.
    Error(Refusal),
}

/// How one exchange went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchanged {
    /// The folder.
    pub folder: Name,
    /// The peer.
    pub peer: Name,
    /// The outcome.
    pub outcome: Result<ExchangeReport, Refusal>,
}

/// Why something did not work out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of failure.
    pub failure: Failure,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Where the socket of a home is.
fn socket(home: &Home) -> PathBuf {
    home.dir().join("control.sock")
}

/// Whether a daemon runs for a home: the right to be it, ends with its process.
#[derive(Debug)]
pub struct OnlyOne(File);

impl OnlyOne {
    /// Takes the right to be the daemon of this home, whose folder must be there. `None`: another process has it.
    pub(super) fn take(home: &Home) -> io::Result<Option<Self>> {
        let mut lock = File::options().create(true).append(true).read(true).open(home.dir().join("daemon.lock"))?;
        match lock.try_lock() {
            Ok(()) => {
                // For people only.
                drop(lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())));
                Ok(Some(Self(lock)))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        // A child that is just being made has the file open for a moment longer; closing it would not be enough.
        drop(self.0.unlock());
    }
}

/// The daemon's end of the socket.
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Makes the socket. Only for who is the only one.
    pub(super) fn open(home: &Home, _only: &OnlyOne) -> io::Result<Self> {
        let path = socket(home);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The home is its owner's alone, so that nobody else comes in between.
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// The next who asks. None when it was closed by [`close`].
    pub(super) fn accept(&self) -> Option<UnixStream> {
        self.listener.accept().ok().map(|(stream, _)| stream)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads the question of a connection.
pub(super) fn question(stream: &UnixStream) -> io::Result<Ask> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(QUESTION)).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::other)
}

/// Writes an answer. An error: nobody listens any more.
pub(super) fn answer(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// A command's end of the socket.
#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

impl Client {
    /// Asks the daemon of a home. `None`: none runs.
    pub fn ask(home: &Home, ask: &Ask) -> io::Result<Option<Self>> {
        let mut stream = match UnixStream::connect(socket(home)) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut line = serde_json::to_vec(ask).map_err(io::Error::other)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(Some(Self(BufReader::new(stream))))
    }

    /// How long the next answers may take at most; `None`: as long as they will. One that takes longer is an error of
    /// the kind `WouldBlock` or `TimedOut`, and nothing can be read any more.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        // The system takes no time for no limit.
        let patience = patience.map(|patience| patience.max(Duration::from_millis(1)));
        self.0.get_ref().set_read_timeout(patience)
    }

    /// The next answer.
    #[expect(clippy::should_implement_trait, reason = "an answer may fail to come, and that is no end")]
    pub fn next(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon has ended"));
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_to_be_the_daemon_ends_though_a_child_that_is_being_made_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_owned());
        let only = OnlyOne::take(&home).unwrap().expect("nobody else");
        assert!(OnlyOne::take(&home).unwrap().is_none());
        let child = only.0.try_clone().unwrap();
        drop(only);
        assert!(OnlyOne::take(&home).unwrap().is_some());
        drop(child);
    }
}
