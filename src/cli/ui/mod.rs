//! All that is said to a person or a script passes here.
//!
//! Standard output holds data and nothing else: what a pipe may want. Everything else (summaries, warnings, hints,
//! progress, errors) goes to standard error. With `--json` standard output holds one document, and standard error
//! nothing but an error as a document. On a terminal, names from elsewhere are sanitised; a pipe gets them raw.

pub(crate) mod format;
pub(crate) mod progress;
pub(crate) mod sanitize;
pub(crate) mod style;
pub(crate) mod table;

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::builder::styling::Style;
use jiff::tz::TimeZone;
use serde::Serialize;

use self::progress::Progress;
use self::sanitize::sanitize;
use super::global::{Color, Global};
use crate::clock::Timestamp;
use crate::config::env;
use crate::monitor::{Monitor, Silent};
use crate::path::SyncPath;

/// What a stream leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stream {
    terminal: bool,
    color: bool,
}

/// Where what a command says goes.
pub struct Ui {
    json: bool,
    quiet: bool,
    verbose: bool,
    stdout: Stream,
    stderr: Stream,
    zone: TimeZone,
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    progress: Option<Arc<Progress>>,
}

impl Ui {
    /// The process's own streams.
    pub fn new(global: &Global) -> Self {
        let dumb = env::TERM.get().is_some_and(|term| term == "dumb");
        let stream = |terminal: bool| Stream {
            terminal,
            color: match global.color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => terminal && !dumb && env::NO_COLOR.get().is_none(),
            },
        };
        let stderr = stream(io::stderr().is_terminal());
        let bars = stderr.terminal && !dumb && !global.quiet && !global.json;
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            stdout: stream(io::stdout().is_terminal()),
            stderr,
            zone: TimeZone::system(),
            out: Mutex::new(Box::new(BufWriter::new(io::stdout()))),
            err: Mutex::new(Box::new(io::stderr())),
            progress: bars.then(|| Arc::new(Progress::start())),
        }
    }

    /// A screen that a test reads: pipes, UTC, and what was written to each.
    #[cfg(test)]
    pub(crate) fn captured(json: bool) -> (Self, Page, Page) {
        let (out, err) = (Page::default(), Page::default());
        let ui = Self {
            json,
            quiet: false,
            verbose: false,
            stdout: Stream::default(),
            stderr: Stream::default(),
            zone: TimeZone::UTC,
            out: Mutex::new(Box::new(out.clone())),
            err: Mutex::new(Box::new(err.clone())),
            progress: None,
        };
        (ui, out, err)
    }

    /// A terminal with colours that a test reads.
    #[cfg(test)]
    pub(crate) fn captured_terminal() -> (Self, Page, Page) {
        let (mut ui, out, err) = Self::captured(false);
        ui.stdout = Stream { terminal: true, color: true };
        ui.stderr = ui.stdout;
        (ui, out, err)
    }

    /// Whether a script reads.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether everything shall be told.
    pub const fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether a person reads what is said besides the data.
    pub const fn talks_to_a_terminal(&self) -> bool {
        self.stderr.terminal
    }

    /// Who hears how long work goes on.
    pub fn monitor(&self) -> Arc<dyn Monitor> {
        match &self.progress {
            Some(progress) => Arc::clone(progress) as Arc<dyn Monitor>,
            None if self.quiet || self.json => Arc::new(Silent),
            None => Arc::new(progress::NoticesOnly),
        }
    }

    /// Shows what another process tells of its work; nothing, when there is none.
    pub fn show_progress(&self, work: &[crate::daemon::Progress]) {
        if let Some(progress) = &self.progress {
            progress.show(work);
        }
    }

    /// A point in time as people read it.
    pub fn time(&self, time: Timestamp) -> String {
        format::time(time, &self.zone)
    }

    /// Standard output, for data. Flush it by [`Out::finish`].
    pub fn out(&self) -> Out<'_> {
        if let Some(progress) = &self.progress {
            progress.clear();
        }
        Out { stream: self.stdout, zone: &self.zone, to: lock(&self.out), broken: false }
    }

    /// Prints the one document of a command that was given `--json`.
    pub fn json(&self, document: &impl Serialize) -> io::Result<()> {
        let mut out = self.out();
        serde_json::to_writer(&mut out, document).map_err(io::Error::from)?;
        writeln!(out)?;
        out.finish()
    }

    /// A summary of what was done; nothing under `--quiet`.
    pub fn status(&self, text: &str) {
        if !self.quiet && !self.json {
            self.say(&format!("{}\n", self.for_stderr(text)));
        }
    }

    /// Something that went otherwise than wanted, and that a person can act on.
    pub fn warning(&self, text: &str) {
        if !self.json {
            self.say(&format!("{} {}\n", self.paint(style::WARNING, "warning:"), self.for_stderr(text)));
        }
    }

    /// What to do next; nothing under `--quiet`.
    pub fn hint(&self, text: &str) {
        if !self.quiet && !self.json {
            self.say(&format!("\n{} {}\n", self.paint(style::HINT, "hint:"), self.for_stderr(text)));
        }
    }

    pub(crate) fn error(&self, message: &str, hints: &[String]) {
        let mut text = format!("{} {}\n", self.paint(style::ERROR, "error:"), self.for_stderr(message));
        for (at, hint) in hints.iter().enumerate() {
            let gap = if at == 0 { "\n" } else { "" };
            text.push_str(&format!("{gap}{} {}\n", self.paint(style::HINT, "hint:"), self.for_stderr(hint)));
        }
        self.say(&text);
    }

    pub(crate) fn error_json(&self, document: &impl Serialize) {
        if let Ok(text) = serde_json::to_string(document) {
            self.say(&format!("{text}\n"));
        }
    }

    fn for_stderr<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.stderr.terminal {
            return Cow::Borrowed(text);
        }
        // Lines of our own making stay lines.
        let lines: Vec<_> = text.split('\n').map(|line| sanitize(line.as_bytes())).collect();
        Cow::Owned(lines.join("\n"))
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.stderr.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Writes to standard error. That nobody can be told of a failure to tell is taken as it is.
    fn say(&self, text: &str) {
        if let Some(progress) = &self.progress {
            progress.clear();
        }
        let mut err = lock(&self.err);
        drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard output while a command writes to it. What is written as it is (by [`Write`]) is for content and for text
/// of our own; names and texts from elsewhere go through the methods.
pub struct Out<'a> {
    stream: Stream,
    zone: &'a TimeZone,
    to: MutexGuard<'a, Box<dyn Write + Send>>,
    broken: bool,
}

