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
fn what_another_folder_may_is_not_changed_by_adding_one() {
    let env = with_two_folders();
    env.folder("photos");
    env.folder("music");
    env.run_in("docs", ["peer", "add", "usb", "../usb", "--receive-only"]).ended(0);
    env.run_in("photos", ["peer", "add", "usb", "../usb"]).ended(0);
    env.run_in("music", ["peer", "add", "usb", "../usb", "--send-only"]).ended(0);
    let listed = env.run(["peer", "list", "--json"]).json();
    let usb = &listed["peers"][0];
    assert_eq!(usb["direction"], "receive");
    assert_eq!(usb["directions"], serde_json::json!({ "music": "send" }));
    let listed = env.run(["--folder", "music", "peer", "list"]).ok();
    let directions = |folder: &str| listed.lines().find(|line| line.contains(folder)).map(|line| line.contains("send"));
    assert_eq!(directions(" music "), Some(true), "{listed}");
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
    refused("s3://bucket", "`s3://` addresses are not supported by this version; an address is ");
    refused("-oProxyCommand=x:docs", "unexpected argument '-o' found");
    refused("me@-oProxyCommand=x:docs", "`me@-oProxyCommand=x:docs` is not an address for ssh: its host ");
    refused("foldersync://abc", "`abc` is no device key");
}

const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

#[test]
fn a_peer_is_where_ssh_leads_or_a_device_that_is_known_by_its_key() {
    let env = with_two_folders();
    env.run_in("docs", ["peer", "add", "nas", "me@nas:docs"]).ended(0);
    env.run_in("docs", ["peer", "add", "box", "ssh://box:2222/srv/docs"]).ended(0);
    let address = format!("foldersync://{KEY}@[fd00::5]:44996");
    let output = env.run_in("docs", ["peer", "add", "desk", &address]).ended(0);
    let id = env.run(["id", "--json"]).json();
    let own = id["device"].as_str().expect("a key");
    assert_eq!(
        output.stderr.replace(own, "[OWN]"),
        "desk is a peer of `docs`\n\nhint: the other side must know the key of this device, too (`foldersync id`); there: \
         `foldersync peer add NAME foldersync://[OWN]`\n"
    );
    assert_data_eq!(
        env.config(),
        str![[r#"
[folder.docs]
path = "[ROOT]/docs"

[peer.nas]
address = "ssh://me@nas/~/docs"
folders = ["docs"]

[peer.box]
address = "ssh://box:2222/srv/docs"
folders = ["docs"]

[peer.desk]
address = "foldersync://d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a@[fd00::5]:44996"
folders = ["docs"]

"#]]
    );
    let config = env.config();
    env.run_in("docs", ["peer", "add", "nas", "ssh://me@nas/~/docs"]).ended(0);
    assert_eq!(env.config(), config);
    let itself = env.run_in("docs", ["peer", "add", "me", &format!("foldersync://{own}")]).ended(2);
    assert!(itself.stderr.starts_with("error: that is the key of this device itself\n"), "{itself}");
    let twice = env.run_in("docs", ["peer", "add", "desk2", &format!("foldersync://{KEY}")]).ended(2);
    assert!(twice.stderr.contains("peer `desk` has this device key"), "{twice}");
    assert_eq!(env.config(), config);
}

#[test]
fn a_path_with_a_colon_is_one_if_it_is_there_or_has_a_slash_before() {
    let env = with_two_folders();
    env.folder("docs/a:b");
    env.folder("c:d");
    env.run_in("docs", ["peer", "add", "there", "a:b"]).ended(0);
    env.run_in("docs", ["peer", "add", "slash", "../c:d"]).ended(0);
    env.run_in("docs", ["peer", "add", "host", "c:d"]).ended(0);
    let config = env.config();
    for address in ["[ROOT]/docs/a:b", "[ROOT]/c:d", "ssh://c/~/d"] {
        assert!(config.contains(&format!("address = \"{address}\"\n")), "{config}");
    }
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
fn every_setting_is_set_and_taken_away_again() {
    let env = with_two_folders();
    env.run_in("docs", ["peer", "add", "usb", "../usb"]).ended(0);
    let before = env.config();
    let key = format!("key={KEY}");
    let settings = [
        "directions.docs=send",
        &key,
        "addresses=nas.example:1,192.168.1.5",
        "every=90m",
        "from=22:00",
        "to=6:00",
        "days=mon,Tuesday",
        "upload=2000kB/s",
        "download=unlimited",
        "limits=[{ from = \"08:00\", to = \"18:00\", upload = \"200kB/s\" }]",
        "paused=2030-01-02T03:04:05Z",
    ];
    env.run(["peer", "set", "usb"].into_iter().chain(settings)).ended(0);
    assert_data_eq!(
        env.config(),
        str![[r#"
[folder.docs]
path = "[ROOT]/docs"

[peer.usb]
address = "[ROOT]/usb"
folders = ["docs"]
addresses = ["nas.example:1", "192.168.1.5"]
key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
directions = { docs = "send" }
every = "1h30m"
from = "22:00"
to = "06:00"
days = ["mon", "tue"]
upload = "2MB/s"
download = "unlimited"
limits = [{ from = "08:00", to = "18:00", upload = "200kB/s" }]
paused = "2030-01-02T03:04:05Z"

"#]]
    );
    let config = env.config();
    for (setting, why) in [
        ("from=", "`to`: it needs `from`"),
        ("key=", "`addresses`: they need the device's `key`, or an address with it"),
        ("key=abc", "`key`: `abc` is no device key"),
        ("addresses=a:b", "`addresses`: `a:b` is no host"),
        ("directions.photos=send", "`directions.photos`: `photos` is none of its folders"),
        ("directions.docs=up", "`directions.docs`: a direction is `both`, `send` or `receive`, not `up`"),
        ("every=10", "`every`: `10` is no length of time"),
        ("to=25:00", "`to`: `25:00` is no time of day"),
        ("days=noday", "`days`: `noday` is no day"),
        ("upload=fast", "`upload`: `fast` is no rate"),
        ("limits=[{ upload = 3 }]", "`limits`: invalid type: integer `3`, expected a string"),
        ("paused=2001-01-01", "`paused`: `2001-01-01` is over already"),
        ("paused=soon", "`paused`: `soon` is no point in time"),
        ("address=", "`address`: a peer cannot be without it"),
    ] {
        let output = env.run(["peer", "set", "usb", setting]).ended(2);
        assert!(output.stderr.starts_with(&format!("error: {why}")), "{output}");
    }
    assert_eq!(env.config(), config);
    let keys = ["directions.docs", "key", "addresses", "every", "from", "to", "days", "upload", "download", "limits"];
    let cleared = keys.iter().chain(&["paused", "direction", "join"]).map(|key| format!("{key}="));
    env.run(["peer", "set", "usb"].into_iter().map(str::to_owned).chain(cleared)).ended(0);
    assert_eq!(env.config(), before);
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
    let place = env.path("usb").to_string_lossy().len();
    assert_eq!(
        env.run(["peer", "list"]).ok(),
        format!(
            "NAME  FOLDER  CONNECTED  LAST SEEN  LAST KNOWN  THEY LACK   WE LACK  DIRECTION\n\
             usb   docs    path       never      -           everything  -        receive\n\n\
             NAME  ADDRESS{}  SCHEDULE  STATE\nusb   [ROOT]/usb  always    -\n",
            " ".repeat(place - "ADDRESS".len())
        )
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
