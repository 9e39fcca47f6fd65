//! `foldersync peer list`: the sync table.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::PeerDocument;
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::live::{self, PairLive};
use crate::cli::registry;
use crate::cli::session::Session;
use crate::cli::ui::Out;
use crate::cli::ui::format::count;
use crate::cli::ui::table::Table;
use crate::config::{Address, Config, Name, Pause};
use crate::daemon::LinkState;
use crate::engine::Folder;
use crate::engine::report::PeerStatus;

/// List peers: where they are, how they are connected, what each side lacks
///
/// The first table has a line for each folder of each peer: how the peer is connected (`direct`, `local` or `relay`
/// with the time there and back, `ssh`, `path`, or `not`), when an exchange last ended well, the last known revision of
/// the other side, how many revisions it lacks (and in how many files), whether this side lacks something, and which
/// way revisions go. The second has where each peer is, when it is exchanged with, and how it stands. What a daemon
/// knows is there while one runs.
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
    /// When it is exchanged with, its own settings and those for all put together.
    schedule: String,
    /// How it is connected: `direct`, `local`, `relay`, `unknown`, `ssh`, `path` or `not`.
    connected: String,
    /// The connection, while there is one.
    link: Option<LinkState>,
    /// The sync table: what is known of it, folder by folder.
    known: Vec<Known<'a>>,
}

#[derive(Debug, Serialize)]
struct Known<'a> {
    folder: &'a Name,
    #[serde(flatten)]
    state: State,
    /// Whether this side lacks something that is there; not known where no daemon has heard of it.
    we_lack: Option<bool>,
    /// What a running daemon says.
    daemon: Option<PairLive>,
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
    let mut peers = entries(session, &config, &folders);
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

fn entries<'a>(session: &Session, config: &'a Config, folders: &'a [(Name, std::path::PathBuf)]) -> Vec<PeerEntry<'a>> {
    let daemon = live::ask(session);
    let mut peers: Vec<_> = config
        .peers
        .iter()
        .map(|(name, peer)| {
            let link = daemon.as_ref().and_then(|status| status.peers.get(name)?.link.clone());
            let connected = match &peer.address {
                Address::Path(_) => "path",
                Address::Ssh(_) => "ssh",
                Address::Device(_) => link.as_ref().map_or("not", |link| &link.kind),
            };
            PeerEntry {
                settings: PeerDocument::new(name, peer),
                schedule: config.schedule_of(name).to_string(),
                connected: connected.to_owned(),
                link,
                known: Vec::new(),
            }
        })
        .collect();
    for (name, path) in folders {
        let names: Vec<_> = config.peers_of(name).map(|(name, _)| name.to_string()).collect();
        if names.is_empty() {
            continue;
        }
        let opened = Folder::open(path, session.context());
        let known = opened.as_ref().map_err(ToString::to_string);
        let known = known.and_then(|folder| folder.known_of(&names).map_err(|error| error.to_string()));
        for entry in peers.iter_mut().filter(|entry| entry.settings.folders.contains(name)) {
            let state = match &known {
                Ok(known) => match known.iter().find(|peer| peer.name == entry.settings.name.as_str()) {
                    Some(peer) => State::Status(peer.clone()),
                    None => continue,
                },
                Err(error) => State::Error(error.clone()),
            };
            let daemon = daemon.as_ref().and_then(|status| PairLive::of(status, name, entry.settings.name));
            let theirs = daemon.as_ref().and_then(|pair| pair.head);
            let we_lack =
                theirs.zip(opened.as_ref().ok()).and_then(|(head, folder)| Some(!folder.contains(head).ok()?));
            entry.known.push(Known { folder: name, state, we_lack, daemon });
        }
    }
    peers
}

/// What a peer lacks: `nothing`, `everything`, or `12 (3 files)`.
fn they_lack(status: &PeerStatus) -> String {
    match (status.last_known, status.lacks, status.lacks_files) {
        (None, ..) => "everything".to_owned(),
        (Some(_), 0, _) => "nothing".to_owned(),
        (Some(_), lacks, Some(files)) => format!("{lacks} ({})", count(files, "file")),
        (Some(_), lacks, None) => lacks.to_string(),
    }
}

