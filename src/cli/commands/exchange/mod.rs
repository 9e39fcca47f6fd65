//! `foldersync exchange`

mod by_daemon;
mod due;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::due::{Insists, Later};
use crate::cli::alone::Alone;
use crate::cli::error::{CommandError, ErrorDocument, Kind};
use crate::cli::exit::ExitCode;
use crate::cli::registry;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::config::{Address, Config, ConfigError, Name, Pause};
use crate::engine::report::ExchangeReport;

/// Exchange revisions with peers, once
///
/// Without arguments, every registered folder with every peer of it that is due: the line for cron. What changed is
/// captured first. Nothing is printed where nothing happened, and one line for a peer where something did. A peer that
/// fails does not stop the others; the exit code tells the gravest failure. A folder in which another process is at
/// work is named and left alone, unless `--wait` is given.
///
/// Schedules and pauses are heeded: what is not due is left out. A peer that is named is exchanged with whatever its
/// schedule, but not while it is paused; `--now` overrides both. Where a daemon runs, it does the exchanges, with the
/// same outcome; where none runs, this command does them itself, with devices too.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync exchange\n  foldersync exchange nas\n  foldersync exchange --now\n  foldersync --folder ~/docs exchange --wait\n\nIn a crontab:\n  */10 * * * *  foldersync exchange --quiet"
)]
pub(crate) struct Args {
    /// Peers to exchange with; without them, all
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// Exchange also what is paused, or not due by its schedule
    #[arg(long)]
    now: bool,
    /// Wait while another process is at work in a folder
    #[arg(long)]
    wait: bool,
}

/// One exchange that is to be done.
#[derive(Debug, Clone, Copy)]
struct Task<'a> {
    folder: &'a Name,
    path: &'a Path,
    peer: &'a Name,
}

/// How it went.
enum Outcome {
    Done(ExchangeReport),
    /// Another process is at work there, and nobody waits.
    Busy(CommandError),
    Failed(CommandError),
    /// It is not due.
    Later(Later),
}

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
struct Document<'a> {
    exchanges: Vec<&'a ExchangeReport>,
    failures: Vec<FailureDocument<'a>>,
    busy: Vec<FailureDocument<'a>>,
    later: Vec<LaterDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct FailureDocument<'a> {
    folder: String,
    peer: &'a Name,
    #[serde(flatten)]
    error: ErrorDocument<'a>,
}

#[derive(Debug, Serialize)]
struct LaterDocument<'a> {
    folder: String,
    peer: &'a Name,
    #[serde(flatten)]
    later: &'a Later,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let config = session.config()?;
    let folders = registry::chosen_folders(session, &config)?;
    let tasks = tasks(&config, &folders, &args.peers)?;
    let ui = session.ui();
    if tasks.is_empty() && !ui.is_json() {
        ui.status("no peers to exchange with");
    }
    let insists = match (args.now, args.peers.is_empty()) {
        (true, _) => Insists::Now,
        (_, false) => Insists::Names,
        _ => Insists::No,
    };
    let mut round = Round { session, named: insists == Insists::Names, outcomes: Vec::new() };
    let mut due = Vec::new();
    for task in tasks {
        match due::later_than_now(&config, &task, insists) {
            Some(later) => round.note(task, Outcome::Later(later))?,
            None => due.push(task),
        }
    }
    if !due.is_empty() {
        exchange(&mut round, &config, due, args.wait)?;
    }
    if ui.is_json() {
        ui.json(&document(&round.outcomes))?;
    }
    Ok(round.outcomes.iter().fold(ExitCode::Done, |code, (_, outcome)| code.and(outcome.exit_code())))
}

