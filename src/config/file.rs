//! Files of the home: replaced whole, and durable before success is reported.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::Mode;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

/// Rules that keep secrets out of a folder that the home lies in.
pub(super) const RULES: &str = ".gitignore";

const RULES_TEXT: &[u8] =
    b"# Keys, and what belongs to this computer alone, stay out of a synced folder around this one.
device.key
.foldersync-*
*.lock
control.sock
relay.pem
state/
";

/// Makes the directory, readable by its owner alone, where it is missing.
pub(super) fn make_home(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    guard(dir)
}

/// Makes a directory in the home, readable by its owner alone, where it is missing.
pub(super) fn make_private(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes the rules that keep secrets out of a folder around the home, where there are none.
pub(super) fn guard(dir: &Path) -> io::Result<()> {
    let rules = dir.join(RULES);
    match fs::symlink_metadata(&rules) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            replace(&rules, RULES_TEXT, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)
        }
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// Puts `content` at `path`, with these permissions: after a crash the file holds all of the old or all of the new.
pub(super) fn replace(path: &Path, content: &[u8], mode: Mode) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut staged = tempfile::Builder::new()
        .prefix(".foldersync-")
        .permissions(fs::Permissions::from_mode(mode.bits()))
        .tempfile_in(dir)?;
    staged.write_all(content)?;
    staged.as_file().sync_all()?;
    staged.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}
