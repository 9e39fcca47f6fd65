//! Copies of the small files of the repository that nothing else tells: its config, its refs that git has packed, its
//! attributes and excludes.
//!
//! Everything else in a repository has a checksum, is named by one, or can be made anew; a flipped bit in the config
//! would be another folder's id. So a copy of each lies in `foldersync/kept/`, with the time of the file that it is a
//! copy of and a checksum over all. It is renewed by whoever takes the folder's lock, when the file has another time
//! than its copy says: somebody has written it. A file that differs though its time does not was written by nobody.
//!
//! After a kill the old copy or the new one stands (a temporary file, renamed; not synced: one that is torn is no copy,
//! and is made anew). Must not: be believed over a file that somebody has written since.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::checksum::{self, Checksum};
use super::durable::{self, Temp};
use super::error::StoreError;
use super::repository::PRIVATE;
use super::settings::Config;
use crate::clock::Timestamp;

/// The files, in the repository.
pub(crate) const KEPT: [&str; 5] = ["config", "packed-refs", "info/attributes", "info/exclude", ".gitignore"];
const SIGNATURE: &[u8] = b"foldersync kept 1\n";
/// What is longer is nobody's config, and not kept.
const LONGEST: u64 = 64 << 20;

/// What the copy of a file tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Compared {
    /// It is as it was kept, or somebody has written it since, or there never was one.
    Fine,
    /// It was kept with this content, and is gone or other, though nobody has written it.
    Other(Vec<u8>),
    /// The copy itself is damaged: it is made anew.
    Torn,
}

fn copy_of(git_dir: &Path, name: &str) -> PathBuf {
    git_dir.join(PRIVATE).join("kept").join(name.replace('/', "-"))
}

/// The time and the content that were kept; `None` if nothing was. An error is a damaged copy.
fn read(git_dir: &Path, name: &str) -> Option<Result<(Timestamp, Vec<u8>), ()>> {
    let bytes = fs::read(copy_of(git_dir, name)).ok()?;
    let parsed = || {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(checksum::LEN)?)?;
        let (time, content) = body.strip_prefix(SIGNATURE)?.split_at_checked(12)?;
        let secs = i64::from_be_bytes(time[..8].try_into().ok()?);
        let nanos = u32::from_be_bytes(time[8..].try_into().ok()?);
        (Checksum::of(body) == *sum).then(|| (Timestamp::new(secs, nanos), content.to_vec()))
    };
    Some(parsed().ok_or(()))
}

fn modified(path: &Path) -> Option<Timestamp> {
    let data = fs::metadata(path).ok().filter(|data| data.is_file() && data.len() <= LONGEST)?;
    data.modified().ok().map(|time: SystemTime| Timestamp::from(time))
}

/// Keeps copies of the files that were written since they were last kept.
pub(crate) fn renew(git_dir: &Path) -> Result<(), StoreError> {
    let dir = git_dir.join(PRIVATE).join("kept");
    for name in KEPT {
        let (path, copy) = (git_dir.join(name), copy_of(git_dir, name));
        let Some(time) = modified(&path) else {
            // A file that git has taken away (refs that it has unpacked) leaves its copy, which tells what was in it.
            continue;
        };
        if matches!(read(git_dir, name), Some(Ok((kept, _))) if kept == time) {
            continue;
        }
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            content => content.map_err(StoreError::io("read", &path))?,
        };
        let makes_sense = name != "config" || matches!(Config::read(git_dir), Ok(Some(config)) if config.is_ours());
        if modified(&path) != Some(time) || !makes_sense {
            continue;
        }
        durable::create_dirs(git_dir, &dir)?;
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&time.secs.to_be_bytes());
        bytes.extend_from_slice(&time.nanos.to_be_bytes());
        bytes.extend_from_slice(&content);
        let sum = Checksum::of(&bytes);
        bytes.extend_from_slice(&sum);
        let mut temp = Temp::new_in(&git_dir.join(PRIVATE))?;
        temp.file().write_all(&bytes).map_err(StoreError::io("write", &copy))?;
        temp.rename_to(&copy)?;
    }
    Ok(())
}

