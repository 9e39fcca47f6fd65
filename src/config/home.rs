//! The directory that configuration and keys are in, and how they are read and changed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::edit::Editor;
use super::env::{self, Variable};
use super::error::ConfigError;
use super::file;
use super::key::DeviceKey;
use super::name::Name;
use super::schema::Config;

/// The directory in the home for what the daemon keeps.
const STATE: &str = "state";

/// The directory of `config.toml` and `device.key`. It need not exist; it is made when something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The home at this directory.
    pub fn at(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The home that the environment names.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::named_by(Variable::get)
    }

    fn named_by(get: impl Fn(&Variable) -> Option<OsString>) -> Result<Self, ConfigError> {
        if let Some(dir) = get(&env::FOLDERSYNC_HOME) {
            return Ok(Self(dir.into()));
        }
        // By the XDG rules a relative path there counts as none.
        let xdg = get(&env::XDG_CONFIG_HOME).map(PathBuf::from).filter(|dir| dir.is_absolute());
        let config = xdg.or_else(|| get(&env::HOME).map(|home| Path::new(&home).join(".config")));
        config.map(|dir| Self(dir.join("foldersync"))).ok_or(ConfigError::NoHome)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The file that people may edit.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The file of the device's secret.
    pub fn key_file(&self) -> PathBuf {
        self.0.join("device.key")
    }

    /// What the configuration says; a file that is not there says nothing.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let path = self.config_file();
        Config::parse(&path, &read(&path)?)
    }

    /// Changes the configuration. Nothing is written if `change` fails, if it changes nothing, or if what it leaves
    /// would not be read again.
    pub fn edit<T, E: From<ConfigError>>(
        &self,
        change: impl FnOnce(&Config, &mut Editor) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.lock()?;
        let path = self.config_file();
        let old = read(&path)?;
        let config = Config::parse(&path, &old)?;
        let mut editor =
            Editor::new(&old, config.clone()).map_err(|error| invalid(&path, &old, error.span(), error.message()))?;
        let result = change(&config, &mut editor)?;
        let new = editor.finish();
        if new != old {
            Config::parse(&path, &new)?;
            // Where the file is a link into somebody's collection of dot-files, that file is the one to replace.
            let target = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            let mode = fs::metadata(&target).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
            file::replace(&target, new.as_bytes(), Mode::from_bits_truncate(mode))
                .map_err(|source| ConfigError::Write { path: target, source })?;
        }
        Ok(result)
    }

    /// The device's key, drawn and written when it is asked for the first time.
    pub fn device_key(&self) -> Result<DeviceKey, ConfigError> {
        let path = self.key_file();
        if let Some(key) = DeviceKey::read(&path)? {
            // A home that cannot be written serves as well; the key in it has been there before.
            drop(file::guard(&self.0));
            return Ok(key);
        }
        let _lock = self.lock()?;
        if let Some(made_meanwhile) = DeviceKey::read(&path)? {
            return Ok(made_meanwhile);
        }
        let written = file::guard(&self.0);
        written.map_err(|source| ConfigError::Write { path: self.0.join(file::RULES), source })?;
        DeviceKey::make(&path)
    }

    /// What the daemon keeps under this name in `state`; none where nothing is kept.
    pub fn read_state(&self, name: &str) -> Result<Option<Vec<u8>>, ConfigError> {
        let path = self.0.join(STATE).join(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Read { path, source }),
            Ok(content) => Ok(Some(content)),
        }
    }

    /// Keeps something in `state`, for the owner alone to read: whole, and durable before this returns.
    pub fn write_state(&self, name: &str, content: &[u8]) -> Result<(), ConfigError> {
        let dir = self.0.join(STATE);
        let path = dir.join(name);
        file::make_home(&self.0)
            .and_then(|()| file::make_private(&dir))
            .and_then(|()| file::replace(&path, content, Mode::RUSR | Mode::WUSR))
            .map_err(|source| ConfigError::Write { path, source })
    }

    /// Keeps other writers out until the file is dropped. A lock of a process that died is free.
    fn lock(&self) -> Result<File, ConfigError> {
        let path = self.0.join("config.lock");
        file::make_home(&self.0)
            .and_then(|()| File::options().create(true).append(true).open(&path))
            .and_then(|lock| lock.lock().map(|()| lock))
            .map_err(|source| ConfigError::Write { path, source })
    }
}

/// The host's name, as a name for the device.
pub fn host_name() -> Name {
    let told = ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|file| fs::read_to_string(file).ok());
    let host = told.as_deref().unwrap_or_default();
    Name::from_text(host.split('.').next().unwrap_or_default(), "device")
}

