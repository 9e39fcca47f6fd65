//! A model of what a disk may hold after a power cut, made from the calls of a program.
//!
//! **The model** is that of POSIX, as ALICE takes it for its weakest file system (Pillai et al., *All File Systems Are Not
//! Created Equal*, OSDI 2014), with two promises on top that ext4, XFS and Btrfs all give: a rename is atomic, also over a
//! file that is there and as an exchange; and a file system shows no other file's bytes. A change is pending until
//! something makes it last, and at a cut each pending change is there or not, whatever became of those before it:
//!
//! - a name that came, went or was moved lasts once the folder that it is in (for a rename: that it was moved to) was
//!   synced; the sync of a file makes its content last, and not its name;
//! - content, size, mode and time of a file last once that was synced. Until then they may be the old ones, the new ones,
//!   the new ones with zeros in place of the bytes that were written (delayed allocation), or cut off in the middle;
//! - of one file, a mode or a time that was set after it got its name is not kept without that name (all three keep changes
//!   of metadata in order);
//! - `syncfs` and `sync` make everything last;
//! - a sync covers what had ended when it began.
//!
//! Real file systems keep more order than that, so some of these states may never come about; a program that survives
//! them all depends on no such order. (CrashMonkey and ACE, Mohan et al., OSDI 2018, test file systems in the same way.)

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::trace::{self, Call};
use super::world::Fault;

/// A file, link or folder, whatever its names.
pub(super) type Node = usize;
const ROOT: Node = 0;

pub(super) type Time = (u64, u32);
type Names = BTreeMap<(Node, OsString), Node>;

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
enum Kind {
    File(Vec<u8>),
    Link(Vec<u8>),
    Folder,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Held {
    kind: Kind,
    mode: u32,
    mtime: Time,
}

/// A change that a call made.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write {
        node: Node,
        offset: usize,
        bytes: Vec<u8>,
        time: Time,
    },
    Length {
        node: Node,
        length: usize,
        time: Time,
    },
    Mode {
        node: Node,
        mode: u32,
    },
    Time {
        node: Node,
        time: Time,
    },
    /// All at once; lasting once `folder` is synced.
    Names {
        folder: Node,
        entries: Vec<(Node, OsString, Option<Node>)>,
    },
}

#[derive(Debug, Clone)]
enum Event {
    Change(Change),
    /// What had happened before event `covers` to this node (or in this folder) lasts.
    Sync {
        node: Node,
        path: PathBuf,
        is_folder: bool,
        covers: usize,
    },
    SyncAll {
        covers: usize,
    },
}

/// A mistake that the program does not make, to see that it would be found: syncs that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Of packs and their indexes: a ref moves before its objects are safe.
    Objects,
    /// Of the new values of refs.
    Refs,
    /// Of folders: names are given, and not made to last.
    Folders,
    /// Of everything at once, before files take their places in the folder.
    Stage,
}

/// What a program did to a directory.
pub(super) struct Recording {
    root: PathBuf,
    nodes: Vec<Held>,
    /// Before anything was done.
    names: Names,
    events: Vec<Event>,
    /// The numbers that the files had on the real disk, which are in what was written.
    numbers: HashMap<u32, Node>,
    /// What they held at the change times that they had before and after: what is written down with another time, or of
    /// what is not held any more, is of a file that has changed since, and must not look fresh.
    times: HashMap<(Node, Time), Held>,
}

/// What a disk holds.
#[derive(Debug, Clone)]
pub(super) struct State {
    nodes: Vec<Held>,
    names: Names,
}

/// Gathers a recording.
struct Recorder<'a> {
    recording: Recording,
    /// As the program sees it.
    live: State,
    root: &'a Path,
    /// Where the next write to an open file goes; none: to its end.
    positions: HashMap<Node, Option<usize>>,
    events_after: Vec<usize>,
}

