//! Finding damage: what in the repository is not what it was when it was written.
//!
//! [`files`] looks at every file by itself: packs and indexes by their checksums, loose objects by their ids, refs and
//! `HEAD` by what may stand in them, small files by the copies that are kept of them (`kept`). [`Sound`] reads objects
//! past what is damaged, and gives only what has its id. [`walk`](fn@walk) goes through everything that history needs
//! and tells what is lost; [`introducers`] tells which revisions brought it.
//!
//! Reads only, but for a folder `foldersync/mending` that exists while something damaged is read around. Nothing that
//! is read is trusted: no size that a damaged file declares is allocated, a delta chain ends, every walk goes on where
//! something cannot be read. Must not: mend anything; what a finding means for files and revisions, and what is to be
//! done, is the engine's to say.

mod sound;
mod walk;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub use sound::{Sound, Unsound};
pub use walk::{Introducer, Lost, Walked, introducers, retry, walk};

use super::checksum::{self, Checksum};
use super::error::StoreError;
use super::index_file;
use super::kept::{self, Compared, KEPT};
use super::objects::{ObjectHasher, ObjectKind};
use super::refs::{self, Head, RefName};
use super::repository::Store;
use crate::id::{CommitId, ObjectId};
use crate::monitor::{Monitor, Stage};

/// What is to be done about a damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cure {
    /// A pack, or its index: what can still be read of it goes into a good one, the rest is fetched.
    Pack,
    /// The index of a sound pack: it is made anew from the pack.
    Index,
    /// A loose object: it is fetched.
    Loose(ObjectId),
    /// A ref: what it named has to be known from elsewhere.
    Ref(RefName),
    /// A small file whose content is known.
    Restore(Vec<u8>),
    /// Something that only git uses, and makes again: it is put aside.
    PutAside,
    /// It is made anew by whoever needs it, without anybody's doing.
    Derived,
}

/// A file of the repository that is damaged, or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its path.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What is to be done.
    pub cure: Cure,
}

/// What was found in the files of a repository.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// The refs that can be read.
    pub refs: Vec<(RefName, CommitId)>,
    /// The packs, without an ending.
    pub(crate) packs: Vec<PackState>,
}

impl Checked {
    /// Whether every object can be read where it lies.
    pub fn objects_are_whole(&self) -> bool {
        let of_objects = |fault: &Fault| matches!(fault.cure, Cure::Pack | Cure::Index | Cure::Loose(_));
        self.packs.iter().all(PackState::is_whole) && !self.faults.iter().any(of_objects)
    }
}

/// A pack and its index, as they are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackState {
    /// Its path, with the ending `pack`.
    pub(crate) path: PathBuf,
    pub(crate) pack: State,
    pub(crate) index: State,
}

/// Whether a file is what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Whole([u8; checksum::LEN]),
    Missing,
    Damaged(String),
}

impl PackState {
    pub(crate) fn is_whole(&self) -> bool {
        matches!((&self.pack, &self.index), (State::Whole(_), State::Whole(_)))
    }
}

/// What a file that ends with the checksum of all before it is like.
fn sealed(path: &Path, signature: &[u8], monitor: &dyn Monitor) -> Result<State, StoreError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Missing),
        file => file.map_err(StoreError::io("open", path))?,
    };
    let len = file.metadata().map_err(StoreError::io("read", path))?.len();
    let Some(mut rest) = len.checked_sub(checksum::LEN as u64).filter(|rest| *rest >= signature.len() as u64) else {
        return Ok(State::Damaged(if len == 0 { "it is empty" } else { "it is cut off" }.to_owned()));
    };
    let (mut sum, mut buffer, mut first) = (Checksum::default(), vec![0; 256 << 10], true);
    while rest > 0 {
        let most = usize::try_from(rest).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let read = match file.read(&mut buffer[..most]) {
            Ok(0) => return Ok(State::Damaged("it is cut off".to_owned())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A disk that cannot read it any more.
            Err(error) => return Ok(State::Damaged(error.to_string())),
        };
        if std::mem::take(&mut first) && !buffer[..read].starts_with(signature) {
            return Ok(State::Damaged("it does not begin as such a file does".to_owned()));
        }
        sum.update(&buffer[..read]);
        monitor.advance(Stage::Check, 0, read as u64);
        rest -= read as u64;
    }
    let mut says = [0; checksum::LEN];
    if let Err(error) = file.read_exact(&mut says) {
        return Ok(State::Damaged(error.to_string()));
    }
    match sum.finish() {
        Ok(sum) if sum == says => Ok(State::Whole(sum)),
        _ => Ok(State::Damaged("its checksum is wrong".to_owned())),
    }
}

