//! `foldersync watch`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use clap::ValueHint;
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::daemon::notify as systemd;
use crate::daemon::signals::Signals;
use crate::engine::report::CaptureReport;
use crate::engine::{EngineError, Failure, Folder, Quiet, Ready, Wake, Watch, WatchTrouble};

/// Capture changes as they happen, until it is stopped
///
/// Captures what changed since the last time, then each change as soon as its file is quiet, and prints a line for
/// each revision. The whole folder is looked at again every hour. If the folder goes away (its disk is unmounted, or
/// it is moved), it waits for it to come back; nothing is taken for deleted meanwhile. Ctrl-C stops it.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync watch\n  foldersync watch ~/docs\n  foldersync --json watch ~/docs"
)]
pub(crate) struct Args {
    /// The folder; without it, that of the current directory
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// How often everything is looked at.
const RESCAN: Duration = Duration::from_hours(1);
/// The same, while the watcher does not see everything.
const RESCAN_IN_TROUBLE: Duration = Duration::from_mins(1);
/// How soon it is tried again while another process is at work in the folder.
const BUSY: Duration = Duration::from_millis(250);
/// So many times that is done without a word.
const TOO_BUSY: u32 = 40;
/// How soon it is tried again after a failure.
const FAILED: Duration = Duration::from_secs(10);
/// How often it is looked whether the folder is back.
const RETURN: Duration = Duration::from_secs(1);

/// What there is to wait for.
enum Event {
    Changed,
    Stop,
}

/// Why watching ended.
enum End {
    Stopped,
    /// The folder is not there any more, or this watch sees nothing any more.
    Lost(String),
}

/// A line of `--json` about how watching goes.
#[derive(Debug, Serialize)]
struct TroubleLine<'a> {
    trouble: Option<&'a str>,
    hint: Option<&'a str>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let root = match &args.dir {
        Some(dir) => Folder::discover(&Session::absolute(dir)?)?,
        None => session.root()?,
    };
    let (heard, events) = mpsc::sync_channel(64);
    let stop = heard.clone();
    let _signals = Signals::listen(move |_| hand_on(&stop, Event::Stop)).map_err(|source| EngineError::Io {
        what: "heed signals for",
        path: root.clone(),
        source,
    })?;
    let wake: Wake = Arc::new(move || hand_on(&heard, Event::Changed));

    let mut folder = Folder::open(&root, session.context())?;
    let mut watch = folder.watch(Arc::clone(&wake))?;
    let mut run =
        Run { session, root: &root, events: &events, told: BTreeSet::new(), began: Instant::now(), ready: false };
    loop {
        match run.watch(&folder, &watch)? {
            End::Stopped => break,
            End::Lost(why) => {
                run.trouble(Some((&why, WatchTrouble::RootGone.hint())))?;
                drop(watch);
                let Some(back) = run.wait_for(&folder, &wake)? else { break };
                (folder, watch) = back;
                run.trouble(None)?;
            }
        }
    }
    systemd::stopping();
    Ok(ExitCode::Done)
}

/// Does not wait: a watch wakes once until it is asked, so that there is room.
fn hand_on(to: &SyncSender<Event>, event: Event) {
    let _ = to.try_send(event);
}

struct Run<'a> {
    session: &'a Session,
    root: &'a Path,
    events: &'a Receiver<Event>,
    /// What was said already of what could not be captured.
    told: BTreeSet<String>,
    began: Instant,
    /// Whether it was said that watching has begun.
    ready: bool,
}

