//! Kills of the real program, at many points of each operation: the next command finishes the work, nothing is lost,
//! nothing is invented.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sites::{git, one_path_per_commit, text};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for name in ["a", "b", "home"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        Self { dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foldersync"));
        command.args(args).current_dir(self.dir.path().join("a")).env_clear();
        command.env("FOLDERSYNC_HOME", self.dir.path().join("home")).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) {
        let output = self.command(args).stderr(Stdio::piped()).output().expect("the program runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs, and kills after `delay`. Whether it was still running.
    fn kill_after(&self, args: &[&str], delay: Duration) -> bool {
        let mut child = self.command(args).spawn().expect("the program runs");
        let until = Instant::now() + delay;
        while Instant::now() < until {
            if child.try_wait().expect("wait").is_some() {
                return false;
            }
            std::thread::yield_now();
        }
        let running = child.try_wait().expect("wait").is_none();
        drop(child.kill());
        child.wait().expect("wait");
        running
    }

    /// Kills at ever later points until the command gets through by itself; answers with the number of kills.
    fn kill_everywhere(&self, args: &[&str], mut before: impl FnMut(), mut after: impl FnMut()) -> usize {
        let mut kills = 0;
        let mut delay = Duration::from_micros(500);
        loop {
            before();
            if !self.kill_after(args, delay) {
                after();
                return kills;
            }
            kills += 1;
            after();
            delay += delay / 12 + Duration::from_micros(300);
        }
    }

    fn site(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

fn fill(root: &Path, files: usize, generation: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for n in 0..files {
        let path = root.join(format!("folder {}/{}/file {n}.txt", n % 7, n % 3));
        fs::create_dir_all(path.parent().expect("below")).expect("folders");
        let content = format!("file {n}, generation {generation}\n").repeat(1 + n % 50);
        ids.insert(foldersync::store::object_id(foldersync::store::ObjectKind::Blob, content.as_bytes()).to_string());
        fs::write(path, content).expect("write");
    }
    ids
}

fn sound(root: &Path) {
    let fsck = git(root, &["fsck", "--full", "--strict", "--no-dangling", "--no-progress"]);
    assert!(fsck.status.success() && fsck.stderr.is_empty(), "{fsck:?}");
    assert_eq!(text(git(root, &["status", "--porcelain"])), "");
    one_path_per_commit(root);
}

fn history(root: &Path) -> BTreeSet<String> {
    let objects = text(git(root, &["rev-list", "--objects", "main"]));
    objects.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
}

fn commits(root: &Path) -> usize {
    text(git(root, &["rev-list", "--count", "main"])).trim().parse().expect("a number")
}

#[test]
fn killed_in_the_middle_of_init() {
    let world = World::new();
    let ids = fill(&world.site("a"), 400, 0);
    let kills = world.kill_everywhere(&["init", "."], || {
        let git_dir = world.site("a").join(".git");
        if git_dir.exists() {
            fs::remove_dir_all(git_dir).expect("remove");
        }
        drop(fs::remove_file(world.site("home").join("config.toml")));
    }, || {
        let a = world.site("a");
        if a.join(".git").exists() {
            world.run(&["commit"]);
            sound(&a);
            assert_eq!(commits(&a), 400);
            assert!(history(&a).is_superset(&ids));
        }
    });
    assert!(kills >= 5, "only {kills} kills");
}

#[test]
fn killed_in_the_middle_of_a_capture() {
    let world = World::new();
    let a = world.site("a");
    let mut ids = fill(&a, 300, 0);
    world.run(&["init", "."]);
    let mut generation = 0;
    let mut expected = 300;
    let kills = world.kill_everywhere(&["commit"], || {
        generation += 1;
        ids.extend(fill(&a, 300, generation));
        expected += 300;
    }, || {
        world.run(&["commit"]);
        sound(&a);
        assert_eq!(commits(&a), expected, "nothing twice, nothing missing");
    });
    assert!(history(&a).is_superset(&ids));
    assert!(kills >= 5, "only {kills} kills");
}

#[test]
fn killed_in_the_middle_of_an_exchange_and_of_its_apply() {
    let world = World::new();
    let (a, b) = (world.site("a"), world.site("b"));
    let mut ids = fill(&a, 300, 0);
    world.run(&["init", "."]);
    world.run(&["init", "../b"]);
    world.run(&["peer", "add", "b", "../b"]);
    let mut generation = 0;
    let mut expected = 300;
    let kills = world.kill_everywhere(&["exchange"], || {
        generation += 1;
        ids.extend(fill(&a, 300, generation));
        fs::write(b.join("own.txt"), format!("{generation}")).expect("write");
        ids.insert(foldersync::store::object_id(foldersync::store::ObjectKind::Blob, generation.to_string().as_bytes()).to_string());
        expected += 301;
    }, || {
        world.run(&["exchange"]);
        for root in [&a, &b] {
            sound(root);
            let own: usize = text(git(root, &["rev-list", "--count", "--no-merges", "main"])).trim().parse().expect("a number");
            assert_eq!(own, expected, "nothing twice, nothing missing");
        }
        assert_eq!(text(git(&a, &["rev-parse", "main"])), text(git(&b, &["rev-parse", "main"])));
        assert_eq!(fs::read(a.join("own.txt")).expect("there"), fs::read(b.join("own.txt")).expect("there"));
        let same = Command::new("diff").args(["-r", "--exclude=.git"]).arg(&a).arg(&b).output().expect("diff");
        assert!(same.status.success(), "{same:?}");
    });
    assert!(history(&a).is_superset(&ids) && history(&b).is_superset(&ids));
    assert!(kills >= 5, "only {kills} kills");
}

#[test]
fn killed_in_the_middle_of_gathering_packs() {
    let world = World::new();
    let a = world.site("a");
    let mut ids = fill(&a, 50, 0);
    world.run(&["init", "."]);
    let mut generation = 0;
    let kills = world.kill_everywhere(&["gc"], || {
        for _ in 0..3 {
            generation += 1;
            ids.extend(fill(&a, 50, generation));
            world.run(&["commit"]);
        }
    }, || {
        sound(&a);
        assert!(history(&a).is_superset(&ids));
    });
    assert!(kills >= 3, "only {kills} kills");
}