/// Does what is due: by the daemon if one runs, otherwise here.
fn exchange<'a>(round: &mut Round<'a>, config: &Config, due: Vec<Task<'a>>, wait: bool) -> Result<(), CommandError> {
    let session = round.session;
    let mut here = due;
    if by_daemon::is_there(session)? {
        // The daemon does not touch what is paused.
        let now = Session::silent_context().clock.now();
        let (paused, open) = here.into_iter().partition(|task| config.pause_of(task.folder, now) != Pause::No);
        here = paused;
        by_daemon::exchange(round, open, wait)?;
        let needs_daemon = |task: &Task<'_>| matches!(config.peers[task.peer].address, Address::Device(_));
        let (refused, rest) = here.into_iter().partition(needs_daemon);
        here = rest;
        for task in refused {
            let told = format!("the daemon leaves folder `{}` alone: it is paused", task.folder);
            let error = CommandError::new(Kind::Failed, told).with_hint("`foldersync resume` in it ends the pause");
            round.note(task, Outcome::Failed(error))?;
        }
    }
    let mut alone = Alone::new(session, config);
    for task in here {
        let outcome = Outcome::new(alone.exchange(task.folder, task.path, task.peer, wait), wait);
        round.note(task, outcome)?;
    }
    Ok(())
}

/// One run of the command: what was done, told as it happens.
struct Round<'a> {
    session: &'a Session,
    /// Whether the peers were named.
    named: bool,
    outcomes: Vec<(Task<'a>, Outcome)>,
}

impl<'a> Round<'a> {
    fn note(&mut self, task: Task<'a>, outcome: Outcome) -> Result<(), CommandError> {
        if !self.session.ui().is_json() {
            tell(self.session, &task, &outcome, self.named)?;
        }
        self.outcomes.push((task, outcome));
        Ok(())
    }
}

/// What is to be done: each folder with each of its peers that is meant.
fn tasks<'a>(
    config: &'a Config,
    folders: &'a [(Name, PathBuf)],
    peers: &[String],
) -> Result<Vec<Task<'a>>, CommandError> {
    for name in peers {
        if !config.peers.keys().any(|known| known.as_str() == name) {
            let known = config.peers.keys().cloned().collect();
            return Err(ConfigError::UnknownPeer { name: name.clone(), known }.into());
        }
    }
    let meant = |peer: &Name| peers.is_empty() || peers.iter().any(|name| name == peer.as_str());
    let tasks: Vec<_> = folders
        .iter()
        .flat_map(|(folder, path)| config.peers_of(folder).map(move |(peer, _)| Task { folder, path, peer }))
        .filter(|task| meant(task.peer))
        .collect();
    if let Some(name) = peers.iter().find(|name| tasks.iter().all(|task| task.peer.as_str() != name.as_str())) {
        return Err(CommandError::usage(format!("peer `{name}` has no part in this folder"))
            .with_hint("`foldersync peer list` tells which folders it has"));
    }
    Ok(tasks)
}

impl Outcome {
    fn new(result: Result<ExchangeReport, CommandError>, wait: bool) -> Self {
        match result {
            Ok(report) => Self::Done(report),
            Err(error) if error.kind == Kind::Busy && !wait => Self::Busy(error),
            Err(error) => Self::Failed(error),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Done(report) if report.held.is_some() => ExitCode::Refused,
            Self::Done(report) if report.no_room.is_some() => ExitCode::Failed,
            Self::Done(report) => ExitCode::left_out_if(!report.left_out.is_empty() || !report.conflicts.is_empty()),
            // For cron: who is at work there does what was to be done.
            Self::Busy(_) | Self::Later(_) => ExitCode::Done,
            Self::Failed(error) => error.kind.exit_code(),
        }
    }
}

