//! A model of a disk that keeps only what was synced.
//!
//! The names in a folder last when the folder is synced, the content of a file when the file is; syncing the file
//! system makes all last. When power is lost, each folder is found as it was at some moment since it was last synced
//! (what happens to the names of one folder lasts in its order, what happens in different ones does not), and a file
//! that was not synced has its old content, none, a part of the new one, or the new one. A rename from one folder to
//! another happened in both or in neither. This is less than journaling file systems promise (ext4 keeps the order of
//! all renames), and what POSIX lets one rely on: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use foldersync::disk;

use super::plan::Random;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    /// Its inode, and its mode: what becomes of that lasts in order with what becomes of names.
    File(u64, u32),
    Folder(u64),
    Link(PathBuf),
}

impl Entry {
    fn file(&self) -> Option<u64> {
        match self {
            Self::File(inode, _) => Some(*inode),
            _ => None,
        }
    }
}

type Listing = BTreeMap<OsString, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    mtime: SystemTime,
}

/// What is known to last of a folder with all in it, and what would be lost.
pub(crate) struct Model {
    root: PathBuf,
    /// What each file holds that was ever synced, by its inode.
    files: HashMap<u64, Content>,
    /// How each folder was when it was last synced, and at each step since.
    folders: HashMap<u64, Vec<Listing>>,
    /// The step that was announced last, and so is done when the next one comes.
    last: Option<Pending>,
}

/// What will last once it is done.
enum Pending {
    File(fs::File),
    Folder(PathBuf),
    All,
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(fs::symlink_metadata(path)?.ino())
}

fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(data) = entry.metadata() else { continue };
        let what = if data.is_dir() {
            Entry::Folder(data.ino())
        } else if data.is_symlink() {
            Entry::Link(fs::read_link(entry.path())?)
        } else {
            Entry::File(data.ino(), data.permissions().mode())
        };
        listing.insert(entry.file_name(), what);
    }
    Ok(listing)
}

fn read(path: &Path) -> io::Result<Content> {
    let data = fs::symlink_metadata(path)?;
    Ok(Content { bytes: fs::read(path)?, mtime: data.modified()? })
}

/// All that is in a folder now: the listing of each folder and the content of each file, by inode.
#[derive(Default)]
struct Now {
    folders: HashMap<u64, Listing>,
    files: HashMap<u64, Content>,
}

impl Now {
    fn look(&mut self, folder: &Path) -> io::Result<()> {
        let listing = list(folder)?;
        for (name, entry) in &listing {
            match entry {
                Entry::Folder(_) => self.look(&folder.join(name))?,
                Entry::File(inode, _) => drop(self.files.insert(*inode, read(&folder.join(name))?)),
                Entry::Link(_) => {}
            }
        }
        self.folders.insert(inode(folder)?, listing);
        Ok(())
    }
}

impl Model {
    /// A model of the folder, all of which lasts.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let mut model = Self { root: root.to_owned(), files: HashMap::new(), folders: HashMap::new(), last: None };
        model.sync_all()?;
        Ok(model)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        let mut now = Now::default();
        now.look(&self.root)?;
        self.files.extend(now.files);
        self.folders.extend(now.folders.into_iter().map(|(inode, listing)| (inode, vec![listing])));
        Ok(())
    }

    /// A step is about to be taken; so the one before has been.
    pub(crate) fn step(&mut self, step: disk::Step, path: &Path) {
        // What is gone by now needs no syncing.
        drop(self.done());
        for folder in [path.parent(), Some(path)].into_iter().flatten() {
            if let (Ok(inode), Ok(listing)) = (inode(folder), list(folder)) {
                let known = self.folders.entry(inode).or_insert_with(|| vec![Listing::new()]);
                if known.last() != Some(&listing) {
                    known.push(listing);
                }
            }
        }
        self.last = match step {
            // It may have another name by the time that it is synced.
            disk::Step::Sync => fs::File::open(path).ok().map(Pending::File),
            disk::Step::SyncDir => Some(Pending::Folder(path.to_owned())),
            disk::Step::SyncAll => Some(Pending::All),
            _ => None,
        };
    }

    fn done(&mut self) -> io::Result<()> {
        match self.last.take() {
            Some(Pending::File(mut file)) => {
                let data = file.metadata()?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                let content = Content { bytes, mtime: data.modified()? };
                self.files.insert(data.ino(), content);
            }
            Some(Pending::Folder(path)) => drop(self.folders.insert(inode(&path)?, vec![list(&path)?])),
            Some(Pending::All) => self.sync_all()?,
            None => {}
        }
        Ok(())
    }

    /// The person's own edit: it lasts, with the folders that it is in.
    pub(crate) fn lasts(&mut self, path: &Path) {
        if let (Ok(inode), Ok(content)) = (inode(path), read(path)) {
            self.files.insert(inode, content);
        }
        for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.root)) {
            if let (Ok(inode), Ok(listing)) = (inode(folder), list(folder)) {
                self.folders.insert(inode, vec![listing]);
            }
        }
    }

    /// Power is lost, and comes back: the folder becomes what is found then.
    pub(crate) fn lose_power(mut self, random: &mut Random) -> io::Result<()> {
        self.last = None;
        let mut now = Now::default();
        now.look(&self.root)?;
        let root = inode(&self.root)?;
        let mut chosen: HashMap<u64, Listing> = HashMap::new();
        let mut known: Vec<u64> = self.folders.keys().chain(now.folders.keys()).copied().collect();
        known.sort_unstable();
        known.dedup();
        for inode in known {
            let mut moments = self.folders.get(&inode).cloned().unwrap_or_else(|| vec![Listing::new()]);
            moments.extend(now.folders.get(&inode).cloned());
            let at = match random.below(3) {
                0 => 0,
                1 => moments.len() - 1,
                _ => random.below(moments.len()),
            };
            chosen.insert(inode, moments.swap_remove(at));
        }
        let mut found = Found::default();
        found.gather(&chosen, root, Path::new(""));
        found.settle_moves(&self, &now, root);
        let mut files = BTreeMap::new();
        for (path, entry) in &found.places {
            if let Some(inode) = entry.file() {
                let content = content_after(self.files.get(&inode), now.files.get(&inode), random);
                files.insert(path.clone(), content);
            }
        }
        found.restore(&self.root, &files)
    }
}