/// Looks at every file of the repository.
pub fn files(store: &Store, monitor: &dyn Monitor) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    packs(store, &mut checked, monitor)?;
    loose(store, &mut checked, monitor)?;
    let git_dir = store.git_dir();
    named(git_dir, &mut checked)?;
    for (file, what) in index_file::check(git_dir)? {
        checked.faults.push(Fault { file, what, cure: Cure::Derived });
    }
    small(git_dir, &mut checked.faults);
    Ok(checked)
}

fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(StoreError::io("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(StoreError::io("list", dir))?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn packs(store: &Store, checked: &mut Checked, monitor: &dyn Monitor) -> Result<(), StoreError> {
    let dir = store.pack_dir();
    let names = names_in(&dir)?;
    let stems: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".pack").or_else(|| name.strip_suffix(".idx")))
        .filter(|stem| stem.starts_with("pack-"))
        .collect();
    for stem in stems {
        let path = dir.join(format!("{stem}.pack"));
        let index_path = path.with_extension("idx");
        let mut state = PackState {
            pack: sealed(&path, b"PACK", monitor)?,
            index: sealed(&index_path, b"\xfftOc", monitor)?,
            path,
        };
        if let (State::Whole(pack), State::Whole(_)) = (&state.pack, &state.index) {
            let says = read_pack_sum(&index_path);
            if says != Some(*pack) {
                state.index = State::Damaged("it is the index of another pack".to_owned());
            }
        }
        match (&state.pack, &state.index) {
            // Somebody has gathered it meanwhile.
            (State::Missing, State::Missing) => continue,
            (State::Whole(_), State::Damaged(what)) => {
                checked.faults.push(Fault { file: index_path, what: what.clone(), cure: Cure::Index });
            }
            (State::Damaged(what), index) => {
                let too = if matches!(index, State::Whole(_)) { "" } else { ", and so is its index" };
                let what = format!("{what}{too}");
                checked.faults.push(Fault { file: state.path.clone(), what, cure: Cure::Pack });
            }
            (State::Missing, _) => {
                let what = "it is missing, though its index is there".to_owned();
                checked.faults.push(Fault { file: state.path.clone(), what, cure: Cure::Pack });
            }
            // A pack without an index is what a kill leaves: only if something in it is needed it is damage.
            (State::Whole(_), _) => {}
        }
        checked.packs.push(state);
    }
    for (dir, ends) in [(&dir, &["rev", "bitmap", "mtimes"][..]), (&store.git_dir().join("objects/info"), &["graph"])] {
        let multi = |name: &str| name == "multi-pack-index" || name.starts_with("commit-graph");
        for name in names_in(dir)? {
            if !multi(&name) && !ends.iter().any(|end| name.rsplit('.').next() == Some(end)) {
                continue;
            }
            let file = dir.join(name);
            if let State::Damaged(what) = if file.is_file() { sealed(&file, b"", monitor)? } else { State::Missing } {
                checked.faults.push(Fault { file, what, cure: Cure::PutAside });
            }
        }
    }
    Ok(())
}

