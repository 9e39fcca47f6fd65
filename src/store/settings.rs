//! What a copy of a folder says of itself: the section `[foldersync]` of its repository's own config file.
//!
//! Only that file is read: no includes, no file of the user's or the system's, nothing from the work tree. Besides our
//! section only what tells whether the repository is of a form that foldersync knows is looked at.
//!
//! A change goes through git's own lock on the file, keeps everything else in it byte for byte, and lasts when the
//! function returns; a kill leaves the old file whole. Must not: be changed by who does not hold the folder's lock.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gix_config::file::Metadata;

use super::durable;
use super::error::StoreError;
use super::large;
use super::lock::GitLock;
use super::repository::NewIds;
use crate::id::{DeviceId, FolderId, ReplicaId};

/// The form of repository that this program makes and knows.
pub const VERSION: u32 = 1;

const SECTION: &str = "foldersync";

/// A key of the section that is not set once for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The folder's identity: that of the folder that was joined or cloned.
    Folder,
    /// The copy's identity, drawn anew when the repository turns out to be a copy of another.
    Replica,
    /// The name of the device whose copy it is.
    DeviceName,
    /// Whether the copy has taken over another's history since it was made.
    Joined,
}

impl Key {
    const fn word(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Replica => "replica",
            Self::DeviceName => "deviceName",
            Self::Joined => "joined",
        }
    }
}

/// What the copy says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder, the same on every device that has a copy.
    pub folder: FolderId,
    /// This copy.
    pub replica: ReplicaId,
    /// The device whose copy it is.
    pub device: Option<DeviceId>,
    /// That device's name.
    pub device_name: Option<String>,
    /// What [`Key::Joined`] was set to.
    pub joined: Option<String>,
    /// Files with more bytes are kept in chunks (`largeFileThreshold`, as `8m`).
    pub large_file_threshold: u64,
}

/// The config file of a repository, read.
pub(crate) struct Config {
    path: PathBuf,
    file: gix_config::File,
}