impl Recording {
    /// Takes in a directory as it is, all of it lasting.
    pub(super) fn begin(root: &Path) -> Result<Self, Fault> {
        let held = Held { kind: Kind::Folder, mode: 0o755, mtime: (0, 0) };
        let mut recording = Self {
            root: root.to_owned(),
            nodes: vec![held],
            names: Names::new(),
            events: Vec::new(),
            numbers: HashMap::new(),
            times: HashMap::new(),
        };
        let mut found = Vec::new();
        walk(root, ROOT, &mut |parent, name, path, data| {
            let node = recording.nodes.len();
            recording.nodes.push(held_by(path, &data)?);
            recording.names.insert((parent, name), node);
            found.push((data, node));
            Ok(node)
        })
        .map_err(|error| format!("{}: {error}", root.display()))?;
        for (data, node) in found {
            let held = recording.nodes[node].clone();
            recording.know(&data, node, held);
        }
        Ok(recording)
    }

    /// Takes in what was done since. The directory must be as the calls left it: what they do not explain is a fault.
    pub(super) fn end(self, calls: &[Call]) -> Result<Self, Fault> {
        let root = self.root.clone();
        let live = State { nodes: self.nodes.clone(), names: self.names.clone() };
        let mut recorder =
            Recorder { recording: self, live, root: &root, positions: HashMap::new(), events_after: Vec::new() };
        for call in calls {
            recorder.take(call).ok_or_else(|| format!("not understood: {} {:?}", call.name, call.arguments))?;
            let count = recorder.recording.events.len();
            recorder.events_after.push(count);
        }
        let Recorder { mut recording, live, .. } = recorder;
        let mut strange = None;
        let mut seen = 0;
        walk(&root, ROOT, &mut |parent, name, path, data| {
            let node = live.names.get(&(parent, name)).copied();
            let real = held_by(path, &data)?;
            match node {
                Some(node) if live.nodes[node].kind == real.kind => {
                    seen += 1;
                    recording.know(&data, node, real);
                    Ok(node)
                }
                _ => {
                    strange = Some(path.display().to_string());
                    Err(std::io::Error::other("not as recorded"))
                }
            }
        })
        .map_err(|error| format!("{}: {error}", strange.unwrap_or_default()))?;
        if seen != live.reachable().len() {
            return Err("the calls made files that are not there".to_owned());
        }
        Ok(recording)
    }

    fn know(&mut self, data: &fs::Metadata, node: Node, held: Held) {
        self.numbers.insert(low(data.ino()), node);
        self.times.insert((node, change_time(data)), held);
    }

    /// Forgets some syncs, as if the program had not made them.
    pub(super) fn forget(&mut self, plant: Plant) {
        let is_kept = |event: &Event| match event {
            Event::Change(_) => true,
            Event::Sync { path, is_folder, .. } => match plant {
                Plant::Objects => *is_folder || !path.to_string_lossy().contains("/objects/pack/"),
                Plant::Refs => *is_folder || !path.to_string_lossy().contains("/refs/"),
                Plant::Folders => !is_folder,
                Plant::Stage => true,
            },
            Event::SyncAll { .. } => plant != Plant::Stage,
        };
        // What is taken out moves what comes later; `covers` counts from the beginning.
        let mut kept_before = vec![0];
        for event in &self.events {
            kept_before.push(kept_before[kept_before.len() - 1] + usize::from(is_kept(event)));
        }
        self.events.retain(is_kept);
        for event in &mut self.events {
            if let Event::Sync { covers, .. } | Event::SyncAll { covers } = event {
                *covers = kept_before[*covers];
            }
        }
    }

