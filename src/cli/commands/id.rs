//! `foldersync id`

use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::session::Session;
use crate::cli::ui::table::Table;
use crate::engine::Folder;
use crate::id::{DeviceId, FolderId};

/// Show who this device is, and the folder
///
/// A device is known by its public key, which is made on first need; its secret half never leaves the device.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  foldersync id")]
pub(crate) struct Args {}

#[derive(Debug, Serialize)]
struct Document {
    device: DeviceId,
    device_name: String,
    folder_id: Option<FolderId>,
}

pub(crate) fn run(session: &Session, _: &Args) -> Result<ExitCode, CommandError> {
    let device = session.device()?;
    // Outside of any folder there is only the device to tell of, unless a folder was asked for.
    let root = match session.root() {
        Ok(root) => Some(root),
        Err(error) if session.named_folder().is_some() => return Err(error),
        Err(_) => None,
    };
    let folder_id = root.map(|root| Folder::open(&root, session.context())).transpose()?.map(|folder| folder.id());
    let document = Document { device: device.id, device_name: device.name, folder_id };
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&document)?;
        return Ok(ExitCode::Done);
    }
    let mut table = Table::default();
    table.push(["device".to_owned(), document.device_name]);
    table.push(["key".to_owned(), document.device.to_string()]);
    if let Some(folder_id) = document.folder_id {
        table.push(["folder".to_owned(), folder_id.to_string()]);
    }
    let mut out = ui.out();
    table.print(&mut out)?;
    out.finish()?;
    Ok(ExitCode::Done)
}