impl Config {
    /// Reads the config of the repository `git_dir`; `None` if there is none.
    pub(crate) fn read(git_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = git_dir.join("config");
        let bytes = match fs::read(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            bytes => bytes.map_err(StoreError::io("read", &path))?,
        };
        match gix_config::File::from_bytes_no_includes(
            &bytes,
            Metadata::api(),
            gix_config::file::init::Options::default(),
        ) {
            Ok(file) => Ok(Some(Self { path, file })),
            Err(error) => Err(StoreError::damaged(
                format!("`{}`", path.display()),
                format!("git could not read it ({error}); correct it, or put back the file of a backup"),
            )),
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.file.string(format!("{SECTION}.{key}").as_str()).map(|value| value.to_string())
    }

    /// Whether it is the config of a repository that foldersync made.
    pub(crate) fn is_ours(&self) -> bool {
        self.text("version").is_some()
    }

    /// Refuses forms of repository that this program does not know.
    pub(crate) fn check_form(&self) -> Result<(), StoreError> {
        let unfit = |reason: String| Err(StoreError::Unfit { reason });
        let path = self.path.display();
        let version = self.text("version").unwrap_or_default();
        match version.parse::<u32>() {
            Ok(VERSION) => {}
            Ok(newer) if newer > VERSION => {
                return unfit(format!(
                    "`{path}` says that the repository has format {newer}, and this foldersync knows none above \
                     {VERSION}: update foldersync"
                ));
            }
            _ => return Err(self.damaged("version", &version)),
        }
        // Git itself refuses these, and so must whoever writes beside it.
        let form = self.file.string("core.repositoryformatversion").unwrap_or_default();
        if !matches!(form.as_slice(), b"" | b"0" | b"1") {
            return unfit(format!(
                "`{path}` says that the repository has git's format {form}, and this foldersync knows none above 1: \
                 update foldersync"
            ));
        }
        // Extensions change how refs and objects are kept. These do not.
        let harmless = ["noop", "preciousobjects", "worktreeconfig", "relativeworktrees"];
        let extensions = self.file.sections_by_name("extensions").into_iter().flatten();
        let strange = extensions.flat_map(|section| section.value_names().collect::<Vec<_>>()).find(|name| {
            let is = |value: &str| {
                self.file
                    .string(format!("extensions.{name}").as_str())
                    .is_some_and(|set| set.eq_ignore_ascii_case(value.as_bytes()))
            };
            let name = name.to_ascii_lowercase();
            let usual = (name == "objectformat" && is("sha1")) || (name == "refstorage" && is("files"));
            !usual && !harmless.contains(&name.as_str())
        });
        match strange {
            Some(name) => unfit(format!(
                "`{path}` asks for git's extension `{name}`, which foldersync does not know; undo what set it"
            )),
            None => Ok(()),
        }
    }

    fn damaged(&self, key: &str, value: &str) -> StoreError {
        StoreError::damaged(
            format!("`{}`", self.path.display()),
            format!("`{SECTION}.{key}` is `{value}`; put back the file of a backup"),
        )
    }

    fn id<T: FromStr>(&self, key: &str) -> Result<Option<T>, StoreError> {
        self.text(key).map(|text| text.parse().map_err(|_| self.damaged(key, &text))).transpose()
    }

    /// What the copy says of itself.
    pub(crate) fn settings(&self) -> Result<Settings, StoreError> {
        Ok(Settings {
            folder: self.id("folder")?.ok_or_else(|| self.damaged("folder", ""))?,
            replica: self.id("replica")?.ok_or_else(|| self.damaged("replica", ""))?,
            device: self.id("device")?,
            device_name: self.text("deviceName"),
            joined: self.text("joined"),
            large_file_threshold: self.bytes("largeFileThreshold")?.unwrap_or(large::THRESHOLD),
        })
    }

    /// A number of bytes, as git reads them: `8388608`, `8192k` or `8m`.
    fn bytes(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let nonsense = || self.damaged(key, &self.text(key).unwrap_or_default());
        let bytes = self.file.integer(format!("{SECTION}.{key}").as_str()).map_err(|_| nonsense())?;
        bytes.map(|bytes| u64::try_from(bytes).map_err(|_| nonsense())).transpose()
    }
}

/// Sets `key` to `value`; lasting when it returns.
pub(crate) fn set(git_dir: &Path, key: Key, value: &str) -> Result<(), StoreError> {
    let path = git_dir.join("config");
    let mut lock = GitLock::take(&path)?;
    let mut config = Config::read(git_dir)?.ok_or_else(|| {
        StoreError::damaged(format!("`{}`", path.display()), "it is missing; put back that of a backup")
    })?;
    if config.text(key.word()).as_deref() == Some(value) {
        return Ok(());
    }
    // A line break would be kept by git, but not by people who read the file.
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let set = config.file.set_raw_value(format!("{SECTION}.{}", key.word()).as_str(), value.as_str());
    set.map_err(|error| StoreError::damaged(format!("`{}`", path.display()), error))?;
    lock.write(&config.file.to_bstring())?;
    drop(lock.publish()?);
    durable::sync_dir(git_dir)
}

/// The config of a new repository.
pub(crate) fn initial(ids: NewIds, alongside: bool) -> String {
    let NewIds { folder, replica, device } = ids;
    // A repository beside somebody's `.git` has to be told where its folder is.
    let worktree = if alongside { "\tworktree = ..\n" } else { "" };
    format!(
        "[core]\n\
         \trepositoryformatversion = 0\n\
         \tbare = false\n\
         {worktree}\
         \tfilemode = true\n\
         \tsymlinks = true\n\
         \tignorecase = false\n\
         \tprecomposeunicode = false\n\
         \tlogallrefupdates = false\n\
         # Bytes are bytes: see info/attributes too.\n\
         \tautocrlf = false\n\
         \tsafecrlf = false\n\
         # The index is foldersync's record of the disk as well: in a form that both read.\n\
         \tfsmonitor = false\n\
         \tuntrackedCache = false\n\
         \tsplitIndex = false\n\
         # Gives git the bytes of large files, which it has as lists of chunks.\n\
         [filter \"foldersync\"]\n\
         \tprocess = foldersync git-filter\n\
         \trequired = false\n\
         [index]\n\
         \tsparse = false\n\
         \tskipHash = false\n\
         # foldersync gathers its packs itself.\n\
         [gc]\n\
         \tauto = 0\n\
         [maintenance]\n\
         \tauto = false\n\
         [{SECTION}]\n\
         \tversion = {VERSION}\n\
         \tfolder = {folder}\n\
         \treplica = {replica}\n\
         \tdevice = {device}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Step, record};

    const IDS: NewIds = NewIds {
        folder: FolderId::from_bytes([1; 16]),
        replica: ReplicaId::from_bytes([2; 16]),
        device: DeviceId::from_bytes([3; 32]),
    };

    fn repository(extra: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config"), initial(IDS, false) + extra).unwrap();
        dir
    }

    fn read(dir: &tempfile::TempDir) -> Config {
        Config::read(dir.path()).unwrap().unwrap()
    }

    #[test]
    fn a_new_config_says_who_the_copy_is() {
        let dir = repository("");
        let settings = read(&dir).settings().unwrap();
        let NewIds { folder, replica, device } = IDS;
        assert_eq!(
            settings,
            Settings {
                folder,
                replica,
                device: Some(device),
                device_name: None,
                joined: None,
                large_file_threshold: 8 << 20
            }
        );
        assert!(read(&dir).is_ours());
        read(&dir).check_form().unwrap();
    }

    #[test]
    fn setting_a_key_keeps_everything_else_and_costs_one_sync_each_for_file_and_folder() {
        let extra = "; a note\n[remote \"x\"]\n    url = \"a b\"   # why\n";
        let dir = repository(extra);
        let before = fs::read_to_string(dir.path().join("config")).unwrap();
        let (result, steps) = record::steps(|| set(dir.path(), Key::DeviceName, "Anna's \"laptop\"; é #1\\"));
        result.unwrap();
        let steps: Vec<_> = steps.into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [Step::Write, Step::Sync, Step::Rename, Step::SyncDir]);
        assert_eq!(read(&dir).settings().unwrap().device_name.as_deref(), Some("Anna's \"laptop\"; é #1\\"));
        let after = fs::read_to_string(dir.path().join("config")).unwrap();
        let rest: Vec<_> = after.lines().filter(|line| !line.contains("deviceName")).collect();
        assert_eq!(rest, before.lines().collect::<Vec<_>>());
        set(dir.path(), Key::DeviceName, "nas").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("config")).unwrap().lines().count(), after.lines().count());
        let file = dir.path().join("config");
        let mut git = std::process::Command::new("git");
        git.args(["config", "-f"]).arg(file).arg("foldersync.deviceName");
        assert_eq!(git.output().unwrap().stdout, b"nas\n");
    }

    #[test]
    fn git_reads_a_name_with_every_special_sign_as_it_was_set() {
        let dir = repository("");
        let name = " a \"b\" \\ ; # é ";
        set(dir.path(), Key::DeviceName, name).unwrap();
        let file = dir.path().join("config");
        let mut git = std::process::Command::new("git");
        let output = git.args(["config", "-f"]).arg(file).arg("foldersync.deviceName").output().unwrap();
        assert_eq!(output.stdout, format!("{name}\n").as_bytes());
        assert_eq!(read(&dir).settings().unwrap().device_name.as_deref(), Some(name));
    }

    #[test]
    fn a_newer_format_is_refused_with_what_is_needed() {
        let dir = repository("[foldersync]\n\tversion = 2\n");
        let error = read(&dir).check_form().unwrap_err();
        assert!(matches!(error, StoreError::Unfit { .. }));
        assert!(error.to_string().contains("format 2"), "{error}");
        assert!(error.to_string().ends_with("update foldersync"), "{error}");
    }

    #[rstest::rstest]
    #[case("[extensions]\n\trefStorage = reftable\n", false)]
    #[case("[extensions]\n\tobjectFormat = sha256\n", false)]
    #[case("[extensions]\n\tpartialClone = x\n", false)]
    #[case("[extensions]\n\tobjectFormat = sha1\n", true)]
    #[case("[extensions]\n\tworktreeConfig = true\n", true)]
    fn extensions_that_change_the_store_are_refused(#[case] extra: &str, #[case] fit: bool) {
        assert_eq!(read(&repository(extra)).check_form().is_ok(), fit);
    }

    #[test]
    fn what_is_no_config_is_damage() {
        let dir = repository("[core\n");
        assert!(matches!(Config::read(dir.path()), Err(StoreError::Damaged { .. })));
        let dir = repository("[foldersync]\n\tfolder = zz\n");
        assert!(matches!(read(&dir).settings(), Err(StoreError::Damaged { .. })));
    }
}
