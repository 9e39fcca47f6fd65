//! `foldersync wait`

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueHint;
use serde::Serialize;

use crate::cli::alone::Alone;
use crate::cli::error::{CommandError, Kind};
use crate::cli::exit::ExitCode;
use crate::cli::live::{self, PairLive};
use crate::cli::paths::Places;
use crate::cli::registry;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::cli::tell;
use crate::cli::ui::format::{count, list};
use crate::config::{Config, ConfigError, Direction, Name, period};
use crate::daemon::control::{Answer, Ask};
use crate::engine::report::Held;
use crate::engine::{Folder, Wait};
use crate::path::SyncPath;

/// Wait until a file, or the folder, is safe on peers
///
/// What changed is captured first; then it waits until the peers have it on their disks. Without `--on`, that is every
/// peer of the folder to which revisions are sent. Exit code 0: it is safe. Where no daemon runs, this command does the
/// exchanges that are needed itself.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync wait\n  foldersync wait --on nas --timeout 5m thesis.tex\n  foldersync wait && systemctl poweroff"
)]
pub(crate) struct Args {
    /// A peer that shall have it; may be given several times
    #[arg(long = "on", value_name = "PEER")]
    on: Vec<String>,
    /// Give up after this time, as `30s` or `5m`, with exit code 4
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// The file; without it, all that is in the folder
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    file: Option<OsString>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    folder: String,
    path: Option<&'a SyncPath>,
    peers: &'a [Name],
    safe: bool,
    /// What came from peers and waits for a decision here.
    held: &'a [Held],
}

/// What is waited for.
struct Waited<'a> {
    session: &'a Session,
    config: &'a Config,
    root: PathBuf,
    name: &'a Name,
    peers: Vec<Name>,
    path: Option<SyncPath>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let root = session.root()?;
    let config = session.config()?;
    let timeout = args.timeout.as_deref().map(period::parse).transpose();
    let timeout = timeout.map_err(|error| CommandError::usage(error.to_string()))?;
    let name = registry::name_of(&config, &root).ok_or_else(|| registry::not_registered(&root))?;
    let peers = peers(&config, name, &args.on)?;
    let path = match &args.file {
        Some(file) => Places::new(&root, &Session::current_dir()?).path(file)?,
        None => None,
    };
    let waited = Waited { session, config: &config, root, name, peers, path };
    if !waited.by_daemon(timeout)? {
        waited.alone()?;
    }
    let held = Folder::open(&waited.root, Session::silent_context())?.held()?;
    let ui = session.ui();
    if ui.is_json() {
        let folder = waited.root.display().to_string();
        ui.json(&Document { folder, path: waited.path.as_ref(), peers: &waited.peers, safe: true, held: &held })?;
    } else {
        let names: Vec<_> = waited.peers.iter().map(ToString::to_string).collect();
        ui.status(&format!("{} is safe on {}", waited.what(), list(&names)));
        for held in &held {
            ui.warning(&format!("held back from {}", reports::held(held)));
        }
    }
    Ok(ExitCode::Done)
}

/// The peers that shall have it: those that were named, or all to which revisions are sent.
fn peers(config: &Config, folder: &Name, named: &[String]) -> Result<Vec<Name>, CommandError> {
    let sent_to = |name: &Name| config.direction_of(name, folder).is_some_and(Direction::sends);
    if named.is_empty() {
        let all: Vec<_> = config.peers_of(folder).map(|(name, _)| name.clone()).filter(sent_to).collect();
        if all.is_empty() {
            return Err(CommandError::usage(format!("nothing of `{folder}` is sent to any peer"))
                .with_hint("`foldersync peer add NAME ADDRESS` adds one"));
        }
        return Ok(all);
    }
    let mut peers = Vec::new();
    for name in named {
        let unknown = || ConfigError::UnknownPeer { name: name.clone(), known: config.peers.keys().cloned().collect() };
        let peer = config.peers.keys().find(|known| known.as_str() == name).ok_or_else(unknown)?;
        if !sent_to(peer) {
            return Err(CommandError::usage(format!("nothing of `{folder}` is sent to `{peer}`"))
                .with_hint("`foldersync peer list` tells which folders it has, and which way they go"));
        }
        if !peers.contains(peer) {
            peers.push(peer.clone());
        }
    }
    Ok(peers)
}

