//! Names that are hard to hold or to show.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::two_folders;
use crate::sites::{git, text};

const NAMES: [&[u8]; 9] = [
    b"not \xff\xfe UTF-8",
    b"line\nbreak",
    b"tab\there",
    b"escape \x1b[31mred\x07",
    "right \u{202e}txt.exe".as_bytes(),
    b"quote \" and \\ and '",
    b" spaces around ",
    b"-n",
    b"at@3",
];

#[test]
fn strange_names_travel_and_never_break_what_is_printed() {
    let env = two_folders();
    for name in NAMES {
        for folder in ["docs", "docs/sub"] {
            fs::write(env.path(folder).join(OsStr::from_bytes(name)), name).expect("this file system takes any name");
        }
    }
    let status = env.run_in("docs", ["status", "--json"]).ended(0).json();
    assert!(status.to_string().contains(r"not \\377\\376 UTF-8"), "{status}");
    env.run_in("docs", ["status"]).ended(0);
    let captured = env.run_in("docs", ["commit", "--json"]).ended(0).json();
    assert_eq!(captured["added"], 2 * NAMES.len());
    env.run_in("docs", ["exchange"]).ended(0);
    for name in NAMES {
        for folder in ["copy", "copy/sub"] {
            assert_eq!(fs::read(env.path(folder).join(OsStr::from_bytes(name))).expect("arrived"), name);
        }
        let mut log = env.foldersync("copy");
        log.args(["log", "--json", "--"]).arg(OsStr::from_bytes(name));
        assert_eq!(env.finish(log).ended(0).json()["revisions"].as_array().map(Vec::len), Some(1));
        let mut show = env.foldersync("copy");
        let spec = [name, b"@1"].concat();
        show.args(["show", "--"]).arg(OsStr::from_bytes(&spec));
        env.finish(show).says(&[]);
    }
    env.run_in("copy", ["log"]).ended(0);
    assert_eq!(text(git(&env.path("copy"), &["status", "--porcelain"])), "");
    crate::sites::one_path_per_commit(Path::new(&env.path("copy")));
}

#[test]
fn strange_names_are_escaped_on_a_terminal() {
    let env = two_folders();
    for name in NAMES {
        fs::write(env.path("docs").join(OsStr::from_bytes(name)), name).expect("this file system takes any name");
    }
    // `script` gives the program a terminal.
    let program = env!("CARGO_BIN_EXE_foldersync");
    let mut command = env.command("script", &env.path("docs"));
    command.args(["-qec", &format!("{program} status"), "/dev/null"]).env("NO_COLOR", "1").env("TERM", "dumb");
    let Ok(output) = command.output() else {
        return super::skipped("strange_names_are_escaped_on_a_terminal", "there is no `script` here");
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("escape"), "{shown}");
    assert!(!shown.contains("\x1b[31m") && !shown.contains('\x07') && !shown.contains('\u{202e}'), "{shown:?}");
    assert_eq!(shown.lines().filter(|line| line.starts_with("break")).count(), 0, "{shown:?}");
}
