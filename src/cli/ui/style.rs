//! The few colours, by what they mean.

use clap::builder::styling::{AnsiColor, Effects, Style};

/// Something new, or an added line.
pub(crate) const ADDED: Style = AnsiColor::Green.on_default();
/// Something gone, or a removed line.
pub(crate) const REMOVED: Style = AnsiColor::Red.on_default();
/// Something changed.
pub(crate) const CHANGED: Style = AnsiColor::Yellow.on_default();
/// Where in a file a difference is.
pub(crate) const PLACE: Style = AnsiColor::Cyan.on_default();
/// An id, a time: there when it is looked for.
pub(crate) const FAINT: Style = Style::new().effects(Effects::DIMMED);
/// A heading.
pub(crate) const HEADING: Style = Style::new().effects(Effects::BOLD);
/// The word `error`.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// The word `warning`.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().effects(Effects::BOLD);
/// The word `hint`.
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().effects(Effects::BOLD);

/// The style of a change.
pub(crate) fn of_verb(verb: &str) -> Style {
    match verb {
        "add" => ADDED,
        "delete" => REMOVED,
        "change" => CHANGED,
        _ => Style::new(),
    }
}