    pub(super) fn changes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Change(_))).count()
    }

    /// The moments at which more can be lost than at any before: right before each sync, and the end.
    pub(super) fn moments(&self) -> Vec<usize> {
        let syncs = self.events.iter().enumerate().filter(|(_, event)| !matches!(event, Event::Change(_)));
        syncs.map(|(at, _)| at).chain([self.events.len()]).collect()
    }

    /// What lasts at a moment, and what is pending.
    pub(super) fn at(&self, moment: usize) -> (State, Vec<&Change>) {
        let mut lasting = State { nodes: self.nodes.clone(), names: self.names.clone() };
        // All files start empty; those that were there have their content in `nodes`.
        let mut pending: Vec<(usize, &Change)> = Vec::new();
        for (at, event) in self.events[..moment].iter().enumerate() {
            let (covers, synced) = match event {
                Event::Change(change) => {
                    pending.push((at, change));
                    continue;
                }
                Event::Sync { node, covers, .. } => (*covers, Some(*node)),
                Event::SyncAll { covers } => (*covers, None),
            };
            pending.retain(|(at, change)| {
                let lasts = *at < covers && synced.is_none_or(|node| change.lasts_with() == node);
                if lasts {
                    lasting.apply(change);
                }
                !lasts
            });
        }
        (lasting, pending.into_iter().map(|(_, change)| change).collect())
    }

    /// Puts a state up in the directory, which must not be there. Files have other numbers than when they were recorded;
    /// where these were written down, the new ones are.
    pub(super) fn put_up(&self, state: &State) -> Result<(), Fault> {
        let mut made: HashMap<Node, fs::Metadata> = HashMap::new();
        let mut tables = Vec::new();
        let put = |path: &Path, held: &Held| -> std::io::Result<fs::Metadata> {
            match &held.kind {
                Kind::Folder => fs::create_dir(path)?,
                Kind::Link(target) => {
                    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path)?;
                    let time = rustix::fs::Timespec {
                        tv_sec: held.mtime.0.try_into().unwrap_or(0),
                        tv_nsec: held.mtime.1.into(),
                    };
                    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
                    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
                }
                Kind::File(content) => {
                    fs::write(path, content)?;
                    let time = SystemTime::UNIX_EPOCH + Duration::new(held.mtime.0, held.mtime.1);
                    fs::File::options().write(true).open(path)?.set_modified(time)?;
                }
            }
            if !matches!(held.kind, Kind::Link(_)) {
                fs::set_permissions(path, fs::Permissions::from_mode(held.mode & 0o7777))?;
            }
            fs::symlink_metadata(path)
        };
        fs::create_dir(&self.root).map_err(|error| error.to_string())?;
        state
            .each(ROOT, &self.root, &mut |node, path| {
                let data = put(path, &state.nodes[node])?;
                let name = path.file_name().unwrap_or_default().as_bytes();
                if name == b"index" || name.starts_with(b"journal-") {
                    tables.push(path.to_owned());
                }
                made.insert(node, data);
                Ok(())
            })
            .and_then(|()| {
                let now = |number: u32, time: Option<Time>| {
                    let node = self.numbers.get(&number)?;
                    let then = time.and_then(|time| self.times.get(&(*node, time)));
                    let is_fresh = then == Some(&state.nodes[*node]);
                    Some((made.get(node)?, is_fresh))
                };
                tables.iter().try_for_each(|path| renumber(path, &now))
            })
            .map_err(|error| format!("{}: {error}", self.root.display()))
    }
}

/// What git's index and the stage's journals keep of a file's number: its lower half.
#[expect(clippy::cast_possible_truncation, reason = "that is what is kept")]
fn low(number: u64) -> u32 {
    number as u32
}

