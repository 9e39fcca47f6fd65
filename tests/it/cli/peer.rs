//! Peers in the configuration. No exchange happens here.

use snapbox::{assert_data_eq, str};

use crate::support::TestEnv;

fn with_two_folders() -> TestEnv {
    let env = TestEnv::new();
    env.folder("docs");
    env.folder("usb");
    env
}

#[test]
fn adding_a_peer_registers_the_folder_and_keeps_comments() {
    let env = with_two_folders();
    env.write("home/config.toml", "# mine\n[device] # this one\nname = \"laptop\"\n");
    let output = env.run_in("docs", ["peer", "add", "usb", "../usb", "--send-only"]).ended(0);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "usb is a peer of `docs`\n"));
    assert_data_eq!(
        env.config(),
        str![[r#"
# mine
[device] # this one
name = "laptop"

[folder.docs]
path = "[ROOT]/docs"

[peer.usb]
address = "[ROOT]/usb"
folders = ["docs"]
direction = "send"

"#]]
    );
}

#[test]
fn adding_the_same_peer_again_changes_nothing_and_another_address_is_refused() {
    let env = with_two_folders();
    env.folder("other");
    env.run(["--folder", "docs", "peer", "add", "usb", "usb"]).ended(0);
    let config = env.config();
    env.run(["--folder", "docs", "peer", "add", "usb", "usb"]).ended(0);
    assert_eq!(env.config(), config);
    assert_data_eq!(
        env.run(["--folder", "docs", "peer", "add", "usb", "other"]).to_string(),
        str![[r#"
$ foldersync --folder docs peer add usb other
[stderr]
error: a peer named `usb` is there already, with the address [ROOT]/usb

hint: take another name, or change it: `foldersync peer set usb address=ADDRESS`
[exit 2]

"#]]
    );
    assert_eq!(env.config(), config);
}

#[test]
fn a_second_folder_joins_a_peer_that_is_there() {
    let env = with_two_folders();
    env.folder("a/docs");
    env.run_in("docs", ["peer", "add", "usb", "../usb"]).ended(0);
    env.run_in("a/docs", ["peer", "add", "usb", "../../usb"]).ended(0);
    assert!(env.config().contains("folders = [\"docs\", \"docs-2\"]\n"), "{}", env.config());
}

#[test]
fn an_address_must_be_a_folder_that_is_there_and_another_one() {
    let env = with_two_folders();
    env.write("file", "");
    let refused = |address: &str, why: &str| {
        let output = env.run_in("docs", ["peer", "add", "x", address]).ended(2);
        assert!(output.stderr.starts_with(&format!("error: {why}")), "{output}");
        assert_eq!(env.config(), "");
    };
    refused("../none", "[ROOT]/none does not exist");
    refused("../file", "[ROOT]/file is not a folder");
    refused("../docs", "[ROOT]/docs is this folder itself");
    refused("ssh://me@nas/docs", "`ssh://` addresses are not supported by this version");
}

#[test]
fn a_folder_that_is_not_versioned_yet_gets_a_hint() {
    let env = with_two_folders();
    env.write("plain/x", "");
    assert_data_eq!(
        env.run_in("docs", ["peer", "add", "plain", "../plain"]).to_string(),
        str![[r#"
$ foldersync peer add plain ../plain
[stderr]
plain is a peer of `docs`

hint: [ROOT]/plain is not versioned yet: `foldersync init [ROOT]/plain` before the first exchange

"#]]
    );
}

#[test]
fn settings_are_changed_one_by_one() {
    let env = with_two_folders();
    env.run_in("docs", ["peer", "add", "usb", "../usb"]).ended(0);
    env.run(["peer", "set", "usb", "direction=receive", "join=true"]).ended(0);
    assert!(env.config().ends_with("direction = \"receive\"\njoin = true\n"), "{}", env.config());
    let config = env.config();
    for (setting, why) in [
        ("direction=up", "`direction`: a direction is `both`, `send` or `receive`, not `up`"),
        ("join=yes", "`join`: it takes `true` or `false`"),
        ("folders=docs,photos", "`folders`: no folder is named `photos`"),
        ("colour=red", "a peer has no setting `colour`"),
        ("direction", "`direction` is not `KEY=VALUE`"),
    ] {
        let output = env.run(["peer", "set", "usb", setting]).ended(2);
        assert!(output.stderr.starts_with(&format!("error: {why}\n")), "{output}");
    }
    assert_eq!(env.config(), config);
}

#[test]
fn a_peer_gets_another_name_and_goes() {
    let env = with_two_folders();
    env.run_in("docs", ["peer", "add", "usb", "../usb"]).ended(0);
    env.run(["peer", "rename", "usb", "stick"]).ended(0);
    assert!(env.config().contains("[peer.stick]\n") && !env.config().contains("[peer.usb]"), "{}", env.config());
    env.run_in("docs", ["peer", "add", "other", "../usb"]).ended(0);
    let taken = env.run(["peer", "rename", "stick", "other"]).ended(2);
    assert!(taken.stderr.starts_with("error: a peer named `other` is there already"), "{taken}");
    env.run(["peer", "remove", "stick"]).ended(0);
    assert!(!env.config().contains("stick") && env.config().contains("[peer.other]"), "{}", env.config());
}

#[test]
fn peers_are_listed_with_what_is_known_of_them() {
    let env = with_two_folders();
    env.run_in("docs", ["peer", "add", "usb", "../usb", "--receive-only"]).ended(0);
    assert_eq!(
        env.run(["peer", "list"]).ok(),
        "NAME  FOLDER  ADDRESS     DIRECTION  LAST SEEN  LAST KNOWN  LACKS\n\
         usb   docs    [ROOT]/usb  receive    never      -           everything\n"
            .replace("ADDRESS     ", &format!("ADDRESS{}", " ".repeat(env.path("usb").to_string_lossy().len() - 5)))
    );
    let listed = env.run(["peer", "list", "--json"]).json();
    assert_eq!(listed["peers"][0]["direction"], "receive");
    assert_eq!(listed["peers"][0]["known"][0]["folder"], "docs");
    assert!(listed["peers"][0]["known"][0]["status"]["last_known"].is_null());
}

#[test]
fn an_unknown_peer_is_named_with_those_that_are_known() {
    let env = with_two_folders();
    env.run_in("docs", ["peer", "add", "usb", "../usb"]).ended(0);
    for command in [&["peer", "remove", "nas"][..], &["peer", "set", "nas", "join=true"], &["exchange", "nas"]] {
        let output = env.run(command).ended(2);
        assert_eq!(output.stderr, "error: no peer is named `nas`\n\nhint: peers are `usb`\n", "{output}");
    }
}

#[test]
fn no_peers_is_said_and_listed_as_none() {
    let env = TestEnv::new();
    assert_data_eq!(
        env.run(["peer", "list"]).to_string(),
        str![[r#"
$ foldersync peer list
[stderr]
no peers yet

hint: `foldersync peer add NAME ADDRESS` adds one

"#]]
    );
    assert_eq!(env.run(["peer", "list", "--json"]).ok(), "{\"peers\":[]}\n");
}

#[test]
fn a_folder_that_is_not_registered_has_no_exchange() {
    let env = with_two_folders();
    let output = env.run(["--folder", "docs", "exchange"]).ended(2);
    assert!(output.stderr.starts_with("error: [ROOT]/docs is not registered here\n\nhint: "), "{output}");
}
