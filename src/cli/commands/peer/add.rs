//! `foldersync peer add`

use std::ffi::OsString;
use std::path::Path;

use clap::ValueHint;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::paths::same_place;
use crate::cli::registry;
use crate::cli::session::Session;
use crate::cli::tell::tell_daemon;
use crate::config::{Address, Direction, Name, PeerSettings};
use crate::engine::Folder;

/// Add a peer to the folder
///
/// The peer is exchanged with from the next `exchange` on. A folder that is not registered yet is registered with it.
///
/// ADDRESS is the path of a folder; `ssh://[USER@]HOST[:PORT]/PATH` or `[USER@]HOST:PATH` (a folder to which ssh leads);
/// or `foldersync://KEY[@HOST[:PORT]]` (a device that runs `foldersync serve`, by the key that `foldersync id` prints
/// there; both sides must know the key of the other). A name with a colon that is a path is told by a slash: `./a:b`.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync peer add usb /media/usb/docs\n  foldersync peer add nas ssh://me@nas/srv/docs\n  foldersync peer add laptop foldersync://KEY@laptop.example:44996\n  foldersync peer add backup /mnt/backup/docs --send-only"
)]
pub(crate) struct Args {
    /// The name to give it
    #[arg(value_name = "NAME")]
    name: Name,
    /// Where it is: a path, an address for ssh, or the key of a device
    #[arg(value_name = "ADDRESS", value_hint = ValueHint::DirPath)]
    address: OsString,
    /// Put together two folders that began apart, each with a history of its own
    #[arg(long)]
    join: bool,
    /// Only send to it; never take anything from it
    #[arg(long, conflicts_with = "receive_only")]
    send_only: bool,
    /// Only receive from it; never send anything to it
    #[arg(long)]
    receive_only: bool,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let root = session.root()?;
    let address = super::address(&args.address)?;
    let hint = check(session, &address, &root)?;
    let direction = match (args.send_only, args.receive_only) {
        (true, _) => Some(Direction::Send),
        (_, true) => Some(Direction::Receive),
        _ => None,
    };
    let folder = session.home()?.edit(|config, editor| {
        let old = config.peers.get(&args.name);
        if old.is_some_and(|old| old.address != address) {
            return Err(super::taken(config, &args.name).into());
        }
        let folder = registry::register(config, editor, &root)?;
        let mut peer = old.cloned().unwrap_or_else(|| PeerSettings::new(address.clone()));
        if !peer.folders.contains(&folder) {
            peer.folders.push(folder.clone());
        }
        peer.join |= args.join;
        match direction {
            // What is granted for other folders stays.
            Some(direction) if peer.folders.len() > 1 => drop(peer.directions.insert(folder.clone(), direction)),
            Some(direction) => {
                peer.directions.clear();
                peer.direction = direction;
            }
            None => {}
        }
        editor.set_peer(&args.name, &peer);
        Ok::<_, CommandError>(folder)
    })?;
    tell_daemon(session);
    session.ui().status(&format!("{} is a peer of `{folder}`", args.name));
    if let Some(hint) = hint {
        session.ui().hint(&hint);
    }
    Ok(ExitCode::Done)
}

/// Whether a peer can be at this address; what is to be done there first.
fn check(session: &Session, address: &Address, root: &Path) -> Result<Option<String>, CommandError> {
    match address {
        Address::Path(path) => check_path(path, root),
        Address::Ssh(_) => Ok(None),
        Address::Device(device) => {
            let own = session.device()?.id;
            if device.key == own {
                return Err(CommandError::usage("that is the key of this device itself")
                    .with_hint("`foldersync id` on the other device prints its key"));
            }
            let add = format!("foldersync peer add NAME foldersync://{own}");
            Ok(Some(format!("the other side must know the key of this device, too (`foldersync id`); there: `{add}`")))
        }
    }
}

fn check_path(path: &Path, root: &Path) -> Result<Option<String>, CommandError> {
    if !path.is_dir() {
        let what = if path.exists() { "is not a folder" } else { "does not exist" };
        return Err(CommandError::usage(format!("{} {what}", path.display()))
            .with_hint("mount the disk or make the folder first; `foldersync clone` makes a new copy of a folder"));
    }
    if same_place(path, root) {
        return Err(CommandError::usage(format!("{} is this folder itself", path.display())));
    }
    let versioned = Folder::discover(path).is_ok_and(|found| same_place(&found, path));
    let first = || format!("{0} is not versioned yet: `foldersync init {0}` before the first exchange", path.display());
    Ok((!versioned).then(first))
}