/// Writes the numbers and change times that files have now into an index or a journal.
///
/// `now` knows a file by the number that it had, and whether it has not changed since the time.
fn renumber<'a>(
    path: &Path,
    now: &dyn Fn(u32, Option<Time>) -> Option<(&'a fs::Metadata, bool)>,
) -> std::io::Result<()> {
    let bytes = fs::read(path)?;
    let name = path.file_name().unwrap_or_default();
    if name != "index" {
        let text = String::from_utf8_lossy(&bytes);
        let field = |field: &str| {
            let mut parts: Vec<String> = field.split(',').map(str::to_owned).collect();
            // Mode, time, device, number, owner, group, size.
            if parts.len() == 8
                && let Some((data, _)) = parts[4].parse().ok().and_then(|number| now(number, None))
            {
                parts[4] = low(data.ino()).to_string();
            }
            parts.join(",")
        };
        let line = |line: &str| line.splitn(5, ' ').map(field).collect::<Vec<_>>().join(" ");
        return fs::write(path, text.split('\n').map(line).collect::<Vec<_>>().join("\n"));
    }
    let sum = |body: &[u8]| {
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        hasher.update(body);
        hasher.try_finalize().map(|id| id.as_slice().to_vec()).unwrap_or_default()
    };
    let body = bytes.len().saturating_sub(20);
    if body < 12 || sum(&bytes[..body]) != bytes[body..] {
        return Ok(());
    }
    let mut new = bytes[..body].to_vec();
    let number = |bytes: &[u8], at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut at = 12;
    for _ in 0..number(&new, 8) {
        if at + 62 > body {
            break;
        }
        let changed = (u64::from(number(&new, at)), number(&new, at + 4));
        if let Some((data, is_fresh)) = now(number(&new, at + 20), Some(changed)) {
            new[at + 20..at + 24].copy_from_slice(&low(data.ino()).to_be_bytes());
            if is_fresh {
                let (seconds, nanos) = change_time(data);
                new[at..at + 4].copy_from_slice(&low(seconds).to_be_bytes());
                new[at + 4..at + 8].copy_from_slice(&nanos.to_be_bytes());
            }
        }
        let length = new[at + 62..].iter().position(|byte| *byte == 0).unwrap_or(0);
        at += ((62 + length) / 8 + 1) * 8;
    }
    let sums = [bytes[body..].to_vec(), sum(&new)];
    new.extend_from_slice(&sums[1]);
    fs::write(path, new)?;
    // All these files are older than the table that tells of them.
    fs::File::options().write(true).open(path)?.set_modified(SystemTime::now() + Duration::from_secs(2))?;
    let hex = |sum: &[u8]| sum.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let beside = path.with_file_name("foldersync").join("empty-folders");
    match fs::read_to_string(&beside) {
        Ok(text) => fs::write(&beside, text.replace(&hex(&sums[0]), &hex(&sums[1]))),
        Err(_) => Ok(()),
    }
}

fn change_time(data: &fs::Metadata) -> Time {
    (data.ctime().unsigned_abs(), u32::try_from(data.ctime_nsec()).unwrap_or(0))
}

fn held_by(path: &Path, data: &fs::Metadata) -> std::io::Result<Held> {
    let kind = if data.is_dir() {
        Kind::Folder
    } else if data.is_symlink() {
        Kind::Link(fs::read_link(path)?.as_os_str().as_bytes().to_vec())
    } else {
        Kind::File(fs::read(path)?)
    };
    let mtime = (data.mtime().unsigned_abs(), u32::try_from(data.mtime_nsec()).unwrap_or(0));
    Ok(Held { kind, mode: data.permissions().mode(), mtime })
}

fn walk(
    dir: &Path,
    parent: Node,
    found: &mut impl FnMut(Node, OsString, &Path, fs::Metadata) -> std::io::Result<Node>,
) -> std::io::Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let data = entry.metadata()?;
        if data.is_file() || data.is_dir() || data.is_symlink() {
            let is_folder = data.is_dir();
            let node = found(parent, entry.file_name(), &entry.path(), data)?;
            if is_folder {
                walk(&entry.path(), node, found)?;
            }
        }
    }
    Ok(())
}