/// What is found in a file.
fn content_after(lasting: Option<&Content>, now: Option<&Content>, random: &mut Random) -> Content {
    let empty = || Content { bytes: Vec::new(), mtime: SystemTime::now() };
    match (lasting, now) {
        (Some(lasting), None) => lasting.clone(),
        (None, None) => empty(),
        (Some(lasting), Some(now)) if lasting.bytes == now.bytes => now.clone(),
        (lasting, Some(now)) => match random.below(4) {
            0 => lasting.cloned().unwrap_or_else(empty),
            1 => Content { bytes: now.bytes[..random.below(now.bytes.len() + 1)].to_vec(), ..*now },
            2 => Content { bytes: vec![0; now.bytes.len()], ..*now },
            _ => now.clone(),
        },
    }
}

/// What is found after power was lost.
#[derive(Default)]
struct Found {
    places: BTreeMap<PathBuf, Entry>,
}

impl Found {
    fn gather(&mut self, listings: &HashMap<u64, Listing>, folder: u64, path: &Path) {
        for (name, entry) in listings.get(&folder).into_iter().flatten() {
            let path = path.join(name);
            if let Entry::Folder(inode) = entry {
                self.gather(listings, *inode, &path);
            }
            self.places.insert(path, entry.clone());
        }
    }

    /// What was moved from one folder to another is in one of them.
    fn settle_moves(&mut self, model: &Model, now: &Now, root: u64) {
        let mut current = Self::default();
        current.gather(&now.folders, root, Path::new(""));
        let mut lasting = Self::default();
        let first = model.folders.iter().map(|(inode, moments)| (*inode, moments[0].clone())).collect();
        lasting.gather(&first, root, Path::new(""));
        let mut by_inode: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
        for (path, entry) in &self.places {
            if let Some(inode) = entry.file() {
                by_inode.entry(inode).or_default().push(path.clone());
            }
        }
        for (inode, paths) in &by_inode {
            let is_there = |path: &PathBuf| current.places.get(path).and_then(Entry::file) == Some(*inode);
            let keep = paths.iter().position(is_there).unwrap_or(0);
            for (at, path) in paths.iter().enumerate() {
                if at != keep {
                    self.places.remove(path);
                }
            }
        }
        let is_free = |places: &BTreeMap<PathBuf, Entry>, path: &Path| {
            let parent = path.parent().unwrap_or(Path::new(""));
            let in_folder = parent.as_os_str().is_empty() || matches!(places.get(parent), Some(Entry::Folder(_)));
            in_folder && !places.contains_key(path)
        };
        for (path, entry) in &lasting.places {
            let Some(inode) = entry.file() else { continue };
            let still = current.places.iter().find(|(_, entry)| entry.file() == Some(inode));
            if let Some((moved, _)) = still
                && !by_inode.contains_key(&inode)
                && let Some(place) = [path, moved].into_iter().find(|place| is_free(&self.places, place))
            {
                self.places.insert(place.clone(), entry.clone());
            }
        }
    }

    /// Makes the folder what was found. What is right already is not touched, and so keeps its inode.
    fn restore(&self, root: &Path, files: &BTreeMap<PathBuf, Content>) -> io::Result<()> {
        let mut kept = HashSet::new();
        self.remove_others(root, root, &mut kept)?;
        for (path, entry) in &self.places {
            let full = root.join(path);
            match entry {
                Entry::Folder(_) | Entry::Link(_) if kept.contains(path) => {}
                Entry::Folder(_) => fs::create_dir(&full)?,
                Entry::Link(target) => std::os::unix::fs::symlink(target, &full)?,
                Entry::File(_, mode) => {
                    let content = &files[path];
                    if !kept.contains(path) || read(&full)? != *content {
                        fs::write(&full, &content.bytes)?;
                        fs::File::options().write(true).open(&full)?.set_modified(content.mtime)?;
                    }
                    if fs::metadata(&full)?.permissions().mode() != *mode {
                        fs::set_permissions(&full, fs::Permissions::from_mode(*mode))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn remove_others(&self, root: &Path, folder: &Path, kept: &mut HashSet<PathBuf>) -> io::Result<()> {
        for (name, entry) in list(folder)? {
            let full = folder.join(name);
            let path = full.strip_prefix(root).expect("below the root").to_owned();
            match &entry {
                _ if !self.places.get(&path).is_some_and(|found| match (found.file(), entry.file()) {
                    (None, None) => *found == entry,
                    (found, entry) => found == entry,
                }) =>
                {
                    match entry {
                        Entry::Folder(_) => fs::remove_dir_all(&full)?,
                        _ => fs::remove_file(&full)?,
                    }
                }
                Entry::Folder(_) => {
                    kept.insert(path);
                    self.remove_others(root, &full, kept)?;
                }
                _ => drop(kept.insert(path)),
            }
        }
        Ok(())
    }
}
