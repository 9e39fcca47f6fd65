//! `foldersync repair`

use std::io::Write;

use super::verify;
use crate::cli::alone::Alone;
use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::registry;
use crate::cli::session::Session;
use crate::cli::ui::format::count;
use crate::config::{ConfigError, Name};
use crate::engine::{Folder, Wait};

/// Mend what is damaged in the folder's repository
///
/// What `verify` finds is mended: what is missing or damaged is taken from the files on disk where they still have it,
/// and otherwise fetched from the peers, all of the folder's or those that are named. Whatever comes is compared with the
/// id of what is lost. Damaged files are put aside in the repository's folder `foldersync/damaged`, and never deleted.
/// Nothing is guessed: what cannot be known is told, with what there is to choose from; what no peer has is named.
///
/// It ends with 0 when all is well again, and with 5 when something remains.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync repair\n  foldersync repair nas\n  foldersync --folder ~/docs repair"
)]
pub(crate) struct Args {
    /// Peers to ask; without them, all of the folder's
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// Wait while another process is at work in the folder
    #[arg(long)]
    wait: bool,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let root = session.root()?;
    let config = session.config()?;
    if let Some(name) = args.peers.iter().find(|name| config.peers.keys().all(|known| known.as_str() != **name)) {
        let known = config.peers.keys().cloned().collect();
        return Err(ConfigError::UnknownPeer { name: name.clone(), known }.into());
    }
    let (folder, restored) = Folder::open_for_repair(&root, session.context())?;
    let mut repair = folder.repair(if args.wait { Wait::Forever } else { Wait::No })?;
    repair.note(restored);
    if let Some(name) = registry::name_of(&config, &root).cloned() {
        let mut alone = Alone::new(session, &config);
        let peers: Vec<Name> = config.peers_of(&name).map(|(peer, _)| peer.clone()).collect();
        for peer in peers {
            let meant = args.peers.is_empty() || args.peers.iter().any(|name| name == peer.as_str());
            if meant && repair.lacks() {
                alone.ask(&mut repair, &folder, &name, &peer)?;
            }
        }
    }
    let report = repair.finish()?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&report)?;
    } else {
        let mut out = ui.out();
        for done in &report.mended {
            out.text(done)?;
            writeln!(out)?;
        }
        for asked in &report.asked {
            out.text(&asked.peer)?;
            write!(out, " brought {}", count(asked.brought, "object"))?;
            if let Some(failed) = &asked.failed {
                write!(out, ": ")?;
                out.text(failed)?;
            }
            writeln!(out)?;
        }
        for choice in &report.choices {
            out.text(choice)?;
            writeln!(out)?;
        }
        out.finish()?;
        verify::tell(ui, &report.after)?;
        if report.after.problems.iter().any(|problem| problem.contains("cannot be had")) {
            ui.hint("what is lost may be with a peer that was not asked or not reached, or in a backup: put back a pack from it, and repair again");
        }
    }
    Ok(if report.after.problems.is_empty() { ExitCode::Done } else { ExitCode::Damaged })
}
