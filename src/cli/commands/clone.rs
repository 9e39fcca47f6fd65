//! `foldersync clone`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueHint;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::paths::same_place;
use crate::cli::registry;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::cli::tell::tell_daemon;
use crate::config::{Address, Config, Editor, Name, PeerSettings};
use crate::engine::{Folder, InitOptions};

/// Make a copy of a folder, with its history, that exchanges with it
///
/// The source becomes a peer of the copy. Where the source is a folder of this configuration too, the copy also
/// becomes a peer of the source.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync clone /media/usb/docs ~/docs\n  foldersync clone ssh://me@nas/srv/docs ~/docs\n  foldersync clone --peer-name usb /media/usb/docs ~/docs"
)]
pub(crate) struct Args {
    /// The address of the folder to copy: its path, or one for ssh
    #[arg(value_name = "SOURCE", value_hint = ValueHint::DirPath)]
    source: OsString,
    /// Where the copy shall be: a directory that is empty or not there yet
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Name the source NAME among the peers; without it, `origin`
    #[arg(long, value_name = "NAME")]
    peer_name: Option<Name>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let address = super::peer::address(&args.source)?;
    let dir = Session::absolute(&args.dir)?;
    let config = session.config()?;
    let name = peer_name(&config, &address, args.peer_name.as_ref())?;
    let mut peer = PeerSettings::new(address);
    let options = InitOptions { alongside: false, device: session.device()?, folder_id: None };
    let target = registry::target(&name, &peer, None)?;
    // A kill may have come before the copy was registered, which is last.
    let begun = match registry::name_of(&config, &dir) {
        Some(_) => None,
        None => Folder::go_on_with_clone(&target, &dir, &options, &session.context_of(&dir))?,
    };
    let (folder, report) = match begun {
        Some(done) => done,
        None => Folder::clone_from(&target, &dir, &options, session.context_of(&dir))?,
    };

    session.home()?.edit(|config, editor| {
        let name = peer_name(config, &peer.address, args.peer_name.as_ref())?;
        if let Some(old) = config.peers.get(&name) {
            peer = old.clone();
        }
        let copy = registry::register(config, editor, folder.root())?;
        if !peer.folders.contains(&copy) {
            peer.folders.push(copy.clone());
        }
        editor.set_peer(&name, &peer);
        register_back(config, editor, &peer.address, &copy, folder.root());
        Ok::<_, CommandError>(())
    })?;
    tell_daemon(session);

    let ui = session.ui();
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        ui.status(&format!("{} is a copy of peer `{name}`: {}", folder.root().display(), reports::exchanged(&report)));
        reports::left_out(ui, &report.left_out);
    }
    Ok(ExitCode::left_out_if(!report.left_out.is_empty()))
}

/// The name of the peer that the source is: one that has this address already, the one that was asked for, or a new one.
fn peer_name(config: &Config, address: &Address, asked: Option<&Name>) -> Result<Name, CommandError> {
    let is_other = |name: &Name| config.peers.get(name).is_some_and(|peer| peer.address != *address);
    match asked {
        Some(name) if is_other(name) => Err(super::peer::taken(config, name).into()),
        Some(name) => Ok(name.clone()),
        None => {
            let known = config.peers.iter().find(|(_, peer)| peer.address == *address).map(|(name, _)| name.clone());
            Ok(known.unwrap_or_else(|| Name::from_text("origin", "origin").unique(is_other)))
        }
    }
}

/// Makes the copy a peer of its source, where the source is a folder of this configuration that has no such peer.
fn register_back(config: &Config, editor: &mut Editor, source: &Address, copy: &Name, root: &Path) {
    let Address::Path(source) = source else { return };
    let Some(source) = registry::name_of(config, source) else { return };
    let leads_back = |peer: &PeerSettings| matches!(&peer.address, Address::Path(path) if same_place(path, root));
    if config.peers_of(source).any(|(_, peer)| leads_back(peer)) {
        return;
    }
    let name = copy.clone().unique(|name| config.peers.contains_key(name));
    let address = Address::Path(root.to_owned());
    let folders = vec![source.clone()];
    editor.set_peer(&name, &PeerSettings { folders, ..PeerSettings::new(address) });
}
