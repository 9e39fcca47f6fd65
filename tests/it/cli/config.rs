//! The configuration file: where it is, what is wrong in it.

use snapbox::{assert_data_eq, str};

use crate::support::TestEnv;

#[test]
fn the_file_is_where_option_or_environment_say() {
    let env = TestEnv::new();
    assert_eq!(env.run(["config", "path"]).ok(), "[ROOT]/home/config.toml\n");
    assert_eq!(env.run(["--home", "other", "config", "path"]).ok(), "[ROOT]/other/config.toml\n");
    let mut command = env.foldersync("");
    command.args(["config", "path"]).env_remove("FOLDERSYNC_HOME");
    assert_eq!(env.finish(command).ok(), "[ROOT]/user/.config/foldersync/config.toml\n");
    let mut command = env.foldersync("");
    command.args(["config", "path"]).env_remove("FOLDERSYNC_HOME").env("XDG_CONFIG_HOME", env.path("xdg"));
    assert_eq!(env.finish(command).ok(), "[ROOT]/xdg/foldersync/config.toml\n");
}

#[test]
fn without_a_home_it_says_what_to_set() {
    let env = TestEnv::new();
    let mut command = env.foldersync("");
    command.args(["config", "path"]).env_remove("FOLDERSYNC_HOME").env_remove("HOME");
    assert_data_eq!(
        env.finish(command).to_string(),
        str![[r#"
$ foldersync config path
[stderr]
error: cannot tell where the configuration is: neither `FOLDERSYNC_HOME` nor `HOME` is set

hint: set `FOLDERSYNC_HOME`, or give `--home DIR`
[exit 2]

"#]]
    );
}

#[test]
fn what_is_in_effect_is_listed_with_defaults() {
    let env = TestEnv::new();
    env.write(
        "home/config.toml",
        "[device]\nname = \"box\"\n[folder.docs]\npath = \"/docs\"\n[peer.nas]\naddress = \"/n\"\nfolders = [\"docs\"]\n",
    );
    assert_data_eq!(
        env.run(["config"]).ok(),
        str![[r#"
file                [ROOT]/home/config.toml
device.name         box
folder.docs.path    /docs
peer.nas.address    /n
peer.nas.folders    docs
peer.nas.direction  both
peer.nas.join       false

"#]]
    );
    let listed = env.run(["config", "list", "--json"]).json();
    assert_eq!(listed["folders"]["docs"]["path"], "/docs");
    assert_eq!(listed["peers"][0]["direction"], "both");
}

#[test]
fn a_mistake_is_told_with_file_line_column_and_key() {
    let env = TestEnv::new();
    env.write("home/config.toml", "[device]\nname = \"box\"\n\n[folder.docs]\npaht = \"/docs\"\n");
    assert_data_eq!(
        env.run(["exchange"]).to_string(),
        str![[r#"
$ foldersync exchange
[stderr]
error: [ROOT]/home/config.toml:5:1: `folder.docs.paht`: unknown field `paht`, expected `path`
[exit 2]

"#]]
    );
    assert_data_eq!(
        env.run(["exchange", "--json"]).to_string(),
        str![[r#"
$ foldersync exchange --json
[stderr]
{"error":{"kind":"config","message":"[ROOT]/home/config.toml:5:1: `folder.docs.paht`: unknown field `paht`, expected `path`","hint":null}}
[exit 2]

"#]]
    );
}

#[test]
fn a_mistake_is_found_before_a_folder_is_made() {
    let env = TestEnv::new();
    env.write("home/config.toml", "[device]\nname = 3\n");
    env.write("docs/notes.txt", "x");
    let output = env.run(["init", "docs"]).ended(2);
    assert!(output.stderr.contains("config.toml:2:8: `device.name`: invalid type"), "{output}");
    assert!(!env.path("docs/.git").exists());
}

#[test]
fn with_nothing_set_there_is_nothing_to_exchange() {
    let env = TestEnv::new();
    let output = env.run(["exchange"]).ended(0);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "no peers to exchange with\n"));
    let quiet = env.run(["exchange", "--quiet"]).ended(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    assert_eq!(env.run(["exchange", "--json"]).ok(), "{\"exchanges\":[],\"failures\":[],\"busy\":[]}\n");
}
