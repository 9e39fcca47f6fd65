//! `foldersync exchange`

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::error::{CommandError, ErrorDocument, Kind};
use crate::cli::exit::ExitCode;
use crate::cli::registry;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::config::{Config, ConfigError, Name};
use crate::engine::report::ExchangeReport;
use crate::engine::{EngineError, Folder};

/// Exchange revisions with peers, once
///
/// Without arguments, every registered folder with every peer of it: the line for cron. What changed is captured
/// first. Nothing is printed where nothing happened, and one line for a peer where something did. A peer that fails
/// does not stop the others; the exit code tells the gravest failure. A folder in which another process is at work is
/// named and left alone, unless `--wait` is given.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync exchange\n  foldersync exchange nas\n  foldersync --folder ~/docs exchange --wait\n\nIn a crontab:\n  */10 * * * *  foldersync exchange --quiet"
)]
pub(crate) struct Args {
    /// Peers to exchange with; without them, all
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// Wait while another process is at work in a folder
    #[arg(long)]
    wait: bool,
}

/// One exchange that is to be done.
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
}

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
struct Document<'a> {
    exchanges: Vec<&'a ExchangeReport>,
    failures: Vec<FailureDocument<'a>>,
    busy: Vec<FailureDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct FailureDocument<'a> {
    folder: String,
    peer: &'a Name,
    #[serde(flatten)]
    error: ErrorDocument<'a>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let config = session.config()?;
    let folders = registry::chosen_folders(session, &config)?;
    let tasks = tasks(&config, &folders, &args.peers)?;
    let ui = session.ui();
    if tasks.is_empty() && !ui.is_json() {
        ui.status("no peers to exchange with");
    }

    let mut outcomes = Vec::new();
    let mut code = ExitCode::Done;
    for folder_tasks in tasks.chunk_by(|one, other| one.folder == other.folder) {
        let mut folder = None;
        for task in folder_tasks {
            let outcome = exchange(session, &config, task, args.wait, &mut folder);
            code = code.and(outcome.exit_code());
            if !ui.is_json() {
                tell(session, task, &outcome)?;
            }
            outcomes.push((task, outcome));
        }
    }
    if ui.is_json() {
        ui.json(&document(&outcomes))?;
    }
    Ok(code)
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

/// One exchange. The folder is opened for the first of its peers and stays open for the others.
fn exchange(session: &Session, config: &Config, task: &Task<'_>, wait: bool, open: &mut Option<Folder>) -> Outcome {
    let target = match registry::target(task.peer, &config.peers[task.peer], Some(task.folder)) {
        Ok(target) => target,
        Err(error) => return Outcome::Failed(error),
    };
    let mut run = || -> Result<ExchangeReport, EngineError> {
        let folder = match open.take() {
            Some(folder) => folder,
            None => Folder::open(task.path, session.context())?,
        };
        open.insert(folder).exchange(&target, wait)
    };
    match run().map_err(CommandError::from) {
        Ok(report) => Outcome::Done(report),
        Err(error) if error.kind == Kind::Busy && !wait => Outcome::Busy(error),
        Err(error) => Outcome::Failed(error),
    }
}

impl Outcome {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Done(report) => ExitCode::left_out_if(!report.left_out.is_empty() || !report.conflicts.is_empty()),
            // For cron: who is at work there does what was to be done.
            Self::Busy(_) => ExitCode::Done,
            Self::Failed(error) => error.kind.exit_code(),
        }
    }
}

fn tell(session: &Session, task: &Task<'_>, outcome: &Outcome) -> Result<(), CommandError> {
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
        }
        Outcome::Busy(error) => ui.status(&format!("{} with {}: {}", task.folder, task.peer, error.message())),
        Outcome::Failed(error) => error.print_for(ui, &format!("{} with {}", task.folder, task.peer)),
    }
    Ok(())
}

fn document<'a>(outcomes: &'a [(&Task<'a>, Outcome)]) -> Document<'a> {
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
