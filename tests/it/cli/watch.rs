//! `foldersync watch`, started and stopped as a person or systemd would.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rstest::rstest;

use crate::sites::{git, skipped, text};
use crate::support::TestEnv;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `foldersync watch`.
struct Watching {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    notify: UnixDatagram,
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).all(|text| line.send(text).is_ok()));
    lines
}

impl Watching {
    /// Watches `docs`, and has captured what was there.
    fn start(env: &TestEnv, arguments: &[&str]) -> Self {
        let mut command = env.foldersync("");
        command.args(arguments);
        Self::run(env, command)
    }

    fn run(env: &TestEnv, mut command: Command) -> Self {
        let socket = env.path("notify");
        drop(fs::remove_file(&socket));
        let notify = UnixDatagram::bind(&socket).expect("a socket");
        notify.set_read_timeout(Some(PATIENCE)).expect("a socket takes it");
        command.env("NOTIFY_SOCKET", &socket).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command runs");
        let out = lines(child.stdout.take().expect("piped"));
        let err = lines(child.stderr.take().expect("piped"));
        let watching = Self { child, out, err, notify };
        assert_eq!(watching.notified(), "READY=1");
        watching
    }

    fn notified(&self) -> String {
        let mut told = [0; 100];
        let length = self.notify.recv(&mut told).expect("it tells systemd");
        String::from_utf8_lossy(&told[..length]).trim().to_owned()
    }

    #[track_caller]
    fn says(&self, line: &str) {
        assert_eq!(self.out.recv_timeout(PATIENCE).as_deref(), Ok(line));
    }

    #[track_caller]
    fn warns(&self, words: &str) {
        loop {
            let line = self.err.recv_timeout(PATIENCE).expect("a line on standard error");
            if line.contains(words) {
                return;
            }
        }
    }

