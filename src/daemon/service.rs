//! The daemon as a service of the person who runs it: the files of systemd and launchd, and asking systemd to heed
//! them.
//!
//! It writes and removes one file of its own name, and calls `systemctl --user`. What others have put in the place of
//! that file is replaced only if it is ours, as its first line says.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::config::env;

/// The name of the unit.
pub const UNIT: &str = "foldersync.service";
/// The name by which launchd knows the service.
pub const LABEL: &str = "org.foldersync.daemon";
/// How our unit begins.
const FIRST_LINE: &str = "# Written by `foldersync service install`, which replaces it.";

/// What runs as a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The program, by its absolute path.
    pub program: PathBuf,
    /// The home that is given to it, if it is not the usual one.
    pub home: Option<PathBuf>,
}

/// Why the service could not be installed, removed or asked about.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no systemd.
    #[error("there is no `systemctl` here, so no systemd that could run the service")]
    NoSystemd,
    /// Systemd refused.
    #[error("`systemctl --user {command}` failed: {said}")]
    Systemd {
        /// What it was asked.
        command: String,
        /// What it said.
        said: String,
    },
    /// No one knows where units belong.
    #[error("neither XDG_CONFIG_HOME nor HOME says where units of systemd belong")]
    NoHome,
    /// A name cannot stand in a unit or a property list.
    #[error("{} cannot be written into a service file: it is not plain UTF-8", path.display())]
    Name {
        /// Which.
        path: PathBuf,
    },
    /// Somebody else's file has our name.
    #[error("{} was not written by foldersync", path.display())]
    NotOurs {
        /// Where.
        path: PathBuf,
    },
    /// The file cannot be written, read or removed.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ServiceError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSystemd => Some(
                "`foldersync service install --print` prints the unit; without systemd, have `foldersync serve` started at login, or `foldersync exchange` by cron",
            ),
            Self::Systemd { .. } => Some(
                "a service needs a login session with systemd's user manager: `systemctl --user status` tells more",
            ),
            Self::NotOurs { .. } => Some("move the file away, or edit it by hand"),
            _ => None,
        }
    }
}

/// How the service does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ServiceStatus {
    /// Its file.
    pub file: String,
    /// Whether the file is there.
    pub installed: bool,
    /// Whether it is started at login; null where systemd cannot be asked.
    pub enabled: Option<bool>,
    /// `active`, `inactive`, `failed`, ... as systemd says; null where it cannot be asked.
    pub state: Option<String>,
    /// What it last said of itself.
    pub said: Option<String>,
}

impl Service {
    /// The unit of systemd that runs it.
    pub fn systemd_unit(&self) -> Result<String, ServiceError> {
        let words = self.words()?;
        let start: Vec<_> = words.iter().map(|word| systemd_word(word)).collect();
        let start = start.join(" ");
        Ok(format!(
            "{FIRST_LINE}
[Unit]
Description=foldersync keeps folders in step between computers

[Service]
Type=notify
ExecStart={start}
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=90
Restart=on-failure
RestartSec=5
TimeoutStopSec=30
# Nothing here keeps it from the folders, the keys of ssh or the network.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"
        ))
    }

    /// The property list with which launchd runs it.
    pub fn launchd_plist(&self) -> Result<String, ServiceError> {
        let words = self.words()?;
        let words: Vec<_> = words.iter().map(|word| format!("        <string>{}</string>\n", xml_text(word))).collect();
        let words = words.concat();
        Ok(format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
    <key>Label</key>
    <string>{LABEL}</string>
    <key>ProgramArguments</key>
    <array>
{words}    </array>
    <key>RunAtLoad</key>
    <true/>
    <key>KeepAlive</key>
    <dict>
        <key>SuccessfulExit</key>
        <false/>
    </dict>
    <key>ExitTimeOut</key>
    <integer>30</integer>
</dict>
</plist>
"#
        ))
    }

    /// What is typed to run it.
    fn words(&self) -> Result<Vec<String>, ServiceError> {
        let text = |path: &Path| match path.to_str() {
            Some(text) if !text.contains(char::is_control) => Ok(text.to_owned()),
            _ => Err(ServiceError::Name { path: path.to_owned() }),
        };
        let mut words = vec![text(&self.program)?];
        if let Some(home) = &self.home {
            words.extend(["--home".to_owned(), text(home)?]);
        }
        words.push("serve".to_owned());
        Ok(words)
    }

    /// Writes the unit into `dir`; returns its path.
    pub fn write_unit(&self, dir: &Path) -> Result<PathBuf, ServiceError> {
        let unit = self.systemd_unit()?;
        let path = dir.join(UNIT);
        check_ours(&path)?;
        let failed = |source| ServiceError::Io { verb: "write", path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut new = tempfile::Builder::new().prefix(".foldersync-").tempfile_in(dir).map_err(failed)?;
        io::Write::write_all(&mut new, unit.as_bytes()).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        new.as_file().set_permissions(mode).map_err(failed)?;
        new.persist(&path).map_err(|error| failed(error.error))?;
        Ok(path)
    }
}