impl Waited<'_> {
    fn what(&self) -> String {
        self.path.as_ref().map_or_else(|| format!("`{}`", self.name), |path| format!("`{path}`"))
    }

    /// Has the daemon wait. False: none runs.
    fn by_daemon(&self, timeout: Option<Duration>) -> Result<bool, CommandError> {
        let began = Instant::now();
        let path = match &self.path {
            Some(path) => Some(String::from_utf8(path.as_bytes().to_vec()).map_err(|_| {
                CommandError::usage(format!("{path} is not plain UTF-8, which the daemon cannot be asked about"))
            })?),
            None => None,
        };
        let ask = Ask::Wait { folder: self.name.clone(), peers: self.peers.clone(), path };
        let Some(mut client) = tell::ask(self.session, &ask)? else { return Ok(false) };
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(self.lacking());
            }
            client.set_patience(left).map_err(|error| tell::lost(&error))?;
            match client.next() {
                Ok(Answer::Progress(status)) => {
                    let work = status.folders.get(self.name).map(|folder| folder.progress.clone());
                    self.session.ui().show_progress(&work.unwrap_or_default());
                }
                Ok(Answer::Error(refusal)) => return Err(refusal.into()),
                Ok(_) => return Ok(true),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(tell::lost(&error)),
            }
        }
    }

    /// Does the exchanges that are needed.
    fn alone(&self) -> Result<(), CommandError> {
        let folder = Folder::open(&self.root, self.session.context())?;
        let path = self.path.as_ref().map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned());
        let Some(target) = folder.newest(path.as_deref(), Wait::Forever)? else { return Ok(()) };
        let mut alone = Alone::new(self.session, self.config);
        for peer in &self.peers {
            if folder.peer_has(peer.as_str(), target)? {
                continue;
            }
            alone.exchange(self.name, &self.root, peer, true)?;
            if !folder.peer_has(peer.as_str(), target)? {
                return Err(self.lacking());
            }
        }
        Ok(())
    }

    /// That it took too long, and what is lacking where.
    fn lacking(&self) -> CommandError {
        self.session.ui().show_progress(&[]);
        let folder = Folder::open(&self.root, Session::silent_context());
        let status = live::ask(self.session);
        let mut lacking = Vec::new();
        for peer in &self.peers {
            let lacks = folder.as_ref().ok().and_then(|folder| lacks(folder, peer, self.path.as_ref()));
            if lacks == Some(0) {
                continue;
            }
            let mut text = peer.to_string();
            if let Some(lacks) = lacks.filter(|_| self.path.is_none()) {
                text.push_str(&format!(" (it lacks {})", count(lacks, "revision")));
            }
            let live = status.as_ref().and_then(|status| PairLive::of(status, self.name, peer));
            if let Some(live) = live.filter(|live| !live.in_step) {
                text.push_str(&format!(": {}", live.words(|time| self.session.ui().time(time))));
            }
            lacking.push(text);
        }
        let names = if lacking.is_empty() { "the peers".to_owned() } else { lacking.join("; ") };
        CommandError::new(Kind::Unreachable, format!("{} is not safe yet on {names}", self.what()))
            .with_hint("the daemon goes on; `foldersync status` tells how it stands")
    }
}

/// How many revisions a peer lacks, of the file or of the whole folder; of a file, 1 stands for any.
fn lacks(folder: &Folder, peer: &Name, path: Option<&SyncPath>) -> Option<u64> {
    match path {
        None => {
            let known = folder.known_of(&[peer.to_string()]).ok()?;
            known.first().map(|known| known.lacks)
        }
        Some(path) => {
            let newest = folder.log(Some(path), Some(1)).ok()?.first()?.commit;
            folder.peer_has(peer.as_str(), newest).ok().map(|has| u64::from(!has))
        }
    }
}
