//! The engine's reports, as people read them.

use std::io::{self, Write};

use super::error::{CommandError, Kind};
use super::exit::ExitCode;
use super::ui::format::{count, list, size};
use super::ui::{Out, Ui, style};
use crate::engine::report::{CaptureReport, Conflict, ExchangeReport, Held, LeftOut, PathChange, RevertReport};

/// So many lines of one sort are shown to a person who did not ask for all.
const SHOWN: usize = 20;

/// Changes, one a line: `add notes.txt`. A terminal gets the first of them, a pipe all.
pub(crate) fn changes(ui: &Ui, out: &mut Out<'_>, changes: &[PathChange]) -> io::Result<()> {
    let shown = if out.is_terminal() && !ui.is_verbose() { changes.len().min(SHOWN) } else { changes.len() };
    for change in &changes[..shown] {
        out.styled(style::of_verb(change.verb), change.verb)?;
        write!(out, " ")?;
        out.path(&change.path)?;
        writeln!(out)?;
    }
    if shown < changes.len() {
        writeln!(out, "... and {} more (`--verbose` lists them)", changes.len() - shown)?;
    }
    Ok(())
}

/// `3 revisions (2 added, 1 deleted)`.
pub(crate) fn captured(report: &CaptureReport) -> String {
    let parts = [(report.added, "added"), (report.changed, "changed"), (report.deleted, "deleted")];
    let parts: Vec<_> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    format!("{} ({})", count(report.revisions(), "revision"), parts.join(", "))
}

/// Warns of what was left out.
pub(crate) fn left_out(ui: &Ui, left_out: &[LeftOut]) {
    let shown = if ui.is_verbose() { left_out.len() } else { left_out.len().min(SHOWN) };
    for one in &left_out[..shown] {
        ui.warning(&format!("left out {}: {}", one.path, one.why));
    }
    if shown < left_out.len() {
        ui.warning(&format!("left out {} more (`--verbose` names them)", left_out.len() - shown));
    }
}

/// Warns of conflict copies that were made, and says how to end a conflict.
pub(crate) fn conflicts(ui: &Ui, conflicts: &[Conflict]) {
    for conflict in conflicts {
        ui.warning(&format!(
            "{} is in conflict; the version of {} is {}",
            conflict.path, conflict.device, conflict.copy
        ));
    }
    if !conflicts.is_empty() {
        ui.hint("`foldersync conflicts resolve FILE --ours`, `--theirs` or `--both` ends a conflict");
    }
}

/// What is held back, in one line: `nas: 40 files of 50 deleted, as a.txt and b.txt`.
pub(crate) fn held(held: &Held) -> String {
    let examples: Vec<_> = held.examples.iter().map(ToString::to_string).collect();
    let examples = if examples.is_empty() { String::new() } else { format!(", as {}", list(&examples)) };
    format!("{}: {}{examples}", held.peer, held.words())
}

/// That a mass change is held back, and what can be said to that.
pub(crate) fn held_back(peer: &str, change: &Held) -> CommandError {
    CommandError::new(Kind::Refused, format!("a mass change is held back from {}", held(change))).with_hint(format!(
        "`foldersync accept {peer}` applies it, `foldersync reject {peer}` gives back what it takes away; until then the \
         folder stays as it is here, and what changes here is still sent"
    ))
}

/// That the disk is nearly full.
pub(crate) fn no_room(why: &str) -> CommandError {
    let hint = "make room on the disk, or set `free_space` in the configuration, and exchange again: what arrived whole is \
                kept, and what is new here was sent";
    CommandError::new(Kind::Failed, why).with_hint(hint)
}