/// Removes our unit from `dir`; returns whether there was one.
pub fn remove_unit(dir: &Path) -> Result<bool, ServiceError> {
    let path = dir.join(UNIT);
    check_ours(&path)?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ServiceError::Io { verb: "remove", path, source }),
    }
}

/// Nothing may be there, or our file.
fn check_ours(path: &Path) -> Result<(), ServiceError> {
    match fs::read(path) {
        Ok(text) if text.starts_with(FIRST_LINE.as_bytes()) => Ok(()),
        Ok(_) => Err(ServiceError::NotOurs { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ServiceError::Io { verb: "read", path: path.to_owned(), source }),
    }
}

/// Where units of this person belong.
pub fn unit_dir() -> Result<PathBuf, ServiceError> {
    let xdg = env::XDG_CONFIG_HOME.get().map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = xdg.or_else(|| env::HOME.get().map(|home| Path::new(&home).join(".config")));
    config.map(|dir| dir.join("systemd/user")).ok_or(ServiceError::NoHome)
}

/// Systemd's manager of this person's services.
#[derive(Debug)]
pub struct Systemd {
    program: OsString,
}

impl Default for Systemd {
    fn default() -> Self {
        Self { program: "systemctl".into() }
    }
}

impl Systemd {
    /// Has it read the units again, and starts ours, now and at each login.
    pub fn enable(&self) -> Result<(), ServiceError> {
        self.ask(&["daemon-reload"])?;
        self.ask(&["enable", UNIT])?;
        self.ask(&["restart", UNIT]).map(drop)
    }

    /// Stops our unit, now and for good.
    pub fn disable(&self) -> Result<(), ServiceError> {
        self.ask(&["disable", "--now", UNIT]).map(drop)
    }

    /// Has it read the units again.
    pub fn reload(&self) -> Result<(), ServiceError> {
        self.ask(&["daemon-reload"]).map(drop)
    }

    /// How our unit, whose file belongs into `dir`, does.
    pub fn status(&self, dir: &Path) -> ServiceStatus {
        let file = dir.join(UNIT);
        let mut status =
            ServiceStatus { installed: file.exists(), file: file.display().to_string(), ..ServiceStatus::default() };
        let Ok(told) = self.ask(&["show", UNIT, "--property=UnitFileState,ActiveState,StatusText"]) else {
            return status;
        };
        for (key, value) in told.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "UnitFileState" => status.enabled = Some(value.starts_with("enabled")),
                "ActiveState" => status.state = Some(value.to_owned()),
                "StatusText" if !value.is_empty() => status.said = Some(value.to_owned()),
                _ => {}
            }
        }
        status
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, ServiceError> {
        let mut command = Command::new(&self.program);
        command.arg("--user").arg("--no-pager").args(arguments).stdin(Stdio::null());
        let output = match command.output() {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ServiceError::NoSystemd),
            Err(source) => return Err(ServiceError::Io { verb: "run", path: (&*self.program).into(), source }),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        let said = if said.is_empty() { output.status.to_string() } else { said };
        Err(ServiceError::Systemd { command: arguments.join(" "), said })
    }
}

