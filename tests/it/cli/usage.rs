//! Arguments, help and exit codes that need no folder.

use std::process::Stdio;

use rstest::rstest;
use snapbox::{assert_data_eq, str};

use crate::support::TestEnv;

#[test]
fn without_a_command_it_prints_help_and_fails() {
    let output = TestEnv::new().run([] as [&str; 0]).ended(2);
    assert!(output.stderr.contains("Usage: foldersync [OPTIONS] <COMMAND>"), "{output}");
    assert_eq!(output.stdout, "");
}

#[test]
fn help_is_short_or_long_and_goes_to_standard_output() {
    let env = TestEnv::new();
    let short = env.run(["revert", "-h"]).ok();
    let long = env.run(["revert", "--help"]).ok();
    assert!(!short.contains("Examples:") && long.contains("Examples:\n  foldersync revert notes.txt@3"), "{long}");
    assert!(short.lines().count() < long.lines().count());
}

#[test]
fn the_version_is_that_of_the_crate() {
    assert_eq!(TestEnv::new().run(["--version"]).ok(), format!("foldersync {}\n", env!("CARGO_PKG_VERSION")));
}

#[rstest]
#[case::unknown_command(&["frobnicate"])]
#[case::unknown_option(&["status", "--frobnicate"])]
#[case::missing_argument(&["revert"])]
#[case::two_resolutions(&["conflicts", "resolve", "a", "--ours", "--theirs"])]
#[case::no_resolution(&["conflicts", "resolve", "a"])]
#[case::both_directions(&["peer", "add", "nas", "/", "--send-only", "--receive-only"])]
#[case::bad_name(&["peer", "add", "a/b", "/"])]
#[case::no_number(&["log", "--limit", "many"])]
#[case::stdio_and_more(&["serve", "--stdio", "--loopback"])]
#[case::no_time(&["restore", "notes.txt"])]
fn wrong_usage_is_exit_code_2(#[case] arguments: &[&str]) {
    let output = TestEnv::new().run(arguments).ended(2);
    assert!(output.stderr.starts_with("error: "), "{output}");
    assert_eq!(output.stdout, "");
}

#[test]
fn wrong_usage_is_a_document_for_scripts() {
    let output = TestEnv::new().run(["--json", "revert"]).ended(2);
    let error = &output.json_error()["error"];
    assert_eq!(error["kind"], "usage");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("FILE@REV")), "{output}");
    assert_eq!(output.stdout, "");
}

#[test]
fn outside_of_a_folder_commands_say_so() {
    let env = TestEnv::new();
    for command in [&["status"][..], &["log"], &["revert", "a@1"], &["peer", "add", "nas", "/"], &["gc"]] {
        let output = env.run(command).ended(2);
        assert!(output.stderr.starts_with("error: ") && output.stderr.contains("[ROOT]"), "{output}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let env = TestEnv::new();
    let mut command = env.foldersync("");
    let mut child = command
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[rstest]
#[case("bash")]
#[case("zsh")]
#[case("fish")]
#[case("elvish")]
#[case("powershell")]
fn completions_know_the_commands(#[case] shell: &str) {
    let script = TestEnv::new().run(["completions", shell]).ok();
    assert!(script.contains("exchange") && script.contains("conflicts"), "{shell}");
}

#[test]
fn id_makes_the_key_once_and_never_shows_its_secret() {
    let env = TestEnv::new();
    let first = env.run(["id", "--json"]);
    let device = first.json()["device"].as_str().expect("a key").to_owned();
    assert_eq!(
        (device.len(), &first.json()["device_name"], &first.json()["folder_id"]),
        (64, &"laptop".into(), &().into())
    );
    let again = env.run(["id"]);
    assert!(again.stdout.contains(&device), "{again}");
    let secret = env.read("home/device.key").lines().last().expect("a line").to_owned();
    assert!(!again.to_string().contains(&secret) && !first.to_string().contains(&secret));
    assert_data_eq!(
        again.ok().replace(&device, "[KEY]"),
        str![[r#"
device  laptop
key     [KEY]

"#]]
    );
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_way_out() {
    use std::os::unix::fs::PermissionsExt;
    let env = TestEnv::new();
    env.run(["id"]).ended(0);
    let key = env.path("home/device.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    assert_data_eq!(
        env.run(["id"]).to_string(),
        str![[r#"
$ foldersync id
[stderr]
error: [ROOT]/home/device.key can be read by others (mode 644)

hint: `chmod 600 [ROOT]/home/device.key`
[exit 2]

"#]]
    );
}
