//! `foldersync join`

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use serde::Serialize;

use crate::cli::error::{CommandError, Kind};
use crate::cli::exit::ExitCode;
use crate::cli::foreground::{self, Foreground};
use crate::cli::session::Session;
use crate::cli::tell::{ask, next};
use crate::config::Name;
use crate::daemon::control::{Answer, Ask, Secretive};
use crate::daemon::{DaemonStatus, pairing};
use crate::id::DeviceId;

/// The longest ticket that is read from standard input, in bytes.
const LONGEST: u64 = 8 << 10;

/// Join a folder that another device shares
///
/// TICKET is what `foldersync share` printed there. Each side takes down the key of the other, the folder is made here,
/// and the first copy comes. DIR is a directory that is empty or not there yet; without it, one with the folder's name
/// in the current directory. Where a copy of this very folder is in DIR already, it just gets one more peer.
///
/// Other users of this computer can read what was typed: `join -` reads the ticket from standard input instead. Where no
/// daemon runs, this command goes on to keep the folder in step until it is stopped (Ctrl-C), or ends after the first
/// copy with `--once`.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync join TICKET\n  foldersync join TICKET ~/docs\n  foldersync join - ~/docs --once"
)]
pub(crate) struct Args {
    /// The ticket; `-` reads it from standard input
    #[arg(value_name = "TICKET")]
    ticket: String,
    /// Where to put the folder
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// End after the first copy
    #[arg(long)]
    once: bool,
    #[arg(long, hide = true)]
    loopback: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    peer: &'a Name,
    device_name: &'a str,
    device: DeviceId,
    folder: &'a Name,
    path: &'a Path,
    read_only: bool,
    note: Option<&'a str>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let ticket = ticket(&args.ticket)?;
    let called = pairing::folder_of(&ticket)?;
    let path = match &args.dir {
        Some(dir) => Session::absolute(dir)?,
        None => Session::current_dir()?.join(called.as_str()),
    };
    let here = Foreground::start_unless_running(session, args.loopback)?;
    let done = join(session, ticket, &path);
    foreground::finish(session, here, done, args.once)
}

fn ticket(argument: &str) -> Result<String, CommandError> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| CommandError::new(Kind::Failed, format!("cannot read standard input: {error}")))?;
    Ok(text.trim().to_owned())
}

fn join(session: &Session, ticket: String, path: &Path) -> Result<(), CommandError> {
    let ui = session.ui();
    let asked = Ask::Join { ticket: Secretive(ticket), path: path.to_owned() };
    let mut client = ask(session, &asked)?.ok_or_else(foreground::gone)?;
    let (peer, device_name, device, folder, read_only, note) = loop {
        if let Answer::Paired { peer, device_name, device, folder, read_only, note } = next(&mut client)? {
            break (peer, device_name, device, folder, read_only, note);
        }
    };
    let how = if read_only { ", to read only" } else { "" };
    ui.status(&format!(
        "joined `{folder}` of {device_name} ({}), as peer `{peer}`{how}: {}",
        device.short(),
        path.display()
    ));
    if let Some(note) = &note {
        ui.warning(note);
    }
    let mut told = BTreeSet::new();
    loop {
        match next(&mut client)? {
            Answer::Progress(status) => {
                ui.show_progress(status.folders.get(&folder).map(|folder| &folder.progress[..]).unwrap_or_default());
                if let Some(trouble) = trouble(&status, &peer, &folder).filter(|_| told.len() < 100)
                    && told.insert(trouble.to_owned())
                {
                    ui.warning(trouble);
                }
            }
            Answer::Done => break,
            _ => {}
        }
    }
    ui.show_progress(&[]);
    if ui.is_json() {
        let note = note.as_deref();
        let document =
            Document { peer: &peer, device_name: &device_name, device, folder: &folder, path, read_only, note };
        ui.json(&document)?;
    }
    ui.status(&format!("the first copy of `{folder}` is there"));
    Ok(())
}

/// What keeps the copy from coming.
fn trouble<'a>(status: &'a DaemonStatus, peer: &Name, folder: &Name) -> Option<&'a str> {
    let of_folder = status.folders.get(folder).and_then(|state| state.trouble.as_deref());
    let peer = status.peers.get(peer)?;
    let of_pair = peer.folders.get(folder).and_then(|pair| pair.trouble.as_deref());
    of_folder.or(of_pair).or(peer.trouble.as_deref())
}
