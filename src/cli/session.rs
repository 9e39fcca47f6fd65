//! One run of the command: what was typed for all commands, and what they all need.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::error::{CommandError, Kind};
use super::global::Global;
use super::paths;
use super::registry;
use super::ui::Ui;
use crate::clock::SystemClock;
use crate::config::{Config, Home};
use crate::engine::{Context, Device, Folder};
use crate::guard::Guards;
use crate::monitor::{Monitor, Silent};

/// One run of the command.
pub(crate) struct Session {
    global: Global,
    ui: Ui,
}

impl Session {
    /// A run with these options.
    pub(crate) fn new(global: Global) -> Self {
        let ui = Ui::new(&global);
        Self { global, ui }
    }

    /// Where what is said goes.
    pub(crate) const fn ui(&self) -> &Ui {
        &self.ui
    }

    /// The directory that was named by `--folder`.
    pub(crate) fn named_folder(&self) -> Option<&Path> {
        self.global.folder.as_deref()
    }

    /// The current directory.
    pub(crate) fn current_dir() -> Result<PathBuf, CommandError> {
        env::current_dir().map_err(|error| {
            CommandError::new(Kind::Failed, format!("cannot tell the current directory: {error}"))
                .with_hint("change to a directory that exists")
        })
    }

    /// A path as typed, made absolute; links in it stay.
    pub(crate) fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
        if path.as_os_str().is_empty() {
            return Err(CommandError::usage("an empty text is no path"));
        }
        let path = if path.is_absolute() { path.to_owned() } else { Self::current_dir()?.join(path) };
        Ok(paths::normalize(&path))
    }

    /// Where configuration and keys are.
    pub(crate) fn home(&self) -> Result<Home, CommandError> {
        match &self.global.home {
            Some(dir) => Ok(Home::at(Self::absolute(dir)?)),
            None => Ok(Home::from_environment()?),
        }
    }

    /// The configuration.
    pub(crate) fn config(&self) -> Result<Config, CommandError> {
        Ok(self.home()?.load()?)
    }

    /// This device, with its key made if it has none.
    pub(crate) fn device(&self) -> Result<Device, CommandError> {
        let home = self.home()?;
        let config = home.load()?;
        Ok(Device { id: home.device_key()?.id(), name: config.device_name().to_string() })
    }

    /// What the engine works with.
    pub(crate) fn context(&self) -> Context {
        Self::context_with(self.ui.monitor(), Guards::default())
    }

    /// What the engine works with in the folder at `root`. Settings that cannot be read are no reason to do without
    /// guards; who needs them says what is wrong.
    pub(crate) fn context_of(&self, root: &Path) -> Context {
        let config = self.config().unwrap_or_default();
        Self::context_with(self.ui.monitor(), config.guards_of(registry::name_of(&config, root)))
    }

    /// The same, where nothing may be shown.
    pub(crate) fn silent_context() -> Context {
        Self::context_with(Arc::new(Silent), Guards::default())
    }

    fn context_with(monitor: Arc<dyn Monitor>, guards: Guards) -> Context {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Context { clock: Arc::new(SystemClock), monitor, threads, zone: jiff::tz::TimeZone::system(), guards }
    }

    /// The top of the folder that the command is about.
    pub(crate) fn root(&self) -> Result<PathBuf, CommandError> {
        let start = match self.named_folder() {
            Some(dir) => Self::absolute(dir)?,
            None => Self::current_dir()?,
        };
        Ok(Folder::discover(&start)?)
    }

    /// The folder that the command is about.
    pub(crate) fn folder(&self) -> Result<Folder, CommandError> {
        let root = self.root()?;
        Ok(Folder::open(&root, self.context_of(&root))?)
    }
}