fn tell(session: &Session, task: &Task<'_>, outcome: &Outcome, named: bool) -> Result<(), CommandError> {
    let ui = session.ui();
    match outcome {
        Outcome::Done(report) => {
            if reports::is_news(report) || ui.is_verbose() {
                let mut out = ui.out();
                write!(out, "{} with {}: ", task.folder, task.peer)?;
                out.text(&reports::exchanged(report))?;
                writeln!(out)?;
                out.finish()?;
                reports::left_out(ui, &report.left_out);
            }
            reports::conflicts(ui, &report.conflicts);
            let refused = report.held.as_ref().map(|held| reports::held_back(task.peer.as_str(), held));
            let full = report.no_room.as_ref().map(|why| reports::no_room(why));
            for error in refused.iter().chain(&full) {
                error.print_for(ui, &format!("{} with {}", task.folder, task.peer));
            }
        }
        Outcome::Busy(error) => ui.status(&format!("{} with {}: {}", task.folder, task.peer, error.message())),
        Outcome::Failed(error) => error.print_for(ui, &format!("{} with {}", task.folder, task.peer)),
        // Whoever named the peer expects an answer.
        Outcome::Later(later) if named || ui.is_verbose() => {
            let why = later.words(|time| ui.time(time));
            ui.status(&format!("{} with {}: {why}", task.folder, task.peer));
        }
        Outcome::Later(_) => {}
    }
    Ok(())
}

fn document<'a>(outcomes: &'a [(Task<'a>, Outcome)]) -> Document<'a> {
    let mut document = Document::default();
    for (task, outcome) in outcomes {
        let failure = |error: &'a CommandError| FailureDocument {
            folder: task.path.display().to_string(),
            peer: task.peer,
            error: error.document(),
        };
        match outcome {
            Outcome::Done(report) => document.exchanges.push(report),
            Outcome::Busy(error) => document.busy.push(failure(error)),
            Outcome::Failed(error) => document.failures.push(failure(error)),
            Outcome::Later(later) => {
                let folder = task.path.display().to_string();
                document.later.push(LaterDocument { folder, peer: task.peer, later });
            }
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Home;

    fn config(dir: &Path) -> Config {
        let text = "[folder.a]\npath = \"/a\"\n[folder.b]\npath = \"/b\"\n\
                    [peer.nas]\naddress = \"/n\"\nfolders = [\"a\", \"b\"]\n[peer.usb]\naddress = \"/u\"\nfolders = [\"a\"]\n";
        std::fs::write(dir.join("config.toml"), text).unwrap();
        Home::at(dir.to_owned()).load().unwrap()
    }

    fn pairs(config: &Config, folders: &[&str], peers: &[&str]) -> Result<Vec<String>, CommandError> {
        let folders: Vec<_> =
            folders.iter().map(|name| (Name::new(name).unwrap(), PathBuf::from(format!("/{name}")))).collect();
        let peers: Vec<_> = peers.iter().map(|&name| name.to_owned()).collect();
        let tasks = tasks(config, &folders, &peers)?;
        Ok(tasks.iter().map(|task| format!("{}-{}", task.folder, task.peer)).collect())
    }

    #[test]
    fn every_folder_goes_with_every_peer_of_it_that_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        assert_eq!(pairs(&config, &["a", "b"], &[]).unwrap(), ["a-nas", "a-usb", "b-nas"]);
        assert_eq!(pairs(&config, &["a", "b"], &["usb"]).unwrap(), ["a-usb"]);
        assert_eq!(pairs(&config, &["b"], &[]).unwrap(), ["b-nas"]);
        assert_eq!(pairs(&config, &["b"], &["usb"]).unwrap_err().kind, Kind::Usage);
        assert_eq!(pairs(&config, &["b"], &["other"]).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn the_exit_code_tells_how_it_went() {
        let conflict = ExchangeReport {
            left_out: vec![crate::engine::report::LeftOut { path: "x".to_owned(), why: "a fifo".to_owned() }],
            ..Default::default()
        };
        assert_eq!(Outcome::Done(ExchangeReport::default()).exit_code(), ExitCode::Done);
        assert_eq!(Outcome::Done(conflict).exit_code(), ExitCode::LeftOut);
        assert_eq!(Outcome::Busy(CommandError::new(Kind::Busy, "")).exit_code(), ExitCode::Done);
        assert_eq!(Outcome::Failed(CommandError::new(Kind::Busy, "")).exit_code(), ExitCode::Busy);
        assert_eq!(Outcome::Failed(CommandError::new(Kind::Unreachable, "")).exit_code(), ExitCode::Unreachable);
    }
}
