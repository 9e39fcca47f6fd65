//! `foldersync share`

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueHint;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::foreground::{self, Foreground};
use crate::cli::paths::same_place;
use crate::cli::registry;
use crate::cli::session::Session;
use crate::cli::tell::{ask, next, tell_daemon};
use crate::clock::Timestamp;
use crate::config::{Name, period};
use crate::daemon::control::{Answer, Ask};
use crate::engine::{EngineError, Folder, InitOptions};
use crate::id::DeviceId;

/// How long the other side may take to go away after the first exchange, before `--once` ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Share a folder with another device
///
/// Prints a ticket, and waits until somebody has joined with it: `foldersync join TICKET` on the other device. The ticket
/// serves once, and for an hour (`--expires`); whoever has it can join, so hand it over as you would a password. On a
/// terminal it is shown as a QR code, too. Who has joined is a peer from then on, with the key of its device: `peer
/// remove` cuts it off.
///
/// A directory that is not versioned yet is made so, as by `init`. Where no daemon runs, this command serves by itself,
/// and goes on until it is stopped (Ctrl-C).
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync share ~/docs\n  foldersync share ~/photos --read-only --expires 1d\n  foldersync share --no-wait"
)]
pub(crate) struct Args {
    /// The folder; without it, the one that the current directory lies in
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Let who joins only read: nothing is taken from it
    #[arg(long)]
    read_only: bool,
    /// How long the ticket holds, as `30m`, `1h` or `2d`; at most 30 days
    #[arg(long, value_name = "TIME", default_value = "1h")]
    expires: String,
    /// Print the ticket and end; the running daemon does the rest
    #[arg(long, conflicts_with = "once")]
    no_wait: bool,
    /// End when somebody has joined and has its first copy
    #[arg(long)]
    once: bool,
    #[arg(long, hide = true)]
    loopback: bool,
}

/// A line of `--json`: the ticket.
#[derive(Debug, Serialize)]
struct TicketLine<'a> {
    ticket: &'a str,
    folder: &'a Name,
    read_only: bool,
    expires: Timestamp,
}

/// A line of `--json`: who has joined.
#[derive(Debug, Serialize)]
struct JoinedLine<'a> {
    peer: &'a Name,
    device_name: &'a str,
    device: DeviceId,
    folder: &'a Name,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let expires = period::parse(&args.expires).map_err(|error| CommandError::usage(error.to_string()))?;
    if args.no_wait && !foreground::is_running(session)? {
        return Err(CommandError::usage("no daemon is running that could hear who joins")
            .with_hint("start it with `foldersync serve`, or leave `--no-wait` out"));
    }
    let root = folder(session, args.dir.as_deref())?;
    let name = registry::register_folder(session, &root)?;
    let here = Foreground::start_unless_running(session, args.loopback)?;
    if here.is_none() {
        tell_daemon(session);
    }
    let done = share(session, args, expires, &name);
    foreground::finish(session, here, done, args.once)
}

/// The folder that is to be shared; made one where a directory was named that is none.
fn folder(session: &Session, dir: Option<&Path>) -> Result<PathBuf, CommandError> {
    let Some(dir) = dir else { return session.root() };
    let dir = Session::absolute(dir)?;
    match Folder::discover(&dir) {
        Ok(root) if same_place(&root, &dir) => Ok(root),
        Ok(root) => Err(CommandError::usage(format!("{} is a part of the folder {}", dir.display(), root.display()))
            .with_hint("a folder is shared as a whole")),
        Err(EngineError::NoFolder { .. }) => {
            let options = InitOptions { alongside: false, device: session.device()?, folder_id: None };
            let (folder, report) = Folder::init(&dir, &options, session.context())?;
            crate::cli::reports::left_out(session.ui(), &report.capture.left_out);
            Ok(folder.root().to_owned())
        }
        Err(error) => Err(error.into()),
    }
}

fn share(session: &Session, args: &Args, expires: Duration, folder: &Name) -> Result<(), CommandError> {
    let ui = session.ui();
    let began = session.context().clock.now();
    let asked = Ask::Share { folder: folder.clone(), read_only: args.read_only, expires: expires.as_secs() };
    let mut client = ask(session, &asked)?.ok_or_else(foreground::gone)?;
    let Answer::Ticket { text, offer, expires } = next(&mut client)? else { return Err(foreground::gone()) };
    let ticket = text.0;
    if ui.is_json() {
        ui.json(&TicketLine { ticket: &ticket, folder, read_only: args.read_only, expires })?;
    } else {
        let mut out = ui.out();
        writeln!(out, "{ticket}")?;
        out.finish()?;
        if let Some(code) = qr_code(&ticket).filter(|_| ui.talks_to_a_terminal()) {
            ui.status(&code);
        }
        let until = ui.out().time(expires);
        let how = if args.read_only { ", to read only" } else { "" };
        ui.status(&format!(
            "`{folder}` is shared{how}: `foldersync join TICKET` on the other device; the ticket serves once, until {until}"
        ));
    }
    if args.no_wait {
        return Ok(());
    }
    let mut client = ask(session, &Ask::Joined { offer })?.ok_or_else(foreground::gone)?;
    let (peer, folder) = loop {
        if let Answer::Paired { peer, device_name, device, folder, .. } = next(&mut client)? {
            if ui.is_json() {
                let line = JoinedLine { peer: &peer, device_name: &device_name, device, folder: &folder };
                ui.json(&line)?;
            }
            ui.status(&format!("{device_name} ({}) has joined `{folder}`, as peer `{peer}`", device.short()));
            break (peer, folder);
        }
    };
    if args.once {
        first_copy(session, &peer, &folder, began)?;
    }
    Ok(())
}

/// Waits until the peer has its first copy, and then, for a moment, until it has gone. It has it when an exchange has ended
/// well since `began`, or when it has said since that it is where this side is: the last words of an exchange may be lost
/// with the connection, and whoever has its copy may not come again.
fn first_copy(session: &Session, peer: &Name, folder: &Name, began: Timestamp) -> Result<(), CommandError> {
    let mut client = ask(session, &Ask::Watch)?.ok_or_else(foreground::gone)?;
    let mut done: Option<Instant> = None;
    let mut was_there = false;
    loop {
        let Answer::Progress(status) = next(&mut client)? else { continue };
        let state = match status.peers.get(peer) {
            Some(state) => state,
            // It was removed.
            None if was_there => return Ok(()),
            // The daemon has not begun with it yet.
            None => continue,
        };
        was_there = true;
        let is_there = state
            .folders
            .get(folder)
            .is_some_and(|pair| pair.last >= Some(began) || (pair.in_step && pair.heard >= Some(began)));
        if is_there && done.is_none() {
            session.ui().status(&format!("`{peer}` has its copy of `{folder}`"));
            done = Some(Instant::now());
        }
        if done.is_some_and(|done| state.link.is_none() || done.elapsed() > FAREWELL) {
            return Ok(());
        }
    }
}

/// The ticket as a QR code, light on dark as terminals are. None: it is too long for one.
fn qr_code(ticket: &str) -> Option<String> {
    // In capitals it takes less space, and reads the same.
    let code = QrCode::with_error_correction_level(ticket.to_ascii_uppercase(), EcLevel::L).ok()?;
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_fits_in_a_code() {
        let code = qr_code(&format!("foldersync{}", "a7".repeat(150))).unwrap();
        assert!(code.lines().count() > 20);
        assert!(qr_code(&"a".repeat(5000)).is_none());
    }
}
