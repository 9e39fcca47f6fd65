//! `foldersync log`

use std::ffi::OsString;
use std::io::{self, Write};

use clap::ValueHint;
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::exit::ExitCode;
use crate::cli::paths::Places;
use crate::cli::session::Session;
use crate::cli::ui::format::size;
use crate::cli::ui::{Out, style};
use crate::engine::report::Revision;
use crate::path::SyncPath;

/// So many revisions of a whole folder are shown on a terminal, unless more are asked for.
const SHOWN: usize = 50;

/// List the revisions of a file, or of the whole folder, newest first
///
/// The number before a revision of a file is what `show`, `diff` and `revert` take after the `@`. A file that was
/// deleted has its revisions still; one that was renamed is followed.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync log notes.txt\n  foldersync log --limit 10\n  foldersync log --json notes.txt"
)]
pub(crate) struct Args {
    /// The file; without it, the whole folder
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    file: Option<OsString>,
    /// List at most NUMBER revisions
    #[arg(long, short = 'n', value_name = "NUMBER")]
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    revisions: &'a [Revision],
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let folder = session.folder()?;
    let path = match &args.file {
        Some(file) => Places::new(folder.root(), &Session::current_dir()?).path(file)?,
        None => None,
    };
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&Document { revisions: &folder.log(path.as_ref(), args.limit)? })?;
        return Ok(ExitCode::Done);
    }
    let cut = path.is_none() && args.limit.is_none() && ui.out().is_terminal() && !ui.is_verbose();
    let limit = if cut { Some(SHOWN + 1) } else { args.limit };
    let revisions = folder.log(path.as_ref(), limit)?;
    let shown = if cut { &revisions[..revisions.len().min(SHOWN)] } else { &revisions[..] };
    let mut out = ui.out();
    print(&mut out, path.as_ref(), shown)?;
    out.finish()?;
    if shown.len() < revisions.len() {
        ui.hint("`--limit NUMBER` lists more, `--verbose` all");
    }
    Ok(ExitCode::Done)
}

fn print(out: &mut Out<'_>, asked: Option<&SyncPath>, revisions: &[Revision]) -> io::Result<()> {
    let width = |text: &str| text.chars().count();
    let numbers = revisions.iter().filter_map(|revision| revision.number).max().unwrap_or_default().to_string().len();
    let devices = revisions.iter().map(|revision| width(&revision.device)).max().unwrap_or_default();
    for revision in revisions {
        if let Some(number) = revision.number {
            write!(out, "{:>1$}  ", format!("@{number}"), numbers + 1)?;
        } else {
            out.styled(style::FAINT, &revision.commit.short())?;
            write!(out, "  ")?;
        }
        let time = out.time(revision.captured);
        write!(out, "{time}  ")?;
        out.text(&revision.device)?;
        write!(out, "{:1$}  ", "", devices - width(&revision.device))?;
        match asked {
            None => out.styled(style::of_verb(&revision.verb), &revision.subject)?,
            Some(asked) => {
                out.styled(style::of_verb(&revision.verb), &format!("{:<6}", revision.verb))?;
                let bytes = revision.size.map(size).unwrap_or_default();
                write!(out, "  {bytes:>10}  ")?;
                out.styled(style::FAINT, &revision.commit.short())?;
                if revision.path != *asked {
                    write!(out, "  as ")?;
                    out.path(&revision.path)?;
                }
            }
        }
        if let Some(old) = &revision.renamed_from {
            write!(out, "  (renamed from ")?;
            out.path(old)?;
            write!(out, ")")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::Ui;
    use crate::clock::Timestamp;
    use crate::id::CommitId;

    fn revision(number: Option<u64>, verb: &str, device: &str, size: Option<u64>) -> Revision {
        let path = SyncPath::new("notes.txt").unwrap();
        Revision {
            number,
            commit: CommitId::from_bytes([0xab; 20]),
            verb: verb.to_owned(),
            kind: None,
            content: None,
            size,
            modified: Timestamp::default(),
            captured: Timestamp::new(60, 0),
            device: device.to_owned(),
            subject: format!("{verb} {path}"),
            renamed_from: None,
            path,
        }
    }

    #[test]
    fn revisions_of_a_file_stand_under_one_another() {
        let path = SyncPath::new("notes.txt").unwrap();
        let mut revisions = [
            revision(Some(10), "delete", "nas", None),
            revision(Some(9), "change", "laptop", Some(2048)),
            revision(Some(1), "add", "laptop", Some(5)),
        ];
        revisions[2].path = SyncPath::new("old.txt").unwrap();
        let (ui, page, _) = Ui::captured(false);
        print(&mut ui.out(), Some(&path), &revisions).unwrap();
        let expected = [
            "@10  1970-01-01 00:01:00  nas     delete              ababababab",
            " @9  1970-01-01 00:01:00  laptop  change     2.0 KiB  ababababab",
            " @1  1970-01-01 00:01:00  laptop  add            5 B  ababababab  as old.txt",
        ];
        assert_eq!(page.text().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_folder_is_told_by_subjects() {
        let mut renamed = revision(None, "add", "nas", None);
        renamed.renamed_from = SyncPath::new("a.txt").ok();
        let (ui, page, _) = Ui::captured(false);
        print(&mut ui.out(), None, &[renamed]).unwrap();
        assert_eq!(page.text(), "ababababab  1970-01-01 00:01:00  nas  add notes.txt  (renamed from a.txt)\n");
    }
}
