//! The device's key: an ed25519 secret in a file of its own, whose public half is the device's id.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ed25519_dalek::SigningKey;
use rustix::fs::Mode;

use super::error::ConfigError;
use super::file;
use crate::id::DeviceId;

const FIRST_LINE: &str = "foldersync-device-key 1";

/// The secret key of this device. It prints as its public half; memory that held the secret is wiped.
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// The public half, which names the device.
    pub fn id(&self) -> DeviceId {
        DeviceId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// The secret half: for who proves with it to be this device, and nobody else.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Reads the key from its file; `None` where there is no file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(ConfigError::DamagedKey { path: path.to_owned() });
            }
            Err(error) => return Err(failed(error)),
        };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ConfigError::ExposedKey { path: path.to_owned(), mode });
        }
        let secret = text
            .strip_prefix(FIRST_LINE)
            .and_then(|rest| rest.strip_prefix('\n')?.strip_suffix('\n'))
            .and_then(from_hex)
            .ok_or_else(|| ConfigError::DamagedKey { path: path.to_owned() })?;
        Ok(Some(Self(SigningKey::from_bytes(&secret))))
    }

    /// Draws a new key and writes it to its file.
    pub(super) fn make(path: &Path) -> Result<Self, ConfigError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|source| ConfigError::NoRandom { source })?;
        let mut text = format!("{FIRST_LINE}\n");
        for byte in secret {
            text.push_str(&format!("{byte:02x}"));
        }
        text.push('\n');
        file::replace(path, text.as_bytes(), Mode::RUSR | Mode::WUSR)
            .map_err(|source| ConfigError::Write { path: path.to_owned(), source })?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }
}

/// The 32 bytes that 64 hexadecimal digits tell.
pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey(secret of {})", self.id().short())
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(secret of {})", self.id().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_when_read_again_and_never_shows_its_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        assert!(DeviceKey::read(&path).unwrap().is_none());
        let made = DeviceKey::make(&path).unwrap();
        let read = DeviceKey::read(&path).unwrap().expect("it was made");
        assert_eq!(made.id(), read.id());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let secret = fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
        assert!(!format!("{made} {made:?}").contains(&secret[..10]));
        assert_ne!(secret, made.id().to_string());
    }

    #[test]
    fn is_refused_when_others_can_read_it_or_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        DeviceKey::make(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(DeviceKey::read(&path), Err(ConfigError::ExposedKey { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for damage in ["", "foldersync-device-key 1\n12\n", "\u{0}"] {
            fs::write(&path, damage).unwrap();
            assert!(matches!(DeviceKey::read(&path), Err(ConfigError::DamagedKey { .. })), "{damage:?}");
        }
    }
}
