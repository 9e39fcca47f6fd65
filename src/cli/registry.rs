//! Folders and peers of the configuration, as the engine and the commands need them.

use std::path::{Path, PathBuf};

use super::error::CommandError;
use super::paths::same_place;
use super::session::Session;
use super::tell::tell_daemon;
use crate::config::{Config, Editor, Name, PeerSettings};
use crate::daemon;
use crate::engine::PeerTarget;

/// The name under which the folder at `root` is registered.
pub(crate) fn name_of<'a>(config: &'a Config, root: &Path) -> Option<&'a Name> {
    config
        .folder_at(root)
        .or_else(|| config.folders.iter().find(|(_, folder)| same_place(&folder.path, root)).map(|(name, _)| name))
}

/// The name of the folder at `root`, which is registered under the name of its directory if it is not yet.
pub(crate) fn register(config: &Config, editor: &mut Editor, root: &Path) -> Result<Name, CommandError> {
    if let Some(name) = name_of(config, root) {
        return Ok(name.clone());
    }
    let directory = root.file_name().unwrap_or_default().to_string_lossy();
    let name = Name::from_text(&directory, "folder").unique(|name| config.folders.contains_key(name));
    editor.add_folder(&name, root)?;
    Ok(name)
}

/// Registers the folder at `root` and nothing else; a running daemon hears of it.
pub(crate) fn register_folder(session: &Session, root: &Path) -> Result<Name, CommandError> {
    let name = session.home()?.edit(|config, editor| register(config, editor, root))?;
    tell_daemon(session);
    Ok(name)
}

/// A peer as the engine takes it, for one folder; `None` stands for a folder that is yet to be made.
pub(crate) fn target(name: &Name, peer: &PeerSettings, folder: Option<&Name>) -> Result<PeerTarget, CommandError> {
    let address = daemon::engine_address(&peer.address).ok_or_else(|| {
        let told = format!("`{name}` is a device, of which no folder is named");
        CommandError::usage(told).with_hint("`foldersync share DIR` there prints a ticket for `foldersync join` here")
    })?;
    let direction = folder.map_or(peer.direction, |folder| peer.direction_of(folder));
    Ok(PeerTarget {
        name: name.to_string(),
        address,
        send: direction.sends(),
        receive: direction.receives(),
        join: peer.join,
    })
}

/// The registered folders that a command is about: all, or the one that `--folder` names.
pub(crate) fn chosen_folders(session: &Session, config: &Config) -> Result<Vec<(Name, PathBuf)>, CommandError> {
    let all = || config.folders.iter().map(|(name, folder)| (name.clone(), folder.path.clone())).collect();
    if session.named_folder().is_none() {
        return Ok(all());
    }
    let root = session.root()?;
    match name_of(config, &root) {
        Some(name) => Ok(vec![(name.clone(), root)]),
        None => Err(not_registered(&root)),
    }
}

/// That the configuration does not know of the folder at `root`.
pub(crate) fn not_registered(root: &Path) -> CommandError {
    CommandError::usage(format!("{} is not registered here", root.display()))
        .with_hint("`foldersync peer add NAME ADDRESS` in it registers it with a peer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Address, Direction, Home};

    #[test]
    fn a_folder_is_registered_once_under_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        let register =
            |path: &str| home.edit(|config, editor| register(config, editor, Path::new(path))).unwrap().to_string();
        assert_eq!(register("/a/My docs"), "My-docs");
        assert_eq!(register("/b/My docs"), "My-docs-2");
        assert_eq!(register("/a/My docs"), "My-docs");
        assert_eq!(register("/"), "folder");
        assert_eq!(home.load().unwrap().folders.len(), 3);
    }

    #[test]
    fn a_direction_becomes_what_is_sent_and_received() {
        let (name, docs) = (Name::new("nas").unwrap(), Name::new("docs").unwrap());
        let peer = PeerSettings {
            folders: vec![docs.clone()],
            direction: Direction::Receive,
            directions: [(docs.clone(), Direction::Send)].into(),
            join: true,
            ..PeerSettings::new(Address::Path("/mnt".into()))
        };
        let other = target(&name, &peer, None).unwrap();
        assert_eq!((other.send, other.receive, other.join), (false, true, true));
        let docs = target(&name, &peer, Some(&docs)).unwrap();
        assert_eq!((docs.send, docs.receive), (true, false));
    }
}
