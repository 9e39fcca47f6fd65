//! `foldersync config`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::peer::{self, PeerDocument, RatesDocument, ScheduleDocument};
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::ui::table::Table;
use crate::config::{Config, FolderSettings, Name, Pause, Relay, RelayCertificate, period};
use crate::guard::{Brake, FreeSpace};

/// Show the configuration that is in effect, or where its file is
///
/// The file may be edited by hand; a key that is not known, or a wrong value, is an error with its line. Without a
/// command, shows what is in effect.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  foldersync config\n  $EDITOR \"$(foldersync config path)\"")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the configuration that is in effect, defaults included
    #[command(after_long_help = "Example:\n  foldersync config list")]
    List,
    /// Print the path of the configuration file
    #[command(after_long_help = "Example:\n  foldersync config path")]
    Path,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    file: String,
    device: DeviceDocument<'a>,
    exchange: ExchangeDocument<'a>,
    folders: BTreeMap<&'a Name, FolderDocument<'a>>,
    peers: Vec<PeerDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct DeviceDocument<'a> {
    name: Name,
    port: u16,
    relay: Option<&'a Relay>,
    relay_certificate: Option<&'a RelayCertificate>,
    local_discovery: bool,
    quiet: String,
    brake: Brake,
    free_space: FreeSpace,
}

impl<'a> DeviceDocument<'a> {
    fn new(config: &'a Config) -> Self {
        let device = &config.device;
        Self {
            name: config.device_name(),
            port: device.port(),
            relay: device.relay.as_ref(),
            relay_certificate: device.relay_certificate.as_ref(),
            local_discovery: device.local_discovery(),
            quiet: period::print(device.quiet()),
            brake: config.guards_of(None).brake,
            free_space: config.guards_of(None).free_space,
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("name", self.name.to_string()), ("port", self.port.to_string())];
        rows.extend(self.relay.map(|relay| ("relay", relay.to_string())));
        rows.extend(self.relay_certificate.map(|it| ("relay_certificate", it.to_string())));
        rows.extend([("local_discovery", self.local_discovery.to_string()), ("quiet", self.quiet.clone())]);
        rows.extend([("brake", self.brake.to_string()), ("free_space", self.free_space.to_string())]);
        rows
    }
}

#[derive(Debug, Serialize)]
struct ExchangeDocument<'a> {
    #[serde(flatten)]
    schedule: ScheduleDocument,
    #[serde(flatten)]
    rates: RatesDocument<'a>,
}

#[derive(Debug, Serialize)]
struct FolderDocument<'a> {
    path: &'a Path,
    paused: Pause,
    brake: Option<Brake>,
    free_space: Option<FreeSpace>,
}

impl<'a> FolderDocument<'a> {
    fn new(folder: &'a FolderSettings) -> Self {
        Self { path: &folder.path, paused: folder.paused, brake: folder.brake, free_space: folder.free_space }
    }
}

#[derive(Debug, Serialize)]
struct PathDocument {
    file: String,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let home = session.home()?;
    let file = home.config_file().display().to_string();
    let ui = session.ui();
    if let Some(Command::Path) = args.command {
        if ui.is_json() {
            ui.json(&PathDocument { file })?;
        } else {
            let mut out = ui.out();
            out.text(&file)?;
            writeln!(out)?;
            out.finish()?;
        }
        return Ok(ExitCode::Done);
    }
    let config = home.load()?;
    let device = DeviceDocument::new(&config);
    let exchange = ExchangeDocument {
        schedule: ScheduleDocument::new(&config.exchange.schedule),
        rates: RatesDocument::new(&config.exchange.rates),
    };
    if ui.is_json() {
        ui.json(&Document {
            file,
            device,
            exchange,
            folders: config.folders.iter().map(|(name, it)| (name, FolderDocument::new(it))).collect(),
            peers: config.peers.iter().map(|(name, peer)| PeerDocument::new(name, peer)).collect(),
        })?;
        return Ok(ExitCode::Done);
    }
    let mut table = Table::default();
    let mut push = |key: String, value: String| table.push([key, value]);
    push("file".to_owned(), file);
    device.rows().into_iter().for_each(|(key, value)| push(format!("device.{key}"), value));
    let rows = [exchange.schedule.rows(), exchange.rates.rows()];
    rows.into_iter().flatten().for_each(|(key, value)| push(format!("exchange.{key}"), value));
    for (name, folder) in &config.folders {
        push(format!("folder.{name}.path"), folder.path.display().to_string());
        if folder.paused != Pause::No {
            push(format!("folder.{name}.paused"), folder.paused.to_string());
        }
        if let Some(brake) = folder.brake {
            push(format!("folder.{name}.brake"), brake.to_string());
        }
        if let Some(space) = folder.free_space {
            push(format!("folder.{name}.free_space"), space.to_string());
        }
    }
    for (name, peer) in &config.peers {
        for (key, value) in peer::rows(peer) {
            push(format!("peer.{name}.{key}"), value);
        }
    }
    let mut out = ui.out();
    table.print(&mut out)?;
    out.finish()?;
    Ok(ExitCode::Done)
}
