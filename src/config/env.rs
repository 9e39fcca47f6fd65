//! Every environment variable that foldersync heeds. Nothing else reads the environment.

use std::ffi::OsString;

/// An environment variable: its name, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it does, for the manual.
    pub what: &'static str,
}

impl Variable {
    /// Its value; an empty one is none.
    pub fn get(&self) -> Option<OsString> {
        std::env::var_os(self.name).filter(|value| !value.is_empty())
    }
}

/// Where configuration and keys are.
pub const FOLDERSYNC_HOME: Variable = Variable {
    name: "FOLDERSYNC_HOME",
    what: "The directory of the configuration and of the device's key. The option --home goes before it.",
};

/// The directory below which configuration is by default.
pub const XDG_CONFIG_HOME: Variable = Variable {
    name: "XDG_CONFIG_HOME",
    what: "Without FOLDERSYNC_HOME, that directory is foldersync below this one (an absolute path).",
};

/// The person's home directory.
pub const HOME: Variable =
    Variable { name: "HOME", what: "Without the two above, that directory is .config/foldersync below this one." };

/// No colours.
pub const NO_COLOR: Variable =
    Variable { name: "NO_COLOR", what: "Switches colours off, whatever its value. The option --color goes before it." };

/// The kind of terminal.
pub const TERM: Variable = Variable { name: "TERM", what: "Colours and progress bars are off where it is dumb." };

/// The local time zone.
pub const TZ: Variable =
    Variable { name: "TZ", what: "The time zone in which times are shown and understood, as Europe/Paris or UTC." };

/// The program that leads to other hosts.
pub const FOLDERSYNC_SSH: Variable =
    Variable { name: "FOLDERSYNC_SSH", what: "The program that is run in place of ssh, with the same arguments." };

/// The program that leads to other hosts.
pub fn ssh() -> OsString {
    FOLDERSYNC_SSH.get().filter(|program| !program.is_empty()).unwrap_or_else(|| "ssh".into())
}

/// What is logged.
pub const FOLDERSYNC_LOG: Variable = Variable {
    name: "FOLDERSYNC_LOG",
    what: "What the daemon logs: error, warn, info, debug or trace, also by part, as warn,foldersync=debug. It goes before --verbose.",
};

/// Where systemd listens; read by the crate that speaks to it.
pub const NOTIFY_SOCKET: Variable =
    Variable { name: "NOTIFY_SOCKET", what: "Set by systemd: where it is told how the daemon does." };

/// How often systemd wants a sign of life; read by the crate that speaks to it.
pub const WATCHDOG_USEC: Variable =
    Variable { name: "WATCHDOG_USEC", what: "Set by systemd: the time after which it takes a silent daemon for dead." };

/// All of them.
pub const ALL: [Variable; 10] = [
    FOLDERSYNC_HOME,
    FOLDERSYNC_LOG,
    FOLDERSYNC_SSH,
    XDG_CONFIG_HOME,
    HOME,
    NO_COLOR,
    TERM,
    TZ,
    NOTIFY_SOCKET,
    WATCHDOG_USEC,
];
