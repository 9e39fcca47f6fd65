//! ssh: `foldersync serve --stdio` at the far end, over the ssh that the person uses anyway.
//!
//! Owns how a target is written and what is run for it. Keys, hosts and passwords are ssh's own affair. Nothing that
//! stands in a target reaches a shell unquoted, or ssh as an option.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use super::{ChildCommand, Connection, TransportError};

/// The program that is run for ssh targets when nobody names another.
pub const SSH: &str = "ssh";

/// What is run at the far end, but for the folder.
const FAR_COMMAND: &str = "foldersync serve --stdio --folder";

/// What ssh is asked for: no terminal at the far end, and an end to silence after 10 s.
const SSH_OPTIONS: [&str; 7] =
    ["-T", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2"];

/// A folder on a computer that is reached by ssh.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SshTarget {
    /// The user there, when it is not ssh's to decide.
    pub user: Option<String>,
    /// The host: a name, an address, or what the configuration of ssh knows.
    pub host: String,
    /// The TCP port, when it is not ssh's to decide.
    pub port: Option<u16>,
    /// The folder: a path that begins with `/`, `~/` or `~user/`, or is `~`.
    pub path: String,
}

/// A text that is no ssh target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an ssh address: {problem} (ssh://[USER@]HOST[:PORT]/PATH, or [USER@]HOST:PATH)")]
pub struct SshTargetError {
    text: String,
    problem: &'static str,
}

/// Whether a name can be handed to ssh: no option, no spaces.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_host(host: &str) -> bool {
    is_plain(host) && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%'))
}

/// `[USER@]` and the rest.
fn split_user(text: &str) -> (Option<&str>, &str) {
    text.rsplit_once('@').map_or((None, text), |(user, rest)| (Some(user), rest))
}

/// A host, in brackets or not, and what follows it.
fn split_host(text: &str) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.split_once(']');
    }
    let end = text.find(':').unwrap_or(text.len());
    Some(text.split_at(end))
}

/// The text with `%xx` taken for the byte that it stands for.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

impl FromStr for SshTarget {
    type Err = SshTargetError;

