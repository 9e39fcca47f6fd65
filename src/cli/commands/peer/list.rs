//! `foldersync peer list`

use serde::Serialize;

use super::PeerDocument;
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::registry;
use crate::cli::session::Session;
use crate::cli::ui::format::count;
use crate::cli::ui::table::Table;
use crate::config::Name;
use crate::engine::Folder;
use crate::engine::report::PeerStatus;

/// List peers: where they are, when they were last seen, what they lack
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync peer list\n  foldersync peer list --json")]
pub(crate) struct Args {}

#[derive(Debug, Serialize)]
struct Document<'a> {
    peers: Vec<PeerEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct PeerEntry<'a> {
    #[serde(flatten)]
    settings: PeerDocument<'a>,
    /// The sync table: what is known of it, folder by folder.
    known: Vec<Known<'a>>,
}

#[derive(Debug, Serialize)]
struct Known<'a> {
    folder: &'a Name,
    #[serde(flatten)]
    state: State,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Status(PeerStatus),
    Error(String),
}

pub(crate) fn run(session: &Session, _: &Args) -> Result<ExitCode, CommandError> {
    let config = session.config()?;
    let folders = registry::chosen_folders(session, &config)?;
    let mut peers: Vec<_> = config
        .peers
        .iter()
        .map(|(name, peer)| PeerEntry { settings: PeerDocument::new(name, peer), known: Vec::new() })
        .collect();
    for (folder, path) in &folders {
        let names: Vec<_> = config.peers_of(folder).map(|(name, _)| name.to_string()).collect();
        if names.is_empty() {
            continue;
        }
        let status = Folder::open(path, session.context()).and_then(|opened| opened.status(&names));
        let status = status.map_err(|error| CommandError::from(error).message().to_owned());
        for entry in peers.iter_mut().filter(|entry| entry.settings.folders.contains(folder)) {
            let state = match &status {
                Ok(status) => match status.peers.iter().find(|peer| peer.name == entry.settings.name.as_str()) {
                    Some(peer) => State::Status(peer.clone()),
                    None => continue,
                },
                Err(error) => State::Error(error.clone()),
            };
            entry.known.push(Known { folder, state });
        }
    }
    if session.named_folder().is_some() {
        peers
            .retain(|entry| entry.settings.folders.iter().any(|name| folders.iter().any(|(folder, _)| folder == name)));
    }
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&Document { peers })?;
    } else if peers.is_empty() {
        ui.status("no peers yet");
        ui.hint("`foldersync peer add NAME ADDRESS` adds one");
    } else {
        print(session, &peers)?;
    }
    Ok(ExitCode::Done)
}

fn lacks(status: &PeerStatus) -> String {
    match (status.last_known, status.lacks) {
        (None, _) => "everything".to_owned(),
        (Some(_), 0) => "nothing".to_owned(),
        (Some(_), lacks) => count(lacks, "revision"),
    }
}

fn print(session: &Session, peers: &[PeerEntry<'_>]) -> std::io::Result<()> {
    let ui = session.ui();
    let mut out = ui.out();
    let mut table =
        Table::with_headings(&["name", "folder", "address", "direction", "last seen", "last known", "lacks"]);
    let none = || "-".to_owned();
    let mut errors = Vec::new();
    for PeerEntry { settings, known } in peers {
        let row = |folder: Option<&Name>, seen: String, last: String, lacks: String| {
            let (name, address) = (settings.name.to_string(), settings.address.to_string());
            let direction = folder.map_or(settings.direction, |folder| settings.direction_of(folder)).to_string();
            [name, folder.map_or_else(none, ToString::to_string), address, direction, seen, last, lacks]
        };
        if known.is_empty() {
            table.push(row(None, none(), none(), none()));
        }
        for Known { folder, state } in known {
            table.push(match state {
                State::Status(status) => row(
                    Some(folder),
                    status.last_seen.map_or_else(|| "never".to_owned(), |time| out.time(time)),
                    status.last_known.map_or_else(none, |commit| commit.short()),
                    lacks(status),
                ),
                State::Error(error) => {
                    errors.push(format!("{folder}: {error}"));
                    row(Some(folder), none(), none(), none())
                }
            });
        }
    }
    table.print(&mut out)?;
    out.finish()?;
    errors.dedup();
    for error in &errors {
        ui.warning(error);
    }
    Ok(())
}