impl Change {
    /// The node whose sync makes it last.
    fn lasts_with(&self) -> Node {
        match self {
            Self::Write { node, .. }
            | Self::Length { node, .. }
            | Self::Mode { node, .. }
            | Self::Time { node, .. } => *node,
            Self::Names { folder, .. } => *folder,
        }
    }
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { node, offset, bytes, time } => {
                let held = &mut self.nodes[*node];
                held.mtime = *time;
                if let Kind::File(content) = &mut held.kind {
                    let end = offset + bytes.len();
                    if content.len() < end {
                        content.resize(end, 0);
                    }
                    content[*offset..end].copy_from_slice(bytes);
                }
            }
            Change::Length { node, length, time } => {
                let held = &mut self.nodes[*node];
                held.mtime = *time;
                if let Kind::File(content) = &mut held.kind {
                    content.resize(*length, 0);
                }
            }
            Change::Mode { node, mode } => self.nodes[*node].mode = *mode,
            Change::Time { node, time } => self.nodes[*node].mtime = *time,
            Change::Names { entries, .. } => {
                for (folder, name, node) in entries {
                    let key = (*folder, name.clone());
                    match node {
                        Some(node) => {
                            self.names.insert(key, *node);
                        }
                        // What was moved away: something else may have come to its old name, and lasted before.
                        None if entries.len() == 1
                            || entries.iter().any(|entry| entry.2 == self.names.get(&key).copied()) =>
                        {
                            self.names.remove(&key);
                        }
                        None => {}
                    }
                }
            }
        }
    }

    fn each(
        &self,
        folder: Node,
        path: &Path,
        act: &mut impl FnMut(Node, &Path) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let inside = self.names.range((folder, OsString::new())..).take_while(|((parent, _), _)| *parent == folder);
        for ((_, name), node) in inside {
            let path = path.join(name);
            act(*node, &path)?;
            if self.nodes[*node].kind == Kind::Folder {
                self.each(*node, &path, act)?;
            }
        }
        Ok(())
    }

    /// All nodes that have a path, with it.
    fn reachable(&self) -> Vec<(PathBuf, Node)> {
        let mut all = Vec::new();
        // Nothing that is done here fails.
        drop(self.each(ROOT, Path::new(""), &mut |node, path| {
            all.push((path.to_owned(), node));
            Ok(())
        }));
        all
    }

    /// The same for states that nobody can tell apart.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, node) in self.reachable() {
            path.hash(&mut hasher);
            let Held { kind, mode, .. } = &self.nodes[node];
            (kind, mode).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// All states that a cut may leave of what lasts and what is pending, each by a number.
pub(super) struct Legal<'a> {
    lasting: State,
    /// Each with the one that it follows, if it is not there without that.
    names: Vec<(&'a Change, Option<usize>)>,
    contents: BTreeMap<Node, Vec<Held>>,
}

