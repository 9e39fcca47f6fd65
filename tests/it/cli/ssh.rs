//! Peers that ssh leads to: with a program in its place, and with a real sshd on loopback.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sites::skipped;
use crate::support::{Output, TestEnv};

/// Writes a script by another process: a file that a fork of this one holds open cannot be run.
fn script(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("a shell");
    shell.stdin.take().expect("piped").write_all(text.as_bytes()).expect("a script");
    assert!(shell.wait().expect("it ends").success());
}

/// A directory for PATH at the far end, with this foldersync in it.
fn far_path(env: &TestEnv) -> PathBuf {
    let far = env.path("far");
    fs::create_dir_all(&far).expect("a directory");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_foldersync"), far.join("foldersync")).expect("a link");
    far
}

/// A program in the place of ssh, which has the local shell do what the far one would, after `first`.
fn fake_ssh(env: &TestEnv, first: &str) -> PathBuf {
    let far = far_path(env);
    let ssh = env.path("ssh");
    let text = format!(
        "#!/bin/sh\nfor last; do :; done\n{first}\nFOLDERSYNC_HOME='{}' PATH='{}':$PATH exec sh -c \"$last\"\n",
        env.path("far-home").display(),
        far.display()
    );
    script(&ssh, &text);
    ssh
}

/// Runs foldersync with this program in the place of ssh.
fn over(env: &TestEnv, ssh: &Path, arguments: &[&str]) -> Output {
    let mut command = env.foldersync("");
    command.args(arguments).env("FOLDERSYNC_SSH", ssh);
    env.finish(command)
}

/// Clones over ssh, exchanges both ways, and once more with a peer that was added by hand.
fn there_and_back(env: &TestEnv, ssh: &Path, user_and_host: &str) {
    env.write("srv/my docs/notes.txt", "one\n");
    env.run(["--home", "far-home", "init", "srv/my docs"]).ended(0);
    let far = env.path("srv/my docs");
    let far = far.to_str().expect("UTF-8");
    let url = format!("ssh://{user_and_host}{}", far.replace(' ', "%20"));
    over(env, ssh, &["clone", &url, "docs"]).ended(0);
    assert_eq!(env.read("docs/notes.txt"), "one\n");
    assert!(env.config().contains("[peer.origin]\naddress = \"ssh://"), "{}", env.config());

    env.write("docs/here.txt", "from here");
    env.write("srv/my docs/there.txt", "from there");
    let done = over(env, ssh, &["exchange"]).ended(0);
    assert!(done.stdout.starts_with("docs with origin: captured 1 revision, sent 1 revision ("), "{done}");
    assert_eq!(env.read("srv/my docs/here.txt"), "from here");
    assert_eq!(env.read("docs/there.txt"), "from there");

    env.run(["peer", "remove", "origin"]).ended(0);
    env.run(["--folder", "docs", "peer", "add", "nas", &url]).ended(0);
    env.write("docs/here.txt", "again");
    over(env, ssh, &["exchange", "nas"]).ended(0);
    assert_eq!(env.read("srv/my docs/here.txt"), "again");
    let listed = env.run(["peer", "list", "--json"]).json();
    assert_eq!(
        (&listed["peers"][0]["connected"], &listed["peers"][0]["known"][0]["status"]["lacks"]),
        (&"ssh".into(), &0.into())
    );

    // What is lost here is there.
    for pack in fs::read_dir(env.path("docs/.git/objects/pack")).expect("packs").map(|pack| pack.expect("one").path()) {
        if pack.extension().is_some_and(|end| end == "pack") {
            fs::remove_file(pack).expect("removed");
        }
    }
    env.run(["--folder", "docs", "verify"]).ended(5);
    let repaired = over(env, ssh, &["--folder", "docs", "repair", "nas"]).ended(0);
    assert!(repaired.stdout.contains("nas brought"), "{repaired}");
    over(env, ssh, &["exchange", "nas"]).ended(0);
}

#[test]
fn a_folder_is_cloned_and_exchanged_over_ssh() {
    let env = TestEnv::new();
    let ssh = fake_ssh(&env, ":");
    there_and_back(&env, &ssh, "me@nas");
}

