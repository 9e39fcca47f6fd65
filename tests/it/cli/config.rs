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
file                    [ROOT]/home/config.toml
device.name             box
device.port             44996
device.local_discovery  true
device.quiet            50ms
device.brake            50%
device.free_space       default
folder.docs.path        /docs
peer.nas.address        /n
peer.nas.folders        docs
peer.nas.direction      both
peer.nas.join           false

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
error: [ROOT]/home/config.toml:5:1: `folder.docs.paht`: unknown field `paht`, expected one of `path`, `paused`, `brake`, `free_space`
[exit 2]

"#]]
    );
    assert_data_eq!(
        env.run(["exchange", "--json"]).to_string(),
        str![[r#"
$ foldersync exchange --json
[stderr]
{"error":{"kind":"config","message":"[ROOT]/home/config.toml:5:1: `folder.docs.paht`: unknown field `paht`, expected one of `path`, `paused`, `brake`, `free_space`","hint":null}}
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
fn what_is_set_is_listed_with_it() {
    let env = TestEnv::new();
    let full = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/config/valid/full.toml");
    env.write("home/config.toml", std::fs::read(full).expect("a fixture"));
    assert_data_eq!(
        env.run(["config"]).ok(),
        str![[r#"
file                           [ROOT]/home/config.toml
device.name                    laptop
device.port                    44996
device.relay                   https://relay.example:3340
device.relay_certificate       0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f
device.local_discovery         false
device.quiet                   50ms
device.brake                   30%
device.free_space              2GiB
exchange.every                 10m
exchange.from                  22:00
exchange.to                    06:00
exchange.days                  mon,tue
exchange.upload                2MB/s
exchange.download              unlimited
exchange.limits                08:00-18:00 upload 200kB/s; all day sat,sun download 1536KiB/s
folder.Fotos-Übersicht.path    /home/me/photos
folder.Fotos-Übersicht.paused  2026-11-22T08:00:00Z
folder.docs.path               /home/me/docs
folder.docs.paused             true
folder.docs.brake              off
folder.docs.free_space         0.50%
peer.backup.address            ssh://me@backup:2222/srv/photos
peer.backup.folders            Fotos-Übersicht,docs
peer.backup.direction          send
peer.backup.directions.docs    receive
peer.backup.join               false
peer.desk.address              foldersync://d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a@desk.dyn.example:44996
peer.desk.addresses            192.168.1.5,[fd00::5]:44996
peer.desk.key                  d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a
peer.desk.folders              docs
peer.desk.direction            both
peer.desk.join                 false
peer.nas.address               /mnt/nas/docs
peer.nas.folders               docs
peer.nas.direction             both
peer.nas.join                  true
peer.nas.every                 1h30m
peer.nas.from                  00:00
peer.nas.to                    00:00
peer.nas.days                  sun
peer.nas.upload                500kB/s
peer.nas.download              1MiB/s
peer.nas.paused                2026-11-22T08:00:00Z
peer.work.address              ssh://me@work/~/docs
peer.work.key                  3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c
peer.work.folders              docs
peer.work.direction            both
peer.work.join                 false

"#]]
    );
    let listed = env.run(["config", "--json"]).json();
    assert_eq!(listed["device"]["port"], 44996);
    assert_eq!(listed["exchange"]["limits"][0]["from"], "08:00");
    assert_eq!(listed["exchange"]["days"], serde_json::json!(["mon", "tue"]));
    assert_eq!(listed["folders"]["docs"]["paused"], true);
    let nas = listed["peers"].as_array().expect("peers").iter().find(|peer| peer["name"] == "nas").expect("nas");
    assert_eq!((&nas["every"], &nas["paused"]), (&"1h30m".into(), &"2026-11-22T08:00:00Z".into()));
    assert!(nas["key"].is_null());
}

/// `init ~` takes the home in as well, but no secret.
#[test]
fn a_folder_around_the_home_does_not_hold_the_key() {
    let env = TestEnv::new();
    env.run(["init", "."]).ended(0);
    assert!(env.path("home/device.key").exists());
    env.run(["show", "home/config.toml"]).ended(0);
    env.run(["show", "home/.gitignore"]).ended(0);
    for secret in ["home/device.key", "home/config.lock"] {
        assert_ne!(env.run(["show", secret]).status, Some(0), "{secret}");
    }
}

#[test]
fn nor_does_one_around_a_home_that_is_new() {
    let env = TestEnv::new();
    env.write("docs/x", "x");
    env.run_in("docs", ["--home", "fresh", "init"]).ended(0);
    env.run_in("docs", ["--home", "fresh", "commit"]).ended(0);
    assert!(env.path("docs/fresh/device.key").exists());
    env.run_in("docs", ["show", "fresh/config.toml"]).ended(0);
    assert_ne!(env.run_in("docs", ["show", "fresh/device.key"]).status, Some(0));
}

#[test]
fn with_nothing_set_there_is_nothing_to_exchange() {
    let env = TestEnv::new();
    let output = env.run(["exchange"]).ended(0);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "no peers to exchange with\n"));
    let quiet = env.run(["exchange", "--quiet"]).ended(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    assert_eq!(env.run(["exchange", "--json"]).ok(), "{\"exchanges\":[],\"failures\":[],\"busy\":[],\"later\":[]}\n");
}
