//! `foldersync service`: the unit that it prints and writes, judged by systemd's own program.

use std::fs;
use std::process::Command;

use crate::sites::skipped;
use crate::support::TestEnv;

#[test]
fn the_unit_is_one_that_systemd_takes() {
    const TEST: &str = "the_unit_is_one_that_systemd_takes";
    let env = TestEnv::new();
    let printed = env.run(["service", "install", "--print"]).ok();
    assert!(printed.contains("\nType=notify\n") && printed.contains(" serve\n"), "{printed}");
    assert!(printed.contains("--home [ROOT]/home"), "{printed}");
    assert!(!env.path("user/.config").exists(), "it only prints");

    let unit = env.path("foldersync.service");
    fs::write(&unit, printed.replace("[ROOT]", env.path("").to_str().expect("UTF-8"))).expect("a file");
    fs::create_dir(env.path("run")).expect("a directory");
    let mut verify = env.command("systemd-analyze", &env.path(""));
    verify.args(["verify", "--user"]).arg(&unit);
    let verify = verify.env("XDG_RUNTIME_DIR", env.path("run")).output();
    let Ok(output) = verify else { return skipped(TEST, "there is no systemd-analyze here") };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("Failed to initialize manager") || said.contains("XDG_RUNTIME_DIR") {
        return skipped(TEST, "systemd-analyze does not work here");
    }
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}

#[test]
fn the_property_list_is_xml() {
    const TEST: &str = "the_property_list_is_xml";
    let env = TestEnv::new();
    let printed = env.run(["service", "install", "--print", "--launchd"]).ok();
    assert!(printed.contains("<string>serve</string>"), "{printed}");
    env.run(["service", "install", "--launchd"]).ended(2);
    let file = env.path("list.plist");
    fs::write(&file, printed).expect("a file");
    match Command::new("xmllint").args(["--noout", "--nonet"]).arg(&file).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => skipped(TEST, "there is no xmllint here"),
    }
}

#[test]
fn without_systemd_it_says_so_and_what_else_there_is() {
    let env = TestEnv::new();
    let run = |arguments: &[&str]| {
        let mut command = env.foldersync("");
        command.args(arguments).env("PATH", env.path("empty"));
        env.finish(command)
    };
    let output = run(&["service", "install"]).ended(1);
    assert!(output.stderr.contains("no `systemctl` here") && output.stderr.contains("hint: "), "{output}");
    let unit = env.read("user/.config/systemd/user/foldersync.service");
    assert!(unit.starts_with("# Written by `foldersync service install`"), "{unit}");
    let status = run(&["service", "status", "--json"]).ended(0);
    assert_eq!((&status.json()["installed"], &status.json()["state"]), (&true.into(), &().into()));
    assert!(run(&["service", "status"]).ok().contains("unknown: systemd cannot be asked"));
    assert_eq!(run(&["service", "uninstall"]).ended(0).stderr, "the service is removed\n");
    assert!(!env.path("user/.config/systemd/user/foldersync.service").exists());
    assert_eq!(run(&["service", "uninstall"]).ended(0).stderr, "the service was not installed\n");
}

#[test]
fn somebody_elses_unit_stays() {
    let env = TestEnv::new();
    env.write("user/.config/systemd/user/foldersync.service", "[Unit]\nDescription=mine\n");
    for command in ["install", "uninstall"] {
        let mut command_line = env.foldersync("");
        command_line.args(["service", command]).env("PATH", env.path("empty"));
        let output = env.finish(command_line).ended(6);
        assert!(output.stderr.contains("was not written by foldersync"), "{output}");
    }
    assert_eq!(env.read("user/.config/systemd/user/foldersync.service"), "[Unit]\nDescription=mine\n");
}