#[test]
fn a_shell_that_prints_at_login_is_told_of() {
    let env = TestEnv::new();
    let ssh = fake_ssh(&env, "echo 'Welcome to nas, the time is 12:00'");
    env.folder("srv");
    let url = format!("ssh://nas{}", env.path("srv").display());
    let output = over(&env, &ssh, &["clone", &url, "docs"]);
    assert!(output.status != Some(0), "{output}");
    assert!(output.stderr.contains("does not speak foldersync: it began with `Welcome to nas"), "{output}");
    assert!(output.stderr.contains("`.bashrc`"), "{output}");
    assert!(!env.path("docs").exists(), "nothing came, nothing stays");
}

#[test]
fn what_ssh_says_when_it_fails_is_told() {
    let env = TestEnv::new();
    let ssh = fake_ssh(&env, "echo 'Permission denied (publickey).' >&2; exit 255");
    env.folder("srv");
    let url = format!("ssh://nas{}", env.path("srv").display());
    let output = over(&env, &ssh, &["clone", &url, "docs"]).ended(4);
    assert!(output.stderr.contains("Permission denied (publickey)."), "{output}");
}

/// An sshd that ends with the test.
struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts an sshd on loopback that lets this user in by a key of the test. The port, or why it cannot be.
fn sshd(env: &TestEnv, far: &Path) -> Result<(Sshd, u16), String> {
    let program =
        ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|it| Path::new(it).exists());
    let program = program.ok_or("there is no sshd here")?;
    for key in ["host", "user"] {
        let mut keygen = env.command("ssh-keygen", &env.path(""));
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", key]);
        let made = keygen.status().map_err(|error| format!("there is no ssh-keygen here: {error}"))?;
        assert!(made.success());
    }
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it is bound").port();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
         SetEnv PATH={1}:/usr/bin:/bin FOLDERSYNC_HOME={0}/far-home\n",
        env.path("").display().to_string().trim_end_matches('/'),
        far.display()
    );
    env.write("sshd_config", config);
    let log = fs::File::create(env.path("sshd.log")).expect("a file");
    let mut command = if rustix::process::geteuid().is_root() && !Path::new("/run/sshd").exists() {
        // A directory that sshd wants as root, in a view of the disks that nobody else has.
        let mut command = env.command("unshare", &env.path(""));
        let prepare = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec \"$@\"";
        command.args(["--mount", "sh", "-c", prepare, "sh", program]);
        command
    } else {
        env.command(program, &env.path(""))
    };
    command.args(["-D", "-e", "-f"]).arg(env.path("sshd_config")).stderr(log);
    let mut daemon = Sshd(command.spawn().map_err(|error| format!("sshd does not start: {error}"))?);
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if daemon.0.try_wait().expect("its state").is_some() || Instant::now() > until {
            return Err(format!("sshd does not work here: {}", env.read("sshd.log").trim()));
        }
        std::thread::yield_now();
    }
    Ok((daemon, port))
}

#[test]
fn a_real_sshd_leads_to_the_folder() {
    const TEST: &str = "a_real_sshd_leads_to_the_folder";
    let env = TestEnv::new();
    let far = far_path(&env);
    let (_sshd, port) = match sshd(&env, &far) {
        Ok(running) => running,
        Err(why) => return skipped(TEST, &why),
    };
    let ssh = env.path("ssh");
    let root = env.path("");
    let root = root.display();
    let text = format!(
        "#!/bin/sh\nexec ssh -F none -i '{root}/user' -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile='{root}/known' \"$@\"\n"
    );
    script(&ssh, &text);
    let user = env.command("id", &env.path("")).arg("-un").output().expect("id runs");
    let user = String::from_utf8(user.stdout).expect("text");
    let place = format!("{}@127.0.0.1:{port}", user.trim());
    let probe = env
        .command(&ssh, &env.path(""))
        .args(["-p", &port.to_string(), "--"])
        .args([&format!("{}@127.0.0.1", user.trim()), "foldersync --version"])
        .output();
    match probe {
        Ok(probe) if probe.status.success() => {}
        Ok(probe) => {
            let said = String::from_utf8_lossy(&probe.stderr).into_owned();
            return skipped(
                TEST,
                &format!("this user may not log in here: {} {}", said.trim(), env.read("sshd.log").trim()),
            );
        }
        Err(error) => return skipped(TEST, &format!("there is no ssh here: {error}")),
    }
    there_and_back(&env, &ssh, &place);
}
