//! `foldersync status`

mod watch;

use std::io::Write;

use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::live::{self, FolderLive};
use crate::cli::registry;
use crate::cli::reports;
use crate::cli::session::Session;
use crate::cli::ui::Ui;
use crate::cli::ui::format::count;
use crate::cli::ui::style;
use crate::config::Name;
use crate::engine::report::StatusReport;

/// Show what changed since the last capture, conflicts, and what peers lack
///
/// Also whether a daemon keeps the folder in step, and how it stands with each peer. With `--watch`, what the daemon
/// does with the folder is shown for as long as it runs: redrawn on a terminal, printed anew in a pipe whenever it
/// changes.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync status\n  foldersync status --watch\n  foldersync --folder ~/docs --json status"
)]
pub(crate) struct Args {
    /// Show what the daemon does, until it ends
    #[arg(long)]
    watch: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a StatusReport,
    daemon: Option<&'a FolderLive>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    if args.watch {
        return watch::run(session);
    }
    let folder = session.folder()?;
    let config = session.config()?;
    let name = registry::name_of(&config, folder.root());
    let peers: Vec<_> =
        name.map(|name| config.peers_of(name).map(|(peer, _)| peer.to_string()).collect()).unwrap_or_default();
    let daemon = live::ask(session).map(|status| FolderLive::of(&status, name));
    let report = folder.status(&peers)?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&Document { report: &report, daemon: daemon.as_ref() })?;
    } else {
        print(ui, &report, daemon.as_ref())?;
    }
    Ok(ExitCode::Done)
}

fn print(ui: &Ui, report: &StatusReport, daemon: Option<&FolderLive>) -> std::io::Result<()> {
    let mut out = ui.out();
    out.styled(style::HEADING, &report.folder)?;
    match report.head {
        Some(head) => writeln!(out, " at {}", head.short())?,
        None => writeln!(out, " without a revision yet")?,
    }
    out.text(&daemon.map_or_else(|| live::NO_DAEMON.to_owned(), FolderLive::words))?;
    writeln!(out)?;
    if report.pending {
        writeln!(out, "revisions that came wait to be written here; the next command does it")?;
    }
    if report.changes.is_empty() {
        writeln!(out, "nothing to capture")?;
    }
    reports::changes(ui, &mut out, &report.changes)?;
    for one in &report.left_out {
        write!(out, "left out ")?;
        out.text(&one.path)?;
        write!(out, ": ")?;
        out.text(&one.why)?;
        writeln!(out)?;
    }
    for conflict in &report.conflicts {
        out.styled(style::WARNING, "conflict")?;
        write!(out, " ")?;
        out.path(&conflict.path)?;
        write!(out, ": the other version is ")?;
        out.path(&conflict.copy)?;
        writeln!(out)?;
    }
    for held in &report.held {
        out.styled(style::WARNING, "held back")?;
        write!(out, " from ")?;
        out.text(&reports::held(held))?;
        writeln!(out, "; say `foldersync accept {0}` or `foldersync reject {0}`", held.peer)?;
    }
    for peer in &report.peers {
        write!(out, "peer ")?;
        out.text(&peer.name)?;
        match (peer.last_known, peer.lacks) {
            (None, _) => write!(out, " was never met")?,
            (Some(_), 0) => write!(out, " has everything")?,
            (Some(_), lacks) => write!(out, " lacks {}", count(lacks, "revision"))?,
        }
        if let Some(seen) = peer.last_seen {
            let seen = out.time(seen);
            write!(out, ", last seen {seen}")?;
        }
        let name = Name::new(&peer.name).ok();
        if let Some(live) = daemon.zip(name).and_then(|(daemon, name)| daemon.peers.get(&name)) {
            let words = live.words(|time| out.time(time));
            write!(out, ": ")?;
            out.text(&words)?;
        }
        writeln!(out)?;
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::engine::report::{Conflict, Held, LeftOut, PathChange, PeerStatus};
    use crate::id::{CommitId, FolderId};
    use crate::path::SyncPath;

    #[test]
    fn a_person_reads_what_is_new() {
        let path = |text: &str| SyncPath::new(text).unwrap();
        let head = Some(CommitId::from_bytes([0xab; 20]));
        let peer = |name: &str, last_known, lacks, secs: Option<i64>| PeerStatus {
            name: name.to_owned(),
            last_known,
            lacks,
            lacks_files: None,
            last_seen: secs.map(|secs| Timestamp::new(secs, 0)),
            held: None,
        };
        let held = Held {
            peer: "nas".to_owned(),
            revision: CommitId::from_bytes([0xcd; 20]),
            since: None,
            deleted: 40,
            rewritten: 0,
            of: 50,
            examples: vec![path("a"), path("b")],
        };
        let report = StatusReport {
            folder: "/docs".to_owned(),
            folder_id: FolderId::from_bytes([1; 16]),
            head,
            changes: vec![PathChange { verb: "change", path: path("notes.txt") }],
            left_out: vec![LeftOut { path: "sub".to_owned(), why: "a nested git repository".to_owned() }],
            conflicts: vec![Conflict {
                path: path("a.md"),
                copy: path("a (conflict).md"),
                device: "nas".to_owned(),
                time: Timestamp::default(),
            }],
            pending: false,
            held: vec![held],
            peers: vec![peer("box", None, 0, None), peer("nas", head, 2, Some(0)), peer("usb", head, 0, None)],
        };
        let (ui, page, _) = Ui::captured(false);
        print(&ui, &report, None).unwrap();
        assert_eq!(
            page.text(),
            "/docs at ababababab\nno daemon keeps it in step\nchange notes.txt\nleft out sub: a nested git repository\n\
             conflict a.md: the other version is a (conflict).md\n\
             held back from nas: 40 files of 50 deleted, as a and b; say `foldersync accept nas` or `foldersync reject nas`\n\
             peer box was never met\n\
             peer nas lacks 2 revisions, last seen 1970-01-01 00:00:00\npeer usb has everything\n"
        );
    }
}