/// What `revert`, `restore` and `conflicts resolve` did, and the exit code that tells it.
pub(crate) fn reverted(ui: &Ui, report: &RevertReport) -> io::Result<ExitCode> {
    if ui.is_json() {
        ui.json(report)?;
    } else {
        let mut out = ui.out();
        changes(ui, &mut out, &report.changes)?;
        out.finish()?;
        if !report.captured_first.is_empty() {
            let kept = count(report.captured_first.len() as u64, "revision");
            ui.status(&format!("captured what stood there first: {kept}"));
        }
        if report.changes.is_empty() && report.left_out.is_empty() {
            ui.status("nothing to change");
        }
        left_out(ui, &report.left_out);
    }
    Ok(ExitCode::left_out_if(!report.left_out.is_empty()))
}

/// Whether an exchange did anything that a person would want to hear of.
pub(crate) fn is_news(report: &ExchangeReport) -> bool {
    report.captured + report.sent + report.received + report.applied > 0
        || !report.conflicts.is_empty()
        || !report.notes.is_empty()
}

/// `captured 2, sent 3 revisions (1.2 KiB), received 1 revision (300 B), wrote 2 files`.
pub(crate) fn exchanged(report: &ExchangeReport) -> String {
    let mut parts = Vec::new();
    if report.captured > 0 {
        parts.push(format!("captured {}", count(report.captured, "revision")));
    }
    if report.sent > 0 {
        parts.push(format!("sent {} ({})", count(report.sent, "revision"), size(report.bytes_sent)));
    }
    if report.received > 0 {
        parts.push(format!("received {} ({})", count(report.received, "revision"), size(report.bytes_received)));
    }
    if report.applied > 0 {
        parts.push(format!("wrote {}", count(report.applied, "file")));
    }
    if !report.conflicts.is_empty() {
        parts.push(count(report.conflicts.len() as u64, "conflict"));
    }
    parts.extend(report.notes.iter().cloned());
    if parts.is_empty() { "nothing to do".to_owned() } else { list(&parts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::SyncPath;

    #[test]
    fn an_exchange_is_one_line() {
        let report =
            ExchangeReport { sent: 3, bytes_sent: 1229, received: 1, bytes_received: 300, ..Default::default() };
        assert_eq!(exchanged(&report), "sent 3 revisions (1.2 KiB) and received 1 revision (300 B)");
        assert!(is_news(&report));
        assert!(!is_news(&ExchangeReport { in_step: true, ..Default::default() }));
        assert_eq!(exchanged(&ExchangeReport::default()), "nothing to do");
    }

    #[test]
    fn a_capture_is_counted_by_what_it_did() {
        let report = CaptureReport { added: 2, deleted: 1, ..Default::default() };
        assert_eq!(captured(&report), "3 revisions (2 added, 1 deleted)");
    }

    #[test]
    fn a_terminal_gets_the_first_changes_and_a_pipe_all() {
        let many: Vec<_> =
            (0..25).map(|n| PathChange { verb: "add", path: SyncPath::new(format!("f{n}")).unwrap() }).collect();
        let (ui, page, _) = Ui::captured(false);
        changes(&ui, &mut ui.out(), &many).unwrap();
        assert_eq!(page.text().lines().count(), 25);
        let (ui, page, _) = Ui::captured_terminal();
        changes(&ui, &mut ui.out(), &many).unwrap();
        assert_eq!(page.text().lines().count(), 21);
        assert!(page.text().ends_with("... and 5 more (`--verbose` lists them)\n"));
        assert!(page.text().starts_with("\x1b[32madd\x1b[0m f0\n"));
    }

    #[test]
    fn what_was_left_out_is_a_warning_and_an_exit_code() {
        let (ui, out, err) = Ui::captured(false);
        let one = LeftOut { path: "pipe".to_owned(), why: "a fifo".to_owned() };
        let report = RevertReport { left_out: vec![one], ..Default::default() };
        assert_eq!(reverted(&ui, &report).unwrap(), ExitCode::LeftOut);
        assert_eq!((out.text().as_str(), err.text().as_str()), ("", "warning: left out pipe: a fifo\n"));
    }
}