/// `local 12 ms`.
fn connected(entry: &PeerEntry<'_>) -> String {
    match entry.link.as_ref().and_then(|link| link.rtt_us) {
        Some(rtt) if rtt < 10_000 => format!("{} {}.{} ms", entry.connected, rtt / 1000, rtt % 1000 / 100),
        Some(rtt) => format!("{} {} ms", entry.connected, rtt / 1000),
        None => entry.connected.clone(),
    }
}

/// Where it is, as short as people can use it: of a key its beginning.
fn place(settings: &PeerDocument<'_>) -> String {
    let first = match settings.address {
        Address::Device(device) => {
            let host = device.host.as_ref().map(|host| format!("@{host}")).unwrap_or_default();
            format!("foldersync://{}...{host}", device.key.short())
        }
        address => address.to_string(),
    };
    std::iter::once(first).chain(settings.addresses.iter().map(ToString::to_string)).collect::<Vec<_>>().join(", ")
}

/// How it stands: in one text where that is the same for all of its folders.
fn stands(entry: &PeerEntry<'_>, out: &Out<'_>) -> String {
    match entry.settings.paused {
        Pause::Until(end) => return format!("paused until {}", out.time(end)),
        Pause::Forever => return "paused".to_owned(),
        Pause::No => {}
    }
    let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for known in &entry.known {
        if let State::Status(PeerStatus { held: Some(held), .. }) = &known.state {
            words.entry(format!("held back here: {}", held.words())).or_default().push(known.folder.to_string());
        } else if let Some(pair) = &known.daemon {
            words.entry(pair.words(|time| out.time(time))).or_default().push(known.folder.to_string());
        }
    }
    match words.len() {
        0 => "-".to_owned(),
        1 => words.into_keys().next().unwrap_or_default(),
        _ => words.iter().map(|(words, of)| format!("{}: {words}", of.join(", "))).collect::<Vec<_>>().join("; "),
    }
}

fn print(session: &Session, peers: &[PeerEntry<'_>]) -> std::io::Result<()> {
    let ui = session.ui();
    let mut out = ui.out();
    let headings = ["name", "folder", "connected", "last seen", "last known", "they lack", "we lack", "direction"];
    let mut table = Table::with_headings(&headings);
    let mut places = Table::with_headings(&["name", "address", "schedule", "state"]);
    let none = || "-".to_owned();
    let mut errors = Vec::new();
    for entry in peers {
        let settings = &entry.settings;
        let row = |folder: Option<&Name>, [seen, last, they, we]: [String; 4]| {
            let direction = folder.map_or(settings.direction, |folder| settings.direction_of(folder)).to_string();
            let folder = folder.map_or_else(none, ToString::to_string);
            [settings.name.to_string(), folder, connected(entry), seen, last, they, we, direction]
        };
        if entry.known.is_empty() {
            table.push(row(None, [none(), none(), none(), none()]));
        }
        for Known { folder, state, we_lack, .. } in &entry.known {
            let we = we_lack.map_or_else(none, |lack| if lack { "something" } else { "nothing" }.to_owned());
            let known = match state {
                State::Status(status) => {
                    // To the minute, so that the table stays narrow.
                    let seen = status.last_seen.map(|time| out.time(time).chars().take(16).collect());
                    let last = status.last_known.map_or_else(none, |commit| commit.short());
                    [seen.unwrap_or_else(|| "never".to_owned()), last, they_lack(status), we]
                }
                State::Error(error) => {
                    errors.push(format!("{folder}: {error}"));
                    [none(), none(), none(), we]
                }
            };
            table.push(row(Some(folder), known));
        }
        places.push([settings.name.to_string(), place(settings), entry.schedule.clone(), stands(entry, &out)]);
    }
    table.print(&mut out)?;
    writeln!(out)?;
    places.print(&mut out)?;
    out.finish()?;
    errors.dedup();
    for error in &errors {
        ui.warning(error);
    }
    Ok(())
}