impl Config {
    /// What the text of a configuration says, which is that of the file `path` (for errors).
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| invalid(path, text, error.span(), error.message()))?;
        if let Some(flaw) = config.flaw() {
            let span = super::edit::span_of(text, &flaw.keys);
            return Err(invalid(path, text, span, &flaw.message));
        }
        Ok(config)
    }

    /// The device's name: as it is set, otherwise the host's.
    pub fn device_name(&self) -> Name {
        self.device.name.clone().unwrap_or_else(host_name)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        Ok(text) => Ok(text),
    }
}

fn invalid(path: &Path, text: &str, span: Option<Range<usize>>, message: &str) -> ConfigError {
    let span = span.unwrap_or(0..0);
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    ConfigError::Invalid {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        key: super::edit::key_at(text, &span),
        message: message.lines().map(str::trim).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Address, Direction, Limit, Pause, PeerSettings, Rate};
    use rstest::rstest;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn home_with(text: &str) -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        file::make_home(home.dir()).unwrap();
        fs::write(home.config_file(), text).unwrap();
        (dir, home)
    }

    #[rstest]
    #[case(&[("FOLDERSYNC_HOME", "/fs"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")], "/fs")]
    #[case(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")], "/x/foldersync")]
    #[case(&[("XDG_CONFIG_HOME", "relative"), ("HOME", "/h")], "/h/.config/foldersync")]
    fn is_where_the_environment_says(#[case] environment: &[(&str, &str)], #[case] dir: &str) {
        let get = |variable: &Variable| {
            environment.iter().find(|(name, _)| *name == variable.name).map(|(_, value)| OsString::from(value))
        };
        assert_eq!(Home::named_by(get).unwrap().dir(), Path::new(dir));
        assert!(matches!(Home::named_by(|_| None), Err(ConfigError::NoHome)));
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Home::at(dir.path().join("none")).load().unwrap(), Config::default());
        assert!(!dir.path().join("none").exists());
    }

    #[rstest]
    #[case(
        "[device]\nname = \"a\"\nports = 1\n",
        "3:1: `device.ports`: unknown field `ports`, expected one of `name`, `port`, `relay`, `relay_certificate`, `local_discovery`, `quiet`, `brake`, `free_space`"
    )]
    #[case("[device]\nname = 3\n", "2:8: `device.name`: invalid type: integer `3`, expected a string")]
    #[case("[folder.docs]\npath = \"docs\"\n", "2:8: `folder.docs.path`: `docs` is not an absolute path")]
    #[case(
        "[folder.a]\npath = \"/a\"\n[peer.nas]\naddress = \"/n\"\nfolders = [\"a\", \"b\"]\n",
        "5:17: `peer.nas.folders`: no folder is named `b`"
    )]
    fn a_mistake_is_named_with_its_place(#[case] text: &str, #[case] expected: &str) {
        let (_dir, home) = home_with(text);
        let error = home.load().unwrap_err().to_string();
        assert_eq!(error, format!("{}:{expected}", home.config_file().display()));
    }

    #[test]
    fn edits_keep_comments_and_what_they_do_not_touch() {
        let (_dir, home) = home_with(
            "# mine\n[folder.docs]\npath = \"/docs\"\n\n# the box in the cellar\n[peer.nas]\naddress = '/old' # mounted by hand\nfolders = [\"docs\"]\n",
        );
        home.edit(|config, editor| {
            let peer = &config.peers[&name("nas")];
            editor.set_peer(
                &name("nas"),
                &PeerSettings { address: Address::Path("/new".into()), direction: Direction::Send, ..peer.clone() },
            );
            editor.rename_peer(&name("nas"), &name("box"));
            editor.add_folder(&name("photos"), Path::new("/photos"))?;
            Ok::<_, ConfigError>(())
        })
        .unwrap();
        assert_eq!(
            fs::read_to_string(home.config_file()).unwrap(),
            "# mine\n[folder.docs]\npath = \"/docs\"\n\n[folder.photos]\npath = \"/photos\"\n\n# the box in the cellar\n[peer.box]\naddress = \"/new\" # mounted by hand\nfolders = [\"docs\"]\ndirection = \"send\"\n",
        );
        home.edit(|_, editor| {
            editor.remove_peer(&name("box"));
            Ok::<_, ConfigError>(())
        })
        .unwrap();
        assert_eq!(
            fs::read_to_string(home.config_file()).unwrap(),
            "# mine\n[folder.docs]\npath = \"/docs\"\n\n[folder.photos]\npath = \"/photos\"\n",
        );
    }

    #[test]
    fn an_edit_touches_the_settings_that_differ_and_no_others() {
        let (_dir, home) = home_with(
            "[folder.docs]\npath = \"/docs\"\npaused = true # moving\n\n[peer.nas]\naddress = \"me@nas:docs\"\nfolders = [\"docs\"]\nevery = \"60m\" # an hour\nupload = \"2000kB/s\"\nlimits = [ # by day\n  { from = \"8:00\", to = \"18:00\", upload = \"1kB/s\" },\n]\n\n[peer.nas.directions]\n# mine\ndocs = \"send\"\n",
        );
        let change = |change: &dyn Fn(&mut PeerSettings)| {
            home.edit(|config, editor| {
                let mut peer = config.peers[&name("nas")].clone();
                change(&mut peer);
                editor.set_peer(&name("nas"), &peer);
                Ok::<_, ConfigError>(())
            })
            .unwrap();
            fs::read_to_string(home.config_file()).unwrap()
        };
        let before = fs::read_to_string(home.config_file()).unwrap();
        assert_eq!(change(&|_| {}), before);
        let paused = change(&|peer| {
            peer.paused = Pause::Until(crate::clock::Timestamp::new(0, 0));
            peer.rates.upload = Rate::new(5);
        });
        let expected =
            before.replace("2000kB/s", "5B/s").replace("},\n]\n", "},\n]\npaused = \"1970-01-01T00:00:00Z\"\n");
        assert_eq!(paused, expected);
        assert_eq!(home.load().unwrap().peers[&name("nas")].rates.upload, Rate::new(5));
        let cleared = change(&|peer| {
            peer.paused = Pause::No;
            peer.rates.upload = None;
            peer.rates.limits = Limit::parse_list("[{ days = [\"sun\"], download = \"1kB/s\" }]").unwrap();
            peer.schedule.every = None;
            peer.directions = [(name("docs"), Direction::Receive)].into();
        });
        assert_eq!(
            cleared,
            "[folder.docs]\npath = \"/docs\"\npaused = true # moving\n\n[peer.nas]\naddress = \"me@nas:docs\"\nfolders = [\"docs\"]\nlimits = [{ download = \"1kB/s\", days = [\"sun\"] }]\n\n[peer.nas.directions]\n# mine\ndocs = \"receive\"\n"
        );
        home.edit(|_, editor| {
            editor.pause_folder(&name("docs"), Pause::No);
            Ok::<_, ConfigError>(())
        })
        .unwrap();
        assert_eq!(home.load().unwrap().folders[&name("docs")].paused, Pause::No);
    }

    #[test]
    fn secrets_stay_out_of_a_folder_around_the_home() {
        let dir = tempfile::tempdir().unwrap();
        let rules = |home: &Home| fs::read_to_string(home.dir().join(".gitignore"));
        let home = Home::at(dir.path().join("made"));
        home.edit(|_, editor| editor.add_folder(&name("a"), Path::new("/a"))).unwrap();
        assert!(rules(&home).unwrap().lines().any(|line| line == "device.key"));
        // One that was there before gets them with the key, and what a person wrote stays.
        let home = Home::at(dir.path().join("there"));
        fs::create_dir(home.dir()).unwrap();
        home.device_key().unwrap();
        assert!(rules(&home).unwrap().contains("\nstate/\n"));
        fs::write(home.dir().join(".gitignore"), "mine\n").unwrap();
        home.device_key().unwrap();
        assert_eq!(rules(&home).unwrap(), "mine\n");
        fs::remove_file(home.dir().join(".gitignore")).unwrap();
        home.device_key().unwrap();
        assert!(rules(&home).unwrap().contains("\ncontrol.sock\n"));
    }

    #[test]
    fn an_edit_that_fails_writes_nothing() {
        let (_dir, home) = home_with("# mine\n");
        let refused = home.edit(|_, editor| {
            editor.add_folder(&name("a"), Path::new("/a"))?;
            Err::<(), _>(ConfigError::NoHome)
        });
        assert!(refused.is_err());
        assert_eq!(fs::read_to_string(home.config_file()).unwrap(), "# mine\n");
    }

    #[test]
    fn an_edit_writes_through_a_link_and_leaves_no_other_file() {
        let (dir, home) = home_with("");
        let target = dir.path().join("dotfile");
        fs::write(&target, "# mine\n").unwrap();
        fs::remove_file(home.config_file()).unwrap();
        std::os::unix::fs::symlink(&target, home.config_file()).unwrap();
        home.edit(|_, editor| editor.add_folder(&name("a"), Path::new("/a"))).unwrap();
        assert!(fs::symlink_metadata(home.config_file()).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().starts_with("# mine\n\n[folder.a]\n"));
        let mut files: Vec<_> = fs::read_dir(home.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, [".gitignore", "config.lock", "config.toml"]);
    }

    #[test]
    fn writers_at_the_same_moment_all_keep_their_change() {
        let (_dir, home) = home_with("");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let home = &home;
                scope.spawn(move || {
                    home.edit(|_, editor| editor.add_folder(&name(&format!("f{n}")), Path::new("/f"))).unwrap();
                    home.device_key().unwrap()
                });
            }
        });
        assert_eq!(home.load().unwrap().folders.len(), 8);
    }
}
