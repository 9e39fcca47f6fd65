//! Folders and peers that are left alone for now.

use snapbox::{assert_data_eq, str};

use crate::support::TestEnv;

fn with_a_peer() -> TestEnv {
    let env = TestEnv::new();
    env.folder("docs");
    env.folder("usb");
    env.run_in("docs", ["peer", "add", "usb", "../usb"]).ended(0);
    env
}

#[test]
fn a_folder_is_paused_and_goes_on() {
    let env = with_a_peer();
    let before = env.config();
    assert_data_eq!(
        env.run_in("docs", ["pause"]).to_string(),
        str![[r#"
$ foldersync pause
[stderr]
docs is paused

"#]]
    );
    assert!(env.config().contains("path = \"[ROOT]/docs\"\npaused = true\n"), "{}", env.config());
    let output = env.run(["--folder", "docs", "resume"]).ended(0);
    assert_eq!(output.stderr, "docs goes on\n");
    assert_eq!(env.config(), before);
    assert_eq!(env.run_in("docs", ["resume"]).ended(0).stderr, "docs was not paused\n");
}

#[test]
fn a_peer_is_paused_for_a_time() {
    let env = with_a_peer();
    let output = env.run(["pause", "--peer", "usb", "--until", "2030-01-02T03:04:05Z"]).ended(0);
    assert_eq!(output.stderr, "usb is paused until 2030-01-02 03:04:05\n");
    assert!(env.config().ends_with("paused = \"2030-01-02T03:04:05Z\"\n"), "{}", env.config());
    let paused = env.run(["pause", "--peer", "usb", "--for", "2h", "--json"]).ended(0).json();
    assert_eq!(paused["peer"], "usb");
    assert!(paused["folder"].is_null());
    assert!(env.config().ends_with(&format!("paused = {}\n", paused["paused"])), "{}", env.config());
    assert_eq!(
        env.run(["resume", "--peer", "usb", "--json"]).ok(),
        "{\"folder\":null,\"peer\":\"usb\",\"paused\":false}\n"
    );
    assert!(!env.config().contains("paused"), "{}", env.config());
}

#[test]
fn what_cannot_be_paused_is_refused() {
    let env = with_a_peer();
    let config = env.config();
    let refused = |arguments: &[&str], why: &str| {
        let output = env.run(arguments).ended(2);
        assert!(output.stderr.starts_with(&format!("error: {why}")), "{output}");
    };
    refused(&["pause", "--peer", "nas"], "no peer is named `nas`");
    refused(&["--folder", "usb", "pause"], "[ROOT]/usb is not registered here");
    refused(&["--folder", "docs", "pause", "--for", "2"], "`2` is no length of time");
    refused(&["--folder", "docs", "pause", "--until", "soon"], "`soon` is no point in time");
    refused(&["--folder", "docs", "pause", "--until", "2001-01-01"], "`2001-01-01` is over already");
    refused(&["--folder", "docs", "pause", "--for", "2h", "--until", "08:00"], "the argument '--for <TIME>' cannot");
    assert_eq!(env.config(), config);
}