impl Out<'_> {
    /// Whether a person looks at it.
    pub const fn is_terminal(&self) -> bool {
        self.stream.terminal
    }

    /// Whether who read it has gone.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// The bytes as this stream may show them: sanitised on a terminal, raw in a pipe.
    pub fn shown<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.stream.terminal {
            return Cow::Borrowed(bytes);
        }
        match sanitize(bytes) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }

    /// A path of the folder.
    pub fn path(&mut self, path: &SyncPath) -> io::Result<()> {
        let shown = self.shown(path.as_bytes());
        self.write_all(&shown)
    }

    /// A text that may come from elsewhere.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        let shown = self.shown(text.as_bytes());
        self.write_all(&shown)
    }

    /// The same in a style.
    pub fn styled(&mut self, style: Style, text: &str) -> io::Result<()> {
        if self.stream.color {
            write!(self, "{style}")?;
        }
        self.text(text)?;
        if self.stream.color {
            write!(self, "{style:#}")?;
        }
        Ok(())
    }

    /// A point in time as people read it.
    pub fn time(&self, time: Timestamp) -> String {
        format::time(time, self.zone)
    }

    /// Hands over what was written.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.broken = true;
        }
        result
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.to.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.to.flush();
        self.note(result)
    }
}

/// What was written to a screen that a test made.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Page(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Page {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0)).into_owned()
    }
}

#[cfg(test)]
impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::table::Table;
    use super::*;

    fn hostile() -> SyncPath {
        SyncPath::new("a\x1b[2Jb").unwrap()
    }

    #[test]
    fn a_pipe_gets_names_raw_and_a_terminal_gets_them_escaped() {
        let (ui, page, _) = Ui::captured(false);
        ui.out().path(&hostile()).unwrap();
        assert_eq!(page.text(), "a\x1b[2Jb");
        let (ui, page, _) = Ui::captured_terminal();
        ui.out().path(&hostile()).unwrap();
        assert_eq!(page.text(), "a\\u{1b}[2Jb");
    }

    #[test]
    fn what_is_said_on_a_terminal_is_sanitised_line_by_line() {
        let (ui, out, err) = Ui::captured_terminal();
        ui.warning("two\nlines \u{202e}x");
        assert!(err.text().ends_with("two\nlines \\u{202e}x\n"), "{:?}", err.text());
        assert_eq!(out.text(), "");
    }

    #[test]
    fn quiet_and_json_keep_summaries_and_hints_back() {
        for (json, quiet) in [(true, false), (false, true)] {
            let (mut ui, out, err) = Ui::captured(json);
            ui.quiet = quiet;
            ui.status("done");
            ui.hint("next");
            assert_eq!((out.text(), err.text()), (String::new(), String::new()));
        }
    }

    #[test]
    fn tables_line_up_what_is_shown() {
        let (ui, page, _) = Ui::captured_terminal();
        let mut table = Table::with_headings(&["name", "size"]);
        table.push(["a\tb", "1"]);
        table.push(["übung", "22"]);
        table.print(&mut ui.out()).unwrap();
        assert_eq!(page.text(), "NAME   SIZE\na\\tb   1\nübung  22\n");
    }

    #[test]
    fn a_reader_that_left_is_noticed() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut ui, _, _) = Ui::captured(false);
        ui.out = Mutex::new(Box::new(Gone));
        let mut out = ui.out();
        assert!(out.write_all(b"x").is_err() && out.is_broken());
    }
}