/// The checksum of the pack that an index says it belongs to.
fn read_pack_sum(index: &Path) -> Option<[u8; checksum::LEN]> {
    use std::os::unix::fs::FileExt as _;
    let file = File::open(index).ok()?;
    let at = file.metadata().ok()?.len().checked_sub(2 * checksum::LEN as u64)?;
    let mut sum = [0; checksum::LEN];
    file.read_exact_at(&mut sum, at).ok()?;
    Some(sum)
}

fn loose(store: &Store, checked: &mut Checked, monitor: &dyn Monitor) -> Result<(), StoreError> {
    let objects = store.git_dir().join("objects");
    for first in names_in(&objects)?.into_iter().filter(|name| name.len() == 2) {
        for rest in names_in(&objects.join(&first))? {
            let Ok(id) = format!("{first}{rest}").parse::<ObjectId>() else { continue };
            let file = objects.join(&first).join(&rest);
            monitor.advance(Stage::Check, 1, 0);
            if let Err(what) = loose_object(&file, id) {
                checked.faults.push(Fault { file, what, cure: Cure::Loose(id) });
            }
        }
    }
    Ok(())
}

/// Whether a loose object is what its name says.
fn loose_object(path: &Path, id: ObjectId) -> Result<(), String> {
    use std::io::BufRead as _;
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut from = io::BufReader::new(flate2::read::ZlibDecoder::new(file));
    let mut header = Vec::new();
    from.by_ref().take(64).read_until(0, &mut header).map_err(|error| error.to_string())?;
    let nonsense = || "it does not begin as an object does".to_owned();
    let header = header.strip_suffix(b"\0").and_then(|header| std::str::from_utf8(header).ok()).ok_or_else(nonsense)?;
    let (word, size) = header.split_once(' ').ok_or_else(nonsense)?;
    let size: u64 = size.parse().map_err(|_| nonsense())?;
    let kind = [ObjectKind::Commit, ObjectKind::Tree, ObjectKind::Blob].into_iter().find(|kind| kind.word() == word);
    // Annotated tags are a person's, and nothing of ours stands on them.
    let Some(kind) = kind else { return if word == "tag" { Ok(()) } else { Err(nonsense()) } };
    let mut hasher = ObjectHasher::new(kind, size);
    let copied = io::copy(&mut from.take(size.saturating_add(1)), &mut hasher).map_err(|error| error.to_string())?;
    if copied == size && hasher.finish() == id { Ok(()) } else { Err("it does not hold what its name says".to_owned()) }
}

/// Refs and `HEAD`.
fn named(git_dir: &Path, checked: &mut Checked) -> Result<(), StoreError> {
    let (refs, faults) = refs::Refs::new(git_dir).check()?;
    checked.refs = refs;
    for (name, file, what) in faults {
        let cure = name.map_or(Cure::PutAside, Cure::Ref);
        checked.faults.push(Fault { file, what, cure });
    }
    let has = |name: &RefName| checked.refs.iter().any(|(known, _)| known == name);
    let told = |name: &RefName| checked.faults.iter().any(|fault| fault.cure == Cure::Ref(name.clone()));
    if !has(&RefName::MAIN) && !told(&RefName::MAIN) && (has(&RefName::APPLIED) || has(&RefName::CHUNKS)) {
        let (file, what) = (git_dir.join(RefName::MAIN.as_str()), "it is missing".to_owned());
        checked.faults.push(Fault { file, what, cure: Cure::Ref(RefName::MAIN) });
    }
    Ok(())
}