    /// Stops it, and returns what it had still to say.
    #[track_caller]
    fn stop(mut self, signal: &str) -> Vec<String> {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(killed.success());
        assert_eq!(self.notified(), "STOPPING=1");
        assert_eq!(self.child.wait().expect("it ends").code(), Some(0));
        self.out.iter().collect()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn docs() -> TestEnv {
    let env = TestEnv::new();
    env.write("docs/notes.txt", "one\n");
    env.run(["init", "docs"]).ended(0);
    env
}

fn revisions(env: &TestEnv) -> Vec<String> {
    let log = text(git(&env.path("docs"), &["log", "--reverse", "--format=%s"]));
    log.lines().map(ToOwned::to_owned).collect()
}

#[rstest]
#[case::ctrl_c("-INT")]
#[case::systemd("-TERM")]
#[case::a_closed_terminal("-HUP")]
fn captures_what_changed_before_and_what_changes_until_it_is_stopped(#[case] signal: &str) {
    let env = docs();
    env.write("docs/before", "1");
    let watching = Watching::start(&env, &["watch", "docs"]);
    watching.says("add before");
    env.write("docs/notes.txt", "two\n");
    watching.says("change notes.txt");
    fs::remove_file(env.path("docs/before")).expect("it is there");
    watching.says("delete before");
    env.write("docs/odd\u{1b}[2J\nname", "1");
    watching.says("add odd\u{1b}[2J");
    watching.says("name");
    assert_eq!(watching.stop(signal), Vec::<String>::new());
    assert_eq!(revisions(&env)[1..4], ["add before", "change notes.txt", "delete before"]);
    assert_eq!(text(git(&env.path("docs"), &["status", "--porcelain"])), "");
}

#[test]
fn json_is_a_document_for_each_revision() {
    let env = docs();
    let watching = Watching::start(&env, &["--json", "watch", "docs"]);
    env.write("docs/odd\nname", "1");
    watching.says(r#"{"verb":"add","path":"\"odd\\nname\""}"#);
    assert_eq!(watching.stop("-TERM"), Vec::<String>::new());
}

#[test]
fn a_directory_that_is_moved_in_is_captured_and_watched() {
    let env = docs();
    env.write("outside/deep/a", "1");
    env.write("outside/b", "2");
    let watching = Watching::start(&env, &["watch", "docs"]);
    fs::rename(env.path("outside"), env.path("docs/in")).expect("the same file system");
    watching.says("add in/b");
    watching.says("add in/deep/a");
    env.write("docs/in/deep/a", "11");
    watching.says("change in/deep/a");
    fs::rename(env.path("docs/in"), env.path("docs/on")).expect("it is there");
    let mut renamed: Vec<_> = (0..4).map(|_| watching.out.recv_timeout(PATIENCE).expect("a line")).collect();
    renamed.sort_unstable();
    assert_eq!(renamed, ["add on/b", "add on/deep/a", "delete in/b", "delete in/deep/a"]);
    env.write("docs/on/deep/a", "111");
    watching.says("change on/deep/a");
    assert_eq!(watching.stop("-TERM"), Vec::<String>::new());
}

#[test]
fn an_atomic_save_is_one_revision() {
    let env = docs();
    let watching = Watching::start(&env, &["watch", "docs"]);
    for (number, temporary) in [".notes.txt.swp", "notes.txt~", ".goutputstream-A1"].iter().enumerate() {
        let temporary = env.path(&format!("docs/{temporary}"));
        fs::write(&temporary, format!("version {number}\n")).expect("a file");
        fs::rename(&temporary, env.path("docs/notes.txt")).expect("it is there");
        watching.says("change notes.txt");
    }
    assert_eq!(watching.stop("-TERM"), Vec::<String>::new());
    assert_eq!(revisions(&env).len(), 4);
}

#[test]
fn a_folder_that_goes_is_told_and_waited_for_and_nothing_is_lost() {
    let env = docs();
    let watching = Watching::start(&env, &["watch", "docs"]);
    fs::rename(env.path("docs"), env.path("elsewhere")).expect("it is there");
    watching.warns("the folder is gone");
    // Something else in its place is not it.
    env.write("docs/other", "1");
    env.write("elsewhere/meanwhile", "1");
    fs::remove_dir_all(env.path("docs")).expect("it is there");
    fs::rename(env.path("elsewhere"), env.path("docs")).expect("it is there");
    watching.warns("watched again");
    watching.says("add meanwhile");
    env.write("docs/notes.txt", "two\n");
    watching.says("change notes.txt");
    assert_eq!(watching.stop("-TERM"), Vec::<String>::new());
    assert_eq!(revisions(&env), ["add notes.txt", "add meanwhile", "change notes.txt"]);
}

#[test]
fn a_deleted_folder_is_told_and_it_can_be_stopped() {
    let env = docs();
    let watching = Watching::start(&env, &["watch", "docs"]);
    fs::remove_dir_all(env.path("docs")).expect("it is there");
    watching.warns("the folder is gone");
    watching.stop("-TERM");
}

#[test]
fn another_process_at_work_is_waited_for() {
    let env = docs();
    let watching = Watching::start(&env, &["watch", "docs"]);
    let lock = fs::read_dir(env.path("docs/.git")).expect("a repository");
    assert!(lock.count() > 0);
    // A commit by hand while it watches: whoever comes second finds nothing to do.
    for number in 0..10 {
        env.write(&format!("docs/{number}"), "1");
        let code = env.run_in("docs", ["commit"]).status;
        assert!(matches!(code, Some(0 | 75)), "{code:?}");
    }
    env.write("docs/last", "1");
    loop {
        if watching.out.recv_timeout(PATIENCE).expect("a line") == "add last" {
            break;
        }
    }
    watching.stop("-TERM");
    assert_eq!(revisions(&env).len(), 12, "each file once");
}

/// A watched disk can be unmounted: but for the moments in which it is looked at, nothing on it is open.
#[test]
fn a_folder_whose_disk_is_unmounted_is_waited_for() {
    const TEST: &str = "a_folder_whose_disk_is_unmounted_is_waited_for";
    let env = docs();
    let script = "mount --bind disk mounted || exit 99
        \"$FS\" watch mounted & child=$!
        read -r line <fifo
        tries=0; until umount mounted; do tries=$((tries+1)); test $tries -lt 500 || exit 98; done
        read -r line <fifo
        mount --bind disk mounted; echo 1 >mounted/after
        read -r line <fifo
        kill $child; wait $child";
    for dir in ["disk", "mounted"] {
        fs::create_dir(env.path(dir)).expect("a directory");
    }
    env.run(["init", "disk"]).ended(0);
    let mut command = env.command("unshare", &env.path(""));
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).env("FS", env!("CARGO_BIN_EXE_foldersync"));
    let made = Command::new("mkfifo").arg(env.path("fifo")).status().expect("mkfifo runs");
    assert!(made.success());
    let notify = UnixDatagram::bind(env.path("notify")).expect("a socket");
    notify.set_read_timeout(Some(PATIENCE)).expect("a socket takes it");
    command.env("NOTIFY_SOCKET", env.path("notify")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("unshare runs");
    let (out, err) = (lines(child.stdout.take().expect("piped")), lines(child.stderr.take().expect("piped")));
    let mut told = [0; 100];
    notify.set_nonblocking(true).expect("a socket takes it");
    loop {
        if notify.recv(&mut told).is_ok() {
            break;
        }
        if let Some(code) = child.try_wait().expect("it runs").and_then(|status| status.code()) {
            let said: Vec<String> = err.iter().collect();
            assert!(code == 99 || code == 1, "{code}: {said:?}");
            return skipped(TEST, "no mounts are permitted here");
        }
        thread::yield_now();
    }
    let go_on = || fs::write(env.path("fifo"), "on\n").expect("a reader");
    let until = |lines: &Receiver<String>, words: &str| loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line with {words:?}"));
        if line.contains(words) {
            break;
        }
    };
    go_on();
    until(&err, "the folder is gone");
    go_on();
    until(&err, "watched again");
    until(&out, "add after");
    go_on();
    assert!(child.wait().expect("it ends").success());
    let log = text(git(&env.path("disk"), &["log", "--format=%s"]));
    assert_eq!(log, "add after\n");
}
