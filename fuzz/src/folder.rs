//! What a person writes: the configuration, `FILE@REV`, ignore files.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use foldersync::clock::Timestamp;
use foldersync::config::{Config, ConfigError, Home, Name, Pause, PeerSettings};
use foldersync::engine::revspec::{FileRev, RevSpec};
use foldersync::path::SyncPath;
use foldersync::worktree::leaves_out;
use jiff::tz::{Offset, TimeZone};

thread_local! {
    static HOME: RefCell<tempfile::TempDir> = RefCell::new({
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a temporary folder")
    });
}

/// The text of a `config.toml`.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match Config::parse(Path::new("config.toml"), text) {
        Ok(config) => config,
        Err(ConfigError::Invalid { line, column, message, .. }) => {
            assert!((1..=text.split('\n').count()).contains(&line) && column > 0 && !message.is_empty());
            return;
        }
        Err(error) => panic!("what is wrong with a text is in the text: {error}"),
    };
    let now = jiff::Timestamp::from_second(1_795_176_000).expect("a time").to_zoned(TimeZone::UTC);
    config.rates_in_all(&now);
    config.next_rate_change(&now);
    for (name, peer) in &config.peers {
        drop(config.schedule_of(name).to_string());
        config.is_due(name, Some(Timestamp::new(1_795_000_000, 0)), &now);
        config.rates_of(name, &now);
        for folder in config.folders.keys() {
            assert_eq!(config.direction_of(name, folder).is_some(), peer.folders.contains(folder));
        }
    }
    HOME.with_borrow(|dir| edited(&Home::at(dir.path().to_owned()), text, &config));
}

/// What the command changes in a configuration can be read again, and is what was meant.
fn edited(home: &Home, text: &str, config: &Config) {
    fs::write(home.config_file(), text).expect("writable");
    let change = |peers: &[(&Name, PeerSettings)]| {
        let edit = |_: &Config, editor: &mut foldersync::config::Editor| {
            for (name, peer) in peers {
                editor.set_peer(name, peer);
            }
            Ok::<_, ConfigError>(())
        };
        home.edit(edit).expect("an edit that leaves a configuration");
        home.load().expect("what was written can be read")
    };
    let as_they_are: Vec<_> = config.peers.iter().map(|(name, peer)| (name, peer.clone())).collect();
    assert_eq!(change(&as_they_are), *config);
    let unchanged = fs::read_to_string(home.config_file()).expect("readable");
    // A line end may come to stand behind the last line.
    assert!(unchanged.lines().eq(text.lines()), "what does not change stays as it is: {unchanged:?}");
    let mut paused = config.clone();
    paused.peers.values_mut().for_each(|peer| peer.paused = Pause::Forever);
    let pausing: Vec<_> = paused.peers.iter().map(|(name, peer)| (name, peer.clone())).collect();
    assert_eq!(change(&pausing), paused);
    assert_eq!(change(&as_they_are), *config);
}

/// `FILE@REV`, as it is typed.
pub fn revision(data: &[u8]) {
    for (prefix, literal) in [(&b""[..], false), (b"a/b", false), (b"", true)] {
        let Ok(named) = FileRev::parse(data, prefix, literal) else { continue };
        assert!(!literal || named.rev.is_none());
        drop(named.to_string());
        let mut printed = named.path.as_bytes().to_vec();
        if let Some(rev) = &named.rev {
            let rev_text = rev.to_string();
            assert_eq!(RevSpec::parse(&rev_text).as_ref(), Ok(rev), "{rev_text}");
            printed.extend(format!("@{rev_text}").bytes());
        }
        // A name that ends as a revision does (`x@3/`) needs the `--` the second time.
        let plain = literal || named.rev.is_none();
        assert_eq!(FileRev::parse(&printed, b"", plain), Ok(named.clone()), "{}", printed.escape_ascii());
        if let Some(RevSpec::Time(time)) = &named.rev {
            for now in [0, 1_795_176_000, i64::MIN, i64::MAX] {
                for hours in [-25, 0, 25] {
                    let zone = TimeZone::fixed(Offset::constant(hours));
                    drop(time.resolve(Timestamp::new(now, 999_999_999), &zone));
                }
            }
        }
    }
}

/// An ignore file, a NUL, paths with NULs between them.
pub fn ignore(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == 0);
    let rules = parts.next().unwrap_or_default();
    let and = |more: &[u8]| [rules, b"\n", more].concat();
    let everything = (and(b"/*"), and(b"!*"));
    for path in parts.filter_map(|path| SyncPath::new(path).ok()) {
        let text = path.as_bytes();
        for folder in [true, false] {
            let left_out = leaves_out(rules, &path, folder);
            let below_one = path.ancestors().any(|above| leaves_out(rules, &above, true));
            assert!(left_out || !below_one, "nothing comes back from below what is left out");
            assert_eq!(leaves_out(&and(b"# a comment"), &path, folder), left_out);
            assert_eq!(leaves_out(&and(b"\n"), &path, folder), left_out);
            if !rules.starts_with(b"\xef\xbb\xbf") {
                assert_eq!(leaves_out(&[b"\xef\xbb\xbf", rules].concat(), &path, folder), left_out);
            }
            if !rules.contains(&b'\r') {
                let lines: Vec<_> = rules.split(|&byte| byte == b'\n').collect();
                assert_eq!(leaves_out(&lines.join(&b"\r\n"[..]), &path, folder), left_out);
            }
            assert!(leaves_out(&everything.0, &path, folder), "the last line wins");
            assert!(!leaves_out(&everything.1, &path, folder), "the last line wins");
            if !text.contains(&b'\n') && !text.ends_with(b"\r") {
                let mut escaped = b"/".to_vec();
                for &byte in text {
                    if byte != b'/' {
                        escaped.push(b'\\');
                    }
                    escaped.push(byte);
                }
                assert!(leaves_out(&and(&escaped), &path, folder), "every name can be said");
            }
        }
    }
}