impl Run<'_> {
    /// Captures what changes, until there is an end to it.
    fn watch(&mut self, folder: &Folder, watch: &Watch) -> Result<End, CommandError> {
        let mut quiet = Quiet::default();
        let mut trouble: Option<WatchTrouble> = None;
        let mut scanned = self.began.elapsed();
        let mut busy = 0;
        let mut looked_at = false;
        loop {
            let dirty = watch.take();
            if dirty.trouble != trouble {
                match &dirty.trouble {
                    Some(gone) if gone.is_final() => return Ok(End::Lost(gone.to_string())),
                    Some(trouble) => self.trouble(Some((&trouble.to_string(), trouble.hint())))?,
                    None => self.trouble(None)?,
                }
                trouble.clone_from(&dirty.trouble);
            }
            let now = self.began.elapsed();
            quiet.note(now, dirty);
            let rescan = scanned + if trouble.is_some() { RESCAN_IN_TROUBLE } else { RESCAN };
            if now >= rescan {
                quiet.put_back(now, Ready::Everything);
            }
            let ready = quiet.ready(now);
            if ready == Ready::Nothing {
                let next = quiet.next_look().map_or(rescan, |next| next.min(rescan));
                match self.events.recv_timeout(next.saturating_sub(now)) {
                    Ok(Event::Changed) | Err(RecvTimeoutError::Timeout) => {}
                    Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(End::Stopped),
                }
                continue;
            }
            let paths = match &ready {
                Ready::Paths(paths) => &paths[..],
                Ready::Nothing | Ready::Everything => &[],
            };
            match folder.capture(paths) {
                Ok(report) => {
                    busy = 0;
                    self.tell(&report)?;
                    if ready == Ready::Everything {
                        scanned = now;
                        // The first time, all were looked at a moment ago.
                        if std::mem::replace(&mut looked_at, true) {
                            folder.watch_again(watch)?;
                        }
                        if !self.ready {
                            self.ready = true;
                            systemd::ready();
                        }
                    }
                }
                Err(error) if error.failure() == Failure::Busy => {
                    busy += 1;
                    if busy == TOO_BUSY {
                        self.failed(&error.into())?;
                    }
                    quiet.put_back(self.began.elapsed() + BUSY, ready);
                }
                // Without its repository a folder is not there.
                Err(_) if Folder::open(self.root, Session::silent_context()).is_err() => {
                    return Ok(End::Lost(WatchTrouble::RootGone.to_string()));
                }
                Err(error) => {
                    self.failed(&error.into())?;
                    quiet.put_back(self.began.elapsed() + FAILED, ready);
                }
            }
        }
    }

    /// Waits until the folder is back. A folder with another identity in its place is none. `None` if it is to stop.
    fn wait_for(&mut self, gone: &Folder, wake: &Wake) -> Result<Option<(Folder, Watch)>, CommandError> {
        loop {
            match self.events.recv_timeout(RETURN) {
                Ok(Event::Changed) => continue,
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            match Folder::open(self.root, self.session.context()) {
                Ok(back) if back.id() == gone.id() => match back.watch(Arc::clone(wake)) {
                    Ok(watch) => return Ok(Some((back, watch))),
                    Err(error) => self.failed(&error.into())?,
                },
                Ok(_) => self.once("another folder of foldersync stands in its place")?,
                Err(_) => {}
            }
        }
    }

    fn tell(&mut self, report: &CaptureReport) -> Result<(), CommandError> {
        let ui = self.session.ui();
        if ui.is_json() {
            for change in &report.changes {
                ui.json(change)?;
            }
        } else if report.revisions() > 0 {
            let mut out = ui.out();
            reports::changes(ui, &mut out, &report.changes)?;
            out.finish()?;
            if report.revisions() > report.changes.len() as u64 {
                ui.status(&reports::captured(report));
            }
        }
        for left_out in &report.left_out {
            self.once(&format!("left out {}: {}", left_out.path, left_out.why))?;
        }
        Ok(())
    }

    /// Says something that was not said before.
    fn once(&mut self, text: &str) -> Result<(), CommandError> {
        // Who has that much to be told of has other worries than hearing of it twice.
        if self.told.len() >= 10_000 {
            self.told.clear();
        }
        if self.told.insert(text.to_owned()) {
            let ui = self.session.ui();
            if ui.is_json() {
                ui.json(&TroubleLine { trouble: Some(text), hint: None })?;
            } else {
                ui.warning(text);
            }
        }
        Ok(())
    }

    /// What keeps it from seeing all; nothing, when that is over.
    fn trouble(&self, trouble: Option<(&str, Option<String>)>) -> Result<(), CommandError> {
        let ui = self.session.ui();
        let (text, hint) = trouble.map_or((None, None), |(text, hint)| (Some(text), hint));
        if ui.is_json() {
            return Ok(ui.json(&TroubleLine { trouble: text, hint: hint.as_deref() })?);
        }
        match text {
            Some(text) => ui.warning(&format!("{}: {text}", self.root.display())),
            None => ui.status(&format!("{}: watched again", self.root.display())),
        }
        if let Some(hint) = hint {
            ui.hint(&hint);
        }
        Ok(())
    }

    fn failed(&mut self, error: &CommandError) -> Result<(), CommandError> {
        self.once(error.message())
    }
}
