//! Pinning a device that has paired: the peer in `config.toml` that it becomes.

use crate::config::{Address, Config, DeviceAddress, Direction, Editor, HostPort, Name, PeerSettings};
use crate::daemon::control::Refusal;
use crate::engine::Failure;
use crate::id::DeviceId;

/// A device that is to be pinned.
pub(super) struct Device<'a> {
    pub(super) key: DeviceId,
    /// What it calls itself.
    pub(super) name: &'a str,
    /// Where it may be found.
    pub(super) hosts: Vec<HostPort>,
}

/// Makes the device a peer of the folder, or adds the folder to the peer that it is; returns the peer's name. What is
/// set for the peer's other folders stays.
pub(super) fn pin(
    config: &Config,
    editor: &mut Editor,
    device: Device<'_>,
    folder: &Name,
    direction: Direction,
) -> Result<Name, Refusal> {
    let Device { key, name, hosts } = device;
    let (name, mut peer) = if let Some((name, peer)) = config.peer_with_key(&key) {
        (name.clone(), peer.clone())
    } else {
        let name = Name::from_text(name, "peer").unique(|name| config.peers.contains_key(name));
        (name, PeerSettings::new(Address::Device(DeviceAddress { key, host: None })))
    };
    let Address::Device(address) = &mut peer.address else {
        // It leads to one folder, and by another way.
        return Err(Refusal {
            failure: Failure::Refused,
            message: format!("peer `{name}` ({}) has the key of this device already", peer.address),
            hint: Some(format!("take its `key` out of the configuration, or `foldersync peer remove {name}`")),
        });
    };
    for host in hosts {
        if address.host.is_none() {
            address.host = Some(host);
        } else if address.host.as_ref() != Some(&host) && !peer.addresses.contains(&host) {
            peer.addresses.push(host);
        }
    }
    if !peer.folders.contains(folder) {
        peer.folders.push(folder.clone());
    }
    if let [_only] = &peer.folders[..] {
        peer.directions.clear();
        peer.direction = direction;
    } else if peer.direction_of(folder) != direction {
        peer.directions.insert(folder.clone(), direction);
    }
    editor.set_peer(&name, &peer);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Home;
    use std::path::Path;

    const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_device_becomes_one_peer_whatever_it_joins() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        let key: DeviceId = KEY.parse().unwrap();
        let join = |folder: &str, host: &str, direction| {
            home.edit(|config, editor| {
                if !config.folders.contains_key(&name(folder)) {
                    editor.add_folder(&name(folder), &Path::new("/").join(folder))?;
                }
                let device = Device { key, name: "my laptop", hosts: vec![host.parse().unwrap()] };
                pin(config, editor, device, &name(folder), direction)
            })
            .unwrap()
        };
        assert_eq!(join("docs", "192.0.2.1:5", Direction::Send), name("my-laptop"));
        assert_eq!(join("photos", "192.0.2.2:5", Direction::Both), name("my-laptop"));
        assert_eq!(join("photos", "192.0.2.2:5", Direction::Both), name("my-laptop"));
        let config = home.load().unwrap();
        let peer = &config.peers[&name("my-laptop")];
        assert_eq!(peer.address.to_string(), format!("foldersync://{KEY}@192.0.2.1:5"));
        assert_eq!(peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.2:5"]);
        assert_eq!(peer.folders, [name("docs"), name("photos")]);
        assert_eq!(peer.direction_of(&name("docs")), Direction::Send);
        assert_eq!(peer.direction_of(&name("photos")), Direction::Both);
        // Another device of that name is another peer.
        let other = DeviceId::from_bytes(*ed25519(1).as_bytes());
        home.edit(|config, editor| {
            let device = Device { key: other, name: "my laptop", hosts: Vec::new() };
            let peer = pin(config, editor, device, &name("docs"), Direction::Both)?;
            assert_eq!(peer, name("my-laptop-2"));
            Ok::<_, Refusal>(())
        })
        .unwrap();
    }

    fn ed25519(seed: u8) -> ed25519_dalek::VerifyingKey {
        ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key()
    }
}