impl<'a> Legal<'a> {
    pub(super) fn of(lasting: State, pending: &[&'a Change]) -> Self {
        let mut names: Vec<(&Change, Option<usize>)> = Vec::new();
        let mut by_node: BTreeMap<Node, Vec<&Change>> = BTreeMap::new();
        for &change in pending {
            let moved = |node: Node| {
                let moves = |(change, _): &(&Change, _)| matches!(change, Change::Names { entries, .. } if entries.iter().any(|entry| entry.2 == Some(node)));
                names.iter().rposition(moves)
            };
            match change {
                Change::Names { .. } => names.push((change, None)),
                Change::Mode { node, .. } | Change::Time { node, .. } if moved(*node).is_some() => {
                    let follows = moved(*node);
                    names.push((change, follows));
                }
                _ => by_node.entry(change.lasts_with()).or_default().push(change),
            }
        }
        let contents = by_node.into_iter().map(|(node, changes)| (node, variants(&lasting, node, &changes))).collect();
        Self { lasting, names, contents }
    }

    /// All states, but those that only differ in what nobody can see, as far as `enough` goes.
    pub(super) fn all(&self, enough: usize) -> Option<Vec<State>> {
        if self.names.len() > 22 {
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut states = Vec::new();
        for chosen in 0..1u64 << self.names.len() {
            let named = self.named(|at| chosen >> at & 1 == 1);
            let reachable: BTreeSet<Node> = named.reachable().into_iter().map(|(_, node)| node).collect();
            if !seen.insert(named.fingerprint()) {
                continue;
            }
            let open: Vec<_> = self.contents.iter().filter(|(node, _)| reachable.contains(node)).collect();
            let mut choice = vec![0; open.len()];
            loop {
                let mut state = named.clone();
                for ((node, variants), which) in open.iter().zip(&choice) {
                    state.nodes[**node] = variants[*which].clone();
                }
                states.push(state);
                if states.len() > enough {
                    return None;
                }
                let Some(next) = choice.iter().zip(&open).position(|(which, (_, variants))| which + 1 < variants.len())
                else {
                    break;
                };
                choice[next] += 1;
                choice[..next].fill(0);
            }
        }
        Some(states)
    }

    /// One of them, as `choose` (a number below its argument) says.
    pub(super) fn one(&self, choose: &mut dyn FnMut(usize) -> usize) -> State {
        let mut state = self.named(|_| choose(2) == 1);
        for (node, variants) in &self.contents {
            state.nodes[*node] = variants[choose(variants.len())].clone();
        }
        state
    }

    fn named(&self, mut chosen: impl FnMut(usize) -> bool) -> State {
        let mut state = self.lasting.clone();
        let mut there = Vec::new();
        for (at, (change, follows)) in self.names.iter().enumerate() {
            let is_there = chosen(at) && follows.is_none_or(|follows| there[follows]);
            there.push(is_there);
            if is_there {
                state.apply(change);
            }
        }
        state
    }
}

/// What a file may hold whose changes are pending.
fn variants(lasting: &State, node: Node, changes: &[&Change]) -> Vec<Held> {
    let mut scratch = lasting.clone();
    let old = scratch.nodes[node].clone();
    for change in changes {
        scratch.apply(change);
    }
    let new = scratch.nodes[node].clone();
    // What was written is zeros, with the new length.
    let mut zeros = new.clone();
    if let Kind::File(content) = &mut zeros.kind {
        for change in changes {
            if let Change::Write { offset, bytes, .. } = change {
                let end = (offset + bytes.len()).min(content.len());
                content[(*offset).min(end)..end].fill(0);
            }
        }
    }
    // Half of what was written came to the disk, in the order in which it was written.
    let length = |change: &&Change| if let Change::Write { bytes, .. } = change { bytes.len() } else { 0 };
    let mut left = changes.iter().map(length).sum::<usize>() / 2;
    let mut half = lasting.clone();
    for change in changes {
        if let Change::Write { node, offset, bytes, time } = change {
            let part = bytes.len().min(left);
            left -= part;
            half.apply(&Change::Write { node: *node, offset: *offset, bytes: bytes[..part].to_vec(), time: *time });
            if part < bytes.len() {
                break;
            }
        } else {
            half.apply(change);
        }
    }
    let mut all: Vec<Held> = Vec::new();
    for variant in [old, new, zeros, half.nodes[node].clone()] {
        let alike = |other: &Held| other.kind == variant.kind && other.mode == variant.mode;
        if !all.iter().any(alike) {
            all.push(variant);
        }
    }
    all
}

impl Recorder<'_> {
    fn node_at(&self, path: &Path) -> Option<Node> {
        let mut node = ROOT;
        for name in path.strip_prefix(self.root).ok()?.components() {
            node = *self.live.names.get(&(node, name.as_os_str().to_owned()))?;
        }
        Some(node)
    }

    /// The folder that a path is in, and its name there.
    fn entry_at(&self, path: &Path) -> Option<(Node, OsString)> {
        Some((self.node_at(path.parent()?)?, path.file_name()?.to_owned()))
    }

    fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.recording.events.push(Event::Change(change));
    }

    fn make(&mut self, path: &Path, kind: Kind, mode: u32, time: Time) -> Option<()> {
        let (folder, name) = self.entry_at(path)?;
        let node = self.live.nodes.len();
        let held = Held { kind, mode, mtime: time };
        self.live.nodes.push(held.clone());
        self.recording.nodes.push(held);
        self.change(Change::Names { folder, entries: vec![(folder, name, Some(node))] });
        Some(())
    }