/// What the copy of the file `name` tells of it.
pub(crate) fn compare(git_dir: &Path, name: &str) -> Compared {
    let path = git_dir.join(name);
    match read(git_dir, name) {
        None => Compared::Fine,
        Some(Err(())) => Compared::Torn,
        Some(Ok((time, content))) => match fs::read(&path) {
            Ok(now) if now == content => Compared::Fine,
            Ok(_) if modified(&path) != Some(time) => Compared::Fine,
            // Git takes these away by itself when it has no more use for them.
            Err(_) if matches!(name, "packed-refs" | ".gitignore") && !needed(git_dir, name, &content) => {
                Compared::Fine
            }
            _ => Compared::Other(content),
        },
    }
}

/// Whether a file that is gone had something that is nowhere else.
fn needed(git_dir: &Path, name: &str, content: &[u8]) -> bool {
    name == "packed-refs"
        && String::from_utf8_lossy(content)
            .lines()
            .filter(|line| !line.starts_with(['#', '^']))
            .filter_map(|line| line.split_once(' '))
            .any(|(_, name)| !name.contains("..") && !git_dir.join(name).is_file())
}

/// The content that was kept of a file, if it can be believed.
pub(crate) fn content(git_dir: &Path, name: &str) -> Option<Vec<u8>> {
    read(git_dir, name)?.ok().map(|(_, content)| content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("foldersync")).unwrap();
        fs::create_dir_all(dir.path().join("info")).unwrap();
        fs::write(dir.path().join("config"), "[foldersync]\n\tversion = 1\n").unwrap();
        fs::write(dir.path().join("info/exclude"), "*.o\n").unwrap();
        renew(dir.path()).unwrap();
        dir
    }

    /// Changes a file as a disk does: nobody has written it.
    fn rot(path: &Path, content: &[u8]) {
        let time = fs::metadata(path).unwrap().modified().unwrap();
        fs::write(path, content).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn what_nobody_has_written_and_is_other_is_damage() {
        let dir = repository();
        let path = dir.path().join("config");
        let before = fs::read(&path).unwrap();
        assert_eq!(compare(dir.path(), "config"), Compared::Fine);
        rot(&path, b"[foldersync]\n\tversion = 3\n");
        assert_eq!(compare(dir.path(), "config"), Compared::Other(before.clone()));
        renew(dir.path()).unwrap();
        assert_eq!(compare(dir.path(), "config"), Compared::Other(before.clone()), "it is not kept");
        fs::remove_file(&path).unwrap();
        assert_eq!(compare(dir.path(), "config"), Compared::Other(before.clone()));
        assert_eq!(content(dir.path(), "config"), Some(before));
    }

    #[test]
    fn what_somebody_has_written_is_fine_and_kept_next() {
        let dir = repository();
        let path = dir.path().join("info/exclude");
        let file = fs::File::create(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(compare(dir.path(), "info/exclude"), Compared::Fine);
        renew(dir.path()).unwrap();
        assert_eq!(content(dir.path(), "info/exclude"), Some(Vec::new()));
    }

    #[test]
    fn a_torn_copy_is_no_copy_and_is_made_anew() {
        let dir = repository();
        let copy = copy_of(dir.path(), "config");
        let whole = fs::read(&copy).unwrap();
        for torn in [&whole[..whole.len() - 1], &[][..], &[&whole[..20], &[1][..], &whole[21..]].concat()] {
            fs::write(&copy, torn).unwrap();
            assert_eq!(compare(dir.path(), "config"), Compared::Torn);
            assert_eq!(content(dir.path(), "config"), None);
            renew(dir.path()).unwrap();
            assert_eq!(fs::read(&copy).unwrap(), whole);
        }
    }
}
