//! `foldersync diff`

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
use crate::engine::report::DiffReport;

/// Show what differs between two revisions of a file, or between a revision and the file
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  foldersync diff notes.txt\n  foldersync diff notes.txt@3\n  foldersync diff notes.txt@3 notes.txt@5\n  foldersync diff -- 'odd@3'"
)]
pub(crate) struct Args {
    /// The older side: a file and its revision; without one, the newest
    #[arg(value_name = "FILE@A", value_hint = ValueHint::FilePath, required_unless_present = "literal")]
    from: Option<OsString>,
    /// The newer side; without it, the file as it stands on disk
    #[arg(value_name = "FILE@B", value_hint = ValueHint::FilePath)]
    to: Option<OsString>,
    /// A file whose newest revision is compared with the disk, whatever `@` is in its name
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, last = true, conflicts_with = "from")]
    literal: Option<OsString>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    from: &'a str,
    to: &'a str,
    from_size: Option<u64>,
    to_size: Option<u64>,
    changed: Option<u64>,
    binary: bool,
    text: Option<String>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<ExitCode, CommandError> {
    let folder = session.folder()?;
    let current = Session::current_dir()?;
    let places = Places::new(folder.root(), &current);
    let from = match (&args.from, &args.literal) {
        (Some(from), _) => places.file_rev(from)?,
        (None, Some(literal)) => places.newest(literal)?,
        (None, None) => return Err(CommandError::usage("no file is named")),
    };
    let to = args.to.as_deref().map(|to| places.file_rev(to)).transpose()?;
    let diff = folder.diff(&from, to.as_ref())?;
    let ui = session.ui();
    if ui.is_json() {
        ui.json(&Document {
            from: &diff.from_label,
            to: &diff.to_label,
            from_size: diff.from_size,
            to_size: diff.to_size,
            changed: diff.changed,
            binary: diff.text.is_none(),
            text: diff.text.as_deref().map(|text| String::from_utf8_lossy(text).into_owned()),
        })?;
    } else {
        let mut out = ui.out();
        print(&mut out, &diff)?;
        out.finish()?;
    }
    Ok(ExitCode::Done)
}

fn print(out: &mut Out<'_>, diff: &DiffReport) -> io::Result<()> {
    let Some(text) = &diff.text else {
        write!(out, "Binary files ")?;
        out.text(&diff.from_label)?;
        write!(out, " and ")?;
        out.text(&diff.to_label)?;
        return match (diff.changed, diff.to_size) {
            (Some(changed), Some(all)) => {
                writeln!(out, " differ: {} of {} changed", size(changed), size(all))
            }
            _ => writeln!(out, " differ"),
        };
    };
    if !out.is_terminal() {
        return out.write_all(text);
    }
    let mut in_hunk = false;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        in_hunk |= content.starts_with(b"@@");
        let style = match content.first() {
            Some(b'@') => style::PLACE,
            _ if !in_hunk => style::HEADING,
            Some(b'+') => style::ADDED,
            Some(b'-') => style::REMOVED,
            _ => clap::builder::styling::Style::new(),
        };
        // Tabs are harmless and belong to the text.
        for (at, part) in content.split(|&byte| byte == b'\t').enumerate() {
            if at > 0 {
                out.write_all(b"\t")?;
            }
            let part = out.shown(part).into_owned();
            out.styled(style, &String::from_utf8_lossy(&part))?;
        }
        if line.ends_with(b"\n") {
            writeln!(out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::Ui;

    fn diff(text: Option<&str>) -> DiffReport {
        DiffReport {
            from_label: "notes.txt@1".to_owned(),
            to_label: "notes.txt".to_owned(),
            text: text.map(|text| text.as_bytes().to_vec()),
            from_size: Some(1),
            to_size: Some(2),
            changed: None,
        }
    }

    const TEXT: &str = "--- notes.txt@1\n+++ notes.txt\n@@ -1 +1 @@\n-a\tb\n+\x1b[2J\n--- rule\n same\n";

    #[test]
    fn a_pipe_gets_the_text_as_it_is() {
        let (ui, page, _) = Ui::captured(false);
        print(&mut ui.out(), &diff(Some(TEXT))).unwrap();
        assert_eq!(page.text(), TEXT);
    }

    #[test]
    fn a_terminal_gets_colours_and_nothing_that_moves_its_cursor() {
        let (ui, page, _) = Ui::captured_terminal();
        print(&mut ui.out(), &diff(Some(TEXT))).unwrap();
        let shown = page.text();
        assert!(shown.contains("\x1b[31m-a\x1b[0m\t\x1b[31mb\x1b[0m\n"), "{shown:?}");
        assert!(shown.contains("\x1b[32m+\\u{1b}[2J\x1b[0m\n"), "{shown:?}");
        assert!(shown.contains("\x1b[31m--- rule\x1b[0m\n"), "a removed line, not a heading: {shown:?}");
        assert!(shown.ends_with(" same\n"), "{shown:?}");
    }

    #[test]
    fn binary_files_say_so() {
        let (ui, page, _) = Ui::captured(false);
        print(&mut ui.out(), &diff(None)).unwrap();
        assert_eq!(page.text(), "Binary files notes.txt@1 and notes.txt differ\n");
    }
}