    /// Takes in a call; `None` if it is not understood.
    fn take(&mut self, call: &Call) -> Option<()> {
        if call.result < 0 {
            return Some(());
        }
        let argument = |at: usize| call.arguments.get(at).map_or("", String::as_str);
        let inside = |path: &Path| path.starts_with(self.root);
        let octal = |text: &str| u32::from_str_radix(text, 8).ok();
        let name = call.name.trim_end_matches("at2");
        match name {
            "openat" | "open" | "creat" => {
                let at = usize::from(call.name == "openat");
                let path = trace::path_at((at == 1).then(|| argument(0)), argument(at))?;
                let flags = argument(at + 1);
                if !inside(&path) {
                    return Some(());
                }
                // The system has followed links, and says where to.
                let path = trace::path_of(&call.shown).unwrap_or(path);
                if self.node_at(&path).is_none() && flags.contains("O_CREAT") {
                    self.make(&path, Kind::File(Vec::new()), octal(argument(at + 2))? & !0o022, call.time)?;
                }
                let Some(node) = self.node_at(&path) else { return Some(()) };
                if flags.contains("O_TRUNC")
                    && let Kind::File(content) = &self.live.nodes[node].kind
                    && !content.is_empty()
                {
                    self.change(Change::Length { node, length: 0, time: call.time });
                }
                self.positions.insert(node, (!flags.contains("O_APPEND")).then_some(0));
            }
            "mkdir" | "mkdirat" => {
                let at = usize::from(call.name == "mkdirat");
                let path = trace::path_at((at == 1).then(|| argument(0)), argument(at))?;
                if inside(&path) {
                    self.make(&path, Kind::Folder, octal(argument(at + 1))? & !0o022, call.time)?;
                }
            }
            "symlink" | "symlinkat" => {
                let path = trace::path_at((name == "symlinkat").then(|| argument(1)), call.arguments.last()?)?;
                if inside(&path) {
                    self.make(&path, Kind::Link(trace::bytes(argument(0))?), 0o777, call.time)?;
                }
            }
            "write" | "pwrite64" | "writev" | "pwritev" => {
                let Some(path) = trace::path_of(argument(0)).filter(|path| inside(path)) else { return Some(()) };
                let node = self.node_at(&path)?;
                let mut bytes =
                    if name.contains('v') { trace::buffers(argument(1))? } else { trace::bytes(argument(1))? };
                bytes.truncate(usize::try_from(call.result).ok()?);
                let Kind::File(content) = &self.live.nodes[node].kind else { return None };
                let position = self.positions.get(&node).copied().flatten();
                let offset = match name {
                    "pwrite64" | "pwritev" => call.arguments.last()?.parse().ok()?,
                    _ => position.unwrap_or(content.len()),
                };
                if !name.starts_with('p') && position.is_some() {
                    self.positions.insert(node, Some(offset + bytes.len()));
                }
                self.change(Change::Write { node, offset, bytes, time: call.time });
            }
            "lseek" => {
                let node = trace::path_of(argument(0)).and_then(|path| self.node_at(&path));
                if let Some(node) = node.filter(|node| self.positions.get(node).copied().flatten().is_some()) {
                    self.positions.insert(node, usize::try_from(call.result).ok());
                }
            }
            "ftruncate" => {
                if let Some(node) = trace::path_of(argument(0)).and_then(|path| self.node_at(&path)) {
                    self.change(Change::Length { node, length: argument(1).parse().ok()?, time: call.time });
                }
            }
            "fallocate" => {
                // Room for what is to come; only a length that grows can be seen.
                let node = trace::path_of(argument(0)).and_then(|path| self.node_at(&path));
                if let Some(node) = node.filter(|_| !argument(1).contains("KEEP_SIZE"))
                    && let Kind::File(content) = &self.live.nodes[node].kind
                {
                    let end = argument(2).parse::<usize>().ok()? + argument(3).parse::<usize>().ok()?;
                    let length = content.len().max(end);
                    self.change(Change::Length { node, length, time: call.time });
                }
            }
            "rename" | "renameat" => {
                let with_folders = call.name != "rename";
                let (from, to) = if with_folders {
                    (trace::path_at(Some(argument(0)), argument(1))?, trace::path_at(Some(argument(2)), argument(3))?)
                } else {
                    (trace::path_at(None, argument(0))?, trace::path_at(None, argument(1))?)
                };
                if !inside(&to) {
                    return Some(());
                }
                let (old, new) = (self.entry_at(&from)?, self.entry_at(&to)?);
                let moved = *self.live.names.get(&old)?;
                let back =
                    if argument(4).contains("RENAME_EXCHANGE") { self.live.names.get(&new).copied() } else { None };
                let entries = vec![(old.0, old.1, back), (new.0, new.1, Some(moved))];
                self.change(Change::Names { folder: new.0, entries });
            }
            "link" | "linkat" => {
                let (from, to) = match name {
                    "link" => (trace::path_at(None, argument(0))?, trace::path_at(None, argument(1))?),
                    _ => (
                        trace::path_at(Some(argument(0)), argument(1))?,
                        trace::path_at(Some(argument(2)), argument(3))?,
                    ),
                };
                if inside(&to) {
                    let (node, (folder, name)) = (self.node_at(&from)?, self.entry_at(&to)?);
                    self.change(Change::Names { folder, entries: vec![(folder, name, Some(node))] });
                }
            }
            "unlink" | "unlinkat" | "rmdir" => {
                let at = usize::from(name == "unlinkat");
                let path = trace::path_at((at == 1).then(|| argument(0)), argument(at))?;
                if inside(&path) {
                    let (folder, name) = self.entry_at(&path)?;
                    self.change(Change::Names { folder, entries: vec![(folder, name, None)] });
                }
            }
            "fchmod" | "chmod" | "fchmodat" => {
                let (path, mode) = match name {
                    "fchmod" => (trace::path_of(argument(0)), argument(1)),
                    "chmod" => (trace::path_at(None, argument(0)), argument(1)),
                    _ => (trace::path_at(Some(argument(0)), argument(1)), argument(2)),
                };
                if let Some(node) = path.and_then(|path| self.node_at(&path)) {
                    self.change(Change::Mode { node, mode: octal(mode)? });
                }
            }
            "utimensat" => {
                let path = match argument(1) {
                    "NULL" => trace::path_of(argument(0)),
                    name => trace::path_at(Some(argument(0)), name),
                };
                let field = |text: &str, key: &str| {
                    let rest = text.rsplit_once(key)?.1;
                    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<u64>().ok()
                };
                let (seconds, nanos) = (field(argument(2), "tv_sec="), field(argument(2), "tv_nsec="));
                if let (Some(node), Some(seconds), Some(nanos)) =
                    (path.and_then(|path| self.node_at(&path)), seconds, nanos)
                {
                    self.change(Change::Time { node, time: (seconds, u32::try_from(nanos).ok()?) });
                }
            }
            "fsync" | "fdatasync" => {
                let path = trace::path_of(argument(0)).unwrap_or_default();
                if let Some(node) = self.node_at(&path) {
                    let covers = self.covered(call);
                    let is_folder = self.live.nodes[node].kind == Kind::Folder;
                    self.recording.events.push(Event::Sync { node, path, is_folder, covers });
                }
            }
            "sync" | "syncfs" => {
                let covers = self.covered(call);
                self.recording.events.push(Event::SyncAll { covers });
            }
            // Their kinds do not matter here; what else there is shows when the end is compared with the disk.
            _ => {}
        }
        Some(())
    }

    /// How many events a sync covers.
    fn covered(&self, call: &Call) -> usize {
        call.began.checked_sub(1).and_then(|last| self.events_after.get(last)).copied().unwrap_or(0)
    }
}