    fn from_str(text: &str) -> Result<Self, SshTargetError> {
        let wrong = |problem| SshTargetError { text: text.to_owned(), problem };
        let (user, host, port, path) = if let Some(rest) = text.strip_prefix("ssh://") {
            let (authority, path) = rest.split_once('/').ok_or_else(|| wrong("it names no folder"))?;
            let (user, place) = split_user(authority);
            let (host, after) = split_host(place).ok_or_else(|| wrong("a bracket is not closed"))?;
            let port = match after.strip_prefix(':') {
                Some(port) => {
                    Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("its port is none"))?)
                }
                None if after.is_empty() => None,
                None => return Err(wrong("its host is none")),
            };
            let path = percent_decode(path).ok_or_else(|| wrong("a `%` in it stands for nothing"))?;
            (user, host, port, if path.starts_with('~') { path } else { format!("/{path}") })
        } else {
            let head = &text[..text.find([':', '[', '/']).unwrap_or(text.len())];
            let (user, _) = split_user(head);
            let place = &text[user.map_or(0, |user| user.len() + 1)..];
            let (host, after) = split_host(place).ok_or_else(|| wrong("a bracket is not closed"))?;
            let path = after.strip_prefix(':').ok_or_else(|| wrong("it names no host"))?;
            let path = if path.starts_with(['/', '~']) { path.to_owned() } else { format!("~/{path}") };
            (user, host, None, path)
        };
        if !is_host(host) || host.contains('/') {
            return Err(wrong("its host is none"));
        }
        if user.is_some_and(|user| !is_plain(user) || user.contains('/')) {
            return Err(wrong("its user is none"));
        }
        if matches!(path.as_str(), "/" | "~/") {
            return Err(wrong("it names no folder"));
        }
        if path.contains('\0') {
            return Err(wrong("no path can be like that"));
        }
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port, path })
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str("/")?;
        for c in self.path.strip_prefix('/').unwrap_or(&self.path).chars() {
            if c.is_control() || matches!(c, ' ' | '%') {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// A text that a POSIX shell takes for one word, as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A path for the far shell: quoted, but for a home at its beginning, which is the shell's to find.
fn quoted_path(path: &str) -> String {
    let is_home = |home: &str| {
        let user = home.strip_prefix('~');
        user.is_some_and(|user| user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    };
    match path.split_once('/') {
        Some((home, "")) if is_home(home) => home.to_owned(),
        Some((home, rest)) if is_home(home) => format!("{home}/{}", quoted(rest)),
        None if is_home(path) => path.to_owned(),
        _ => quoted(path),
    }
}

impl SshTarget {
    /// What is run at the far end, by the shell there.
    pub fn far_command(&self) -> String {
        format!("{FAR_COMMAND} {}", quoted_path(&self.path))
    }

    /// What is run here: `program` is ssh, or what takes its place. `attended` says that somebody sits at a terminal
    /// and can be asked for a password or a host key; otherwise ssh must not ask.
    pub fn command(&self, program: &OsStr, attended: bool) -> ChildCommand {
        let mut args: Vec<OsString> = SSH_OPTIONS.iter().map(Into::into).collect();
        if !attended {
            args.extend(["-o", "BatchMode=yes"].map(Into::into));
        }
        if let Some(port) = self.port {
            args.extend(["-p".to_owned(), port.to_string()].map(Into::into));
        }
        let place = self.user.as_ref().map_or_else(|| self.host.clone(), |user| format!("{user}@{}", self.host));
        args.extend(["--".to_owned(), place, self.far_command()].map(Into::into));
        ChildCommand::new(program, args)
    }

    /// Starts it. ssh may ask for a password where this process's standard input is a terminal, and only there.
    pub fn connect(&self, program: &OsStr) -> Result<Connection, TransportError> {
        let connection = self.command(program, io::stdin().is_terminal()).connect()?;
        Ok(Connection { about: self.to_string(), ..connection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn parse(text: &str) -> SshTarget {
        text.parse().unwrap()
    }

    #[test]
    fn targets_are_read_in_both_forms() {
        for (text, shown, path) in [
            ("ssh://nas/srv/docs", "ssh://nas/srv/docs", "/srv/docs"),
            ("ssh://me@nas:2222/srv/my%20docs", "ssh://me@nas:2222/srv/my%20docs", "/srv/my docs"),
            ("ssh://me@[2001:db8::1]:22/x", "ssh://me@[2001:db8::1]:22/x", "/x"),
            ("ssh://nas/~/docs", "ssh://nas/~/docs", "~/docs"),
            ("ssh://nas/~bob/docs", "ssh://nas/~bob/docs", "~bob/docs"),
            ("nas:/srv/docs", "ssh://nas/srv/docs", "/srv/docs"),
            ("me@nas:docs", "ssh://me@nas/~/docs", "~/docs"),
            ("me@nas:~/docs", "ssh://me@nas/~/docs", "~/docs"),
            ("nas:a:b@c", "ssh://nas/~/a:b@c", "~/a:b@c"),
            ("nas:50%", "ssh://nas/~/50%25", "~/50%"),
            ("me@[::1]:docs", "ssh://me@[::1]/~/docs", "~/docs"),
            ("me@realm@nas:docs", "ssh://me@realm@nas/~/docs", "~/docs"),
        ] {
            let target = parse(text);
            assert_eq!((target.to_string().as_str(), target.path.as_str()), (shown, path), "{text}");
            assert_eq!(parse(shown), target, "{text}");
        }
    }

    #[test]
    fn what_would_be_an_option_or_nothing_is_refused() {
        for text in [
            "ssh://nas",
            "ssh://nas/",
            "ssh:///srv",
            "ssh://-oProxyCommand=x/srv",
            "ssh://me@-x/srv",
            "ssh://-l@nas/srv",
            "ssh://nas:0/srv",
            "ssh://nas:x/srv",
            "ssh://[::1/srv",
            "ssh://[::1]x/srv",
            "ssh://na s/srv",
            "ssh://nas/a%zz",
            "ssh://nas/a%+1",
            "ssh://nas/%00",
            "-oProxyCommand=x:srv",
            "nas",
            "nas:",
            ":srv",
            "a/b:c",
            "me@nas",
        ] {
            assert!(text.parse::<SshTarget>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_path_survives_being_written(path in "[^\0]{1,20}") {
            let text = format!("me@nas:{path}");
            if let Ok(target) = text.parse::<SshTarget>() {
                prop_assert_eq!(parse(&target.to_string()), target);
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in "\\PC*") {
            drop(text.parse::<SshTarget>());
        }
    }

    /// A program in the place of ssh: writes down its arguments, then has the local shell do what the far one would.
    fn fake_ssh(dir: &Path) -> OsString {
        let far = dir.join("far");
        fs::create_dir(&far).unwrap();
        let script = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        // Says what it was asked for, then echoes.
        script(&far.join("foldersync"), "#!/bin/sh\nprintf '%s\\n' \"$#\" \"$@\" END\nexec cat\n");
        let (args, home) = (dir.join("args"), dir.join("home"));
        let ssh = dir.join("ssh");
        script(
            &ssh,
            &format!(
                "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{}'\nfor last; do :; done\nHOME='{}' PATH='{}':$PATH exec sh -c \"$last\"\n",
                args.display(),
                home.display(),
                far.display()
            ),
        );
        ssh.into_os_string()
    }

    /// What the far program was called with.
    fn far_words(ssh: &OsStr, target: &SshTarget) -> Vec<String> {
        let connection = loop {
            // A script that another test's fork still holds open for writing cannot be run.
            match target.connect(ssh) {
                Err(TransportError::Start { source, .. }) if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
                other => break other.unwrap(),
            }
        };
        let (mut reader, mut writer, control) = connection.split();
        writer.write_all(b"echoed").unwrap();
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        control.finish().unwrap();
        let said = said.strip_suffix("END\nechoed").unwrap();
        let (count, words) = said.split_once('\n').unwrap();
        assert_eq!(count, "4", "{said}");
        words.strip_suffix('\n').unwrap().splitn(4, '\n').map(str::to_owned).collect()
    }

    #[test]
    fn the_folder_reaches_the_far_program_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let ssh = fake_ssh(dir.path());
        let home = dir.path().join("home").display().to_string();
        for (path, expected) in [
            ("/srv/docs", "/srv/docs".to_owned()),
            ("/a b/it's $HOME `id` \"x\" \\ ;&|<>*?", "/a b/it's $HOME `id` \"x\" \\ ;&|<>*?".to_owned()),
            ("/-rf", "/-rf".to_owned()),
            ("/two\nlines", "/two\nlines".to_owned()),
            ("~", home.clone()),
            ("~/docs", format!("{home}/docs")),
            ("~/it's $(id)", format!("{home}/it's $(id)")),
            ("~$(id)/x", "~$(id)/x".to_owned()),
        ] {
            let target = SshTarget { user: None, host: "nas".to_owned(), port: None, path: path.to_owned() };
            assert_eq!(far_words(&ssh, &target), ["serve", "--stdio", "--folder", &expected], "{path}");
        }
        let target = parse("ssh://me@nas:2222/srv");
        far_words(&ssh, &target);
        let args = fs::read_to_string(dir.path().join("args")).unwrap();
        assert!(args.contains("-p\n2222\n--\nme@nas\nfoldersync serve --stdio --folder '/srv'\n"), "{args}");
        assert!(args.contains("ServerAliveInterval=5") && args.contains("ServerAliveCountMax=2"), "{args}");
    }

    #[test]
    fn ssh_asks_only_where_somebody_can_answer() {
        let target = parse("nas:docs");
        let batch = |attended| target.command(OsStr::new(SSH), attended).args.contains(&"BatchMode=yes".into());
        assert!(batch(false) && !batch(true));
    }

    #[test]
    fn a_missing_ssh_is_named() {
        let program = tempfile::tempdir().unwrap().path().join("no-ssh");
        let error = parse("nas:docs").connect(program.as_os_str()).unwrap_err();
        assert!(error.to_string().contains("no-ssh"), "{error}");
    }
}
