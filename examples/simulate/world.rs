//! Nodes with the real engine, on real folders in memory; what persons and programs do to them, and what goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldersync::clock::{Clock as _, ManualClock, Timestamp};
use foldersync::disk::{self, Watching};
use foldersync::engine::history::HistoryError;
use foldersync::engine::report::Resolution;
use foldersync::engine::revspec::FileRev;
use foldersync::engine::{Context, Device, EngineError, ExchangeOptions, Failure, Folder, InitOptions};
use foldersync::guard::{FreeSpace, Guards};
use foldersync::id::{CommitId, DeviceId, FolderId};
use foldersync::monitor::Silent;
use foldersync::path::SyncPath;
use foldersync::store::StoreError;
use foldersync::transport::{self, Faults};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::check;
use super::plan::{Action, IGNORED, PATHS, Plan, Random, SIMPLE, Step, Trouble, Way, What};
use super::power::Model;

/// Why a run is not what it must be.
pub(crate) type Violation = String;

/// When all runs begin: 2023-11-14. In the past, so that no file is as young as the index that names it, and no more
/// is read than on a quiet computer.
const BEGIN: i64 = 1_700_000_000;

/// A computer with a copy of the folder.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    clock: Arc<ManualClock>,
    disk: Arc<Disk>,
    _watching: Watching,
}

/// What happens to the disk of a node while an engine works there.
#[derive(Default)]
struct Disk(Mutex<Events>);

