//! `foldersync status --watch`

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::live::FolderLive;
use crate::cli::registry;
use crate::cli::session::Session;
use crate::cli::tell;
use crate::cli::ui::format::size;
use crate::cli::ui::{Out, style};
use crate::config::Name;
use crate::daemon::control::{Answer, Ask};
use crate::daemon::{DaemonStatus, Progress};
use crate::id::CommitId;
use crate::monitor::Stage;

/// What stands on the terminal, or is printed whenever it changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct View {
    folder: String,
    head: Option<CommitId>,
    daemon: FolderLive,
    /// For a terminal only: it changes all the time.
    #[serde(skip)]
    progress: Vec<Progress>,
}

impl View {
    fn new(folder: String, name: &Name, status: &DaemonStatus, progress: bool) -> Self {
        let state = status.folders.get(name);
        let mut daemon = FolderLive::of(status, Some(name));
        for pair in daemon.peers.values_mut() {
            // A time that is never twice the same is no news.
            pair.connected.iter_mut().for_each(|link| link.rtt_us = None);
        }
        let shown = state.filter(|_| progress).map(|state| state.progress.clone());
        Self { folder, head: state.and_then(|state| state.head), daemon, progress: shown.unwrap_or_default() }
    }

    /// Prints it; answers with how many lines that are.
    fn print(&self, out: &mut Out<'_>) -> io::Result<usize> {
        out.styled(style::HEADING, &self.folder)?;
        match self.head {
            Some(head) => write!(out, " at {}: ", head.short())?,
            None => write!(out, " without a revision yet: ")?,
        }
        out.text(&self.daemon.words())?;
        writeln!(out)?;
        for (name, pair) in &self.daemon.peers {
            let words = pair.words(|time| out.time(time));
            write!(out, "peer {name}: ")?;
            out.text(&words)?;
            if let Some(link) = &pair.connected {
                write!(out, " ({} ", link.kind)?;
                out.text(&link.remote)?;
                write!(out, ")")?;
            }
            writeln!(out)?;
        }
        for work in &self.progress {
            let of = work.total.filter(|total| *total > 0).map(|total| format!(" of {total}")).unwrap_or_default();
            let bytes = if work.bytes > 0 { format!(", {}", size(work.bytes)) } else { String::new() };
            writeln!(out, "{} {}{of}{bytes}", title(work.stage), work.items)?;
        }
        Ok(1 + self.daemon.peers.len() + self.progress.len())
    }
}

const fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Scan => "scanning",
        Stage::Capture => "capturing",
        Stage::Send => "sending",
        Stage::Receive => "receiving",
        Stage::Check => "checking",
        Stage::Apply => "writing",
        Stage::Index => "indexing",
        Stage::Gather => "gathering",
    }
}

pub(super) fn run(session: &Session) -> Result<ExitCode, CommandError> {
    let ui = session.ui();
    let root = session.root()?;
    let config = session.config()?;
    let name = registry::name_of(&config, &root).ok_or_else(|| registry::not_registered(&root))?;
    let mut client = tell::ask(session, &Ask::Watch)?.ok_or_else(tell::no_daemon)?;
    let folder = root.display().to_string();
    let mut shown: Option<View> = None;
    let mut lines = 0;
    loop {
        let Answer::Progress(status) = tell::next(&mut client)? else { continue };
        let terminal = ui.out().is_terminal() && !ui.is_json();
        let view = View::new(folder.clone(), name, &status, terminal);
        if shown.as_ref() == Some(&view) {
            continue;
        }
        if ui.is_json() {
            ui.json(&view)?;
        } else {
            let mut out = ui.out();
            if terminal && lines > 0 {
                // Up to the first line, and all below it gone.
                write!(out, "\x1b[{lines}A\x1b[J")?;
            }
            lines = view.print(&mut out)?;
            out.finish()?;
        }
        shown = Some(view);
    }
}
