//! The errors that a person sees: what kind, what happened, what to do next.
//!
//! Errors of the layers below become a [`CommandError`] here and nowhere else; it is printed once, by
//! [`CommandError::print`]: `error: ...`, then, after an empty line, `hint: ...`.

use std::error::Error;
use std::io;

use serde::Serialize;

use super::exit::ExitCode;
use super::ui::Ui;
use crate::config::ConfigError;
use crate::engine::revspec::RevError;
use crate::engine::{EngineError, Failure};

/// What kind of failure an error is; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It did not work out.
    Failed,
    /// The command is wrong.
    Usage,
    /// The configuration is wrong.
    Config,
    /// A peer could not be reached.
    Unreachable,
    /// A repository or a bundle is damaged.
    Damaged,
    /// It was refused.
    Refused,
    /// Another process is at work in the folder.
    Busy,
    /// Who read standard output has had enough; not an error.
    #[serde(skip)]
    BrokenPipe,
}

impl Kind {
    /// The exit code that tells it.
    pub const fn exit_code(self) -> ExitCode {
        match self {
            Self::Failed => ExitCode::Failed,
            Self::Usage | Self::Config => ExitCode::Usage,
            Self::Unreachable => ExitCode::Unreachable,
            Self::Damaged => ExitCode::Damaged,
            Self::Refused => ExitCode::Refused,
            Self::Busy => ExitCode::Busy,
            Self::BrokenPipe => ExitCode::Done,
        }
    }
}

impl From<Failure> for Kind {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Failed => Self::Failed,
            Failure::Usage => Self::Usage,
            Failure::Unreachable => Self::Unreachable,
            Failure::Damaged => Self::Damaged,
            Failure::Refused => Self::Refused,
            Failure::Busy => Self::Busy,
        }
    }
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub struct CommandError {
    /// What kind of failure it is.
    pub kind: Kind,
    message: String,
    hints: Vec<String>,
}

/// An error as `--json` prints it on standard error, and among the results of an exchange.
#[derive(Debug, Serialize)]
pub struct ErrorDocument<'a> {
    kind: Kind,
    message: &'a str,
    hint: Option<String>,
}

impl CommandError {
    /// An error of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new() }
    }

    /// The command was used wrongly.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// An error of this kind, told by `error` and what lies beneath it.
    pub fn from_source(kind: Kind, error: &dyn Error) -> Self {
        Self::new(kind, chain(error))
    }

    /// The same, with something that a person can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error as it stands in a JSON document.
    pub fn document(&self) -> ErrorDocument<'_> {
        let hint = (!self.hints.is_empty()).then(|| self.hints.join("\n"));
        ErrorDocument { kind: self.kind, message: &self.message, hint }
    }

    /// Tells the person, or the script, on standard error.
    pub fn print(&self, ui: &Ui) {
        if self.kind == Kind::BrokenPipe {
            return;
        }
        if ui.is_json() {
            #[derive(Serialize)]
            struct Document<'a> {
                error: ErrorDocument<'a>,
            }
            ui.error_json(&Document { error: self.document() });
        } else {
            ui.error(&self.message, &self.hints);
        }
    }

    /// Tells the person, naming what it is about; for errors that do not end the command.
    pub fn print_for(&self, ui: &Ui, about: &str) {
        ui.error(&format!("{about}: {}", self.message), &self.hints);
    }
}

/// The error's text and those of its sources, each unless the one above it says the same already.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = error.source();
    }
    text
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        let hint = error.hint();
        let told = Self::from_source(error.failure().into(), &error);
        hint.into_iter().fold(told, Self::with_hint)
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let kind = match &error {
            ConfigError::Write { .. } | ConfigError::NoRandom { .. } => Kind::Failed,
            ConfigError::UnknownPeer { .. } | ConfigError::PeerTaken { .. } => Kind::Usage,
            _ => Kind::Config,
        };
        error.hint().into_iter().fold(Self::from_source(kind, &error), Self::with_hint)
    }
}

impl From<RevError> for CommandError {
    fn from(error: RevError) -> Self {
        Self::from_source(Kind::Usage, &error)
    }
}

/// Standard output could not be written.
impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Kind::BrokenPipe, "")
        } else {
            Self::new(Kind::Failed, format!("cannot write to standard output: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("the key is lost")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot go out: {0}")]
    struct Telling(#[source] Outer);

    #[test]
    fn tells_each_cause_once() {
        assert_eq!(chain(&Outer(Inner)), "cannot open the door: the key is lost");
        assert_eq!(chain(&Telling(Outer(Inner))), "cannot go out: cannot open the door: the key is lost");
    }

    #[rstest]
    #[case(Failure::Failed, 1)]
    #[case(Failure::Usage, 2)]
    #[case(Failure::Unreachable, 4)]
    #[case(Failure::Damaged, 5)]
    #[case(Failure::Refused, 6)]
    #[case(Failure::Busy, 75)]
    fn each_failure_has_its_exit_code(#[case] failure: Failure, #[case] number: u8) {
        assert_eq!(Kind::from(failure).exit_code().number(), number);
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let error = CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.kind.exit_code(), ExitCode::Done);
        let (ui, _, err) = Ui::captured(false);
        error.print(&ui);
        assert_eq!(err.text(), "");
    }

    #[test]
    fn prints_the_error_then_the_hints() {
        let (ui, _, err) = Ui::captured(false);
        CommandError::usage("no such thing").with_hint("try another").print(&ui);
        assert_eq!(err.text(), "error: no such thing\n\nhint: try another\n");
    }

    #[test]
    fn prints_json_for_scripts() {
        let (ui, _, err) = Ui::captured(true);
        CommandError::new(Kind::Busy, "at work").with_hint("wait").print(&ui);
        assert_eq!(err.text(), "{\"error\":{\"kind\":\"busy\",\"message\":\"at work\",\"hint\":\"wait\"}}\n");
    }
}