/// A word of a command line in a unit.
fn systemd_word(word: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:=@".contains(byte) || !byte.is_ascii();
    if !word.is_empty() && OsStr::new(word).as_bytes().iter().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' | '$' => quoted.extend([c, c]),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A text in XML.
fn xml_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn service(program: &str, home: Option<&str>) -> Service {
        Service { program: program.into(), home: home.map(PathBuf::from) }
    }

    #[test]
    fn a_unit_says_what_to_run_whatever_its_name() {
        let unit = service("/usr/bin/foldersync", None).systemd_unit().unwrap();
        assert!(unit.contains("\nExecStart=/usr/bin/foldersync serve\n"), "{unit}");
        let unit = service("/opt/my programs/foldersync", Some("/h/50% \"x\" $y")).systemd_unit().unwrap();
        let start = "\nExecStart=\"/opt/my programs/foldersync\" --home \"/h/50%% \\\"x\\\" $$y\" serve\n";
        assert!(unit.contains(start), "{unit}");
        let plist = service("/a&b/foldersync", Some("/h <x>")).launchd_plist().unwrap();
        assert!(plist.contains("<string>/a&amp;b/foldersync</string>\n        <string>--home</string>\n        <string>/h &lt;x&gt;</string>\n        <string>serve</string>"), "{plist}");
        for hostile in ["/a\nExecStart=/bin/evil", "/a\0b"] {
            assert!(matches!(service(hostile, None).systemd_unit(), Err(ServiceError::Name { .. })));
        }
    }

    #[test]
    fn only_our_own_unit_is_replaced_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let units = dir.path().join("systemd/user");
        assert!(!remove_unit(&units).unwrap());
        let file = service("/usr/bin/foldersync", None).write_unit(&units).unwrap();
        service("/usr/local/bin/foldersync", None).write_unit(&units).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("=/usr/local/bin/foldersync serve"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(remove_unit(&units).unwrap());
        fs::write(&file, "[Unit]\n").unwrap();
        assert!(matches!(remove_unit(&units), Err(ServiceError::NotOurs { .. })));
        assert!(matches!(service("/x", None).write_unit(&units), Err(ServiceError::NotOurs { .. })));
        assert_eq!(fs::read_dir(&units).unwrap().count(), 1);
    }

    /// A program in the place of `systemctl`.
    fn systemctl(dir: &Path, script: &str) -> Systemd {
        let program = dir.join("systemctl");
        let staged = dir.join("staged");
        fs::write(&staged, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&staged, &program).unwrap();
        // A script is run by its shell, so that no descriptor of another test's child keeps it busy.
        Systemd { program: program.into() }
    }

    fn until_it_runs<T>(mut run: impl FnMut() -> Result<T, ServiceError>) -> Result<T, ServiceError> {
        loop {
            match run() {
                // Another test's child still has the script open for writing.
                Err(ServiceError::Io { source, .. }) if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
                done => return done,
            }
        }
    }

    #[test]
    fn systemd_is_asked_and_what_it_says_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let asks = systemctl(
            dir.path(),
            &format!(
                "echo \"$@\" >>{}\nprintf 'ActiveState=active\\nStatusText=2 folders\\nUnitFileState=enabled\\n'",
                log.display()
            ),
        );
        until_it_runs(|| asks.enable()).unwrap();
        until_it_runs(|| asks.disable()).unwrap();
        let asked = fs::read_to_string(&log).unwrap();
        assert!(
            asked.contains(
                "--user --no-pager enable foldersync.service\n--user --no-pager restart foldersync.service\n"
            ),
            "{asked}"
        );
        let status = asks.status(dir.path());
        assert_eq!((status.installed, status.enabled, status.state.as_deref()), (false, Some(true), Some("active")));
        assert_eq!(status.said.as_deref(), Some("2 folders"));

        let refuses = systemctl(dir.path(), "echo 'Failed to connect to bus' >&2; exit 1");
        let error = until_it_runs(|| refuses.enable()).unwrap_err();
        assert_eq!(error.to_string(), "`systemctl --user daemon-reload` failed: Failed to connect to bus");
        assert_eq!(refuses.status(dir.path()).state, None);

        let none = Systemd { program: dir.path().join("none").into() };
        assert!(matches!(none.enable(), Err(ServiceError::NoSystemd)));
    }
}
