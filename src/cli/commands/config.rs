//! `foldersync config`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::peer::PeerDocument;
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::ui::table::Table;
use crate::config::Name;

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
    device: DeviceDocument,
    folders: BTreeMap<&'a Name, FolderDocument<'a>>,
    peers: Vec<PeerDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct DeviceDocument {
    name: Name,
}

#[derive(Debug, Serialize)]
struct FolderDocument<'a> {
    path: &'a Path,
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
    if ui.is_json() {
        ui.json(&Document {
            file,
            device: DeviceDocument { name: config.device_name() },
            folders: config.folders.iter().map(|(name, it)| (name, FolderDocument { path: &it.path })).collect(),
            peers: config.peers.iter().map(|(name, peer)| PeerDocument::new(name, peer)).collect(),
        })?;
        return Ok(ExitCode::Done);
    }
    let mut table = Table::default();
    table.push(["file".to_owned(), file]);
    table.push(["device.name".to_owned(), config.device_name().to_string()]);
    for (name, folder) in &config.folders {
        table.push([format!("folder.{name}.path"), folder.path.display().to_string()]);
    }
    for (name, peer) in &config.peers {
        let folders: Vec<_> = peer.folders.iter().map(Name::as_str).collect();
        table.push([format!("peer.{name}.address"), peer.address.to_string()]);
        table.push([format!("peer.{name}.folders"), folders.join(",")]);
        table.push([format!("peer.{name}.direction"), peer.direction.to_string()]);
        table.push([format!("peer.{name}.join"), peer.join.to_string()]);
    }
    let mut out = ui.out();
    table.print(&mut out)?;
    out.finish()?;
    Ok(ExitCode::Done)
}