/// `HEAD`, and the small files that copies are kept of. It needs no repository that can be opened.
pub(crate) fn small(git_dir: &Path, faults: &mut Vec<Fault>) {
    let head = format!("ref: {}\n", RefName::MAIN).into_bytes();
    let file = git_dir.join("HEAD");
    if fs::read(&file).ok().as_ref() != Some(&head) {
        let what = match refs::head(git_dir) {
            // A person has switched to something that there is: opening the folder tells.
            Ok(Head::Detached(_)) => None,
            Ok(Head::Branch(_)) => Some("it does not name the branch `main` as git writes it".to_owned()),
            Err(StoreError::Damaged { detail, .. }) => Some(detail.split(';').next().unwrap_or_default().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        faults.extend(what.map(|what| Fault { file, what, cure: Cure::Restore(head) }));
    }
    for name in KEPT {
        let file = git_dir.join(name);
        match kept::compare(git_dir, name) {
            Compared::Fine => {}
            Compared::Other(content) => {
                let what =
                    if file.exists() { "it is not what it was, though nobody has written it" } else { "it is missing" };
                faults.push(Fault { file, what: what.to_owned(), cure: Cure::Restore(content) });
            }
            Compared::Torn => {
                let what = "the copy that is kept of it is damaged".to_owned();
                faults.push(Fault { file, what, cure: Cure::Derived });
            }
        }
    }
}

/// Puts back what can be known of the files without which a repository cannot be opened: `HEAD`, the config.
/// Answers which it put back. What was there goes into the folder of what is put aside.
pub fn restore_what_opens(git_dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut faults = Vec::new();
    small(git_dir, &mut faults);
    let config = git_dir.join("config");
    if !matches!(super::settings::Config::read(git_dir), Ok(Some(config)) if config.is_ours() && config.settings().is_ok())
        && let Some(content) = kept::content(git_dir, "config")
        && !faults.iter().any(|fault| fault.file == config)
    {
        faults.push(Fault { file: config, what: "it makes no sense".to_owned(), cure: Cure::Restore(content) });
    }
    let mut done = Vec::new();
    for fault in faults {
        if let Cure::Restore(content) = fault.cure {
            put_back(git_dir, &fault.file, &content)?;
            done.push(fault.file);
        }
    }
    Ok(done)
}

/// Writes a small file anew, after what is there was put aside.
pub fn put_back(git_dir: &Path, file: &Path, content: &[u8]) -> Result<(), StoreError> {
    let private = git_dir.join(super::repository::PRIVATE);
    if let Ok(data) = fs::symlink_metadata(file) {
        let copy = aside(git_dir, file, data.mtime())?;
        let bytes = fs::read(file).unwrap_or_default();
        super::durable::write_file_by_way_of(&private, &copy, &bytes)?;
    } else if let Some(dir) = file.parent() {
        super::durable::create_dirs(git_dir, dir)?;
    }
    super::durable::write_file_by_way_of(&private, file, content)
}

/// Moves a damaged file out of the repository's way, into `foldersync/damaged`: nothing is ever deleted.
pub fn put_aside(git_dir: &Path, file: &Path) -> Result<(), StoreError> {
    let Ok(data) = fs::symlink_metadata(file) else { return Ok(()) };
    let to = aside(git_dir, file, data.mtime())?;
    super::durable::rename(file, &to)?;
    for dir in [to.parent(), file.parent()].into_iter().flatten() {
        super::durable::sync_dir(dir)?;
    }
    Ok(())
}

/// Gives a file that was made elsewhere on the same file system, and is synced, its name.
pub fn put_in_place(from: &Path, to: &Path) -> Result<(), StoreError> {
    super::durable::rename(from, to)?;
    super::durable::sync_dir(to.parent().unwrap_or(to))
}

/// A free name among what was put aside, for a file that was last written at `time`.
fn aside(git_dir: &Path, file: &Path, time: i64) -> Result<PathBuf, StoreError> {
    let dir = git_dir.join(super::repository::PRIVATE).join("damaged");
    super::durable::create_dirs(git_dir, &dir)?;
    let name = file.strip_prefix(git_dir).unwrap_or(file).to_string_lossy().replace('/', "-");
    let free = (0..).map(|n| dir.join(if n == 0 { format!("{time}-{name}") } else { format!("{time}-{n}-{name}") }));
    Ok(free.into_iter().find(|path| fs::symlink_metadata(path).is_err()).expect("there is always a next number"))
}