#[derive(Default)]
struct Events {
    /// What goes wrong, and before which step.
    armed: Option<(usize, What)>,
    /// How many steps were taken in this action.
    steps: usize,
    /// Nothing more happens: the process is dead.
    dead: bool,
    /// What becomes of the disk then.
    power: Option<u64>,
    model: Option<Model>,
    /// Edits that the person made meanwhile.
    edited: Vec<(&'static str, Vec<u8>)>,
    /// How many of them there ever were.
    edits: u32,
    happened: u64,
}

impl Events {
    /// The person edits a file at this very moment.
    fn edit(&mut self, root: &Path, path: &'static str) {
        self.edits += 1;
        let node = root.file_name().unwrap_or_default().to_string_lossy();
        let content = format!("edit {} by {node} meanwhile\n", self.edits).into_bytes();
        let full = root.join(path);
        let is_possible = full.parent().is_some_and(Path::is_dir) && !full.is_dir();
        let temp = root.with_extension("edit");
        if is_possible && fs::write(&temp, &content).is_ok() {
            set_time(&temp, Timestamp::new(BEGIN + 1000 * i64::from(self.edits), 0));
        }
        if fs::rename(&temp, &full).is_ok() {
            self.edited.push((path, content));
            self.happened += 1;
            if let Some(model) = &mut self.model {
                model.lasts(&full);
            }
        }
    }
}

impl Disk {
    fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, root: &Path, step: disk::Step, path: &Path) -> io::Result<()> {
        let events = &mut *self.events();
        if events.dead {
            return Err(io::Error::other("the process was killed"));
        }
        if let Some(model) = &mut events.model {
            model.step(step, path);
        }
        let now = events.steps;
        events.steps += 1;
        let meddled = match &events.armed {
            Some((at, What::Meddle)) => loses_power(*at).map(|(steps, choice)| (now + steps, What::PowerLoss(choice))),
            _ => None,
        };
        match &events.armed {
            Some((at, What::Kill | What::PowerLoss(_))) if now == *at => {
                if let Some((_, What::PowerLoss(choice))) = events.armed {
                    events.power = Some(choice);
                }
                events.dead = true;
                events.happened += 1;
                Err(io::Error::other("the process was killed"))
            }
            Some((at, What::Full(steps))) if (*at..at + steps).contains(&now) => {
                events.happened += 1;
                Err(io::Error::from_raw_os_error(28))
            }
            Some((at, What::Edit(edited))) if now == *at => {
                let edited = *edited;
                events.edit(root, edited);
                Ok(())
            }
            Some((_, What::Meddle)) if step == disk::Step::Rename && events.edited.is_empty() && path.is_file() => {
                if let Some(edited) = PATHS.into_iter().find(|edited| root.join(edited) == path) {
                    events.edit(root, edited);
                    if let Some(trouble) = meddled {
                        events.armed = Some(trouble);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether an edit of the very file that is replaced is followed by a loss of power: after how many steps, and what is
/// lost.
fn loses_power(at: usize) -> Option<(usize, u64)> {
    (at % 2 == 1).then_some((1 + at / 2 % 8, at as u64))
}

/// A version of a file that a person wrote, and the one that they saw there before.
struct Written {
    path: &'static str,
    content: Vec<u8>,
    over: Option<Vec<u8>>,
}

/// All nodes, and what is known of what happened.
pub(crate) struct World {
    dir: PathBuf,
    pub(crate) nodes: Vec<Node>,
    parted: BTreeSet<(usize, usize)>,
    stick: Vec<PathBuf>,
    count: u64,
    written: Vec<Written>,
    /// Paths that saw more than writing: what should be there is not so easily said.
    unclear: BTreeSet<&'static str>,
    /// Contents that must be in history in the end.
    pub(crate) kept: BTreeSet<Vec<u8>>,
    /// Revisions made by persons that must be in history in the end.
    pub(crate) authored: BTreeSet<CommitId>,
    pub(crate) troubles: u64,
    pub(crate) log: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn failed(what: &str) -> impl FnOnce(EngineError) -> Violation + use<'_> {
    move |error| format!("{what}: {error}")
}

impl World {
    pub(crate) fn new(dir: &Path, plan: &Plan) -> Result<Self, Violation> {
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let mut world = Self {
            dir: dir.to_owned(),
            nodes: Vec::new(),
            parted: BTreeSet::new(),
            stick: Vec::new(),
            count: 0,
            written: Vec::new(),
            unclear: BTreeSet::new(),
            kept: BTreeSet::new(),
            authored: BTreeSet::new(),
            troubles: 0,
            log: Vec::new(),
        };
        for (number, wrong_by) in (b'a'..).zip(&plan.clocks) {
            let name = char::from(number).to_string();
            let root = dir.join(&name);
            fs::create_dir_all(&root).map_err(|error| error.to_string())?;
            let disk = Arc::new(Disk::default());
            let watcher = {
                let (disk, root) = (Arc::clone(&disk), root.clone());
                move |step: disk::Step, path: &Path| disk.step(&root, step, path)
            };
            let watching = disk::watch(&root, Arc::new(watcher));
            let clock = Arc::new(ManualClock::at(BEGIN + wrong_by));
            let node = Node { name, root, clock, disk, _watching: watching };
            let options = InitOptions {
                alongside: false,
                device: Device { id: DeviceId::from_bytes([number; 32]), name: format!("device-{}", node.name) },
                folder_id: Some(FolderId::from_bytes([7; 16])),
            };
            Folder::init(&node.root, &options, node.context()).map_err(failed("init"))?;
            if plan.in_chunks {
                // As `foldersync config large_file_threshold=0` does it.
                let config = node.root.join(".git/config");
                let text = fs::read_to_string(&config).map_err(|error| error.to_string())?;
                let text = text + "[foldersync]\n\tlargeFileThreshold = 0\n";
                fs::write(&config, text).map_err(|error| error.to_string())?;
            }
            world.nodes.push(node);
        }
        Ok(world)
    }

    fn folder(&self, node: usize) -> Result<Folder, Violation> {
        let node = &self.nodes[node];
        Folder::open(&node.root, node.context()).map_err(failed("open"))
    }

    fn wrote(&mut self, node: usize, path: &'static str, content: Vec<u8>, over: Option<Vec<u8>>) {
        let Node { clock, root, .. } = &self.nodes[node];
        clock.advance(Duration::from_nanos(1_000_000_007 * (1 + self.count % 5)));
        self.lasts(node, &root.join(path));
        self.written.push(Written { path, content, over });
    }

    /// Writes a file as a person does: with a content that was never before, and a time of its own.
    fn write(&mut self, node: usize, path: &'static str, content: Vec<u8>) -> io::Result<()> {
        let Node { root, clock, .. } = &self.nodes[node];
        let full = root.join(path);
        let over = fs::read(&full).ok().filter(|_| !full.is_symlink());
        if !full.is_file() || full.is_symlink() {
            make_room(root, path)?;
        }
        fs::write(&full, &content)?;
        set_time(&full, clock.now());
        self.wrote(node, path, content, over);
        Ok(())
    }

    /// Does what a person does with files.
    fn edit(&mut self, action: &Action) -> io::Result<()> {
        self.count += 1;
        let number = self.count;
        let root = |world: &Self, node: usize| world.nodes[node].root.clone();
        match *action {
            Action::Write { node, path, lines } => {
                let name = &self.nodes[node].name;
                let mut text = format!("version {number} by {name}\n");
                (0..lines).for_each(|line| text.push_str(&format!("line {line}\n")));
                self.write(node, path, text.into_bytes())?;
            }
            Action::Append { node, path } => {
                let full = root(self, node).join(path);
                if let Ok(mut content) = fs::read(&full)
                    && !full.is_symlink()
                {
                    content.extend(format!("more of version {number}\n").bytes());
                    self.write(node, path, content)?;
                }
            }
            Action::Remove { node, path } => {
                self.unclear.insert(path);
                let full = root(self, node).join(path);
                if fs::symlink_metadata(&full).is_ok() {
                    clear(&full)?;
                    self.made(node, &full);
                }
            }
            Action::Rename { node, from, to } => {
                self.unclear.extend([from, to]);
                let root = root(self, node);
                let inside = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
                if from != to && !inside(from, to) && !inside(to, from) && root.join(from).is_file() {
                    make_room(&root, to)?;
                    if root.join(from).is_file() {
                        fs::rename(root.join(from), root.join(to))?;
                        // The file keeps its time.
                        self.lasts(node, &root.join(from));
                        self.lasts(node, &root.join(to));
                    }
                }
            }
            Action::Folder { node, path } => {
                self.unclear.insert(path);
                let root = root(self, node);
                make_room(&root, path)?;
                fs::create_dir(root.join(path))?;
                self.made(node, &root.join(path));
                self.made(node, &root.join(path).join("x"));
            }
            Action::Executable { node, path } => {
                self.unclear.insert(path);
                let full = root(self, node).join(path);
                if full.is_file() && !full.is_symlink() {
                    fs::set_permissions(&full, fs::Permissions::from_mode(0o755))?;
                    self.lasts(node, &full);
                }
            }
            Action::Link { node, path } => {
                self.unclear.insert(path);
                let root = root(self, node);
                make_room(&root, path)?;
                std::os::unix::fs::symlink(format!("target {number}"), root.join(path))?;
                self.made(node, &root.join(path));
            }
            Action::Ignore { node } => {
                let full = root(self, node).join(".gitignore");
                if !full.exists() {
                    fs::write(&full, IGNORED)?;
                    self.made(node, &full);
                }
            }
            Action::Wait { node, seconds } => self.nodes[node].clock.advance(Duration::from_secs(seconds)),
            _ => {}
        }
        Ok(())
    }

    /// What a person made has a time that does not depend on the computer that plays this, and lasts.
    fn made(&self, node: usize, path: &Path) {
        set_time(path, self.nodes[node].clock.now());
        self.lasts(node, path);
    }

    /// What a person did with a path is not lost with the power.
    fn lasts(&self, node: usize, path: &Path) {
        if let Some(model) = &mut self.nodes[node].disk.events().model {
            model.lasts(path);
        }
    }

    /// Takes a step of the plan, and looks at what must hold after it.
    pub(crate) fn take(&mut self, step: &Step) -> Result<(), Violation> {
        match step.action {
            Action::Part { a, b } => drop(self.parted.insert((a.min(b), a.max(b)))),
            Action::Heal => self.parted.clear(),
            Action::Unsynced { node } => {
                let Node { root, disk, .. } = &self.nodes[node];
                disk.events().model = Some(Model::new(root).map_err(|error| error.to_string())?);
            }
            Action::Exchange { from, to, .. } if self.parted.contains(&(from.min(to), from.max(to))) => {}
            _ if step.action.nodes().is_empty() => self.edit(&step.action).map_err(|error| error.to_string())?,
            _ => self.work(step)?,
        }
        Ok(())
    }

    /// Lets engines work, with what goes wrong.
    fn work(&mut self, step: &Step) -> Result<(), Violation> {
        let nodes = step.action.nodes();
        let troubled = step.trouble.as_ref().map(|trouble| nodes[usize::from(trouble.second).min(nodes.len() - 1)]);
        let before: Vec<_> = nodes.iter().map(|&node| check::standing(&self.nodes[node].root)).collect();
        if let (Some(node), Some(Trouble { at, what, .. })) = (troubled, &step.trouble) {
            let Node { root, disk, .. } = &self.nodes[node];
            let events = &mut *disk.events();
            events.armed = Some((*at, what.clone()));
            let loses =
                matches!(what, What::PowerLoss(_)) || matches!(what, What::Meddle if loses_power(*at).is_some());
            if loses && events.model.is_none() {
                events.model = Some(Model::new(root).map_err(|error| error.to_string())?);
            }
        }
        for &node in &nodes {
            self.nodes[node].disk.events().steps = 0;
        }
        let outcome = self.run(&step.action, step.trouble.as_ref());
        let mut disturbed = matches!(step.trouble, Some(Trouble { what: What::Cut(_) | What::Flip(_), .. }));
        let (mut died, mut lost) = (Vec::new(), Vec::new());
        for &node in &nodes {
            let events = &mut *self.nodes[node].disk.events();
            let armed = events.armed.take().map(|(_, what)| what);
            if !events.dead
                && let Some(What::Kill | What::PowerLoss(_)) = &armed
            {
                // It comes when all is done.
                self.troubles += 1;
                if let Some(What::PowerLoss(choice)) = armed {
                    lost.push((node, choice));
                }
            }
            disturbed |= events.happened > 0;
            self.troubles += std::mem::take(&mut events.happened);
            if std::mem::take(&mut events.dead) {
                died.push(node);
                lost.extend(events.power.take().map(|choice| (node, choice)));
            }
        }
        let told = match &outcome {
            Ok(text) => text.clone(),
            Err(_) if disturbed => "failed".to_owned(),
            Err(error) => format!("failed: {error}"),
        };
        for &(node, choice) in &lost {
            if let Some(model) = self.nodes[node].disk.events().model.take() {
                model
                    .lose_power(&mut Random::new(choice))
                    .map_err(|error| format!("the model of the disk: {error}"))?;
            }
        }
        let name = |node: &usize| self.nodes[*node].name.clone();
        self.log.push(format!(
            "{:?} -> {told}, died: {:?}, without power: {lost:?}",
            step.action,
            died.iter().map(name).collect::<Vec<_>>()
        ));
        if let Err(error) = &outcome
            && !disturbed
        {
            return Err(format!("{:?} failed though nothing went wrong: {error}", step.action));
        }
        for (&node, before) in nodes.iter().zip(before) {
            self.look(node, before, outcome.is_ok() && !died.contains(&node), &step.action)?;
        }
        Ok(())
    }

    /// What must hold at a node after an action.
    fn look(
        &mut self,
        node: usize,
        before: BTreeMap<PathBuf, Vec<u8>>,
        done: bool,
        action: &Action,
    ) -> Result<(), Violation> {
        let after = check::standing(&self.nodes[node].root);
        let edited = std::mem::take(&mut self.nodes[node].disk.events().edited);
        let expected = before.into_iter().chain(edited.iter().map(|(path, content)| (path.into(), content.clone())));
        let expected: Vec<_> = expected.collect();
        let replaced: BTreeSet<_> = edited.iter().map(|(path, _)| PathBuf::from(path)).collect();
        let captures = done && matches!(action, Action::Capture { .. } | Action::Exchange { .. });
        for (path, content) in &expected {
            let was_edited_away = replaced.contains(path) && !edited.iter().any(|(_, new)| new == content);
            if is_ignored(path) || was_edited_away {
                continue;
            }
            // I3, I8: what is not on disk any more is in history.
            if after.get(path) != Some(content) {
                self.kept.insert(content.clone());
                let there = check::in_store(&self.nodes[node].root, content)?;
                let elsewhere = after.values().any(|other| other == content);
                // Only the next work can put it back; that it did is seen when all is settled.
                let waits = !done && check::in_stage(&self.nodes[node].root, content);
                if !there && !elsewhere && !waits {
                    return Err(format!(
                        "{:?}: what stood at {} of {} is neither on disk nor in history: {:?}",
                        action,
                        path.display(),
                        self.nodes[node].name,
                        String::from_utf8_lossy(content)
                    ));
                }
            } else if captures && edited.is_empty() {
                self.kept.insert(content.clone());
            }
        }
        for (path, content) in edited {
            let name = PathBuf::from(path);
            let over = expected.iter().find(|(at, old)| *at == name && *old != content).map(|(_, old)| old.clone());
            self.unclear.insert(path);
            self.written.push(Written { path, content, over });
        }
        // I6: what a peer was told that it is here, is here.
        for other in &self.nodes {
            if let Some(known) = check::known_of(&other.root, &self.nodes[node].name)?
                && !check::has(&other.root, known, &self.nodes[node].root)?
            {
                return Err(format!(
                    "{action:?}: {} believes that {} has revision {known}, and it has not",
                    other.name, self.nodes[node].name
                ));
            }
        }
        // I2: what a person's revision was, stays; what it is now, must stay.
        if done {
            let new = check::authored(&self.nodes[node].root, &self.authored)?;
            self.authored.extend(new);
        }
        let head = check::head(&self.nodes[node].root)?;
        self.log.push(format!(
            "  {}: {} {:?}",
            self.nodes[node].name,
            head.map_or_else(String::new, |head| head.to_string()),
            after.keys()
        ));
        Ok(())
    }

    fn run(&mut self, action: &Action, trouble: Option<&Trouble>) -> Result<String, String> {
        let text = |error: EngineError| error.to_string();
        match *action {
            Action::Capture { node } => {
                let report = self.folder(node)?.capture(&[]).map_err(text)?;
                Ok(format!("{} revisions, {:?}", report.revisions(), report.left_out))
            }
            Action::Gather { node } => {
                let report = self.folder(node)?.gc().map_err(text)?;
                Ok(format!("{} packs", report.packs_after))
            }
            Action::Revert { node, path, back } => {
                self.unclear.insert(path);
                let folder = self.folder(node)?;
                let file = SyncPath::new(path).map_err(|error| error.to_string())?;
                let revisions = match folder.log(Some(&file), None) {
                    Err(error @ EngineError::History(HistoryError::Store(_))) => return Err(error.to_string()),
                    // Never there, or nothing there yet.
                    Err(error @ (EngineError::NotFound { .. } | EngineError::History(_))) => {
                        return Ok(error.to_string());
                    }
                    revisions => revisions.map_err(text)?,
                };
                // A log goes on under the name that a file had before; that is not the one to go back.
                let own = revisions.get(back).filter(|revision| revision.path == file);
                let Some(revision) = own.and_then(|revision| revision.number) else {
                    return Ok("nothing to revert".to_owned());
                };
                let spec = format!("{path}@{revision}");
                let spec = FileRev::parse(spec.as_bytes(), b"", false).map_err(|error| error.to_string())?;
                let report = folder.revert(&[spec]).map_err(text)?;
                Ok(format!("{} changes", report.changes.len()))
            }
            Action::Resolve { node, how } => {
                let folder = self.folder(node)?;
                let Some(conflict) = folder.conflicts().map_err(text)?.first().cloned() else {
                    return Ok("no conflict".to_owned());
                };
                // From here on the copy may be gone, and either content under the name.
                self.unclear.extend(SIMPLE);
                let how = [Resolution::Ours, Resolution::Theirs, Resolution::Both][how];
                match folder.resolve_conflict(&conflict.copy, how) {
                    Ok(report) => Ok(format!("{} changes", report.changes.len())),
                    Err(error @ EngineError::NotFound { .. }) => Ok(error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Action::Bundle { node, to } => {
                let file = self.dir.join(format!("{}.bundle.sz", self.stick.len()));
                let peer = to.filter(|to| *to != node).map(|to| self.nodes[to].name.clone());
                match self.folder(node)?.bundle_create(&file, None, peer.as_deref()) {
                    Ok(report) => {
                        self.stick.push(file);
                        Ok(format!("{} revisions", report.revisions))
                    }
                    // Nothing new, or nothing known of the peer.
                    Err(error @ EngineError::NotFound { .. }) => Ok(error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Action::Deliver { node, bundle } => {
                let Some(file) = self.stick.get(bundle) else { return Ok("no such bundle".to_owned()) };
                match self.folder(node)?.bundle_apply(file) {
                    Ok(report) => Ok(format!("{} applied", report.applied)),
                    Err(error @ EngineError::Bundle { source: StoreError::Prerequisites { .. }, .. }) => {
                        Ok(error.to_string())
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            Action::Exchange { from, to, way } => self.exchange(from, to, way, trouble),
            _ => Ok(String::new()),
        }
    }

    fn exchange(&self, from: usize, to: usize, way: Way, trouble: Option<&Trouble>) -> Result<String, String> {
        let (here, there) = transport::pipe(&self.nodes[to].name);
        let (dials, serves) = (self.folder(from)?, self.folder(to)?);
        let here = match trouble {
            Some(Trouble { what: What::Cut(bytes), second, .. }) => with_faults(here, Faults::cut(*bytes), *second),
            Some(Trouble { what: What::Flip(byte), second, .. }) => with_faults(here, Faults::flip(*byte), *second),
            _ => here,
        };
        let options = ExchangeOptions::default();
        let of_dialer = ExchangeOptions { send: way != Way::Pull, receive: way != Way::Push, ..options };
        let name = &self.nodes[from].name;
        let (dialed, served) = std::thread::scope(|scope| {
            let served = scope.spawn(move || serves.serve(there, Some(name), options));
            let dialed = dials.exchange_over(here, &self.nodes[to].name, of_dialer);
            (dialed, served.join().expect("no panic"))
        });
        match (dialed, served) {
            (Ok(report), Ok(_)) => {
                if way == Way::Both && trouble.is_none() && !report.in_step {
                    return Err(format!("the two are not in step after an exchange: {report:?}"));
                }
                Ok(format!("{} sent, {} received", report.sent, report.received))
            }
            (dialed, served) => {
                let errors: Vec<_> = [dialed.err(), served.err()].into_iter().flatten().collect();
                if let Some(error) = errors.iter().find(|error| error.failure() == Failure::Damaged)
                    && !matches!(trouble, Some(Trouble { what: What::Flip(_), .. }))
                {
                    return Err(format!("damage: {error}"));
                }
                Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        }
    }

    /// All troubles end: everybody meets everybody until nothing moves; then everything is looked at.
    pub(crate) fn settle(&mut self, plan: &Plan) -> Result<(), Violation> {
        self.parted.clear();
        for node in &self.nodes {
            node.disk.events().model = None;
        }
        for node in 0..self.nodes.len() {
            self.take(&Step { action: Action::Capture { node }, trouble: None })?;
        }
        for node in &self.nodes {
            let standing = check::standing(&node.root);
            self.kept.extend(standing.into_iter().filter(|(path, _)| !is_ignored(path)).map(|(_, content)| content));
        }
        let count = self.nodes.len();
        for round in 0.. {
            for from in 0..count {
                for to in from + 1..count {
                    let action = Action::Exchange { from, to, way: Way::Both };
                    self.take(&Step { action, trouble: None })?;
                }
            }
            let heads: Result<BTreeSet<_>, _> = self.nodes.iter().map(|node| check::head(&node.root)).collect();
            if heads?.len() == 1 {
                break;
            }
            if round == count {
                return Err("the heads still differ after everybody met everybody several times".to_owned());
            }
        }
        check::all(self, plan.seed, plan.in_chunks)?;
        self.check_written()
    }

    /// What persons see of a file, explained by nothing but what they wrote and saw: the version that stands under its
    /// name was not written over by somebody who saw it, and every version that nobody wrote over is still to be seen,
    /// there or beside it. (As Hughes, Pierce, Arts and Norell tested Dropbox in "Mysteries of Dropbox", ICST 2016.)
    fn check_written(&self) -> Result<(), Violation> {
        let standing = check::standing(&self.nodes[0].root);
        for path in SIMPLE.iter().filter(|path| !self.unclear.contains(*path)) {
            let here: Vec<&Written> =
                self.written.iter().filter(|w| w.path == *path && self.kept.contains(&w.content)).collect();
            let is_over = |content: &Vec<u8>| {
                // Over it or over what was written over it, and so on.
                let all = || self.written.iter().filter(|w| w.path == *path);
                let mut over = vec![content];
                let mut at = 0;
                while at < over.len() {
                    let next: Vec<_> =
                        all().filter(|w| w.over.as_ref() == Some(over[at])).map(|w| &w.content).collect();
                    over.extend(next);
                    at += 1;
                }
                over.into_iter().skip(1).any(|newer| self.kept.contains(newer))
            };
            match standing.get(Path::new(path)) {
                None if here.is_empty() => {}
                None => return Err(format!("{path} is gone, and nobody deleted it")),
                Some(content) if is_over(content) => {
                    return Err(format!("{path} is an older version again: {:?}", String::from_utf8_lossy(content)));
                }
                Some(_) => {}
            }
            for Written { content, .. } in here {
                if !is_over(content) && !standing.values().any(|other| other == content) {
                    return Err(format!(
                        "a version of {path} that nobody wrote over is not to be seen: {:?}",
                        String::from_utf8_lossy(content)
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Sets the time of what stands at a path, if something does.
fn set_time(path: &Path, time: Timestamp) {
    let time = Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    let _missing_is_fine = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

fn with_faults(connection: transport::Connection, faults: Faults, reading: bool) -> transport::Connection {
    if reading { connection.with_faults(faults, Faults::NONE) } else { connection.with_faults(Faults::NONE, faults) }
}

pub(crate) fn is_ignored(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

fn clear(full: &Path) -> io::Result<()> {
    match fs::symlink_metadata(full) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(full),
        Ok(_) => fs::remove_file(full),
        Err(_) => Ok(()),
    }
}

/// Makes way for something at `path`: what is there goes, and a file that stands where a folder is needed.
fn make_room(root: &Path, path: &str) -> io::Result<()> {
    let full = root.join(path);
    let parent = full.parent().expect("below the root");
    for above in parent.ancestors().take_while(|above| *above != root) {
        if fs::symlink_metadata(above).is_ok_and(|data| !data.is_dir()) {
            fs::remove_file(above)?;
        }
    }
    fs::create_dir_all(parent)?;
    clear(&full)
}

impl Node {
    pub(crate) fn context(&self) -> Context {
        Context {
            clock: self.clock.clone(),
            monitor: Arc::new(Silent),
            threads: 1,
            zone: jiff::tz::TimeZone::UTC,
            guards: Guards { free_space: FreeSpace::Bytes(0), ..Guards::default() },
        }
    }
}
