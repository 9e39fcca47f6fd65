//! The log: events of `tracing`, to standard error or to a file, for people or as JSON.
//!
//! Each event is one line, whatever names are in it: what could pass for another line, or do something to a terminal,
//! is escaped here, in one place. Secrets have no text form to begin with. A file is appended to and readable by its
//! owner alone; [`Log::reopen`] follows a rotation.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::env;

/// Where the log goes, and how much of it.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// The file that is appended to; without it, standard error.
    pub file: Option<PathBuf>,
    /// One JSON document a line.
    pub json: bool,
    /// Tell also what is only of interest in search of a mistake.
    pub verbose: bool,
    /// What is told, as `FOLDERSYNC_LOG` says it; it goes before `verbose`.
    pub filter: Option<String>,
}

impl LogOptions {
    /// The same, with what the environment says.
    #[must_use]
    pub fn with_environment(self) -> Self {
        let filter = env::FOLDERSYNC_LOG.get().map(|text| text.to_string_lossy().into_owned());
        Self { filter: filter.or(self.filter), ..self }
    }

    fn filter(&self) -> Result<EnvFilter, LogError> {
        let default = if self.verbose { "warn,foldersync=debug" } else { "warn,foldersync=info" };
        let text = self.filter.as_deref().unwrap_or(default);
        let invalid = |source| LogError::Filter { text: text.to_owned(), source };
        EnvFilter::builder().parse(text).map_err(invalid)
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What is to be told cannot be understood.
    #[error("`{text}` does not say what to log: {source}")]
    Filter {
        /// What was said.
        text: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The file cannot be written.
    #[error("cannot write the log {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is a log already.
    #[error("there is a log already: {0}")]
    Twice(#[from] TryInitError),
}

/// The running log.
#[derive(Debug, Clone)]
pub struct Log(Arc<Target>);

#[derive(Debug)]
struct Target {
    file: Option<(PathBuf, Mutex<File>)>,
    json: bool,
}

impl Log {
    /// Begins to log all events of the process.
    pub fn start(options: &LogOptions) -> Result<Self, LogError> {
        let log = Self::open(options)?;
        log.subscriber(options)?.try_init()?;
        Ok(log)
    }

    fn open(options: &LogOptions) -> Result<Self, LogError> {
        let file = match &options.file {
            Some(path) => {
                let failed = |source| LogError::File { path: path.clone(), source };
                Some((path.clone(), Mutex::new(append(path).map_err(failed)?)))
            }
            None => None,
        };
        Ok(Self(Arc::new(Target { file, json: options.json })))
    }

    fn subscriber(&self, options: &LogOptions) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LogError> {
        let builder =
            tracing_subscriber::fmt().with_env_filter(options.filter()?).with_ansi(false).with_writer(self.clone());
        Ok(if options.json { Box::new(builder.json().finish()) } else { Box::new(builder.finish()) })
    }

    /// Opens the file again by its name, after somebody has moved the old one away. Goes on with the old one if that
    /// fails.
    pub fn reopen(&self) -> Result<(), LogError> {
        if let Some((path, file)) = &self.0.file {
            let new = append(path).map_err(|source| LogError::File { path: path.clone(), source })?;
            *lock(file) = new;
        }
        Ok(())
    }
}

fn append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn lock(file: &Mutex<File>) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// Where one event is written, which comes as one piece.
#[derive(Debug)]
pub struct Line<'a>(&'a Target);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // JSON escapes by itself.
        let line = if self.0.json { bytes.to_vec() } else { one_line(bytes).into_bytes() };
        match &self.0.file {
            Some((_, file)) => lock(file).write_all(&line)?,
            None => io::stderr().lock().write_all(&line)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text as one line that no terminal and no reader takes for anything else.
fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let body = text.strip_suffix('\n').unwrap_or(&text);
    let mut line = String::with_capacity(text.len() + 1);
    for c in body.chars() {
        let hidden = matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || hidden { line.extend(c.escape_unicode()) } else { line.push(c) }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use tracing::subscriber::with_default;

    fn logged(json: bool, filter: Option<&str>, events: impl FnOnce()) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let filter = filter.map(str::to_owned);
        let options = LogOptions { file: Some(file.clone()), json, filter, ..LogOptions::default() };
        let log = Log::open(&options).unwrap();
        with_default(log.subscriber(&options).unwrap(), events);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::read_to_string(&file).unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let hostile = "a\nERROR forged\x1b[2J\u{202e}";
        let text = logged(false, None, || {
            tracing::info!(target: "foldersync::test", name = %hostile, "captured {hostile}");
            tracing::debug!(target: "foldersync::test", "not told");
            tracing::info!(target: "elsewhere", "not told");
            tracing::warn!(target: "elsewhere", "told");
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("\\u{a}ERROR forged") && !text.contains(['\x1b', '\u{202e}']), "{text}");
        assert!(text.ends_with("elsewhere: told\n"), "{text}");
    }

    #[test]
    fn json_is_one_document_a_line() {
        let text = logged(true, Some("foldersync=debug"), || {
            tracing::debug!(target: "foldersync::test", name = "a\nb", "done");
        });
        let document: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&document["fields"]["name"], &document["level"]), (&"a\nb".into(), &"DEBUG".into()));
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        let options = LogOptions { filter: Some("foldersync=loud".to_owned()), ..LogOptions::default() };
        assert!(matches!(options.filter(), Err(LogError::Filter { .. })));
        assert!(LogOptions { verbose: true, ..LogOptions::default() }.filter().is_ok());
    }

    #[test]
    fn a_rotated_file_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let options = LogOptions { file: Some(file.clone()), ..LogOptions::default() };
        let log = Log::open(&options).unwrap();
        with_default(log.subscriber(&options).unwrap(), || {
            tracing::warn!("one");
            fs::rename(&file, &old).unwrap();
            tracing::warn!("two");
            log.reopen().unwrap();
            tracing::warn!("three");
        });
        assert_eq!(fs::read_to_string(old).unwrap().lines().count(), 2);
        assert!(fs::read_to_string(file).unwrap().ends_with("three\n"));
    }
}
